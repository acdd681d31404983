package capture

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/capability"
)

// foreign is what a duplicated descriptor tells about a socket of another process.
type foreign struct {
	domain, typ, protocol int
	cookie                uint64
	listening             bool
	filtered              bool           // it has a filter, if somebody wants to know
	local, peer           netip.AddrPort // IPv4 in IPv6 addresses as IPv4
	path                  string         // of a unix socket, as in unixAddress; empty if it is unnamed
	name, peerName        unix.Sockaddr  // as the kernel says them; nil if it does not
}

func inspect(fd int) (foreign, error) {
	var (
		f    foreign
		errs [5]error
	)
	f.domain, errs[0] = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	f.typ, errs[1] = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	f.protocol, errs[2] = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	f.listening, errs[3] = listening != 0, err
	f.cookie, errs[4] = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err := errors.Join(errs[:]...); err != nil {
		return f, notTold(err)
	}
	if sa, err := socketAddress(unix.SYS_GETSOCKNAME, fd, f.domain); err == nil {
		f.name, f.local = sa, unmapped(addrPort(sa))
		if named, ok := sa.(*unix.SockaddrUnix); ok {
			f.path = named.Name
		}
	}
	if f.listening {
		return f, nil
	}
	if sa, err := socketAddress(unix.SYS_GETPEERNAME, fd, f.domain); err == nil {
		f.peerName, f.peer = sa, unmapped(addrPort(sa))
	}
	return f, nil
}

// notTold is the error of a socket that does not tell what it is.
func notTold(err error) error {
	const doing = "asking a socket for its kind"
	for _, refusal := range []error{unix.EACCES, unix.EPERM} {
		if errors.Is(err, refusal) { // one, not those of all questions
			return &bpf.MissingError{
				What: doing + " is not permitted, whatever capabilities are held",
				Hint: "look for a security module (AppArmor, SELinux) or a seccomp profile of the container",
				Err:  refusal,
			}
		}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// isShutDown tells whether an error of inspect is that of a socket that is closed, or has nothing
// left of what it was.
func isShutDown(err error) bool {
	return errors.Is(err, unix.EBADF) || errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.EINVAL)
}

// kind returns the Kind of the socket, nil if there is none.
func (f *foreign) kind() *Kind { return kindOf(f.domain, f.typ, f.protocol) }

// hasPort tells whether the socket's own port or its peer's is in ports.
func (f *foreign) hasPort(ports []uint16) bool {
	for _, port := range ports {
		if f.local.Port() == port || f.peer.Port() == port {
			return true
		}
	}
	return false
}

// onlyWrapped tells whether the socket is of a family that is captured for its filter only.
func (f *foreign) onlyWrapped() bool {
	return f.domain != unix.AF_INET && f.domain != unix.AF_INET6 && f.domain != unix.AF_UNIX
}

func (f *foreign) String() string {
	var words []string
	if f.listening {
		words = append(words, "listening")
	}
	if f.local.Port() != 0 || f.local.IsValid() && !f.local.Addr().IsUnspecified() {
		words = append(words, "on "+f.local.String())
	}
	if f.path != "" {
		words = append(words, "on "+plainUnixName(f.path))
	}
	if f.peer.IsValid() {
		words = append(words, "connected to "+f.peer.String())
	}
	switch {
	case len(words) > 0:
		return strings.Join(words, " ")
	case f.domain == unix.AF_UNIX:
		return "unnamed"
	}
	return "without an address"
}

// filter is the filter of a socket.
type filter struct {
	classic  []unix.SockFilter // empty if there is none
	extended bool              // an eBPF filter, whose program cannot be read back
}

func (f *filter) none() bool { return len(f.classic) == 0 && !f.extended }

// getFilter returns a socket's filter.
func getFilter(fd int) (filter, error) {
	n, err := getFilterInto(fd, nil)
	if errors.Is(err, unix.EACCES) {
		return filter{extended: true}, nil
	}
	if err != nil || n == 0 {
		return filter{}, err
	}
	f := filter{classic: make([]unix.SockFilter, n)}
	_, err = getFilterInto(fd, f.classic)
	return f, err
}

// getFilterInto reads instructions, and returns how many there are. SO_GET_FILTER counts
// instructions where other options count bytes.
func getFilterInto(fd int, to []unix.SockFilter) (int, error) {
	length := uint32(len(to))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_GET_FILTER,
		uintptr(unsafe.Pointer(unsafe.SliceData(to))), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return 0, fmt.Errorf("asking for the socket's filter: %w", errno)
	}
	return int(length), nil
}

// mayRestore checks before a filter is replaced whether the kernel permits to restore it, by
// attaching it again: since Linux 6.18 at the latest a classic one on a TCP socket needs
// CAP_NET_ADMIN.
func mayRestore(fd int, classic []unix.SockFilter) error {
	if len(classic) == 0 || capability.Held(unix.CAP_NET_ADMIN) {
		return nil
	}
	if err := restoreFilter(fd, classic); errors.Is(err, unix.EPERM) {
		return bpf.LacksCapability(unix.CAP_NET_ADMIN, "putting its own filter back at the end", err)
	}
	return nil
}

// restoreFilter restores a classic filter, or just removes the tap if there was none.
func restoreFilter(fd int, classic []unix.SockFilter) error {
	if len(classic) > 0 {
		program := unix.SockFprog{Len: uint16(len(classic)), Filter: &classic[0]}
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program); err != nil {
			return fmt.Errorf("putting the socket's own filter back: %w", err)
		}
		return nil
	}
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_BPF, 0)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("detaching the tap: %w", err)
	}
	return nil
}

// queueDrops is how many packets the socket's receive queue has dropped so far.
func queueDrops(fd int) uint32 {
	const drops = 8 // SK_MEMINFO_DROPS
	var info [9]uint32
	length := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 || length < 4*(drops+1) {
		return 0
	}
	return info[drops]
}
