// Package offset finds, in packets that others have captured, what a filter on a socket of some
// kind has of them from its offset 0 on, as the kernel hands them over. Packets may be cut
// anywhere.
package offset

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// Link types of captures (https://www.tcpdump.org/linktypes.html).
const (
	linkNull   = 0
	linkRaw    = 101
	linkLoop   = 108
	linkCooked = 113
	linkIPv4   = 228
	linkIPv6   = 229
	linkSLL2   = 276
)

// Reason is why a socket does not get a packet.
type Reason uint8

// The reasons, 0 for a packet that the socket gets.
const (
	// OtherLink: the link type is none that is known.
	OtherLink Reason = iota + 1
	// OtherLayer: the packet lacks the header that the socket begins with.
	OtherLayer
	// OtherProtocol: it belongs to sockets of another kind.
	OtherProtocol
	// Fragment: such sockets get the whole that the kernel makes of several.
	Fragment
	// Damaged: a header is cut, or says what cannot be, and the kernel throws it away.
	Damaged
	reasons
)

// Reasons is how many there are, with the one that is none.
const Reasons = int(reasons)

// Seen is what a filter has of a packet.
type Seen struct {
	// Data begins at offset 0. Len is the length that the filter finds, in bytes; it exceeds
	// len(Data) by what the capture lacks.
	Data []byte
	Len  int
	// Protocol is skb->protocol, in host byte order.
	Protocol uint16
	// TagKnown says that the VLAN tag is known, which the kernel keeps beside the bytes. VLANProto
	// is its ethertype, 0 for no tag.
	TagKnown           bool
	VLANProto, VLANTCI uint16
}

// Default is the kind of socket that gets the packets of an interface as they were captured: a
// packet socket, with the link header where there is one that it knows.
func Default(i *capture.Interface) (kind *capture.Kind, ok bool) {
	name := "packet-dgram"
	switch i.Layer {
	case capture.LayerLink:
		name = "packet"
	case capture.LayerNetwork:
	case capture.LayerForeign:
		if !known(i.LinkType) {
			return nil, false
		}
	default:
		return nil, false
	}
	return capture.KindByName(name)
}

func known(link uint16) bool {
	switch link {
	case linkNull, linkRaw, linkLoop, linkCooked, linkIPv4, linkIPv6, linkSLL2:
		return true
	}
	return false
}

// Has tells whether packets of networks have what a socket of a kind begins with, and the kernel
// runs its filters.
func Has(kind *capture.Kind) bool {
	switch kind.Family() {
	case unix.AF_PACKET:
		return true
	case unix.AF_INET, unix.AF_INET6:
		return kind.Name != "mptcp"
	}
	return false
}

// Of finds what a socket of a kind gets of a captured packet that has come from a network.
func Of(p *capture.Packet, kind *capture.Kind) (Seen, Reason) {
	s := Seen{Data: p.Data, Len: max(p.Len, len(p.Data))}
	isFrame, reason := s.link(p.Interface)
	if reason != 0 {
		return Seen{}, reason
	}
	switch {
	case kind.Layer() == capture.LayerLink && !isFrame:
		return Seen{}, OtherLayer
	case kind.Layer() == capture.LayerLink:
		return s, 0
	case isFrame:
		s.skip(frameHeader)
	}
	if kind.Family() == unix.AF_PACKET {
		return s, 0
	}
	if reason := s.internet(kind); reason != 0 {
		return Seen{}, reason
	}
	return s, 0
}

// skip leaves out bytes at the beginning.
func (s *Seen) skip(n int) {
	s.Data = s.Data[min(n, len(s.Data)):]
	s.Len = max(s.Len-n, 0)
}

// cut leaves out what is behind a length, such as the padding of a short frame.
func (s *Seen) cut(length int) {
	s.Len = min(s.Len, length)
	s.Data = s.Data[:min(len(s.Data), s.Len)]
}

// link reads what is before the network header, and removes it but for that of a frame.
func (s *Seen) link(i *capture.Interface) (isFrame bool, reason Reason) {
	switch i.Layer {
	case capture.LayerLink:
		return true, s.ethernet()
	case capture.LayerNetwork:
		return false, s.network()
	case capture.LayerForeign:
	default:
		return false, OtherLink
	}
	switch i.LinkType {
	case linkRaw, linkIPv4, linkIPv6:
		return false, s.network()
	case linkNull, linkLoop:
		return false, s.loopback()
	case linkCooked:
		return false, s.cooked()
	case linkSLL2:
		return false, s.cooked2()
	}
	return false, OtherLink
}

const (
	frameHeader = 14
	tagSize     = 4
	// firstType is the first number that is an ethertype and not a length.
	firstType = 0x600
)

// ethernet reads a frame's header. The kernel takes the outermost tag out of what it receives.
func (s *Seen) ethernet() Reason {
	be := binary.BigEndian
	if len(s.Data) < frameHeader {
		return Damaged
	}
	s.TagKnown = true
	s.Protocol = be.Uint16(s.Data[12:])
	if isTag(s.Protocol) && len(s.Data) >= frameHeader+tagSize {
		s.VLANProto, s.VLANTCI = s.Protocol, be.Uint16(s.Data[14:])
		whole := s.Data
		s.Data = append(append(make([]byte, 0, len(whole)-tagSize), whole[:12]...), whole[12+tagSize:]...)
		s.Len -= tagSize
		s.Protocol = be.Uint16(s.Data[12:])
	}
	if s.Protocol < firstType {
		s.Protocol = ofLength(s.Data[frameHeader:])
	}
	return 0
}

