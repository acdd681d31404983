package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/skb"
)

// classic is an instruction of classic BPF: struct sock_filter of linux/filter.h.
type classic = unix.SockFilter

// The registers of a translated program. Absolute loads take the context from R6, leave their
// result in R0, and clobber R1 to R5.
const (
	regA       = asm.R0
	regPacket  = asm.R6
	regX       = asm.R7
	regScratch = asm.R8
)

const (
	memoryWords = 16
	// extensions is the offset at which Linux's extensions begin (SKF_AD_OFF).
	extensions = 0xfffff000
)

// translation translates classic BPF into eBPF, much as the kernel does for SO_ATTACH_FILTER.
type translation struct {
	out     asm.Instructions
	reached []bool          // instructions that are reachable
	at      int             // index of the current instruction
	packet  *packetFunction // of an expression; nil for a filter, which loads from offset 0 on
}

// translate translates a classic filter. It refuses what Linux would refuse, and what eBPF has
// no counterpart for.
func translate(program []classic) (asm.Instructions, error) {
	if err := checkClassic(program); err != nil {
		return nil, err
	}
	t := &translation{}
	if err := t.translate(program); err != nil {
		return nil, err
	}
	return t.out, nil
}

// translate appends the translation of a program that checkClassic accepts.
func (t *translation) translate(program []classic) error {
	t.reached = make([]bool, len(program))
	t.reached[0] = true
	t.emit(asm.Mov.Reg(regPacket, asm.R1), asm.Mov.Imm(regA, 0), asm.Mov.Imm(regX, 0))
	for _, word := range memoryRead(program) {
		t.emit(asm.StoreImm(asm.R10, memory(word), 0, asm.Word))
	}
	for i, ins := range program {
		t.at = i
		if !t.reached[i] {
			continue // verifiers refuse unreachable code
		}
		first := len(t.out)
		if err := t.instruction(ins); err != nil {
			return inInstruction(program, i, err)
		}
		t.out[first] = t.out[first].WithSymbol(insnLabel(i))
	}
	return nil
}

func insnLabel(i int) string { return "insn" + strconv.Itoa(i) }

// memory is the stack offset of a word of M[].
func memory(word uint32) int16 { return -4 * int16(word+1) }

// memoryRead lists the words of M[] that are read, which the verifier wants initialized.
func memoryRead(program []classic) []uint32 {
	var words []uint32
	for _, ins := range program {
		isRead := ins.Code == unix.BPF_LD|unix.BPF_MEM || ins.Code == unix.BPF_LDX|unix.BPF_MEM
		if isRead && !slices.Contains(words, ins.K) {
			words = append(words, ins.K)
		}
	}
	return words
}

func (t *translation) emit(ins ...asm.Instruction) { t.out = append(t.out, ins...) }

// field loads a field of struct __sk_buff.
func (t *translation) field(to asm.Register, name string) {
	t.emit(asm.LoadMem(to, regPacket, skb.Named(name).Offset, asm.Word))
}

// next notes that the instruction at an offset from the next one is reachable.
func (t *translation) next(offset uint32) (label string) {
	to := t.at + 1 + int(offset)
	t.reached[to] = true
	return insnLabel(to)
}

// errUnknown is the error for a code that Linux does not know.
var errUnknown = errors.New("there is no such instruction")

// instruction translates an instruction that checkClassic has accepted. It fails if eBPF has
// no counterpart.
func (t *translation) instruction(ins classic) (err error) {
	switch ins.Code & 7 {
	case unix.BPF_JMP:
		t.jump(ins)
		return nil
	case unix.BPF_RET:
		t.ret(ins)
		return nil
	case unix.BPF_LD:
		err = t.load(ins)
	case unix.BPF_LDX:
		t.loadX(ins)
	case unix.BPF_ST:
		t.emit(asm.StoreMem(asm.R10, memory(ins.K), regA, asm.Word))
	case unix.BPF_STX:
		t.emit(asm.StoreMem(asm.R10, memory(ins.K), regX, asm.Word))
	case unix.BPF_ALU:
		t.alu(ins)
	case unix.BPF_MISC:
		t.misc(ins)
	}
	t.next(0)
	return err
}

func (t *translation) ret(ins classic) {
	if ins.Code == unix.BPF_RET|unix.BPF_K {
		t.emit(asm.Mov.Imm32(regA, int32(ins.K)))
	}
	t.emit(asm.Return())
}

// load translates a load into A. Outside of the packet, a load ends a classic filter with 0, and
// an absolute load of eBPF does the same.
func (t *translation) load(ins classic) error {
	size := map[uint16]asm.Size{unix.BPF_W: asm.Word, unix.BPF_H: asm.Half, unix.BPF_B: asm.Byte}[ins.Code&0x18]
	switch ins.Code & 0xe0 {
	case unix.BPF_IMM:
		t.emit(asm.Mov.Imm32(regA, int32(ins.K)))
	case unix.BPF_LEN:
		t.length(regA)
	case unix.BPF_MEM:
		t.emit(asm.LoadMem(regA, asm.R10, memory(ins.K), asm.Word))
	case unix.BPF_IND:
		if t.packet != nil {
			t.packet.word(t, size, ins.K, true)
		} else {
			t.emit(asm.LoadInd(regA, regX, int32(ins.K), size))
		}
	case unix.BPF_ABS:
		if ins.K >= extensions {
			return t.extension(ins.K - extensions)
		}
		t.absolute(ins.K, size)
	}
	return nil
}

// absolute loads bytes of the packet into A.
func (t *translation) absolute(offset uint32, size asm.Size) {
	if t.packet != nil {
		t.packet.word(t, size, offset, false)
	} else {
		t.emit(asm.LoadAbs(int32(offset), size))
	}
}

