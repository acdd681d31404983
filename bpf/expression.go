package bpf

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/expression"
)

// Expression is a capture filter in the language of pcap-filter(7), about packets from the IP header
// on. It chooses which packets are recorded: a socket gets all the same. Of a packet that is
// not IP nothing is recorded. A nil *Expression chooses everything.
type Expression struct {
	text    string
	program expression.Program
}

// ExpressionError is what is wrong with an expression, and where.
type ExpressionError = expression.Error

// ParseExpression compiles an expression, for which it may ask what addresses a host has. Wrong ones
// are an *ExpressionError.
func ParseExpression(text string) (*Expression, error) {
	program, err := expression.Compile(text, expression.System{})
	if err != nil {
		return nil, err
	}
	return &Expression{text, program}, nil
}

// String is the expression as it was written.
func (e *Expression) String() string {
	if e == nil {
		return ""
	}
	return e.text
}

// Wants tells whether a packet is chosen. packet is what is known of it, from the IP header on, and length
// how many bytes it has from there on.
func (e *Expression) Wants(packet []byte, length int) bool {
	return e == nil || len(packet) >= firstBytes && e.program.Wants(packet, length)
}

const (
	// wantsSymbol is the function in expression.h that an Expression replaces, and wordSymbol the one that
	// it calls.
	wantsSymbol = "wants"
	wordSymbol  = "packet_word"
	// firstBytes are there before the function is called, and mostFirst unless firstLess was added to the
	// place of offset 0, as in expression.h. Of an IPv6 packet the function itself loads what follows, up to
	// the ports behind the header.
	firstBytes  = 20
	mostFirst   = 24
	firstOfIPv6 = 44
	firstLess   = 1 << 20
)

// variables of the objects whose programs an expression can be put into.
const (
	selectiveVariable = "selective"
	notesVariable     = "notes_unwanted"
)

// splice puts the expression into programs of an object. notes says whether packets that are
// not wanted leave a note in the ring.
func (e *Expression) splice(spec *ebpf.CollectionSpec, notes bool) error {
	if e == nil {
		return nil
	}
	for _, variable := range []struct {
		name string
		set  bool
	}{{selectiveVariable, true}, {notesVariable, notes}} {
		if err := spec.Variables[variable.name].Set(flag(variable.set)); err != nil {
			return fmt.Errorf("setting up the expression: %w", err)
		}
	}
	for _, program := range spec.Programs {
		if _, _, err := function(program.Instructions, wantsSymbol); err != nil {
			continue // it sees no packets
		}
		if err := e.replace(program); err != nil {
			return fmt.Errorf("putting in the expression: %w", err)
		}
	}
	return nil
}

// replace puts the expression into a program.
func (e *Expression) replace(program *ebpf.ProgramSpec) error {
	own, calls, err := translateExpression(e.program, program.Type == ebpf.Tracing)
	if err != nil {
		return err
	}
	begin, end, err := function(program.Instructions, wantsSymbol)
	if err != nil {
		return err
	}
	for i, ins := range own {
		if symbol := ins.Symbol(); symbol != "" {
			own[i] = ins.WithSymbol(wantsSymbol + ":" + symbol)
		}
		if reference := ins.Reference(); reference != "" && reference != wordSymbol {
			own[i] = own[i].WithReference(wantsSymbol + ":" + reference)
		}
	}
	own[0] = btf.WithFuncMetadata(own[0].WithSymbol(wantsSymbol), btf.FuncMetadata(&program.Instructions[begin])).WithSource(asm.Comment("the expression"))
	program.Instructions = slices.Concat(program.Instructions[:begin], own, program.Instructions[end:])
	if calls {
		return nil
	}
	// Verifiers refuse functions that nobody calls.
	if begin, end, err = function(program.Instructions, wordSymbol); err == nil {
		program.Instructions = slices.Concat(program.Instructions[:begin], program.Instructions[end:])
	}
	return err
}

// Where the function keeps what it was called with, below the words of memory.
const (
	beforeStack = -4*memoryWords - 8
	firstStack  = beforeStack - (firstOfIPv6+7)&^7
	ipv6Stack   = firstStack - 8 // whether firstOfIPv6 are there
)

// translateExpression translates an expression into the function wants of expression.h. calls tells whether
// it calls packet_word; nullable says that the verifier takes its first argument for a pointer that may be none.
func translateExpression(program expression.Program, nullable bool) (own asm.Instructions, calls bool, err error) {
	t := &translation{packet: &packetFunction{}}
	t.emit(
		asm.StoreMem(asm.R10, beforeStack, asm.R2, asm.DWord),
		asm.StoreMem(asm.R10, firstStack, asm.R3, asm.DWord),
		asm.StoreMem(asm.R10, firstStack+8, asm.R4, asm.DWord),
		asm.StoreMem(asm.R10, firstStack+16, asm.R5, asm.DWord),
	)
	if nullable {
		t.emit(asm.JNE.Imm(asm.R1, 0, "given"), asm.Mov.Imm(regA, 0), asm.Return(), asm.Mov.Imm(regX, 0).WithSymbol("given"))
	} else {
		t.packet.prepare(t, program)
	}
	if err := t.translate(program); err != nil {
		return nil, false, err
	}
	return t.out, t.packet.calls > 0, nil
}

// packetFunction has a translation load the packet's bytes by a function, instead of from the program's
// offset 0 on.
type packetFunction struct {
	calls int
	ipv6  bool // bytes of IPv6 packets are loaded at once
}

