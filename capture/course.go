package capture

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// course is one direction of a TCP connection.
type course struct{ from, to netip.AddrPort }

func (c course) back() course { return course{c.to, c.from} }

// bearer is whose view has the bytes of a course behind headers of TCP. Only one may: twice the
// same bytes are a retransmission to a reader of the file, who then drops one of them.
type bearer uint8

const (
	bearerOpen bearer = iota
	// bearerSender: the sent view.
	bearerSender
	// bearerReceiver: the views of the other end, which is followed as well. Those of the kernel
	// have the bytes whatever we do, and what comes out of a connection is less often without
	// its bytes (sendfile) or in pieces above the snaplen than what goes into it.
	bearerReceiver
)

// bearing is what is decided of a course, once: whoever has begun to bear it goes on, so that
// nothing is borne twice or not at all. Only the segments themselves, where they are in the
// file, take it over.
type bearing struct {
	by    bearer
	first uint32 // place of the first byte that the sender bears
	next  stream // the bytes before it were borne by the views user and sent
}

// courses decides who bears the bytes of each course. Those that were idle for longest are
// forgotten.
type courses struct {
	alone           bool              // there is no view but the sent one
	reads           bool              // the other end bears a course in the user view
	receives        func(course) bool // the end of a connection that was there before is followed; may be nil
	recent, earlier map[course]*bearing
}

func newCourses(views []View) courses {
	return courses{
		alone:  !slices.ContainsFunc(views, func(v View) bool { return v != ViewSent }),
		reads:  readsSegments(views),
		recent: make(map[course]*bearing),
	}
}

func (c *courses) of(key course) *bearing {
	if known := c.recent[key]; known != nil {
		return known
	}
	known := c.earlier[key]
	if known == nil {
		known = &bearing{}
	}
	if len(c.recent) >= flowsLimit/2 {
		c.earlier, c.recent = c.recent, make(map[course]*bearing)
	}
	c.recent[key] = known
	return known
}

// arrived takes from a segment that its receiver is followed. It comes before what was sent
// later, and of a new connection so does its first one.
func (c *courses) arrived(key course, segment []byte) {
	if c.alone || len(segment) < 20 {
		return
	}
	const syn = 0x02
	at, begins := c.of(key), segment[13]&syn != 0
	if c.reads && at.by == bearerSender && !(begins && at.first != binary.BigEndian.Uint32(segment[4:])+1) {
		return // the sends came first, as with MSG_FASTOPEN
	}
	if begins {
		*at = bearing{}
	}
	at.by = bearerReceiver
}

// sent decides of what was sent, and tells whether the sent view bears it.
func (c *courses) sent(key course, s *Segment, length int) bool {
	if c.alone {
		return true
	}
	at := c.of(key)
	if at.by == bearerOpen {
		at.by, at.first = bearerSender, s.Seq
		if c.receives != nil && c.receives(key) {
			at.by = bearerReceiver
		}
	}
	if at.by == bearerSender {
		at.next = stream{s.Seq + uint32(length), true}
		return true
	}
	if !at.next.known {
		at.next = stream{s.Seq, true}
	}
	return false
}

// read is sent for what was read, and the user view.
func (c *courses) read(key course, s *Segment, length int) bool {
	if c.alone {
		return true
	}
	at := c.of(key)
	if at.by == bearerSender {
		return false
	}
	at.by, at.next = bearerReceiver, stream{s.Seq + uint32(length), true}
	return true
}

// acknowledges is up to where a packet of the course can acknowledge the other one, if that is
// known here: nobody acknowledges what is not in the file yet.
func (c *courses) acknowledges(key course) stream {
	if c.alone || !c.reads {
		return stream{}
	}
	return c.of(key.back()).next
}

// place decides who bears a packet with a Segment, and what it acknowledges.
func (c *courses) place(p *Packet, decide func(course, *Segment, int) bool) {
	if !p.Segment.Known || p.Protocol != unix.IPPROTO_TCP {
		return
	}
	key := course{p.Src, p.Dst}
	p.Segment.Elsewhere = !decide(key, &p.Segment, p.Len)
	if back := c.acknowledges(key); back.known {
		p.Segment.Ack, p.Segment.Acks = back.next, true
	}
}
