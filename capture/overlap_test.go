package capture

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/process"
	"github.com/ebpfdump/ebpfdump/internal/confine"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// begin runs a capture until end is called, which waits until it has recorded what came. What it has recorded may be
// read after that.
func begin(t *testing.T, l *Live) (sink *memory, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	sink = new(memory)
	ran := make(chan error, 1)
	go func() { ran <- l.Run(ctx, sink) }()
	over := false
	end = func() {
		if over {
			return
		}
		over = true
		cancel()
		select {
		case err := <-ran:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
			t.Fatal("the capture does not end")
		}
	}
	t.Cleanup(func() {
		end()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return sink, end
}

// everything is what the owner's filters decide about by the bytes, and decided what they leave of it.
var everything, decided = []string{"keep", "drop it", "last"}, []string{"keep", "last"}

// A capture leaves the tap of another one that goes on where it is, and says whose it is: that one records
// everything, and whichever ends first, the socket has its own filter back.
func TestOverlap(t *testing.T) {
	testutil.BPFFileSystem(t)
	wraps, replaces, judges := JoinConfig{WrapFilter: true}, JoinConfig{ReplaceFilter: true}, JoinConfig{Options: Options{Verdict: bpf.Keep(-1)}}
	for _, c := range []struct {
		own           string
		first, second JoinConfig
		firstEnds     bool // before the second
	}{
		{"classic", wraps, replaces, false},
		{"classic", replaces, replaces, true},
		{"bytes", wraps, replaces, true},
		{"bytes", replaces, wraps, true},
		{"classic", replaces, judges, true},
	} {
		server, conn, _ := owned(t, c.own, false)
		before := ownFiltersOf(t, server)
		c.first.PIDs, c.second.PIDs = []int{server.Process.Pid}, []int{server.Process.Pid}
		first := mustJoin(t, c.first)
		sink, endFirst := begin(t, first)
		said := newNotices()
		c.second.Notice = said.add
		second := mustJoin(t, c.second)
		_, endSecond := begin(t, second)

		want := everything
		if c.first.WrapFilter {
			want = decided
		}
		if got := server.sendAll(t, conn, everything...); !slices.Equal(got, want) {
			t.Errorf("%+v: the process got %q, want %q", c, got, want)
		}
		quiet(t, first)
		if c.firstEnds {
			endFirst()
			if got := server.sendAll(t, conn, everything...); !slices.Equal(got, decided) {
				t.Errorf("%+v: after the first one's end the process got %q", c, got)
			}
			endSecond()
		} else {
			endSecond()
			endFirst()
		}
		if n := len(sink.view(ViewKernel)); n != len(everything) {
			t.Errorf("%+v: the first one has %d packets", c, n)
		}
		text := said.all()
		if whose := fmt.Sprintf("process %d: end that one first (kill -INT %[1]d)", os.Getpid()); strings.Count(text, whose) != 1 {
			t.Errorf("%+v: it says %q, want %q", c, text, whose)
		}
		checkAccounts(t, second)
		if after := ownFiltersOf(t, server); !slices.Equal(after, before) {
			t.Errorf("%+v: filters before %v, after %v", c, before, after)
		}
		if got := server.sendAll(t, conn, everything...); !slices.Equal(got, decided) {
			t.Errorf("%+v: in the end the process got %q", c, got)
		}
		server.stdin.Close()
		server.Wait()
	}
}

// checkAccounts checks that nothing that came during the capture is called older.
func checkAccounts(t *testing.T, l *Live) {
	t.Helper()
	all, err := l.Statistics()
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range all {
		if strings.Contains(st.Comment, "from before the tap") {
			t.Errorf("%s: %s", st.Interface.Name(), st.Comment)
		}
	}
}

// Connections that are made while two captures go on have the tap of the first one, and none in the end.
func TestOverlapConnections(t *testing.T) {
	for _, firstEnds := range []bool{false, true} {
		server := startTarget(t, "echo", "tcp4", "127.0.0.1:0")
		config := JoinConfig{PIDs: []int{server.Process.Pid}, ReplaceFilter: true}
		first := mustJoin(t, config)
		sink, endFirst := begin(t, first)
		said := newNotices()
		config.Notice = said.add
		_, endSecond := begin(t, mustJoin(t, config))
		conn := server.dial(t, "tcp", server.address)
		exchange(t, conn, "both")
		quiet(t, first)
		if firstEnds {
			endFirst()
			exchange(t, conn, "one")
			endSecond()
		} else {
			endSecond()
			endFirst()
		}
		if got := streamOf(sink, conn.LocalAddr()); got != "both" || len(sink.view(ViewKernel)) < 3 {
			t.Errorf("the first one has %q, %d packets", got, len(sink.view(ViewKernel)))
		}
		if text := said.all(); !strings.Contains(text, "listening on ") || !strings.Contains(text, "end that one first") || strings.Contains(text, "does not have the tap") {
			t.Errorf("it says %q", text)
		}
		checkNoFilter(t, server.Process.Pid)
	}
}

// What a capture that was killed has left on a socket may be replaced, and in the end that is there which decides
// what the socket's own filter does.
func TestReplaceLeft(t *testing.T) {
	testutil.BPFFileSystem(t)
	for _, own := range []string{"classic", "bytes"} {
		server, conn, _ := owned(t, own, false)
		before := ownFiltersOf(t, server)
		joiner := startTarget(t, "joiner", fmt.Sprint(server.Process.Pid), "wrap")
		if err := joiner.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		joiner.Wait()
		folder, err := bpf.FileSystem()
		if err != nil {
			t.Fatal(err)
		}
		const pinned = "ebpfdump-wrapper-"
		pins, err := filepath.Glob(filepath.Join(folder, pinned+"*"))
		left := fmt.Sprint(ownFiltersOf(t, server))
		pins = slices.DeleteFunc(pins, func(pin string) bool { // those of other tests
			return !strings.Contains(left, "]"+strings.TrimPrefix(filepath.Base(pin), pinned)+"tap_wrapper")
		})
		if err != nil || (len(pins) == 1) != (own == "bytes") {
			t.Errorf("%s: pins %q, %v", own, pins, err)
		}
		if own == "classic" {
			before = ownFiltersOf(t, server) // its instructions are in the program that was left
		}
		l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, ReplaceFilter: true})
		var got []string
		sink := runLive(t, l, func() { got = server.sendAll(t, conn, everything...) })
		if n := len(sink.view(ViewKernel)); n != len(everything) || !slices.Equal(got, everything) {
			t.Errorf("%s: %d packets, the process got %q", own, n, got)
		}
		if got := server.sendAll(t, conn, everything...); !slices.Equal(got, decided) {
			t.Errorf("%s: in the end the process got %q", own, got)
		}
		if after := ownFiltersOf(t, server); !slices.Equal(after, before) {
			t.Errorf("%s: filters before %v, after %v", own, before, after)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		for _, pin := range pins {
			if _, err := os.Stat(pin); err == nil {
				t.Errorf("%s is left", pin)
			}
		}
		server.stdin.Close()
		server.Wait()
	}
}

// onSocket calls do with a copy of the owner's socket.
func onSocket(t *testing.T, server *target, do func(fd int) error) {
	t.Helper()
	p, err := process.Open(server.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.EachSocket(func(fd int, _ uint64) error {
		if domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || domain == unix.AF_UNIX {
			return err
		}
		return do(fd)
	}); err != nil {
		t.Fatal(err)
	}
}

// If somebody takes the tap off a socket, that is said while the capture goes on or at its end, and what came
// since is not called older than the capture. What is there then stays, unless a capture has left it.
func TestTapTakenOff(t *testing.T) {
	testutil.RequireRoot(t)
	for _, c := range []struct {
		takes string
		waits bool // until it is said, during the capture
		says  string
		after []string // what the process gets in the end
	}{
		{"none", true, "there is no filter, which stays so", everything},
		{"classic", false, "there is classic filter of 6 instructions, which stays so", decided},
		{"bytes", false, "(own_bytes), loaded ", decided},
		{"tap", false, "this capture cannot put the socket's own filter back", everything},
		{"left", false, "for which its own filter is back", decided},
	} {
		server, conn, _ := owned(t, "classic", false)
		said := newNotices()
		l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, ReplaceFilter: true, Options: Options{Notice: said.add}})
		_, end := begin(t, l)
		var other *bpf.Tap
		if c.takes == "tap" || c.takes == "left" {
			var err error
			if other, err = bpf.Open(bpf.Options{RingSize: bpf.MinRingSize, Leased: true}); err != nil {
				t.Fatal(err)
			}
			onSocket(t, server, other.Attach)
			if c.takes == "left" {
				other.Close()
			}
		} else {
			server.says(t, "filter "+c.takes)
		}
		want := everything
		if c.takes == "classic" || c.takes == "bytes" {
			want = decided
		}
		if got := server.sendAll(t, conn, everything...); !slices.Equal(got, want) {
			t.Errorf("%s: the process got %q", c.takes, got)
		}
		quiet(t, l)
		text := ""
		for until := time.Now().Add(time.Minute); c.waits && text == "" && time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
			text = said.all()
		}
		end()
		text += said.all()
		if strings.Count(text, "does not have the tap any more") == 0 || !strings.Contains(text, c.says) || !strings.Contains(text, l.Process()) {
			t.Errorf("%s: it says %q", c.takes, text)
		}
		checkAccounts(t, l)
		all, err := l.Statistics()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(all, func(st Statistics) bool {
			return strings.Contains(st.Comment, fmt.Sprintf("- %d delivered while the tap was not on the socket", len(want)))
		}) {
			t.Errorf("%s: %+v", c.takes, all)
		}
		if got := server.sendAll(t, conn, everything...); !slices.Equal(got, c.after) {
			t.Errorf("%s: in the end the process got %q", c.takes, got)
		}
		if c.takes == "tap" {
			other.Close()
		}
		server.stdin.Close()
		server.Wait()
	}
}

