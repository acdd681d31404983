package capture

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A unix stream is the same one before and after its socket has a cookie, and another one has another
// number, also at the same descriptor.
func TestCountedStreams(t *testing.T) {
	t.Parallel()
	var s countedStreams
	var b births
	at := func(cookie uint64, pid uint32, fd int32, full int, sent bool) Segment {
		d := &delivery{pid: pid, descriptor: b.descriptor(pid, fd)}
		d.Cookie, d.Full = cookie, full
		var p Packet
		if sent {
			s.sent(&p, d)
		} else {
			s.read(&p, d)
		}
		return p.Segment
	}
	for n, step := range []struct {
		cookie uint64
		pid    uint32
		fd     int32
		born   bool // there is news of a new socket
		sent   bool
		want   Segment
	}{
		{cookie: 0, pid: 1, fd: 5, born: true, sent: true, want: Segment{Connection: 1, Seq: 1, Ack: 1}},
		{cookie: 0, pid: 1, fd: 5, want: Segment{Connection: 1, Seq: 1, Ack: 11}},
		{cookie: 70, pid: 1, fd: 5, sent: true, want: Segment{Connection: 1, Seq: 11, Ack: 11}},
		{cookie: 70, pid: 2, fd: 9, want: Segment{Connection: 1, Seq: 11, Ack: 21}}, // handed over
		{cookie: 0, pid: 1, fd: 6, want: Segment{Connection: 2, Seq: 1, Ack: 1}},
		{cookie: 0, pid: 2, fd: 6, want: Segment{Connection: 3, Seq: 1, Ack: 1}},
		{cookie: 71, pid: 1, fd: 5, want: Segment{Connection: 4, Seq: 1, Ack: 1}}, // another one at the descriptor
		{cookie: 0, pid: 1, fd: 6, born: true, want: Segment{Connection: 5, Seq: 1, Ack: 1}},
		{cookie: 0, pid: 1, fd: 5, want: Segment{Connection: 4, Seq: 11, Ack: 1}},
		{cookie: 70, pid: 1, fd: 8, want: Segment{Connection: 1, Seq: 21, Ack: 21}},
		{cookie: 80, want: Segment{Connection: 6, Seq: 1, Ack: 1}}, // of our own
		{cookie: 80, sent: true, want: Segment{Connection: 6, Seq: 1, Ack: 11}},
	} {
		if step.born {
			b.note(step.pid, step.fd)
		}
		step.want.Known, step.want.Acks = true, true
		if got := at(step.cookie, step.pid, step.fd, 10, step.sent); got != step.want {
			t.Errorf("step %d: %+v, want %+v", n, got, step.want)
		}
	}
	if got := at(80, 0, 0, 0, true); got.Known {
		t.Errorf("a send of nothing has the place %+v", got)
	}
	// What is remembered is bounded; a stream that goes on is remembered.
	for cookie := uint64(1000); cookie < 1000+2*flowsLimit; cookie++ {
		at(cookie, 1, int32(cookie), 1, true)
		at(80, 0, 0, 1, true)
	}
	if got := at(80, 0, 0, 1, true); got.Connection != 6 || got.Seq != 11+2*flowsLimit {
		t.Errorf("after many others it is %+v", got)
	}
	if n := len(s.recent.byCookie) + len(s.earlier.byCookie) + len(s.recent.byDescriptor) + len(s.earlier.byDescriptor); n > 4*flowsLimit {
		t.Errorf("%d streams are remembered", n)
	}
}

// The netlink protocol of a socket that is followed is that of its packets.
func TestNetlinkOfRoute(t *testing.T) {
	t.Parallel()
	r := newRoster([]View{ViewKernel, ViewUser}, 0)
	for cookie, protocol := range map[uint64]int{1: unix.NETLINK_GENERIC, 2: unix.NETLINK_ROUTE} {
		r.add(&foreign{domain: unix.AF_NETLINK, typ: unix.SOCK_RAW, protocol: protocol, cookie: cookie}, func() owner { return owner{} }, true)
		if at := r.own[cookie]; at == nil || int(at.netlink) != protocol || at.outlet.lanes[ViewKernel].LinkType != LinkNetlink {
			t.Errorf("protocol %d: %+v", protocol, at)
		}
	}
}
