package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// AttachFilter attaches a socket filter to a socket, replacing any filter that it has. Both
// are file descriptors. The error is a *MissingError if this kind of socket accepts no
// filter.
func AttachFilter(fd, program int) error {
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

// Rejection is a filter that drops every packet.
//
// While a socket has it, nothing enters the receive queue: if the queue is emptied before the
// tap replaces it, the queue holds only packets that the tap has seen.
type Rejection struct{ program *ebpf.Program }

// loadRejection loads an eBPF program, because on some kernels a classic filter needs
// CAP_NET_ADMIN on TCP sockets.
func loadRejection() (Rejection, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "reject", Type: ebpf.SocketFilter, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return Rejection{}, Diagnose("loading a filter that drops everything", err)
	}
	return Rejection{program}, nil
}

// Attach makes a socket drop all packets, replacing any filter that it has. It needs no
// privilege.
func (r Rejection) Attach(fd int) error {
	if err := AttachFilter(fd, r.program.FD()); err != nil {
		return fmt.Errorf("closing the socket to packets: %w", err)
	}
	return nil
}
