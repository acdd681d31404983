package capture

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"strings"
)

// A pairer finds out which kernel packets a delivery is made of. It hears of
// everything in the order of time: a packet before the delivery that brought it.
type pairer interface {
	// saw notes a packet that the filter saw. lost packets, of which nothing is
	// known, were seen by the filter since the packet before.
	saw(p *kernelPacket, lost int)
	// delivered finds the packets behind a delivery.
	delivered(d *delivery) match
}

// kernelPacket is what the pairers want to know of a packet in the kernel view.
type kernelPacket struct {
	id       uint64
	src, dst netip.AddrPort
	data     []byte // what was captured, from offset 0 on
	len      int    // of the packet, from offset 0 on
	verdict  int    // bytes kept; negative keeps all, 0 drops
}

// match is where a delivery came from.
type match struct {
	id      uint64 // of the first packet; 0 if none is known
	comment string // what is worth saying of it, or empty
	// filtered counts those of the receive queue's drops before it that were the filter's.
	filtered int
	// The packet's own addresses, which the socket may not know exactly; invalid if unknown.
	src, dst netip.AddrPort
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
type datagrams struct {
	headerLen int // bytes of a packet that userspace does not get
	// countsFiltered says that what the filter drops counts as a drop of the queue.
	countsFiltered bool
	first          int // place of waiting[0] in the order of the filter
	waiting        []waitingDatagram
	received       int
	drops          uint32
	passed         int // places before this one are delivered or behind what was
}

type waitingDatagram struct {
	id      uint64
	src     netip.AddrPort
	dst     netip.AddrPort
	keep    int // bytes that userspace will get; -1 if none ever
	prefix  int // of keep: bytes that are known
	hash    uint64
	present bool
}

// behind is how far behind the last delivery a datagram may come in late,
// because two cpus changed places.
const behind = 64

// waitingLimit bounds the memory for datagrams that are never delivered.
const waitingLimit = 1 << 20

func (q *datagrams) saw(p *kernelPacket, lost int) {
	for range min(lost, waitingLimit) {
		q.waiting = append(q.waiting, waitingDatagram{})
	}
	w := waitingDatagram{id: p.id, src: p.src, dst: p.dst, present: true}
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

func (w *waitingDatagram) fits(d *delivery) bool {
	return w.present && w.keep == d.full && w.prefix <= len(d.data) && sameAddr(w.src, d.from) &&
		w.hash == maphash.Bytes(pairingSeed, d.data[:w.prefix])
}

// sameAddr compares addresses and, where both have one, ports: raw sockets
// report none.
func sameAddr(a, b netip.AddrPort) bool {
	return a.Addr() == b.Addr() && (a.Port() == b.Port() || a.Port() == 0 || b.Port() == 0)
}

func (q *datagrams) delivered(d *delivery) match {
	place, found := q.find(d, q.received+int(d.drops))
	q.received++
	dropped := int(d.drops - q.drops)
	q.drops = d.drops
	if !found {
		return match{comment: "the tap has no record of the packet that brought this"}
	}
	w := &q.waiting[place-q.first]
	m := match{id: w.id, src: w.src, dst: w.dst}
	if q.countsFiltered {
		m.filtered = min(q.filtered(place), dropped)
		dropped -= m.filtered
	}
	if dropped > 0 {
		m.comment = fmt.Sprintf("the receive queue dropped %d before this one", dropped)
		if ids := q.skipped(place); ids != "" {
			m.comment += ": packets " + ids
		}
	}
	*w = waitingDatagram{}
	q.passed = max(q.passed, place+1)
	q.forget()
	return m
}

// find looks for the delivery's datagram, from the expected place outwards.
func (q *datagrams) find(d *delivery, expected int) (place int, found bool) {
	low, high := max(q.first, q.passed-behind), q.first+len(q.waiting)
	expected = min(max(expected, low), high)
	for distance := 0; expected-distance >= low || expected+distance < high; distance++ {
		if at := expected + distance; at < high && q.waiting[at-q.first].fits(d) {
			return at, true
		}
		if at := expected - distance; at >= low && at < high && q.waiting[at-q.first].fits(d) {
			return at, true
		}
	}
	return 0, false
}

// filtered counts the packets between the last delivery and place that the
// filter dropped.
func (q *datagrams) filtered(place int) (n int) {
	for at := max(q.passed, q.first); at < place; at++ {
		if w := &q.waiting[at-q.first]; w.present && w.keep < 0 {
			n++
		}
	}
	return n
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