// A capture whose process was stopped for longer than its lease lasts goes on, and so does its tap. A unix socket
// has room for one.
func TestOverlapOfStopped(t *testing.T) {
	testutil.BPFFileSystem(t)
	server, conn, _ := owned(t, "bytes", true)
	before := ownFiltersOf(t, server)
	joiner := startTarget(t, "joiner", fmt.Sprint(server.Process.Pid), "wrap")
	if err := joiner.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { joiner.Process.Kill() }) // it would not end by itself
	time.Sleep(bpf.Lease + bpf.Lease/10)
	for _, config := range []JoinConfig{{}, {ReplaceFilter: true}} {
		said := newNotices()
		config.PIDs, config.Notice = []int{server.Process.Pid}, said.add
		l := mustJoin(t, config)
		_, end := begin(t, l)
		if got := server.sendAll(t, conn, everything...); !slices.Equal(got, decided) {
			t.Errorf("%+v: the process got %q", config, got)
		}
		end()
		if text := said.all(); !strings.Contains(text, fmt.Sprintf("process %d: end that one first", joiner.Process.Pid)) || strings.Contains(text, "ReplaceFilter takes its place") {
			t.Errorf("it says %q", text)
		}
	}
	if during := ownFiltersOf(t, server); slices.Equal(during, before) {
		t.Errorf("filters before and during %v", before)
	}
}

