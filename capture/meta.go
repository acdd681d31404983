package capture

import (
	"encoding/binary"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// Meta is what the kernel keeps in addition to a packet's bytes, as the socket filter found it
// in __sk_buff. A packet without it has zero.
type Meta struct {
	// VLANProto and VLANTCI are the VLAN tag that the kernel removed from the frame (IEEE
	// 802.1Q): the ethertype, 0x8100 or 0x88a8, and the tag control information, of which the
	// low 12 bits are the VLAN's id. Without a tag VLANProto is 0. The packet's Data and Len
	// are without the tag, as they are for the filter.
	VLANProto, VLANTCI uint16
	// Mark is what netfilter, SO_MARK or a BPF program set.
	Mark uint32
	// Priority is the packet's queueing priority.
	Priority uint32
	// GSOSize and GSOSegs are for a packet that stands for several segments (segmentation
	// offload): the bytes of payload of each segment, and the number of segments. Both are 0
	// for all other packets.
	GSOSize, GSOSegs uint32
	// Hash is the flow's hash.
	Hash uint32
	// Queue is queue_mapping: for a received packet the receive queue's number plus one, for a
	// sent one the transmit queue's.
	Queue uint32
}

// Tagged tells whether the packet had a VLAN tag that is not in its bytes.
func (m *Meta) Tagged() bool { return m.VLANProto != 0 }

// VLAN is the id of the packet's VLAN.
func (m *Meta) VLAN() uint16 { return m.VLANTCI & 0xfff }

// metaOf returns the Meta of a record.
func metaOf(rec *bpf.Record) Meta {
	m := Meta{Mark: rec.Mark, Priority: rec.Priority, Hash: rec.Hash, Queue: rec.QueueMapping}
	if rec.VlanPresent != 0 {
		m.VLANTCI, m.VLANProto = uint16(rec.VlanTci), fromNetworkOrder(rec.VlanProto)
	}
	if rec.GsoSize != 0 {
		// gso_segs is 1 for some packets without offload and 0 for others.
		m.GSOSize, m.GSOSegs = rec.GsoSize, rec.GsoSegs
	}
	return m
}

// fromNetworkOrder converts an ethertype of __sk_buff: 16 bits in network byte order, in a
// native word.
func fromNetworkOrder(v uint32) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], uint16(v))
	return binary.BigEndian.Uint16(b[:])
}

// linkHeaderSize is the length of an Ethernet header, including VLAN tags that are in the
// frame's bytes, such as those that a socket on this machine wrote.
func linkHeaderSize(frame []byte) int {
	size := linkHeaderLen
	for size+4 <= len(frame) && isTag(frame[size-2:]) {
		size += 4
	}
	return size
}

// isTag tells whether a VLAN tag begins here.
func isTag(b []byte) bool {
	etherType := binary.BigEndian.Uint16(b)
	return etherType == 0x8100 || etherType == 0x88a8
}
