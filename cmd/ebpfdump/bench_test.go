package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
)

// requireTools skips a test that needs root and programs of the distribution, or fails it
// under EBPFDUMP_REQUIRE=1.
func requireTools(tb testing.TB, tools ...string) {
	tb.Helper()
	names := []string{"privileged"}
	for _, tool := range tools {
		names = append(names, "tool:"+installed(tool))
	}
	for _, name := range names {
		ok, err := condition(name)
		if err != nil {
			tb.Fatal(err)
		}
		if !ok {
			tb.Skipf("needs %s", name)
		}
	}
}

// bench is a network namespace and a directory in which to run programs of the
// distribution.
type bench struct {
	testing.TB
	dir string
	ns  *capture.Namespace
}

func newBench(tb testing.TB) *bench {
	tb.Helper()
	ns, err := capture.NewNamespace()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(ns.Close)
	return &bench{TB: tb, dir: tb.TempDir(), ns: ns}
}

// ended is the end of a program, for which several goroutines can wait.
type ended struct {
	done chan struct{}
	err  error
}

// launch starts a program in the namespace.
func (b *bench) launch(cmd *exec.Cmd) *ended {
	b.Helper()
	cmd.Dir = b.dir
	cmd.WaitDelay = testTimeout // for children that have its output
	if err := b.ns.Do(cmd.Start); err != nil {
		b.Fatal(err)
	}
	e := &ended{done: make(chan struct{})}
	go func() {
		e.err = cmd.Wait()
		close(e.done)
	}()
	return e
}

// start starts a server, and waits until a client gets an answer.
func (b *bench) start(server, client []string) *exec.Cmd {
	b.Helper()
	cmd := exec.Command(server[0], server[1:]...)
	var log output
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	end := b.launch(cmd)
	b.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		select {
		case <-end.done:
		case <-time.After(stopTimeout):
			_ = cmd.Process.Kill()
		}
		// Some leave children behind that hold its output open.
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		<-end.done
		if b.Failed() {
			b.Logf("%s said:\n%s", server[0], log.String())
		}
	})
	b.awaitAnswer(client, end)
	return cmd
}

