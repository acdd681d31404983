package capture

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture/internal/pair"
)

// Attach puts the tap on a socket of the caller's, such as a *net.UDPConn or a
// *net.TCPListener, who goes on using it as before: the session neither reads nor closes it.
// Connections that a TCP listener accepts from then on have the tap as well.
//
// The views are those of the kernel's side: ViewKernel, which is the default, ViewNet,
// ViewLink, ViewCgroup, ViewWire and ViewDrop. What userspace gets is known only to the socket's reader. IDs count the packets.
// Every packet that arrives after Attach returns is captured, unless the ring has no room for
// it; what is in the receive queue by then is not captured.
//
// The socket must have no filter yet, and should get none until the tap is removed, at the end
// of Run or by Close. One that it gets meanwhile stays, unless it is an eBPF one and the kernel
// does not tell whose: to ask takes Linux 5.10 with BTF, CAP_BPF and CAP_PERFMON. Connections
// that were accepted keep the tap, which then lets everything pass and records nothing. Run does
// not end when the socket is closed.
//
// An error is a *bpf.MissingError if a privilege or a feature of the kernel is missing, as it
// is for MPTCP, whose sockets take no filter: Go listens for MPTCP unless
// net.ListenConfig.SetMultipathTCP says otherwise.
func Attach(conn syscall.Conn, options Options) (*Session, error) {
	if conn == nil {
		return nil, errors.New("attaching the tap: there is no socket: conn is nil")
	}
	if err := options.check(); err != nil {
		return nil, err
	}
	for _, v := range []View{ViewUser, ViewSent, ViewSelect} {
		if !options.wants(v) {
			continue
		}
		return nil, fmt.Errorf("attaching the tap: only the owner of the socket knows its view %v: choose some of %v, %v, %v, %v, %v and %v", v, ViewKernel, ViewNet, ViewLink, ViewCgroup, ViewWire, ViewDrop)
	}
	if len(options.Views) == 0 {
		options.Views = []View{ViewKernel}
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("attaching the tap: %w", err)
	}
	main := &socket{conn: raw}
	var about foreign
	if err := main.control(func(fd int) (err error) { about, err = attachable(fd); return err }); err != nil {
		return nil, fmt.Errorf("attaching the tap: %w", err)
	}
	config := Config{Kind: about.kind(), Options: options, Protocol: about.protocol, Address: about.path}
	if config.Address == "" {
		config.Address = about.String()
	}
	s, err := newSession(config.withDefaults(), func(s *Session) error {
		return main.control(func(fd int) error {
			if err := s.config.Filter.Attach(fd); err != nil {
				return err
			}
			main.describe(fd)
			s.main, s.borrowed, s.untapped = main, true, true
			return nil
		})
	})
	if err == nil {
		s.own.home.pairer, s.own.losses = pair.Nothing{}, nil
	}
	return s, err
}

// attachable describes the socket, or returns an error if it cannot have the tap.
func attachable(fd int) (foreign, error) {
	if _, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		return foreign{}, fmt.Errorf("what conn has is no socket: %w", err)
	}
	about, err := inspect(fd)
	if err != nil {
		return about, err
	}
	if about.kind() == nil {
		return about, fmt.Errorf("there is no kind for a socket of domain %d, type %d and protocol %d: see Kinds", about.domain, about.typ, about.protocol)
	}
	f, err := getFilter(fd)
	if err == nil && !f.none() {
		err = errors.New("the socket has a filter already: take it off first (SO_DETACH_FILTER)")
	}
	return about, err
}

// giveBack ends the recording, also on accepted connections, and removes the tap from the
// caller's socket, unless the socket has another filter by now or is closed.
func (s *Session) giveBack() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.released {
		return nil
	}
	s.released = true
	stopped := s.stopRecording()
	err := s.main.control(func(fd int) error {
		f, err := getFilter(fd)
		if err != nil {
			return err
		}
		ours := f.extended
		if ours {
			if on, err := s.tap.On(fd); err == nil { // if nobody can tell, it is taken for ours
				ours = on
			}
		}
		if !ours {
			s.config.Notice(tapGone + ", and what is there now stays")
			return nil
		}
		return restoreFilter(fd, nil)
	})
	if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
		err = nil
	}
	return errors.Join(stopped, err)
}

// errBorrowed is the error of a probe to a caller's socket.
var errBorrowed = errors.New("the probe is for sockets that Open has opened: what comes to this one is its owner's business")
