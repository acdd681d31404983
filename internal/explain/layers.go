package explain

import (
	"fmt"
	"math"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// class is the kind of layer that bytes belong to. Each has a colour.
type class uint8

const (
	classLink class = iota + 1
	classNetwork
	classTransport
	classPayload
)

// String is the class's name in style sheets.
func (c class) String() string {
	return [...]string{"none", "link", "net", "transport", "payload"}[c]
}

// span is a layer of a packet, as offsets in bytes.
type span struct {
	name     string // at most 8 columns
	class    class
	from, to int
}

// dissection tells where the layers of a packet begin.
type dissection struct {
	spans []span
	// protocol is the IP protocol, 0 if unknown.
	protocol uint8
	// transport is the offset of the transport header, -1 if there is none.
	transport int
	// payload and end are the offsets at which the payload begins and ends.
	payload, end int
}

func protocolName(protocol uint8) string {
	if name := header.ProtocolName(protocol); name != "" {
		return name
	}
	return fmt.Sprintf("proto%d", protocol)
}

// dissect finds the layers of a packet of length bytes, of which data are the first.
// Incomplete headers count as payload.
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

// header adds a header of that size at the start of what was the payload so far.
func (d *dissection) header(name string, c class, size int) {
	d.spans = append(d.spans, span{name, c, d.payload, d.payload + size})
	d.payload += size
}

func (d *dissection) link(data []byte) {
	etherType, size := header.Ethernet(data)
	if size == 0 {
		return
	}
	d.header("Ethernet", classLink, size)
	if etherType == header.EtherTypeIPv4 || etherType == header.EtherTypeIPv6 {
		d.network(data)
	}
}

func (d *dissection) network(data []byte) {
	ip, ok := header.ParseIP(data[d.payload:])
	if !ok {
		return
	}
	if ip.Total > 0 {
		d.end = min(d.end, d.payload+ip.Total)
	}
	d.protocol = ip.Protocol
	name := "IPv4"
	if ip.Version == 6 {
		name = "IPv6"
	}
	d.header(name, classNetwork, ip.Size)
	if !ip.Later {
		d.transportHeader(data)
	}
}

func (d *dissection) transportHeader(data []byte) {
	b := data[min(d.payload, len(data)):min(max(d.end, d.payload), len(data))]
	size := math.MaxInt
	switch d.protocol {
	case header.ProtocolTCP:
		if tcp, ok := header.ParseTCP(b); ok && tcp.Size >= header.TCPSize {
			size = tcp.Size
		}
	case header.ProtocolUDP, header.ProtocolUDPLite, header.ProtocolICMP, header.ProtocolICMPv6:
		size = 8
	case header.ProtocolSCTP:
		size = 12
	}
	if size > len(b) {
		return
	}
	d.transport = d.payload
	d.header(protocolName(d.protocol), classTransport, size)
}

// tcp parses the TCP header of a packet, if it has one.
func (d *dissection) tcp(data []byte) (h header.TCP, ok bool) {
	if d.protocol != header.ProtocolTCP || d.transport < 0 {
		return h, false
	}
	return header.ParseTCP(data[d.transport:])
}
