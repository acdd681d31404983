package capture

import (
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
	// mptcp finds a stream by its addresses alone: the connection's socket is not the
	// one that its packets have.
	mptcp map[connection]*stream
}

type stream struct {
	start    uint32 // sequence number of the first byte
	end      int64  // offset behind the last byte seen
	read     int64  // offset of the next byte that userspace gets
	segments []segment
	unsorted bool   // segments are not in the order of their offsets
	last     uint64 // id of the segment that ended the stream, 0 before
	route    *route // of its packets
	taken    bool   // userspace has got something
}

// segment is the part of a stream that one packet brought.
type segment struct {
	from, to int64 // offsets
	id       uint64
	known    []byte // of its payload, if anybody asks for it
}

func newStreams() *streams {
	return &streams{open: make(map[connection]*stream), mptcp: make(map[connection]*stream)}
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
		}
		h.seq++
		if speaksMPTCP(p.data[:min(h.len, len(p.data))]) {
			s.mptcp[connection{src: p.src, dst: p.dst}] = st
		}
	}
	if st == nil {
		if p.len <= h.len {
			return // the last ACK of a connection that userspace is done with
		}
		// The tap came after the SYN.
		st = s.start(key, h.seq)
	}
	st.route = p.route
	st.add(h, p)
}

// speaksMPTCP tells whether a SYN has the option of MPTCP (RFC 8684).
func speaksMPTCP(header []byte) bool {
	const end, nop, mptcp = 0, 1, 30
	for options := header[min(20, len(header)):]; len(options) > 1; {
		switch {
		case options[0] == end:
			return false
		case options[0] == nop:
			options = options[1:]
			continue
		case options[0] == mptcp:
			return true
		}
		if length := int(options[1]); length < 2 || length > len(options) {
			return false
		}
		options = options[options[1]:]
	}
	return false
}

// end forgets a stream.
func (s *streams) end(key connection) {
	ends := connection{src: key.src, dst: key.dst}
	if st := s.mptcp[ends]; st != nil && st == s.open[key] {
		delete(s.mptcp, ends)
	}
	delete(s.open, key)
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
	st.end = max(st.end, to)
	if to <= st.read {
		return
	}
	if len(st.segments) < segmentsLimit {
		n := len(st.segments)
		st.unsorted = st.unsorted || n > 0 && st.segments[n-1].from > from
		st.segments = append(st.segments, segment{from: from, to: to, id: p.id})
	}
}

// What the comments say of deliveries of which the tap saw nothing, and of those
// of which it missed so many bytes at the beginning.
const (
	BeforeTap      = "the tap came after the packets that brought this"
	BeforeTapBytes = "the tap came after the packets of its first %d bytes"
)

func (s *streams) delivered(d *delivery) match {
	key := connection{d.from, d.to, d.cookie}
	st := s.find(key)
	if st == nil && !d.sequenced {
		st = s.mptcp[connection{src: d.from, dst: d.to}]
	}
	if st == nil {
		return match{comment: "the tap has no record of this stream"}
	}
	if d.err != nil || d.end {
		if !d.peek {
			s.end(key)
		}
		return match{id: st.last, route: st.route}
	}
	st.seek(d)
	m := st.feed(d)
	m.route = st.route
	return m
}

// seek moves to where a delivery begins, as far as the kernel has told. A place that
// was read before is that of a call which began while another thread's went on.
func (st *stream) seek(d *delivery) {
	if !d.sequenced {
		return
	}
	at := st.read + int64(int32(d.seq-st.start-uint32(st.read)))
	if at >= st.read || !st.taken {
		st.read = at
	}
}

// feed finds the segments that fed a delivery.
func (st *stream) feed(d *delivery) match {
	n := max(d.full, len(d.data))
	if d.peek {
		peeked := stream{read: st.read, segments: slices.Clone(st.segments), unsorted: st.unsorted}
		return peeked.take(n)
	}
	st.taken = true
	before := -st.read
	m := st.take(n)
	switch {
	case before >= int64(n) && n > 0:
		return match{comment: BeforeTap}
	case before > 0:
		m.comment = join(fmt.Sprintf(BeforeTapBytes, before), m.comment)
	}
	return m
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
