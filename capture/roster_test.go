package capture

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// Sockets that have no cookie yet are told apart by their kind, in whatever order they come, and
// whatever the first one was bound to.
func TestRosterWithoutCookies(t *testing.T) {
	t.Parallel()
	for i := range kinds {
		for j := range kinds {
			first, second := kinds[i].event(), kinds[j].event()
			for _, kind := range []bpf.Call{bpf.CallRead, bpf.CallBind, bpf.CallListen} {
				r := newRoster([]View{ViewKernel, ViewUser, ViewSent}, 0)
				first.Call, first.LocalPort = uint16(kind), uint16(kind)
				r.news(&first)
				for n, e := range []*bpf.Event{&first, &second, &first} {
					want := kindOf(int(e.Family), int(e.Type), int(e.Protocol))
					got := r.ofEvent(e)
					if got == nil || got.kind != want || got.outlet.kind != want {
						t.Errorf("%s, then %s: event %d is filed as %v", kinds[i].Name, kinds[j].Name, n, got)
					}
				}
			}
		}
	}
}

// event is a call on a socket of the kind that has no cookie.
func (k *Kind) event() bpf.Event {
	e := bpf.Event{EventHeader: bpf.EventHeader{Family: uint16(k.domain), Type: uint16(k.typ), Protocol: uint16(k.protocol)}}
	if k.anyProtocol {
		e.Protocol = unix.IPPROTO_ICMP
	}
	return e
}

// A listener of another kind at the same port is not whose connections come, nor is its
// description that of the others.
func TestRosterPorts(t *testing.T) {
	t.Parallel()
	const port = 80
	r := newRoster([]View{ViewKernel, ViewUser}, 0)
	for n, listener := range []struct{ family, protocol uint16 }{
		{unix.AF_INET, unix.IPPROTO_TCP}, {unix.AF_INET6, unix.IPPROTO_TCP}, {unix.AF_INET, unix.IPPROTO_SCTP},
	} {
		e := bpf.Event{EventHeader: bpf.EventHeader{
			Call: uint16(bpf.CallListen), Cookie: uint64(n + 1), State: tcpListen,
			Family: listener.family, Type: unix.SOCK_STREAM, Protocol: listener.protocol, LocalPort: port,
		}}
		r.news(&e)
		mptcp := e
		mptcp.Protocol, mptcp.Cookie, mptcp.Fd = unix.IPPROTO_MPTCP, 100+e.Cookie, 7
		if listener.family == unix.AF_INET6 {
			r.news(&mptcp)
		}
	}
	for n, e := range []bpf.EventHeader{
		{Family: unix.AF_INET, Type: unix.SOCK_STREAM, Protocol: unix.IPPROTO_TCP},
		{Family: unix.AF_INET6, Type: unix.SOCK_STREAM, Protocol: unix.IPPROTO_TCP},
		{Family: unix.AF_INET, Type: unix.SOCK_STREAM, Protocol: unix.IPPROTO_SCTP},
	} {
		e.LocalPort, e.Cookie = port, 50
		event := bpf.Event{EventHeader: e}
		if at := r.ofEvent(&event); at.cookie != uint64(n+1) {
			t.Errorf("a connection of listener %d is with %+v", n+1, at)
		}
		whose, mptcp := r.own[uint64(n+1)].outlet.lanes[ViewUser].Sockets, fmt.Sprintf("descriptor 7, listening on %s", event.Local())
		if (whose == mptcp) != (e.Family == unix.AF_INET6) {
			t.Errorf("listener %d is %q", n+1, whose)
		}
	}
	udp := bpf.Event{EventHeader: bpf.EventHeader{Cookie: 60, Family: unix.AF_INET6, Type: unix.SOCK_DGRAM, Protocol: unix.IPPROTO_UDP, LocalPort: port}}
	if whose := r.ofEvent(&udp).outlet.lanes[ViewUser].Sockets; whose != fmt.Sprintf("on port %d", port) {
		t.Errorf("a UDP socket at the port of an MPTCP listener is %q", whose)
	}
}

func TestUnnamedUnixSocket(t *testing.T) {
	t.Parallel()
	both, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(both[0])
	defer unix.Close(both[1])
	if info, err := inspect(both[0]); err != nil || info.String() != "unnamed" || info.path != "" {
		t.Errorf("%q at %q, %v", info.String(), info.path, err)
	}
}
