package bpf

// Where struct pt_regs of the kernel has the number and the arguments of a
// system call, in bytes. The register of the first argument keeps it to the
// end of the call.
const (
	registerNumber = 120 // orig_ax
	registersSize  = 168
)

var registerArguments = [6]uint32{112, 104, 96, 56, 72, 64} // di, si, dx, r10, r8, r9
