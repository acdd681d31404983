package pair

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
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

// connection identifies one direction of a TCP connection, towards us. The next connection of
// the same peer may have the same addresses, but never the same cookie; before it is accepted,
// however, a connection has no cookie.
type connection struct {
	src, dst netip.AddrPort
	cookie   uint64
}

// Streams pairs reads of TCP streams with the segments that fed them, by sequence numbers: the
// n-th byte of a stream has the number ISN+1+n.
type Streams struct {
	open map[connection]*stream
	held int // segments of all streams
	// forgot says that streams were forgotten to make room.
	forgot bool
	// keepBytes says that segments are to keep their bytes.
	keepBytes bool
	// mptcp finds streams of MPTCP by their addresses alone: the socket of the connection is
	// not the one of its packets.
	mptcp map[connection]*stream
}

type stream struct {
	start    uint32 // sequence number of the first byte
	end      int64  // offset after the last byte seen
	read     int64  // offset of the next byte that userspace gets
	segments segments
	// answered are the last segments that the filter would drop, says its answer.
	answered []answeredSegment
	// unkept is the end of the segments that there was no room for, and again says that the stream may have begun
	// before, and was forgotten.
	unkept int64
	again  bool
	last   uint64 // id of the segment that ended the stream, 0 before
	owner  any    // of its packets
	taken  bool   // userspace has read something
	// forgotten says that the stream is not in streams any more.
	forgotten bool
	listed    uint64 // version of its entries in fronts
	ready     bool   // it has an entry in Found.ready
}

// NewStreams makes a Pairer of all TCP connections.
func NewStreams() *Streams {
	return &Streams{open: make(map[connection]*stream), mptcp: make(map[connection]*stream)}
}

