package capture

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/process"
)

// target is a process to join.
type target struct {
	*exec.Cmd
	address string
	stdin   io.WriteCloser
	lines   *bufio.Scanner
	ns      *Namespace
}

// startTarget starts a target in a network namespace of its own.
func startTarget(tb testing.TB, args ...string) *target {
	tb.Helper()
	return startTargetWith(tb, nil, args...)
}

// startTargetWith gives it files besides, from descriptor 3 on.
func startTargetWith(tb testing.TB, files []*os.File, args ...string) *target {
	tb.Helper()
	t := &target{
		Cmd: &exec.Cmd{Path: "/proc/self/exe", Args: append([]string{targetName}, args...), Stderr: os.Stderr, ExtraFiles: files},
		ns:  mustNamespace(tb),
	}
	var err error
	if t.stdin, err = t.StdinPipe(); err != nil {
		tb.Fatal(err)
	}
	stdout, err := t.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := t.ns.Do(t.Start); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		t.stdin.Close()
		t.Wait()
	})
	t.lines = bufio.NewScanner(patient{stdout.(*os.File)})
	t.address = t.line(tb)
	return t
}

// patience is how long a test waits for what must come: then it is to fail and say where, before all tests run out
// of time.
const patience = 2 * time.Minute

// patient is a pipe that is read no longer than that.
type patient struct{ *os.File }

func (p patient) Read(to []byte) (int, error) {
	if err := p.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	return p.File.Read(to)
}

// line waits for what the target says next.
func (t *target) line(tb testing.TB) string {
	tb.Helper()
	if !t.lines.Scan() {
		tb.Fatalf("the target %v says nothing: %v", t.Args, t.lines.Err())
	}
	return t.lines.Text()
}

func (t *target) dial(tb testing.TB, network, address string) net.Conn {
	tb.Helper()
	conn := dialFrom(tb, t.ns, network, address)
	tb.Cleanup(func() { conn.Close() })
	return conn
}

// exchange sends a text and waits for its echo.
func exchange(tb testing.TB, conn net.Conn, text string) {
	tb.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		tb.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		tb.Fatal(err)
	}
	back := make([]byte, len(text))
	if _, err := io.ReadFull(conn, back); err != nil {
		tb.Fatalf("the echo of %q: %v", text, err)
	}
	if string(back) != text {
		tb.Errorf("sent %q, the echo is %q", text, back)
	}
}

// notices collects what a session says.
type notices struct{ lines chan string }

func newNotices() *notices { return &notices{make(chan string, 100)} }

func (n *notices) add(text string) { n.lines <- text }

func (n *notices) all() string {
	var all []string
	for {
		select {
		case l := <-n.lines:
			all = append(all, l)
		default:
			return strings.Join(all, "\n")
		}
	}
}

// runLive is collect for a process that may not have read yet.
func runLive(tb testing.TB, l *Live, traffic func()) *memory {
	tb.Helper()
	sink := collect(tb, l, func() {
		traffic()
		quiet(tb, l)
	})
	skipMissed(tb, l)
	return sink
}

// skipMissed skips a test in which the kernel says that it did not run the
// programs for some calls: what is missing then is no fault of ours. From Linux 7.0 on it
// happens while somebody who changes a map is preempted.
func skipMissed(tb testing.TB, l *Live) {
	tb.Helper()
	counts, err := l.Counts()
	if err != nil {
		tb.Fatal(err)
	}
	if n := counts.Calls.Missed + counts.Sends.Missed; bpf.Preemptible() && n > 0 {
		spoiled.Add(1)
		tb.Skipf("the kernel missed %d calls: the test shows nothing", n)
	}
	sound.Add(1)
}

// quiet waits until nothing has come for a while, and the processes that were joined have nothing to
// do: on a busy machine they may wait for a processor for longer than that.
func quiet(tb testing.TB, l *Live) {
	tb.Helper()
	var last Counts
	for since := time.Now(); time.Since(since) < 300*time.Millisecond; time.Sleep(20 * time.Millisecond) {
		counts, err := l.Counts()
		if err != nil {
			tb.Fatal(err)
		}
		counts.Calls.Missed, counts.Sends.Missed = 0, 0 // of the whole machine
		if counts != last || busy(l.config.PIDs...) {
			last, since = counts, time.Now()
		}
	}
}

// busy tells whether a thread of processes or their children is not asleep.
func busy(pids ...int) bool {
	for _, pid := range pids {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		for _, name := range threads {
			stat, err := os.ReadFile(name)
			if err != nil {
				continue // it has ended
			}
			// After the name, which may contain any character.
			if state := stat[bytes.LastIndexByte(stat, ')')+2]; state == 'R' || state == 'D' {
				return true
			}
		}
		p, err := process.Open(pid)
		if err != nil {
			continue
		}
		children := p.Children()
		p.Close()
		if busy(children...) {
			return true
		}
	}
	return false
}
