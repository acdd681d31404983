package bpf

import "golang.org/x/sys/unix"

// Where struct pt_regs of the kernel has the number and the arguments of a
// system call, in bytes. The register of the first argument keeps it to the
// end of the call.
const (
	registerNumber = 120 // orig_ax
	registersSize  = 168
)

var registerArguments = [6]uint32{112, 104, 96, 56, 72, 64} // di, si, dx, r10, r8, r9

// oldCalls are the calls that newer architectures have only as clone.
var oldCalls = map[string]int32{
	readsVarNrFork:  unix.SYS_FORK,
	readsVarNrVfork: unix.SYS_VFORK,
	readsVarNrDup2:  unix.SYS_DUP2,
	readsVarNrOpen:  unix.SYS_OPEN,
}
