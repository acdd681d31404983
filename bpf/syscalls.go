package bpf

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Call is what an Event is about: a system call, or news of a socket.
type Call uint32

// The calls, as in enum call in calls.h.
const (
	// These receive data, and are named after the system call.
	CallRead Call = iota + 1
	CallReadv
	CallPreadv2
	CallRecvfrom
	CallRecvmsg
	CallRecvmmsg
	// CallSplice and CallZerocopy (getsockopt TCP_ZEROCOPY_RECEIVE) receive as well, but only
	// the length of the data is known.
	CallSplice
	CallZerocopy
	// These are news of a socket.
	CallSocket
	CallAccept
	CallBind
	CallListen
	// CallFound: a socket of which there was no news yet is about to be read.
	CallFound
	// CallIOUring: the process has set up an io_uring.
	CallIOUring
	// CallControl is not a call: it tells of the ancillary data of the message whose event
	// comes next; see Event.HasControl.
	CallControl
	// These send data.
	CallWrite
	CallWritev
	CallPwritev2
	CallSendto
	CallSendmsg
	CallSendmmsg
	// CallSendfile and CallSpliceTo send as well, but only the length of the data is known.
	CallSendfile
	CallSpliceTo
)

// Receives tells whether the call receives data.
func (c Call) Receives() bool { return c >= CallRead && c <= CallZerocopy }

// Sends tells whether the call sends data.
func (c Call) Sends() bool { return c >= CallWrite && c <= CallSpliceTo }

// Unseen tells whether the call moves data of which only the length is known.
func (c Call) Unseen() bool {
	return c == CallSplice || c == CallZerocopy || c == CallSendfile || c == CallSpliceTo
}

// syscall is a system call that is followed.
type syscall struct {
	call Call
	name string
	// optional: the call does not exist in every kernel, or on every architecture.
	optional bool
}

// syscalls is the table of those that receive or tell of sockets, from which names, tracepoints and the programs' table of
// numbers are made.
var syscalls = []syscall{
	{call: CallRead, name: "read"},
	{call: CallReadv, name: "readv"},
	{call: CallPreadv2, name: "preadv2"},
	{call: CallRecvfrom, name: "recvfrom"},
	{call: CallRecvmsg, name: "recvmsg"},
	{call: CallRecvmmsg, name: "recvmmsg"},
	{call: CallSplice, name: "splice"},
	{call: CallZerocopy, name: "getsockopt"},
	{call: CallSocket, name: "socket"},
	{call: CallAccept, name: "accept"},
	{call: CallAccept, name: "accept4"},
	{call: CallBind, name: "bind"},
	{call: CallListen, name: "listen"},
	{call: CallIOUring, name: "io_uring_setup", optional: true},
}

// String is the system call's name.
func (c Call) String() string {
	switch c {
	case CallFound:
		return "found"
	case CallControl:
		return "control"
	}
	for _, table := range [][]syscall{syscalls, sendingCalls} {
		for _, s := range table {
			if s.call == c {
				return s.name
			}
		}
	}
	return fmt.Sprintf("call %d", uint32(c))
}

// numbers are those of the system calls on this architecture.
var numbers = map[string]int{
	"read": unix.SYS_READ, "readv": unix.SYS_READV, "preadv2": unix.SYS_PREADV2, "recvfrom": unix.SYS_RECVFROM,
	"recvmsg": unix.SYS_RECVMSG, "recvmmsg": unix.SYS_RECVMMSG, "splice": unix.SYS_SPLICE,
	"getsockopt": unix.SYS_GETSOCKOPT, "socket": unix.SYS_SOCKET, "accept": unix.SYS_ACCEPT, "accept4": unix.SYS_ACCEPT4,
	"bind": unix.SYS_BIND, "listen": unix.SYS_LISTEN, "io_uring_setup": unix.SYS_IO_URING_SETUP,
	"write": unix.SYS_WRITE, "writev": unix.SYS_WRITEV, "pwritev2": unix.SYS_PWRITEV2, "sendto": unix.SYS_SENDTO,
	"sendmsg": unix.SYS_SENDMSG, "sendmmsg": unix.SYS_SENDMMSG, "sendfile": unix.SYS_SENDFILE,
}
