package capture

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ebpfdump/ebpfdump/bpf"
	"golang.org/x/sys/unix"
)

// sockaddr converts an address for x/sys/unix.
func sockaddr(addr netip.AddrPort) unix.Sockaddr {
	if addr.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16(), ZoneId: zoneID(addr.Addr().Zone())}
}

// zoneID is the index of the interface that a zone names, by name or number (RFC 4007); 0 for
// none.
func zoneID(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0
	}
	return uint32(i.Index)
}

// addrPort returns the address in sa; invalid if sa is not an IP address.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// socket is a non-blocking socket; Close and SetReadDeadline interrupt waits on it.
type socket struct {
	file  *os.File
	conn  syscall.RawConn
	name  unix.Sockaddr  // address that it is bound to
	local netip.AddrPort // the same, if it is an IP address
	peer  netip.AddrPort // invalid unless connected over IP

	connected bool
	cookie    uint64    // as the tap's records have it
	before    dropCount // its count of drops when it got the filter
	// Its count of drops when it was closed to packets; nil before. After that the count
	// includes packets that it rejects.
	closing atomic.Pointer[uint32]
}

func newSocket(fd int) (*socket, error) {
	s := &socket{file: os.NewFile(uintptr(fd), "socket")}
	var err error
	if s.conn, err = s.file.SyscallConn(); err != nil {
		s.file.Close()
		return nil, fmt.Errorf("opening the socket: %w", err)
	}
	s.describe(fd)
	return s, nil
}

// describe reads the socket's addresses and cookie.
func (s *socket) describe(fd int) {
	// Without a cookie, its packets are identified by their addresses.
	s.cookie, _ = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if sa, err := unix.Getsockname(fd); err == nil {
		s.name, s.local = sa, addrPort(sa)
	}
}

// control calls do with the socket's descriptor.
func (s *socket) control(do func(fd int) error) (err error) {
	if cerr := s.conn.Control(func(fd uintptr) { err = do(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// openSocket opens a socket with a filter, so that its receive queue has never held a packet
// that the filter did not see. rejection drops everything.
func openSocket(config *Config, filter, rejection Filter) (_ *socket, err error) {
	kind := config.Kind
	name, err := config.bindTo()
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(kind.domain, kind.typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, config.socketProtocol())
	if err != nil {
		return nil, socketError(kind, err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if config.Prepare != nil {
		if err := config.Prepare(fd); err != nil {
			return nil, err
		}
	}
	if kind.listens {
		// No packet can reach it before listen(2).
		if err := filter.Attach(fd); err != nil {
			return nil, err
		}
	} else if err := rejection.Attach(fd); err != nil {
		return nil, err
	}
	if err := setOptions(fd, kind); err != nil {
		return nil, err
	}
	if err := config.shareGroup(fd); err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, name); err != nil {
		return nil, bindError(config, err)
	}
	if kind.listens {
		if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
			return nil, bindError(config, err)
		}
		return newSocket(fd)
	}
	if err := config.joinGroups(fd); err != nil {
		return nil, err
	}
	if err := empty(fd); err != nil {
		return nil, err
	}
	before := dropCount{low: queueDrops(fd)}
	if err := filter.Attach(fd); err != nil {
		return nil, err
	}
	before.high = queueDrops(fd)
	s, err := newSocket(fd)
	if err == nil {
		s.before = before
	}
	return s, err
}

// bindTo is the address to bind the socket to.
func (c *Config) bindTo() (unix.Sockaddr, error) {
	if c.Kind.place.sockaddr != nil {
		return c.Kind.place.sockaddr(c.Address)
	}
	return sockaddr(c.Listen), nil
}

// socketProtocol is the last argument of socket(2).
func (c *Config) socketProtocol() int {
	if c.Kind.anyProtocol {
		return c.Protocol
	}
	return c.Kind.protocol
}

func setOptions(fd int, kind *Kind) error {
	if kind.IPv6() && kind.typ != unix.SOCK_RAW {
		// An IPv4 packet does not fit an interface of IPv6 packets.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return fmt.Errorf("setting IPV6_V6ONLY: %w", err)
		}
	}
	if kind.listens {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return fmt.Errorf("setting SO_REUSEADDR: %w", err)
		}
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1); err != nil {
		return fmt.Errorf("setting SO_RXQ_OVFL: %w", err)
	}
	return nil
}

// empty discards what is in the receive queue.
func empty(fd int) error {
	for {
		_, _, err := unix.Recvfrom(fd, nil, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("emptying the receive queue: %w", err)
		}
	}
}

func socketError(kind *Kind, err error) error {
	switch {
	case kind.denied != "" && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)):
		return &bpf.MissingError{
			What: "this system lets nobody open a " + kind.Summary, Hint: kind.denied,
			Otherwise: "open it in a Namespace", Setting: SettingNamespace, Err: err,
		}
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return bpf.LacksCapability(unix.CAP_NET_RAW, "opening a "+kind.Summary, err)
	case errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.ESOCKTNOSUPPORT),
		errors.Is(err, unix.ENOPROTOOPT):
		return &bpf.MissingError{
			What: fmt.Sprintf("this kernel has no %s sockets (socket: %v)", kind.Name, err),
			Hint: "choose another kind, or a kernel that is built with it",
			Err:  err,
		}
	}
	return fmt.Errorf("opening a %s: %w", kind.Summary, err)
}

