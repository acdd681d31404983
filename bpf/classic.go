package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// classic is an instruction of classic BPF: struct sock_filter of linux/filter.h.
type classic = unix.SockFilter

// The registers of a translated program: the kernel wants the packet in R6 for
// absolute loads, which leave their result in R0 and nothing in R1 to R5.
const (
	regA       = asm.R0
	regPacket  = asm.R6
	regX       = asm.R7
	regScratch = asm.R8
)

const (
	memoryWords = 16
	// extensions begins the offsets at which Linux has more than the packet (SKF_AD_OFF).
	extensions = 0xfffff000
)

// translation makes eBPF of classic BPF, much as the kernel itself does it
// for SO_ATTACH_FILTER.
type translation struct {
	out     asm.Instructions
	reached []bool // instructions that a jump or the one before leads to
	at      int    // of the instruction in work
}

// translate makes a function of a classic filter. It refuses what Linux would
// refuse.
func translate(program []classic) (asm.Instructions, error) {
	if len(program) == 0 || len(program) > unix.BPF_MAXINSNS {
		return nil, fmt.Errorf("%d instructions: a classic filter has from 1 to %d", len(program), unix.BPF_MAXINSNS)
	}
	t := &translation{reached: make([]bool, len(program))}
	t.reached[0] = true
	t.emit(asm.Mov.Reg(regPacket, asm.R1), asm.Mov.Imm(regA, 0), asm.Mov.Imm(regX, 0))
	for _, word := range memoryRead(program) {
		t.emit(asm.StoreImm(asm.R10, memory(word), 0, asm.Word))
	}
	for i, ins := range program {
		t.at = i
		if !t.reached[i] {
			continue // verifiers refuse what nothing leads to
		}
		first := len(t.out)
		if err := t.instruction(ins); err != nil {
			return nil, fmt.Errorf("instruction %d (%#x %d %d %#x): %w", i, ins.Code, ins.Jt, ins.Jf, ins.K, err)
		}
		t.out[first] = t.out[first].WithSymbol(label(i))
	}
	return t.out, nil
}

func label(i int) string { return "insn" + strconv.Itoa(i) }

// memory is where on the stack a word of M[] is.
func memory(word uint32) int16 { return -4 * int16(word+1) }

// memoryRead lists the words of M[] that are read: those must have a value.
func memoryRead(program []classic) []uint32 {
	var words []uint32
	var seen [memoryWords]bool
	for _, ins := range program {
		isLoad := ins.Code&7 == unix.BPF_LD || ins.Code&7 == unix.BPF_LDX
		if isLoad && ins.Code&0xe0 == unix.BPF_MEM && ins.K < memoryWords && !seen[ins.K] {
			seen[ins.K] = true
			words = append(words, ins.K)
		}
	}
	return words
}

func (t *translation) emit(ins ...asm.Instruction) { t.out = append(t.out, ins...) }

// next notes that the instruction so many places behind can be reached.
func (t *translation) next(offset uint32) (string, error) {
	to := uint64(t.at) + 1 + uint64(offset)
	if to >= uint64(len(t.reached)) {
		return "", fmt.Errorf("leads to instruction %d, and there are %d", to, len(t.reached))
	}
	t.reached[to] = true
	return label(int(to)), nil
}

// errUnknown is what is wrong with a code that Linux does not know.
var errUnknown = errors.New("there is no such instruction")

func (t *translation) instruction(ins classic) error {
	if ins.Code > 0xff {
		return errUnknown
	}
	switch ins.Code & 7 {
	case unix.BPF_JMP:
		return t.jump(ins)
	case unix.BPF_RET:
		return t.ret(ins)
	}
	var err error
	switch ins.Code & 7 {
	case unix.BPF_LD:
		err = t.load(ins)
	case unix.BPF_LDX:
		err = t.loadX(ins)
	case unix.BPF_ST, unix.BPF_STX:
		err = t.store(ins)
	case unix.BPF_ALU:
		err = t.alu(ins)
	case unix.BPF_MISC:
		err = t.misc(ins)
	}
	if err != nil {
		return err
	}
	_, err = t.next(0)
	return err
}

