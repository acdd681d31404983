package explain

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// connection names one direction of a TCP connection.
type connection struct{ src, dst netip.AddrPort }

// connections are the streams of a socket. Reads of a stream have no packet boundaries,
// so they are matched with segments by sequence number.
type connections struct {
	open map[connection]*stream
	// order holds the keys of open, oldest first.
	order []connection
}

// connectionLimit bounds the connections that are followed at a time.
const connectionLimit = 1 << 12

// stream is one direction of a TCP connection.
type stream struct {
	start   uint32 // sequence number of the first byte
	end     int64  // offset after the last byte seen, to unwrap sequence numbers
	read    int64  // offset of the next byte that userspace gets
	pending []segment
	syn     bool // between the SYN of the peer that connects and its next segment
}

// segment is the part of a stream that one packet brought.
type segment struct {
	from, to int64 // offsets
	entry    *entry
}

// saw handles a segment of the kernel view.
func (c *connections) saw(e *entry) {
	key := connection{e.src, e.dst}
	st := c.open[key]
	seq := e.tcp.Seq
	if e.tcp.Flags&header.SYN != 0 {
		e.handshake = true
		// A retransmitted SYN has the same sequence number, a new connection another.
		if st == nil || st.start != seq+1 {
			st = c.start(key, seq+1)
			// A SYN-ACK is the last segment of the handshake that comes in: we answer it.
			st.syn = e.tcp.Flags&header.ACK == 0
		}
		seq++
	}
	if st == nil {
		if e.end <= e.payload && e.tcp.Flags&(header.FIN|header.RST) == 0 {
			return // the last ACK of a connection that is over
		}
		st = c.start(key, seq) // the capture began after the SYN
	}
	e.stream = st
	st.add(e, seq)
}

func (c *connections) start(key connection, first uint32) *stream {
	if c.open == nil {
		c.open = make(map[connection]*stream)
	}
	if c.open[key] == nil {
		c.order = append(c.order, key)
	}
	if len(c.order) > connectionLimit {
		delete(c.open, c.order[0])
		c.order = c.order[1:]
	}
	st := &stream{start: first}
	c.open[key] = st
	return st
}

func (st *stream) add(e *entry, seq uint32) {
	size := int64(max(e.end-e.payload, 0))
	if e.verdict > 0 {
		size = min(size, int64(max(e.offset0+e.verdict-e.payload, 0)))
	}
	if st.syn && e.tcp.Flags&header.SYN == 0 {
		// An ACK with payload, or after one with payload, is not part of the handshake.
		e.handshake = e.end <= e.payload && seq == st.start && e.tcp.Flags&(header.FIN|header.RST) == 0
		st.syn = false
	}
	from := st.end + int64(int32(seq-st.start-uint32(st.end)))
	to := from + size
	if size == 0 {
		return
	}
	if from < st.end && st.covers(from, to) {
		e.repeated = true
		return
	}
	st.end = max(st.end, to)
	e.pending, e.from, e.to = true, from, to
	at, _ := slices.BinarySearchFunc(st.pending, from, func(s segment, from int64) int { return cmp.Compare(s.from, from+1) })
	st.pending = slices.Insert(st.pending, at, segment{from: from, to: to, entry: e})
}

// covers tells whether a whole range of the stream was seen before.
func (st *stream) covers(from, to int64) bool {
	at := max(from, st.read)
	for _, s := range st.pending {
		if s.from > at || at >= to {
			break
		}
		at = max(at, s.to)
	}
	return at >= to
}

// forget removes a packet, usually the first unless some came out of order.
func (st *stream) forget(e *entry) {
	at := slices.IndexFunc(st.pending, func(s segment) bool { return s.entry == e })
	if at == 0 {
		st.pending = st.pending[1:]
	} else if at > 0 {
		st.pending = slices.Delete(st.pending, at, at+1)
	}
}

// passed removes the segments that were read.
func (st *stream) passed() {
	for len(st.pending) > 0 && st.pending[0].to <= st.read {
		st.pending[0].entry.pending = false
		st.pending = st.pending[1:]
	}
}

