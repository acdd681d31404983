package bpf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// verdictSymbol is the function in tap.c that a Verdict replaces.
const verdictSymbol = "verdict"

// Verdict decides how much of a packet a socket keeps: the number that a socket
// filter returns. A Tap records what it decided. A nil *Verdict keeps everything.
//
// It is not loaded yet, and can be used for any number of taps, each of which gets maps of its
// own.
type Verdict struct {
	name    string // for messages
	program string // the program's name in spec
	// spec has the program, and the maps and programs that it refers to, object all that there is.
	spec, object *ebpf.CollectionSpec
}

// Name says where the verdict comes from: FILE, FILE:PROGRAM or a number.
func (v *Verdict) Name() string { return v.name }

// Keep is the verdict that keeps at most this many bytes of each packet, from offset 0 on: 0
// drops it, -1 keeps everything.
func Keep(bytes int32) *Verdict {
	return newVerdict(fmt.Sprintf("verdict %d", bytes), asm.Instructions{
		asm.Mov.Imm(asm.R0, bytes),
		asm.Return(),
	})
}

// newVerdict makes a verdict of instructions that refer to no map or function.
func newVerdict(name string, instructions asm.Instructions) *Verdict {
	const program = "filter"
	spec := &ebpf.CollectionSpec{
		Programs: map[string]*ebpf.ProgramSpec{program: {
			Name: program, Type: ebpf.SocketFilter, License: "GPL", Instructions: instructions,
		}},
	}
	return &Verdict{name: name, program: program, spec: spec, object: spec}
}

// needed is the part of an object that a program needs: itself, its maps, and the maps and
// tail-call programs that those hold.
func needed(spec *ebpf.CollectionSpec, program string) *ebpf.CollectionSpec {
	all := spec.Copy()
	cut := &ebpf.CollectionSpec{
		Maps:      make(map[string]*ebpf.MapSpec),
		Programs:  make(map[string]*ebpf.ProgramSpec),
		Variables: make(map[string]*ebpf.VariableSpec),
		Types:     all.Types,
		ByteOrder: all.ByteOrder,
	}
	var addProgram, addMap func(name string)
	addMap = func(name string) {
		m := all.Maps[name]
		if m == nil || cut.Maps[name] != nil {
			return
		}
		// A pinned map is shared with other programs, which must not be affected.
		m.Pinning = ebpf.PinNone
		cut.Maps[name] = m
		for _, kv := range m.Contents {
			if held, ok := kv.Value.(string); ok && m.Type == ebpf.ProgramArray {
				addProgram(held)
			} else if ok {
				addMap(held)
			}
		}
	}
	addProgram = func(name string) {
		p := all.Programs[name]
		if p == nil || cut.Programs[name] != nil {
			return
		}
		cut.Programs[name] = p
		for _, ins := range p.Instructions {
			if ins.IsLoadFromMap() {
				addMap(ins.Reference())
			}
		}
	}
	addProgram(program)
	for name, v := range all.Variables {
		if cut.Maps[v.SectionName] != nil {
			cut.Variables[name] = v
		}
	}
	return cut
}

// load creates the program's maps, and if alone is set, loads the program by itself.
func (v *Verdict) load(alone bool) (*ebpf.Collection, error) {
	spec := v.spec.Copy()
	if !alone {
		delete(spec.Programs, v.program)
	}
	return ebpf.NewCollection(spec)
}

// splice replaces the tap's own verdict function by the filter, with maps that exist already.
func (v *Verdict) splice(tap *ebpf.ProgramSpec, maps map[string]*ebpf.Map) error {
	return v.spliceWith(tap, maps, func(own asm.Instructions) asm.Instructions { return own })
}

// spliceWith is splice with a function that changes the filter's instructions where they stand.
func (v *Verdict) spliceWith(tap *ebpf.ProgramSpec, maps map[string]*ebpf.Map, change func(own asm.Instructions) asm.Instructions) error {
	begin, end, err := function(tap.Instructions, verdictSymbol)
	if err != nil {
		return err
	}
	filter := v.spec.Programs[v.program]
	own, err := graft(filter.Instructions, btf.FuncMetadata(&tap.Instructions[begin]), maps)
	if err != nil {
		return err
	}
	tap.Instructions = slices.Concat(tap.Instructions[:begin], change(own), tap.Instructions[end:])
	// Some helpers are only for filters with a GPL-compatible license. The tap needs none.
	tap.License = filter.License
	return nil
}

// function finds where a function begins and ends.
func function(program asm.Instructions, symbol string) (begin, end int, err error) {
	begin = slices.IndexFunc(program, func(ins asm.Instruction) bool { return ins.Symbol() == symbol })
	if begin < 0 {
		return 0, 0, errors.New("the tap has no function " + symbol)
	}
	end = begin + 1
	for end < len(program) && program[end].Symbol() == "" {
		end++
	}
	return begin, end, nil
}

// graft turns a program, with the functions that it calls, into functions of the tap. Symbols
// get a prefix, so that they cannot collide with those of the tap. prototype is the BTF of the
// function that is replaced.
func graft(program asm.Instructions, prototype *btf.Func, maps map[string]*ebpf.Map) (asm.Instructions, error) {
	const prefix = "filter:"
	called := make(map[string]bool)
	for _, ins := range program {
		if ins.IsFunctionReference() {
			called[ins.Reference()] = true
		}
	}
	own := slices.Clone(program)
	for i := range own {
		ins := &own[i]
		symbol, reference := ins.Symbol(), ins.Reference()
		if i == 0 || called[symbol] {
			*ins = describeFunction(*ins, symbol, prototype, i == 0)
		}
		switch {
		case i == 0:
			*ins = ins.WithSymbol(verdictSymbol)
		case symbol != "":
			*ins = ins.WithSymbol(prefix + symbol)
		}
		switch {
		case reference == "":
		case !ins.IsLoadFromMap():
			*ins = ins.WithReference(prefix + reference)
		case maps[reference] != nil:
			if err := ins.AssociateMap(maps[reference]); err != nil {
				return nil, fmt.Errorf("map %s: %w", reference, err)
			}
		}
	}
	return own, nil
}

// describeFunction gives a function's first instruction BTF and a source line: the kernel
// wants them for all functions or for none.
func describeFunction(ins asm.Instruction, name string, prototype *btf.Func, isEntry bool) asm.Instruction {
	fn := btf.FuncMetadata(&ins)
	if prototype != nil && (isEntry || fn == nil) {
		// A function with absolute loads must return int, and only a static one can be called
		// with the arguments that the tap has.
		if fn != nil {
			name = fn.Name
		}
		if name == "" {
			name = "filter"
		}
		ins = btf.WithFuncMetadata(ins, &btf.Func{Name: name, Type: prototype.Type, Linkage: btf.StaticFunc})
	}
	if ins.Source() == nil {
		ins = ins.WithSource(asm.Comment(name))
	}
	return ins
}
