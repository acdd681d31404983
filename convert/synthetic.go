package convert

import (
	"encoding/binary"
	"math"
	"net/netip"
)

const (
	ipv4HeaderSize  = 20
	ipv6HeaderSize  = 40
	jumboHeaderSize = 8

	// hopLimit is the default of Linux. Wireshark flags packets with 0 or 1.
	hopLimit = 64
)

// appendIPv4Header appends a header of 20 bytes (RFC 791) for a payload of that many
// bytes: id 0, don't fragment, correct checksum. An invalid address becomes 0.0.0.0, an
// IPv4-mapped IPv6 address its IPv4 address; the caller must rule out other IPv6
// addresses.
//
// A packet above 65535 bytes, as segmentation offload makes them, gets total length 0 as
// on Linux: readers then use the captured length.
func appendIPv4Header(b []byte, src, dst netip.Addr, protocol uint8, payload int) []byte {
	total := uint32(ipv4HeaderSize + payload)
	if payload > math.MaxUint16-ipv4HeaderSize {
		total = 0
	}
	from, to := ipv4Bytes(src), ipv4Bytes(dst)
	sum := 0x4500 + total + 0x4000 + (hopLimit<<8 | uint32(protocol))
	sum += from>>16 + from&0xffff + to>>16 + to&0xffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff

	be := binary.BigEndian
	b = be.AppendUint32(b, 0x4500<<16|total)
	b = be.AppendUint32(b, 0x4000)
	b = be.AppendUint32(b, hopLimit<<24|uint32(protocol)<<16|(^sum&0xffff))
	b = be.AppendUint32(b, from)
	return be.AppendUint32(b, to)
}

// appendIPv6Header appends a header of 40 bytes (RFC 8200) for a payload of that many
// bytes. An invalid address becomes ::, an IPv4 address its IPv4-mapped form, as on IPv6
// sockets.
//
// A payload above 65535 bytes needs 8 bytes more: payload length 0, and a hop-by-hop
// header with the jumbo payload option (RFC 2675, section 2).
func appendIPv6Header(b []byte, src, dst netip.Addr, protocol uint8, payload int) []byte {
	const hopByHop = 0
	next, length := protocol, payload
	if payload > math.MaxUint16 {
		next, length = hopByHop, 0
	}
	be := binary.BigEndian
	b = append(b, 0x60, 0, 0, 0, byte(length>>8), byte(length), next, hopLimit)
	from, to := ipv6Bytes(src), ipv6Bytes(dst)
	b = append(b, from[:]...)
	b = append(b, to[:]...)
	if length == payload {
		return b
	}
	// The length of an extension header counts units of 8 bytes after the first. The
	// jumbo length counts everything after the IPv6 header, including this header.
	b = append(b, protocol, 0, 0xc2, 4)
	return be.AppendUint32(b, uint32(min(uint64(payload)+jumboHeaderSize, math.MaxUint32)))
}

func ipv4Bytes(a netip.Addr) uint32 {
	if !a.IsValid() {
		return 0
	}
	bytes := a.As4()
	return binary.BigEndian.Uint32(bytes[:])
}

func ipv6Bytes(a netip.Addr) [16]byte {
	if !a.IsValid() {
		return [16]byte{}
	}
	return a.As16()
}

// fitsIPv4 tells whether an address can be put into an IPv4 header.
func fitsIPv4(a netip.Addr) bool { return !a.Is6() || a.Is4In6() }
