package capture

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errNotForUs means that a command has to make its socket itself.
var errNotForUs = errors.New("the socket has to be the command's own work")

// heldSocket is a socket that a held thread is about to make.
type heldSocket struct {
	tid                   int
	domain, typ, protocol int // typ has flags in it
}

func (s *heldSocket) raw() bool { return s.typ&socketTypeMask == unix.SOCK_RAW }

// make makes the socket in the place of the thread, so that nobody can tell the
// difference: in its network namespace and under its user and group. It is
// errNotForUs wherever something else about the thread could matter.
func (s *heldSocket) make() (fd int, err error) {
	plain := s.typ&socketTypeMask == unix.SOCK_DGRAM &&
		(s.protocol == 0 || s.protocol == unix.IPPROTO_UDP || s.protocol == unix.IPPROTO_UDPLITE)
	if !s.raw() && !plain {
		return -1, errNotForUs
	}
	for _, name := range []string{"ns/user", "cgroup", "attr/current"} {
		if !s.shares(name) {
			return -1, errNotForUs
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		fd, err = s.makeHere()
	}()
	<-done
	return fd, err
}

// shares tells whether the thread has something in common with us.
func (s *heldSocket) shares(name string) bool {
	read := os.ReadFile
	if name == "ns/user" {
		read = func(path string) ([]byte, error) {
			target, err := os.Readlink(path)
			return []byte(target), err
		}
	}
	ours, err := read("/proc/self/" + name)
	theirs, terr := read(s.proc(name))
	// Without a security module nobody has an attribute to read.
	return (err == nil) == (terr == nil) && bytes.Equal(ours, theirs)
}

func (s *heldSocket) proc(name string) string { return "/proc/" + strconv.Itoa(s.tid) + "/" + name }

// makeHere makes the socket on a thread that nobody needs any more.
func (s *heldSocket) makeHere() (int, error) {
	status, err := os.ReadFile(s.proc("status"))
	if err != nil {
		return -1, errNotForUs
	}
	// Of the four ids, the last is that of files, and so of sockets.
	uid, uerr := statusNumber(status, "Uid:", 3, 10)
	gid, gerr := statusNumber(status, "Gid:", 3, 10)
	capabilities, cerr := statusNumber(status, "CapEff:", 0, 16)
	if errors.Join(uerr, gerr, cerr) != nil || s.raw() && capabilities>>unix.CAP_NET_RAW&1 == 0 {
		return -1, errNotForUs
	}
	ns, err := unix.Open(s.proc("ns/net"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, errNotForUs
	}
	defer unix.Close(ns)
	if unix.Setns(ns, unix.CLONE_NEWNET) != nil {
		return -1, errNotForUs
	}
	if unix.Setfsgid(int(gid)) != nil || unix.Setfsuid(int(uid)) != nil {
		return -1, errNotForUs
	}
	fd, err := unix.Socket(s.domain, s.typ|unix.SOCK_CLOEXEC, s.protocol)
	if err != nil {
		return -1, errNotForUs // let the kernel tell it why
	}
	return fd, nil
}

// makeSocket answers a thread that is held at socket: with a socket that has
// the tap already. It is errNotForUs if the thread has to go on by itself.
func (l *Live) makeSocket(p *watched, n *notification) (descriptor int64, err error) {
	s := heldSocket{
		tid: int(n.tid), domain: int(int32(n.arguments[socketDomain])),
		typ: int(int32(n.arguments[socketType])), protocol: int(int32(n.arguments[socketProtocol])),
	}
	fd, err := s.make()
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &st), l.tap.Rejection().Attach(fd)); err != nil {
		return -1, errNotForUs
	}
	l.scans.Lock() // so that nobody else finds it as it is now
	defer l.scans.Unlock()
	descriptor, err = addDescriptor(int(l.command.held.Fd()), n.id, fd, s.typ&unix.SOCK_CLOEXEC)
	if err != nil {
		return -1, errNotForUs
	}
	if err := l.look(p, int(descriptor), st.Ino, fd, true); err != nil {
		l.refuse(err.Error())
	}
	if m := l.inodes[st.Ino]; m == nil || !m.tapped {
		return descriptor, restoreFilter(fd, nil)
	}
	return descriptor, nil
}

// addition is struct seccomp_notif_addfd.
type addition struct {
	id       uint64
	flags    uint32
	from     uint32
	to       uint32
	newFlags uint32
}

// addDescriptor gives a held thread's process a copy of a descriptor of ours.
// Needs Linux 5.9.
func addDescriptor(listener int, id uint64, fd, flags int) (int64, error) {
	a := addition{id: id, from: uint32(fd), newFlags: uint32(flags)}
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_ADDFD, uintptr(unsafe.Pointer(&a)))
	if errno != 0 {
		return -1, fmt.Errorf("giving the command a descriptor: %w", errno)
	}
	return int64(n), nil
}
