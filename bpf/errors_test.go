package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/capability"
)

func TestExplain(t *testing.T) {
	t.Parallel()
	capable := capability.Privilege{Effective: 1 << unix.CAP_BPF}
	nested := capability.Privilege{Effective: 1 << unix.CAP_BPF, Nested: true}
	noProc := &fs.PathError{Op: "open", Path: "/proc/self/mountinfo", Err: unix.ENOENT}
	for name, test := range map[string]struct {
		err        error
		host       host
		what       string // of a *MissingError
		capability string
	}{
		"no bpf(2)":       {unix.ENOSYS, host{privilege: capable}, "Linux 5.4 is built without bpf(2)", ""},
		"no ring buffer":  {unix.EINVAL, host{privilege: capable, ringbuf: ebpf.ErrNotSupported}, "loading needs the BPF ring buffer of Linux 5.8, this is Linux 5.4", ""},
		"no privilege":    {unix.EPERM, host{}, "loading needs CAP_BPF", "CAP_BPF"},
		"user namespace":  {unix.EPERM, host{privilege: nested}, "loading needs CAP_BPF outside of this user namespace", "CAP_BPF"},
		"seccomp":         {unix.EPERM, host{privilege: capable}, "loading is not permitted although CAP_BPF is held", ""},
		"no /proc":        {noProc, host{privilege: capable}, "loading needs /proc", ""},
		"verifier":        {&ebpf.VerifierError{Cause: unix.EACCES}, host{}, "", ""},
		"something else":  {unix.ENOMEM, host{privilege: capable}, "", ""},
		"a file, no /sys": {&fs.PathError{Op: "open", Path: "/sys/x", Err: unix.ENOENT}, host{privilege: capable}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.host.release = "5.4"
			err := explain("loading", fmt.Errorf("load program: %w", test.err), test.host)
			if !errors.Is(err, test.err) {
				t.Errorf("%v hides %v", err, test.err)
			}
			var missing *MissingError
			if !errors.As(err, &missing) {
				missing = &MissingError{}
			}
			if missing.What != test.what || missing.Capability != test.capability {
				t.Errorf("%q, lacks %q, want %q, %q", missing.What, missing.Capability, test.what, test.capability)
			}
			if (missing.What == "") != (missing.Hint == "") {
				t.Errorf("the hint is %q", missing.Hint)
			}
		})
	}
}
