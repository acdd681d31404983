package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// ownFilterCase is a filter that somebody has on a socket.
type ownFilterCase struct {
	name    string
	program asm.Instructions // of an eBPF filter, whose map has the name state
	kind    ebpf.MapType
	flags   uint32
	classic []unix.SockFilter
	refused string // why it is not asked
}

// lookUp looks up the first element of the map state: R0 is its address.
func lookUp(then ...asm.Instruction) asm.Instructions {
	head := asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, 0).WithReference("state"),
		asm.FnMapLookupElem.Call(),
		asm.JNE.Imm(asm.R0, 0, "found"),
		asm.Mov.Imm(asm.R0, 9), asm.Return(),
	}
	then[0] = then[0].WithSymbol("found")
	return append(head, then...)
}

func ownFilterCases() []ownFilterCase {
	// The payload's first byte decides.
	byByte := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1), asm.LoadAbs(8, asm.Byte),
		asm.JEq.Imm(asm.R0, 'd', "drop"), asm.JEq.Imm(asm.R0, 't', "trim"),
		asm.Mov.Imm(asm.R0, -1), asm.Return(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("drop"), asm.Return(),
		asm.Mov.Imm(asm.R0, 12).WithSymbol("trim"), asm.Return(),
	}
	loaded := asm.Instructions{
		asm.StoreImm(asm.RFP, -8, 0, asm.Word),
		asm.Mov.Imm(asm.R2, 8), asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -8), asm.Mov.Imm(asm.R4, 1),
		asm.FnSkbLoadBytes.Call(),
		asm.LoadMem(asm.R1, asm.RFP, -8, asm.Byte),
		asm.Mov.Imm(asm.R0, 0), asm.JEq.Imm(asm.R1, 'd', "end"),
		asm.Mov.Imm(asm.R0, 13), asm.Return().WithSymbol("end"),
	}
	field := func(offset int16) asm.Instructions {
		return asm.Instructions{asm.LoadMem(asm.R0, asm.R1, offset, asm.Word), asm.Add.Imm(asm.R0, 10), asm.Return()}
	}
	reads := lookUp(asm.LoadMem(asm.R0, asm.R0, 0, asm.Word), asm.Return())
	counts := lookUp(asm.Mov.Imm(asm.R1, 1), asm.StoreXAdd(asm.R0, asm.R1, asm.Word), asm.Mov.Imm(asm.R0, -1), asm.Return())
	updates := asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word), asm.StoreImm(asm.RFP, -8, 11, asm.Word),
		asm.LoadMapPtr(asm.R1, 0).WithReference("state"),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4), asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -8), asm.Mov.Imm(asm.R4, 0),
		asm.FnMapUpdateElem.Call(), asm.Mov.Imm(asm.R0, -1), asm.Return(),
	}
	calls := func(helper asm.BuiltinFunc) asm.Instructions {
		return asm.Instructions{helper.Call(), asm.Mov.Imm(asm.R0, -1), asm.Return()}
	}
	function := lookUp(asm.Mov.Imm(asm.R1, 1), asm.StoreXAdd(asm.R0, asm.R1, asm.Word), asm.Mov.Imm(asm.R0, 0), asm.Return())
	function[0] = function[0].WithSymbol("function")
	byFunction := append(asm.Instructions{asm.Call.Label("function"), asm.Mov.Imm(asm.R0, -1), asm.Return()}, function...)
	return []ownFilterCase{
		{name: "absolute loads", program: byByte},
		{name: "loads into the stack", program: loaded},
		{name: "the length", program: field(0)},
		{name: "the mark", program: field(8)},
		{name: "the hash", program: field(68)},
		{name: "an array that it only reads", program: reads, kind: ebpf.Array},
		{name: "a hash that it only reads", program: reads, kind: ebpf.Hash},
		{name: "an array that a function of its own counts in", program: byFunction, kind: ebpf.Array, refused: "it may write to its map state"},
		{name: "an array that counts", program: counts, kind: ebpf.Array, refused: "it may write to its map state"},
		{name: "a hash that it updates", program: updates, kind: ebpf.Hash, refused: "it writes to its map state"},
		{name: "a hash whose order it changes", program: reads, kind: ebpf.LRUHash, refused: "it may write to its map state"},
		{name: "chance", program: calls(asm.FnGetPrandomU32), refused: "it calls bpf_user_rnd_u32, which may do or tell more than the packet does"},
		{name: "a trace", program: append(asm.Instructions{
			asm.StoreImm(asm.RFP, -8, 'x', asm.Word), asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, -8), asm.Mov.Imm(asm.R2, 2),
		}, calls(asm.FnTracePrintk)...), refused: "it calls bpf_trace_printk, which may do or tell more than the packet does"},
		{name: "the interface", program: field(40), refused: "it reads dev of the packet, which only the socket has"},
		{name: "classic", classic: []unix.SockFilter{
			{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 8}, {Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 'd', Jf: 1},
			{Code: unix.BPF_RET, K: 0}, {Code: unix.BPF_RET, K: 11},
		}},
		{name: "classic, of the interface", classic: []unix.SockFilter{
			{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: extensions + 8}, {Code: unix.BPF_RET | unix.BPF_A},
		}, refused: "it asks for ifindex, which only the socket has"},
	}
}

