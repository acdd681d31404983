package process

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/capability"
)

// hidden tells whether an error of reading /proc is about a process that is there, and is not
// shown.
func (p *Process) hidden(err error) bool { return errors.Is(err, fs.ErrNotExist) && !p.Exited() }

// Hidden says why All lacks processes that nobody can count; nil if it lacks none. The first
// process is always there.
func Hidden() error {
	if _, err := os.Stat("/proc/1"); errors.Is(err, fs.ErrNotExist) {
		return hides("processes of other users", err)
	}
	return nil
}

// hides says why /proc does not show processes.
func hides(what string, err error) error {
	if _, serr := os.Stat("/proc/self"); serr == nil && !capability.Held(unix.CAP_SYS_PTRACE) {
		return bpf.LacksCapability(unix.CAP_SYS_PTRACE, "looking into "+what+", which /proc hides (hidepid),", err)
	}
	return &bpf.MissingError{
		What: "/proc does not show " + what,
		Hint: "mount that of this pid namespace (mount -t proc proc /proc)",
		Err:  err,
	}
}
