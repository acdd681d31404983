package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

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
