//go:build !amd64 && !arm64 && !riscv64

package bpf

func registers() (number, size uint32, arguments [6]uint32, calls map[string]int32, ok bool) { return }
