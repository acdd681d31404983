package capture

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// sendSlack is how long a send may take for its packet to stand at the time when it began: before
// the acknowledgements of its bytes, and before the answer, either of which may come before the
// call has ended. Everything else waits for so long. What takes longer stands at its end.
const sendSlack = 20 * time.Millisecond

// sendTimes decides at which time a send stands: that at which it began, unless everything up to
// then may have been written. With the cgroup view it is where it ended, behind its packets.
type sendTimes struct {
	slack int64 // 0 if sends are not recorded
	given int64 // the horizon that was given out last
}

func newSendTimes(views []View) sendTimes {
	if slices.Contains(views, ViewSent) && !slices.Contains(views, ViewCgroup) && !slices.Contains(views, ViewWire) {
		return sendTimes{slack: sendSlack.Nanoseconds()}
	}
	return sendTimes{}
}

// of is the time of a send.
func (s *sendTimes) of(began, ended int64) int64 {
	if s.slack > 0 && began > s.given {
		return began
	}
	return ended
}

// horizon is the time before which no delivery can come any more, if no call that ended before
// known can.
func (s *sendTimes) horizon(known int64, hurry bool) int64 {
	if s.slack == 0 {
		return known
	}
	if !hurry {
		known -= s.slack
	}
	s.given = max(s.given, known)
	return s.given
}

// hurries tells whether the packets that wait fill so much of the ring that they had better wait
// for no send.
func hurries(tap *bpf.Tap, done bpf.Place) bool {
	return int64(tap.Reserved()-done) > int64(tap.RingSize()/4)
}

// send processes a call that has sent something, or has failed to.
func (c *collector) send(d *delivery) {
	r := d.route
	if c.full() {
		return // it is later than the last packet that was asked for
	}
	c.packet = Packet{
		Time:      c.clock.wall(d.Time),
		Direction: Outbound,
		Data:      d.Data[:min(len(d.Data), c.snaplen)],
		Len:       d.Full,
		Drops:     d.lost,
		Src:       d.From,
		Dst:       d.To,
		Protocol:  r.protocol,
		Call:      d.call,
		PID:       d.pid,
		TID:       d.tid,
	}
	if d.err != nil {
		c.packet.Receipt = endOf(d.err)
	}
	if c.flows != nil {
		placed := c.flows.sent(&c.packet, d)
		if c.departures != nil {
			c.departures.name(&c.packet, d, placed)
		}
	}
	c.packet.Drops += r.carriedSent
	if r.carriedSent = 0; !c.wantsBytes(r, c.packet.Src, c.packet.Dst, d.Data, d.Full) {
		r.carriedSent = c.packet.Drops
		return
	}
	if d.err == nil {
		c.counts[ViewSent].Add(1)
		r.outlet.tally.sent += uint64(d.Full)
	} else {
		c.refused.Add(1)
	}
	if at := r.at(ViewSent, &c.packet); at != nil {
		c.add(&c.packet, at, d.err == nil)
	}
}

// flowKey is a connection: of a socket, which may have several, one after the other; or one of
// our own, of which packets tell before its cookie is known.
type flowKey struct {
	cookie      uint64
	local, peer netip.AddrPort
}

func (d *delivery) flow() flowKey {
	switch {
	case d.pid != 0 && d.sent:
		return flowKey{d.Cookie, d.From, d.To}
	case d.pid != 0:
		return flowKey{d.Cookie, d.To, d.From}
	case d.sent:
		return flowKey{peer: d.To}
	}
	return flowKey{peer: d.From}
}

// flow is where the two directions of a connection have got to. Without sequence numbers of the
// kernel, bytes are counted.
type flow struct {
	out, in stream
	counted bool // what the process sends is not what goes into the stream: TLS in the kernel, MPTCP
}

// stream is one direction.
type stream struct {
	next  uint32 // sequence number of the next byte
	known bool
}

// flowsLimit bounds what is remembered of connections.
const flowsLimit = 1 << 14

// flows gives the bytes that processes read and write their places in the streams, so that a
// reader of the file sees one conversation. Those that were idle for longest are forgotten.
type flows struct {
	courses         courses
	counted         countedStreams
	recent, earlier map[flowKey]*flow
	// Addresses of datagram sockets that are bound to none, by where their packets came from.
	locals, localsBefore map[flowKey]netip.Addr
}

func newFlows(views []View) *flows {
	if !slices.Contains(views, ViewSent) {
		return nil
	}
	return &flows{courses: newCourses(views), recent: make(map[flowKey]*flow), locals: make(map[flowKey]netip.Addr)}
}

func (f *flows) of(key flowKey) *flow {
	if known := f.recent[key]; known != nil {
		return known
	}
	known := f.earlier[key]
	if known == nil {
		known = &flow{}
	}
	if len(f.recent) >= flowsLimit/2 {
		f.earlier, f.recent = f.recent, make(map[flowKey]*flow)
	}
	f.recent[key] = known
	return known
}

