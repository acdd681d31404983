package capture

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// MulticastGroup is a multicast group that a socket joins. Without that, what is sent to the group
// comes only where another socket of the machine has joined it.
type MulticastGroup struct {
	// Address is that of the group, without a zone.
	Address netip.Addr
	// Interface is the name or the number of the one on which the group is joined. Default: the one
	// that the kernel's routes lead to.
	Interface string
}

func (g MulticastGroup) String() string {
	if g.Interface == "" {
		return g.Address.String()
	}
	return g.Address.String() + "@" + g.Interface
}

// CanJoin tells whether sockets of the kind can join multicast groups.
func (k *Kind) CanJoin() bool { return k.protocol == unix.IPPROTO_UDP }

// checkMulticast refuses groups that the socket cannot join, or would get nothing of.
func (c *Config) checkMulticast() error {
	for _, g := range c.Groups {
		switch {
		case !c.Kind.CanJoin():
			return fmt.Errorf("joining group %v: a %s cannot: choose UDP", g, c.Kind.Summary)
		case !g.Address.IsMulticast():
			return fmt.Errorf("joining group %v: it is no multicast address", g)
		case g.Address.Is4() == c.Kind.IPv6():
			return fmt.Errorf("joining group %v: it does not fit a %s", g, c.Kind.Summary)
		case c.Reuseport > 0:
			return fmt.Errorf("joining group %v: every socket of a reuseport group gets what is sent to a multicast group: choose one socket", g)
		}
	}
	return nil
}

// Options of linux/in.h and linux/in6.h.
const (
	multicastAll  = 49 // IP_MULTICAST_ALL
	multicastAll6 = 29 // IPV6_MULTICAST_ALL, since Linux 4.20
)

// shareGroup lets the socket share the address of a group with programs that share it as well, each of
// which gets all that is sent there. Any other address would have its packets taken away from them.
func (c *Config) shareGroup(fd int) error {
	if len(c.Groups) == 0 || !c.Listen.Addr().IsMulticast() {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fmt.Errorf("setting SO_REUSEADDR: %w", err)
	}
	return nil
}

// joinGroups joins the groups. What is sent to those that only others have joined, or on other
// interfaces, does not come.
func (c *Config) joinGroups(fd int) error {
	for _, g := range c.Groups {
		if err := g.join(fd); err != nil {
			return err
		}
	}
	if len(c.Groups) == 0 {
		return nil
	}
	level, option := unix.IPPROTO_IP, multicastAll
	if c.Kind.IPv6() {
		level, option = unix.IPPROTO_IPV6, multicastAll6
	}
	if err := unix.SetsockoptInt(fd, level, option, 0); err != nil {
		return fmt.Errorf("choosing only the groups that the socket has joined: %w", err)
	}
	return nil
}

func (g MulticastGroup) join(fd int) error {
	index := 0
	if g.Interface != "" {
		device, err := interfaceCalled(g.Interface)
		if err != nil {
			return fmt.Errorf("joining group %v: %w", g.Address, err)
		}
		index = device.Index
	}
	var err error
	if g.Address.Is4() {
		err = unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP,
			&unix.IPMreqn{Multiaddr: g.Address.As4(), Ifindex: int32(index)})
	} else {
		err = unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP,
			&unix.IPv6Mreq{Multiaddr: g.Address.As16(), Interface: uint32(index)})
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENODEV) && g.Interface == "":
		return fmt.Errorf("joining group %v: no route leads to it: name an interface, as in %v@eth0: %w", g, g, err)
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("joining group %v: it is joined already: name it once: %w", g, err)
	case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("joining group %v: a socket may join no more (sysctl net.ipv4.igmp_max_memberships): %w", g, err)
	}
	return fmt.Errorf("joining group %v: %w", g, err)
}

// interfaceCalled finds an interface of this network namespace by its name or number.
func interfaceCalled(name string) (*net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	number, nerr := strconv.Atoi(name)
	var names []string
	for i := range all {
		if all[i].Name == name {
			return &all[i], nil
		}
		names = append(names, all[i].Name)
	}
	for i := range all {
		if nerr == nil && all[i].Index == number {
			return &all[i], nil
		}
	}
	const shown = 8
	more := ""
	if len(names) > shown {
		names, more = names[:shown], ", ..."
	}
	return nil, fmt.Errorf("there is no interface %q: choose one of %s%s", name, strings.Join(names, ", "), more)
}
