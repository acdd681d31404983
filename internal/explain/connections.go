package explain

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
)

// Connection is what passed between two addresses, or without addresses between all of a kind.
type Connection struct {
	// Local and Remote are the addresses of the socket and of its peer, empty if the file has none. Where both ends
	// are here, Remote is where the first packet that arrived came from.
	Local  string `json:"local,omitempty"`
	Remote string `json:"remote,omitempty"`
	// First and Last are its earliest and its latest event, in nanoseconds since the first packet of
	// the file.
	First int64 `json:"first_ns"`
	Last  int64 `json:"last_ns"`
	// Arrived counts packets that came, wherever they were seen first, and Sent those that went.
	Arrived Count `json:"arrived"`
	Sent    Count `json:"sent"`
	// Calls counts the calls that sent something, and Reads those that got something or the end of the
	// stream; BytesRead is what they got.
	Calls     uint64 `json:"sending_calls"`
	Reads     uint64 `json:"reads"`
	BytesRead uint64 `json:"bytes_read"`
	// Dropped were dropped by the kernel, by the socket's filter or by its receive queue; Stopped never came
	// to the filter, for a reason that is not in the file; Unread belong to no read,
	// of which there are none where it is not certain which packets the reads belong to. Of NotKnown it is not
	// known whether they were read.
	Dropped  Count `json:"dropped"`
	Stopped  Count `json:"stopped"`
	Unread   Count `json:"unread"`
	NotKnown Count `json:"not_known"`
}

// talk is a connection while its packets are read.
type talk struct {
	out    *Connection
	socket *socket
	line   timeline
	// number counts the connections of the file.
	number int
	// further stands for all connections beyond the limit.
	further bool
	// filtered says that the kernel view has packets of it.
	filtered bool
	// first are the addresses of its first packet or call, and came says that something came in.
	first connection
	came  bool
}

// DefaultConnections is how many connections are shown, unless it is said.
const DefaultConnections = 20

// talksLimit bounds the connections of a kind of socket that are told of, each of which takes some
// kilobytes.
const talksLimit = 1024

// talk returns the connection that a packet or a call belongs to.
func (s *socket) talk(d capture.Direction, src, dst netip.AddrPort) *talk {
	way := connection{src: unmapped(src), dst: unmapped(dst)}
	key := way
	if d == capture.Outbound {
		key = way.back()
	}
	t := s.talks[key]
	if t == nil {
		t = s.talks[key.back()]
	}
	if t == nil && len(s.talkOrder) >= talksLimit {
		if s.further == nil {
			s.further = &talk{out: &Connection{}, socket: s, number: math.MaxInt, further: true}
			s.out.Further = s.further.out
		}
		return s.further
	}
	if t == nil {
		t = &talk{out: &Connection{}, socket: s, number: s.analysis.talks, first: way}
		s.analysis.talks++
		t.toward(key)
		if s.talks == nil {
			s.talks = make(map[connection]*talk)
		}
		s.talks[key] = t
		s.talkOrder = append(s.talkOrder, t)
		s.out.Connections = append(s.out.Connections, t.out)
	}
	if d != capture.Outbound && !t.came {
		// On lo a packet goes out before it comes in.
		t.came = true
		t.toward(key)
	}
	return t
}

// back is the other direction.
func (c connection) back() connection { return connection{src: c.dst, dst: c.src} }

