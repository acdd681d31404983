package convert

import (
	"encoding/binary"

	"github.com/ebpfdump/ebpfdump/capture"
)

// Before netlink messages of LINKTYPE_NETLINK stands the header of 16 bytes that Linux's monitor
// interface for them has: packet type, ARPHRD_NETLINK, ten bytes without a meaning, and the
// socket's protocol, all big endian.
const (
	linkNetlink       = capture.LinkNetlink
	netlinkHeaderSize = 16
	deviceNetlink     = 824
	netlinkOutgoing   = 4
)

func isNetlink(i *capture.Interface) bool {
	return i.Layer == capture.LayerMessage && i.LinkType == linkNetlink
}

func appendNetlinkHeader(b []byte, p *capture.Packet) []byte {
	be := binary.BigEndian
	kind := uint16(0)
	if p.Direction == capture.Outbound {
		kind = netlinkOutgoing
	}
	b = be.AppendUint16(be.AppendUint16(b, kind), deviceNetlink)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	return be.AppendUint16(b, p.Netlink)
}

// parseNetlink reads that header, and returns its size in bytes, 0 if it is not there.
func parseNetlink(p *capture.Packet) int {
	if len(p.Data) < netlinkHeaderSize {
		return 0
	}
	p.Netlink = binary.BigEndian.Uint16(p.Data[netlinkHeaderSize-2:])
	return netlinkHeaderSize
}
