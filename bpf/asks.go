package bpf

import (
	"github.com/cilium/ebpf/asm"

	"github.com/ebpfdump/ebpfdump/internal/skb"
)

// asks is what a program reads of a packet besides its bytes and its length: which fields
// of __sk_buff it loads, and which helpers it calls. It is found by data-flow analysis of
// the context pointer through registers and stack.
type asks struct {
	// fields of __sk_buff, without len, each with the loads that read it.
	fields map[string][]int
	// calls are the helpers, by their names in C.
	calls map[string]bool
	// below says that it loads relative to the network or link header.
	below bool
	// scratch says that cb[] is used.
	scratch bool
	// unsure says that the pointer could not be followed everywhere: then fields may have
	// too many, and the loads must not be changed.
	unsure bool
}

// asksOf analyses a program with its functions. For a program that the verifier refuses, any
// result is right.
func asksOf(program asm.Instructions) *asks {
	f := followed(program)
	for i := range program {
		if f.states[i] != nil {
			f.ask(&program[i], i, f.states[i])
		}
	}
	return &f.asks
}

// pointers is where the context pointer may be before an instruction.
type pointers struct {
	packet uint16 // registers that hold it, a bit each
	stack  uint16 // registers that point into the stack
	slots  uint64 // words of the stack that hold it, from the frame pointer down
}

func (p *pointers) copyReg(to, from asm.Register) {
	p.clear(to)
	p.packet |= p.packet >> from & 1 << to
	p.stack |= p.stack >> from & 1 << to
	if from == asm.RFP {
		p.stack |= 1 << to
	}
}

func (p *pointers) clear(r asm.Register) {
	p.packet &^= 1 << r
	p.stack &^= 1 << r
}

func (p *pointers) isPacket(r asm.Register) bool { return p.packet>>r&1 != 0 }

// slot is the bit of a word on the stack; 0 if the offset is not that of a word.
func slot(offset int16) uint64 {
	if offset >= 0 || offset%8 != 0 || offset < -512 {
		return 0
	}
	return 1 << (-offset/8 - 1)
}

// follower is the analysis: it visits instructions until their states no longer change.
type follower struct {
	asks
	program   asm.Instructions
	states    []*pointers // nil for unreachable instructions
	work      []int
	functions map[string]int                   // functions and labels, by name
	raw       []asm.RawInstructionOffset       // the offset of each instruction
	at        map[asm.RawInstructionOffset]int // the instruction at each offset
}

// followed follows the packet's pointer through a program.
func followed(program asm.Instructions) *follower {
	f := &follower{
		program: program, states: make([]*pointers, len(program)),
		asks: asks{fields: make(map[string][]int), calls: make(map[string]bool)},
	}
	f.index()
	f.join(0, pointers{packet: 1 << asm.R1})
	for len(f.work) > 0 {
		at := f.work[len(f.work)-1]
		f.work = f.work[:len(f.work)-1]
		f.instruction(at, *f.states[at])
	}
	return f
}

// index notes the position of each instruction, function and label.
func (f *follower) index() {
	f.functions = make(map[string]int)
	f.at = make(map[asm.RawInstructionOffset]int)
	iter := f.program.Iterate()
	for iter.Next() {
		f.raw = append(f.raw, iter.Offset)
		f.at[iter.Offset] = iter.Index
		if symbol := iter.Ins.Symbol(); symbol != "" {
			f.functions[symbol] = iter.Index
		}
	}
}

// join merges a state into that of an instruction, and schedules it if that changed.
func (f *follower) join(at int, p pointers) {
	if at >= len(f.states) {
		return
	}
	known := f.states[at]
	if known == nil {
		f.states[at] = &p
		f.work = append(f.work, at)
		return
	}
	sum := pointers{known.packet | p.packet, known.stack | p.stack, known.slots | p.slots}
	if sum != *known {
		*known = sum
		f.work = append(f.work, at)
	}
}

func (f *follower) instruction(at int, p pointers) {
	ins := &f.program[at]
	switch class := ins.OpCode.Class(); {
	case class.IsALU():
		f.alu(ins, &p)
	case class == asm.LdXClass:
		f.load(ins, &p)
	case class == asm.LdClass:
		f.loadImmediate(ins, &p)
	case class.IsStore():
		f.store(ins, &p)
	case class.IsJump():
		f.jump(at, ins, p)
		return
	}
	f.join(at+1, p)
}

func (f *follower) alu(ins *asm.Instruction, p *pointers) {
	isMove := ins.OpCode.ALUOp() == asm.Mov
	switch {
	case isMove && ins.OpCode.Class() == asm.ALU64Class && ins.OpCode.Source() == asm.RegSource && ins.Offset == 0:
		p.copyReg(ins.Dst, ins.Src)
	case isMove:
		p.clear(ins.Dst)
	case p.isPacket(ins.Dst):
		f.unsure = true // arithmetic: the fields have other offsets from it
	}
}

func (f *follower) load(ins *asm.Instruction, p *pointers) {
	held := false
	if ins.OpCode.Mode() == asm.MemMode && ins.OpCode.Size() == asm.DWord {
		switch {
		case ins.Src == asm.RFP:
			held = p.slots&slot(ins.Offset) != 0
		case p.stack>>ins.Src&1 != 0 && p.slots != 0:
			held, f.unsure = true, true
		}
	}
	p.clear(ins.Dst)
	if held {
		p.packet |= 1 << ins.Dst
	}
}