// put puts the filter on a socket, and returns its map, nil if it has none.
func (c *ownFilterCase) put(t testing.TB, fd int) (state *ebpf.Map) {
	t.Helper()
	if c.classic != nil {
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(c.classic)), Filter: &c.classic[0]}); err != nil {
			t.Fatal(err)
		}
		return nil
	}
	spec := &ebpf.CollectionSpec{
		Maps:     map[string]*ebpf.MapSpec{},
		Programs: map[string]*ebpf.ProgramSpec{"owned": {Name: "owned", Type: ebpf.SocketFilter, License: "GPL", Instructions: c.program}},
	}
	if c.kind != ebpf.UnspecifiedMap {
		spec.Maps["state"] = &ebpf.MapSpec{Name: "state", Type: c.kind, KeySize: 4, ValueSize: 4, MaxEntries: 4, Flags: c.flags}
	}
	all, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(all.Close)
	if err := AttachFilter(fd, all.Programs["owned"].FD()); err != nil {
		t.Fatal(err)
	}
	if state = all.Maps["state"]; state != nil {
		if err := state.Put(uint32(0), uint32(11)); err != nil {
			t.Fatal(err)
		}
	}
	return state
}

// TestAsker holds what a filter says when it is asked against what the socket got, and its map
// against what it was.
func TestAsker(t *testing.T) {
	requirePrivilege(t)
	tap := mustOpen(t, Options{RingSize: MinRingSize, Snaplen: MaxSnaplen})
	hook := mustHook(t, tap, HookOptions{Record: true, TellFilters: true})
	barrier := testutil.NewBarrier(t)
	for _, c := range ownFilterCases() {
		t.Run(c.name, func(t *testing.T) {
			receiver, sender := testutil.UDPPair(t)
			state := c.put(t, receiver)
			if _, err := hook.Mark(receiver); err != nil {
				t.Fatal(err)
			}
			var got []string
			payloads := []string{"keep this", "drop this", "trim this", "k", ""}
			for _, payload := range payloads {
				barrier.Send(t, sender, []byte(payload))
				buffer := make([]byte, 100)
				n, _, err := unix.Recvfrom(receiver, buffer, unix.MSG_DONTWAIT)
				if err != nil {
					n, buffer = 0, []byte{}
				}
				got = append(got, string(buffer[:n]))
			}
			all := records(t, tap)
			if len(all) != len(payloads)+1 || all[0].Hook != HookNone {
				t.Fatalf("%d records", len(all))
			}
			filter, err := all[0].Announced()
			if err != nil || filter.Key() != all[0].Filter || len(filter.Classic) != len(c.classic) || c.classic == nil && filter.Program.Name != "owned" {
				t.Fatalf("told of %+v, %v, under the key %x", filter, err, all[0].Filter)
			}
			if known, err := hook.Extended(receiver); err != nil || known.Program != filter.Program || known.UID != filter.UID {
				t.Errorf("the socket has %+v, %v, told of %+v", known, err, filter)
			}
			asker, err := OpenAsker(&filter)
			var why *UnaskedError
			if c.refused != "" {
				if !errors.As(err, &why) || why.Reason != c.refused {
					t.Errorf("error %v, want %q", err, c.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer asker.Close()
			for i, rec := range all[1:] {
				if rec.Filter != all[0].Filter || rec.Hook == HookNone {
					t.Errorf("packet %d is of filter %x", i, rec.Filter)
				}
				// The test run takes no hash, so of a packet that has one nothing is said.
				unsaid := c.name == "the hash" && rec.Hash != 0
				verdict, ok := asker.Ask(rec.Data, Context{Protocol: 0x0800, Known: true, Mark: rec.Mark, Hash: rec.Hash, Priority: rec.Priority})
				keep := int(verdict) - 8
				if verdict < 0 {
					keep = 100
				}
				want := payloads[i][:max(0, min(keep, len(payloads[i])))]
				if ok == unsaid || ok && want != got[i] {
					t.Errorf("%q: the answer is %d (%v), the socket got %q", payloads[i], verdict, ok, got[i])
				}
			}
			var value uint32
			if state != nil {
				if err := state.Lookup(uint32(0), &value); err != nil || value != 11 {
					t.Errorf("its map has %d, %v", value, err)
				}
			}
		})
	}
}

// Programs are asked about packets of all sizes, and about one with a hash only if they do not read it.
func TestAskerSizes(t *testing.T) {
	requirePrivilege(t)
	hook := mustHook(t, mustOpen(t, Options{RingSize: MinRingSize, Snaplen: MaxSnaplen}), HookOptions{})
	for _, c := range ownFilterCases()[:5] {
		receiver, _ := testutil.UDPPair(t)
		c.put(t, receiver)
		filter, err := hook.Extended(receiver)
		if err != nil {
			t.Fatal(err)
		}
		asker, err := OpenAsker(&filter)
		if err != nil {
			t.Fatal(err)
		}
		defer asker.Close()
		for _, size := range []int{1, 8, 9, 39, 40, 1400, 3000} {
			if _, ok := asker.Ask(bytes.Repeat([]byte{'x'}, size), Context{Protocol: 0x0800, Known: true}); !ok {
				t.Errorf("%s: not asked about %d bytes", c.name, size)
			}
		}
		_, ok := asker.Ask(make([]byte, 40), Context{Protocol: 0x0800, Known: true, Hash: 7})
		if reads := strings.Contains(c.name, "hash"); ok == reads {
			t.Errorf("%s: asked about a packet with a hash: %v", c.name, ok)
		}
	}
}

// BenchmarkAsk measures what it costs to ask a filter what it has decided on a packet.
func BenchmarkAsk(b *testing.B) {
	for _, c := range ownFilterCases() {
		if c.name != "absolute loads" && c.name != "classic" {
			continue
		}
		for _, size := range []int{64, 1400} {
			b.Run(fmt.Sprintf("%s/bytes=%d", c.name, size), func(b *testing.B) {
				receiver, _ := testutil.UDPPair(b)
				c.put(b, receiver)
				tap := mustOpen(b, Options{RingSize: MinRingSize, Snaplen: MaxSnaplen})
				filter := OwnFilter{Classic: c.classic}
				if c.classic == nil {
					var err error
					if filter, err = mustHook(b, tap, HookOptions{}).Extended(receiver); err != nil {
						b.Fatal(err)
					}
				}
				asker, err := OpenAsker(&filter)
				if err != nil {
					b.Fatal(err)
				}
				defer asker.Close()
				packet := make([]byte, size)
				for b.Loop() {
					if _, ok := asker.Ask(packet, Context{Protocol: 0x0800, Known: true}); !ok {
						b.Fatal("it was not asked")
					}
				}
			})
		}
	}
}
