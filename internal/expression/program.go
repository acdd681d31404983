// Package expression compiles capture filters in the language of pcap-filter(7) for packets that begin
// with an IP header (LINKTYPE_RAW).
//
// The language is that of libpcap, without what is about link headers: its meaning, down to what is said
// of fragments and extension headers, is the same, and tests hold both against each other.
package expression

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// Program is a compiled expression: classic BPF that returns 0 for a packet that is not wanted. Offset
// 0 is the IP header.
type Program []unix.SockFilter

// node is a condition.
type node interface{}

type (
	always  bool
	negated struct{ not node }
	all     struct{ first, second node }
	any2    struct{ first, second node }
	// compare loads something into A, and compares it with a number or with X.
	compare struct {
		load  []unix.SockFilter
		jump  uint16 // unix.BPF_JEQ, ...
		withX bool
		value uint32
	}
)

func and(first, second node) node {
	switch {
	case first == always(true):
		return second
	case second == always(true):
		return first
	}
	return all{first, second}
}

func or(first, second node) node {
	switch {
	case first == nil, first == always(false):
		return second
	case second == nil, second == always(false):
		return first
	}
	return any2{first, second}
}

func not(n node) node { return negated{n} }

const (
	loadWord = unix.BPF_LD | unix.BPF_ABS | unix.BPF_W
	loadHalf = unix.BPF_LD | unix.BPF_ABS | unix.BPF_H
	loadByte = unix.BPF_LD | unix.BPF_ABS | unix.BPF_B
	// behind makes of a load one from behind the IPv4 header, whose length is in X.
	behind = unix.BPF_ABS ^ unix.BPF_IND
)

// headerLength loads the length of the IPv4 header into X.
var headerLength = unix.SockFilter{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH}

// is compares a field of the packet.
func is(load uint16, offset, value uint32) node {
	return compare{load: []unix.SockFilter{{Code: load, K: offset}}, jump: unix.BPF_JEQ, value: value}
}

// masked compares some bits of a field.
func masked(load uint16, offset, mask, value uint32) node {
	switch mask {
	case 0:
		return always(true)
	case 0xffffffff:
		return is(load, offset, value)
	}
	return compare{
		load: []unix.SockFilter{{Code: load, K: offset}, {Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: mask}},
		jump: unix.BPF_JEQ, value: value,
	}
}

var (
	isIPv4 = masked(loadByte, 0, 0xf0, 0x40)
	isIPv6 = masked(loadByte, 0, 0xf0, 0x60)
	// isLater says that it is a fragment, and not the first one.
	isLater = compare{load: []unix.SockFilter{{Code: loadHalf, K: 6}}, jump: unix.BPF_JSET, value: 0x1fff}
)

// branch is a jump to two labels, or an instruction.
type branch struct {
	ins     unix.SockFilter
	jumps   bool
	yes, no int
}

// emitter lays conditions out. A label is an index into labels, which have numbers of instructions.
type emitter struct {
	code   []branch
	labels []int
}

func (e *emitter) label() int {
	e.labels = append(e.labels, -1)
	return len(e.labels) - 1
}

func (e *emitter) place(label int) { e.labels[label] = len(e.code) }

// condition jumps to yes or to no.
func (e *emitter) condition(n node, yes, no int) {
	switch n := n.(type) {
	case always:
		to := no
		if n {
			to = yes
		}
		e.code = append(e.code, branch{ins: unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K}, jumps: true, yes: to, no: to})
	case negated:
		e.condition(n.not, no, yes)
	case all:
		second := e.label()
		e.condition(n.first, second, no)
		e.place(second)
		e.condition(n.second, yes, no)
	case any2:
		second := e.label()
		e.condition(n.first, yes, second)
		e.place(second)
		e.condition(n.second, yes, no)
	case compare:
		for _, ins := range n.load {
			e.code = append(e.code, branch{ins: ins})
		}
		ins := unix.SockFilter{Code: unix.BPF_JMP | n.jump | unix.BPF_K, K: n.value}
		if n.withX {
			ins = unix.SockFilter{Code: unix.BPF_JMP | n.jump | unix.BPF_X}
		}
		e.code = append(e.code, branch{ins: ins, jumps: true, yes: yes, no: no})
	}
}

// everything is what a filter returns for a packet that is wanted.
const everything = 262144

var errLong = errors.New("the expression is too long: a filter in the kernel has at most 4096 instructions")

// compile makes a program of a condition.
func compile(n node) (Program, error) {
	var e emitter
	yes, no := e.label(), e.label()
	e.condition(n, yes, no)
	e.place(yes)
	e.code = append(e.code, branch{ins: unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: everything}})
	e.place(no)
	e.code = append(e.code, branch{ins: unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}})
	return e.assemble()
}

