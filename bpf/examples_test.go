package bpf_test

import (
	"testing"

	"github.com/ebpfdump/ebpfdump/internal/capability"
	"github.com/ebpfdump/ebpfdump/internal/testutil"

	"golang.org/x/sys/unix"
)

// The examples print what they say. It is no parallel test: stdout belongs to it.
func TestExamplesPrint(t *testing.T) {
	if !capability.Held(unix.CAP_BPF) {
		testutil.Missing(t, "needs CAP_BPF")
	}
	for _, test := range []struct {
		name, want string
		example    func()
	}{
		{"Runner", "IP protocol 17: 64 bytes are kept\nIP protocol 1: 0 bytes are kept\n", ExampleRunner},
		{"Tap", "17 bytes, payload \"to myself\", network header of 20 bytes\n", ExampleTap},
	} {
		if got := testutil.Printed(t, test.example); got != test.want {
			t.Errorf("Example%s prints %q", test.name, got)
		}
	}
}
