// Package process deals with other processes: it holds them by a pidfd, reads their /proc,
// duplicates their descriptors, and starts commands that wait before they begin.
//
// It knows nothing of packets, and attaches nothing.
package process

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/capability"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// Process is another process, held by a pidfd, so that a reused pid is not mistaken for it.
type Process struct {
	PID     int
	Command string // its name, which it chooses, of any bytes
	pidfd   int
	other   copier       // once the first thread has ended
	class   func() error // once: whether copies change the class of its sockets
}

// Open opens a process. ESRCH means that it has ended, or never existed.
func Open(pid int) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("joining process %d: %w", pid, unix.ESRCH)
	}
	if err != nil {
		return nil, fmt.Errorf("opening process %d: %w", pid, err)
	}
	p := &Process{PID: pid, pidfd: fd}
	p.class = sync.OnceValue(p.changesClass)
	p.Command, _ = p.comm() // empty if it has ended by now
	return p, nil
}

func (p *Process) String() string { return "process " + p.Label() }

// Label is its number and name, for people.
func (p *Process) Label() string {
	if p.Command == "" { // it may not be read, or is empty
		return strconv.Itoa(p.PID)
	}
	return fmt.Sprintf("%d (%s)", p.PID, terminal.Plain(p.Command))
}

// comm is the name that the kernel has of the process.
func (p *Process) comm() (string, error) {
	text, err := os.ReadFile(p.proc("comm"))
	return strings.TrimSuffix(string(text), "\n"), err // the last line break is the kernel's
}

// Close closes the pidfd. It is safe to call it twice.
func (p *Process) Close() {
	p.other.close()
	if p.pidfd >= 0 {
		unix.Close(p.pidfd)
		p.pidfd = -1
	}
}

func (p *Process) proc(name string) string {
	return filepath.Join("/proc", strconv.Itoa(p.PID), name)
}

// Exited tells whether the process has ended.
func (p *Process) Exited() bool {
	fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
	n, _ := unix.Poll(fds, 0)
	return n > 0
}

// AwaitExit returns when the process has ended, or with the context's error.
func (p *Process) AwaitExit(ctx context.Context) error {
	over, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("waiting for %s: %w", p, err)
	}
	defer unix.Close(over)
	told := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_, _ = unix.Write(over, binary.NativeEndian.AppendUint64(nil, 1))
		close(told)
	})
	defer func() {
		if !stop() {
			<-told // it has the eventfd
		}
	}()
	fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}, {Fd: int32(over), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("waiting for %s: %w", p, err)
		case fds[0].Revents != 0:
			return nil
		default:
			return ctx.Err()
		}
	}
}

// Lives tells whether the process has a thread that has not begun to exit: for such a process,
// and no other, the kernel has yet to report the exit. One that /proc hides (hidepid of proc(5)) is
// taken to have one until it has exited.
func (p *Process) Lives() bool {
	if _, err := os.Stat(p.proc("task/" + strconv.Itoa(p.PID) + "/stat")); err != nil {
		return p.pidfd >= 0 && !p.Exited()
	}
	for range p.threads() {
		return !p.Exited() // else the pid is another process's
	}
	return false
}

// ending tells from a thread's stat (proc(5)) whether it has begun to exit.
func ending(stat string) bool {
	const exiting = 0x4 // PF_EXITING of the kernel
	flags, ok := taskFlags(stat)
	return !ok || flags&exiting != 0
}

// taskFlags are the kernel's flags of a task, in its stat.
func taskFlags(stat string) (flags uint64, ok bool) {
	// After the name, which may contain any character.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 7 {
		return 0, false
	}
	flags, err := strconv.ParseUint(fields[6], 10, 64)
	return flags, err == nil
}

// OfKernel tells whether it is a thread of the kernel, which has no descriptors.
func (p *Process) OfKernel() bool {
	const kernelThread = 0x200000 // PF_KTHREAD
	stat, err := os.ReadFile(p.proc("stat"))
	flags, ok := taskFlags(string(stat))
	return err == nil && ok && flags&kernelThread != 0
}

// CopyDescriptor duplicates a descriptor of the process into this one. It refuses to if that would
// change something for the process.
func (p *Process) CopyDescriptor(fd int) (int, error) {
	if err := p.class(); err != nil {
		return -1, err
	}
	copied, err := p.copy(fd)
	var missing *bpf.MissingError
	switch {
	case err == nil:
		return copied, nil
	case errors.As(err, &missing):
		return -1, err
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return -1, p.notCopied(err)
	case errors.Is(err, unix.ENOSYS):
		return -1, &bpf.MissingError{
			What: "copying a socket of another process needs pidfd_getfd of Linux 5.6",
			Hint: "use a newer kernel",
			Err:  err,
		}
	}
	return -1, fmt.Errorf("copying descriptor %d of %s: %w", fd, p, err)
}

// notListed says why the descriptors of the process may not be listed.
func (p *Process) notListed(err error) error {
	uid, owner := p.user()
	// A process of our own user that cannot be accessed has more privileges than we.
	if errors.Is(err, unix.EACCES) && !capability.Held(unix.CAP_DAC_READ_SEARCH) && uid != os.Geteuid() {
		return bpf.LacksCapability(unix.CAP_DAC_READ_SEARCH, fmt.Sprintf("listing the sockets of %s%s", p, owner), err)
	}
	return p.notAccessed(owner, err)
}

// notCopied says why a descriptor of the process may not be copied.
func (p *Process) notCopied(err error) error {
	_, owner := p.user()
	if errors.Is(err, unix.EACCES) { // the kernel itself says EPERM
		return p.forbidden(fmt.Sprintf("copying a socket of %s%s is not permitted, whatever capabilities are held", p, owner), err)
	}
	return p.notAccessed(owner, err)
}

