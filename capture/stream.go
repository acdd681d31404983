package capture

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	tcpFIN = 1 << 0
	tcpSYN = 1 << 1
	tcpRST = 1 << 2
	tcpACK = 1 << 4
)

// tcpHeader is what pairing needs of a TCP header (RFC 9293).
type tcpHeader struct {
	seq   uint32
	flags uint8
	len   int // of the header, in bytes
}

func parseTCP(data []byte) (tcpHeader, bool) {
	if len(data) < 20 {
		return tcpHeader{}, false
	}
	h := tcpHeader{seq: binary.BigEndian.Uint32(data[4:]), flags: data[13], len: int(data[12]>>4) * 4}
	return h, h.len >= 20
}

// connection names one direction of a TCP connection, towards us. Addresses come
// back with the next connection of the same peer; cookies do not, but before it
// is accepted a connection has none.
type connection struct {
	src, dst netip.AddrPort
	cookie   uint64
}

// streams pairs reads of TCP streams with the segments that fed them, by
// sequence numbers: the n-th byte of a stream has the number ISN+1+n.
type streams struct {
	open map[connection]*stream
	// peers finds a connection by its peer and our port, for those who do not
	// know our address.
	peers map[connection]connection
	// foreign says that other processes read them, perhaps from before the tap came.
	foreign bool
	// ready are the connections, by our port, whose handshake is over and which no
	// other process has accepted yet, in the order in which they can be accepted.
	ready map[uint16][]connection
}

type stream struct {
	start    uint32 // sequence number of the first byte
	end      int64  // offset behind the last byte seen
	read     int64  // offset of the next byte that userspace gets
	segments []segment
	unsorted bool    // segments are not in the order of their offsets
	last     uint64  // id of the segment that ended the stream, 0 before
	joined   *joined // nil unless the tap came after the SYN
	greeted  bool    // by a SYN to a listener of another process, and not ready yet
	head     []byte  // the first bytes of a connection that another process accepts
}

// segment is the part of a stream that one packet brought.
type segment struct {
	from, to int64 // offsets
	id       uint64
	known    []byte // of its payload, if anybody asks for it
}

func newStreams() *streams {
	return &streams{
		open: make(map[connection]*stream), peers: make(map[connection]connection), ready: make(map[uint16][]connection),
	}
}

func (s *streams) saw(p *kernelPacket, _ int) {
	h, ok := parseTCP(p.data)
	if !ok || p.verdict == 0 {
		return
	}
	key := connection{p.src, p.dst, p.cookie}
	st := s.find(key)
	if h.flags&tcpSYN != 0 {
		if key.cookie != 0 && st != nil {
			return // TCP takes no SYN on an open connection
		}
		// A repeated SYN has the same number, a new attempt another.
		if st == nil || st.start != h.seq+1 {
			st = s.start(key, h.seq+1)
			st.greeted = s.foreign && h.flags&tcpACK == 0
		}
		h.seq++
	} else if st != nil && st.greeted {
		st.greeted = false
		s.queue(key)
	}
	if st == nil {
		if p.len <= h.len {
			return // the last ACK of a connection that userspace is done with
		}
		// The tap came after the SYN.
		st = s.start(key, h.seq)
		if s.foreign {
			st.joined = &joined{}
		}
	}
	st.add(h, p)
}

// find is the stream of a connection. One that is new to its cookie began under
// the addresses alone, with the handshake on the listener.
func (s *streams) find(key connection) *stream {
	if st := s.open[key]; st != nil || key.cookie == 0 {
		return st
	}
	handshake := key
	handshake.cookie = 0
	st := s.open[handshake]
	if st != nil {
		delete(s.open, handshake)
		s.open[key] = st
	}
	return st
}

const (
	// streamsLimit bounds the number of streams, for connections that are never accepted.
	streamsLimit = 1 << 18
	// segmentsLimit bounds the segments of a stream that nobody reads.
	segmentsLimit = 1 << 16
	// windowLimit is the largest receive window (RFC 7323), in bytes: TCP throws
	// away what is further ahead, and so must we.
	windowLimit = 1 << 30
)

