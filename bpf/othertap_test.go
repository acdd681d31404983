package bpf

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// filterOf is a program as a filter that others find on a socket.
func filterOf(t *testing.T, p *ebpf.Program) *OwnFilter {
	t.Helper()
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return &OwnFilter{Program: Program{ID: uint32(id), Name: info.Name}}
}

// A tap on a socket is told from a filter of somebody else, even one that is called so, and it is known
// whether it was left there and what is inside.
func TestOtherTap(t *testing.T) {
	requirePrivilege(t)
	testutil.BPFFileSystem(t)
	program := func(name string) *ebpf.Program {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.SocketFilter, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 7), asm.Return()}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		return p
	}
	inner := filterOf(t, program("inner"))
	tap := mustOpen(t, Options{RingSize: MinRingSize, Leased: true})
	wrap := func(f *OwnFilter) *OwnFilter {
		w, err := tap.Wrap(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		return filterOf(t, w.tap)
	}
	classic := wrap(&OwnFilter{Classic: []unix.SockFilter{{Code: unix.BPF_RET, K: 9}}})
	for _, ended := range []bool{false, true} {
		if ended {
			if err := tap.objects.LeaseEnd.Set(uint64(1)); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []struct {
			name   string
			filter *OwnFilter
			want   *OtherTap
		}{
			{"somebody else's", inner, nil},
			{"somebody else's, called like a tap", filterOf(t, program(tapProgTap)), nil},
			{"somebody else's, called like a wrapper", filterOf(t, program(wrapperName)), nil},
			{"classic", &OwnFilter{Classic: []unix.SockFilter{{Code: unix.BPF_RET, K: 9}}}, nil},
			{"a tap", filterOf(t, tap.objects.Tap), &OtherTap{Ended: ended}},
			{"a classic filter inside", classic, &OtherTap{Ended: ended, Wraps: true}},
			{"an eBPF filter inside", wrap(inner), &OtherTap{Ended: ended, Wraps: true, Inside: *inner}},
		} {
			got, err := c.filter.OtherTap()
			if err != nil || (got == nil) != (c.want == nil) {
				t.Errorf("%s: %+v, %v", c.name, got, err)
				continue
			}
			if got == nil {
				continue
			}
			if c.want.Inside.Key() != 0 && (got.Inside.Program.Name != "inner" || got.Inside.Program.Loaded == 0) {
				t.Errorf("%s: inside is %+v", c.name, got.Inside)
			}
			if got.Ended != c.want.Ended || got.Wraps != c.want.Wraps || got.Inside.Key() != c.want.Inside.Key() {
				t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
			}
		}
	}
}

// A map without a name is called by its number.
func TestUnnamedMap(t *testing.T) {
	requirePrivilege(t)
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SocketFilter, License: "GPL", Instructions: asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, m.FD()), asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "end"), asm.StoreImm(asm.R0, 0, 1, asm.Word),
		asm.Mov.Imm(asm.R0, -1).WithSymbol("end"), asm.Return(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	asker, err := OpenAsker(filterOf(t, p))
	if err == nil {
		asker.Close()
		t.Fatal("it is asked")
	}
	if text := err.Error(); !strings.HasSuffix(text, " (without a name)") || !strings.Contains(text, "it may write to its map ") || strings.Contains(text, "map  ") {
		t.Error(text)
	}
}

// Where no BPF file system is mounted, or none that may be written to, it is said what to do.
func TestFileSystem(t *testing.T) {
	requirePrivilege(t)
	folder := t.TempDir()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := testutil.WithoutBPFFileSystem(); err != nil { // this thread
			t.Error(err)
			return
		}
		expect := func(what string) {
			_, err := FileSystem()
			var missing *MissingError
			if !errors.As(err, &missing) || !strings.Contains(missing.What, what) || !strings.HasSuffix(missing.Hint, "mount -t bpf bpf /sys/fs/bpf") {
				t.Errorf("%v, want %s", err, what)
			}
		}
		expect("none is mounted")
		if err := unix.Mount("bpf", folder, "bpf", unix.MS_RDONLY, ""); err != nil {
			t.Error(err)
			return
		}
		expect("that at " + folder + " may not be written to")
		if err := unix.Mount("bpf", folder, "bpf", unix.MS_REMOUNT, ""); err != nil {
			t.Error(err)
			return
		}
		if got, err := FileSystem(); got != folder || err != nil {
			t.Errorf("%s, %v", got, err)
		}
	}()
	<-done
	if _, err := os.Stat(folder); err != nil {
		t.Error(err)
	}
}
