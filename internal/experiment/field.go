package experiment

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/skb"
)

// sizes are those of loads, by bytes.
var sizes = map[int]asm.Size{1: asm.Byte, 2: asm.Half, 4: asm.Word, 8: asm.DWord}

// load reads a field of the packet in R6 into R2. It goes to the label where
// the packet has no socket.
func load(f skb.Field, missing string) asm.Instructions {
	if !f.InSock {
		return asm.Instructions{asm.LoadMem(asm.R2, asm.R6, f.Offset, sizes[f.Size])}
	}
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.R6, skb.Sock.Offset, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, missing),
		asm.LoadMem(asm.R2, asm.R1, f.Offset, sizes[f.Size]),
	}
}

// Readable asks the verifier whether a socket filter may read a field.
func Readable(f skb.Field) (bool, error) {
	return accepted("reading field "+f.Name, &ebpf.ProgramSpec{Type: ebpf.SocketFilter, Instructions: reading(f, -1)})
}

// reading reads a field and returns a number.
func reading(f skb.Field, returned int32) asm.Instructions {
	ins := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1), asm.Mov.Imm(asm.R2, 0)}
	ins = append(ins, load(f, "missing")...)
	return append(ins,
		asm.Mov.Imm(asm.R0, returned).WithSymbol("missing"),
		asm.Return(),
	)
}

// accepted asks the verifier whether it takes a program.
func accepted(doing string, spec *ebpf.ProgramSpec) (bool, error) {
	_ = rlimit.RemoveMemlock()
	spec.License = license
	program, err := ebpf.NewProgram(spec)
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		return false, nil
	}
	if err != nil {
		return false, bpf.Diagnose(doing, err)
	}
	return true, program.Close()
}

// fieldRuns is for how many packets a FieldReader keeps what it read.
const fieldRuns = 64

// lookup gets the map's value whose index is at R10-4 into R0.
func lookup(results *ebpf.Map, missing string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, results.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, missing),
	}
}

// store reads a field of the packet in R6 and puts it at an offset from R7.
func store(f skb.Field, at int16) asm.Instructions {
	next := "behind " + f.Name
	ins := append(asm.Instructions{asm.Mov.Imm(asm.R2, 0)}, load(f, next)...)
	if f.Name == skb.Sock.Name {
		// The pointer itself must not leave the kernel.
		ins = append(ins,
			asm.JEq.Imm(asm.R2, 0, next),
			asm.Mov.Imm(asm.R2, 1),
		)
	}
	return append(ins, asm.StoreMem(asm.R7, at, asm.R2, asm.DWord).WithSymbol(next))
}

// FieldReader is a filter that reads fields of each of the first 64 packets.
type FieldReader struct {
	filter
	fields []skb.Field
}

// OpenFields loads a filter that reads fields, all of them Readable.
func OpenFields(fields []skb.Field) (*FieldReader, error) {
	// The first value counts the packets, each of the others belongs to one.
	e, err := openFilter("loading a reader of fields", 8*len(fields)+8, fieldRuns+1, func(results *ebpf.Map) asm.Instructions {
		ins := asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		}
		ins = append(ins, lookup(results, "keep")...)
		ins = append(ins,
			asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
			asm.Add.Imm(asm.R1, 1),
			asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
			asm.StoreMem(asm.RFP, -4, asm.R1, asm.Word),
		)
		ins = append(ins, lookup(results, "keep")...)
		ins = append(ins, asm.Mov.Reg(asm.R7, asm.R0))
		for i, f := range fields {
			ins = append(ins, store(f, int16(8*i))...)
		}
		return append(ins,
			asm.Mov.Imm(asm.R0, -1).WithSymbol("keep"),
			asm.Return(),
		)
	})
	if err != nil {
		return nil, err
	}
	return &FieldReader{e, fields}, nil
}

// Values reads what the fields held: a slice for each packet, in the order of
// the fields. Values are as the program read them, in native byte order; sk is
// 1 where there is a socket.
func (r *FieldReader) Values() ([][]uint64, error) {
	value := make([]byte, 8*(len(r.fields)+1))
	if err := r.results.Lookup(uint32(0), &value); err != nil {
		return nil, fmt.Errorf("reading fields: %w", err)
	}
	runs := min(binary.NativeEndian.Uint64(value), fieldRuns)
	var all [][]uint64
	for run := range uint32(runs) {
		if err := r.results.Lookup(run+1, &value); err != nil {
			return nil, fmt.Errorf("reading fields: %w", err)
		}
		held := make([]uint64, len(r.fields))
		for i := range held {
			held[i] = binary.NativeEndian.Uint64(value[8*i:])
		}
		all = append(all, held)
	}
	return all, nil
}
