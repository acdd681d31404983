package capture

import (
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/process"
)

// Socket is a socket of some processes, and what is on it.
type Socket struct {
	// Kind is the name of its Kind; of other sockets, address family and type, such as
	// "alg-seqpacket".
	Kind string
	// Family, Type and Protocol are those of socket(2).
	Family, Type, Protocol int
	// Cookie is the kernel's number of the socket (SO_COOKIE), as packets have it.
	Cookie uint64
	// Inode is the number in /proc/PID/fd.
	Inode uint64
	// Network is the inode of its network namespace; 0 if it is not known. Elsewhere tells whether
	// that is another one than ours.
	Network   uint32
	Elsewhere bool
	// State is the state of a socket, as ss names it, in small letters: of TCP and MPTCP any; of other
	// sockets "listen" or "estab", and empty where they do neither, which ss calls unconn.
	State string
	// Local and Peer are its address and the one that it is connected to.
	Local, Peer Address
	// Owners are the processes that have it, of those that were looked into.
	Owners []Owner

	// Classic is the classic filter; empty if there is none.
	Classic []unix.SockFilter
	// Extended tells whether there is an eBPF filter. Filter says which, if that is known.
	Extended bool
	Filter   Program
	// Tap says that the filter is the tap of a capture; nil if it is not, or that is not known.
	Tap *SocketTap
	// Locked tells whether its owner has locked the filter (SO_LOCK_FILTER).
	Locked bool
	// ReuseportSockets is how many sockets share the address (SO_REUSEPORT); 0 if it is in no such
	// group, or that is not known. A program that chooses one of them is either Reuseport or
	// ReuseportClassic.
	ReuseportSockets int
	Reuseport        Program
	ReuseportClassic []unix.SockFilter
	// Sockmaps are those that it is in, at most bpf.MaxSockmaps.
	Sockmaps []bpf.Sockmap
	// ULP is the upper layer protocol of a TCP socket (TCP_ULP): "tls" with kTLS.
	ULP string
	// MPTCP is what the kernel says of an MPTCP connection; nil if it says nothing: before Linux 5.16,
	// and before Linux 6.9 of one that has fallen back.
	MPTCP *MPTCP
}

// SocketTap is the tap of a capture as the filter of a socket.
type SocketTap struct {
	// Ended: the capture has ended without taking it off, as one that was killed. It records nothing any
	// more, and lets everything through, or decides what the filter inside does.
	Ended bool
	// PID is the process that captures; 0 if it has ended, or is not seen.
	PID int
	// Wraps: there is a filter of the socket's own inside. Inside is that, if it is an eBPF program.
	Wraps  bool
	Inside Program
}

// Owner is a process that has a socket.
type Owner struct {
	PID int
	// Name is that of ps, as the process chose it, of any bytes.
	Name string
	// Descriptors are all that the process has of the socket.
	Descriptors []int
}

// Program is an eBPF program in the kernel. The zero value is none.
type Program struct {
	// ID is the kernel's number of the program.
	ID uint32
	// Name as its loader chose it, of any bytes.
	Name string
	// Loaded is when.
	Loaded time.Time
}

// MPTCP is the state of an MPTCP connection.
type MPTCP struct {
	// Subflows is how many it has besides the first one.
	Subflows int
	// Fallback: it has fallen back to TCP, because its peer or the way to it has no MPTCP.
	Fallback bool
}

// newSocketFacts has what is known of a socket so far.
func newSocketFacts(info *foreign, inode uint64) Socket {
	s := Socket{
		Kind:   kindName(info.domain, info.typ, info.protocol),
		Family: info.domain, Type: info.typ, Protocol: info.protocol, Cookie: info.cookie, Inode: inode,
	}
	switch {
	case info.listening:
		s.State = tcpStates[10]
	case info.peerName != nil && info.staysConnected():
		s.State = tcpStates[1]
	}
	return s
}

