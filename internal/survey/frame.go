package survey

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
)

// frame is a frame of the reference, with what stands in it.
type frame struct {
	data   []byte
	layers []layer
	// label says in a word or two what the packet is, to says for whom.
	label, to string
}

// layer is a header, or the payload, of a frame.
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

// parseFrame looks what stands in a frame that begins with an Ethernet header.
// It knows nothing of sockets.
func parseFrame(data []byte) frame {
	f := frame{data: data, label: "frame"}
	if len(data) < 14 {
		return f
	}
	f.add("Ethernet", 0)
	at := 14
	switch binary.BigEndian.Uint16(data[12:]) {
	case unix.ETH_P_IP:
		f.parseIPv4(at)
	case unix.ETH_P_IPV6:
		f.parseIPv6(at)
	default:
		f.add(payload, at)
	}
	return f
}

func (f *frame) add(name string, at int) { f.layers = append(f.layers, layer{name, at}) }

func (f *frame) parseIPv4(at int) {
	f.add("IPv4", at)
	header := f.data[at:]
	if len(header) < 20 {
		return
	}
	size := int(header[0]&0xf) * 4
	if offset := binary.BigEndian.Uint16(header[6:]); offset&0x3fff != 0 {
		f.label = "fragment"
		if offset&0x1fff != 0 {
			f.add(payload, at+size)
			return
		}
	}
	f.parseTransport(header[9], at+size)
}

func (f *frame) parseIPv6(at int) {
	f.add("IPv6", at)
	header := f.data[at:]
	if len(header) < 40 {
		return
	}
	next, at := header[6], at+40
	if next == unix.IPPROTO_FRAGMENT && len(f.data) >= at+8 {
		f.label = "fragment"
		next, at = f.data[at], at+8
		if binary.BigEndian.Uint16(f.data[at-6:])>>3 != 0 {
			f.add(payload, at)
			return
		}
	}
	f.parseTransport(next, at)
}

func (f *frame) parseTransport(protocol uint8, at int) {
	header := f.data[min(at, len(f.data)):]
	names := map[uint8]string{
		unix.IPPROTO_TCP: "TCP", unix.IPPROTO_UDP: "UDP", unix.IPPROTO_UDPLITE: "UDP-Lite",
		unix.IPPROTO_ICMP: "ICMP", unix.IPPROTO_ICMPV6: "ICMPv6", unix.IPPROTO_SCTP: "SCTP",
	}
	name, known := names[protocol]
	if !known || len(header) < 8 {
		f.add(payload, at)
		return
	}
	f.add(name, at)
	size, label := 8, "datagram"
	switch protocol {
	case unix.IPPROTO_TCP:
		if len(header) < 20 {
			return
		}
		size = int(header[12]>>4) * 4
		label = tcpLabel(header[13], len(header) > size)
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		label = icmpLabel(header[0])
	case unix.IPPROTO_SCTP:
		size, label = 12, "packet"
	}
	if f.label != "fragment" {
		f.label = label
	}
	if len(header) > size {
		f.add(payload, at+size)
	}
	if name != "ICMP" && name != "ICMPv6" {
		f.to = destination(header)
	}
}

// destination tells by the ports who a packet is for.
func destination(header []byte) string {
	switch uint16(capture.ProbePort) {
	case binary.BigEndian.Uint16(header[2:]):
		return toSocket
	case binary.BigEndian.Uint16(header):
		return toPeer
	}
	return ""
}

func tcpLabel(flags byte, data bool) string {
	const fin, syn, rst, ack = 1, 2, 4, 16
	switch {
	case flags&syn != 0 && flags&ack != 0:
		return "SYN-ACK"
	case flags&syn != 0:
		return "SYN"
	case flags&rst != 0:
		return "RST"
	case data:
		return "data"
	case flags&fin != 0:
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

// startsAt is the name of the header that stands at an offset.
func (f *frame) startsAt(at int) (name string, ok bool) {
	i := slices.IndexFunc(f.layers, func(l layer) bool { return l.at == at })
	if i < 0 {
		return "", false
	}
	return f.layers[i].name, true
}

// headers names all that stands in the frame, in order.
func (f *frame) headers() []string {
	var names []string
	for _, l := range f.layers {
		names = append(names, l.name)
	}
	return names
}

// from is the frame from a header on.
func (f *frame) from(name string) []byte {
	for _, l := range f.layers {
		if l.name == name {
			return f.data[min(l.at, len(f.data)):]
		}
	}
	return nil
}

// endsIn finds a frame that ends in the bytes, and where they begin in it.
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
