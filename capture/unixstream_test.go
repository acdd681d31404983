package capture

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A unix stream is the same one before and after its socket has a cookie, whoever has it, and another
// one has another number.
func TestCountedStreams(t *testing.T) {
	t.Parallel()
	var s countedStreams
	at := func(cookie uint64, inode uint32, full int, sent bool) Segment {
		d := &delivery{inode: inode}
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
		inode  uint32
		sent   bool
		want   Segment
	}{
		{inode: 5, sent: true, want: Segment{Connection: 1, Seq: 1, Ack: 1}},
		{inode: 5, want: Segment{Connection: 1, Seq: 1, Ack: 11}},
		{cookie: 70, inode: 5, sent: true, want: Segment{Connection: 1, Seq: 11, Ack: 11}},
		{inode: 6, want: Segment{Connection: 2, Seq: 1, Ack: 1}},
		{inode: 5, want: Segment{Connection: 1, Seq: 11, Ack: 21}},           // the cookie was not seen
		{cookie: 70, want: Segment{Connection: 1, Seq: 21, Ack: 21}},         // nor the inode
		{cookie: 71, inode: 5, want: Segment{Connection: 3, Seq: 1, Ack: 1}}, // the number has come back
		{inode: 6, sent: true, want: Segment{Connection: 2, Seq: 1, Ack: 11}},
		{inode: 5, sent: true, want: Segment{Connection: 3, Seq: 1, Ack: 11}},
		{cookie: 72, inode: 7, want: Segment{Connection: 4, Seq: 1, Ack: 1}},
		{cookie: 71, inode: 5, want: Segment{Connection: 3, Seq: 11, Ack: 11}},
		{inode: 8, want: Segment{Connection: 5, Seq: 1, Ack: 1}},
		{cookie: 80, want: Segment{Connection: 6, Seq: 1, Ack: 1}}, // of our own
		{cookie: 80, sent: true, want: Segment{Connection: 6, Seq: 1, Ack: 11}},
	} {
		step.want.Known, step.want.Acks = true, true
		if got := at(step.cookie, step.inode, 10, step.sent); got != step.want {
			t.Errorf("step %d: %+v, want %+v", n, got, step.want)
		}
	}
	if got := at(0, 0, 10, true); got.Known {
		t.Errorf("a send of which the socket is not known has the place %+v", got)
	}
	if got := at(80, 0, 0, true); got.Known {
		t.Errorf("a send of nothing has the place %+v", got)
	}
	// What is remembered is bounded; a stream that goes on is remembered.
	for cookie := uint64(1000); cookie < 1000+2*flowsLimit; cookie++ {
		at(cookie, uint32(cookie), 1, true)
		at(80, 0, 1, true)
	}
	if got := at(80, 0, 1, true); got.Connection != 6 || got.Seq != 11+2*flowsLimit {
		t.Errorf("after many others it is %+v", got)
	}
	if n := len(s.recent.byCookie) + len(s.earlier.byCookie) + len(s.recent.byInode) + len(s.earlier.byInode); n > 4*flowsLimit {
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
