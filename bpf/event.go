package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// EventHeader is what is known of a call and of its socket, besides the bytes. Numbers are in
// native byte order, lengths in bytes.
type EventHeader struct {
	_ structs.HostLayout
	// Time is when the call ended, in nanoseconds of CLOCK_BOOTTIME. All pieces of a
	// message have the same.
	Time uint64
	// Began is when it began, of a call that sends.
	Began uint64
	// Cookie identifies the socket (SO_COOKIE); 0 if it has none yet.
	Cookie uint64
	// Lost counts the events that this cpu has lost so far.
	Lost uint64
	// Result is what the call returned, for recvmmsg and sendmmsg the length of one message; a
	// negative errno if it failed.
	Result int64
	// Call is a Call; see Kind.
	Call uint16
	// NameLen is how many bytes there are of Name, the struct sockaddr of the sender that the
	// call returned, or of a send's destination; see Sender and Destination.
	NameLen uint16
	// Cpu is the one on which the call ended.
	Cpu uint32
	// Pid and Tid are the process and the thread that made the call, in the pid namespace of
	// this program.
	Pid uint32
	Tid uint32
	// Fd is the socket's descriptor in that process.
	Fd int32
	// Flags are the call's, such as unix.MSG_PEEK.
	Flags uint32
	// Wanted is how many bytes of the message were to be copied, over all its pieces.
	Wanted uint32
	// Offset is that of this piece in the message, and Caplen its length.
	Offset uint32
	Caplen uint32
	// Room is the size of the caller's buffer, all its parts together, or RoomUnknown. Of splice
	// it is how many bytes were asked for.
	Room uint32
	// Seq is TCP's sequence number of the message's first byte; see StreamPlace.
	Seq uint32
	// Ack is that of the next byte in the other direction. For calls that receive it is known
	// only with CallsOptions.Sends.
	Ack uint32
	// Family is the socket's, unix.AF_INET, ...; Type unix.SOCK_STREAM, ...; Protocol
	// unix.IPPROTO_TCP, ...
	Family   uint16
	Type     uint16
	Protocol uint16
	// LocalPort and PeerPort are the socket's ports, 0 if it has none.
	LocalPort uint16
	PeerPort  uint16
	// State is that of the socket, such as TCP_LISTEN (10).
	State uint8
	// Known has flags; methods return them.
	Known uint8
	// Local and Peer are the socket's addresses, IPv4 in the first four bytes; see the methods
	// of Event of these names, and Inode.
	Local [16]uint8
	Peer  [16]uint8
	// Comm is the thread's name, in news only; see Command.
	Comm [16]uint8
	// MsgFlags are the flags that recvmsg or recvmmsg returned with the message, such as
	// unix.MSG_TRUNC; 0 for other calls.
	MsgFlags uint32
	// Control is the number of the CallControl that has the message's ancillary data: of two
	// messages of one thread on one cpu it is not the same. 0 if there is none.
	Control uint32
	Name    [28]uint8
}

// The compiler compares the fields with those of struct event in calls.h.
var _ = EventHeader(callsEvent{})

// Event is a piece of what a system call of a followed process returned or sent, or news of one of
// its sockets.
type Event struct {
	EventHeader
	// Data holds Caplen bytes of the message, from Offset on.
	Data []byte

	raw []byte
}

const eventSize = int(unsafe.Sizeof(EventHeader{}))

// errEvent is wrapped by every error of DecodeEvent.
var errEvent = errors.New("not an event of a system call")

// DecodeEvent reads an event as the program wrote it, in native byte order.
// e.Data is a part of sample.
func DecodeEvent(sample []byte, e *Event) error {
	if len(sample) < eventSize {
		return fmt.Errorf("%w: %d bytes, at least %d expected", errEvent, len(sample), eventSize)
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&e.EventHeader)), eventSize), sample)
	if room := len(sample) - eventSize; uint64(e.Caplen) > uint64(room) {
		return fmt.Errorf("%w: claims %d bytes, has room for %d", errEvent, e.Caplen, room)
	}
	if uint64(e.Offset)+uint64(e.Caplen) > uint64(e.Wanted) {
		return fmt.Errorf("%w: bytes %d to %d of %d", errEvent, e.Offset, uint64(e.Offset)+uint64(e.Caplen), e.Wanted)
	}
	if int(e.NameLen) > len(e.Name) {
		return fmt.Errorf("%w: an address of %d bytes", errEvent, e.NameLen)
	}
	e.Data = sample[eventSize : eventSize+int(e.Caplen) : eventSize+int(e.Caplen)]
	return nil
}