// length loads the length of the packet.
func (t *translation) length(to asm.Register) {
	if t.packet != nil {
		t.packet.length(t, to)
	} else {
		t.field(to, "len")
	}
}

// extensionNames are the extensions that Linux knows (SKF_AD_* of linux/filter.h).
var extensionNames = map[uint32]string{
	0: "protocol", 4: "packet type", 8: "interface", 12: "netlink attribute", 16: "nested netlink attribute",
	20: "mark", 24: "queue", 28: "hardware type", 32: "hash", 36: "cpu", 40: "A xor X", 44: "VLAN tag",
	48: "VLAN tag present", 52: "payload offset", 56: "random number", 60: "VLAN protocol",
}

// extension translates a load of metadata (SKF_AD_* of linux/filter.h).
func (t *translation) extension(number uint32) error {
	field := func(name string) { t.field(regA, name) }
	networkOrder := func() {
		if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
			t.emit(asm.HostTo(asm.BE, regA, asm.Half))
		}
	}
	switch number {
	case 0: // SKF_AD_PROTOCOL
		field("protocol")
		networkOrder()
	case 4: // SKF_AD_PKTTYPE
		field("pkt_type")
	case 8: // SKF_AD_IFINDEX
		field("ifindex")
	case 20: // SKF_AD_MARK
		field("mark")
	case 24: // SKF_AD_QUEUE
		field("queue_mapping")
	case 32: // SKF_AD_RXHASH
		field("hash")
	case 36: // SKF_AD_CPU
		t.emit(asm.FnGetSmpProcessorId.Call())
	case 40: // SKF_AD_ALU_XOR_X
		t.emit(asm.Xor.Reg32(regA, regX))
	case 44: // SKF_AD_VLAN_TAG
		field("vlan_tci")
	case 48: // SKF_AD_VLAN_TAG_PRESENT
		field("vlan_present")
	case 56: // SKF_AD_RANDOM
		t.emit(asm.FnGetPrandomU32.Call())
	case 60: // SKF_AD_VLAN_TPID
		field("vlan_proto")
		networkOrder()
	default:
		return fmt.Errorf("loads extension %d (%s), which Linux takes on a socket and eBPF has no counterpart for: use a filter that does without",
			number, extensionNames[number])
	}
	return nil
}

func (t *translation) loadX(ins classic) {
	switch ins.Code & 0xe0 {
	case unix.BPF_IMM:
		t.emit(asm.Mov.Imm32(regX, int32(ins.K)))
	case unix.BPF_LEN:
		t.length(regX)
	case unix.BPF_MEM:
		t.emit(asm.LoadMem(regX, asm.R10, memory(ins.K), asm.Word))
	case unix.BPF_MSH:
		// 4 * (P[k] & 15), the length of an IPv4 header.
		t.emit(
			asm.Mov.Reg(regScratch, regA),
		)
		t.absolute(ins.K, asm.Byte)
		t.emit(
			asm.And.Imm32(regA, 15),
			asm.LSh.Imm32(regA, 2),
			asm.Mov.Reg(regX, regA),
			asm.Mov.Reg(regA, regScratch),
		)
	}
}

func (t *translation) misc(ins classic) {
	if ins.Code == unix.BPF_MISC|unix.BPF_TAX {
		t.emit(asm.Mov.Reg32(regX, regA))
	} else {
		t.emit(asm.Mov.Reg32(regA, regX))
	}
}

var aluOps = map[uint16]asm.ALUOp{
	unix.BPF_ADD: asm.Add, unix.BPF_SUB: asm.Sub, unix.BPF_MUL: asm.Mul, unix.BPF_DIV: asm.Div, unix.BPF_MOD: asm.Mod,
	unix.BPF_OR: asm.Or, unix.BPF_AND: asm.And, unix.BPF_XOR: asm.Xor, unix.BPF_LSH: asm.LSh, unix.BPF_RSH: asm.RSh,
}

func (t *translation) alu(ins classic) {
	if ins.Code == unix.BPF_ALU|unix.BPF_NEG {
		t.emit(asm.Neg.Imm32(regA, 0))
		return
	}
	op := aluOps[ins.Code&0xf0]
	switch {
	case ins.Code&unix.BPF_X == 0:
		t.emit(op.Imm32(regA, int32(ins.K)))
	case op == asm.Div || op == asm.Mod:
		// Division by zero ends a classic filter with 0, but not an eBPF program.
		divide := insnLabel(t.at) + "divide"
		t.emit(
			asm.JNE.Imm32(regX, 0, divide),
			asm.Mov.Imm(regA, 0),
			asm.Return(),
			op.Reg32(regA, regX).WithSymbol(divide),
		)
	default:
		t.emit(op.Reg32(regA, regX))
	}
}

var jumpOps = map[uint16]asm.JumpOp{
	unix.BPF_JEQ: asm.JEq, unix.BPF_JGT: asm.JGT, unix.BPF_JGE: asm.JGE, unix.BPF_JSET: asm.JSet,
}

func (t *translation) jump(ins classic) {
	if ins.Code == unix.BPF_JMP|unix.BPF_JA {
		t.emit(asm.Ja.Label(t.next(ins.K)))
		return
	}
	op, yes, no := jumpOps[ins.Code&0xf0], t.next(uint32(ins.Jt)), t.next(uint32(ins.Jf))
	if ins.Code&unix.BPF_X != 0 {
		t.emit(op.Reg32(regA, regX, yes))
	} else {
		t.emit(op.Imm32(regA, int32(ins.K), yes))
	}
	if ins.Jf != 0 {
		t.emit(asm.Ja.Label(no))
	}
}