// The tap of a session on its own socket is the filter of that process like any other: it is replaced, and put back.
func TestOverlapOfSession(t *testing.T) {
	testutil.RequireRoot(t)
	server, conn, _ := owned(t, "none", false)
	tap, err := bpf.Open(bpf.Options{RingSize: bpf.MinRingSize})
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	onSocket(t, server, tap.Attach)
	before := ownFiltersOf(t, server)
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, ReplaceFilter: true})
	if during := ownFiltersOf(t, server); slices.Equal(during, before) {
		t.Errorf("filters before and during %v", before)
	}
	sink := runLive(t, l, func() { server.sendAll(t, conn, everything...) })
	if after := ownFiltersOf(t, server); !slices.Equal(after, before) || len(sink.view(ViewKernel)) != len(everything) {
		t.Errorf("filters before %v, after %v; %d packets", before, after, len(sink.view(ViewKernel)))
	}
}

// Connections that are made during the capture have the filter in the end that they would have from their listener.
func TestReplaceFilterOfListener(t *testing.T) {
	testutil.RequireRoot(t)
	server := startTarget(t, "filtered")
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, ReplaceFilter: true})
	conn := server.dial(t, "tcp", server.address)
	exchange(t, conn, "before Run")
	sink := runLive(t, l, func() { exchange(t, conn, "all of it") })
	if n := len(sink.view(ViewKernel)); n < 4 {
		t.Errorf("%d packets", n)
	}
	all := filtersOf(t, server.Process.Pid)
	for _, f := range all {
		if len(all) != 2 || len(f.classic) != 1 {
			t.Errorf("in the end the listener and its connection have %+v", all)
		}
	}
}

// An eBPF filter that could not be put back is not replaced, and it is said what is missing.
func TestReplaceFilterUnprivileged(t *testing.T) {
	testutil.RequirePrivilege(t)
	server, conn, _ := owned(t, "bytes", false)
	before := ownFiltersOf(t, server)
	out, err := (&exec.Cmd{Path: "/proc/self/exe", Args: []string{targetName, "replacer", fmt.Sprint(server.Process.Pid)}}).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "is left alone: ") || !strings.Contains(string(out), "needs CAP_SYS_ADMIN") {
		t.Errorf("%v: %s", err, out)
	}
	if after := ownFiltersOf(t, server); !slices.Equal(after, before) {
		t.Errorf("filters before %v, after %v", before, after)
	}
	if got := server.sendAll(t, conn, everything...); !slices.Equal(got, decided) {
		t.Errorf("the process got %q", got)
	}
}

// targetReplacer joins a process with all that this needs, but without what takes hold of eBPF filters.
func targetReplacer(args []string) error {
	pid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if err := confine.Keep(unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH); err != nil {
		return err
	}
	l, err := Join(JoinConfig{PIDs: []int{pid}, ReplaceFilter: true, Options: Options{Notice: func(text string) { fmt.Println(text) }}})
	if err != nil {
		return err
	}
	return l.Close()
}