// staysConnected tells of a socket with a peer whether that is all that its state says. TCP and its like have more
// states, and netlink and packet sockets have none.
func (f *foreign) staysConnected() bool {
	switch f.domain {
	case unix.AF_INET, unix.AF_INET6:
		return f.typ == unix.SOCK_DGRAM || f.typ == unix.SOCK_RAW
	case unix.AF_UNIX, unix.AF_VSOCK:
		return true
	}
	return false
}

// own makes a process an owner.
func (s *Socket) own(p *process.Process, fd int) {
	if last := len(s.Owners) - 1; last >= 0 && s.Owners[last].PID == p.PID {
		s.Owners[last].Descriptors = append(s.Owners[last].Descriptors, fd)
		return
	}
	s.Owners = append(s.Owners, Owner{PID: p.PID, Name: p.Command, Descriptors: []int{fd}})
}

// hasPort tells whether the socket's own port or its peer's is in ports.
func (s *Socket) hasPort(ports []uint16) bool {
	return slices.Contains(ports, s.Local.Port) || slices.Contains(ports, s.Peer.Port)
}

// attached adds what an Inspector has found.
func (s *Socket) attached(found *bpf.Attachments, clock clock) {
	program := func(p bpf.Program) Program {
		if p.ID == 0 {
			return Program{}
		}
		return Program{ID: p.ID, Name: p.Name, Loaded: time.Unix(0, clock.wall(p.Loaded))}
	}
	s.Network, s.Filter, s.Extended = found.Network, program(found.Filter), found.Filter.ID != 0
	s.ReuseportSockets, s.Reuseport, s.ReuseportClassic = found.ReuseportSockets, program(found.Reuseport), found.ReuseportClassic
	s.Sockmaps = found.Sockmaps
	own := bpf.OwnFilter{Program: found.Filter}
	if other, pid, err := otherTap(&own); s.Extended && err == nil && other != nil {
		s.Tap = &SocketTap{Ended: other.Ended, PID: pid, Wraps: other.Wraps, Inside: program(other.Inside.Program)}
	}
}

// ask adds what the socket's options say, by a copy of its descriptor. What an option does not
// say is not there: most are for some kinds only.
func (s *Socket) ask(fd int, info *foreign) {
	if f, err := getFilter(fd); err == nil {
		s.Classic, s.Extended = f.classic, f.extended
		if !f.extended {
			s.Filter, s.Tap = Program{}, nil // taken off since it was found
		}
	}
	locked, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER)
	s.Locked = err == nil && locked != 0
	if info.domain != unix.AF_INET && info.domain != unix.AF_INET6 {
		return
	}
	switch info.protocol {
	case unix.IPPROTO_TCP:
		s.ULP, _ = unix.GetsockoptString(fd, unix.SOL_TCP, unix.TCP_ULP)
	case unix.IPPROTO_MPTCP:
		if info.peerName != nil {
			s.MPTCP = mptcpInfo(fd)
		}
	default:
		return
	}
	if tcp, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO); err == nil && int(tcp.State) < len(tcpStates) {
		s.State = tcpStates[tcp.State]
	}
}

// mptcpInfo asks for struct mptcp_info of linux/mptcp.h, and returns nil if the kernel does not
// answer.
func mptcpInfo(fd int) *MPTCP {
	const (
		option, fallback = 1, 1 // MPTCP_INFO, MPTCP_INFO_FLAG_FALLBACK
		isMPTCP          = 43   // TCP_IS_MPTCP
	)
	var info struct {
		subflows uint8
		_        [7]uint8
		flags    uint32
	}
	length := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_MPTCP, option,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&length)), 0)
	// One that has fallen back answers as TCP does, which does not know the option.
	if is, err := unix.GetsockoptInt(fd, unix.SOL_TCP, isMPTCP); errno != 0 && err == nil && is == 0 {
		return &MPTCP{Fallback: true}
	}
	if errno != 0 || length < uint32(unsafe.Sizeof(info)) {
		return nil
	}
	return &MPTCP{Subflows: int(info.subflows), Fallback: info.flags&fallback != 0}
}