func (f *follower) loadImmediate(ins *asm.Instruction, p *pointers) {
	if !ins.OpCode.IsDWordLoad() {
		f.below = f.below || int32(ins.Constant) < 0 // what is left of SKF_NET_OFF and SKF_LL_OFF
		f.clobber(p)
		return
	}
	p.clear(ins.Dst)
	if ins.IsLoadOfFunctionPointer() {
		f.unsure = true // a callback: its arguments are not known
		f.join(f.functions[ins.Reference()], pointers{})
	}
}

func (f *follower) store(ins *asm.Instruction, p *pointers) {
	isPacket := ins.OpCode.Class() == asm.StXClass && p.isPacket(ins.Src)
	switch word := slot(ins.Offset); {
	case ins.Dst != asm.RFP:
		f.unsure = f.unsure || isPacket
	case isPacket && word == 0:
		f.unsure = true
	case isPacket:
		p.slots |= word
	case ins.OpCode.Size() == asm.DWord:
		p.slots &^= word
	}
}

// clobber clears the registers that a call does not preserve.
func (f *follower) clobber(p *pointers) {
	for r := asm.R0; r <= asm.R5; r++ {
		p.clear(r)
	}
}

func (f *follower) jump(at int, ins *asm.Instruction, p pointers) {
	switch ins.OpCode.JumpOp() {
	case asm.Exit:
		return
	case asm.Call:
		f.call(ins, &p)
		f.join(at+1, p)
		return
	case asm.Ja:
	default:
		f.join(at+1, p)
	}
	f.join(f.target(at, ins), p)
}

// target is the instruction that a jump leads to.
func (f *follower) target(at int, ins *asm.Instruction) int {
	if to, ok := f.functions[ins.Reference()]; ok && ins.Reference() != "" {
		return to
	}
	offset := int64(ins.Offset)
	if ins.OpCode.Class() == asm.Jump32Class && ins.OpCode.JumpOp() == asm.Ja {
		offset = ins.Constant
	}
	to, ok := f.at[asm.RawInstructionOffset(int64(f.raw[at])+1+offset)]
	if !ok {
		return len(f.program)
	}
	return to
}

func (f *follower) call(ins *asm.Instruction, p *pointers) {
	const arguments = 1<<asm.R1 | 1<<asm.R2 | 1<<asm.R3 | 1<<asm.R4 | 1<<asm.R5
	switch {
	case ins.IsBuiltinCall():
		if name, ok := helpersAsked[asm.BuiltinFunc(ins.Constant)]; ok {
			f.calls[name] = true
		}
		f.below = f.below || asm.BuiltinFunc(ins.Constant) == asm.FnSkbLoadBytesRelative
	case p.slots != 0 && p.stack&arguments != 0:
		f.unsure = true // it may load the pointer from our stack
	}
	if to, ok := f.functions[ins.Reference()]; ok && ins.IsFunctionCall() {
		f.join(to, pointers{packet: p.packet & arguments, stack: p.stack & arguments})
	}
	f.clobber(p)
}

// ask notes what an instruction reads of the context.
func (f *follower) ask(ins *asm.Instruction, at int, p *pointers) {
	isLoad := ins.OpCode.Class() == asm.LdXClass
	base := ins.Src
	if !isLoad {
		base = ins.Dst
	}
	if !isLoad && !ins.OpCode.Class().IsStore() || !p.isPacket(base) && !(f.unsure && base != asm.RFP) {
		return
	}
	if cb := skb.Named("cb[0]").Offset; ins.Offset >= cb && ins.Offset < cb+20 {
		f.scratch = true
		return
	}
	for _, field := range skb.Fields() {
		if !field.InSock && ins.Offset >= field.Offset && int(ins.Offset) < int(field.Offset)+field.Size && isLoad && field.Name != "len" {
			f.fields[field.Name] = append(f.fields[field.Name], at)
		}
	}
}

// helpersAsked are the helpers whose results depend on the packet, its socket or the time.
var helpersAsked = map[asm.BuiltinFunc]string{
	asm.FnGetSocketCookie:      "bpf_get_socket_cookie",
	asm.FnGetSocketUid:         "bpf_get_socket_uid",
	asm.FnGetNetnsCookie:       "bpf_get_netns_cookie",
	asm.FnSkbLoadBytesRelative: "bpf_skb_load_bytes_relative",
	asm.FnKtimeGetNs:           "bpf_ktime_get_ns",
	asm.FnKtimeGetBootNs:       "bpf_ktime_get_boot_ns",
	asm.FnKtimeGetCoarseNs:     "bpf_ktime_get_coarse_ns",
	asm.FnKtimeGetTaiNs:        "bpf_ktime_get_tai_ns",
	asm.FnJiffies64:            "bpf_jiffies64",
	asm.FnGetSmpProcessorId:    "bpf_get_smp_processor_id",
	asm.FnGetNumaNodeId:        "bpf_get_numa_node_id",
	asm.FnGetPrandomU32:        "bpf_get_prandom_u32",
}
