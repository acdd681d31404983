package capture

import (
	"errors"
	"math"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Kind is a kind of socket: one row of the table that Kinds lists. Everything that is
// particular to a kind is in its row.
type Kind struct {
	// Name is what KindByName takes, and what interfaces are named after.
	Name string
	// Summary is a few words for lists and messages.
	Summary string
	// Note says what to expect of a kind that does not do what a user would expect; empty for
	// most.
	Note string

	domain, typ int
	protocol    int  // of socket(2); unused with anyProtocol
	anyProtocol bool // opened with Config.Protocol
	place       place

	layer     Layer // of offset 0 of the socket filter's __sk_buff
	plural    string
	listens   bool // the sockets that it accepts are read, not the socket itself
	adopts    bool // those do not inherit the tap, but get it after accept(2)
	stream    bool // is read as a stream of bytes
	idle      bool // takes a filter, but the kernel never runs it
	copies    bool // gets copies of packets; the originals are not affected
	canEcho   bool // what came in can be sent back
	headerLen int  // bytes from offset 0 on that userspace does not get (datagrams)
	probe     probe
	mayProbe  probe  // checks whether the kernel permits the probe; nil where it always does
	denied    string // what to do about EACCES of socket(2); empty for CAP_NET_RAW
}

// Kinds lists the kinds of socket that a Session can open.
func Kinds() []Kind { return append([]Kind(nil), kinds...) }

// KindByName finds a kind by its Name.
func KindByName(name string) (*Kind, bool) {
	for i := range kinds {
		if kinds[i].Name == name {
			return &kinds[i], true
		}
	}
	return nil, false
}

// IPv6 tells whether the kind's packets have IPv6 addresses.
func (k *Kind) IPv6() bool { return k.domain == unix.AF_INET6 }

// TakesProtocol tells whether the kind is opened for an IP protocol of the user's choice.
func (k *Kind) TakesProtocol() bool { return k.anyProtocol }

// Layer is what packets of the kind's kernel view begin with.
func (k *Kind) Layer() Layer { return k.layer }

// Protocol is the IP protocol of all its packets; 0 if there is none, or if it is different for
// each packet.
func (k *Kind) Protocol() uint8 {
	switch {
	case k.domain != unix.AF_INET && k.domain != unix.AF_INET6:
		return 0
	case k.protocol == unix.IPPROTO_MPTCP:
		return unix.IPPROTO_TCP // on the wire; the number above 255 is only for socket(2)
	}
	return uint8(k.protocol)
}

// CanEcho tells whether what the socket received can be sent back through it.
func (k *Kind) CanEcho() bool { return k.canEcho }

// InKernel tells whether this kernel has such sockets.
func (k *Kind) InKernel() bool {
	protocol := k.protocol
	if k.anyProtocol {
		protocol = unix.IPPROTO_TCP
	}
	fd, err := unix.Socket(k.domain, k.typ|unix.SOCK_CLOEXEC, protocol)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
}

// RefusesFilters tells whether this kernel refuses a filter on any such socket, as it does with MPTCP.
func (k *Kind) RefusesFilters() bool {
	fd, err := unix.Socket(k.domain, k.typ|unix.SOCK_CLOEXEC, k.protocol)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	keep := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: math.MaxUint32}}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &keep[0]})
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOPROTOOPT)
}

// Stream tells whether userspace reads a stream of bytes and not messages.
func (k *Kind) Stream() bool { return k.stream }

// NeverFilters tells whether the kernel never runs a filter of such a socket.
func (k *Kind) NeverFilters() bool { return k.idle }

// Copies tells whether the socket gets copies: a packet that its filter or its receive queue
// drops still reaches its destination.
func (k *Kind) Copies() bool { return k.copies }

// Listens tells whether the socket accepts connections, and those are read instead.
func (k *Kind) Listens() bool { return k.listens }

// Address is where the socket of a kind without IP address and port is bound
// unless Config.Address says otherwise; empty for the kinds that have them.
func (k *Kind) Address() string { return k.place.address }

