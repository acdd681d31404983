// Package header parses the headers of captured packets: Ethernet, IP and TCP.
// Packets may be truncated anywhere, so a length field is trusted only as far as
// there are bytes.
package header

import (
	"encoding/binary"
	"net/netip"
)

// EtherTypes (ieee-802-numbers of IANA).
const (
	EtherTypeIPv4 = 0x0800
	EtherTypeIPv6 = 0x86dd
	EtherTypeVLAN = 0x8100
	EtherTypeQinQ = 0x88a8
)

// IP protocol numbers (protocol-numbers of IANA).
const (
	ProtocolICMP    = 1
	ProtocolTCP     = 6
	ProtocolUDP     = 17
	ProtocolDCCP    = 33
	ProtocolICMPv6  = 58
	ProtocolSCTP    = 132
	ProtocolUDPLite = 136
)

// ProtocolName is the usual spelling of a protocol's name, empty for those that
// are not listed above or have no header of known size.
func ProtocolName(protocol uint8) string {
	switch protocol {
	case ProtocolICMP:
		return "ICMP"
	case ProtocolTCP:
		return "TCP"
	case ProtocolUDP:
		return "UDP"
	case ProtocolICMPv6:
		return "ICMPv6"
	case ProtocolSCTP:
		return "SCTP"
	case ProtocolUDPLite:
		return "UDP-Lite"
	}
	return ""
}

// HasPorts tells whether a protocol's header begins with two ports.
func HasPorts(protocol uint8) bool {
	switch protocol {
	case ProtocolTCP, ProtocolUDP, ProtocolUDPLite, ProtocolSCTP, ProtocolDCCP:
		return true
	}
	return false
}

// Sizes in bytes of headers without options.
const (
	IPv4Size = 20
	IPv6Size = 40
	TCPSize  = 20
)

// Ethernet parses a frame's header including its VLAN tags. The size is 0 if the
// header is truncated.
func Ethernet(b []byte) (etherType uint16, size int) {
	be := binary.BigEndian
	if len(b) < 14 {
		return 0, 0
	}
	etherType, size = be.Uint16(b[12:]), 14
	for (etherType == EtherTypeVLAN || etherType == EtherTypeQinQ) && len(b) >= size+4 {
		etherType = be.Uint16(b[size+2:])
		size += 4
	}
	return etherType, size
}

// IP holds the fields of an IPv4 or IPv6 header, and of the IPv6 extension headers
// that are complete.
type IP struct {
	// Version is 4 or 6.
	Version  int
	Src, Dst netip.Addr
	// Protocol is the protocol of the payload.
	Protocol uint8
	// Size is the length of all these headers in bytes.
	Size int
	// Total is the length of the packet in bytes, headers included, or 0 if the
	// header does not say, as after segmentation offload. Bytes beyond it are padding.
	Total int
	// Fragment is set for every fragment of a packet, Later for all but the first:
	// the payload of those does not begin with a header.
	Fragment, Later bool
}

// ParseIP parses the IP header at the start of a packet.
func ParseIP(b []byte) (h IP, ok bool) {
	switch {
	case len(b) >= IPv4Size && b[0]>>4 == 4:
		return parseIPv4(b)
	case len(b) >= IPv6Size && b[0]>>4 == 6:
		return parseIPv6(b), true
	}
	return IP{}, false
}

func parseIPv4(b []byte) (IP, bool) {
	be := binary.BigEndian
	size, total := int(b[0]&0xf)*4, int(be.Uint16(b[2:]))
	if size < IPv4Size || size > len(b) {
		return IP{}, false
	}
	if total < size {
		total = 0
	}
	return IP{
		Version: 4, Src: netip.AddrFrom4([4]byte(b[12:16])), Dst: netip.AddrFrom4([4]byte(b[16:20])),
		Protocol: b[9], Size: size, Total: total,
		Fragment: be.Uint16(b[6:])&0x3fff != 0, Later: be.Uint16(b[6:])&0x1fff != 0,
	}, true
}

func parseIPv6(b []byte) IP {
	const hopByHop, routing, fragment, destination = 0, 43, 44, 60
	be := binary.BigEndian
	h := IP{Version: 6, Src: netip.AddrFrom16([16]byte(b[8:24])), Dst: netip.AddrFrom16([16]byte(b[24:40])), Protocol: b[6], Size: IPv6Size}
	if length := int(be.Uint16(b[4:])); length > 0 {
		h.Total = IPv6Size + length
		b = b[:min(len(b), h.Total)]
	}
	for h.Protocol == hopByHop || h.Protocol == routing || h.Protocol == fragment || h.Protocol == destination {
		rest := b[h.Size:]
		if len(rest) < 8 {
			break
		}
		size := 8
		if h.Protocol != fragment {
			size += int(rest[1]) * 8
		}
		if len(rest) < size {
			break
		}
		h.Fragment = h.Fragment || h.Protocol == fragment
		h.Later = h.Later || h.Protocol == fragment && be.Uint16(rest[2:])>>3 != 0
		h.Protocol = rest[0]
		h.Size += size
	}
	return h
}

// TCP flags.
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
)

// TCP holds fields of a TCP header (RFC 9293).
type TCP struct {
	Seq   uint32
	Flags uint8
	// Size is the length of the header in bytes as its data offset states it, which
	// may be less than TCPSize or more than there are bytes.
	Size int
}

// ParseTCP parses the header of a TCP segment.
func ParseTCP(b []byte) (h TCP, ok bool) {
	if len(b) < TCPSize {
		return TCP{}, false
	}
	return TCP{Seq: binary.BigEndian.Uint32(b[4:]), Flags: b[13], Size: int(b[12]>>4) * 4}, true
}

// AppendTCPFlags appends TCP flags as tcpdump prints them, from the lowest bit up.
func AppendTCPFlags(b []byte, flags uint8) []byte {
	const letters = "FSRP.UEW"
	if flags == 0 {
		return append(b, "[none]"...)
	}
	b = append(b, '[')
	for bit := range letters {
		if flags>>bit&1 != 0 {
			b = append(b, letters[bit])
		}
	}
	return append(b, ']')
}
