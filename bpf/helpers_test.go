package bpf

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// atLeast tells whether this kernel is as new as the set.
func (s *helperSet) atLeast(t *testing.T) bool {
	t.Helper()
	var major, minor int
	if _, err := fmt.Sscanf(release(), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major > s.major || major == s.major && minor >= s.minor
}

// The kernel itself is asked about each helper. Kernels that are older than a set,
// and newer than the one before, may have some of it.
func TestHelperSets(t *testing.T) {
	t.Parallel()
	requirePrivilege(t)
	for helper := asm.FnMapLookupElem; helper <= lastHelper; helper++ {
		taken := offersHelper(t, helper)
		set := offeredFrom(helper)
		switch {
		case set == nil && taken:
			t.Errorf("socket filters may call %s, which is in no set", helperName(helper))
		case set != nil && set.atLeast(t) && !taken:
			t.Errorf("socket filters may not call %s, which is in the set of %d.%d", helperName(helper), set.major, set.minor)
		}
	}
	for _, helper := range perfmonHelpers {
		if offeredFrom(helper) == nil {
			t.Errorf("%s needs CAP_PERFMON, and is in no set", helperName(helper))
		}
	}
}

// offersHelper asks the verifier for its word on a call, whatever it says of the
// arguments.
func offersHelper(t *testing.T, helper asm.BuiltinFunc) bool {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SocketFilter, License: "GPL", Instructions: asm.Instructions{helper.Call(), asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	var refused *ebpf.VerifierError
	switch {
	case err == nil:
		program.Close()
		return true
	case !errors.As(err, &refused):
		t.Fatalf("%s: %v", helperName(helper), err)
	}
	return !slices.ContainsFunc(refused.Log, noHelper.MatchString)
}

func TestHelperNames(t *testing.T) {
	t.Parallel()
	for helper, want := range map[asm.BuiltinFunc]string{
		asm.FnMapLookupElem: "bpf_map_lookup_elem", asm.FnSkStorageGet: "bpf_sk_storage_get",
		asm.FnSkcToTcp6Sock: "bpf_skc_to_tcp6_sock", asm.FnTracePrintk: "bpf_trace_printk",
	} {
		if got := helperName(helper); got != want {
			t.Errorf("%v: %s, want %s", helper, got, want)
		}
	}
}
