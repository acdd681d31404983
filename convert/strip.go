package convert

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/headers"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// stripper removes the headers that the Writer put before packets.
//
// It removes only what the Writer would put there again, bit for bit, so that reading and
// writing a file loses nothing. A packet with any other header keeps it, and belongs to
// the plain variant of the interface.
type stripper struct {
	header []byte
	calls  map[string]string // interned names of calls
}

// packet completes a packet read from an interface.
func (s *stripper) packet(p *capture.Packet, i *fileInterface) {
	p.Interface = i.said
	if i.own == i.plain || s.strip(p) {
		p.Interface = i.own
	} else {
		p.Interface = i.plain
		p.Src, p.Dst, p.Protocol, p.Call, p.Segment, p.Netlink = netip.AddrPort{}, netip.AddrPort{}, 0, "", capture.Segment{}, 0
	}
	stripTag(p)
	if p.Interface.Layer == capture.LayerLink || p.Interface.Layer == capture.LayerNetwork {
		h := headers.Parse(p)
		p.Src, p.Dst, p.Protocol = h.Src, h.Dst, h.Protocol
	}
}

func (s *stripper) strip(p *capture.Packet) bool {
	whole, length := p.Data, p.Len
	size := 0
	switch p.Interface.Layer {
	case capture.LayerTransport:
		size = parseSynthetic(p)
	case capture.LayerMessage:
		if isNetlink(p.Interface) {
			size = parseNetlink(p)
			break
		}
		size = s.parsePDU(p)
	}
	if size == 0 || size > len(whole) {
		return false
	}
	p.Data, p.Len = whole[size:], max(length-size, len(whole)-size)
	if checkHeader(p) == nil {
		s.header = appendHeader(s.header[:0], p)
		if isSegment(p) && len(p.Data) < originalLength(p) && len(s.header) == size {
			// Another program may have cut the packet since. Of what is left, there is no checksum.
			_, _, protocol := segmentEnds(p)
			copy(segmentChecksum(s.header, protocol), segmentChecksum(whole[:size], protocol))
		}
		if bytes.Equal(s.header, whole[:size]) || s.isOlder(p, whole[:size]) {
			return true
		}
	}
	p.Data, p.Len = whole, length
	return false
}

// isOlder tells whether a header is one of a version that left the protocol column empty where
// there was no call.
func (s *stripper) isOlder(p *capture.Packet, header []byte) bool {
	if p.Interface.Layer != capture.LayerMessage || p.Call != "" || columnOf(p) == "" || isNetlink(p.Interface) || isSegment(p) {
		return false
	}
	s.header = appendMessageHeader(s.header[:0], p, "")
	return bytes.Equal(s.header, header)
}

// parseSynthetic reads the addresses and the protocol of an IP header made by
// appendHeader, and returns its size in bytes, 0 if there is none.
func parseSynthetic(p *capture.Packet) int {
	b := p.Data
	size := ipv4HeaderSize
	var src, dst netip.Addr
	switch {
	case p.Interface.IPv6 && len(b) >= ipv6HeaderSize:
		src, dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		size, p.Protocol = ipv6HeaderSize, b[6]
		if isJumbo(b) {
			size, p.Protocol = size+jumboHeaderSize, b[ipv6HeaderSize]
		}
	case !p.Interface.IPv6 && len(b) >= ipv4HeaderSize:
		src, dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		p.Protocol = b[9]
	default:
		return 0
	}
	var ports [2]uint16
	if header.HasPorts(p.Protocol) && len(b) >= size+4 {
		ports[0], ports[1] = binary.BigEndian.Uint16(b[size:]), binary.BigEndian.Uint16(b[size+2:])
	}
	p.Src, p.Dst = netip.AddrPortFrom(src, ports[0]), netip.AddrPortFrom(dst, ports[1])
	return size
}

// isJumbo tells whether an IPv6 header is followed by the jumbo payload option as
// appendIPv6Header writes it.
func isJumbo(b []byte) bool {
	return b[6] == 0 && b[4] == 0 && b[5] == 0 && len(b) >= ipv6HeaderSize+jumboHeaderSize &&
		b[ipv6HeaderSize+1] == 0 && b[ipv6HeaderSize+2] == 0xc2 && b[ipv6HeaderSize+3] == 4
}

// parsePDU reads the tags made by appendPDUHeader, and returns their size in bytes, 0 if
// the end tag is missing.
func (s *stripper) parsePDU(p *capture.Packet) int {
	be := binary.BigEndian
	var src, dst netip.Addr
	var ports [2]uint32
	segment := false
	b := p.Data
	for len(b) >= 4 {
		tag, length := be.Uint16(b), int(be.Uint16(b[2:]))
		if tag == pduEnd && segment {
			at := len(p.Data) - len(b) + 4
			if size := parseSegment(p, p.Data[at:]); size > 0 {
				return at + size
			}
			return 0
		}
		if tag == pduEnd {
			p.Src, p.Dst = netip.AddrPortFrom(src, uint16(ports[0])), netip.AddrPortFrom(dst, uint16(ports[1]))
			return len(p.Data) - len(b) + 4
		}
		if 4+length > len(b) {
			return 0
		}
		value := b[4 : 4+length]
		b = b[4+length:]
		switch {
		case tag == pduDissector:
			segment = p.Interface.Header == capture.HeaderSegment && string(bytes.TrimRight(value, "\x00")) == "ip"
		case (tag == pduIPv4Source || tag == pduIPv6Source) && addressSize(length):
			src, _ = netip.AddrFromSlice(value)
		case (tag == pduIPv4Destination || tag == pduIPv6Destination) && addressSize(length):
			dst, _ = netip.AddrFromSlice(value)
		case tag == pduPortType && length == 4:
			p.Protocol = protocolOfPDU(be.Uint32(value))
		case tag == pduSourcePort && length == 4:
			ports[0] = be.Uint32(value)
		case tag == pduDestinationPort && length == 4:
			ports[1] = be.Uint32(value)
		case tag == pduTCPInfo && length > pduTCPInfoSize:
			p.Segment = parsePlace(value)
		case tag == pduProtocolColumn && !namesKind(p.Interface):
			p.Call = s.call(value)
		}
	}
	return 0
}

func addressSize(n int) bool { return n == 4 || n == 16 }

// protocolOfPDU is the inverse of pduPortTypeOf.
func protocolOfPDU(portType uint32) uint8 {
	for _, protocol := range []uint8{protocolSCTP, protocolTCP, protocolUDP, protocolDCCP} {
		if pduPortTypeOf(protocol) == portType {
			return protocol
		}
	}
	return 0
}

// call returns a call's name. The strings are interned, since there are few.
func (s *stripper) call(value []byte) string {
	value = bytes.TrimRight(value, "\x00")
	if name, ok := s.calls[string(value)]; ok {
		return name
	}
	if s.calls == nil || len(s.calls) > 100 {
		s.calls = make(map[string]string)
	}
	name := string(value)
	s.calls[name] = name
	return name
}
