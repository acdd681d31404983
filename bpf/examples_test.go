package bpf_test

import (
	"io"
	"os"
	"testing"

	"github.com/ebpfdump/ebpfdump/bpf"

	"golang.org/x/sys/unix"
)

// The examples print what they say. It is no parallel test: stdout belongs to it.
func TestExamplesPrint(t *testing.T) {
	if !bpf.HasCapability(unix.CAP_BPF) {
		if os.Getenv("EBPFDUMP_REQUIRE") == "1" {
			t.Fatal("CAP_BPF is missing and EBPFDUMP_REQUIRE is set")
		}
		t.Skip("needs CAP_BPF")
	}
	for _, test := range []struct {
		name, want string
		example    func()
	}{
		{"Runner", "IP protocol 17: 64 bytes are kept\nIP protocol 1: 0 bytes are kept\n", ExampleRunner},
		{"Tap", "17 bytes, payload \"to myself\", network header of 20 bytes\n", ExampleTap},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout := os.Stdout
		os.Stdout = w
		test.example() // a pipe has room for what it prints
		os.Stdout = stdout
		w.Close()
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || string(got) != test.want {
			t.Errorf("Example%s prints %q, %v", test.name, got, err)
		}
	}
}
