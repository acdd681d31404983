package text

import (
	"bytes"

	"github.com/ebpfdump/ebpfdump/internal/header"
)

// fitsIPv4 tells whether bytes begin with an IPv4 header that states a length up to theirs, and has
// a good checksum or none.
func fitsIPv4(data []byte, length int64, padded bool) bool {
	ip, ok := header.ParseIP(data)
	if !ok || ip.Version != 4 {
		return false
	}
	total := int64(ip.Total)
	return (total == length || padded && total <= length || total == 0) && (data[10] == 0 && data[11] == 0 || hasChecksum(data, int(data[0]&0xf)*4))
}

// fitsIPv6 is the same for IPv6, whose header has no checksum.
func fitsIPv6(data []byte, length int64, padded bool) bool {
	ip, ok := header.ParseIP(data)
	return ok && ip.Version == 6 && (int64(ip.Total) == length || padded && int64(ip.Total) <= length)
}

// fitsFrame tells whether bytes are an Ethernet frame.
func fitsFrame(data []byte, length int64) bool {
	etherType, size := header.Ethernet(data)
	if size == 0 {
		return false
	}
	const arp = 0x0806
	rest, left := data[size:], length-int64(size)
	switch etherType {
	case header.EtherTypeIPv4:
		return fitsIPv4(rest, left, true)
	case header.EtherTypeIPv6:
		return fitsIPv6(rest, left, true)
	case arp:
		return len(rest) >= 8 && bytes.HasPrefix(rest[2:], []byte{8, 0, 6, 4})
	}
	return false
}