func (s *streams) start(key connection, first uint32) *stream {
	if len(s.open) >= streamsLimit {
		s.forgetUnread()
	}
	st := &stream{start: first}
	s.open[key] = st
	if s.foreign {
		s.peers[key.withoutAddress()] = key
	}
	return st
}

// forgetUnread makes room: half of the streams that nobody has read yet go, or
// of all if that is not enough.
func (s *streams) forgetUnread() {
	for _, unreadOnly := range []bool{true, false} {
		for key, st := range s.open {
			if len(s.open) <= streamsLimit/2 {
				return
			}
			if st.read == 0 || !unreadOnly {
				s.end(key)
			}
		}
	}
}

func (s *streams) end(key connection) {
	delete(s.open, key)
	delete(s.peers, key.withoutAddress())
}

// withoutAddress leaves only our port of our end.
func (c connection) withoutAddress() connection {
	return connection{src: c.src, dst: netip.AddrPortFrom(netip.Addr{}, c.dst.Port())}
}

func (st *stream) add(h tcpHeader, p *kernelPacket) {
	from := st.read + int64(int32(h.seq-st.start-uint32(st.read)))
	to := from + int64(max(p.len-h.len, 0))
	if p.verdict > 0 {
		to = min(to, from+int64(max(p.verdict-h.len, 0)))
	}
	if from > st.read+windowLimit || to < st.read {
		return
	}
	// TCP takes no RST from further ahead (RFC 5961).
	reset := h.flags&tcpRST != 0 && from <= st.end
	if st.last == 0 && (h.flags&tcpFIN != 0 || reset) {
		st.last = p.id
	}
	if to == from {
		return
	}
	if known := int64(len(st.head)); st.joined == nil && from == known && known < headLimit {
		payload := p.data[min(h.len, len(p.data)):]
		st.head = append(st.head, payload[:min(len(payload), headLimit)]...)
	}
	st.end = max(st.end, to)
	if to <= st.read {
		return
	}
	if len(st.segments) < segmentsLimit {
		n := len(st.segments)
		st.unsorted = st.unsorted || n > 0 && st.segments[n-1].from > from
		st.segments = append(st.segments, segment{from: from, to: to, id: p.id})
	}
	st.joined.keep(from, p.data[min(h.len, len(p.data)):])
}

// What the comments say of deliveries of which the tap saw nothing, and of those
// of which it missed so many bytes at the beginning.
const (
	BeforeTap      = "the tap came after the packets that brought this"
	BeforeTapBytes = "the tap came after the packets of its first %d bytes"
)

func (s *streams) delivered(d *delivery) match {
	key := s.key(d)
	st := s.find(key)
	if st == nil {
		return match{comment: "the tap has no record of this stream"}
	}
	if d.err != nil || d.end {
		if !d.peek {
			s.end(key)
		}
		return match{id: st.last}
	}
	if d.socket != nil && d.socket.guessed {
		if st = s.confirm(st, d); st == nil {
			return match{comment: "the tap has no record of this stream"}
		}
	}
	if d.socket != nil && !st.seek(d) {
		return match{comment: BeforeTap}
	}
	n := max(d.full, len(d.data))
	if before := -st.read; before > 0 && !d.peek {
		m := st.take(n)
		if before >= int64(n) {
			return match{comment: BeforeTap}
		}
		m.comment = join(fmt.Sprintf(BeforeTapBytes, before), m.comment)
		return m
	}
	if d.peek {
		peeked := stream{read: st.read, segments: slices.Clone(st.segments), unsorted: st.unsorted}
		return peeked.take(n)
	}
	return st.take(n)
}

const (
	// readyLimit bounds the connections that wait for somebody who accepts them.
	readyLimit = 1 << 14
	// headLimit is how many bytes of a connection tell it from others.
	headLimit = 64
)

// queue notes that a connection can be accepted.
func (s *streams) queue(key connection) {
	port := key.dst.Port()
	q := append(s.ready[port], key)
	s.ready[port] = q[max(0, len(q)-readyLimit):]
}

