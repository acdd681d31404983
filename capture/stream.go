package capture

import (
	"cmp"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	tcpFIN = 1 << 0
	tcpSYN = 1 << 1
	tcpRST = 1 << 2
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
}

type stream struct {
	start    uint32 // sequence number of the first byte
	end      int64  // offset behind the last byte seen
	read     int64  // offset of the next byte that userspace gets
	segments []segment
	last     uint64 // id of the segment that ended the stream, 0 before
}

// segment is the part of a stream that one packet brought.
type segment struct {
	from, to int64 // offsets
	id       uint64
	known    []byte // of its payload, if anybody asks for it
}

func newStreams() *streams { return &streams{open: make(map[connection]*stream)} }

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
	}
	if st == nil {
		if p.len <= h.len {
			return // the last ACK of a connection that userspace is done with
		}
		// The tap came after the SYN.
		st = s.start(key, h.seq)
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
				delete(s.open, key)
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
	if to > st.read && len(st.segments) < segmentsLimit {
		st.segments = append(st.segments, segment{from: from, to: to, id: p.id})
	}
}

func (s *streams) delivered(d *delivery) match {
	key := connection{d.from, d.to, d.cookie}
	st := s.find(key)
	if st == nil {
		return match{comment: "the tap has no record of this stream"}
	}
	if d.err != nil || d.end {
		delete(s.open, key)
		return match{id: st.last}
	}
	return st.take(max(d.full, len(d.data)))
}

// take finds the segments that fed the next n bytes of the stream.
func (st *stream) take(n int) match {
	from, to := st.read, st.read+int64(n)
	st.read = to
	slices.SortStableFunc(st.segments, func(a, b segment) int { return cmp.Compare(a.from, b.from) })
	var (
		first  uint64
		fed    []uint64
		beyond bool // also by packets after the last one that was asked for
		kept   = st.segments[:0]
	)
	for _, s := range st.segments {
		if s.to > to {
			kept = append(kept, s)
		}
		if s.from >= to || s.to <= from {
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
	st.segments = kept
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

// endComment says how a stream ended.
func endComment(err error) string {
	switch {
	case err == nil:
		return "end of stream"
	case errors.Is(err, unix.ECONNRESET):
		return "the peer reset the connection"
	}
	return "recvmsg: " + err.Error()
}
