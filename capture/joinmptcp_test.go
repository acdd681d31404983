package capture

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// skipWithoutMPTCP ends a test whose target listens without MPTCP: that is right
// only where the kernel has none.
func skipWithoutMPTCP(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ENOPROTOOPT) { // without it, and with net.mptcp.enabled=0
		t.Skipf("this kernel has no MPTCP: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	t.Fatal("this kernel has MPTCP, and the target's listener is not known to be one")
}

func isMPTCP(l *Live) bool { return len(l.roster.texts) > 0 }

// An MPTCP listener's packets have other sockets than its process, from the first
// one on; connections of ordinary peers, and new listeners, are no exception.
func TestJoinMPTCP(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"before", "after"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			server := startTarget(t, "mptcp", when)
			l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}})
			if when == "before" && !isMPTCP(l) {
				l.Close()
				skipWithoutMPTCP(t)
			}
			var conn net.Conn
			sink := runLive(t, l, func() {
				if when == "after" {
					fmt.Fprintln(server.stdin, "listen")
					server.address = server.line(t)
				}
				conn = server.dial(t, "tcp", server.address)
				exchange(t, conn, "first")
				exchange(t, conn, "second")
			})
			if got := streamOf(sink, conn.LocalAddr()); got != "firstsecond" {
				t.Errorf("user view: %q", got)
			}
			checkPairs(t, sink)
			if !isSYN(sink.view(ViewKernel)[0].Data) {
				t.Errorf("the first packet is no SYN")
			}
			if d := sink.view(ViewUser)[0].Interface.Sockets; !strings.Contains(d, "descriptor") {
				t.Error(d)
			}
		})
	}
}

// The same port of another network namespace is another listener.
func TestJoinMPTCPOfOneNamespace(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "mptcp", "before")
	other := startTarget(t, "mptcp", "before", server.address)
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}})
	if !isMPTCP(l) {
		l.Close()
		skipWithoutMPTCP(t)
	}
	sink := runLive(t, l, func() {
		exchange(t, other.dial(t, "tcp", other.address), "to another one")
		exchange(t, server.dial(t, "tcp", server.address), "to the one that is joined")
	})
	for _, p := range sink.view(ViewKernel) {
		if bytes.Contains(p.Data, []byte("another one")) {
			t.Errorf("recorded: %+v", p)
		}
	}
	if len(sink.view(ViewKernel)) == 0 {
		t.Error("nothing is recorded")
	}
	checkPairs(t, sink)
}
