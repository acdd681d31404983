package bpf

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

func TestMapping(t *testing.T) {
	t.Parallel()
	testutil.RequirePrivilege(t)
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 12, MaxEntries: 1000, Flags: unix.BPF_F_MMAPABLE})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	memory, err := mapMemory(m)
	if err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 12)
	copy(value, "twelve bytes")
	if err := m.Put(uint32(999), value); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 12)
	if _, err := memory.ReadAt(got, 999*16); err != nil || string(got) != "twelve bytes" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := memory.WriteAt([]byte("other"), 998*16); err != nil {
		t.Error(err)
	}
	if err := m.Lookup(uint32(998), &got); err != nil || string(got[:5]) != "other" {
		t.Errorf("the map has %q, %v", got, err)
	}
	for _, off := range []int64{-1, 1 << 20} {
		if _, err := memory.ReadAt(got, off); !errors.Is(err, unix.ERANGE) {
			t.Errorf("reading at %d: %v", off, err)
		}
	}
	for range 2 {
		if err := memory.close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := memory.ReadAt(got, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
}

// What is closed gives its memory back at once: a program that captures again and again does not
// keep that of all captures before. Only pages with variables wait for the garbage collector.
func TestCloseUnmaps(t *testing.T) {
	testutil.RequirePrivilege(t)
	before := mappedMemory(t)
	tap := mustOpen(t, Options{RingSize: MinRingSize, Snaplen: MaxSnaplen})
	hook := mustHook(t, tap, HookOptions{})
	calls, err := OpenCalls(hook, CallsOptions{Sends: true, RingSize: MinRingSize})
	if err != nil {
		t.Fatal(err)
	}
	if during := mappedMemory(t); during < before+4<<20 {
		t.Errorf("%d bytes are mapped: which processes are followed is not among them", during)
	}
	if err := errors.Join(calls.Close(), hook.Close(), tap.Close()); err != nil {
		t.Error(err)
	}
	if after := mappedMemory(t); after > before {
		t.Errorf("%d bytes are still mapped, and were %d before", after, before)
	}
}

// mappedMemory is how many bytes of maps this process has mapped, but for single pages.
func mappedMemory(t *testing.T) (size int) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.Contains(line, "bpf-map") {
			continue
		}
		var begin, end int
		if _, err := fmt.Sscanf(line, "%x-%x", &begin, &end); err != nil {
			t.Fatal(err)
		}
		if end-begin > os.Getpagesize() {
			size += end - begin
		}
	}
	return size
}
