package bpf

// Offsets in the kernel's struct pt_regs of a system call's number and arguments, in
// bytes. The result replaces the first argument in x0, so that
// comes from orig_x0.
const (
	registerNumber = 280 // syscallno
	registersSize  = 288
)

var registerArguments = [6]uint32{272, 8, 16, 24, 32, 40} // orig_x0, x1 to x5

// Offsets there of a function's first argument, and of its result.
const (
	registerParameter = 0 // x0
	registerResult    = 0 // x0
)
