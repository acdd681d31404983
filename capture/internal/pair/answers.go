package pair

import (
	"bytes"
	"net/netip"
)

// answersRoom is how many of the last answers of filters are remembered, to be compared with what
// is delivered.
const answersRoom = 64

// answers are the last datagrams about which a filter was asked afterwards. Its answer is usually
// what it had decided, and then they are found among those that wait. They are looked at only for
// what is not found there, so the cost does not depend on what waits.
type answers struct {
	ring []answer
	next int
}

type answer struct {
	id, filter uint64
	denied     bool
	size       int // of the payload
	known      int // bytes of head
	head       [headLen]byte
	src, dst   netip.AddrPort
}

func (a *answers) add(p *Packet, headerLen int) {
	payload := p.Data[min(headerLen, len(p.Data)):]
	one := answer{id: p.ID, filter: p.Filter, denied: p.Verdict == 0, size: max(p.Len-headerLen, 0), src: p.Src, dst: p.Dst}
	one.known = copy(one.head[:], payload)
	if len(a.ring) < answersRoom {
		a.ring = append(a.ring, one)
		return
	}
	a.ring[a.next] = one
	a.next = (a.next + 1) % answersRoom
}

// belied finds the datagram of a delivery that does not fit to any answer.
func (a *answers) belied(d *Delivery) (m Match, ok bool) {
	for i := range a.ring {
		one := &a.ring[(a.next+i)%len(a.ring)]
		known := min(one.known, len(d.Data))
		if one.id == 0 || one.size < d.Full || !sameAddr(one.src, d.From) || !bytes.Equal(one.head[:known], d.Data[:known]) {
			continue
		}
		m = Match{ID: one.id, Src: one.src, Dst: one.dst, Belied: true, Denied: one.denied, Filter: one.filter}
		if !d.Peek {
			one.id = 0
		}
		return m, true
	}
	return Match{}, false
}

// answeredSegment is a segment that a filter would drop, says its answer.
type answeredSegment struct {
	from, to   int64
	id, filter uint64
}

// denied remembers a segment that the filter would drop.
func (s *Streams) denied(st *stream, h tcpHeader, p *Packet) {
	if st == nil || p.Len <= h.len {
		return
	}
	from := st.read + int64(int32(h.seq-st.start-uint32(st.read)))
	if len(st.answered) == answersRoom {
		st.answered = append(st.answered[:0], st.answered[answersRoom/2:]...)
	}
	st.answered = append(st.answered, answeredSegment{from: from, to: from + int64(p.Len-h.len), id: p.ID, filter: p.Filter})
}

// belied finds the first segment of a part of the stream that nobody let pass.
func (st *stream) belied(m Match, from, to int64) Match {
	for _, one := range st.answered {
		if one.from < to && one.to > from && one.id != 0 {
			return Match{ID: one.id, Belied: true, Denied: true, Filter: one.filter}
		}
	}
	return m
}