// assemble turns labels into distances. One that does not fit into 8 bits goes by a jump of its own
// behind the branch.
func (e *emitter) assemble() (Program, error) {
	type far struct{ yes, no bool }
	fars := make([]far, len(e.code))
	at := make([]int, len(e.code)+1)
	for again := true; again; {
		again = false
		for i := range e.code {
			at[i+1] = at[i] + 1
			if fars[i].yes {
				at[i+1]++
			}
			if fars[i].no {
				at[i+1]++
			}
		}
		for i, b := range e.code {
			if !b.jumps {
				continue
			}
			reach := at[i] + 1 + 255
			if !fars[i].yes && at[e.labels[b.yes]] > reach {
				fars[i].yes, again = true, true
			}
			if !fars[i].no && at[e.labels[b.no]] > reach {
				fars[i].no, again = true, true
			}
		}
	}
	if at[len(e.code)] > unix.BPF_MAXINSNS {
		return nil, errLong
	}
	var out Program
	for i, b := range e.code {
		if !b.jumps {
			out = append(out, b.ins)
			continue
		}
		next, yes, no := at[i]+1, at[e.labels[b.yes]], at[e.labels[b.no]]
		ins, after := b.ins, Program(nil)
		jump := func(to int) uint8 {
			after = append(after, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(to - (next + len(after) + 1))})
			return uint8(len(after) - 1)
		}
		if ins.Jt = uint8(yes - next); fars[i].yes {
			ins.Jt = jump(yes)
		}
		if ins.Jf = uint8(no - next); fars[i].no {
			ins.Jf = jump(no)
		}
		out = append(append(out, ins), after...)
	}
	return out, nil
}

// Wants runs the program on what is known of a packet, which has length bytes.
func (p Program) Wants(packet []byte, length int) bool {
	var a, x uint32
	var memory [16]uint32
	for at := 0; at < len(p); at++ {
		ins := p[at]
		operand := ins.K
		if ins.Code&unix.BPF_X != 0 {
			operand = x
		}
		ok := true
		switch ins.Code & 7 {
		case unix.BPF_LD:
			a, ok = load(ins, x, &memory, packet, length)
		case unix.BPF_LDX:
			x, ok = load(ins, x, &memory, packet, length)
		case unix.BPF_ST:
			memory[ins.K&15] = a
		case unix.BPF_STX:
			memory[ins.K&15] = x
		case unix.BPF_ALU:
			a, ok = calculate(ins.Code, a, operand)
		case unix.BPF_JMP:
			at += distance(ins, a, operand)
		case unix.BPF_RET:
			return ins.K != 0
		case unix.BPF_MISC:
			if ins.Code == unix.BPF_MISC|unix.BPF_TAX {
				x = a
			} else {
				a = x
			}
		}
		if !ok {
			return false
		}
	}
	return false
}

// load is false outside of the packet.
func load(ins unix.SockFilter, x uint32, memory *[16]uint32, packet []byte, length int) (uint32, bool) {
	from := uint64(ins.K)
	switch ins.Code & 0xe0 {
	case unix.BPF_IMM:
		return ins.K, true
	case unix.BPF_MEM:
		return memory[ins.K&15], true
	case unix.BPF_LEN:
		return uint32(length), true
	case unix.BPF_MSH:
		if from >= uint64(len(packet)) {
			return 0, false
		}
		return uint32(packet[from]&15) * 4, true
	case unix.BPF_IND:
		from += uint64(x)
	}
	size := uint64(4)
	switch ins.Code & 0x18 {
	case unix.BPF_H:
		size = 2
	case unix.BPF_B:
		size = 1
	}
	if from+size > uint64(len(packet)) {
		return 0, false
	}
	switch bytes := packet[from:]; size {
	case 4:
		return binary.BigEndian.Uint32(bytes), true
	case 2:
		return uint32(binary.BigEndian.Uint16(bytes)), true
	default:
		return uint32(bytes[0]), true
	}
}

// calculate is false if it divides by zero.
func calculate(code uint16, a, operand uint32) (uint32, bool) {
	switch code & 0xf0 {
	case unix.BPF_ADD:
		return a + operand, true
	case unix.BPF_SUB:
		return a - operand, true
	case unix.BPF_MUL:
		return a * operand, true
	case unix.BPF_OR:
		return a | operand, true
	case unix.BPF_AND:
		return a & operand, true
	case unix.BPF_XOR:
		return a ^ operand, true
	case unix.BPF_LSH:
		return a << (operand & 31), true
	case unix.BPF_RSH:
		return a >> (operand & 31), true
	case unix.BPF_NEG:
		return -a, true
	}
	if operand == 0 {
		return 0, false
	}
	if code&0xf0 == unix.BPF_MOD {
		return a % operand, true
	}
	return a / operand, true
}

// distance is how far a jump goes.
func distance(ins unix.SockFilter, a, operand uint32) int {
	var yes bool
	switch ins.Code & 0xf0 {
	case unix.BPF_JA:
		return int(ins.K)
	case unix.BPF_JEQ:
		yes = a == operand
	case unix.BPF_JGT:
		yes = a > operand
	case unix.BPF_JGE:
		yes = a >= operand
	case unix.BPF_JSET:
		yes = a&operand != 0
	}
	if yes {
		return int(ins.Jt)
	}
	return int(ins.Jf)
}
