package capture

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

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
	// NonLinear is how many of the packet's bytes, its last ones, lie in fragments: a program
	// with direct access (data to data_end) does not reach them without bpf_skb_pull_data. The
	// cgroup hooks tell, the view of drops, and the program that chooses a socket; elsewhere it is 0.
	NonLinear uint32
	// ChecksumPartial says that the checksum of TCP or UDP is not there yet: the field has only
	// the sum of the addresses, protocol and length, as the kernel leaves it for a device to
	// complete (CHECKSUM_PARTIAL). On loopback, and of what GRO has put together, it stays so.
	// The bytes tell that: of 65,536 packets with a checksum, one has that sum by chance.
	ChecksumPartial bool
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
	m := Meta{Mark: rec.Mark, Priority: rec.Priority, NonLinear: rec.Nonlinear, Hash: rec.Hash, Queue: rec.QueueMapping}
	if rec.VlanPresent != 0 {
		m.VLANTCI, m.VLANProto = uint16(rec.VlanTci), fromNetworkOrder(rec.VlanProto)
	}
	if rec.GsoSize != 0 {
		// gso_segs is 1 for some packets without offload and 0 for others.
		m.GSOSize, m.GSOSegs = rec.GsoSize, rec.GsoSegs
	}
	return m
}

// partialChecksum tells whether the checksum of a transport header is that of the pseudo header
// alone. The header's packet has length bytes, and net is the network header before it.
func partialChecksum(protocol uint8, net, transport []byte, length int) bool {
	at := 16 // of TCP
	if protocol == unix.IPPROTO_UDP {
		at = 6
	} else if protocol != unix.IPPROTO_TCP {
		return false
	}
	if len(transport) < at+2 {
		return false
	}
	addresses, said := net[8:min(40, len(net))], 0
	if net[0]>>4 == 4 {
		if binary.BigEndian.Uint16(net[6:])&0x3fff != 0 {
			return false // of a fragment, whose length is another
		}
		addresses, said = net[12:20], int(binary.BigEndian.Uint16(net[2:]))-int(net[0]&0xf)*4
	} else if net[6] == protocol {
		said = int(binary.BigEndian.Uint16(net[4:]))
	}
	if said > 0 {
		length = min(length, said) // a frame may be padded; the largest packets say 0
	}
	sum := uint64(protocol) + uint64(length)
	for ; len(addresses) >= 4; addresses = addresses[4:] {
		sum += uint64(binary.BigEndian.Uint32(addresses))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum) == binary.BigEndian.Uint16(transport[at:])
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