// readStream handles what a read of a stream returned. e is the packet that the read
// names, nil if that is not in the window. ok is false if no segment of the stream is.
func (s *socket) readStream(e *entry, p *capture.Packet) (ok bool) {
	st := s.streams.open[connection{p.Src, p.Dst}]
	if e != nil && e.stream != nil {
		st = e.stream
	}
	length := p.Got()
	if length == 0 {
		if e != nil {
			e.ended, e.delivered, e.failed = true, true, failed(p)
			e.addPart(p, s.reads, e.end, 0, 0)
			s.latencies.add(p.Time - e.time)
		}
		return e != nil
	}
	if st == nil {
		return false
	}
	// The file names the first packet of a read, which gives the offset in the stream
	// after the tap lost packets or was attached late.
	if e != nil && e.pending && (st.read < e.from || st.read >= e.to) {
		st.read = e.from
	}
	before := p.Receipt.BeforeTap
	if before >= int64(length) {
		before = 0
	}
	return s.feed(st, p, before, int64(length))
}

// peekStream handles what a peek at a stream returned: the next bytes of it, which the next read gets as well. ok is
// false if there is no packet that has them.
func (s *socket) peekStream(e *entry, p *capture.Packet) (ok bool) {
	length := int64(p.Got())
	if e != nil && (length == 0 || e.stream == nil) {
		e.peekedAt(p, e.end, 0, 0, true)
		return true
	}
	st := s.streams.open[connection{p.Src, p.Dst}]
	if e != nil {
		st = e.stream
	}
	if st == nil {
		return false
	}
	from := st.read
	if e != nil && e.pending && (from < e.from || from >= e.to) {
		from = e.from
	}
	start, to := from-p.Receipt.BeforeTap, from+length-p.Receipt.BeforeTap
	for _, g := range st.pending {
		low, high := max(from, g.from), min(to, g.to)
		if low >= high {
			continue
		}
		at := g.entry.payload + int(low-g.from)
		_, same := g.entry.compareRead(at, p.Data, low-start, high-start)
		g.entry.peekedAt(p, at, int(low-start), int(high-low), same)
		ok = true
	}
	if !ok && e != nil {
		e.peekedAt(p, e.payload, 0, 0, false)
	}
	return ok || e != nil
}

// feed matches a read of length bytes with the segments that they came from. The first
// before bytes arrived before the tap was attached.
func (s *socket) feed(st *stream, p *capture.Packet, before, length int64) bool {
	from, to := st.read, st.read+length-before
	st.read = to
	start := from - before // of the read
	var (
		fed, compared int64
		first, last   *entry
		complete      bool
		equal         = true
	)
	for _, g := range st.pending {
		if g.from >= to {
			break
		}
		if g.to <= from {
			continue
		}
		e, low, high := g.entry, max(from, g.from), min(to, g.to)
		if first == nil {
			first = e
		}
		if last == nil || e.time > last.time {
			last = e
		}
		fed++
		complete = low == g.from && high == g.to
		n, same := e.compareRead(e.payload+int(low-g.from), p.Data, low-start, high-start)
		compared += n
		equal = equal && same
		e.differs = e.differs || !same
		s.feedPart(e, p, e.payload+int(low-g.from), int(low-start), int(high-low))
	}
	st.passed()
	if fed == 0 {
		return false
	}
	m := &s.out.Mapping
	switch {
	case fed > 1:
		m.SeveralPackets++
		m.Most = max(m.Most, uint64(fed))
	case complete:
		m.OneToOne++
	default:
		m.PartOfPacket++
	}
	// Overlapping segments are compared more than once.
	s.compared(first.id, int(length), int(min(compared, length)), equal)
	s.latencies.add(p.Time - last.time)
	return true
}

// feedPart records that a read got some bytes of a packet.
func (s *socket) feedPart(e *entry, p *capture.Packet, at, readFrom, length int) {
	e.delivered = true
	e.gotFrom = e.payload
	e.got += uint64(length)
	e.reads++
	if e.reads == 2 {
		s.out.Mapping.SplitPackets++
	}
	if e.reads > 1 {
		s.out.Mapping.MostReads = max(s.out.Mapping.MostReads, e.reads)
	}
	e.addPart(p, s.reads, at, readFrom, length)
}

// compareRead compares a packet from an offset on with a range of a read, as far as both
// are known, and returns how many bytes that was.
func (e *entry) compareRead(at int, read []byte, from, to int64) (n int64, same bool) {
	a := e.data[min(at, len(e.data)):]
	b := read[min(from, int64(len(read))):min(to, int64(len(read)))]
	size := min(len(a), len(b))
	return int64(size), bytes.Equal(a[:size], b[:size])
}