// opened takes a connection out of those that wait for somebody who accepts
// them: the one that it is, or the first, which it should be.
func (s *streams) opened(d *delivery) {
	q := s.ready[d.to.Port()]
	known := d.from.IsValid() && !d.socket.asked
	for i, key := range q {
		if known && key.src != d.from {
			continue
		}
		s.ready[d.to.Port()] = slices.Delete(q, i, i+1)
		if !known {
			d.socket.from, d.socket.to, d.socket.guessed = key.src, key.dst, true
		}
		return
	}
}

// confirm looks at the first bytes of a connection that was guessed. If they
// are not those that came, it takes another one that waits, nil if none fits.
func (s *streams) confirm(st *stream, d *delivery) *stream {
	d.socket.guessed = false
	if st.begins(d.data) {
		return st
	}
	q := s.ready[d.to.Port()]
	for i, key := range q {
		if other := s.open[key]; other != nil && other.begins(d.data) {
			q[i] = connection{src: d.from, dst: d.to}
			d.socket.from, d.socket.to = key.src, key.dst
			d.from, d.to = key.src, key.dst
			return other
		}
	}
	return nil
}

// begins tells whether the stream can begin with some bytes.
func (st *stream) begins(data []byte) bool {
	n := min(len(data), len(st.head))
	return bytes.Equal(data[:n], st.head[:n])
}

func (s *streams) closed(d *delivery) { s.end(s.key(d)) }

// key finds the connection of a delivery, and completes the delivery's addresses.
func (s *streams) key(d *delivery) connection {
	key := connection{d.from, d.to, d.cookie}
	if !d.to.Addr().IsValid() {
		if known, ok := s.peers[key.withoutAddress()]; ok {
			d.to = known.dst
			if d.socket != nil {
				d.socket.to = known.dst
			}
			return known
		}
	}
	return key
}

// take finds the segments that fed the next n bytes of the stream.
func (st *stream) take(n int) match {
	from, to := st.read, st.read+int64(n)
	st.read = to
	if st.unsorted {
		slices.SortStableFunc(st.segments, func(a, b segment) int { return cmp.Compare(a.from, b.from) })
		st.unsorted = false
	}
	var (
		first  uint64
		room   [8]uint64 // for most reads, without an allocation
		fed    = room[:0]
		beyond bool // also by packets after the last one that was asked for
		kept   int  // segments before st.segments[at] that are not over
		at     int
	)
	for ; at < len(st.segments) && st.segments[at].from < to; at++ {
		s := st.segments[at]
		if s.to > to {
			st.segments[kept] = s
			kept++
		}
		if s.to <= from {
			continue
		}
		if s.id == 0 {
			beyond = true
			continue
		}
		if first == 0 {
			first = s.id
		}
		fed = append(fed, s.id)
	}
	st.drop(kept, at)
	m := match{id: first}
	switch {
	case first == 0 && !beyond:
		m.comment = "the tap has no record of the segments that brought this"
	case len(fed) > 1 || beyond:
		slices.Sort(fed)
		var ids idRanges
		for _, id := range slices.Compact(fed) {
			ids.add(id)
		}
		m.comment = "read from packets " + ids.String()
		if beyond {
			m.comment += " and later ones"
		}
	}
	return m
}

// fewSegments are moved to the front, so that the next ones need no memory.
const fewSegments = 16

// drop forgets the segments from one place up to another. Those before, few if
// any, move up, so that the many behind can stay where they are.
func (st *stream) drop(from, to int) {
	if len(st.segments)-to <= fewSegments {
		st.segments = append(st.segments[:from], st.segments[to:]...)
		return
	}
	copy(st.segments[to-from:to], st.segments[:from])
	st.segments = st.segments[to-from:]
}

// endComment says how a stream ended.
func endComment(call string, err error) string {
	switch {
	case err == nil:
		return "end of stream"
	case errors.Is(err, unix.ECONNRESET):
		return "the peer reset the connection"
	}
	return call + ": " + err.Error()
}
