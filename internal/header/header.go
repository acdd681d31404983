// Package header reads the headers that packets begin with: what each says of
// itself, where it ends, and what comes next. Packets may be cut off anywhere, and
// a length that one states is only believed as far as its bytes go.
package header

import (
	"encoding/binary"
	"net/netip"
)

// Types of Ethernet frames (ieee-802-numbers of IANA).
const (
	EtherTypeIPv4 = 0x0800
	EtherTypeIPv6 = 0x86dd
	EtherTypeVLAN = 0x8100
	EtherTypeQinQ = 0x88a8
)

// Protocols over IP (protocol-numbers of IANA).
const (
	ProtocolICMP    = 1
	ProtocolTCP     = 6
	ProtocolUDP     = 17
	ProtocolDCCP    = 33
	ProtocolICMPv6  = 58
	ProtocolSCTP    = 132
	ProtocolUDPLite = 136
)

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
)

// Ethernet reads the header of a frame with its VLAN tags. Its size is 0 if it is
// not whole.
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

// IP is what the header of either version says, and those extension headers of
// IPv6 that are whole.
type IP struct {
	// Version is 4 or 6.
	Version  int
	Src, Dst netip.Addr
	// Protocol is that of what follows.
	Protocol uint8
	// Size is how many bytes all these headers have.
	Size int
	// Total is how many bytes the packet has, 0 if the header does not say so, as
	// after segmentation offload. What follows them is padding.
	Total int
	// Later says that it is a fragment, and not the first one: what follows is no
	// header.
	Later bool
}

// ParseIP reads the header that a packet begins with.
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
		Protocol: b[9], Size: size, Total: total, Later: be.Uint16(b[6:])&0x1fff != 0,
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
		h.Later = h.Later || h.Protocol == fragment && be.Uint16(rest[2:])>>3 != 0
		h.Protocol = rest[0]
		h.Size += size
	}
	return h
}

// AppendTCPFlags appends tcpdump's notation of the flags of TCP, in its order,
// which is the bits' from the lowest up.
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
