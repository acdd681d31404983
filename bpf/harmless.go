package bpf

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// harmless tells whether a program of somebody else can be run without changing anything, and with
// the same result as on the socket: it writes to no map and calls nothing whose answer depends on
// more than the packet. reads are the fields of __sk_buff that it reads. What is not certain is
// an *UnaskedError.
//
// It judges the program as the verifier has left it, where __sk_buff has become sk_buff, helpers
// are addresses, and look-ups in some maps are instructions.
func harmless(program *ebpf.Program) (reads []string, err error) {
	info, err := program.Info()
	if err != nil {
		return nil, unasked("nothing is known of its program: %w", err)
	}
	if info.Type != ebpf.SocketFilter {
		return nil, unasked("it is a program of type %v", info.Type)
	}
	instructions, err := info.Instructions()
	if err != nil {
		return nil, unasked("its instructions cannot be read: %w", err)
	}
	writable, err := writableMaps(info)
	if err != nil {
		return nil, err
	}
	use := usedBy(instructions)
	if use.stores && len(writable) > 0 {
		return nil, unasked("it may write to %s", strings.Join(writable, ", "))
	}
	if err := judgeCalls(use.calls, writable); err != nil {
		return nil, err
	}
	if use.unsure {
		return nil, unasked("it is not certain what it reads of a packet")
	}
	return fieldsOf(use.loads)
}

// writableMaps are the maps of a program that it may write to, for people.
func writableMaps(info *ebpf.ProgramInfo) (names []string, err error) {
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return nil, unasked("nothing is known of its map %d: %w", id, err)
		}
		about, err := m.Info()
		m.Close()
		if err != nil {
			return nil, unasked("nothing is known of its map %d: %w", id, err)
		}
		const readOnly = 1 << 7 // BPF_F_RDONLY_PROG of linux/bpf.h
		if about.Flags&readOnly == 0 {
			names = append(names, mapName(id, about.Name))
		}
	}
	return names, nil
}

// mapName is what to call a map of a program, which need not have a name.
func mapName(id ebpf.MapID, name string) string {
	if name == "" {
		return fmt.Sprintf("its map %d (without a name)", id)
	}
	return "its map " + terminal.Plain(name)
}

// use is what a verified program does.
type use struct {
	calls  []int64 // functions of the kernel, as the distance from __bpf_call_base
	loads  []asm.Instruction
	stores bool // not only on its stack and in the packet's cb[]
	unsure bool // where the packet's sk_buff is used
}

func usedBy(program asm.Instructions) (u use) {
	f := followed(program)
	u.unsure = f.unsure
	for i := range program {
		// Without a state it is in a function of the program's own, of whose arguments nothing is
		// known: the verifier leaves no trace of where that begins.
		ins, state := &program[i], f.states[i]
		class := ins.OpCode.Class()
		switch {
		case class.IsJump() && ins.OpCode.JumpOp() == asm.Call && ins.Src != asm.PseudoCall:
			u.calls = append(u.calls, int64(int32(ins.Constant)))
		case class == asm.LdXClass && state == nil:
			u.unsure = u.unsure || ins.Src != asm.RFP
		case class == asm.LdXClass && state.isPacket(ins.Src):
			u.loads = append(u.loads, *ins)
		case class.IsStore() && ins.Dst != asm.RFP && (state == nil || !state.isPacket(ins.Dst)):
			u.stores = true
		}
	}
	return u
}

// harmlessCalls are functions of the kernel, as the verifier has put them in the place of helpers,
// that change nothing and whose answers depend on nothing but the packet and on maps.
var harmlessCalls = []string{
	"bpf_skb_load_bytes",
	"bpf_skb_load_helper_8", "bpf_skb_load_helper_16", "bpf_skb_load_helper_32",
	"bpf_skb_load_helper_8_no_cache", "bpf_skb_load_helper_16_no_cache", "bpf_skb_load_helper_32_no_cache",
	"array_map_lookup_elem", "array_of_map_lookup_elem", "htab_map_lookup_elem", "__htab_map_lookup_elem",
	"htab_of_map_lookup_elem", "trie_lookup_elem", "bloom_map_peek_elem", "bpf_map_lookup_elem",
}

// judgeCalls fails if one of the functions may do harm, or depend on something else.
func judgeCalls(calls []int64, writable []string) error {
	slices.Sort(calls)
	calls = slices.Compact(calls)
	if len(calls) == 0 {
		return nil
	}
	names, err := functionNames(calls)
	if err != nil {
		return unasked("which functions of the kernel it calls takes CAP_SYSLOG to know: %w", err)
	}
	for _, name := range names {
		if slices.Contains(harmlessCalls, name) {
			continue
		}
		for _, words := range []string{"update_elem", "delete_elem", "push_elem", "pop_elem", "ringbuf", "perf_event"} {
			if strings.Contains(name, words) && len(writable) > 0 {
				return unasked("it writes to %s", strings.Join(writable, ", "))
			}
		}
		return unasked("it calls %s, which may do or tell more than the packet does", name)
	}
	return nil
}

