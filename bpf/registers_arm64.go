package bpf

// Where struct pt_regs of the kernel has the number and the arguments of a
// system call, in bytes. The result replaces the first argument in x0, so that
// comes from orig_x0.
const (
	registerNumber = 280 // syscallno
	registersSize  = 288
)

var registerArguments = [6]uint32{272, 8, 16, 24, 32, 40} // orig_x0, x1 to x5