func isTag(etherType uint16) bool {
	return etherType == header.EtherTypeVLAN || etherType == header.EtherTypeQinQ
}

// ofLength is the protocol of a frame that has a length instead of one (eth_type_trans).
func ofLength(payload []byte) uint16 {
	if len(payload) >= 2 && payload[0] == 0xff && payload[1] == 0xff {
		return unix.ETH_P_802_3
	}
	return unix.ETH_P_802_2
}

// network finds the protocol of a packet that begins with an IP header.
func (s *Seen) network() Reason {
	if len(s.Data) == 0 {
		return Damaged
	}
	switch s.Data[0] >> 4 {
	case 4:
		s.Protocol = unix.ETH_P_IP
	case 6:
		s.Protocol = unix.ETH_P_IPV6
	default:
		return OtherLayer
	}
	return 0
}

// loopback reads the address family that BSD puts before a packet, in the byte order of the
// machine that has captured it.
func (s *Seen) loopback() Reason {
	const size = 4
	if len(s.Data) < size {
		return Damaged
	}
	family := binary.LittleEndian.Uint32(s.Data)
	if family > 0xffff {
		family = binary.BigEndian.Uint32(s.Data)
	}
	s.skip(size)
	switch family {
	case unix.AF_INET, unix.AF_INET6, 23, 24, 28, 30: // AF_INET6 of Windows, NetBSD, FreeBSD, Darwin
		return s.network()
	}
	return OtherLayer
}

// Types of devices (ARPHRD_*) whose cooked packets have something else than an ethertype.
func hasEtherType(device uint16) bool {
	const gre, radiotap = 778, 803
	return device != unix.ARPHRD_NETLINK && device != gre && device != radiotap
}

// cooked reads the header that libpcap makes of what a packet socket without link headers tells.
// A tag that was beside the bytes is before the ethertype.
func (s *Seen) cooked() Reason {
	const size = 16
	be := binary.BigEndian
	if len(s.Data) < size {
		return Damaged
	}
	if !hasEtherType(be.Uint16(s.Data[2:])) {
		return OtherLayer
	}
	s.TagKnown = true
	s.Protocol = be.Uint16(s.Data[14:])
	if isTag(s.Protocol) && len(s.Data) >= size+tagSize {
		s.VLANProto, s.VLANTCI = s.Protocol, be.Uint16(s.Data[16:])
		s.Protocol = be.Uint16(s.Data[18:])
		s.skip(tagSize)
	}
	s.skip(size)
	return 0
}

// cooked2 reads the later form of that header, into which libpcap puts no tag.
func (s *Seen) cooked2() Reason {
	const size = 20
	be := binary.BigEndian
	if len(s.Data) < size {
		return Damaged
	}
	if !hasEtherType(be.Uint16(s.Data[8:])) {
		return OtherLayer
	}
	s.Protocol = be.Uint16(s.Data)
	s.skip(size)
	return 0
}

// internet finds what an internet socket gets.
func (s *Seen) internet(kind *capture.Kind) Reason {
	wanted := uint16(unix.ETH_P_IP)
	if kind.IPv6() {
		wanted = unix.ETH_P_IPV6
	}
	if s.Protocol != wanted {
		return OtherProtocol
	}
	ip, ok := header.ParseIP(s.Data)
	if !ok || (ip.Version == 6) != kind.IPv6() || ip.Total > s.Len {
		return Damaged
	}
	if ip.Total > 0 {
		s.cut(ip.Total)
	}
	protocol := kind.Protocol()
	switch {
	case !kind.TakesProtocol() && ip.Protocol != protocol:
		return OtherProtocol
	case ip.Fragment:
		return Fragment
	case kind.Layer() == capture.LayerNetwork:
		return 0
	}
	s.skip(ip.Size)
	if kind.TakesProtocol() {
		return 0
	}
	return s.transport(protocol)
}

// transport checks what the kernel does before it runs a socket's filter.
func (s *Seen) transport(protocol uint8) Reason {
	const udpSize, echoReply, extendedEchoReply, echoReply6, extendedEchoReply6 = 8, 0, 43, 129, 161
	switch protocol {
	case header.ProtocolTCP:
		tcp, ok := header.ParseTCP(s.Data)
		if !ok || tcp.Size < header.TCPSize || tcp.Size > s.Len {
			return Damaged
		}
	case header.ProtocolUDP:
		if len(s.Data) < udpSize {
			return Damaged
		}
		length := int(binary.BigEndian.Uint16(s.Data[4:]))
		switch {
		case length == 0: // of more than 65,535 bytes
		case length < udpSize || length > s.Len:
			return Damaged
		default:
			s.cut(length)
		}
	case header.ProtocolICMP, header.ProtocolICMPv6:
		if len(s.Data) == 0 {
			return Damaged
		}
		switch isICMP := protocol == header.ProtocolICMP; {
		case isICMP && s.Data[0] != echoReply && s.Data[0] != extendedEchoReply,
			!isICMP && s.Data[0] != echoReply6 && s.Data[0] != extendedEchoReply6:
			return OtherProtocol
		}
	}
	return 0
}
