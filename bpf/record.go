package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"structs"
	"unsafe"
)

// RecordHeader is what the tap records of a packet besides its bytes. Numbers are in native
// byte order unless it says otherwise, lengths in bytes.
type RecordHeader struct {
	_ structs.HostLayout
	// Time is when the filter ran, in nanoseconds of CLOCK_BOOTTIME.
	Time uint64
	// Cookie identifies the receiving socket (SO_COOKIE); 0 if it has none yet.
	Cookie uint64
	// Origin is the cookie of the marked socket, the listener that accepted the socket or the
	// socket itself, in records of a Hook. The tap leaves it 0.
	Origin uint64
	// Lost counts the packets that this cpu has lost so far.
	Lost uint64
	// Filter identifies the filter that the socket has of its own, in records of a Hook, or the
	// one that a Wrapper runs: an eBPF program by its id, a classic one by its ClassicKey. 0 means
	// that there is none, or that nobody can tell. In records of a Wire, it is the inode of the
	// network namespace.
	Filter uint64
	// Cpu is the one that ran the filter.
	Cpu uint32
	// Len is the packet's length from where the recorded bytes begin: the filter's offset 0, or
	// Before bytes before that.
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
	// Family is the socket's, unix.AF_INET or AF_INET6, in records of a Hook. The tap leaves
	// it and the fields up to State 0.
	Family uint16
	// Type is unix.SOCK_STREAM, ...
	Type uint16
	// SocketProtocol is unix.IPPROTO_TCP, ...
	SocketProtocol uint16
	// LocalPort is the socket's, PeerPort that of its peer, 0 if it is not connected.
	LocalPort uint16
	PeerPort  uint16
	// State is that of the socket, such as TCP_LISTEN (10).
	State uint8
	// Hook is where the packet was seen.
	Hook uint8
	// Before is how many of the first recorded bytes come before the offset 0 that a filter of
	// the socket has: in records of packets that were sent, and with HookOptions.FromNetwork. In
	// records of a Wire, how many come before the network header.
	Before uint16
	// NetLen is how many bytes of Net are filled in, or a negative errno.
	NetLen int16
	// Ifindex is the interface, 0 if there is none, and IngressIfindex the one that received
	// the packet.
	Ifindex        uint32
	IngressIfindex uint32
	// Hash is that of the flow, 0 if it was not computed.
	Hash uint32
	// Mark, Priority and QueueMapping are the packet's own.
	Mark         uint32
	Priority     uint32
	QueueMapping uint32
	// VlanPresent is not 0 if the packet has a VLAN tag that is not in its bytes: VlanTci,
	// and VlanProto in network byte order.
	VlanPresent uint32
	VlanTci     uint32
	VlanProto   uint32
	// GsoSize is the payload of each of the GsoSegs segments that the packet consists of;
	// both are 0 without segmentation offload.
	GsoSize uint32
	GsoSegs uint32
	// Nonlinear is how many of Len, the last ones, lie in fragments, which programs with direct
	// access do not reach. Only a Hook tells.
	Nonlinear uint32
	// LinkLen is the same for Link.
	LinkLen int16
	// Link holds the link header; see LinkHeader.
	Link [14]uint8
	// Net holds the network header; see NetHeader.
	Net [64]uint8
}

// The compiler compares the fields with those of struct record in record.h.
var _ = RecordHeader(tapRecord{})

// Where a packet was seen, as RecordHeader.Hook has it.
const (
	// HookFilter: the tap has seen it, as the filter of a socket.
	HookFilter = iota
	// HookIngress: a Hook has seen it before the filter of the socket that receives it.
	HookIngress
	// HookEgress: a Hook has seen it as its socket sent it.
	HookEgress
	// HookNone: it is no packet. The record comes before the first packet of a socket with some
	// Filter, and tells what that is; see Record.Announced.
	HookNone
	// HookWireIn: a Wire has seen it on an interface, and it comes to its socket.
	HookWireIn
	// HookWireOut: a Wire has seen it on an interface, and its socket has sent it.
	HookWireOut
	// HookDrop: the kernel has freed it without having used it. Filter is the address of the
	// instruction that did, and Verdict the kernel's reason: see Drops.
	HookDrop
	// HookSelect: a Selector has seen it, which chose the socket. Verdict is what its program
	// returned. With a program that chooses by itself, the packet's bytes come after Before bytes
	// with what Chosen returns.
	HookSelect
	// HookBeside: as HookIngress, of a socket that has a Wrapper, which records the packet as well.
	HookBeside
)

