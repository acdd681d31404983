//go:build amd64 || arm64 || riscv64

package bpf

// registers are the offsets of a system call's number and arguments in struct pt_regs.
func registers() (number, size uint32, arguments [6]uint32, ok bool) {
	return registerNumber, registersSize, registerArguments, true
}

// functionRegisters are the offsets there of a function's first argument, and of its result.
func functionRegisters() (parameter, result uint32) { return registerParameter, registerResult }
