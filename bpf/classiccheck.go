package bpf

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// classicCodes are the codes that SO_ATTACH_FILTER accepts. Linux compares whole codes, so
// bits that an instruction does not use must be 0.
var classicCodes = func() map[uint16]bool {
	known := map[uint16]bool{
		unix.BPF_ALU | unix.BPF_NEG:              true,
		unix.BPF_LD | unix.BPF_W | unix.BPF_LEN:  true,
		unix.BPF_LD | unix.BPF_IMM:               true,
		unix.BPF_LD | unix.BPF_MEM:               true,
		unix.BPF_LDX | unix.BPF_W | unix.BPF_LEN: true,
		unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH: true,
		unix.BPF_LDX | unix.BPF_IMM:              true,
		unix.BPF_LDX | unix.BPF_MEM:              true,
		unix.BPF_ST:                              true,
		unix.BPF_STX:                             true,
		unix.BPF_MISC | unix.BPF_TAX:             true,
		unix.BPF_MISC | unix.BPF_TXA:             true,
		unix.BPF_RET | unix.BPF_K:                true,
		unix.BPF_RET | unix.BPF_A:                true,
		unix.BPF_JMP | unix.BPF_JA:               true,
	}
	for op := range aluOps {
		known[unix.BPF_ALU|op|unix.BPF_K], known[unix.BPF_ALU|op|unix.BPF_X] = true, true
	}
	for op := range jumpOps {
		known[unix.BPF_JMP|op|unix.BPF_K], known[unix.BPF_JMP|op|unix.BPF_X] = true, true
	}
	for _, size := range []uint16{unix.BPF_W, unix.BPF_H, unix.BPF_B} {
		known[unix.BPF_LD|size|unix.BPF_ABS], known[unix.BPF_LD|size|unix.BPF_IND] = true, true
	}
	return known
}()

// checkClassic accepts a program if SO_ATTACH_FILTER does, including its unreachable code: a
// translation must not run what the kernel would refuse. It does not check whether the
// socket's memory would suffice (net.core.optmem_max).
func checkClassic(program []classic) error {
	if len(program) == 0 || len(program) > unix.BPF_MAXINSNS {
		return fmt.Errorf("%d instructions: a classic filter has from 1 to %d", len(program), unix.BPF_MAXINSNS)
	}
	for at, ins := range program {
		if err := checkInstruction(ins, at, len(program)); err != nil {
			return inInstruction(program, at, err)
		}
	}
	last := len(program) - 1
	if code := program[last].Code; code != unix.BPF_RET|unix.BPF_K && code != unix.BPF_RET|unix.BPF_A {
		return inInstruction(program, last, errors.New("it is the last one and does not return (ret)"))
	}
	return checkMemory(program)
}

// inInstruction says which instruction an error is about.
func inInstruction(program []classic, at int, err error) error {
	ins := program[at]
	return fmt.Errorf("instruction %d (%#x %d %d %#x): %w", at, ins.Code, ins.Jt, ins.Jf, ins.K, err)
}

// checkInstruction checks an instruction by itself.
func checkInstruction(ins classic, at, count int) error {
	if !classicCodes[ins.Code] {
		return errUnknown
	}
	switch ins.Code {
	case unix.BPF_ALU | unix.BPF_DIV | unix.BPF_K, unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K:
		if ins.K == 0 {
			return errors.New("divides by zero")
		}
	case unix.BPF_ALU | unix.BPF_LSH | unix.BPF_K, unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K:
		if ins.K >= 32 {
			return fmt.Errorf("shifts by %d bits, of 32", ins.K)
		}
	case unix.BPF_LD | unix.BPF_MEM, unix.BPF_LDX | unix.BPF_MEM, unix.BPF_ST, unix.BPF_STX:
		if ins.K >= memoryWords {
			return fmt.Errorf("uses M[%d], and the last one is M[%d]", ins.K, memoryWords-1)
		}
	case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, unix.BPF_LD | unix.BPF_B | unix.BPF_ABS:
		if _, known := extensionNames[ins.K-extensions]; ins.K >= extensions && !known {
			return fmt.Errorf("loads extension %d, and Linux has none of that number", ins.K-extensions)
		}
	}
	return checkJump(ins, at, count)
}

// checkJump checks that a jump goes forward, and not beyond the end.
func checkJump(ins classic, at, count int) error {
	if ins.Code&7 != unix.BPF_JMP {
		return nil
	}
	offsets := []uint32{uint32(ins.Jt), uint32(ins.Jf)}
	if ins.Code == unix.BPF_JMP|unix.BPF_JA {
		offsets = []uint32{ins.K}
	}
	for _, offset := range offsets {
		to := at + 1 + int(int32(offset)) // somebody who wants to jump backwards writes a negative number
		switch {
		case to >= count:
			return fmt.Errorf("jumps to instruction %d, and the last one is %d", to, count-1)
		case to < 0:
			return errors.New("jumps backwards, to before the first instruction: classic filters only jump forward")
		case to <= at:
			return fmt.Errorf("jumps backwards, to instruction %d: classic filters only jump forward", to)
		}
	}
	return nil
}

// checkMemory refuses loads from M[] that can be reached without a store before. Unreachable
// code counts as reached from the instruction before it, as in Linux.
func checkMemory(program []classic) error {
	const all = 1<<memoryWords - 1
	// The words that are written on every path that reaches an instruction by a jump.
	entering := make([]uint16, len(program))
	for i := range entering {
		entering[i] = all
	}
	written := uint16(0)
	for at, ins := range program {
		written &= entering[at]
		switch ins.Code {
		case unix.BPF_ST, unix.BPF_STX:
			written |= 1 << ins.K
		case unix.BPF_LD | unix.BPF_MEM, unix.BPF_LDX | unix.BPF_MEM:
			if written&(1<<ins.K) == 0 {
				return inInstruction(program, at, fmt.Errorf("reads M[%d], which nothing has written on some way to it", ins.K))
			}
		}
		if ins.Code&7 != unix.BPF_JMP {
			continue
		}
		if ins.Code == unix.BPF_JMP|unix.BPF_JA {
			entering[at+1+int(ins.K)] &= written
		} else {
			entering[at+1+int(ins.Jt)] &= written
			entering[at+1+int(ins.Jf)] &= written
		}
		written = all // the next instruction is only reached by jumps
	}
	return nil
}
