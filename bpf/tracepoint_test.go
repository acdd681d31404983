package bpf

import (
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// TestCallsLeaveNothing closes what follows calls: nothing of it stays in the kernel, and
// there is nobody who waits for the ends of the tracepoints.
func TestCallsLeaveNothing(t *testing.T) {
	t.Parallel()
	calls := mustFollow(t, CallsOptions{RingSize: MinRingSize})
	if calls.holder == nil && calls.way == atTracepoints || calls.holder != nil && int(calls.holder.next) != len(calls.links) {
		t.Errorf("of %d tracepoints the holder has %+v", len(calls.links), calls.holder)
	}
	awaitGone(t, calls)
}

// awaitGone closes, and waits until the kernel has given up the programs.
func awaitGone(t *testing.T, calls *Calls) {
	t.Helper()
	var ids []ebpf.ProgramID
	for _, p := range calls.objects.programs {
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		ids = append(ids, id)
	}
	if err := calls.Close(); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			p, err := ebpf.NewProgramFromID(id)
			if err != nil {
				break
			}
			p.Close()
			if time.Since(begin) > time.Minute {
				t.Fatalf("program %d is still there", id)
			}
		}
	}
}

func TestParseBlocked(t *testing.T) {
	t.Parallel()
	nr := map[string]string{"recvfrom": "45", "read": "0"}
	if unix.SYS_RECVFROM != 45 {
		t.Skip("the numbers are those of x86-64")
	}
	call, ok := parseBlocked(nr["recvfrom"] + " 0x4 0x7ffc1 0x200 0xffffffffffffffff 0x0 0x8 0x7ffe 0x7f31\n")
	want := callsBegunCall{Call: uint32(CallRecvfrom), Arguments: [6]uint64{4, 0x7ffc1, 0x200, 1<<64 - 1, 0, 8}}
	if !ok || call != want {
		t.Errorf("%+v, %t", call, ok)
	}
	// Among them a call that does not matter.
	for _, text := range []string{"", "running\n", "-1 0x7ffe 0x7f31\n", "45 0x4", "x 0 0 0 0 0 0 0 0", "45 0 0 0 0 0 zero 0 0", "232 0 0 0 0 0 0 0 0"} {
		if call, ok := parseBlocked(text); ok {
			t.Errorf("%q: %+v", text, call)
		}
	}
}

func FuzzParseBlocked(f *testing.F) {
	f.Add("45 0x4 0x7ffc1 0x200 0xffffffffffffffff 0x0 0x8 0x7ffe 0x7f31\n")
	f.Add("running")
	f.Fuzz(func(t *testing.T, text string) {
		if call, ok := parseBlocked(text); ok && !Call(call.Call).Receives() && call.Call < uint32(CallSocket) {
			t.Errorf("%q is call %d", text, call.Call)
		}
	})
}
