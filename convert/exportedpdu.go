package convert

import (
	"encoding/binary"
	"net/netip"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/decoding"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// Tags of LINKTYPE_WIRESHARK_UPPER_PDU (252), as in Wireshark's exported_pdu_tlvs.h.
const (
	pduEnd             = 0
	pduDissector       = 12
	pduTable           = 14
	pduIPv4Source      = 20
	pduIPv4Destination = 21
	pduIPv6Source      = 22
	pduIPv6Destination = 23
	pduPortType        = 24
	pduSourcePort      = 25
	pduDestinationPort = 26
	pduTableValue      = 32
	pduProtocolColumn  = 33
	pduDirection       = 35
)

const (
	protocolICMP   = header.ProtocolICMP
	protocolTCP    = header.ProtocolTCP
	protocolUDP    = header.ProtocolUDP
	protocolDCCP   = header.ProtocolDCCP
	protocolICMPv6 = header.ProtocolICMPv6
	protocolSCTP   = header.ProtocolSCTP
)

const (
	// maxColumn limits the text of the protocol column, in bytes.
	maxColumn = 64
	// maxPDUHeader is the size in bytes of a header with all tags: dissector and its number, IPv6
	// addresses, port type and ports, place, column, direction, end.
	maxPDUHeader = (4 + decoding.Limit) + 8 + 2*20 + 3*8 + (4 + (pduTCPInfoSize+3)&^3) + (4 + maxColumn) + 8 + 4
)

// appendPDUHeader appends the header of a message: tags of type(2), length(2) and value,
// all big endian, for the dissector, the addresses and ports, and the text of the
// protocol column. A segment has headers instead of addresses. The ports do not select a dissector, but conversations and filters
// need them.
func appendPDUHeader(b []byte, p *capture.Packet) []byte {
	if isSegment(p) {
		return appendSegmentHeader(b, p)
	}
	return appendMessageHeader(b, p, columnOf(p))
}

// appendMessageHeader appends the header of a message that is no segment.
func appendMessageHeader(b []byte, p *capture.Packet, column string) []byte {
	b = appendDissector(b, p)
	b = appendPDUAddress(b, pduIPv4Source, pduIPv6Source, p.Src.Addr())
	b = appendPDUAddress(b, pduIPv4Destination, pduIPv6Destination, p.Dst.Addr())
	if portType := pduPortTypeOf(p.Protocol); portType != 0 {
		b = appendPDUUint32(b, pduPortType, portType)
		if p.Src.IsValid() {
			b = appendPDUUint32(b, pduSourcePort, uint32(p.Src.Port()))
		}
		if p.Dst.IsValid() {
			b = appendPDUUint32(b, pduDestinationPort, uint32(p.Dst.Port()))
		}
	}
	if isPlaced(p) {
		b = appendPlace(b, p)
	}
	return appendPDUCall(b, p, column)
}

// appendDissector appends the tags that choose the dissector: of the protocol that the interface
// is decoded as, and where there is none, or nothing to decode, the one that only shows bytes.
func appendDissector(b []byte, p *capture.Packet) []byte {
	name := p.Interface.DecodeAs
	if name == "" || !decoding.Fits(name, p.Data, originalLength(p)) || p.Interface.Header == capture.HeaderSegment && !decoding.Alone(name) {
		return appendPDUText(b, pduDissector, "data")
	}
	d := decoding.Of(name)
	if d.Table == "" {
		return appendPDUText(b, pduDissector, d.Dissector)
	}
	return appendPDUUint32(appendPDUText(b, pduTable, d.Table), pduTableValue, d.Value)
}

// columnOf is the text of the protocol column: the call, and for what no call brought the kind of
// socket, without which the row would be blank.
func columnOf(p *capture.Packet) string {
	if p.Call == "" && namesKind(p.Interface) {
		return p.Interface.Kind
	}
	return p.Call
}

// namesKind tells whether the protocol column of an interface's packets has the kind of socket.
func namesKind(i *capture.Interface) bool {
	return i.View == capture.ViewKernel || i.View == capture.ViewSelect
}

// appendPDUCall appends the last tags: the protocol column, the direction, the end. Where the
// dissector has a column of its own to say, that stays.
func appendPDUCall(b []byte, p *capture.Packet, column string) []byte {
	if column != "" {
		b = appendPDUText(b, pduProtocolColumn, cut(column, maxColumn))
	}
	switch p.Direction {
	case capture.Outbound:
		b = appendPDUUint32(b, pduDirection, 0)
	case capture.Inbound:
		b = appendPDUUint32(b, pduDirection, 1)
	}
	return appendPDUTag(b, pduEnd, 0)
}

// pduPortTypeOf returns Wireshark's port type of a protocol, zero if it has no ports.
func pduPortTypeOf(protocol uint8) uint32 {
	switch protocol {
	case protocolSCTP:
		return 1
	case protocolTCP:
		return 2
	case protocolUDP:
		return 3
	case protocolDCCP:
		return 4
	}
	return 0
}

func appendPDUAddress(b []byte, tag4, tag6 uint16, a netip.Addr) []byte {
	switch {
	case a.Is4():
		return appendPDUUint32(b, tag4, ipv4Bytes(a))
	case a.Is6():
		bytes := a.As16()
		return append(appendPDUTag(b, tag6, len(bytes)), bytes[:]...)
	}
	return b
}

// appendPDUText appends a text tag, whose length includes the padding to 32 bits.
func appendPDUText(b []byte, tag uint16, text string) []byte {
	b = appendPDUTag(b, tag, (len(text)+3)&^3)
	return pad(append(b, text...), len(text))
}

func appendPDUUint32(b []byte, tag uint16, value uint32) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(tag)<<48|4<<32|uint64(value))
}

func appendPDUTag(b []byte, tag uint16, length int) []byte {
	return binary.BigEndian.AppendUint32(b, uint32(tag)<<16|uint32(length))
}
