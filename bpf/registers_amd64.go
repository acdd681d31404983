package bpf

// Offsets in the kernel's struct pt_regs of a system call's number and arguments, in
// bytes. The first argument stays in its register until the end of the call.
const (
	registerNumber = 120 // orig_ax
	registersSize  = 168
)

var registerArguments = [6]uint32{112, 104, 96, 56, 72, 64} // di, si, dx, r10, r8, r9

// Offsets there of a function's first argument, and of its result.
const (
	registerParameter = 112 // di
	registerResult    = 80  // ax
)
