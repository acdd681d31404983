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

// connection names one direction of a TCP connection, towards us.
type connection struct{ src, dst netip.AddrPort }

// streams pairs reads of TCP streams with the segments that fed them, by
// sequence numbers: the n-th byte of a stream has the number ISN+1+n.
type streams struct {
	open map[connection]*stream
}

type stream struct {
	start    uint32 // sequence number of the first byte
	end      int64  // offset behind the last byte seen, to unwrap sequence numbers
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
	key := connection{p.src, p.dst}
	st := s.open[key]
	if h.flags&tcpSYN != 0 {
		// A repeated SYN has the same number, a new connection another.
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

// streamsLimit bounds the memory for connections that are never accepted.
const streamsLimit = 1 << 18

func (s *streams) start(key connection, first uint32) *stream {
	if len(s.open) >= streamsLimit {
		clear(s.open)
	}
	st := &stream{start: first}
	s.open[key] = st
	return st
}

func (st *stream) add(h tcpHeader, p *kernelPacket) {
	from := st.end + int64(int32(h.seq-st.start-uint32(st.end)))
	to := from + int64(max(p.len-h.len, 0))
	if p.verdict > 0 {
		to = min(to, from+int64(max(p.verdict-h.len, 0)))
	}
	st.end = max(st.end, to)
	if to > from && to > st.read {
		st.segments = append(st.segments, segment{from: from, to: to, id: p.id})
	}
	if h.flags&(tcpFIN|tcpRST) != 0 && st.last == 0 {
		st.last = p.id
	}
}

func (s *streams) delivered(d *delivery) match {
	key := connection{d.from, d.to}
	st := s.open[key]
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
		first uint64
		fed   []uint64
		kept  = st.segments[:0]
	)
	for _, s := range st.segments {
		if s.from < to && s.to > from {
			if first == 0 {
				first = s.id
			}
			fed = append(fed, s.id)
		}
		if s.to > to {
			kept = append(kept, s)
		}
	}
	st.segments = kept
	if first == 0 {
		return match{comment: "the tap has no record of the segments that brought this"}
	}
	if len(fed) == 1 {
		return match{id: first}
	}
	slices.Sort(fed)
	var ids idRanges
	for _, id := range slices.Compact(fed) {
		ids.add(id)
	}
	return match{id: first, comment: "read from packets " + ids.String()}
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
