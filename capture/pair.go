package capture

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// A pairer finds out which kernel packets a delivery is made of. It hears of
// the packets before the delivery that they brought, and of more that came after.
type pairer interface {
	// saw notes a packet that the filter saw. lost packets, of which nothing is
	// known, were seen by the filter since the packet before.
	saw(p *kernelPacket, lost int)
	// delivered finds the packets behind a delivery.
	delivered(d *delivery) match
}

// newPairer makes the pairer for a kind.
func newPairer(kind *Kind) pairer {
	switch {
	case kind.stream && kind.Protocol() == unix.IPPROTO_TCP:
		return newStreams()
	case kind.stream:
		return unpaired{}
	}
	return &datagrams{headerLen: kind.headerLen, countsFiltered: kind.countsFiltered(), adopted: kind.adopts}
}

// unpaired is for streams whose packets do not say where their bytes belong.
type unpaired struct{}

func (unpaired) saw(*kernelPacket, int)    {}
func (unpaired) delivered(*delivery) match { return match{} }

// kernelPacket is what the pairers want to know of a packet in the kernel view.
type kernelPacket struct {
	id       uint64 // 0 if nobody asked for the packet
	time     int64  // when the filter ran, on the boot clock
	cpu      uint32 // that it ran on
	cookie   uint64 // of the connection's socket; 0 if it has none yet
	route    *route // where it goes
	src, dst netip.AddrPort
	data     []byte // what was captured, from offset 0 on
	len      int    // of the packet, from offset 0 on
	verdict  int    // bytes kept; negative keeps all, 0 drops
}

// match is where a delivery came from.
type match struct {
	id      uint64 // of the first packet; 0 if none is known
	comment string // what is worth saying of it, or empty
	dropped uint64 // by the receive queue before it, and told with no delivery before
	before  bool   // it was in the receive queue before the tap came
	after   bool   // it came after the last packet that was asked for
	// The packet's own addresses, which the socket may not know exactly; invalid if unknown.
	src, dst netip.AddrPort
	// Where the packets of its connection go; nil if that is not known.
	route *route
}

var pairingSeed = maphash.MakeSeed()

// datagrams pairs datagrams one to one, for one socket.
//
// Its filter runs in the order in which datagrams enter the receive queue, and
// the queue drops what it has no room for and counts that (SO_RXQ_OVFL). So the
// n-th delivery, with d drops before it, is the (n+d)-th packet of the filter.
// Other causes of drops are counted alike, and two cpus may change places
// between filter and queue, so bytes decide: among packets with the delivery's
// bytes and sender, the one nearest to the expected place is taken.
//
// Packets that the ring lost have places too, but these are known only as far as
// the cpu that lost them. Near a loss nothing but bytes counts, and several
// packets with the same bytes cannot be told apart.
type datagrams struct {
	headerLen int // bytes of a packet that userspace does not get
	// countsFiltered says that what the filter drops counts as a drop of the queue:
	// only then it has a place in the order.
	countsFiltered bool
	uncounted      bool // nobody says how many the queue dropped: the next one that fits is the one
	adopted        bool // each of several sockets got its tap when it may have held messages already
	first          int  // place of waiting[0] in the order of the filter
	waiting        []waitingDatagram
	received       int
	matched        bool // a delivery has found its packet
	loss           queueLoss
	passed         int // places before this one are delivered or behind what was
	unsure         int // places before this one are near a loss
	alike          alike
}

// alike remembers the hash of a delivery's first bytes, which most of the
// packets that it is compared with ask for.
type alike struct {
	prefix int
	hash   uint64
}

func (a *alike) of(data []byte, prefix int) uint64 {
	if a.prefix != prefix {
		a.prefix, a.hash = prefix, maphash.Bytes(pairingSeed, data[:prefix])
	}
	return a.hash
}

type waitingDatagram struct {
	id      uint64
	time    int64
	src     netip.AddrPort
	dst     netip.AddrPort
	keep    int // bytes that userspace will get; -1 if none ever
	prefix  int // of keep: bytes that are known
	hash    uint64
	head    [headLen]byte // the first of them: all that can be compared with a part
	present bool
}

// headLen is how many bytes of a datagram tell it from others when userspace got a
// part of it only.
const headLen = 16

// behind is how far behind the last delivery a datagram may come in late,
// because two cpus changed places.
const behind = 64

// nearLoss is how many places before and behind a loss others are doubted: about
// as many as one cpu records before another one tells of its losses.
const nearLoss = 1 << 8

// waitingLimit bounds the memory for datagrams that are never delivered.
const waitingLimit = 1 << 20

func (q *datagrams) saw(p *kernelPacket, lost int) {
	if q.uncounted {
		lost = min(lost, 1) // for places nobody asks, and it may have been another socket's
	}
	for range min(lost, waitingLimit) {
		q.waiting = append(q.waiting, waitingDatagram{})
	}
	if lost > 0 {
		q.unsure = q.first + len(q.waiting) + nearLoss
	}
	q.loss.saw(p)
	if p.verdict == 0 && !q.countsFiltered {
		return // as if it had never come
	}
	w := waitingDatagram{id: p.id, time: p.time, src: p.src, dst: p.dst, present: true}
	w.keep = p.len - q.headerLen
	if p.verdict >= 0 {
		// The kernel never trims the transport header away.
		w.keep = min(w.keep, max(p.verdict-q.headerLen, 0))
	}
	if p.verdict == 0 {
		w.keep = -1
	}
	payload := p.data[min(q.headerLen, len(p.data)):]
	w.prefix = max(min(w.keep, len(payload)), 0)
	w.hash = maphash.Bytes(pairingSeed, payload[:w.prefix])
	copy(w.head[:], payload[:w.prefix])
	q.waiting = append(q.waiting, w)
	q.forget()
}

