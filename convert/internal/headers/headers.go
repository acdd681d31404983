// Package headers extracts addresses, protocol and payload from a captured packet.
package headers

import (
	"encoding/binary"
	"net/netip"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// Headers is what the headers of a packet say, as far as one line shows it. A truncated
// or malformed header leaves the fields of the layers above it empty.
type Headers struct {
	Src, Dst netip.AddrPort
	Protocol uint8
	// EtherType is the protocol of an Ethernet frame that holds no IP packet.
	EtherType uint16
	// TCP says that there is a TCP header, Flags are its flags.
	TCP   bool
	Flags uint8
	// Payload follows the last header that was understood.
	Payload []byte
}

// Parse parses a packet's headers. Addresses and protocol in the fields of the Packet
// take precedence.
func Parse(p *capture.Packet) Headers {
	h := Headers{Src: p.Src, Dst: p.Dst, Protocol: p.Protocol, Payload: p.Data}
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

func (h *Headers) link(b []byte) {
	etherType, size := header.Ethernet(b)
	if size == 0 {
		return
	}
	h.Payload = b[size:]
	if etherType != header.EtherTypeIPv4 && etherType != header.EtherTypeIPv6 {
		h.EtherType = etherType
		return
	}
	h.network(b[size:])
}

func (h *Headers) network(b []byte) {
	h.Payload = b
	ip, ok := header.ParseIP(b)
	if !ok {
		return
	}
	h.addresses(ip.Src, ip.Dst)
	h.Protocol = ip.Protocol
	// A short Ethernet frame is padded.
	if ip.Total > 0 && ip.Total < len(b) {
		b = b[:ip.Total]
	}
	h.Payload = b[ip.Size:]
	if !ip.Later {
		h.transport(b[ip.Size:])
	}
}

// addresses sets the addresses from an IP header if they are not known yet.
func (h *Headers) addresses(src, dst netip.Addr) {
	if !h.Src.IsValid() && !h.Dst.IsValid() {
		h.Src, h.Dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0)
	}
}

// ports sets the ports from the first four bytes of b if they are not known yet.
func (h *Headers) ports(b []byte) {
	if h.Src.Port() == 0 && h.Dst.Port() == 0 {
		h.Src = netip.AddrPortFrom(h.Src.Addr(), binary.BigEndian.Uint16(b))
		h.Dst = netip.AddrPortFrom(h.Dst.Addr(), binary.BigEndian.Uint16(b[2:]))
	}
}

func (h *Headers) transport(b []byte) {
	h.Payload = b
	size := 0
	switch h.Protocol {
	case header.ProtocolTCP:
		tcp, ok := header.ParseTCP(b)
		if !ok {
			return
		}
		h.TCP, h.Flags = true, tcp.Flags
		h.ports(b)
		size = max(tcp.Size, header.TCPSize)
	case header.ProtocolUDP:
		if len(b) < 8 {
			return
		}
		h.ports(b)
		size = 8
	case header.ProtocolICMP, header.ProtocolICMPv6:
		size = 8
	}
	h.Payload = b[min(size, len(b)):]
}
