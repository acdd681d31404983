package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is a program in one of the namespaces.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Reader
	// said is the file with its stderr.
	said string
	// ended is closed when it has ended, with err.
	ended chan struct{}
	err   error
}

func (b *bench) start(ctx context.Context, namespace, name string, args ...string) (*process, error) {
	p := &process{cmd: b.net.command(ctx, namespace, args...), said: filepath.Join(b.scratch, name+".log"), ended: make(chan struct{})}
	log, err := os.Create(p.said)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd.Stderr = log
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	// A pipe of our own: Wait closes that of StdoutPipe before all has been read.
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	p.cmd.Stdout = in
	p.lines = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting %s: %w", name, err), out.Close())
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// line is the next line of its stdout.
func (p *process) line() (string, error) {
	s, err := p.lines.ReadString('\n')
	if err != nil {
		<-p.ended
		return "", p.failed("ended early")
	}
	return strings.TrimSuffix(s, "\n"), nil
}

// role waits until one of ours is ready.
func (p *process) role() error {
	switch s, err := p.line(); {
	case err != nil:
		return err
	case s != "ready":
		return fmt.Errorf("%s says %q", p.cmd, s)
	}
	return nil
}

// says waits until words stand in its stderr.
func (p *process) says(words string) error {
	for {
		text, err := os.ReadFile(p.said)
		if err != nil {
			return err
		}
		if bytes.Contains(text, []byte(words)) {
			return nil
		}
		select {
		case <-p.ended:
			return p.failed("does not start")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// send tells a sender to begin.
func (p *process) send() error {
	_, err := io.WriteString(p.stdin, "\n")
	return err
}

// took waits for a sender, and is how long it sent.
func (p *process) took() (time.Duration, error) {
	s, err := p.line()
	if err != nil {
		return 0, err
	}
	ns, err := strconv.ParseInt(s, 10, 64)
	return time.Duration(ns), err
}

// stop ends it as somebody at the terminal does, and waits.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(unix.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.ended
	if p.err != nil {
		return p.failed("did not end well")
	}
	return nil
}

// kill ends it in any case.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // most often it has ended
	<-p.ended
}

func (p *process) failed(how string) error {
	said, _ := os.ReadFile(p.said)
	lines := strings.Split(strings.TrimSpace(string(said)), "\n")
	return fmt.Errorf("%s %s (%w): %s", strings.Join(p.cmd.Args, " "), how, p.err, lines[len(lines)-1])
}
