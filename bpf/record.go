package bpf

import (
	"errors"
	"fmt"
	"structs"
	"unsafe"
)

// RecordHeader is what the tap says of one packet beside its bytes. Numbers are in
// native byte order unless it says otherwise, lengths in bytes.
type RecordHeader struct {
	_ structs.HostLayout
	// Time is when the filter ran, in nanoseconds of CLOCK_BOOTTIME.
	Time uint64
	// Cookie is the number of the socket that receives (SO_COOKIE); 0 if it has none yet.
	Cookie uint64
	// Origin is, at the hook, the cookie of the socket that was marked: the listener that
	// accepted the socket, or itself. The tap leaves it 0.
	Origin uint64
	// Lost counts the packets that this cpu has lost so far.
	Lost uint64
	// Cpu is the one that ran the filter.
	Cpu uint32
	// Len is the packet's length from the filter's offset 0 on (skb->len).
	Len uint32
	// Caplen is how many of them were recorded.
	Caplen uint32
	// Verdict is what the filter decided: the number of bytes to keep, negative for all,
	// 0 to drop the packet.
	Verdict int32
	// PktType is unix.PACKET_HOST, PACKET_OUTGOING, ...
	PktType uint32
	// Protocol is the ethertype, in network byte order.
	Protocol uint32
	// Ifindex is the interface, 0 for packets of none, and IngressIfindex the one where
	// the packet came in.
	Ifindex        uint32
	IngressIfindex uint32
	// Hash is that of the flow, 0 if it was not computed.
	Hash uint32
	// Mark, Priority and QueueMapping are the packet's own.
	Mark         uint32
	Priority     uint32
	QueueMapping uint32
	// VlanPresent is not 0 if the packet has a VLAN tag beside its bytes: VlanTci, and
	// VlanProto in network byte order.
	VlanPresent uint32
	VlanTci     uint32
	VlanProto   uint32
	// GsoSize is the payload of each of GsoSegs segments that the packet stands for; both
	// are 0 without segmentation offload.
	GsoSize uint32
	GsoSegs uint32
	// Family is the socket's, unix.AF_INET or AF_INET6, at the hook. The tap leaves it
	// and what follows up to State 0.
	Family uint16
	// Type is unix.SOCK_STREAM, ...
	Type uint16
	// SocketProtocol is unix.IPPROTO_TCP, ...
	SocketProtocol uint16
	// LocalPort is the socket's, PeerPort that of what it is connected to, 0 if it is not.
	LocalPort uint16
	PeerPort  uint16
	// State is that of the socket, such as TCP_LISTEN (10).
	State uint8
	Pad0  uint8 // not used
	// LinkLen is how many bytes of Link the filter reached, or a negative errno.
	LinkLen int16
	// NetLen is the same for Net.
	NetLen int16
	// Link has the packet from the link header on; see LinkHeader.
	Link [14]uint8
	Pad  [2]uint8 // not used
	// Net has the packet from the network header on; see NetHeader.
	Net [64]uint8
	_   [4]byte
}

// The compiler compares the fields with those of struct record in record.h.
var _ = RecordHeader(tapRecord{})

// Record is what the tap says of one packet, and the packet.
type Record struct {
	RecordHeader
	// Data holds the packet from offset 0 on: Caplen bytes of the Len that it had.
	Data []byte

	raw []byte
}

const headerSize = int(unsafe.Sizeof(RecordHeader{}))

// errRecord is what every error of Decode is.
var errRecord = errors.New("not a record of the tap")

// Decode reads a record as the tap wrote it, in native byte order. rec.Data
// is a part of sample.
func Decode(sample []byte, rec *Record) error {
	if len(sample) < headerSize {
		return fmt.Errorf("%w: %d bytes, at least %d expected", errRecord, len(sample), headerSize)
	}
	header := unsafe.Slice((*byte)(unsafe.Pointer(&rec.RecordHeader)), headerSize)
	copy(header, sample)
	if room := len(sample) - headerSize; uint64(rec.Caplen) > uint64(room) {
		return fmt.Errorf("%w: claims %d bytes of packet, has room for %d", errRecord, rec.Caplen, room)
	}
	if rec.Caplen > rec.Len {
		return fmt.Errorf("%w: captured %d bytes of %d", errRecord, rec.Caplen, rec.Len)
	}
	if int(rec.LinkLen) > len(rec.Link) || int(rec.NetLen) > len(rec.Net) {
		return fmt.Errorf("%w: headers of %d and %d bytes", errRecord, rec.LinkLen, rec.NetLen)
	}
	rec.Data = sample[headerSize : headerSize+int(rec.Caplen) : headerSize+int(rec.Caplen)]
	return nil
}

// LinkHeader is what the filter reached from the link header on: 14 bytes, or
// nothing where it reached none.
func (r *Record) LinkHeader() []byte { return r.Link[:max(r.LinkLen, 0)] }

// NetHeader is what the filter reached from the network header on: an IPv4
// header with its options, or an IPv6 header with up to 24 bytes of extension
// headers, or nothing where it reached none.
func (r *Record) NetHeader() []byte { return r.Net[:max(r.NetLen, 0)] }
