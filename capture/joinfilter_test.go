package capture

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ebpfdump/ebpfdump/bpf"
)

func TestReplaceFilterPutsItBack(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "filter")
	before := filtersOf(t, server.Process.Pid)
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, ReplaceFilter: true})
	sink := runLive(t, l, func() {
		conn := server.dial(t, "udp", server.address)
		if _, err := io.WriteString(conn, "seen"); err != nil {
			t.Fatal(err)
		}
		// A guest may take a while; a call that the kernel has missed never comes.
		for range 1000 {
			if counts, err := l.Counts(); err != nil || counts.Delivered > 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	if len(sink.view(ViewKernel)) != 1 || len(sink.view(ViewUser)) != 1 {
		t.Errorf("%d packets", len(sink.packets))
	}
	if after := filtersOf(t, server.Process.Pid); fmt.Sprint(after) != fmt.Sprint(before) || strings.Contains(fmt.Sprint(after), "true") {
		t.Errorf("filters before %v, after %v", before, after)
	}
}

// A verdict changes what the process gets as long as the capture goes on.
func TestJoinWithVerdict(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "udp", "127.0.0.1:0")
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, Options: Options{Verdict: bpf.Keep(8 + 4)}})
	conn := server.dial(t, "udp", server.address)
	sink := runLive(t, l, func() {
		if _, err := io.WriteString(conn, "truncated"); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 100)); n != 4 || err != nil {
			t.Errorf("echo of %d bytes, %v, want 4", n, err)
		}
	})
	kernel, user := sink.view(ViewKernel), sink.view(ViewUser)
	if len(kernel) != 1 || len(user) != 1 || kernel[0].Verdict != (Verdict{Keep: 12, Of: 17}) || string(user[0].Data) != "trun" {
		t.Errorf("kernel %+v, user %+v", kernel, user)
	}
	checkPairs(t, sink)
	exchange(t, conn, "afterwards all is whole")
}

// Sockets with a filter of their own, also one that is locked, are followed like
// others, and keep it.
func TestJoinLeavesFiltersAlone(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"filter", "locked"} {
		server := startTarget(t, target)
		before := fmt.Sprint(filtersOf(t, server.Process.Pid))
		l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}})
		sink := runLive(t, l, func() {
			conn := server.dial(t, "udp", server.address)
			if _, err := io.WriteString(conn, "seen"); err != nil {
				t.Fatal(err)
			}
			if during := fmt.Sprint(filtersOf(t, server.Process.Pid)); during != before {
				t.Errorf("%s: filters before %v, during the capture %v", target, before, during)
			}
		})
		if len(sink.view(ViewKernel)) != 1 || len(sink.view(ViewUser)) != 1 {
			t.Errorf("%s: %d packets", target, len(sink.packets))
		}
		checkPairs(t, sink)
		if after := fmt.Sprint(filtersOf(t, server.Process.Pid)); after != before {
			t.Errorf("%s: filters before %v, after %v", target, before, after)
		}
	}
}

// A socket that would need the tap and has a filter is left alone, and told of once.
func TestFilteredIsTold(t *testing.T) {
	t.Parallel()
	const words = " has a filter already, and is left alone: ReplaceFilter takes its place"
	for _, own := range []bool{false, true} {
		server := startTarget(t, "filter")
		var sockets []string
		config := JoinConfig{PIDs: []int{server.Process.Pid}, Options: Options{RingSize: smallRing, Verdict: bpf.Keep(-1)}}
		config.Notice = func(text string) {
			if socket, ok := strings.CutSuffix(text, words); ok {
				sockets = append(sockets, socket)
			}
		}
		if own {
			config.Notice = nil
			config.Filtered = func(socket string) { sockets = append(sockets, socket) }
		}
		l, err := Join(config)
		if err != nil {
			t.Fatal(err)
		}
		if len(sockets) != 1 || !strings.HasPrefix(sockets[0], l.Process()) {
			t.Errorf("told of %q", sockets)
		}
		if err := errors.Join(l.leave(), l.Close()); err != nil {
			t.Error(err)
		}
	}
}

// Connections have the tap that their listener got because of a verdict.
func TestJoinStreamsWithVerdict(t *testing.T) {
	t.Parallel()
	for _, config := range []JoinConfig{{Options: Options{Verdict: bpf.Keep(-1)}}, {ReplaceFilter: true}} {
		server := startTarget(t, "echo", "tcp4", "127.0.0.1:0")
		config.PIDs = []int{server.Process.Pid}
		l := mustJoin(t, config)
		var conns []net.Conn
		sink := runLive(t, l, func() {
			for range 3 {
				conn := server.dial(t, "tcp", server.address)
				exchange(t, conn, "first. ")
				exchange(t, conn, "second.")
				conns = append(conns, conn)
			}
		})
		for i, conn := range conns {
			if got := streamOf(sink, conn.LocalAddr()); got != "first. second." {
				t.Errorf("connection %d: %q", i, got)
			}
		}
		checkPairs(t, sink)
		checkNoFilter(t, server.Process.Pid)
		checkLiveLedger(t, l)
		if remarks := strings.Join(l.Remarks(), "\n"); strings.Contains(remarks, "nobody knows") {
			t.Error(remarks)
		}
	}
}

// A filter that the process sets while its socket has the tap stays.
func TestJoinRespectsANewFilter(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "refilter")
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, Options: Options{Verdict: bpf.Keep(-1)}})
	runLive(t, l, func() {
		fmt.Fprintln(server.stdin, "now")
		server.line(t)
	})
	var classic int
	for _, f := range filtersOf(t, server.Process.Pid) {
		classic += len(f.classic)
	}
	if classic != 1 {
		t.Errorf("the process's own filter has %d instructions, want 1", classic)
	}
}

// After kill -9 the tap of a socket that has it keeps everything.
func TestKilledChangesNothing(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "udp", "127.0.0.1:0")
	joiner := startTarget(t, "joiner", fmt.Sprint(server.Process.Pid))
	conn := server.dial(t, "udp", server.address)
	if _, err := io.WriteString(conn, "dropped"); err != nil {
		t.Fatal(err)
	}
	if err := joiner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(bpf.Lease + bpf.Lease/2)
	exchange(t, conn, "and after kill -9 all is whole")
}
