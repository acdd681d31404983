package capture

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// familyNames are the address families of socket(2) by name: AF_UNIX is "unix".
var familyNames = map[int]string{
	unix.AF_UNIX: "unix", unix.AF_INET: "inet", unix.AF_INET6: "inet6", unix.AF_NETLINK: "netlink", unix.AF_PACKET: "packet",
	unix.AF_VSOCK: "vsock", unix.AF_XDP: "xdp", unix.AF_ALG: "alg", unix.AF_BLUETOOTH: "bluetooth", unix.AF_CAN: "can",
	unix.AF_KEY: "key", unix.AF_TIPC: "tipc", unix.AF_RDS: "rds", unix.AF_KCM: "kcm", unix.AF_SMC: "smc", unix.AF_RXRPC: "rxrpc",
	unix.AF_PPPOX: "pppox", unix.AF_LLC: "llc", unix.AF_IEEE802154: "ieee802154", unix.AF_NFC: "nfc", unix.AF_PHONET: "phonet",
	unix.AF_QIPCRTR: "qipcrtr", unix.AF_MCTP: "mctp", unix.AF_IB: "ib", unix.AF_AX25: "ax25", unix.AF_X25: "x25",
	unix.AF_APPLETALK: "appletalk", unix.AF_ISDN: "isdn", unix.AF_CAIF: "caif",
}

// socketTypes are the types of socket(2) by name: SOCK_STREAM is "stream".
var socketTypes = map[int]string{
	unix.SOCK_STREAM: "stream", unix.SOCK_DGRAM: "dgram", unix.SOCK_RAW: "raw", unix.SOCK_RDM: "rdm",
	unix.SOCK_SEQPACKET: "seqpacket", unix.SOCK_DCCP: "dccp", unix.SOCK_PACKET: "packet",
}

// netlinkProtocols are the protocols of netlink(7) by name: NETLINK_ROUTE is "route".
var netlinkProtocols = map[int]string{
	unix.NETLINK_ROUTE: "route", unix.NETLINK_USERSOCK: "usersock", unix.NETLINK_SOCK_DIAG: "sock_diag", unix.NETLINK_NFLOG: "nflog",
	unix.NETLINK_XFRM: "xfrm", unix.NETLINK_SELINUX: "selinux", unix.NETLINK_ISCSI: "iscsi", unix.NETLINK_AUDIT: "audit",
	unix.NETLINK_FIB_LOOKUP: "fib_lookup", unix.NETLINK_CONNECTOR: "connector", unix.NETLINK_NETFILTER: "netfilter",
	unix.NETLINK_KOBJECT_UEVENT: "kobject_uevent", unix.NETLINK_GENERIC: "generic", unix.NETLINK_SCSITRANSPORT: "scsitransport",
	unix.NETLINK_ECRYPTFS: "ecryptfs", unix.NETLINK_RDMA: "rdma", unix.NETLINK_CRYPTO: "crypto",
}

// mptcp6 is a kind of socket that Open does not open.
const mptcp6 = "mptcp6"

// kindName names the kind of any socket: the name of its Kind or, where there is none, its
// address family and type, such as "alg-seqpacket".
func kindName(domain, typ, protocol int) string {
	if protocol == unix.IPPROTO_MPTCP {
		if domain == unix.AF_INET6 {
			return mptcp6
		}
		return "mptcp"
	}
	if k := kindOf(domain, typ, protocol); k != nil {
		return k.Name
	}
	return nameOr(familyNames, domain, "family") + "-" + nameOr(socketTypes, typ, "type")
}

// nameOr is a number's name or, without one, what it is a number of with the number.
func nameOr(names map[int]string, number int, what string) string {
	if name, ok := names[number]; ok {
		return name
	}
	return what + strconv.Itoa(number)
}

// IsKindName tells whether a Socket's Kind can be of this name.
func IsKindName(name string) bool {
	if _, ok := KindByName(name); ok || name == mptcp6 {
		return true
	}
	family, typ, _ := strings.Cut(name, "-")
	return isName(familyNames, family, "family") && isName(socketTypes, typ, "type")
}

