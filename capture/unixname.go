package capture

import (
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// socketAddress asks for an address of a socket, its own with SYS_GETSOCKNAME or its peer's with
// SYS_GETPEERNAME.
func socketAddress(call uintptr, fd, domain int) (unix.Sockaddr, error) {
	switch {
	case domain == unix.AF_UNIX:
		return unixAddress(call, fd)
	case call == unix.SYS_GETPEERNAME:
		return unix.Getpeername(fd)
	}
	return unix.Getsockname(fd)
}

// unixAddress asks for an address of a unix socket. Its Name is empty if there is none, and begins
// with @ if it is abstract. Such a name is as long as the kernel says and can have zero bytes
// anywhere; package unix ends it at the first one.
func unixAddress(call uintptr, fd int) (*unix.SockaddrUnix, error) {
	var raw struct {
		unix.RawSockaddrUnix
		_ byte // of a path without a zero byte, the kernel adds one
	}
	length := uint32(unsafe.Sizeof(raw))
	_, _, errno := unix.Syscall(call, uintptr(fd), uintptr(unsafe.Pointer(&raw)), uintptr(unsafe.Pointer(&length)))
	if errno != 0 {
		return nil, errno
	}
	path := raw.Path[:]
	name := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(path))), len(path))
	named := int(length) - int(unsafe.Offsetof(raw.Path))
	switch {
	case named <= 0:
		return &unix.SockaddrUnix{}, nil
	case name[0] == 0:
		return &unix.SockaddrUnix{Name: "@" + string(name[1:min(named, len(name))])}, nil
	}
	return &unix.SockaddrUnix{Name: unix.ByteSliceToString(name)}, nil
}

// plainUnixName is the name of a unix socket for people, with @ for each zero byte, as ss and
// /proc/net/unix have it.
func plainUnixName(name string) string {
	return terminal.Plain(strings.ReplaceAll(name, "\x00", "@"))
}
