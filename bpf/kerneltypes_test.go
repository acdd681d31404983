package bpf

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// TestKernelTypes compares the types that are cut out of the kernel's with what the
// library finds in all of them.
func TestKernelTypes(t *testing.T) {
	t.Parallel()
	all, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	specs, err := readObjects(loadHook, loadCalls)
	if err != nil {
		t.Fatal(err)
	}
	few := kernelTypes(specs...)
	if few == nil {
		t.Fatal("the kernel's types cannot be cut")
	}
	compared := 0
	for _, name := range []string{"task_struct", "tcp_sock", "sock", "file", "upid", "signal_struct", "sk_filter", "bpf_iter__task"} {
		var want, got *btf.Struct
		if err := all.TypeByName(name, &want); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := few.TypeByName(name, &got); err != nil {
			t.Fatalf("%s in the cut: %v", name, err)
		}
		compared += compareTypes(t, name, want, got)
	}
	if compared < 1000 {
		t.Errorf("only %d members were compared", compared)
	}
}

// compareTypes compares two types by value, and says how many members they have.
func compareTypes(t *testing.T, path string, want, got btf.Type) (members int) {
	t.Helper()
	want, got = btf.UnderlyingType(want), btf.UnderlyingType(got)
	if want.TypeName() != got.TypeName() {
		t.Errorf("%s is %v, in the cut %v", path, want, got)
		return 0
	}
	lists := func(of btf.Type) []btf.Member {
		switch of := of.(type) {
		case *btf.Struct:
			return of.Members
		case *btf.Union:
			return of.Members
		}
		return nil
	}
	if _, pointer := want.(*btf.Pointer); !pointer {
		size, err := btf.Sizeof(want)
		if cut, cerr := btf.Sizeof(got); size != cut || err != nil || cerr != nil {
			t.Errorf("%s has %d bytes, in the cut %d (%v, %v)", path, size, cut, err, cerr)
		}
	} else if _, pointer := got.(*btf.Pointer); !pointer {
		t.Errorf("%s is a pointer, in the cut %v", path, got)
	}
	w, g := lists(want), lists(got)
	if len(w) != len(g) {
		t.Fatalf("%s has %d members, in the cut %d", path, len(w), len(g))
	}
	for i := range w {
		if w[i].Name != g[i].Name || w[i].Offset != g[i].Offset || w[i].BitfieldSize != g[i].BitfieldSize {
			t.Errorf("%s: member %+v, in the cut %+v", path, w[i], g[i])
		}
		members += 1 + compareTypes(t, path+"."+w[i].Name, w[i].Type, g[i].Type)
	}
	return members
}

// A kernel of tomorrow may have types that nobody knows: that is no reason to fall over.
func TestCutTypesTakesAnything(t *testing.T) {
	t.Parallel()
	specs, err := readObjects(loadHook)
	if err != nil {
		t.Fatal(err)
	}
	builder, err := btf.NewBuilder(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for typ := range specs[0].Types.All() {
		if s, ok := typ.(*btf.Struct); ok {
			names[s.Name] = true
			if _, err := builder.Add(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	whole, err := builder.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cutTypes(whole, names); err != nil {
		t.Fatal(err)
	}
	random := testutil.Random(t)
	refused := 0
	for range 20000 {
		damaged := append([]byte(nil), whole[:len(whole)-random.IntN(2)*random.IntN(len(whole))]...)
		for range random.IntN(4) {
			if len(damaged) > 0 {
				damaged[random.IntN(len(damaged))] = byte(random.Uint32())
			}
		}
		if _, err := cutTypes(damaged, names); err != nil {
			refused++
		}
	}
	if refused == 0 {
		t.Error("nothing was refused")
	}
}

// TestKernelFunction compares the number of a function with the library's.
func TestKernelFunction(t *testing.T) {
	t.Parallel()
	all, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	const name = "tcp_v4_rcv"
	var function *btf.Func
	if err := all.TypeByName(name, &function); err != nil {
		t.Fatal(err)
	}
	want, err := all.TypeID(function)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := kernelFunction(name); got != want || err != nil {
		t.Errorf("%s is type %d, want %d (%v)", name, got, want, err)
	}
	if got, err := kernelFunction(name + "_"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a function that no kernel has is type %d (%v)", got, err)
	}
}
