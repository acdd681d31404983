package convert

import (
	"encoding/binary"
	"math"
	"net/netip"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/decoding"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// Payloads of TCP and UDP that both directions of a conversation are made of are written as
// segments: an exported PDU for the dissector of IP, with an IP header and one of TCP or UDP,
// all synthetic. So Wireshark puts streams together and finds the protocol, and its protocol
// column can still have the call.

const (
	udpHeaderSize = 8
	tcpHeaderSize = header.TCPSize

	// maxSegmentHeader is the size in bytes of a header with all tags, IP and TCP.
	maxSegmentHeader = 8 + (4 + maxColumn) + 8 + 4 + ipv6HeaderSize + jumboHeaderSize + tcpHeaderSize

	// segmentWindow is the window that synthetic TCP headers announce. Without a handshake,
	// no reader takes it for more than a number.
	segmentWindow = math.MaxUint16
)

// Flags of TCP.
const (
	tcpFIN = 0x01
	tcpPSH = 0x08
	tcpACK = 0x10
)

// isPlaced tells whether there are headers for a packet.
func isPlaced(p *capture.Packet) bool {
	return p.Segment.Known && hasSegments(p.Interface) && p.Interface.Layer == capture.LayerMessage
}

// hasSegments tells whether an interface's packets can be written as segments: not those of which
// each is decoded by itself.
func hasSegments(i *capture.Interface) bool {
	return i.HasSegments() && !decoding.Alone(i.DecodeAs)
}

// isSegment tells whether a packet is written as a segment where there may be other views. One
// that is in another view as well is an ordinary message, whose place is beside its bytes.
func isSegment(p *capture.Packet) bool {
	return isPlaced(p) && p.Interface.Header == capture.HeaderSegment && !p.Segment.Elsewhere
}

// appendSegmentHeader appends everything before the payload.
func appendSegmentHeader(b []byte, p *capture.Packet) []byte {
	b = appendPDUText(b, pduDissector, "ip")
	return appendSegmentIP(appendPDUCall(b, p, p.Call), p)
}

// appendSegmentIP appends the headers of IP and TCP or UDP.
func appendSegmentIP(b []byte, p *capture.Packet) []byte {
	payload := originalLength(p)
	size := udpHeaderSize
	from, to, protocol := segmentEnds(p)
	if protocol == protocolTCP {
		size = tcpHeaderSize
	}
	src, dst := from.Addr(), to.Addr()
	if src.Is4() && dst.Is4() {
		b = appendIPv4Header(b, src, dst, protocol, size+payload)
	} else {
		b = appendIPv6Header(b, src, dst, protocol, size+payload)
	}
	at := len(b)
	be := binary.BigEndian
	b = be.AppendUint16(be.AppendUint16(b, from.Port()), to.Port())
	if protocol == protocolTCP {
		b = be.AppendUint32(be.AppendUint32(b, p.Segment.Seq), p.Segment.Ack)
		b = append(b, tcpHeaderSize/4<<4, segmentFlags(p))
		b = append(be.AppendUint16(b, segmentWindow), 0, 0, 0, 0)
	} else {
		length := udpHeaderSize + payload
		if length > math.MaxUint16 {
			length = 0 // as of a jumbogram
		}
		b = append(be.AppendUint16(b, uint16(length)), 0, 0)
	}
	// Of a part of the bytes there is no checksum: 0 in UDP says so, and readers ignore what they
	// cannot verify.
	if len(p.Data) == payload && len(p.Data)+maxSegmentHeader <= snaplen {
		be.PutUint16(segmentChecksum(b, protocol), checksum(src, dst, protocol, b[at:], p.Data))
	}
	return b
}

// segmentChecksum is the checksum in a header that ends with that of TCP or UDP.
func segmentChecksum(b []byte, protocol uint8) []byte {
	if protocol == protocolTCP {
		return b[len(b)-tcpHeaderSize+16:][:2]
	}
	return b[len(b)-udpHeaderSize+6:]
}

func segmentFlags(p *capture.Packet) (flags byte) {
	if p.Segment.Acks {
		flags |= tcpACK
	}
	if p.Segment.Ends {
		flags |= tcpFIN
	}
	if originalLength(p) > 0 {
		flags |= tcpPSH
	}
	return flags
}

// checksum is that of TCP and UDP (RFC 9293, section 3.1; RFC 768; RFC 8200, section 8.1) over a
// header, in which it is 0, and the payload.
func checksum(src, dst netip.Addr, protocol uint8, head, payload []byte) uint16 {
	sum := uint64(protocol) + uint64(len(head)+len(payload))
	from, to := src.As16(), dst.As16()
	if src.Is4() && dst.Is4() {
		// In the IPv6 form of an address there would be another sum before it.
		sum = addWords(addWords(sum, from[12:]), to[12:])
	} else {
		sum = addWords(addWords(sum, from[:]), to[:])
	}
	sum = addWords(addWords(sum, head), payload)
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	if sum == 0xffff && protocol == protocolUDP {
		return 0xffff // 0 is for none
	}
	return ^uint16(sum)
}

// addWords adds the 16-bit words of b to a sum, which has room for those of 4 GiB.
func addWords(sum uint64, b []byte) uint64 {
	be := binary.BigEndian
	for ; len(b) >= 8; b = b[8:] {
		word := be.Uint64(b)
		sum += word>>48 + word>>32&0xffff + word>>16&0xffff + word&0xffff
	}
	for ; len(b) >= 2; b = b[2:] {
		sum += uint64(be.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint64(b[0]) << 8
	}
	return sum
}

// The place of a message is in the tag in which Wireshark hands on what TCP says of a stream:
// version 1, sequence numbers of the first and of the next byte, acknowledgement, whether it was
// put together from several segments, flags, urgent pointer.
const (
	pduTCPInfo     = 34
	pduTCPInfoSize = 2 + 3*4 + 1 + 2 + 2
)

// appendPlace appends the place of a message whose headers are in another view.
func appendPlace(b []byte, p *capture.Packet) []byte {
	be := binary.BigEndian
	b = appendPDUTag(b, pduTCPInfo, (pduTCPInfoSize+3)&^3)
	b = be.AppendUint16(b, 1)
	b = be.AppendUint32(b, p.Segment.Seq)
	b = be.AppendUint32(b, p.Segment.Seq+uint32(originalLength(p)))
	b = be.AppendUint32(b, p.Segment.Ack)
	b = be.AppendUint16(append(b, 0), uint16(segmentFlags(p)))
	return pad(be.AppendUint16(b, 0), pduTCPInfoSize)
}

func parsePlace(b []byte) capture.Segment {
	be := binary.BigEndian
	s := segmentOf(be.Uint32(b[2:]), be.Uint32(b[10:]), b[16])
	s.Elsewhere = true
	return s
}

func segmentOf(seq, ack uint32, flags byte) capture.Segment {
	return capture.Segment{Known: true, Seq: seq, Ack: ack, Acks: flags&tcpACK != 0, Ends: flags&tcpFIN != 0}
}

// parseSegment reads what appendSegmentHeader has put behind the tags, and returns its size in
// bytes, 0 if it is something else.
func parseSegment(p *capture.Packet, b []byte) int {
	if len(b) == 0 {
		return 0
	}
	ip := capture.Packet{Interface: &capture.Interface{IPv6: b[0]>>4 == 6}, Data: b}
	size := parseSynthetic(&ip)
	p.Src, p.Dst, p.Protocol = ip.Src, ip.Dst, ip.Protocol
	be := binary.BigEndian
	switch rest := b[min(size, len(b)):]; {
	case size == 0:
		return 0
	case p.Protocol == protocolUDP && len(rest) >= udpHeaderSize:
		p.Segment.Known = true
		return size + udpHeaderSize
	case p.Protocol == protocolTCP && len(rest) >= tcpHeaderSize:
		p.Segment = segmentOf(be.Uint32(rest[4:]), be.Uint32(rest[8:]), rest[13])
		parseConnection(p)
		return size + tcpHeaderSize
	}
	return 0
}
