package capture

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
)

// Several processes are followed, whatever their namespaces, until the last one ends.
func TestJoinSeveral(t *testing.T) {
	t.Parallel()
	first, second := startTarget(t, "echo", "tcp4", "127.0.0.1:0"), startTarget(t, "udp", "127.0.0.1:0")
	said := newNotices()
	pids := []int{first.Process.Pid, second.Process.Pid, first.Process.Pid}
	l := mustJoin(t, JoinConfig{PIDs: pids, Options: Options{Notice: said.add}})
	defer l.Close()
	stream, datagrams := first.dial(t, "tcp", first.address), second.dial(t, "udp", second.address)
	var sink memory
	done := make(chan error)
	go func() { done <- l.Run(t.Context(), &sink) }()
	exchange(t, stream, "to the first one")
	exchange(t, datagrams, "to the second one")
	first.stdin.Close()
	for ended := fmt.Sprintf("process %d (exe) has ended", first.Process.Pid); <-said.lines != ended; {
	}
	exchange(t, datagrams, "who is alone now")
	second.stdin.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	skipMissed(t, l)
	checkWholeFrom(t, &sink, stream.LocalAddr(), "to the first one")
	checkWholeFrom(t, &sink, datagrams.LocalAddr(), "to the second onewho is alone now")
	want := []int{first.Process.Pid, second.Process.Pid}
	for i, conn := range []net.Conn{stream, datagrams} {
		if got := whoseFrom(&sink, conn.LocalAddr()); got != fmt.Sprintf("process %d (exe)", want[i]) {
			t.Errorf("packets from %v are of %q", conn.LocalAddr(), got)
		}
	}
}

// whoseFrom is the process whose interface the packets from a client have.
func whoseFrom(sink *memory, client net.Addr) string {
	from := unmapped(netip.MustParseAddrPort(client.String()))
	for _, p := range sink.view(ViewUser) {
		if p.Src == from {
			return p.Interface.Process
		}
	}
	return ""
}