func bindError(config *Config, err error) error {
	if config.Kind.place.sockaddr != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			return &AddressError{What: config.Address + " is in use", Hint: "choose another", Err: err}
		}
		return fmt.Errorf("listening on %s: %w", config.Address, err)
	}
	listen := config.Listen
	switch {
	case errors.Is(err, unix.EINVAL) && (listen.Addr().IsLinkLocalUnicast() || listen.Addr().IsLinkLocalMulticast()) && zoneID(listen.Addr().Zone()) == 0:
		return fmt.Errorf("%s is an address on one link: name an interface of this host with it, such as %s%%eth0: %w",
			listen.Addr(), listen.Addr().WithZone(""), err)
	case errors.Is(err, unix.EADDRINUSE):
		return &AddressError{
			What: fmt.Sprintf("port %d is in use on %s", listen.Port(), listen.Addr()),
			Hint: "choose another", More: ", or stop who has it (ss -lnp shows it)", Err: err,
		}
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return &AddressError{
			What: listen.Addr().String() + " is not an address of this host",
			Hint: "choose another", More: " (ip address shows them)", Err: err,
		}
	case errors.Is(err, unix.EACCES):
		missing := bpf.LacksCapability(unix.CAP_NET_BIND_SERVICE, fmt.Sprintf("listening on port %d", listen.Port()), err)
		missing.Otherwise, missing.Setting = "choose a port from 1024 on", SettingListen
		return missing
	}
	return fmt.Errorf("listening on %s: %w", listen, err)
}

// attach attaches a filter to the socket.
func (s *socket) attach(filter Filter) error {
	return s.control(filter.Attach)
}

// interrupt makes waits on the socket return os.ErrDeadlineExceeded, from now on.
func (s *socket) interrupt() { _ = s.file.SetDeadline(time.Unix(1, 0)) }

// queueDrops is the number of messages that the socket has dropped so far.
func (s *socket) queueDrops() (drops uint32) {
	_ = s.conn.Control(func(fd uintptr) { drops = queueDrops(int(fd)) })
	return drops
}

// accept accepts a connection. It waits for one unless poll is set; then it returns unix.EAGAIN
// if there is none.
func (s *socket) accept(poll bool) (*socket, error) {
	var (
		fd  int
		sa  unix.Sockaddr
		err error
	)
	try := func(listener uintptr) (done bool) {
		for {
			fd, sa, err = unix.Accept4(int(listener), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNABORTED) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	}
	var rerr error
	if poll {
		rerr = s.conn.Control(func(listener uintptr) { try(listener) })
	} else {
		rerr = s.conn.Read(try)
	}
	if rerr != nil {
		return nil, rerr
	}
	if err != nil {
		return nil, fmt.Errorf("accepting a connection: %w", err)
	}
	conn, err := newSocket(fd)
	if err != nil {
		return nil, err
	}
	conn.peer, conn.connected = addrPort(sa), true
	return conn, nil
}

// send writes all of data to the socket, or to an address unless connected. did is called for
// each call that has sent something, or failed.
func (s *socket) send(data []byte, to netip.AddrPort, did func(*sending)) error {
	var err error
	werr := s.conn.Write(func(fd uintptr) bool {
		for {
			var n int
			began := bootNow()
			if s.connected {
				n, err = unix.SendmsgN(int(fd), data, nil, nil, unix.MSG_NOSIGNAL)
			} else {
				n, err = len(data), unix.Sendto(int(fd), data, unix.MSG_NOSIGNAL, sockaddr(to))
			}
			switch {
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN):
				return false
			case err != nil:
				did(&sending{s, to, began, nil, err})
				return true
			default:
				did(&sending{s, to, began, data[:n], nil})
				data = data[n:]
				if len(data) == 0 {
					return true
				}
			}
		}
	})
	if werr != nil {
		return werr
	}
	return err
}
