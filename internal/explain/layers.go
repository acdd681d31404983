package explain

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/ebpfdump/ebpfdump/capture"
)

// class is the layer that bytes belong to. It has a colour.
type class uint8

const (
	classLink class = iota + 1
	classNetwork
	classTransport
	classPayload
)

// String is the name in style sheets.
func (c class) String() string {
	return [...]string{"none", "link", "net", "transport", "payload"}[c]
}

// span is one layer's part of a packet, in bytes from the packet's beginning.
type span struct {
	name     string // at most 8 columns
	class    class
	from, to int
}

// dissection is where the layers of a packet begin.
type dissection struct {
	spans []span
	// protocol is the IP protocol, 0 if there is none.
	protocol uint8
	// transport is the place of the transport header, -1 if there is none.
	transport int
	// payload is behind the last header, end behind the payload.
	payload, end int
}

// Numbers of https://www.iana.org/assignments/protocol-numbers and ieee-802-numbers.
const (
	protocolICMP    = 1
	protocolTCP     = 6
	protocolUDP     = 17
	protocolICMPv6  = 58
	protocolSCTP    = 132
	protocolUDPLite = 136

	etherTypeIPv4 = 0x0800
	etherTypeIPv6 = 0x86dd
	etherTypeVLAN = 0x8100
	etherTypeQinQ = 0x88a8
)

var protocolNames = map[uint8]string{
	protocolICMP: "ICMP", protocolTCP: "TCP", protocolUDP: "UDP",
	protocolICMPv6: "ICMPv6", protocolSCTP: "SCTP", protocolUDPLite: "UDP-Lite",
}

func protocolName(protocol uint8) string {
	if name, ok := protocolNames[protocol]; ok {
		return name
	}
	return fmt.Sprintf("proto%d", protocol)
}

// dissect finds the layers of a packet of length bytes, of which data are the
// first. Headers that are not whole are payload: nothing is known of them.
func dissect(layer capture.Layer, protocol uint8, data []byte, length int) dissection {
	d := dissection{protocol: protocol, transport: -1, end: max(length, len(data))}
	switch layer {
	case capture.LayerLink:
		d.link(data)
	case capture.LayerNetwork:
		d.network(data)
	case capture.LayerTransport:
		d.transportHeader(data)
	}
	if d.payload < d.end {
		name := "payload"
		if len(d.spans) == 0 {
			name = "message"
		}
		d.spans = append(d.spans, span{name, classPayload, d.payload, d.end})
	}
	if whole := max(length, len(data)); d.end < whole {
		d.spans = append(d.spans, span{"padding", classPayload, d.end, whole})
	}
	return d
}

// header appends the header that begins where the payload did.
func (d *dissection) header(name string, c class, size int) {
	d.spans = append(d.spans, span{name, c, d.payload, d.payload + size})
	d.payload += size
}

func (d *dissection) link(data []byte) {
	be := binary.BigEndian
	if len(data) < 14 {
		return
	}
	etherType, size := be.Uint16(data[12:]), 14
	for (etherType == etherTypeVLAN || etherType == etherTypeQinQ) && len(data) >= size+4 {
		etherType = be.Uint16(data[size+2:])
		size += 4
	}
	d.header("Ethernet", classLink, size)
	if etherType == etherTypeIPv4 || etherType == etherTypeIPv6 {
		d.network(data)
	}
}

func (d *dissection) network(data []byte) {
	b := data[d.payload:]
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		d.ipv4(data)
	case len(b) >= 40 && b[0]>>4 == 6:
		d.ipv6(data)
	}
}

func (d *dissection) ipv4(data []byte) {
	be := binary.BigEndian
	b := data[d.payload:]
	size, total := int(b[0]&0xf)*4, int(be.Uint16(b[2:]))
	if size < 20 || size > len(b) {
		return
	}
	// Segmentation offload leaves a total length of 0; padding follows a short packet.
	if total >= size {
		d.end = min(d.end, d.payload+total)
	}
	d.protocol = b[9]
	fragment := be.Uint16(b[6:])&0x1fff != 0
	d.header("IPv4", classNetwork, size)
	if !fragment {
		d.transportHeader(data)
	}
}

func (d *dissection) ipv6(data []byte) {
	const hopByHop, routing, fragment, destination = 0, 43, 44, 60
	be := binary.BigEndian
	b := data[d.payload:]
	if length := int(be.Uint16(b[4:])); length > 0 {
		d.end = min(d.end, d.payload+40+length)
	}
	next, size, later := b[6], 40, false
	for next == hopByHop || next == routing || next == fragment || next == destination {
		if len(b) < size+8 {
			break
		}
		extension := 8
		if next == fragment {
			later = later || be.Uint16(b[size+2:])>>3 != 0
		} else {
			extension += int(b[size+1]) * 8
		}
		if len(b) < size+extension || d.payload+size+extension > d.end {
			break
		}
		next = b[size]
		size += extension
	}
	d.protocol = next
	d.header("IPv6", classNetwork, size)
	if !later {
		d.transportHeader(data)
	}
}

func (d *dissection) transportHeader(data []byte) {
	b := data[min(d.payload, len(data)):min(max(d.end, d.payload), len(data))]
	size := math.MaxInt
	switch d.protocol {
	case protocolTCP:
		if len(b) >= 20 && b[12]>>4 >= 5 {
			size = int(b[12]>>4) * 4
		}
	case protocolUDP, protocolUDPLite, protocolICMP, protocolICMPv6:
		size = 8
	case protocolSCTP:
		size = 12
	}
	if size > len(b) {
		return
	}
	d.transport = d.payload
	d.header(protocolName(d.protocol), classTransport, size)
}

// tcpHeader is what there is to know of a TCP header (RFC 9293).
type tcpHeader struct {
	seq   uint32
	flags uint8
}

const (
	tcpFIN = 1 << iota
	tcpSYN
	tcpRST
	tcpPSH
	tcpACK
)

// tcp reads the TCP header of a packet, if it has one.
func (d *dissection) tcp(data []byte) (h tcpHeader, ok bool) {
	if d.protocol != protocolTCP || d.transport < 0 {
		return h, false
	}
	b := data[d.transport:]
	return tcpHeader{seq: binary.BigEndian.Uint32(b[4:]), flags: b[13]}, true
}

// flagLetters is tcpdump's notation of TCP flags.
func flagLetters(flags uint8) string {
	const letters = "FSRP.UEW"
	b := []byte{'['}
	for bit := range letters {
		if flags>>bit&1 != 0 {
			b = append(b, letters[bit])
		}
	}
	if len(b) == 1 {
		return "[none]"
	}
	return string(append(b, ']'))
}
