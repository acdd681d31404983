package convert

import (
	"encoding/binary"
	"net/netip"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
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
	etherType, size := header.Ethernet(b)
	if size == 0 {
		return
	}
	h.payload = b[size:]
	if etherType != header.EtherTypeIPv4 && etherType != header.EtherTypeIPv6 {
		h.etherType = etherType
		return
	}
	h.network(b[size:])
}

func (h *headers) network(b []byte) {
	h.payload = b
	ip, ok := header.ParseIP(b)
	if !ok {
		return
	}
	h.addresses(ip.Src, ip.Dst)
	h.protocol = ip.Protocol
	// A short Ethernet frame has padding behind the packet.
	if ip.Total > 0 && ip.Total < len(b) {
		b = b[:ip.Total]
	}
	h.payload = b[ip.Size:]
	if !ip.Later {
		h.transport(b[ip.Size:])
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
