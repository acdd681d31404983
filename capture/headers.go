package capture

import (
	"encoding/binary"
	"net/netip"

	"github.com/ebpfdump/ebpfdump/bpf"
	"golang.org/x/sys/unix"
)

func direction(pktType uint32) Direction {
	if pktType == unix.PACKET_OUTGOING {
		return Outbound
	}
	return Inbound
}

// address finds the packet's addresses in the network header that the tap
// reached, and its ports in the transport header.
func address(p *Packet, rec *bpf.Record, layer Layer) {
	if layer == LayerMessage {
		return // below a message there is no header, whatever the tap finds there
	}
	var src, dst netip.Addr
	net, transport := rec.NetHeader(), rec.Data
	if layer == LayerLink {
		transport = transport[min(linkHeaderSize(transport), len(transport)):]
	}
	switch {
	case len(net) >= 20 && net[0]>>4 == 4:
		src, dst = netip.AddrFrom4([4]byte(net[12:16])), netip.AddrFrom4([4]byte(net[16:20]))
		p.Protocol = net[9]
		if layer != LayerTransport {
			transport = transport[min(int(net[0]&0xf)*4, len(transport)):]
		}
	case len(net) >= 40 && net[0]>>4 == 6:
		src, dst = netip.AddrFrom16([16]byte(net[8:24])), netip.AddrFrom16([16]byte(net[24:40]))
		if layer != LayerTransport {
			p.Protocol = net[6]
			transport = transport[min(40, len(transport)):]
		}
	default:
		return
	}
	var sport, dport uint16
	if hasPorts(p.Protocol) && len(transport) >= 4 {
		sport, dport = binary.BigEndian.Uint16(transport), binary.BigEndian.Uint16(transport[2:])
	}
	p.Src, p.Dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	p.Meta.ChecksumPartial = partialChecksum(p.Protocol, net, transport, int(rec.Len)-(len(rec.Data)-len(transport)))
}

// hasPorts tells whether an IP protocol's header begins with two ports.
func hasPorts(protocol uint8) bool {
	switch protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE, unix.IPPROTO_SCTP, unix.IPPROTO_DCCP:
		return true
	}
	return false
}

// linkHeaderLen is the length of an Ethernet header.
const linkHeaderLen = 14

// appendBelow appends the bytes before offset 0, from the view's own header on. ok is false
// where the filter could not reach all of them.
func appendBelow(to []byte, rec *bpf.Record, layer Layer, view View) (_ []byte, ok bool) {
	switch layer {
	case LayerMessage:
		return to, false
	case LayerLink:
		// Nothing is below; but the network header must be where the filter finds it.
		return to, view == ViewLink || isIP(rec.NetHeader(), ethertypeOf(rec, layer))
	}
	if view == ViewLink {
		link := rec.LinkHeader()
		// Devices without a link header (tun) have the network header here.
		if len(link) < 14 || uint32(binary.NativeEndian.Uint16(link[12:])) != rec.Protocol {
			return to, false
		}
		to = append(to, link...)
	}
	if layer != LayerTransport {
		return to, true
	}
	n, ok := netHeaderLen(rec.NetHeader())
	if !ok {
		return to, false
	}
	return append(to, rec.NetHeader()[:n]...), true
}

// ethertypeOf is what a packet socket's packet is of, behind the VLAN tags that are in a frame's bytes.
func ethertypeOf(rec *bpf.Record, layer Layer) uint16 {
	if size := linkHeaderSize(rec.Data); layer == LayerLink && size <= len(rec.Data) && !isTag(rec.Data[size-2:]) {
		return binary.BigEndian.Uint16(rec.Data[size-2:])
	}
	return fromNetworkOrder(rec.Protocol)
}

// isIP tells whether a header is that of an ethertype's IP version.
func isIP(header []byte, ethertype uint16) bool {
	version := byte(4)
	if ethertype == unix.ETH_P_IPV6 {
		version = 6
	}
	return len(header) > 0 && header[0]>>4 == version
}

// netHeaderLen is the length of an IP header with options or extension headers (RFC 791, RFC
// 8200). ok is false if net does not hold all of it.
func netHeaderLen(net []byte) (n int, ok bool) {
	if len(net) < 20 {
		return 0, false
	}
	if net[0]>>4 == 4 {
		n = int(net[0]&0xf) * 4
		return n, n >= 20 && n <= len(net)
	}
	if net[0]>>4 != 6 || len(net) < 40 {
		return 0, false
	}
	next, n := net[6], 40
	for {
		switch next {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS, unix.IPPROTO_FRAGMENT, unix.IPPROTO_AH:
		default:
			return n, n <= len(net)
		}
		if n+8 > len(net) {
			return 0, false
		}
		length := (int(net[n+1]) + 1) * 8
		switch next {
		case unix.IPPROTO_FRAGMENT:
			length = 8
		case unix.IPPROTO_AH:
			length = (int(net[n+1]) + 2) * 4
		}
		next, n = net[n], n+length
	}
}