// toward sets the addresses of a connection whose packets come that way.
func (t *talk) toward(c connection) {
	if c.src.IsValid() || c.dst.IsValid() {
		t.out.Local, t.out.Remote = address(c.dst), address(c.src)
	}
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// happens counts an event in the time line.
func (t *talk) happens(l lane, at int64) {
	t.line.add(l, at)
	first := t.socket.analysis.first
	t.out.First, t.out.Last = t.line.start-first, t.line.end-first
}

// belongs enters a packet or a call of the connection that it belongs to.
func (e *entry) belongs() {
	t := e.socket.talk(e.direction, e.src, e.dst)
	e.talk = t
	switch {
	case e.sent || e.first == nil:
	case e.departed || e.direction == capture.Outbound:
		t.out.Sent.add(e.id, uint64(e.length))
		t.happens(laneSent, e.time)
	default:
		t.out.Arrived.add(e.id, uint64(e.length))
		t.happens(laneArrived, e.time)
	}
}

// sends counts a call that sent something. Its packets, if the file has them, are in the time line.
func (t *talk) sends(p *capture.Packet) {
	t.out.Calls++
	if !t.socket.seesSent() {
		t.happens(laneSent, p.Time)
	}
}

// seesSent tells whether the file has a view of packets that were sent.
func (s *socket) seesSent() bool {
	return s.views[capture.ViewCgroup] != nil || s.views[capture.ViewWire] != nil
}

// reads counts what a call got.
func (t *talk) reads(p *capture.Packet) {
	if failed(p) {
		return
	}
	t.out.Reads++
	t.out.BytesRead += uint64(p.Got())
	t.happens(laneRead, p.Time)
}

// lose counts a packet that did not come to its end.
func (e *entry) lose(l lane) {
	out, at := e.talk.out, e.time
	e.lost = true
	if l == laneStopped && e.reason == "" {
		out.Stopped.add(e.id, 0)
	} else {
		l = laneDropped
		out.Dropped.add(e.id, 0)
	}
	if e.freed != 0 {
		at = e.freed
	}
	e.talk.happens(l, at)
}

// finishTalks completes the connections.
func (s *socket) finishTalks() {
	for _, t := range s.talkOrder {
		t.settle()
	}
	if s.further != nil {
		s.further.settle()
	}
}

func (t *talk) settle() {
	if !t.socket.paired() {
		t.out.Unread, t.out.NotKnown = Count{}, Count{}
	}
}

// name is such as "tcp 127.0.0.1:52638 > 127.0.0.1:16962": packets come that way. A packet socket is neither of both
// ends: what it sees goes the way of its first packet, wherever that went.
func (t *talk) name() string {
	kind := printable(t.socket.out.Kind)
	k, known := capture.KindByName(t.socket.out.Kind)
	switch {
	case t.further:
		return kind + ", further connections"
	case t.out.Remote == "":
		return kind + ", without addresses"
	case known && k.Family() == unix.AF_PACKET:
		return kind + " " + address(t.first.src) + " > " + address(t.first.dst)
	}
	return kind + " " + t.out.Remote + " > " + t.out.Local
}

// lost is how many packets did not come to their end, and events how much there is to tell.
func (t *talk) lost() uint64 { return t.out.Dropped.Packets + t.out.Stopped.Packets }
func (t *talk) events() uint64 {
	return t.out.Arrived.Packets + t.out.Sent.Packets + t.out.Reads + t.out.Calls
}

// said says what passed.
func (t *talk) said() string {
	c := t.out
	var words []string
	say := func(n uint64, what string) {
		if n > 0 {
			words = append(words, what)
		}
	}
	say(c.Arrived.Packets, packetsOf(c.Arrived.Packets)+" arrived")
	say(c.Sent.Packets, packetsOf(c.Sent.Packets)+" sent")
	say(c.Calls, callsOf(c.Calls)+" sent something")
	say(c.Reads, readsOf(c.Reads)+" got "+bytesOf(c.BytesRead))
	say(c.Dropped.Packets, "dropped: "+c.Dropped.named())
	say(c.Stopped.Packets, "never at the filter: "+c.Stopped.named())
	say(c.Unread.Packets, "joined to no read: "+c.Unread.named())
	say(c.NotKnown.Packets, "read or not, which is not known: "+c.NotKnown.named())
	text := strings.Join(words, "; ")
	if t.timed() {
		text += fmt.Sprintf("; from +%s on", duration(c.First))
		if c.Last > c.First {
			text += ", for " + duration(c.Last-c.First)
		}
	}
	return text
}

// timed tells whether its time line has real times.
func (t *talk) timed() bool { return t.socket.out.Timed && t.line.begun }

// drawn tells whether its time line is worth a drawing.
func (t *talk) drawn() bool { return t.timed() && t.line.end > t.line.start }

// group is a connection with those of its packets that are shown.
type group struct {
	*talk
	packets []*shown
}

// grouped puts the packets that are shown together by connection, and adds, unless only some were asked for,
// those other connections in which most was lost or else most happened, up to a number of all; negative for
// any. left are the others.
func (a *analysis) grouped(packets []*shown) (groups []*group, left []*talk) {
	known := make(map[*talk]*group)
	for _, g := range packets {
		if known[g.talk] == nil {
			known[g.talk] = &group{talk: g.talk}
			groups = append(groups, known[g.talk])
		}
		known[g.talk].packets = append(known[g.talk].packets, g)
	}
	if a.options.Choice.chooses() {
		return groups, nil
	}
	for _, s := range a.order {
		for _, t := range s.allTalks() {
			if known[t] == nil {
				left = append(left, t)
			}
		}
	}
	slices.SortStableFunc(left, func(a, b *talk) int {
		return cmp.Or(cmp.Compare(b.lost(), a.lost()), cmp.Compare(b.events(), a.events()))
	})
	most := a.options.Connections
	if most == 0 {
		most = DefaultConnections
	}
	room := max(most-len(groups), 0)
	if most < 0 {
		room = len(left)
	}
	for _, t := range left[:min(room, len(left))] {
		groups = append(groups, &group{talk: t})
	}
	slices.SortStableFunc(groups, func(a, b *group) int { return cmp.Compare(a.number, b.number) })
	return groups, left[min(room, len(left)):]
}

// allTalks are the connections, the further ones last.
func (s *socket) allTalks() []*talk {
	if s.further == nil {
		return s.talkOrder
	}
	return append(slices.Clone(s.talkOrder), s.further)
}

// leftTalks says which connections are not shown.
func leftTalks(left []*talk) string {
	if len(left) == 0 {
		return ""
	}
	var events, lost uint64
	for _, t := range left {
		events += t.out.Arrived.Packets + t.out.Sent.Packets
		lost += t.lost()
	}
	text := fmt.Sprintf("Not shown one by one: %s with %s", quantity(uint64(len(left)), "connection more,", "connections more,"), packetsOf(events))
	if lost > 0 {
		text += fmt.Sprintf(", of which %s %s dropped or never came to the filter", digits(lost), plural(lost, "was", "were"))
	}
	return text + "."
}
