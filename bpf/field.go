package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
)

// Field is a field of struct __sk_buff, or of the struct bpf_sock that its sk
// points to (linux/bpf.h).
type Field struct {
	// Name is the field's name, such as "len", "cb[0]" or "sk.src_port".
	Name string

	offset int16
	size   asm.Size
	inSock bool
}

// skField is where __sk_buff has the pointer to its socket.
var skField = Field{Name: "sk", offset: 168, size: asm.DWord}

var fields = []Field{
	{"len", 0, asm.Word, false},
	{"pkt_type", 4, asm.Word, false},
	{"mark", 8, asm.Word, false},
	{"queue_mapping", 12, asm.Word, false},
	{"protocol", 16, asm.Word, false},
	{"vlan_present", 20, asm.Word, false},
	{"vlan_tci", 24, asm.Word, false},
	{"vlan_proto", 28, asm.Word, false},
	{"priority", 32, asm.Word, false},
	{"ingress_ifindex", 36, asm.Word, false},
	{"ifindex", 40, asm.Word, false},
	{"tc_index", 44, asm.Word, false},
	{"cb[0]", 48, asm.Word, false},
	{"hash", 68, asm.Word, false},
	{"tc_classid", 72, asm.Word, false},
	{"data", 76, asm.Word, false},
	{"data_end", 80, asm.Word, false},
	{"napi_id", 84, asm.Word, false},
	{"family", 88, asm.Word, false},
	{"remote_ip4", 92, asm.Word, false},
	{"local_ip4", 96, asm.Word, false},
	{"remote_ip6[0]", 100, asm.Word, false},
	{"local_ip6[0]", 116, asm.Word, false},
	{"remote_port", 132, asm.Word, false},
	{"local_port", 136, asm.Word, false},
	{"data_meta", 140, asm.Word, false},
	{"flow_keys", 144, asm.DWord, false},
	{"tstamp", 152, asm.DWord, false},
	{"wire_len", 160, asm.Word, false},
	{"gso_segs", 164, asm.Word, false},
	skField,
	{"gso_size", 176, asm.Word, false},
	{"tstamp_type", 180, asm.Byte, false},
	{"hwtstamp", 184, asm.DWord, false},
	{"sk.bound_dev_if", 0, asm.Word, true},
	{"sk.family", 4, asm.Word, true},
	{"sk.type", 8, asm.Word, true},
	{"sk.protocol", 12, asm.Word, true},
	{"sk.mark", 16, asm.Word, true},
	{"sk.priority", 20, asm.Word, true},
	{"sk.src_ip4", 24, asm.Word, true},
	{"sk.src_ip6[3]", 40, asm.Word, true},
	{"sk.src_port", 44, asm.Word, true},
	{"sk.dst_port", 48, asm.Half, true},
	{"sk.dst_ip4", 52, asm.Word, true},
	{"sk.dst_ip6[3]", 68, asm.Word, true},
	{"sk.state", 72, asm.Word, true},
	{"sk.rx_queue_mapping", 76, asm.Word, true},
}

// Fields lists the fields of __sk_buff, and then those behind its sk. Of arrays
// it has one element.
func Fields() []Field { return append([]Field(nil), fields...) }

// load reads the field of the packet in R6 into R2. It goes to the label where
// the packet has no socket.
func (f Field) load(missing string) asm.Instructions {
	if !f.inSock {
		return asm.Instructions{asm.LoadMem(asm.R2, asm.R6, f.offset, f.size)}
	}
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.R6, skField.offset, skField.size),
		asm.JEq.Imm(asm.R1, 0, missing),
		asm.LoadMem(asm.R2, asm.R1, f.offset, f.size),
	}
}

// Readable asks the verifier whether a socket filter may read the field.
func (f Field) Readable() (bool, error) {
	_ = rlimit.RemoveMemlock()
	ins := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1), asm.Mov.Imm(asm.R2, 0)}
	ins = append(ins, f.load("missing")...)
	ins = append(ins,
		asm.Mov.Imm(asm.R0, -1).WithSymbol("missing"),
		asm.Return(),
	)
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SocketFilter, License: experimentLicense, Instructions: ins})
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		return false, nil
	}
	if err != nil {
		return false, diagnose("reading field "+f.Name, err)
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

// store reads the field of the packet in R6 and puts it at an offset from R7.
func (f Field) store(at int16) asm.Instructions {
	next := "behind " + f.Name
	ins := append(asm.Instructions{asm.Mov.Imm(asm.R2, 0)}, f.load(next)...)
	if f.Name == skField.Name {
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
	experiment
	fields []Field
}

// OpenFields loads a filter that reads fields, all of them Readable.
func OpenFields(fields []Field) (*FieldReader, error) {
	// The first value counts the packets, each of the others belongs to one.
	e, err := openExperiment("loading a reader of fields", 8*len(fields)+8, fieldRuns+1, func(results *ebpf.Map) asm.Instructions {
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
			ins = append(ins, f.store(int16(8*i))...)
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