// Saw implements Pairer.
func (s *Streams) Saw(p *Packet, _ int) {
	h, ok := parseTCP(p.Data)
	if !ok {
		return
	}
	key := connection{p.Src, p.Dst, p.Cookie}
	if p.Verdict == 0 {
		if p.Answered {
			s.denied(s.find(key), h, p)
		}
		return
	}
	st := s.find(key)
	if h.flags&tcpSYN != 0 {
		if key.cookie != 0 && st != nil {
			return // TCP does not accept a SYN on an open connection
		}
		// A retransmitted SYN has the same number, a new attempt another.
		if st == nil || st.start != h.seq+1 {
			st = s.start(key, h.seq+1)
		}
		h.seq++
		if speaksMPTCP(p.Data[:min(h.len, len(p.Data))]) {
			s.mptcp[connection{src: p.Src, dst: p.Dst}] = st
		}
	}
	if st == nil {
		if p.Len <= h.len {
			return // the last ACK of a connection that userspace has closed
		}
		// The tap was attached after the SYN.
		st = s.start(key, h.seq)
		st.again = s.forgot
	}
	st.owner = p.Owner
	s.add(st, h, p)
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
func (s *Streams) end(key connection) {
	st := s.open[key]
	if st == nil {
		return
	}
	st.forgotten = true
	s.held -= st.segments.len()
	ends := connection{src: key.src, dst: key.dst}
	if s.mptcp[ends] == st {
		delete(s.mptcp, ends)
	}
	delete(s.open, key)
}

// find returns the stream of a connection. If it has no stream under its cookie yet, its stream
// began under the addresses alone, with the handshake on the listener.
func (s *Streams) find(key connection) *stream {
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
	// streamsLimit bounds the number of streams, for connections that are never
	// accepted: some 400 bytes each.
	streamsLimit = 1 << 16
	// segmentsLimit bounds the segments of a stream that is not read, and heldLimit those of
	// all streams, some 50 bytes each.
	segmentsLimit = 1 << 16
	heldLimit     = 1 << 18
	// windowLimit is the largest receive window (RFC 7323), in bytes: TCP discards what is
	// further ahead, and so must we.
	windowLimit = 1 << 30
)

func (s *Streams) start(key connection, first uint32) *stream {
	if len(s.open) >= streamsLimit {
		s.forgetUnread(streamsLimit / 2)
	}
	s.end(key) // the stream of an earlier attempt
	st := &stream{start: first}
	s.open[key] = st
	return st
}

// forgetUnread makes room until only remain streams are left, and forgets unread ones first.
// Its cost per stream is that of making it.
func (s *Streams) forgetUnread(remain int) {
	for _, unreadOnly := range []bool{true, false} {
		for key, st := range s.open {
			if len(s.open) <= remain {
				return
			}
			if st.read == 0 || !unreadOnly {
				s.forgot = true
				s.end(key)
			}
		}
	}
}

// add adds what a packet brought.
func (s *Streams) add(st *stream, h tcpHeader, p *Packet) {
	from := st.read + int64(int32(h.seq-st.start-uint32(st.read)))
	to := from + int64(max(p.Len-h.len, 0))
	if p.Verdict > 0 {
		to = min(to, from+int64(max(p.Verdict-h.len, 0)))
	}
	if from > st.read+windowLimit || to < st.read {
		return
	}
	// TCP does not accept a RST from further ahead (RFC 5961).
	reset := h.flags&tcpRST != 0 && from <= st.end
	if st.last == 0 && (h.flags&tcpFIN != 0 || reset) {
		st.last = p.ID
	}
	if to == from {
		return
	}
	st.end = max(st.end, to)
	if to <= st.read {
		return
	}
	if st.segments.len() < segmentsLimit {
		if s.held >= heldLimit || s.keepBytes && s.held >= heldLimit/8 {
			s.forgetUnread(len(s.open) / 2)
			if st.forgotten {
				return
			}
		}
		s.held++
		new := segment{from: from, to: to, id: p.ID}
		if s.keepBytes {
			new.known = bytes.Clone(p.Data[min(h.len, len(p.Data)):])
		}
		st.segments.add(new)
	} else {
		st.unkept = max(st.unkept, to)
	}
}

// Delivered implements Pairer.
func (s *Streams) Delivered(d *Delivery) Match {
	key := connection{d.From, d.To, d.Cookie}
	st := s.find(key)
	if st == nil && !d.Sequenced {
		st = s.mptcp[connection{src: d.From, dst: d.To}]
	}
	if st == nil {
		if s.forgot {
			return Match{Missing: Forgotten}
		}
		return Match{Missing: NoStream}
	}
	if d.Over {
		if !d.Peek {
			s.end(key)
		}
		return Match{ID: st.last, Owner: st.owner}.named()
	}
	st.seek(d)
	before := st.segments.len()
	from := st.read
	m := st.feed(d)
	if m.Missing == NoSegments {
		m = st.belied(m, from, st.read).named()
	}
	if m.Missing == NoSegments && from < st.unkept || m.Missing == BeforeFilter && st.again {
		m.Missing = Forgotten
	}
	s.held += st.segments.len() - before
	m.Owner = st.owner
	return m
}

// seek moves to the offset at which a delivery begins, if the kernel reported it. An offset
// that was read before belongs to a call that overlapped with another thread's.
func (st *stream) seek(d *Delivery) {
	if !d.Sequenced {
		return
	}
	at := st.read + int64(int32(d.Seq-st.start-uint32(st.read)))
	if at >= st.read || !st.taken {
		st.read = at
	}
}

// feed finds the segments that brought a delivery.
func (st *stream) feed(d *Delivery) Match {
	n := int64(max(d.Full, len(d.Data)))
	from := st.read
	m := st.fed(from, from+n)
	if d.Peek {
		return m
	}
	st.taken, st.read = true, from+n
	st.segments.drop(st.read)
	switch before := -from; {
	case before >= n && n > 0:
		return Match{Missing: BeforeFilter}
	case before > 0:
		m.MissingBytes = before
	}
	return m
}

// fed finds the segments that brought a part of the stream.
func (st *stream) fed(from, to int64) Match {
	var (
		m    Match
		room [16]uint64 // for most reads, without an allocation
		ids  = room[:0]
	)
	st.segments.eachBefore(to, func(s *segment) {
		switch {
		case s.to <= from:
		case s.id == 0:
			m.Later = true
		case s.id == Unwanted:
			m.Unwanted = true
		default:
			if m.ID == 0 {
				m.ID = s.id
			}
			ids = append(ids, s.id)
		}
	})
	switch {
	case len(ids) == 0 && !m.Later && !m.Unwanted:
		m.Missing = NoSegments
	case len(ids) > 1 || m.Later:
		slices.Sort(ids)
		for _, id := range slices.Compact(ids) {
			m.Fed.Add(id)
		}
	}
	return m
}
