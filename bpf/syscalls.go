package bpf

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Call is what an Event is about: a system call, or news of a socket.
type Call uint32

// The calls, as enum call in calls.h has them.
const (
	// These receive, and have the name of the system call.
	CallRead Call = iota + 1
	CallReadv
	CallPreadv2
	CallRecvfrom
	CallRecvmsg
	CallRecvmmsg
	// CallSplice and CallZerocopy (TCP_ZEROCOPY_RECEIVE of getsockopt) receive, too, but
	// only the length of what they brought is known.
	CallSplice
	CallZerocopy
	// These are news of a socket.
	CallSocket
	CallAccept
	CallBind
	CallListen
	// CallFound: a socket that nobody has heard of is about to be read.
	CallFound
	// CallIOUring: there are requests of io_uring from now on.
	CallIOUring
)

// Receives tells whether the call brings a process data.
func (c Call) Receives() bool { return c >= CallRead && c <= CallZerocopy }

// Unseen tells whether the call brings data of which only the length is known.
func (c Call) Unseen() bool { return c == CallSplice || c == CallZerocopy }

// syscall is a system call that matters.
type syscall struct {
	call Call
	name string
	// optional calls are not in every kernel, or on every architecture.
	optional bool
}

// syscalls are all of them: names, tracepoints and the programs' table of numbers
// come from here.
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
	if c == CallFound {
		return "found"
	}
	for _, s := range syscalls {
		if s.call == c {
			return s.name
		}
	}
	return fmt.Sprintf("call %d", uint32(c))
}

// numbers are those of the calls on this architecture, where it has them.
var numbers = map[string]int{
	"read": unix.SYS_READ, "readv": unix.SYS_READV, "preadv2": unix.SYS_PREADV2, "recvfrom": unix.SYS_RECVFROM,
	"recvmsg": unix.SYS_RECVMSG, "recvmmsg": unix.SYS_RECVMMSG, "splice": unix.SYS_SPLICE,
	"getsockopt": unix.SYS_GETSOCKOPT, "socket": unix.SYS_SOCKET, "accept": unix.SYS_ACCEPT, "accept4": unix.SYS_ACCEPT4,
	"bind": unix.SYS_BIND, "listen": unix.SYS_LISTEN, "io_uring_setup": unix.SYS_IO_URING_SETUP,
}