func (t *translation) ret(ins classic) error {
	switch ins.Code {
	case unix.BPF_RET | unix.BPF_K:
		t.emit(asm.Mov.Imm32(regA, int32(ins.K)))
	case unix.BPF_RET | unix.BPF_A:
	default:
		return errUnknown
	}
	t.emit(asm.Return())
	return nil
}

// A load that leaves the packet ends a classic filter with 0. An absolute load
// of eBPF does the same.
func (t *translation) load(ins classic) error {
	var size asm.Size
	switch ins.Code & 0x18 {
	case unix.BPF_W:
		size = asm.Word
	case unix.BPF_H:
		size = asm.Half
	case unix.BPF_B:
		size = asm.Byte
	default:
		return errUnknown
	}
	mode := ins.Code & 0xe0
	if size != asm.Word && mode != unix.BPF_ABS && mode != unix.BPF_IND {
		return errUnknown
	}
	switch mode {
	case unix.BPF_IMM:
		t.emit(asm.Mov.Imm32(regA, int32(ins.K)))
	case unix.BPF_LEN:
		t.emit(asm.LoadMem(regA, regPacket, int16(fieldLen), asm.Word))
	case unix.BPF_MEM:
		return t.access(ins.K, asm.LoadMem(regA, asm.R10, memory(ins.K), asm.Word))
	case unix.BPF_IND:
		t.emit(asm.LoadInd(regA, regX, int32(ins.K), size))
	case unix.BPF_ABS:
		if ins.K >= extensions {
			return t.extension(ins.K - extensions)
		}
		t.emit(asm.LoadAbs(int32(ins.K), size))
	default:
		return errUnknown
	}
	return nil
}

// access is a load or a store of M[].
func (t *translation) access(word uint32, ins asm.Instruction) error {
	if word >= memoryWords {
		return fmt.Errorf("memory word %d, and there are %d", word, memoryWords)
	}
	t.emit(ins)
	return nil
}

// Offsets of fields of struct __sk_buff, which is part of the kernel's interface.
const (
	fieldLen         = 0
	fieldPacketType  = 4
	fieldMark        = 8
	fieldQueue       = 12
	fieldProtocol    = 16
	fieldVLANPresent = 20
	fieldVLANTag     = 24
	fieldVLANProto   = 28
	fieldIfindex     = 40
	fieldHash        = 68
)

// extension is a load of what Linux knows of a packet besides its bytes
// (SKF_AD_* of linux/filter.h).
func (t *translation) extension(number uint32) error {
	field := func(offset int16) { t.emit(asm.LoadMem(regA, regPacket, offset, asm.Word)) }
	networkOrder := func() {
		if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
			t.emit(asm.HostTo(asm.BE, regA, asm.Half))
		}
	}
	switch number {
	case 0: // SKF_AD_PROTOCOL
		field(fieldProtocol)
		networkOrder()
	case 4: // SKF_AD_PKTTYPE
		field(fieldPacketType)
	case 8: // SKF_AD_IFINDEX
		field(fieldIfindex)
	case 20: // SKF_AD_MARK
		field(fieldMark)
	case 24: // SKF_AD_QUEUE
		field(fieldQueue)
	case 32: // SKF_AD_RXHASH
		field(fieldHash)
	case 36: // SKF_AD_CPU
		t.emit(asm.FnGetSmpProcessorId.Call())
	case 40: // SKF_AD_ALU_XOR_X
		t.emit(asm.Xor.Reg32(regA, regX))
	case 44: // SKF_AD_VLAN_TAG
		field(fieldVLANTag)
	case 48: // SKF_AD_VLAN_TAG_PRESENT
		field(fieldVLANPresent)
	case 56: // SKF_AD_RANDOM
		t.emit(asm.FnGetPrandomU32.Call())
	case 60: // SKF_AD_VLAN_TPID
		field(fieldVLANProto)
		networkOrder()
	default:
		return fmt.Errorf("extension %d of classic BPF has no counterpart in eBPF", number)
	}
	return nil
}