// forget drops what cannot be delivered any more.
func (q *datagrams) forget() {
	gone := max(q.passed-behind-q.first, len(q.waiting)-waitingLimit)
	// Moving what remains costs as much as it saves until half is gone.
	if gone > 0 && gone >= len(q.waiting)/2 {
		q.waiting = append(q.waiting[:0], q.waiting[gone:]...)
		q.first += gone
	}
}

func (w *waitingDatagram) fits(d *delivery, hash *alike) bool {
	if !w.present || w.keep < d.full || w.keep > d.full && !d.cut || !sameAddr(w.src, d.from) {
		return false
	}
	if w.keep == d.full && w.prefix <= len(d.data) {
		return w.hash == hash.of(d.data, w.prefix)
	}
	// Userspace got a part of it only.
	known := min(len(d.data), w.prefix, headLen)
	return bytes.Equal(d.data[:known], w.head[:known])
}

// sameAddr compares addresses and, where both have one, ports: raw sockets
// report none. A sender that nobody wrote down or asked for (b is invalid) may be any.
func sameAddr(a, b netip.AddrPort) bool {
	if !b.IsValid() {
		return true
	}
	return a.Addr() == b.Addr().WithZone("") && (a.Port() == b.Port() || a.Port() == 0 || b.Port() == 0)
}

func (q *datagrams) delivered(d *delivery) match {
	expected := q.received + int(d.drops)
	if q.uncounted {
		expected = q.passed
	}
	place, found := q.find(d, expected)
	if found && d.peek {
		w := &q.waiting[place-q.first]
		return match{id: w.id, src: w.src, dst: w.dst}
	}
	q.received++
	if !found {
		dropped, _ := q.loss.told(d, 0)
		return match{
			comment: "the tap has no record of the packet that brought this", dropped: dropped,
			before: q.unsure == 0 && (q.adopted || q.uncounted && !q.matched),
		}
	}
	dropped, exact := q.loss.told(d, q.waiting[place-q.first].time)
	comment := ""
	if dropped > 0 {
		comment = fmt.Sprintf("the receive queue dropped %d before this one", dropped)
		if ids := q.skipped(place); exact && ids != "" {
			comment += ": packets " + ids
		}
	}
	several := place < q.unsure && q.several(d, place)
	m := q.take(place)
	m.comment, m.dropped, m.after = comment, dropped, m.id == 0 && !several
	if several {
		m.id = 0
		m.comment = "the tap lost packets about here, and several have these bytes"
	}
	q.matched = true
	return m
}

// several tells whether another datagram near a place fits as well.
func (q *datagrams) several(d *delivery, place int) bool {
	low, high := max(q.first, q.passed-behind, place-nearLoss), min(q.first+len(q.waiting), place+nearLoss)
	for at := low; at < high; at++ {
		if at != place && q.waiting[at-q.first].fits(d, &q.alike) {
			return true
		}
	}
	return false
}

// take marks the datagram at a place as delivered.
func (q *datagrams) take(place int) match {
	w := &q.waiting[place-q.first]
	m := match{id: w.id, src: w.src, dst: w.dst}
	*w = waitingDatagram{}
	q.passed = max(q.passed, place+1)
	q.forget()
	return m
}

// find looks for the delivery's datagram, from the expected place outwards.
func (q *datagrams) find(d *delivery, expected int) (place int, found bool) {
	low, high := max(q.first, q.passed-behind), q.first+len(q.waiting)
	expected = min(max(expected, low), high)
	q.alike.prefix = -1
	for distance := 0; expected-distance >= low || expected+distance < high; distance++ {
		if at := expected + distance; at < high && q.waiting[at-q.first].fits(d, &q.alike) {
			return at, true
		}
		if at := expected - distance; at >= low && at < high && q.waiting[at-q.first].fits(d, &q.alike) {
			return at, true
		}
	}
	return 0, false
}

// skipped names the packets between the last delivery and place that the filter
// let pass.
func (q *datagrams) skipped(place int) string {
	var ids idRanges
	for at := max(q.passed, q.first); at < place; at++ {
		if w := &q.waiting[at-q.first]; w.present && w.keep >= 0 {
			ids.add(w.id)
		}
	}
	return ids.String()
}

// idRanges collects packet ids and prints them as "4-6, 9".
type idRanges struct {
	ranges [][2]uint64
}

func (r *idRanges) add(id uint64) {
	if n := len(r.ranges); n > 0 && r.ranges[n-1][1]+1 == id {
		r.ranges[n-1][1] = id
		return
	}
	r.ranges = append(r.ranges, [2]uint64{id, id})
}

// shownRanges keeps comments readable: the first ones, and then how many more.
const shownRanges = 16

func (r *idRanges) String() string {
	var b strings.Builder
	for i, span := range r.ranges {
		if i == shownRanges {
			fmt.Fprintf(&b, " and %d ranges more, to %d", len(r.ranges)-i, r.ranges[len(r.ranges)-1][1])
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		if span[0] == span[1] {
			fmt.Fprint(&b, span[0])
		} else {
			fmt.Fprintf(&b, "%d-%d", span[0], span[1])
		}
	}
	return b.String()
}
