package capture

import (
	"bufio"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	targets["pairs"] = targetPairs
}

// targetPairs makes pairs of unix streams when it is told to, each at the descriptors of the one before,
// and says something in both directions.
func targetPairs([]string) error {
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		for n := range 3 {
			if err := speak(n); err != nil {
				return err
			}
		}
		fmt.Println("spoken")
	}
	return nil
}

func speak(n int) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	buf := make([]byte, 100)
	for from := range 2 {
		if _, err := unix.Write(pair[from], fmt.Appendf(nil, "%d of pair %d", from, n)); err != nil {
			return err
		}
		if _, err := unix.Read(pair[1-from], buf); err != nil {
			return err
		}
	}
	return nil
}

// Each socket of a unix stream is a connection of its own, with what it sent and what it got, also if its
// descriptor was another's before.
func TestUnixStreamsOfPairs(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "pairs")
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, UnixStreams: true, Options: Options{Views: []View{ViewUser, ViewSent}}})
	sink := runLive(t, l, func() { server.tell(t, "speak") })
	type end struct{ sent, got string }
	ends := make(map[uint64]*end)
	for _, p := range sink.packets {
		s := p.Segment
		if !s.Known || s.Seq != 1 {
			t.Errorf("%q has the place %+v", p.Data, s)
		}
		if ends[s.Connection] == nil {
			ends[s.Connection] = new(end)
		}
		if p.Interface.View == ViewSent {
			ends[s.Connection].sent += string(p.Data)
		} else {
			ends[s.Connection].got += string(p.Data)
		}
	}
	found := make(map[end]bool)
	for _, e := range ends {
		found[*e] = true
	}
	for n := range 3 {
		first, second := fmt.Sprintf("0 of pair %d", n), fmt.Sprintf("1 of pair %d", n)
		if !found[end{first, second}] || !found[end{second, first}] {
			t.Errorf("the sockets of pair %d are not among %+v", n, found)
		}
	}
	if len(ends) != 6 {
		t.Errorf("%d connections of 6 sockets", len(ends))
	}
}