func (t *translation) loadX(ins classic) error {
	switch ins.Code {
	case unix.BPF_LDX | unix.BPF_W | unix.BPF_IMM:
		t.emit(asm.Mov.Imm32(regX, int32(ins.K)))
	case unix.BPF_LDX | unix.BPF_W | unix.BPF_LEN:
		t.emit(asm.LoadMem(regX, regPacket, int16(fieldLen), asm.Word))
	case unix.BPF_LDX | unix.BPF_W | unix.BPF_MEM:
		return t.access(ins.K, asm.LoadMem(regX, asm.R10, memory(ins.K), asm.Word))
	case unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH:
		// 4 * (P[k] & 15), the length of an IPv4 header.
		t.emit(
			asm.Mov.Reg(regScratch, regA),
			asm.LoadAbs(int32(ins.K), asm.Byte),
			asm.And.Imm32(regA, 15),
			asm.LSh.Imm32(regA, 2),
			asm.Mov.Reg(regX, regA),
			asm.Mov.Reg(regA, regScratch),
		)
	default:
		return errUnknown
	}
	return nil
}

func (t *translation) store(ins classic) error {
	switch ins.Code {
	case unix.BPF_ST:
		return t.access(ins.K, asm.StoreMem(asm.R10, memory(ins.K), regA, asm.Word))
	case unix.BPF_STX:
		return t.access(ins.K, asm.StoreMem(asm.R10, memory(ins.K), regX, asm.Word))
	}
	return errUnknown
}

func (t *translation) misc(ins classic) error {
	switch ins.Code {
	case unix.BPF_MISC | unix.BPF_TAX:
		t.emit(asm.Mov.Reg32(regX, regA))
	case unix.BPF_MISC | unix.BPF_TXA:
		t.emit(asm.Mov.Reg32(regA, regX))
	default:
		return errUnknown
	}
	return nil
}

var aluOps = map[uint16]asm.ALUOp{
	unix.BPF_ADD: asm.Add, unix.BPF_SUB: asm.Sub, unix.BPF_MUL: asm.Mul, unix.BPF_DIV: asm.Div, unix.BPF_MOD: asm.Mod,
	unix.BPF_OR: asm.Or, unix.BPF_AND: asm.And, unix.BPF_XOR: asm.Xor, unix.BPF_LSH: asm.LSh, unix.BPF_RSH: asm.RSh,
}

func (t *translation) alu(ins classic) error {
	if ins.Code == unix.BPF_ALU|unix.BPF_NEG {
		t.emit(asm.Neg.Imm32(regA, 0))
		return nil
	}
	op, known := aluOps[ins.Code&0xf0]
	if !known {
		return errUnknown
	}
	divides := op == asm.Div || op == asm.Mod
	if ins.Code&unix.BPF_X == 0 {
		switch {
		case divides && ins.K == 0:
			return errors.New("divides by zero")
		case (op == asm.LSh || op == asm.RSh) && ins.K >= 32:
			return fmt.Errorf("shifts by %d bits, of 32", ins.K)
		}
		t.emit(op.Imm32(regA, int32(ins.K)))
		return nil
	}
	if divides {
		// By zero, classic BPF ends with 0, and eBPF goes on.
		divide := label(t.at) + "divide"
		t.emit(
			asm.JNE.Imm32(regX, 0, divide),
			asm.Mov.Imm(regA, 0),
			asm.Return(),
			op.Reg32(regA, regX).WithSymbol(divide),
		)
		return nil
	}
	t.emit(op.Reg32(regA, regX))
	return nil
}

var jumpOps = map[uint16]asm.JumpOp{
	unix.BPF_JEQ: asm.JEq, unix.BPF_JGT: asm.JGT, unix.BPF_JGE: asm.JGE, unix.BPF_JSET: asm.JSet,
}

func (t *translation) jump(ins classic) error {
	if ins.Code == unix.BPF_JMP|unix.BPF_JA {
		to, err := t.next(ins.K)
		if err == nil {
			t.emit(asm.Ja.Label(to))
		}
		return err
	}
	op, known := jumpOps[ins.Code&0xf0]
	if !known {
		return errUnknown
	}
	yes, err := t.next(uint32(ins.Jt))
	if err != nil {
		return err
	}
	no, err := t.next(uint32(ins.Jf))
	if err != nil {
		return err
	}
	if ins.Code&unix.BPF_X != 0 {
		t.emit(op.Reg32(regA, regX, yes))
	} else {
		t.emit(op.Imm32(regA, int32(ins.K), yes))
	}
	if ins.Jf != 0 {
		t.emit(asm.Ja.Label(no))
	}
	return nil
}