// countsFiltered tells whether SO_RXQ_OVFL counts what the filter drops.
func (k *Kind) countsFiltered() bool {
	return k.protocol == unix.IPPROTO_UDP || k.protocol == unix.IPPROTO_UDPLITE
}

// blocksSender tells whether the sender keeps a message while the receive queue is full, and
// may send it again, which runs the filter again.
func (k *Kind) blocksSender() bool { return k.domain == unix.AF_UNIX || k.domain == unix.AF_NETLINK }

// ReadsFollowed tells whether the user view has what other processes read from such sockets of theirs.
func (k *Kind) ReadsFollowed() bool {
	return k.domain == unix.AF_INET || k.domain == unix.AF_INET6 || k.domain == unix.AF_UNIX
}

// HasCgroupHooks tells whether the kernel runs cgroup hooks for the packets of such a socket. Those
// have addresses, by which they are found on interfaces as well.
func (k *Kind) HasCgroupHooks() bool { return k.domain == unix.AF_INET || k.domain == unix.AF_INET6 }

// Shows tells whether a packet of such a socket can be in a view, as far as its kind decides that: nothing
// precedes the messages of unix, netlink and vsock sockets, and none but those of internet sockets pass hooks and
// interfaces.
func (k *Kind) Shows(v View) bool {
	switch v {
	case ViewKernel:
		return !k.idle
	case ViewNet, ViewLink:
		return k.layer != LayerMessage
	case ViewCgroup, ViewWire, ViewDrop:
		return k.HasCgroupHooks()
	}
	return true
}

// SendsProbe tells whether such a socket sends its probe itself, as it receives nothing but answers.
func (k *Kind) SendsProbe() bool {
	return k.layer == LayerTransport && (k.protocol == unix.IPPROTO_ICMP || k.protocol == unix.IPPROTO_ICMPV6)
}

// segments tells whether what goes through such a socket is the payload of TCP or UDP.
func (k *Kind) segments() bool {
	return k.layer == LayerTransport && (k.Protocol() == unix.IPPROTO_TCP || k.Protocol() == unix.IPPROTO_UDP)
}

// Counted tells whether what goes through such a socket is a stream without addresses, in which
// bytes are counted from its beginning.
func (k *Kind) Counted() bool { return k.stream && k.domain == unix.AF_UNIX }

// Loopback is the kind's default address, with the port of the probe.
func (k *Kind) Loopback() netip.AddrPort {
	if k.IPv6() {
		return netip.AddrPortFrom(netip.IPv6Loopback(), ProbePort)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), ProbePort)
}

// Plural names the packets of its kernel view, such as "UDP datagrams".
func (k *Kind) Plural() string { return k.plural }

// Family is the address family of the kind's sockets, such as unix.AF_INET.
func (k *Kind) Family() int { return k.domain }

// newInterface describes one view of the kind. clockError bounds the error of its times, in
// nanoseconds.
func (k *Kind) newInterface(view View, clockError int64) Interface {
	i := Interface{Kind: k.Name, View: view, IPv6: k.IPv6(), HasMeta: view != ViewUser && view != ViewSent && view != ViewSelect, Source: SourceTap}
	switch view {
	case ViewKernel:
		i.Layer, i.ClockError = k.layer, clockError
		if k.domain == unix.AF_NETLINK {
			i.LinkType = LinkNetlink
		}
		if k.layer == LayerTransport {
			i.Header = HeaderSynthetic
		}
	case ViewUser:
		i.Layer = LayerMessage
	case ViewSent:
		i.Layer = LayerMessage
		if k.segments() {
			i.Header = HeaderSegment
		}
	case ViewSelect:
		i.Layer, i.Header = LayerTransport, HeaderSynthetic
	case ViewNet, ViewCgroup, ViewDrop:
		i.Layer = LayerNetwork
	case ViewLink, ViewWire:
		i.Layer = LayerLink
	}
	return i
}
