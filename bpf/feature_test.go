package bpf

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// All that the tap's object is made of must be probed for, and nothing else.
func TestFeaturesAreTheTaps(t *testing.T) {
	t.Parallel()
	spec, err := loadTap()
	if err != nil {
		t.Fatal(err)
	}
	type part struct {
		program ebpf.ProgramType
		mapType ebpf.MapType
		helper  asm.BuiltinFunc
	}
	used := make(map[part]bool)
	for _, m := range spec.Maps {
		used[part{mapType: m.Type}] = true
	}
	for _, p := range spec.Programs {
		used[part{program: p.Type}] = true
		for _, ins := range p.Instructions {
			if ins.IsBuiltinCall() {
				used[part{helper: asm.BuiltinFunc(ins.Constant)}] = true
			}
		}
	}
	for _, f := range Features() {
		p := part{f.programType, f.mapType, f.helper}
		if !used[p] {
			t.Errorf("%s %s is not in the tap", f.Kind, f.Name)
		}
		delete(used, p)
	}
	for p := range used {
		t.Errorf("nothing probes for %+v", p)
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	requirePrivilege(t)
	for _, f := range Features() {
		if err := f.Probe(); err != nil {
			t.Errorf("%s %s: %v", f.Kind, f.Name, err)
		}
	}
	if (Feature{Kind: "helper", Name: "none"}).Probe() == nil {
		t.Error("a feature that is none is there")
	}
}
