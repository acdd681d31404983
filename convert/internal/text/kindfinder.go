package text

import (
	"encoding/binary"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// kindFinder infers which kind of socket a text came from.
type kindFinder struct {
	kind  *capture.Kind // nil if it cannot be told
	known bool          // it was looked for, or given
	// anyLayer says that packets may begin with any header: other programs have printed them.
	anyLayer bool
}

// mark is what packets of a kind of socket look like.
type mark struct {
	kind string
	fits func(data []byte, length int64) bool
}

// marks are those of what filters print, with the strongest criteria first, and foreignMarks of what
// other programs print.
var (
	marks        = []mark{{"raw", fitsRaw}, {"udp", fitsUDP}, {"tcp", fitsTCP}}
	foreignMarks = []mark{
		{"raw", func(data []byte, length int64) bool { return fitsIPv4(data, length, false) }},
		{"packet", fitsFrame},
		{"packet-dgram", func(data []byte, length int64) bool {
			return fitsIPv6(data, length, true) || fitsIPv4(data, length, true)
		}},
		{"udp", fitsUDP},
		{"tcp", fitsTCP},
	}
)

// find examines packets from offset 0 on. A kind must fit more than half of them. The
// kinds with the strongest criteria are tried first.
func (f *kindFinder) find(packets []*dump) {
	if f.known {
		return
	}
	f.known = true
	best := 0
	tried := marks
	if f.anyLayer {
		tried = foreignMarks
	}
	for _, mark := range tried {
		fitting, all := 0, 0
		for _, d := range packets {
			if !d.done || d.ghost {
				continue
			}
			all++
			if mark.fits(d.data, d.claimed) {
				fitting++
			}
		}
		if fitting > best && 2*fitting > all {
			best = fitting
			f.kind, _ = capture.KindByName(mark.kind)
		}
	}
}

// fitsRaw tells whether a packet is IPv4: its header states the packet's length
// and has a good checksum (RFC 791).
func fitsRaw(data []byte, length int64) bool {
	if len(data) < header.IPv4Size || data[0]>>4 != 4 {
		return false
	}
	size := int(data[0]&0xf) * 4
	if size < header.IPv4Size || size > len(data) || int64(binary.BigEndian.Uint16(data[2:])) != length {
		return false
	}
	return hasChecksum(data, size)
}

// hasChecksum tells whether a header of so many bytes has a good checksum.
func hasChecksum(data []byte, size int) bool {
	sum := uint32(0)
	for at := 0; at < size; at += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[at:]))
	}
	sum = sum>>16 + sum&0xffff
	return sum>>16+sum&0xffff == 0xffff
}

// fitsUDP tells whether a packet is a UDP datagram: its header states the
// packet's length (RFC 768).
func fitsUDP(data []byte, length int64) bool {
	return len(data) >= 8 && int64(binary.BigEndian.Uint16(data[4:])) == length
}

// fitsTCP tells whether a packet is a TCP segment: the data offset fits, the three
// reserved bits are 0, and the flags are a valid combination (RFC 9293).
func fitsTCP(data []byte, length int64) bool {
	const fin, syn, rst, ack = header.FIN, header.SYN, header.RST, header.ACK
	tcp, ok := header.ParseTCP(data)
	if !ok || tcp.Size < header.TCPSize || int64(tcp.Size) > length || data[12]&0xe != 0 {
		return false
	}
	return tcp.Flags&(syn|ack|rst) != 0 && tcp.Flags&(syn|fin) != syn|fin && tcp.Flags&(syn|rst) != syn|rst
}
