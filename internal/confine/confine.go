// Package confine drops what a process no longer needs once it is set up: capabilities,
// the ability to gain others by executing a program and, with Landlock, access to the
// file system and the network. This limits the damage if a malicious input takes over the
// process.
package confine

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	landlocksys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"

	"github.com/ebpfdump/ebpfdump/internal/capability"
)

// Keep drops all capabilities but those, on all threads and irrevocably. It never adds
// one. If a capability is held only as part of a larger one, the larger one is kept.
//
// Programs that the process executes afterwards get none either, including set-user-id
// ones (no_new_privs). Processes started before are not affected.
func Keep(capabilities ...int) error {
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("giving up privileges: setting no_new_privs: %w", errno)
	}
	sets, err := current()
	if err != nil {
		return err
	}
	keep := wanted(sets.permitted, capabilities)
	sets = capabilitySets{effective: sets.effective & keep, permitted: sets.permitted & keep}
	header, data := sets.encode()
	_, _, errno := psx.Syscall3(unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(data)), 0)
	runtime.KeepAlive(header)
	runtime.KeepAlive(data)
	if errno != 0 {
		return fmt.Errorf("giving up capabilities: %w", errno)
	}
	return nil
}

// wanted returns the set of capabilities to keep, as a bit mask.
func wanted(permitted uint64, capabilities []int) (set uint64) {
	for _, c := range capabilities {
		whole, part := capability.IncludedIn(c)
		if part && permitted>>c&1 == 0 {
			c = whole
		}
		set |= 1 << c
	}
	return set
}

// ToOpenFiles leaves the process nothing but its open files: no capability and, where the
// kernel has Landlock, no way to open, create or execute a file, or to reach the network
// or another process. Landlock came with Linux 5.13, and later kernels restrict more than
// earlier ones.
//
// In the folders of removable the process may still remove files, such as an output that
// stayed empty.
func ToOpenFiles(removable ...string) error {
	var keep []int
	if HasLandlock() {
		for _, folder := range removable {
			// Landlock reduces this capability to removing files there.
			keep = append(keep, NeedsToRemoveFrom(folder)...)
		}
	}
	if err := Keep(keep...); err != nil {
		return err
	}
	var rules []landlock.Rule
	for _, folder := range removable {
		rules = append(rules, landlock.PathAccess(landlocksys.AccessFSRemoveFile, folder))
	}
	if err := landlock.V11.BestEffort().Restrict(rules...); err != nil {
		return fmt.Errorf("restricting the process with Landlock: %w", err)
	}
	return nil
}

// HasLandlock tells whether the kernel has Landlock enabled.
func HasLandlock() bool {
	version, err := landlocksys.LandlockGetABIVersion()
	return err == nil && version > 0
}

// NeedsToRemoveFrom returns the capabilities that removing a file of our own from a
// folder needs.
func NeedsToRemoveFrom(folder string) []int {
	if Unprivileged(func() error { return mayRemoveFrom(folder) }) != nil {
		return []int{unix.CAP_DAC_OVERRIDE}
	}
	return nil
}

// mayRemoveFrom returns nil if this thread may remove its own files from a folder.
func mayRemoveFrom(folder string) error {
	return unix.Faccessat2(unix.AT_FDCWD, folder, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
}

// Unprivileged runs try on a thread without effective capabilities, to find out whether
// this kernel requires one.
func Unprivileged(try func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		before, err := current()
		if err == nil {
			err = capabilitySets{permitted: before.permitted, inheritable: before.inheritable}.setHere()
		}
		if err != nil {
			result <- err // and the thread ends with the goroutine
			return
		}
		outcome := try()
		if err := before.setHere(); err != nil {
			result <- errors.Join(outcome, err)
			return
		}
		runtime.UnlockOSThread()
		result <- outcome
	}()
	return <-result
}

// capabilitySets are the capabilities of a thread, as bit masks.
type capabilitySets struct{ effective, permitted, inheritable uint64 }

// current returns the sets of this thread.
func current() (capabilitySets, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // 32 capabilities each
	if err := unix.Capget(&header, &data[0]); err != nil {
		return capabilitySets{}, fmt.Errorf("asking for the capabilities: %w", err)
	}
	join := func(high, low uint32) uint64 { return uint64(high)<<32 | uint64(low) }
	return capabilitySets{
		effective:   join(data[1].Effective, data[0].Effective),
		permitted:   join(data[1].Permitted, data[0].Permitted),
		inheritable: join(data[1].Inheritable, data[0].Inheritable),
	}, nil
}

func (s capabilitySets) encode() (*unix.CapUserHeader, *[2]unix.CapUserData) {
	data := new([2]unix.CapUserData)
	for i := range data {
		data[i] = unix.CapUserData{
			Effective: uint32(s.effective >> (32 * i)), Permitted: uint32(s.permitted >> (32 * i)), Inheritable: uint32(s.inheritable >> (32 * i)),
		}
	}
	return &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, data
}

// setHere sets the capabilities of this thread.
func (s capabilitySets) setHere() error {
	header, data := s.encode()
	if err := unix.Capset(header, &data[0]); err != nil {
		return fmt.Errorf("changing a thread's capabilities: %w", err)
	}
	return nil
}
