package capture

import "net/netip"

// Pairer pairs packets that were written down elsewhere: of what userspace got
// only the bytes and their order are known, and not when, from whom, and how
// many the receive queue had dropped.
//
// It pairs as a capture does, by place in the queue or in the stream. Where a
// capture knows the sender, it goes by the bytes.
type Pairer struct {
	datagrams *datagrams
	streams   *foundStreams // instead of datagrams, for kinds that are read as streams
	// checked is the place before which no datagram is the one that is asked for.
	checked int
}

// Match is where the bytes that userspace got came from.
type Match struct {
	// ID is that of the packet, or of the first one if several brought the bytes.
	ID uint64
	// Last is the ID of the last packet that had to be there.
	Last uint64
	// Src and Dst are the packet's addresses.
	Src, Dst netip.AddrPort
	// Comment is what is worth saying, or empty.
	Comment string
}

// NewPairer makes a Pairer for the sockets of a kind.
func NewPairer(kind *Kind) *Pairer {
	if kind.stream {
		return &Pairer{streams: &foundStreams{streams: newStreams()}}
	}
	return &Pairer{datagrams: &datagrams{headerLen: kind.headerLen}}
}

// Saw takes a packet of the kernel view, with its ID. Packets come in the order
// in which the filter saw them. It does not keep p.
func (r *Pairer) Saw(p *Packet) {
	k := kernelPacket{id: p.ID, src: p.Src, dst: p.Dst, data: p.Data, len: max(p.Len, len(p.Data)), verdict: -1}
	if r.streams != nil {
		r.streams.saw(&k)
		return
	}
	r.datagrams.saw(&k, 0)
}

// Brought finds the packets that brought what userspace got, among those seen
// so far. When it is not ok it can be asked again for the same packet, after
// more were seen; the final question also looks among those that were passed over.
func (r *Pairer) Brought(p *Packet, final bool) (m Match, ok bool) {
	d := delivery{data: p.Data, full: max(p.Len, len(p.Data))}
	if r.streams != nil {
		return r.streams.brought(&d, final)
	}
	q := r.datagrams
	place, ok := q.next(&d, max(r.checked, q.passed))
	r.checked = q.first + len(q.waiting)
	if !ok && final {
		place, ok = q.next(&d, q.passed-behind)
	}
	if ok || final {
		r.checked = 0
	}
	if !ok {
		return Match{}, false
	}
	found := q.take(place)
	return Match{ID: found.id, Last: found.id, Src: found.src, Dst: found.dst}, true
}

// next finds the first datagram from a place on that fits a delivery.
func (q *datagrams) next(d *delivery, from int) (place int, ok bool) {
	q.alike.prefix = -1
	for at := max(from, q.first); at < q.first+len(q.waiting); at++ {
		if q.waiting[at-q.first].fits(d, &q.alike) {
			return at, true
		}
	}
	return 0, false
}