// prepare loads bytes of an IPv6 packet at once if the program may load several of them.
func (f *packetFunction) prepare(t *translation, program []classic) {
	loads := 0
	for _, ins := range program {
		// A single byte is what fragments are asked about.
		if (ins.Code == unix.BPF_LD|unix.BPF_ABS|unix.BPF_W || ins.Code == unix.BPF_LD|unix.BPF_ABS|unix.BPF_H) && ins.K >= firstBytes && ins.K < firstOfIPv6 {
			loads++
		}
	}
	if f.ipv6 = loads > 1; !f.ipv6 {
		return
	}
	t.emit(
		asm.Mov.Reg(regPacket, asm.R1),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.R10, ipv6Stack, asm.R1, asm.DWord),
	)
	for at := mostFirst; at < firstOfIPv6; at += 8 {
		t.emit(asm.StoreMem(asm.R10, firstStack+int16(at), asm.R1, asm.DWord))
	}
	t.emit(
		asm.LoadMem(asm.R1, asm.R10, firstStack, asm.Byte),
		asm.RSh.Imm(asm.R1, 4),
		asm.JNE.Imm(asm.R1, 6, "prepared"),
		asm.JSGE.Imm(asm.R2, firstLess/2, "prepared"),
		asm.Mov.Reg(regA, asm.R2),
		asm.Mov.Reg(asm.R1, regPacket),
		asm.Mov.Imm(asm.R2, mostFirst),
		asm.Mov.Reg(asm.R3, asm.R10),
		asm.Add.Imm(asm.R3, firstStack+mostFirst),
		asm.Mov.Imm(asm.R4, firstOfIPv6-mostFirst),
		// As packet_word() has it.
		asm.JSGT.Imm(regA, 0, "relative"),
		asm.Sub.Reg(asm.R2, regA),
		asm.FnSkbLoadBytes.Call(),
		asm.Ja.Label("tried"),
		asm.Mov.Imm(asm.R5, 1).WithSymbol("relative"), // BPF_HDR_START_NET
		asm.FnSkbLoadBytesRelative.Call(),
		asm.JNE.Imm(regA, 0, "prepared").WithSymbol("tried"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreMem(asm.R10, ipv6Stack, asm.R1, asm.DWord),
		asm.Mov.Reg(asm.R1, regPacket).WithSymbol("prepared"),
	)
}

// word loads bytes of the packet into A. Outside of the packet the program returns 0.
func (f *packetFunction) word(t *translation, size asm.Size, offset uint32, indexed bool) {
	bytes := uint32(size.Sizeof())
	if !indexed && offset%bytes == 0 && offset+bytes <= firstBytes {
		f.first(t, size, offset)
		return
	}
	inside, elsewhere := fmt.Sprintf("inside%d", f.calls), fmt.Sprintf("elsewhere%d", f.calls)
	load := asm.Mov.Imm32(asm.R3, int32(offset))
	there := -1
	switch {
	case offset%bytes != 0:
	case indexed && firstBytes+offset+bytes <= mostFirst: // behind an IPv4 header without options
		t.emit(
			asm.JNE.Imm(regX, firstBytes, elsewhere),
			asm.LoadMem(asm.R3, asm.R10, beforeStack, asm.DWord),
			asm.JSGE.Imm(asm.R3, firstLess/2, elsewhere),
		)
		there = int(firstBytes + offset)
	case !indexed && f.ipv6 && offset >= firstBytes && offset+bytes <= firstOfIPv6:
		t.emit(asm.LoadMem(asm.R3, asm.R10, ipv6Stack, asm.DWord), asm.JEq.Imm(asm.R3, 0, elsewhere))
		there = int(offset)
	}
	if there >= 0 {
		f.first(t, size, uint32(there))
		t.emit(asm.Ja.Label(inside))
		load = load.WithSymbol(elsewhere)
	}
	t.emit(load)
	if indexed {
		t.emit(asm.Add.Reg(asm.R3, regX))
	}
	f.call(t, int32(bytes))
	t.emit(
		asm.JSGE.Imm(regA, 0, inside),
		asm.Mov.Imm(regA, 0),
		asm.Return(),
		asm.Mov.Reg32(regA, regA).WithSymbol(inside),
	)
}

// first loads some of the bytes that are there already.
func (f *packetFunction) first(t *translation, size asm.Size, offset uint32) {
	t.emit(asm.LoadMem(regA, asm.R10, firstStack+int16(offset), size))
	if size != asm.Byte && binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		t.emit(asm.HostTo(asm.BE, regA, size))
	}
}

// length loads the length of the packet.
func (f *packetFunction) length(t *translation, to asm.Register) {
	if to != regA {
		t.emit(asm.Mov.Reg(regScratch, regA))
	}
	t.emit(asm.Mov.Imm32(asm.R3, 0))
	f.call(t, 0)
	if to != regA {
		t.emit(asm.Mov.Reg32(to, regA), asm.Mov.Reg(regA, regScratch))
		return
	}
	t.emit(asm.Mov.Reg32(regA, regA))
}

// call calls packet_word with the offset that is in R3.
func (f *packetFunction) call(t *translation, size int32) {
	f.calls++
	t.emit(
		asm.Mov.Reg(asm.R1, regPacket),
		asm.LoadMem(asm.R2, asm.R10, beforeStack, asm.DWord),
		asm.Mov.Imm32(asm.R4, size),
		asm.Call.Label(wordSymbol),
	)
}