// isName tells whether nameOr can return a name.
func isName(names map[int]string, name, what string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	digits, ok := strings.CutPrefix(name, what)
	_, err := strconv.ParseUint(digits, 10, 16)
	return ok && err == nil
}

// tcpStates are the states of tcp(7), as ss names them, by the kernel's numbers.
var tcpStates = [...]string{
	1: "estab", 2: "syn-sent", 3: "syn-recv", 4: "fin-wait-1", 5: "fin-wait-2", 6: "time-wait", 7: "unconn",
	8: "close-wait", 9: "last-ack", 10: "listen", 11: "closing", 12: "syn-recv", 13: "unconn",
}

// Address is the address of a socket or its peer. The zero value is none.
type Address struct {
	// IP is invalid unless the socket is one of IPv4 or IPv6. An IPv4 address in an IPv6 one is
	// an IPv4 address.
	IP netip.Addr
	// Port is 0 if there is none.
	Port uint16
	// Name is the address in another family: a path or an abstract name after @, interface and
	// ethertype, protocol and port id, context id and port. Others choose it, of any bytes.
	Name string
}

// IsZero tells whether it is none.
func (a Address) IsZero() bool { return a == Address{} }

// String is the address in printable characters, empty if it is none.
func (a Address) String() string {
	switch {
	case !a.IP.IsValid():
		return terminal.Plain(a.Name)
	case a.Port == 0:
		return a.IP.String()
	}
	return netip.AddrPortFrom(a.IP, a.Port).String()
}

// addresses returns the socket's address and its peer's. Interfaces have names only if the socket
// is in our network namespace.
func (f *foreign) addresses(ours bool) (local, peer Address) {
	if at, ok := f.peerName.(*unix.SockaddrNetlink); !ok || at.Pid != 0 || at.Groups != 0 { // else the kernel
		peer = f.addressOf(f.peerName, f.peer, ours)
	}
	return f.addressOf(f.name, f.local, ours), peer
}

// addressOf converts an address. ip is the same if it is an IP address.
func (f *foreign) addressOf(sa unix.Sockaddr, ip netip.AddrPort, ours bool) Address {
	device := func(index int) string {
		if i, err := net.InterfaceByIndex(index); err == nil && ours {
			return i.Name
		}
		return strconv.Itoa(index)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4, *unix.SockaddrInet6:
		a := Address{IP: ip.Addr(), Port: ip.Port()}
		if f.typ == unix.SOCK_RAW {
			a.Port = 0 // the protocol
		}
		if v6, ok := sa.(*unix.SockaddrInet6); ok && v6.ZoneId != 0 && a.IP.Is6() {
			a.IP = a.IP.WithZone(device(int(v6.ZoneId)))
		}
		return a
	case *unix.SockaddrUnix:
		return Address{Name: unixName(sa)}
	case *unix.SockaddrLinklayer:
		return Address{Name: wildcard(sa.Ifindex == 0, func() string { return device(sa.Ifindex) }) + " " + etherType(networkOrder(sa.Protocol))}
	case *unix.SockaddrNetlink:
		name := nameOr(netlinkProtocols, f.protocol, "protocol") + " " + strconv.FormatUint(uint64(sa.Pid), 10)
		if sa.Groups != 0 {
			name += fmt.Sprintf(" groups %#x", sa.Groups)
		}
		return Address{Name: name}
	case *unix.SockaddrVM:
		cid := wildcard(sa.CID == unix.VMADDR_CID_ANY, func() string { return strconv.FormatUint(uint64(sa.CID), 10) })
		return Address{Name: cid + ":" + wildcard(sa.Port == unix.VMADDR_PORT_ANY, func() string { return strconv.FormatUint(uint64(sa.Port), 10) })}
	}
	return Address{}
}

func wildcard(any bool, name func() string) string {
	if any {
		return "*"
	}
	return name()
}

// etherType is an ethertype of a packet socket.
func etherType(t uint16) string {
	switch t {
	case unix.ETH_P_ALL:
		return "all"
	case 0:
		return "none"
	}
	return fmt.Sprintf("%#04x", t)
}
