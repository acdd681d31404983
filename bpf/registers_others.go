//go:build !amd64 && !arm64 && !riscv64

package bpf

func registers() (number, size uint32, arguments [6]uint32, ok bool) { return }

func functionRegisters() (parameter, result uint32) { return }