func (p *Process) notAccessed(owner string, err error) error {
	doing := fmt.Sprintf("copying the sockets of %s%s", p, owner)
	if capability.Held(unix.CAP_SYS_PTRACE) {
		return p.forbidden(doing+" is not permitted although CAP_SYS_PTRACE is held", err)
	}
	return bpf.LacksCapability(unix.CAP_SYS_PTRACE, doing, err)
}

func (p *Process) forbidden(what string, err error) error {
	return &bpf.MissingError{
		What: what,
		Hint: "look for another user namespace, a security module (AppArmor, SELinux, Yama) or a seccomp profile of the container",
		Err:  err,
	}
}

// user is the user of the process, and what to say of him; -1 and nothing if it is not known.
func (p *Process) user() (uid int, owner string) {
	var st unix.Stat_t
	if unix.Stat(p.proc(""), &st) != nil {
		return -1, ""
	}
	return int(st.Uid), fmt.Sprintf(" of user %d", st.Uid)
}

// Descriptor is an open descriptor of a process.
type Descriptor struct {
	FD     int
	target string // of the link in /proc/PID/fd
}

// String is the kernel's description.
func (f Descriptor) String() string { return f.target }

// Inode is the inode number of a socket; ok is false for anything else.
func (f Descriptor) Inode() (n uint64, ok bool) {
	digits, ok := strings.CutPrefix(f.target, "socket:[")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(digits, "]"), 10, 64)
	return n, err == nil
}

// IsURing tells whether it is an io_uring.
func (f Descriptor) IsURing() bool { return f.target == "anon_inode:[io_uring]" }

// Descriptors lists the open descriptors of the process.
func (p *Process) Descriptors() ([]Descriptor, error) {
	all, err := p.list(p.proc("fd"))
	if len(all) > 0 || !p.ends(p.PID) {
		return all, err
	}
	for tid := range p.threads() {
		if all, err = p.list(p.thread(tid, "fd")); len(all) > 0 || !p.ends(tid) {
			break
		}
	}
	return all, err
}

// list lists the descriptors in a folder of /proc.
func (p *Process) list(path string) ([]Descriptor, error) {
	folder, err := os.Open(path)
	switch {
	case errors.Is(err, os.ErrPermission):
		return nil, p.notListed(err)
	case p.hidden(err):
		return nil, hides(p.String(), err)
	case err != nil:
		return nil, fmt.Errorf("listing the descriptors of %s: %w", p, err)
	}
	defer folder.Close()
	names, err := folder.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("listing the descriptors of %s: %w", p, err)
	}
	var all []Descriptor
	target := make([]byte, unix.PathMax)
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		n, err := unix.Readlinkat(int(folder.Fd()), name, target)
		if errors.Is(err, os.ErrPermission) {
			return nil, p.notListed(err)
		}
		if err == nil {
			all = append(all, Descriptor{fd, string(target[:n])})
		}
	}
	return all, nil
}

// MappedSockets lists the inodes of sockets that the process has mapped into its memory: the
// ring of a packet socket, or pages of a TCP stream.
func (p *Process) MappedSockets() iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		maps, err := os.Open(p.living("maps"))
		if err != nil {
			return
		}
		defer maps.Close()
		for lines := bufio.NewScanner(maps); lines.Scan(); {
			at := strings.LastIndex(lines.Text(), "socket:[")
			if at < 0 {
				continue
			}
			if inode, ok := (Descriptor{target: lines.Text()[at:]}).Inode(); ok && !yield(inode) {
				return
			}
		}
	}
}

// EachSocket calls do with a duplicate of each socket of the process. One that is closed
// meanwhile is left out, and so are all if the process has ended.
func (p *Process) EachSocket(do func(fd int, inode uint64) error) error {
	files, err := p.Descriptors()
	if err != nil {
		return nil
	}
	var errs []error
	for _, f := range files {
		inode, ok := f.Inode()
		if !ok {
			continue
		}
		fd, err := p.CopyDescriptor(f.FD)
		if err != nil {
			continue
		}
		errs = append(errs, do(fd, inode))
		unix.Close(fd)
	}
	return errors.Join(errs...)
}

// Children lists the running processes that the process has started.
func (p *Process) Children() []int {
	var all []int
	tasks, _ := filepath.Glob(p.proc("task/*/children"))
	for _, name := range tasks {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for _, field := range bytes.Fields(text) {
			if pid, err := strconv.Atoi(string(field)); err == nil {
				all = append(all, pid)
			}
		}
	}
	return all
}

// Is32Bit tells whether the program uses other system calls than the kernel's native ones.
func (p *Process) Is32Bit() bool {
	f, err := elf.Open(p.living("exe"))
	if err != nil {
		return false
	}
	defer f.Close()
	return f.Class == elf.ELFCLASS32
}

// Network opens the network namespace of the process.
func (p *Process) Network() (*os.File, error) {
	namespace, err := os.Open(p.living("ns/net"))
	if err != nil {
		return nil, fmt.Errorf("opening the network namespace of %s: %w", p, err)
	}
	return namespace, nil
}

// ForeignNetwork tells whether the process is in another network namespace than this thread.
func (p *Process) ForeignNetwork() bool {
	// Not /proc/self: that is the namespace of the first thread, and threads may be in several.
	own, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return false
	}
	theirs, err := os.Readlink(p.living("ns/net"))
	return err == nil && own != theirs
}
