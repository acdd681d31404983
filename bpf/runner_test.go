package bpf

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// length is a filter that returns the packet's length and, in the upper half,
// its protocol.
const length = "8\n32 0 0 4294963200\n100 0 0 16\n2 0 0 0\n128 0 0 0\n7 0 0 0\n96 0 0 0\n76 0 0 0\n22 0 0 0\n"

func mustRunner(tb testing.TB, v *Verdict) *Runner {
	tb.Helper()
	requirePrivilege(tb)
	r, err := OpenRunner(v)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := r.Close(); err != nil {
			tb.Error(err)
		}
	})
	return r
}

// A filter sees each packet whole, whatever the kernel's limit.
func TestRunnerSizes(t *testing.T) {
	t.Parallel()
	program, err := parseClassic(length)
	if err != nil {
		t.Fatal(err)
	}
	instructions, err := translate(program)
	if err != nil {
		t.Fatal(err)
	}
	r := mustRunner(t, newVerdict("length", instructions))
	for _, size := range []int{1, 13, 14, 40, 1500, 3600, 4000, 9000, 65535, 65536, 70000, MaxSnaplen} {
		got, _, err := r.Run(make([]byte, size), Context{Protocol: unix.ETH_P_IP})
		if err != nil {
			t.Errorf("%d bytes: %v", size, err)
			continue
		}
		// Where the kernel's own limits allow it, with the protocol.
		want, hasProtocol := int32(size), size >= 40 && size < 3600
		if hasProtocol {
			want |= unix.ETH_P_IP << 16
		}
		if got != want && (hasProtocol || got&0xffff != want&0xffff) {
			t.Errorf("%d bytes: %#x, want %#x", size, got, want)
		}
	}
}

// The filter's maps keep what is in them, also across the two ways to run it.
func TestRunnerKeepsMaps(t *testing.T) {
	t.Parallel()
	requirePrivilege(t)
	r := mustRunner(t, mustRead(t, object(t, "clash", "-g"), ""))
	for i, size := range []int{10, 60000, 20, 50000, 30} {
		if got, _, err := r.Run(make([]byte, size), Context{Protocol: unix.ETH_P_IP}); err != nil || got != int32(1013+i) {
			t.Errorf("run %d: %d, %v", i, got, err)
		}
	}
}

func TestRunnerRefused(t *testing.T) {
	t.Parallel()
	requirePrivilege(t)
	_, err := OpenRunner(mustRead(t, object(t, "wild", "-g"), ""))
	var refused *RefusedError
	if !errors.As(err, &refused) {
		t.Errorf("%v", err)
	}
	// What is too much inside of the tap is fine alone.
	r := mustRunner(t, mustRead(t, object(t, "greedy", "-g"), ""))
	if got, _, err := r.Run(make([]byte, 20), Context{Protocol: unix.ETH_P_IP}); err != nil || got != 12 {
		t.Errorf("%d, %v", got, err)
	}
}

func TestRunnerEmpty(t *testing.T) {
	t.Parallel()
	r := mustRunner(t, Keep(12))
	if got, _, err := r.Run(nil, Context{}); err != nil || got != 12 {
		t.Errorf("%d, %v", got, err)
	}
}
