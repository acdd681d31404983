package bpf

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

func attach(fd, program int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, program)
	if err == nil {
		return nil
	}
	if protocol, perr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); perr == nil && protocol == unix.IPPROTO_MPTCP {
		return &MissingError{
			What: "an MPTCP socket takes no filter (SO_ATTACH_BPF: " + err.Error() + ")",
			Hint: "open the socket as plain TCP, in Go with ListenConfig.SetMultipathTCP(false)",
			Err:  err,
		}
	}
	if locked, lerr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER); lerr == nil && locked != 0 {
		return fmt.Errorf("attaching the tap: the socket's owner has locked its filter (SO_LOCK_FILTER): %w", err)
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOPROTOOPT) {
		return &MissingError{
			What: "this kind of socket takes no filter (SO_ATTACH_BPF: " + err.Error() + ")",
			Hint: "choose another kind",
			Err:  err,
		}
	}
	return fmt.Errorf("attaching the tap: %w", err)
}

// Reject puts a classic filter on a socket that drops everything, in place of
// any filter that it has. Needs no privilege.
//
// Between Reject and Attach nothing can enter the receive queue: a queue that
// was emptied in between holds only packets that the tap saw.
func Reject(fd int) error {
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop}); err != nil {
		return fmt.Errorf("closing the socket to packets: %w", err)
	}
	return nil
}