// The flags of an event's Known.
const (
	eventSeq     = 1
	eventControl = 2
	eventV6      = 4
	eventRing    = 8
	eventUnseen  = 16
)

// Kind is the system call that the event is of.
func (e *Event) Kind() Call { return Call(e.Call) }

// CallName is the name of the call. A request of io_uring has the name of the system call that
// it corresponds to.
func (e *Event) CallName() string {
	switch kind := e.Kind(); {
	case e.Known&eventRing == 0:
		return kind.String()
	case kind == CallRecvfrom:
		return "io_uring recv"
	case kind == CallZerocopy:
		return "io_uring recv_zc"
	default:
		return "io_uring " + kind.String()
	}
}

// Unseen tells whether only the length is known of what the call brought.
func (e *Event) Unseen() bool { return e.Kind().Unseen() || e.Known&eventUnseen != 0 }

// StreamPlace is TCP's sequence number of the message's first byte, if it is known.
func (e *Event) StreamPlace() (seq uint32, ok bool) { return e.Seq, e.Known&eventSeq != 0 }

// Command is the name of the thread that caused a piece of news.
func (e *Event) Command() string { return unix.ByteSliceToString(e.Comm[:]) }

// Short tells whether the kernel said that the message was longer than its buffer
// (MSG_TRUNC of recvmsg).
func (e *Event) Short() bool { return e.MsgFlags&unix.MSG_TRUNC != 0 }

// HasControl tells whether the message has ancillary data, of which the event before it
// tells, of the same thread and cpu and with the same Control. If that is 0, the ring had no room
// for it.
func (e *Event) HasControl() bool { return e.Known&eventControl != 0 }

// RoomUnknown is the Room of a buffer whose size is not known, such as that of a request of
// io_uring in many parts.
const RoomUnknown = 0x7fffffff

// Local is the socket's own address: invalid if it is no internet socket, unspecified if it is
// bound to none.
func (e *Event) Local() netip.AddrPort { return e.address(e.EventHeader.Local, e.LocalPort) }

// Inode is the number of a unix stream's inode (st_ino of fstat), which no other socket has until
// there were 2^32 more; 0 for other sockets, and if the socket was closed before the call began.
func (e *Event) Inode() uint32 {
	if e.Family != unix.AF_UNIX || e.Type != unix.SOCK_STREAM {
		return 0
	}
	return binary.NativeEndian.Uint32(e.EventHeader.Local[:])
}

// Peer is the address that the socket is connected to; invalid if it is not connected.
func (e *Event) Peer() netip.AddrPort {
	if e.PeerPort == 0 {
		return netip.AddrPort{}
	}
	return e.address(e.EventHeader.Peer, e.PeerPort)
}

func (e *Event) address(bytes [16]byte, port uint16) netip.AddrPort {
	switch {
	case e.Family != unix.AF_INET && e.Family != unix.AF_INET6:
		return netip.AddrPort{}
	case e.Known&eventV6 != 0:
		return netip.AddrPortFrom(netip.AddrFrom16(bytes).Unmap(), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(bytes[:4])), port)
}

// Sender is the address that the call returned; invalid if it returned none.
func (e *Event) Sender() netip.AddrPort { return e.named() }

// Destination is the address that a call that sends was given; invalid if it was given none.
func (e *Event) Destination() netip.AddrPort { return e.named() }

func (e *Event) named() netip.AddrPort {
	name := e.Name[:e.NameLen]
	switch {
	case len(name) >= unix.SizeofSockaddrInet4 && family(name) == unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(name[4:8])), port(name))
	case len(name) >= unix.SizeofSockaddrInet6 && family(name) == unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(name[8:24])).Unmap(), port(name))
	}
	return netip.AddrPort{}
}

func family(name []byte) uint16 { return *(*uint16)(unsafe.Pointer(&name[0])) }
func port(name []byte) uint16   { return uint16(name[2])<<8 | uint16(name[3]) }
