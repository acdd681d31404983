package capture

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Levels and types that golang.org/x/sys/unix lacks.
const (
	solUDP    = 17
	solTLS    = 282
	udpGRO    = 104
	msgDevmem = 0x2000000
)

// controlNames has the kinds of ancillary data that sockets of Linux return, by level and type.
var controlNames = map[[2]int32]string{
	{unix.SOL_SOCKET, unix.SCM_RIGHTS}:      "SCM_RIGHTS",
	{unix.SOL_SOCKET, unix.SCM_CREDENTIALS}: "SCM_CREDENTIALS",
	{unix.SOL_SOCKET, 3}:                    "SCM_SECURITY",
	{unix.SOL_SOCKET, 4}:                    "SCM_PIDFD",
	{unix.SOL_SOCKET, 12}:                   "SO_PRIORITY",
	{unix.SOL_SOCKET, 29}:                   "SCM_TIMESTAMP",
	{unix.SOL_SOCKET, 35}:                   "SCM_TIMESTAMPNS",
	{unix.SOL_SOCKET, 36}:                   "SO_MARK",
	{unix.SOL_SOCKET, 37}:                   "SCM_TIMESTAMPING",
	{unix.SOL_SOCKET, 40}:                   "SO_RXQ_OVFL",
	{unix.SOL_SOCKET, 41}:                   "SCM_WIFI_STATUS",
	{unix.SOL_SOCKET, 54}:                   "SCM_TIMESTAMPING_OPT_STATS",
	{unix.SOL_SOCKET, 58}:                   "SCM_TIMESTAMPING_PKTINFO",
	{unix.SOL_SOCKET, 61}:                   "SCM_TXTIME",
	{unix.SOL_SOCKET, 63}:                   "SO_TIMESTAMP_NEW",
	{unix.SOL_SOCKET, 64}:                   "SO_TIMESTAMPNS_NEW",
	{unix.SOL_SOCKET, 65}:                   "SO_TIMESTAMPING_NEW",
	{unix.SOL_SOCKET, 78}:                   "SCM_DEVMEM_LINEAR",
	{unix.SOL_SOCKET, 79}:                   "SCM_DEVMEM_DMABUF",
	{unix.SOL_SOCKET, 81}:                   "SCM_TS_OPT_ID",

	{unix.SOL_IP, unix.IP_TOS}:          "IP_TOS",
	{unix.SOL_IP, unix.IP_TTL}:          "IP_TTL",
	{unix.SOL_IP, unix.IP_RECVOPTS}:     "IP_RECVOPTS",
	{unix.SOL_IP, unix.IP_RETOPTS}:      "IP_RETOPTS",
	{unix.SOL_IP, unix.IP_PKTINFO}:      "IP_PKTINFO",
	{unix.SOL_IP, unix.IP_RECVERR}:      "IP_RECVERR",
	{unix.SOL_IP, 3}:                    "SCM_SECURITY", // of IP_PASSSEC
	{unix.SOL_IP, unix.IP_ORIGDSTADDR}:  "IP_ORIGDSTADDR",
	{unix.SOL_IP, unix.IP_CHECKSUM}:     "IP_CHECKSUM",
	{unix.SOL_IP, 25}:                   "IP_RECVFRAGSIZE",
	{unix.SOL_IPV6, 2}:                  "IPV6_2292PKTINFO",
	{unix.SOL_IPV6, 3}:                  "IPV6_2292HOPOPTS",
	{unix.SOL_IPV6, 4}:                  "IPV6_2292DSTOPTS",
	{unix.SOL_IPV6, 5}:                  "IPV6_2292RTHDR",
	{unix.SOL_IPV6, 8}:                  "IPV6_2292HOPLIMIT",
	{unix.SOL_IPV6, 11}:                 "IPV6_FLOWINFO",
	{unix.SOL_IPV6, unix.IPV6_RECVERR}:  "IPV6_RECVERR",
	{unix.SOL_IPV6, unix.IPV6_PKTINFO}:  "IPV6_PKTINFO",
	{unix.SOL_IPV6, unix.IPV6_HOPLIMIT}: "IPV6_HOPLIMIT",
	{unix.SOL_IPV6, unix.IPV6_HOPOPTS}:  "IPV6_HOPOPTS",
	{unix.SOL_IPV6, unix.IPV6_RTHDR}:    "IPV6_RTHDR",
	{unix.SOL_IPV6, unix.IPV6_DSTOPTS}:  "IPV6_DSTOPTS",
	{unix.SOL_IPV6, unix.IPV6_PATHMTU}:  "IPV6_PATHMTU",
	{unix.SOL_IPV6, unix.IPV6_TCLASS}:   "IPV6_TCLASS",
	{unix.SOL_IPV6, 74}:                 "IPV6_ORIGDSTADDR",
	{unix.SOL_IPV6, 77}:                 "IPV6_RECVFRAGSIZE",

	{solUDP, udpGRO}:                         "UDP_GRO",
	{unix.SOL_TCP, unix.TCP_INQ}:             "TCP_CM_INQ",
	{unix.SOL_PACKET, unix.PACKET_AUXDATA}:   "PACKET_AUXDATA",
	{unix.SOL_NETLINK, unix.NETLINK_PKTINFO}: "NETLINK_PKTINFO",
	{unix.SOL_NETLINK, 8}:                    "NETLINK_LISTEN_ALL_NSID",
	{solTLS, 2}:                              "TLS_GET_RECORD_TYPE",
	{unix.IPPROTO_SCTP, 0}:                   "SCTP_INIT",
	{unix.IPPROTO_SCTP, 1}:                   "SCTP_SNDRCV",
	{unix.IPPROTO_SCTP, 3}:                   "SCTP_RCVINFO",
	{unix.IPPROTO_SCTP, 4}:                   "SCTP_NXTINFO",
}

// Name is what <sys/socket.h> and its like call it, or "level N type M".
func (c Control) Name() string {
	if name, ok := controlNames[[2]int32{c.Level, c.Type}]; ok {
		return name
	}
	return fmt.Sprintf("level %d type %d", c.Level, c.Type)
}

// messageFlags are those that recvmsg returns, in ascending order.
var messageFlags = []struct {
	flag uint32
	name string
}{
	{unix.MSG_OOB, "MSG_OOB"},
	{unix.MSG_CTRUNC, "MSG_CTRUNC"},
	{unix.MSG_TRUNC, "MSG_TRUNC"},
	{unix.MSG_EOR, "MSG_EOR"},
	{unix.MSG_ERRQUEUE, "MSG_ERRQUEUE"},
	{unix.MSG_MORE, "MSG_NOTIFICATION"}, // of SCTP; nobody returns MSG_MORE
	{msgDevmem, "MSG_SOCK_DEVMEM"},
}

// FlagNames are the names of the Flags; what has none comes last, as a number.
func (r *Reception) FlagNames() (names []string) {
	rest := r.Flags
	for _, f := range messageFlags {
		if rest&f.flag != 0 {
			names = append(names, f.name)
			rest &^= f.flag
		}
	}
	if rest != 0 {
		names = append(names, fmt.Sprintf("%#x", rest))
	}
	return names
}

// ErrnoName is the name of the Errno, such as "ECONNREFUSED", or its number if it has none;
// empty without an error.
func (r *Receipt) ErrnoName() string {
	if r.Errno == 0 {
		return ""
	}
	if name := unix.ErrnoName(r.Errno); name != "" {
		return name
	}
	return fmt.Sprintf("errno %d", uint64(r.Errno))
}