// sent sets the place of what was sent, or the address that it came from. It tells whether TCP's
// place is what the segments have.
func (f *flows) sent(p *Packet, d *delivery) (placed bool) {
	if d.route.kind.Counted() {
		f.counted.sent(p, d)
		return false
	}
	if p.Protocol != unix.IPPROTO_TCP {
		p.Src = f.localOf(d.Cookie, p.Src, p.Dst)
		p.Segment.Known = p.addressed() && d.err == nil
		return false
	}
	if d.err != nil {
		return false // it has no place, and says nothing of that of others
	}
	p.Segment.Known = p.addressed() && d.Full > 0
	at := f.of(d.flow())
	placed = d.Sequenced || d.pid == 0 && at.out.known
	if !d.Sequenced {
		at.counted = at.counted || d.pid != 0
		d.Seq = at.out.begin()
	}
	p.Segment.Seq = d.Seq
	switch {
	case at.in.known && (f.courses.reads || !d.Sequenced):
		p.Segment.Ack, p.Segment.Acks = at.in.next, true
	case d.Sequenced && d.Ack != 0: // else the peer has said nothing yet
		p.Segment.Ack, p.Segment.Acks = d.Ack, true
		at.in.known, at.in.next = true, d.Ack
	}
	at.out = stream{d.Seq + uint32(d.Full), true}
	f.courses.place(p, f.courses.sent)
	return placed && !at.counted
}

// read sets the place of what was read.
func (f *flows) read(p *Packet, d *delivery) {
	if d.route.kind.Counted() {
		f.counted.read(p, d)
		return
	}
	whole := p.addressed() && !d.Peek && d.err == nil
	if p.Protocol != unix.IPPROTO_TCP {
		f.noteLocal(d, p)
		p.Segment.Known = whole
		return
	}
	if d.err != nil || d.Full == 0 && !d.end {
		return // as in sent
	}
	p.Segment.Known, p.Segment.Ends = whole, d.end
	at := f.of(d.flow())
	seq := d.Seq
	switch {
	case !d.Sequenced || at.counted:
		seq = at.in.begin()
	case d.end && at.in.known && seq == at.in.next+1:
		seq-- // the kernel counts a FIN, which the call before may have taken already
	}
	p.Segment.Seq = seq
	if !at.out.known && d.Sequenced && !at.counted && d.Ack != 0 {
		at.out = stream{d.Ack, true}
	}
	p.Segment.Ack, p.Segment.Acks = at.out.next, at.out.known
	if !d.Peek {
		at.in = stream{seq + uint32(d.Full), true}
	}
	f.courses.place(p, f.courses.read)
}

// addressed tells whether an IP header can be made for a packet.
func (p *Packet) addressed() bool {
	return p.Src.IsValid() && p.Dst.IsValid() && p.Src.Addr().Is4() == p.Dst.Addr().Is4()
}

// begin is the place of the next byte: any, if it is the first.
func (s *stream) begin() uint32 {
	if !s.known {
		return 1
	}
	return s.next
}

// saw takes from a packet of one of our own connections where the two directions begin.
func (f *flows) saw(p *Packet, segment []byte) {
	if len(segment) < 20 {
		return
	}
	const syn, ack = 0x02, 0x10
	key, flags := flowKey{peer: p.Src}, segment[13]
	if flags&syn != 0 {
		*f.of(key) = flow{in: stream{binary.BigEndian.Uint32(segment[4:]) + 1, true}}
		return
	}
	if at := f.of(key); flags&ack != 0 && !at.out.known {
		at.out = stream{binary.BigEndian.Uint32(segment[8:]), true}
		if !at.in.known {
			at.in = stream{binary.BigEndian.Uint32(segment[4:]), true}
		}
	}
}

// noteLocal remembers at which address of a socket that is bound to none a peer's packet came.
func (f *flows) noteLocal(d *delivery, p *Packet) {
	if d.To.Addr().IsUnspecified() && p.Dst.IsValid() && !p.Dst.Addr().IsUnspecified() {
		if len(f.locals) >= flowsLimit/2 {
			f.localsBefore, f.locals = f.locals, make(map[flowKey]netip.Addr)
		}
		f.locals[flowKey{cookie: d.Cookie, peer: p.Src}] = p.Dst.Addr()
	}
}

// localOf is the address that a datagram to a peer is sent from, as far as it is known.
func (f *flows) localOf(cookie uint64, local, peer netip.AddrPort) netip.AddrPort {
	if !local.Addr().IsUnspecified() {
		return local
	}
	key := flowKey{cookie: cookie, peer: peer}
	known, ok := f.locals[key]
	if !ok {
		known, ok = f.localsBefore[key]
	}
	switch {
	case ok:
		return netip.AddrPortFrom(known, local.Port())
	case peer.Addr().Is4():
		return netip.AddrPortFrom(netip.IPv4Unspecified(), local.Port())
	}
	return local
}