// Record is a packet as the tap recorded it.
type Record struct {
	RecordHeader
	// Unwanted says that the Expression leaves the packet out, and that this is a note of it. It has
	// no more than the packet's first bytes, and nothing from Ifindex on but Net, unless the socket has
	// a filter of its own that somebody may want to ask (Filter, with Family).
	Unwanted bool
	// Data holds the packet: Caplen bytes of the Len that it had.
	Data []byte

	raw []byte
}

// noteBit is HOOK_UNWANTED of record.h.
const noteBit = 0x80

const headerSize = int(unsafe.Sizeof(RecordHeader{}))

// noteHead is how many bytes of a RecordHeader a note begins with, and noteSize the size of all of it: see
// expression.h.
const (
	noteHead = int(unsafe.Offsetof(RecordHeader{}.Ifindex))
	noteSize = noteHead + 40 + 128
)

// errRecord is wrapped by every error of Decode.
var errRecord = errors.New("not a record of the tap")

// Decode reads a record as the tap wrote it, in native byte order. rec.Data
// is a part of sample.
func Decode(sample []byte, rec *Record) error {
	if len(sample) < headerSize {
		return fmt.Errorf("%w: %d bytes, at least %d expected", errRecord, len(sample), headerSize)
	}
	header, bytes := unsafe.Slice((*byte)(unsafe.Pointer(&rec.RecordHeader)), headerSize), sample[headerSize:]
	note := len(sample) == noteSize && sample[unsafe.Offsetof(rec.RecordHeader.Hook)]&noteBit != 0
	if note {
		bytes = sample[noteHead:]
		clear(header[copy(header, sample[:noteHead]):])
	} else {
		copy(header, sample)
	}
	rec.Unwanted = rec.Hook&noteBit != 0
	rec.Hook &^= noteBit
	if room := len(bytes); uint64(rec.Caplen) > uint64(room) {
		return fmt.Errorf("%w: claims %d bytes of packet, has room for %d", errRecord, rec.Caplen, room)
	}
	if rec.Caplen > rec.Len {
		return fmt.Errorf("%w: captured %d bytes of %d", errRecord, rec.Caplen, rec.Len)
	}
	if uint32(rec.Before) > rec.Len {
		return fmt.Errorf("%w: %d bytes before offset 0 of a packet of %d", errRecord, rec.Before, rec.Len)
	}
	if note {
		rec.findNet(bytes[:rec.Caplen])
	}
	if int(rec.LinkLen) > len(rec.Link) || int(rec.NetLen) > len(rec.Net) {
		return fmt.Errorf("%w: headers of %d and %d bytes", errRecord, rec.LinkLen, rec.NetLen)
	}
	rec.Data = bytes[:rec.Caplen:rec.Caplen]
	return nil
}

// findNet takes the network header from the bytes of a note, where NetLen is its place.
func (r *Record) findNet(bytes []byte) {
	at := int(r.NetLen)
	r.NetLen = 0
	if at < 0 || at >= len(bytes) {
		return
	}
	switch bytes = bytes[at:]; {
	case bytes[0]>>4 == 4 && len(bytes) >= 20:
		r.NetLen = int16(copy(r.Net[:], bytes[:min(max(int(bytes[0]&0xf)*4, 20), len(bytes))]))
	case bytes[0]>>4 == 6 && len(bytes) >= 40:
		r.NetLen = int16(copy(r.Net[:], bytes[:40]))
	}
}

// LinkHeader is the packet's link header, 14 bytes, or nothing if there is none that the
// filter can read.
func (r *Record) LinkHeader() []byte { return r.Link[:max(r.LinkLen, 0)] }

// ArrivalsLost is, in records with HookDrop, how many of the packets that arrive the cpu had lost by then: the
// Lost of their records. If the newest of those has the same, it is of the packet that arrived last there. With a
// Hook that is beside the tap, its records are meant.
func (r *Record) ArrivalsLost() uint64 { return binary.NativeEndian.Uint64(r.Link[:]) }

// NetHeader is the packet's network header: an IPv4 header with its options, or an IPv6
// header with up to 24 bytes of extension headers, or nothing if there is none that the
// filter can read.
func (r *Record) NetHeader() []byte { return r.Net[:max(r.NetLen, 0)] }
