package bpf

import (
	"maps"
	"slices"
	"testing"

	"github.com/cilium/ebpf/asm"
)

// The packet's pointer is followed through registers, stack, branches and calls.
func TestAsks(t *testing.T) {
	t.Parallel()
	const tci = 24
	load := func(from asm.Register) asm.Instruction { return asm.LoadMem(asm.R0, from, tci, asm.Word) }
	exit := asm.Return()
	for name, test := range map[string]struct {
		program asm.Instructions
		fields  []string
		scratch bool
		unsure  bool
	}{
		"argument":    {program: asm.Instructions{load(asm.R1), exit}, fields: []string{"vlan_tci"}},
		"moved":       {program: asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1), asm.FnKtimeGetNs.Call(), load(asm.R6), exit}, fields: []string{"vlan_tci"}},
		"lost":        {program: asm.Instructions{asm.FnKtimeGetNs.Call(), load(asm.R1), exit}},
		"overwritten": {program: asm.Instructions{asm.Mov.Imm(asm.R1, 0), load(asm.R1), exit}},
		"upper byte":  {program: asm.Instructions{asm.LoadMem(asm.R0, asm.R1, tci+1, asm.Byte), exit}, fields: []string{"vlan_tci"}},
		"length":      {program: asm.Instructions{asm.LoadMem(asm.R0, asm.R1, 0, asm.Word), exit}},
		"spilled": {program: asm.Instructions{
			asm.StoreMem(asm.RFP, -16, asm.R1, asm.DWord), asm.FnKtimeGetNs.Call(), asm.LoadMem(asm.R7, asm.RFP, -16, asm.DWord), load(asm.R7), exit,
		}, fields: []string{"vlan_tci"}},
		"another word": {program: asm.Instructions{
			asm.StoreMem(asm.RFP, -16, asm.R1, asm.DWord), asm.LoadMem(asm.R7, asm.RFP, -8, asm.DWord), load(asm.R7), exit,
		}},
		"one branch": {program: asm.Instructions{
			asm.Mov.Imm(asm.R7, 0), asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), asm.JEq.Imm(asm.R2, 0, "join"), asm.Mov.Reg(asm.R7, asm.R1),
			load(asm.R7).WithSymbol("join"), exit,
		}, fields: []string{"vlan_tci"}},
		"raw jump": {program: asm.Instructions{
			// Over an instruction of two slots.
			{OpCode: asm.Ja.Op(asm.ImmSource), Offset: 3}, asm.LoadImm(asm.R1, 1<<40, asm.DWord), asm.Mov.Imm(asm.R1, 0), load(asm.R1), exit,
		}, fields: []string{"vlan_tci"}},
		"called": {program: asm.Instructions{
			asm.Mov.Reg(asm.R2, asm.R1), asm.Mov.Imm(asm.R1, 0), asm.Call.Label("f"), exit,
			load(asm.R2).WithSymbol("f"), exit,
		}, fields: []string{"vlan_tci"}},
		"called without": {program: asm.Instructions{
			asm.Mov.Imm(asm.R1, 0), asm.Call.Label("f"), exit, load(asm.R1).WithSymbol("f"), exit,
		}},
		"loop": {program: asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1), asm.Mov.Imm(asm.R7, 0),
			asm.Mov.Reg(asm.R8, asm.R7).WithSymbol("again"), asm.Mov.Reg(asm.R7, asm.R6), asm.LoadMem(asm.R2, asm.R6, 0, asm.Word),
			asm.JEq.Imm(asm.R2, 0, "again"), load(asm.R8), exit,
		}, fields: []string{"vlan_tci"}},
		"scratch":   {program: asm.Instructions{asm.StoreImm(asm.R1, 52, 1, asm.Word), asm.Mov.Imm(asm.R0, 0), exit}, scratch: true},
		"scratch 4": {program: asm.Instructions{asm.LoadMem(asm.R0, asm.R1, 64, asm.Word), exit}, scratch: true},
		"behind a pointer": {program: asm.Instructions{
			asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -8), asm.StoreMem(asm.R2, 0, asm.R1, asm.DWord), asm.LoadMem(asm.R7, asm.R2, 0, asm.DWord), load(asm.R7), exit,
		}, fields: []string{"vlan_tci"}, unsure: true},
		"in a struct": {program: asm.Instructions{
			asm.StoreMem(asm.RFP, -8, asm.R1, asm.DWord), asm.Mov.Reg(asm.R1, asm.RFP), asm.Add.Imm(asm.R1, -8), asm.Call.Label("f"), exit,
			asm.LoadMem(asm.R3, asm.R1, 0, asm.DWord).WithSymbol("f"), load(asm.R3), exit,
		}, fields: []string{"vlan_tci"}, unsure: true},
		"moved on": {program: asm.Instructions{asm.Add.Imm(asm.R1, 4), asm.LoadMem(asm.R0, asm.R1, 20, asm.Word), exit}, fields: []string{"vlan_present"}, unsure: true},
	} {
		a := asksOf(test.program)
		if got := slices.Sorted(maps.Keys(a.fields)); !slices.Equal(got, test.fields) || a.scratch != test.scratch || a.unsure != test.unsure {
			t.Errorf("%s: asks %q, scratch %v, unsure %v", name, got, a.scratch, a.unsure)
		}
	}
}

// A classic filter asks for fields by negative offsets.
func TestAsksOfClassic(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		// What tcpdump -ddd makes of "vlan 100" on a machine that takes tags out.
		"10\n48 0 0 4294963248\n21 4 0 1\n40 0 0 12\n21 2 0 33024\n21 1 0 34984\n21 0 3 37120\n40 0 0 14\n84 0 0 4095\n21 0 0 100\n6 0 0 262144\n": {"vlan_present"},
		"2\n32 0 0 4294963244\n22 0 0 0\n": {"vlan_tci"},
		"2\n32 0 0 4294963232\n22 0 0 0\n": {"hash"},
		"2\n32 0 0 12\n22 0 0 0\n":         nil,
	} {
		program, err := parseClassic(text)
		if err != nil {
			t.Fatal(err)
		}
		instructions, err := translate(program)
		if err != nil {
			t.Fatal(err)
		}
		a := asksOf(instructions)
		if got := slices.Sorted(maps.Keys(a.fields)); !slices.Equal(got, want) || a.unsure {
			t.Errorf("%q asks %q, unsure %v", text, got, a.unsure)
		}
	}
	program, _ := parseClassic("2\n40 0 0 4293918720\n22 0 0 0\n") // SKF_NET_OFF
	instructions, err := translate(program)
	if err != nil {
		t.Fatal(err)
	}
	if a := asksOf(instructions); !a.below {
		t.Error("a load from the network header on is not noticed")
	}
}