// functionNames finds functions of the kernel by their distance from __bpf_call_base.
func functionNames(distances []int64) ([]string, error) {
	symbols, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		return nil, err
	}
	base, err := symbolAddress(symbols, "__bpf_call_base")
	if err != nil {
		return nil, err
	}
	wanted := make(map[uint64]int, len(distances))
	for i, d := range distances {
		wanted[base+uint64(d)] = i
	}
	names := make([]string, len(distances))
	eachSymbol(symbols, func(address uint64, name string) {
		i, ok := wanted[address]
		// One address may have several names.
		if ok && (names[i] == "" || slices.Contains(harmlessCalls, name)) {
			names[i] = name
		}
	})
	for i := range names {
		if names[i] == "" {
			names[i] = "a function that has no name"
		}
	}
	return names, nil
}

func symbolAddress(symbols []byte, name string) (found uint64, err error) {
	eachSymbol(symbols, func(address uint64, symbol string) {
		if symbol == name {
			found = address
		}
	})
	if found == 0 {
		return 0, errors.New("/proc/kallsyms does not tell addresses")
	}
	return found, nil
}

// eachSymbol calls do for each line of kallsyms.
func eachSymbol(symbols []byte, do func(address uint64, name string)) {
	lines := bufio.NewScanner(bytes.NewReader(symbols))
	for lines.Scan() {
		line := lines.Bytes()
		if len(line) < 20 || line[16] != ' ' || line[18] != ' ' {
			continue
		}
		address, err := strconv.ParseUint(string(line[:16]), 16, 64)
		if err != nil {
			continue
		}
		name, _, _ := bytes.Cut(line[19:], []byte{'\t'})
		do(address, string(name))
	}
}

// skbFields are the members of sk_buff that a program reads in the place of fields of __sk_buff,
// or where bytes are loaded, and that are right when it is asked.
var skbFields = map[string]string{
	"len": "", "data_len": "", "data": "", "head": "", "end": "", "cb": "",
	"protocol": "protocol", "mark": "mark", "priority": "priority",
	"vlan_tci": "vlan_tci", "vlan_proto": "vlan_proto", "vlan_all": "vlan_tci",
	"hash": "hash", "queue_mapping": "queue_mapping",
}

// fieldsOf are the fields of __sk_buff that loads from sk_buff are about.
func fieldsOf(loads []asm.Instruction) (fields []string, err error) {
	if len(loads) == 0 {
		return nil, nil
	}
	skb, err := kernelStruct("sk_buff")
	if err != nil {
		return nil, unasked("what it reads of a packet is not known: %w", err)
	}
	for _, ins := range loads {
		name := memberAt(skb, uint32(ins.Offset))
		field, ok := skbFields[name]
		if !ok {
			return nil, unasked("it reads %s of the packet, which only the socket has", terminal.Plain(name))
		}
		if field != "" && !slices.Contains(fields, field) {
			fields = append(fields, field)
		}
	}
	return fields, nil
}

// kernelStruct is a struct of the running kernel.
func kernelStruct(name string) (*btf.Struct, error) {
	all, release, err := mapFile(vmlinuxTypes)
	if err != nil {
		return nil, err
	}
	defer release()
	few, err := cutTypes(all, map[string]bool{name: true})
	if err != nil {
		return nil, err
	}
	types, err := btf.LoadSpecFromReader(bytes.NewReader(few))
	if err != nil {
		return nil, err
	}
	var found *btf.Struct
	if err := types.TypeByName(name, &found); err != nil {
		return nil, fmt.Errorf("struct %s: %w", name, err)
	}
	return found, nil
}

// memberAt is the name of the member at an offset, in nested structs without a name as well.
func memberAt(t btf.Type, offset uint32) string {
	var members []btf.Member
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		members = t.Members
	case *btf.Union:
		members = t.Members
	}
	name := ""
	for _, m := range members {
		size, err := btf.Sizeof(m.Type)
		at := m.Offset.Bytes()
		if err != nil || offset < at || offset >= at+uint32(max(size, 1)) {
			continue
		}
		inner := m.Name
		if inner == "" {
			inner = memberAt(m.Type, offset-at)
		}
		// Of several at one place, one that is known to be right.
		if _, known := skbFields[inner]; name == "" || known {
			name = inner
		}
	}
	return name
}
