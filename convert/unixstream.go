package convert

import (
	"cmp"
	"encoding/binary"
	"net/netip"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/decoding"
)

// The ends of a unix stream have no addresses. As segments they get one each, with the number of
// the connection in its lower half: of the unique local addresses of IPv6 (RFC 4193), those with
// "unix" in them. The port of the other end says what the bytes are.
const (
	socketPrefix = 0xfd_75_6e_69_78_00_00_00
	peerPrefix   = socketPrefix + 1
)

// segmentEnds returns the ends of a packet with a Segment, and the protocol of its header.
func segmentEnds(p *capture.Packet) (src, dst netip.AddrPort, protocol uint8) {
	if p.Segment.Connection == 0 {
		return p.Src, p.Dst, p.Protocol
	}
	port := cmp.Or(decoding.Of(p.Interface.DecodeAs).Port, decoding.PeerPort)
	socket := netip.AddrPortFrom(streamAddress(socketPrefix, p.Segment.Connection), decoding.SocketPort)
	peer := netip.AddrPortFrom(streamAddress(peerPrefix, p.Segment.Connection), port)
	if p.Interface.View == capture.ViewSent {
		return socket, peer, protocolTCP
	}
	return peer, socket, protocolTCP
}

func streamAddress(prefix, connection uint64) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], prefix)
	binary.BigEndian.PutUint64(b[8:], connection)
	return netip.AddrFrom16(b)
}

// parseConnection turns the addresses of a segment into the number of its connection, if they are
// those of a unix stream.
func parseConnection(p *capture.Packet) {
	kind, known := capture.KindByName(p.Interface.Kind)
	if !known || !kind.Counted() {
		return
	}
	b := p.Src.Addr().As16()
	if prefix := binary.BigEndian.Uint64(b[:]); prefix != socketPrefix && prefix != peerPrefix {
		return
	}
	p.Segment.Connection = binary.BigEndian.Uint64(b[8:])
	p.Src, p.Dst, p.Protocol = netip.AddrPort{}, netip.AddrPort{}, 0
}