// awaitAnswer waits until a client of a server gets an answer.
func (b *bench) awaitAnswer(client []string, server *ended) {
	b.Helper()
	for begin := time.Now(); ; {
		_, err := b.run(client...)
		if err == nil {
			return
		}
		if time.Since(begin) > testTimeout {
			b.Fatalf("the server does not serve: %v", err)
		}
		select {
		case <-server.done:
			b.Fatalf("the server has ended: %v", server.err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stopTimeout is how long a server may take to end by itself.
const stopTimeout = 5 * time.Second

// run runs a program in the namespace to its end.
func (b *bench) run(args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = b.dir
	var stdout, stderr output
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := b.ns.Do(cmd.Start); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return stdout.String(), fmt.Errorf("%v: %w: %s", args, err, stderr.String())
	}
	return stdout.String(), nil
}

func (b *bench) must(args ...string) string {
	b.Helper()
	out, err := b.run(args...)
	if err != nil {
		b.Fatal(err)
	}
	return out
}

// dial connects from within the namespace.
func (b *bench) dial(network, address string) net.Conn {
	b.Helper()
	var conn net.Conn
	err := b.ns.Do(func() (err error) {
		conn, err = net.Dial(network, address)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(testTimeout)); err != nil {
		b.Fatal(err)
	}
	return conn
}

// halfClose ends our side of a connection, and waits for the other side to end without
// another byte: it closes only after it has read everything.
func (b *bench) halfClose(conn net.Conn) {
	b.Helper()
	defer conn.Close()
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		b.Error(err)
	}
	if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
		b.Errorf("%q at the end: %v", rest, err)
	}
}

// listen listens on a TCP port within the namespace.
func (b *bench) listen(address string) (listener net.Listener) {
	b.Helper()
	err := b.ns.Do(func() (err error) {
		listener, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return listener
}

// write writes a file.
func (b *bench) write(name string, data []byte) {
	b.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), data, 0o644); err != nil {
		b.Fatal(err)
	}
}

// read reads a file.
func (b *bench) read(name string) []byte {
	b.Helper()
	data, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil {
		b.Fatal(err)
	}
	return data
}

// output collects what a program prints.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// recording is a running ebpfdump.
type recording struct {
	*bench
	cmd    *exec.Cmd
	end    *ended
	file   string
	stdout output // a command's
	stderr output
}

// named makes a link to the test binary under a name by which TestMain knows which
// program to be.
func (b *bench) named(name string) string {
	b.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.dir, name)
	if err := os.Symlink(exe, path); err != nil && !errors.Is(err, os.ErrExist) {
		b.Fatal(err)
	}
	return path
}

// record starts ebpfdump and waits until it listens.
func (b *bench) record(args ...string) *recording {
	b.Helper()
	return b.recordBy(exec.Command(b.named("ebpfdump"), slices.Concat([]string{"capture", "-o", b.recordTo()}, args)...))
}

// recordTo is the output of the recording.
func (b *bench) recordTo() string { return filepath.Join(b.dir, "live.pcapng") }

// recordBy starts ebpfdump with a command that executes it.
func (b *bench) recordBy(cmd *exec.Cmd) *recording {
	b.Helper()
	r := &recording{bench: b, file: b.recordTo(), cmd: cmd}
	r.cmd.Stdout, r.cmd.Stderr = &r.stdout, &r.stderr
	r.end = b.launch(r.cmd)
	for begin := time.Now(); !strings.Contains(r.stderr.String(), "listening on"); {
		select {
		case <-r.end.done:
			b.Fatalf("ebpfdump ended: %v\n%s", r.end.err, r.stderr.String())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Since(begin) > testTimeout {
			_ = r.cmd.Process.Kill()
			b.Fatalf("ebpfdump does not listen\n%s", r.stderr.String())
		}
	}
	return r
}

// join is record for a running server.
func (b *bench) join(server *exec.Cmd, flags ...string) *recording {
	b.Helper()
	return b.record(append([]string{"--pid", fmt.Sprint(server.Process.Pid)}, flags...)...)
}

// awaitRead waits until all receive queues in the namespace are empty.
func (b *bench) awaitRead() {
	b.Helper()
	for begin := time.Now(); time.Since(begin) < testTimeout; time.Sleep(20 * time.Millisecond) {
		waits := false
		for line := range strings.Lines(b.must("ss", "-Htuan")) {
			waits = waits || strings.Fields(line)[2] != "0"
		}
		if !waits {
			return
		}
	}
	b.Error("something is never read: " + b.must("ss", "-Htuanp"))
}

// awaitClosed waits until no connection in the namespace is being closed: its last
// segments would be the first that a tap sees.
func (b *bench) awaitClosed() {
	b.Helper()
	closing := []string{"ss", "-Htan", "state", "fin-wait-1", "state", "fin-wait-2", "state", "closing", "state", "close-wait", "state", "last-ack"}
	for begin := time.Now(); time.Since(begin) < testTimeout; time.Sleep(20 * time.Millisecond) {
		if b.must(closing...) == "" {
			return
		}
	}
	b.Error("something is never closed: " + b.must("ss", "-tanp"))
}

// finish ends the recording when everything is read. A command gets the signal.
func (r *recording) finish(s os.Signal) {
	r.Helper()
	r.awaitRead()
	time.Sleep(200 * time.Millisecond) // the end of the last call
	if err := r.cmd.Process.Signal(s); err != nil {
		r.Fatal(err)
	}
}

// wait waits until ebpfdump has ended, with status 0.
func (r *recording) wait() {
	r.Helper()
	select {
	case <-r.end.done:
		if r.end.err != nil {
			r.Fatalf("ebpfdump: %v\n%s", r.end.err, r.stderr.String())
		}
	case <-time.After(testTimeout):
		_ = r.cmd.Process.Signal(unix.SIGQUIT) // Go says where it hangs
		<-r.end.done
		r.Fatalf("ebpfdump does not end\n%s", r.stderr.String())
	}
}

// fields returns tshark's fields of the packets that a display filter selects.
func (b *bench) fields(file, filter string, names ...string) [][]string {
	b.Helper()
	args := []string{"tshark", "-r", file, "-Y", filter, "-T", "fields"}
	for _, name := range names {
		args = append(args, "-e", name)
	}
	var rows [][]string
	for line := range strings.Lines(b.must(args...)) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	return rows
}

// checkWhole checks by the closing lines that nothing was lost.
func (b *bench) checkWhole(r *recording) {
	b.Helper()
	said := r.stderr.String()
	if !strings.Contains(said, "\n0 packets dropped by kernel\n") || strings.Contains(said, "system calls:") || strings.Contains(said, "nobody knows") {
		b.Errorf("ebpfdump said:\n%s", said)
	}
}
