package explain

import (
	"bytes"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// readDatagram handles a read of a datagram, which names the packet that brought it.
func (s *socket) readDatagram(e *entry, p *capture.Packet) {
	length := p.Got()
	from, equal := s.locate(e, p)
	compared := overlap(e.data, from, p.Data)
	e.delivered = true
	e.gotFrom = from
	e.got += uint64(length)
	e.short = e.short || p.Reception.Cut
	e.reads++
	e.addPart(p, s.reads, from, 0, length)
	s.latencies.add(p.Time - e.time)
	m := &s.out.Mapping
	if e.reads == 2 {
		m.SplitPackets++
	}
	if e.reads > 1 {
		m.MostReads = max(m.MostReads, e.reads)
	}
	if !s.brought(p) {
		return
	}
	e.differs = e.differs || !equal
	if !equal {
		// It is unknown which part of the packet this is.
	} else if from == 0 && length == e.length || from+length >= e.end {
		m.OneToOne++
	} else {
		m.PartOfPacket++
	}
	s.compared(e.id, length, compared, equal)
}

// compared counts the result of comparing a read with the kernel view.
func (s *socket) compared(id uint64, length, compared int, equal bool) {
	c := &s.out.Comparison
	c.Compared += uint64(compared)
	switch {
	case !equal:
		c.Differ.add(id, uint64(length))
	case compared == length:
		c.Same++
	case compared > 0:
		c.Partial++
	default:
		c.Unknown++
	}
}

// overlap is the number of bytes that both the packet from an offset on and the read
// have.
func overlap(packet []byte, from int, read []byte) int {
	return min(max(len(packet)-from, 0), len(read))
}

// place is where the bytes begin that a socket of this kind hands to userspace, in the first view of a packet: at offset 0,
// if that is known, but for those that take the transport header off.
func (s *socket) place(e *entry) int {
	k, known := capture.KindByName(s.out.Kind)
	if !known || !e.seen[capture.ViewKernel] {
		return e.payload
	}
	switch k.Protocol() {
	case header.ProtocolTCP, header.ProtocolUDP, header.ProtocolUDPLite, header.ProtocolSCTP:
		return e.payload
	}
	return e.offset0
}

// could is how many bytes of a packet userspace can get.
func (e *entry) could() int { return max(e.end-e.socket.place(e), 0) }

// locate finds the offset in a packet at which the bytes of a read begin, and tells
// whether they are equal as far as both are known.
//
// The file does not say how many headers userspace does not get. So these offsets are
// tried: that of the last read, the one that a filter's verdict leaves, the end of the
// headers, the beginning, the end of the packet, and then any other.
func (s *socket) locate(e *entry, p *capture.Packet) (from int, equal bool) {
	length := p.Got()
	if length == 0 {
		return min(s.place(e), e.end), true
	}
	candidates := [...]int{e.offset0 + s.usual, e.payload, e.offset0, 0, e.length - length}
	switch {
	case e.verdict > 0 && e.offset0+e.verdict < e.end:
		candidates[0] = e.offset0 + e.verdict - length
	case s.usual < 0 || e.length-length < candidates[0]:
		candidates[0] = e.length - length
		if last := e.length - length; last != e.payload && last != e.offset0 {
			candidates[0] = e.payload // a buffer that was too small gets the first bytes
		}
	}
	for _, at := range candidates {
		if at < 0 || at > e.length {
			continue
		}
		n := overlap(e.data, at, p.Data)
		if bytes.Equal(e.data[min(at, len(e.data)):][:n], p.Data[:n]) && (n > 0 || len(e.data) < e.length) {
			s.usual = at - e.offset0
			return at, true
		}
	}
	// Fewer bytes may match anywhere by chance.
	const sure = 4
	if at := bytes.Index(e.data, p.Data); at >= 0 && len(p.Data) >= sure {
		return at, true
	}
	return min(e.payload, e.length), false
}
