package convert

import (
	"encoding/binary"

	"github.com/ebpfdump/ebpfdump/capture"
)

// Link types of which Wireshark takes a header off each packet already while it reads the file.
const (
	linkSunATM           = 123
	linkMTP2             = 139
	linkIrDA             = 144
	linkLAPD             = 177
	linkSITA             = 196
	linkERF              = 197
	linkBluetooth        = 201
	linkPPP              = 204
	linkI2C              = 209
	linkLLCP             = 245
	linkBluetoothMonitor = 254
)

// Protocols in the last two bytes of a Linux cooked header, without which Wireshark does not
// take it for one of the link type (IrDA, LAPD).
const (
	etherTypeIrDA = 0x0017
	etherTypeLAPD = 0x0030
)

// isHeadless tells whether a packet lacks the header of its link type. Wireshark refuses all of
// a file because of one such packet, in pcapng and in pcap. Ours are none: they get their header
// when they are written.
func isHeadless(p *capture.Packet) bool {
	i := p.Interface
	return i.Layer == capture.LayerForeign && !beginsAs(i.LinkType, p.Data[:min(len(p.Data), packetLimit(i.LinkType))])
}

// beginsAs tells whether a packet begins with the header of a link type, as far as Wireshark
// insists on that.
func beginsAs(link uint16, b []byte) bool {
	size := 0
	switch link {
	case linkIrDA:
		return isCooked(b, etherTypeIrDA)
	case linkLAPD:
		return isCooked(b, etherTypeLAPD)
	case linkERF:
		return isERF(b)
	case linkPPP:
		size = 1
	case linkLLCP:
		size = 2
	case linkSunATM, linkMTP2, linkBluetooth, linkBluetoothMonitor:
		size = 4
	case linkSITA, linkI2C:
		size = 5
	}
	return len(b) >= size
}

// isCooked tells whether a packet begins with a Linux cooked header (LINKTYPE_LINUX_SLL) of a
// protocol.
func isCooked(b []byte, protocol uint16) bool {
	const size = 16
	return len(b) >= size && binary.BigEndian.Uint16(b[size-2:]) == protocol
}

// isERF tells whether a packet begins with a whole header of Endace's Extensible Record Format:
// 16 bytes with the record's type, extensions of 8 bytes each, and what the type has besides.
func isERF(b []byte) bool {
	const (
		fixed, typeAt = 16, 8
		extension     = 8
		more          = 0x80 // in a type: an extension follows
	)
	if len(b) < fixed {
		return false
	}
	size := fixed
	for kind := b[typeAt]; kind&more != 0; size += extension {
		if len(b) < size+extension {
			return false
		}
		kind = b[size]
	}
	switch b[typeAt] &^ more {
	case 5, 6, 7, 8, 9, 12, 17, 18: // of several channels, and AAL2
		size += 4
	case 2, 11, 16, 20: // Ethernet
		size += 2
	}
	return len(b) >= size
}
