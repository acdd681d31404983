package capture

import (
	"bytes"
	"fmt"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// Offsets in struct seccomp_data.
const (
	dataNumber    = 0
	dataArch      = 4
	dataArguments = 16
)

// Arguments of system calls.
const (
	socketDomain   = 0
	socketType     = 1
	socketProtocol = 2
	sendtoAddress  = 4
)

// socketTypeMask leaves out SOCK_CLOEXEC and SOCK_NONBLOCK.
const socketTypeMask = 0xf

// notification is struct seccomp_notif: a thread that is held at a system call.
type notification struct {
	id        uint64
	tid       uint32
	_         uint32
	nr        int32
	_         uint32
	_         uint64
	arguments [6]uint64
}

type response struct {
	id    uint64
	value int64
	err   int32
	flags uint32
}

var architectures = map[string]uint32{
	"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64, "riscv64": unix.AUDIT_ARCH_RISCV64,
}

// holdFilter holds a thread at the calls after which a socket can get packets:
// bind, listen, connect, sendto with an address, which binds as well, and socket
// if it is none for streams. All others pass, above all those that send over a
// connection.
func holdFilter() ([]unix.SockFilter, error) {
	arch, ok := architectures[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("holding a command: not supported on %s", runtime.GOARCH)
	}
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	equal := func(value uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jt: yes, Jf: no}
	}
	give := func(value uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value}
	}
	const argument = 8 // bytes, the low half first
	return []unix.SockFilter{
		load(dataArch),
		equal(arch, 0, 16), // else allow
		load(dataNumber),
		equal(unix.SYS_BIND, 15, 0), // notify
		equal(unix.SYS_LISTEN, 14, 0),
		equal(unix.SYS_CONNECT, 13, 0),
		equal(unix.SYS_SENDTO, 0, 4),
		load(dataArguments + argument*sendtoAddress),
		equal(0, 0, 10), // else notify
		load(dataArguments + argument*sendtoAddress + 4),
		equal(0, 7, 8),               // allow, else notify
		equal(unix.SYS_SOCKET, 0, 6), // else allow
		load(dataArguments + argument*socketType),
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: socketTypeMask},
		equal(unix.SOCK_STREAM, 3, 0), // allow
		load(dataArguments + argument*socketDomain),
		equal(unix.AF_INET, 2, 0), // notify
		equal(unix.AF_INET6, 1, 0),
		give(unix.SECCOMP_RET_ALLOW),
		give(unix.SECCOMP_RET_USER_NOTIF),
	}, nil
}

// TryHold tells whether commands can be held, as Start needs it.
func TryHold() error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the filter ends with the thread
		listener, err := installHold(bpf.HasCapability(unix.CAP_SYS_ADMIN))
		if err == nil {
			err = unix.Close(listener)
		}
		result <- err
	}()
	return <-result
}

// installHold puts the filter on this thread and returns its listener. Without
// CAP_SYS_ADMIN it needs no_new_privs, which set-user-id programs notice.
func installHold(privileged bool) (listener int, err error) {
	filter, err := holdFilter()
	if err != nil {
		return -1, err
	}
	if !privileged {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return -1, fmt.Errorf("setting no_new_privs: %w", err)
		}
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	install := func(flags uintptr) (uintptr, unix.Errno) {
		fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
		return fd, errno
	}
	// A signal must not make a thread begin its call again while it is dealt with
	// (Linux 5.19).
	fd, errno := install(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
	if errno == unix.EINVAL {
		fd, errno = install(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	}
	if errno != 0 {
		return -1, fmt.Errorf("holding the command at its sockets (seccomp): %w", errno)
	}
	return int(fd), nil
}

// receiveCall waits for a thread that is held, at most so many milliseconds, -1
// for ever. It is not ok when the time is over.
func receiveCall(listener, timeout int) (n notification, ok bool, err error) {
	fds := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
	ready, err := unix.Poll(fds, timeout)
	if err != nil && err != unix.EINTR {
		return n, false, fmt.Errorf("listening to the command: %w", err)
	}
	if ready < 1 {
		return n, false, nil
	}
	if fds[0].Revents&unix.POLLIN == 0 {
		return n, false, errNobody
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n))); errno != 0 {
		return n, false, nil // the thread was killed or interrupted meanwhile
	}
	return n, true, nil
}

// answerCall lets a thread go on behind its call, which returns value.
func answerCall(listener int, id uint64, value int64) error {
	return respond(listener, response{id: id, value: value})
}

// continueCall lets a thread go on with its call, as if nothing had been.
func continueCall(listener int, id uint64) error {
	return respond(listener, response{id: id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE})
}

func respond(listener int, r response) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&r))); errno != 0 {
		return errno
	}
	return nil
}

// statusNumber is one of the numbers of a line in /proc/PID/status.
func statusNumber(status []byte, name string, index, base int) (uint64, error) {
	_, rest, ok := bytes.Cut(status, []byte("\n"+name))
	if !ok {
		return 0, fmt.Errorf("no %s in the status of a process", name)
	}
	fields := bytes.Fields(rest)
	if len(fields) <= index {
		return 0, fmt.Errorf("no %s in the status of a process", name)
	}
	return strconv.ParseUint(string(fields[index]), base, 64)
}
