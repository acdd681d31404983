package survey

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// frame is a frame that the reference socket recorded, dissected.
type frame struct {
	data   []byte
	layers []layer
	// label says in a word or two what the packet is, to names the end that it is for.
	label, to string
}

// layer is a header or the payload of a frame.
type layer struct {
	name string // such as "IPv4", or payload
	at   int    // offset in the frame, in bytes
}

const payload = "payload"

// The ends of an exchange.
const (
	toSocket = "socket"
	toPeer   = "peer"
)

// parseFrame finds the headers in a frame that begins with an Ethernet header.
// It knows nothing of sockets.
func parseFrame(data []byte) frame {
	f := frame{data: data, label: "frame"}
	etherType, at := header.Ethernet(data)
	if at == 0 {
		return f
	}
	f.add("Ethernet", 0)
	switch etherType {
	case header.EtherTypeIPv4:
		f.add("IPv4", at)
	case header.EtherTypeIPv6:
		f.add("IPv6", at)
	default:
		f.add(payload, at)
		return f
	}
	ip, ok := header.ParseIP(data[at:])
	if !ok {
		return f
	}
	if ip.Fragment {
		f.label = "fragment"
	}
	if ip.Later {
		f.add(payload, at+ip.Size)
		return f
	}
	f.parseTransport(ip.Protocol, at+ip.Size)
	return f
}

func (f *frame) add(name string, at int) { f.layers = append(f.layers, layer{name, at}) }

func (f *frame) parseTransport(protocol uint8, at int) {
	data := f.data[min(at, len(f.data)):]
	name := header.ProtocolName(protocol)
	if name == "" || len(data) < 8 {
		f.add(payload, at)
		return
	}
	f.add(name, at)
	size, label := 8, "datagram"
	switch protocol {
	case header.ProtocolTCP:
		tcp, ok := header.ParseTCP(data)
		if !ok {
			return
		}
		size = tcp.Size
		label = tcpLabel(tcp.Flags, len(data) > size)
	case header.ProtocolICMP, header.ProtocolICMPv6:
		label = icmpLabel(data[0])
	case header.ProtocolSCTP:
		size, label = 12, "packet"
	}
	if f.label != "fragment" {
		f.label = label
	}
	if len(data) > size {
		f.add(payload, at+size)
	}
	if header.HasPorts(protocol) {
		f.to = destination(data)
	}
}

// destination tells from the ports which end a packet is for.
func destination(ports []byte) string {
	switch uint16(capture.ProbePort) {
	case binary.BigEndian.Uint16(ports[2:]):
		return toSocket
	case binary.BigEndian.Uint16(ports):
		return toPeer
	}
	return ""
}

func tcpLabel(flags byte, data bool) string {
	switch {
	case flags&header.SYN != 0 && flags&header.ACK != 0:
		return "SYN-ACK"
	case flags&header.SYN != 0:
		return "SYN"
	case flags&header.RST != 0:
		return "RST"
	case data:
		return "data"
	case flags&header.FIN != 0:
		return "FIN"
	}
	return "ACK"
}

func icmpLabel(typ byte) string {
	switch typ {
	case 8, 128:
		return "echo request"
	case 0, 129:
		return "echo reply"
	case 3, 1:
		return "unreachable"
	}
	return fmt.Sprintf("type %d", typ)
}

// startsAt names the header at an offset.
func (f *frame) startsAt(at int) (name string, ok bool) {
	i := slices.IndexFunc(f.layers, func(l layer) bool { return l.at == at })
	if i < 0 {
		return "", false
	}
	return f.layers[i].name, true
}

// headers names the layers of the frame in order.
func (f *frame) headers() []string {
	var names []string
	for _, l := range f.layers {
		names = append(names, l.name)
	}
	return names
}

// from returns the frame from a header on.
func (f *frame) from(name string) []byte {
	for _, l := range f.layers {
		if l.name == name {
			return f.data[min(l.at, len(f.data)):]
		}
	}
	return nil
}

// endsIn finds a frame that ends with these bytes, and the offset at which they begin.
func endsIn(frames []frame, b []byte) (f *frame, at int) {
	if len(b) == 0 {
		return nil, 0
	}
	for i := range frames {
		if bytes.HasSuffix(frames[i].data, b) {
			return &frames[i], len(frames[i].data) - len(b)
		}
	}
	return nil, 0
}
