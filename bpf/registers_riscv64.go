package bpf

// Offsets in the kernel's struct pt_regs of a system call's number and arguments, in
// bytes. The result replaces the first argument in a0, so that
// comes from orig_a0.
const (
	registerNumber = 136 // a7
	registersSize  = 288
)

var registerArguments = [6]uint32{280, 88, 96, 104, 112, 120} // orig_a0, a1 to a5

// Offsets there of a function's first argument, and of its result.
const (
	registerParameter = 80 // a0
	registerResult    = 80 // a0
)
