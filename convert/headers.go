package convert

import (
	"encoding/binary"
	"net/netip"

	"github.com/ebpfdump/ebpfdump/capture"
)

// headers is what the headers in a packet's bytes say, for one readable line.
// Headers that are cut off or malformed leave the fields below them empty.
type headers struct {
	src, dst netip.AddrPort
	protocol uint8
	// etherType is the protocol of an Ethernet frame that holds no IP packet.
	etherType uint16
	// tcp says that the TCP header was there, flags are its flags.
	tcp   bool
	flags uint8
	// payload follows the last header that was understood.
	payload []byte
}

const (
	etherTypeIPv4 = 0x0800
	etherTypeIPv6 = 0x86dd
	etherTypeVLAN = 0x8100
	etherTypeQinQ = 0x88a8
)

// parseHeaders reads a packet's headers. The addresses and the protocol that
// the packet states itself take precedence.
func parseHeaders(p *capture.Packet) headers {
	h := headers{src: p.Src, dst: p.Dst, protocol: p.Protocol, payload: p.Data}
	switch p.Interface.Layer {
	case capture.LayerLink:
		h.link(p.Data)
	case capture.LayerNetwork:
		h.network(p.Data)
	case capture.LayerTransport:
		h.transport(p.Data)
	}
	return h
}

func (h *headers) link(b []byte) {
	be := binary.BigEndian
	if len(b) < 14 {
		return
	}
	etherType, b := be.Uint16(b[12:]), b[14:]
	for (etherType == etherTypeVLAN || etherType == etherTypeQinQ) && len(b) >= 4 {
		etherType, b = be.Uint16(b[2:]), b[4:]
	}
	h.payload = b
	if etherType != etherTypeIPv4 && etherType != etherTypeIPv6 {
		h.etherType = etherType
		return
	}
	h.network(b)
}

func (h *headers) network(b []byte) {
	h.payload = b
	switch {
	case len(b) >= ipv4HeaderSize && b[0]>>4 == 4:
		h.ipv4(b)
	case len(b) >= ipv6HeaderSize && b[0]>>4 == 6:
		h.ipv6(b)
	}
}

func (h *headers) ipv4(b []byte) {
	be := binary.BigEndian
	size := int(b[0]&0xf) * 4
	if size < ipv4HeaderSize || size > len(b) {
		return
	}
	h.addresses(netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])))
	h.protocol = b[9]
	later := be.Uint16(b[6:])&0x1fff != 0
	// A short Ethernet frame has padding behind the packet.
	if total := int(be.Uint16(b[2:])); total >= size && total < len(b) {
		b = b[:total]
	}
	h.payload = b[size:]
	if !later {
		h.transport(b[size:])
	}
}

func (h *headers) ipv6(b []byte) {
	const hopByHop, routing, fragment, destination = 0, 43, 44, 60
	be := binary.BigEndian
	h.addresses(netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])))
	next := b[6]
	if length := int(be.Uint16(b[4:])); length > 0 && ipv6HeaderSize+length < len(b) {
		b = b[:ipv6HeaderSize+length]
	}
	b = b[ipv6HeaderSize:]
	later := false
	for next == hopByHop || next == routing || next == fragment || next == destination {
		size := 8
		if len(b) >= 8 && next != fragment {
			size += int(b[1]) * 8
		}
		if len(b) < size {
			break
		}
		later = later || next == fragment && be.Uint16(b[2:])>>3 != 0
		next, b = b[0], b[size:]
	}
	h.protocol, h.payload = next, b
	if !later {
		h.transport(b)
	}
}

// addresses takes the addresses of an IP header for a packet that states none.
func (h *headers) addresses(src, dst netip.Addr) {
	if !h.src.IsValid() && !h.dst.IsValid() {
		h.src, h.dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0)
	}
}

// ports takes the two ports that b begins with for addresses that have none.
func (h *headers) ports(b []byte) {
	if h.src.Port() == 0 && h.dst.Port() == 0 {
		h.src = netip.AddrPortFrom(h.src.Addr(), binary.BigEndian.Uint16(b))
		h.dst = netip.AddrPortFrom(h.dst.Addr(), binary.BigEndian.Uint16(b[2:]))
	}
}

func (h *headers) transport(b []byte) {
	h.payload = b
	size := 0
	switch h.protocol {
	case protocolTCP:
		if len(b) < 20 {
			return
		}
		h.tcp, h.flags = true, b[13]
		h.ports(b)
		size = max(int(b[12]>>4)*4, 20)
	case protocolUDP:
		if len(b) < 8 {
			return
		}
		h.ports(b)
		size = 8
	case protocolICMP, protocolICMPv6:
		size = 8
	}
	h.payload = b[min(size, len(b)):]
}
