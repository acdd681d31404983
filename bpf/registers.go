//go:build amd64 || arm64 || riscv64

package bpf

// registers says where the system calls' numbers and arguments are.
func registers() (number, size uint32, arguments [6]uint32, ok bool) {
	return registerNumber, registersSize, registerArguments, true
}
