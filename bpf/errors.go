package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/capability"
)

// MissingError says that a privilege or a feature of the kernel is missing.
type MissingError struct {
	// What is missing, as a clause: "loading the tap needs CAP_BPF".
	What string
	// Hint is what to do about it.
	Hint string
	// Otherwise is an alternative that does without it; empty if there is none.
	Otherwise string
	// Setting is the field of the caller's options that the hint mentions, such as
	// SettingCalls; empty if it mentions none. A program with a command line names its
	// flag instead.
	Setting string
	// Capability is what the process lacks, such as "CAP_BPF"; empty if it is something else.
	Capability string
	// Err is what the kernel said.
	Err error
}

// SettingCalls is the Setting of errors that occur only with CallsOptions.
const SettingCalls = "CallsOptions"

func (e *MissingError) Error() string {
	text := e.What + ": " + e.Hint
	if e.Otherwise != "" {
		text += ", or " + e.Otherwise
	}
	return text
}

func (e *MissingError) Unwrap() error { return e.Err }

// LacksCapability is the error of an operation that needs a capability which the process
// lacks, such as unix.CAP_NET_RAW. doing is the operation: "opening a raw socket".
func LacksCapability(lacking int, doing string, err error) *MissingError {
	name := capability.Cap(lacking).String()
	return &MissingError{
		What:       doing + " needs " + name,
		Hint:       capability.CurrentPrivilege().Hint(name),
		Capability: name,
		Err:        err,
	}
}

// host is what Diagnose knows of the machine, so that tests can pass another one.
type host struct {
	release   string
	privilege capability.Privilege
	ringbuf   error
}

// Diagnose turns the error of loading a program or making a map into what the user can
// do about it, a *MissingError if a privilege or a feature of the kernel is missing. doing
// is what failed: "loading the tap". Probes run only here, after a failure.
func Diagnose(doing string, err error) error {
	var name unix.Utsname
	_ = unix.Uname(&name)
	return explain(doing, err, host{
		release:   unix.ByteSliceToString(name.Release[:]),
		privilege: capability.CurrentPrivilege(),
		ringbuf:   features.HaveMapType(ebpf.RingBuf),
	})
}

func explain(doing string, err error, h host) error {
	var refused *ebpf.VerifierError
	switch {
	case errors.As(err, &refused):
		// First, because the verifier's refusal is EACCES: "permission denied".
		return fmt.Errorf("%s: the verifier of Linux %s refuses it: %w", doing, h.release, err)
	case needsProc(err):
		return &MissingError{
			What: doing + " needs /proc",
			Hint: "mount it: mount -t proc proc /proc",
			Err:  err,
		}
	case errors.Is(err, unix.ENOSYS):
		return &MissingError{
			What: "Linux " + h.release + " is built without bpf(2)",
			Hint: "use a kernel with CONFIG_BPF_SYSCALL, 5.8 or newer",
			Err:  err,
		}
	case errors.Is(h.ringbuf, ebpf.ErrNotSupported):
		return &MissingError{
			What: doing + " needs the BPF ring buffer of Linux 5.8, this is Linux " + h.release,
			Hint: "use a newer kernel",
			Err:  err,
		}
	case !h.privilege.MayLoad():
		return &MissingError{
			What:       doing + " needs CAP_BPF",
			Hint:       h.privilege.Hint("CAP_BPF"),
			Capability: "CAP_BPF",
			Err:        err,
		}
	case errors.Is(err, unix.EPERM) && h.privilege.Nested:
		return &MissingError{
			What:       doing + " needs CAP_BPF outside of this user namespace",
			Hint:       h.privilege.Hint("CAP_BPF"),
			Capability: "CAP_BPF",
			Err:        err,
		}
	case errors.Is(err, unix.EPERM):
		return &MissingError{
			What: doing + " is not permitted although CAP_BPF is held",
			Hint: "look for a seccomp profile of the container, kernel lockdown, or before Linux 5.11 a small RLIMIT_MEMLOCK (ulimit -l)",
			Err:  err,
		}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// needsProc tells whether an error is about a missing file in /proc, which the library
// reads before it loads anything.
func needsProc(err error) bool {
	var path *fs.PathError
	return errors.As(err, &path) && errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(path.Path, "/proc/")
}
