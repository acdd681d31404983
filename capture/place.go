package capture

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// place is how the sockets of a kind without IP address and port are bound. The zero value is
// for the kinds that have both.
type place struct {
	address  string // default of Config.Address
	sockaddr func(address string) (unix.Sockaddr, error)
	// target returns the address at which a peer reaches a bound socket.
	target func(bound unix.Sockaddr) unix.Sockaddr
	// release removes what bind created.
	release func(address string)
	// folder is where that is; empty if there is nothing to remove.
	folder func(address string) string
}

// packetPlace binds to a network interface, for one ethertype or ETH_P_ALL.
func packetPlace(ethertype uint16) place {
	return place{
		address: "lo",
		sockaddr: func(address string) (unix.Sockaddr, error) {
			device, err := interfaceCalled(address)
			if err != nil {
				return nil, fmt.Errorf("opening a packet socket: %w", err)
			}
			if ethertype == unix.ETH_P_ALL && !hasEthernet(device) {
				return nil, fmt.Errorf("binding to interface %q: its frames begin with no Ethernet header: choose packet-dgram", address)
			}
			return &unix.SockaddrLinklayer{Protocol: networkOrder(ethertype), Ifindex: device.Index}, nil
		},
	}
}

// hasEthernet tells whether frames of an interface begin with an Ethernet header.
func hasEthernet(device *net.Interface) bool {
	return device.Flags&net.FlagLoopback != 0 || len(device.HardwareAddr) == 6
}

// unixPlace binds to a path, or after @ to a name in the abstract namespace.
var unixPlace = place{
	address: "@ebpfdump",
	sockaddr: func(address string) (unix.Sockaddr, error) {
		return &unix.SockaddrUnix{Name: address}, nil
	},
	release: func(address string) {
		if !strings.HasPrefix(address, "@") {
			os.Remove(address)
		}
	},
	folder: func(address string) string {
		if strings.HasPrefix(address, "@") {
			return ""
		}
		return filepath.Dir(address)
	},
}

// netlinkPlace joins multicast groups of NETLINK_ROUTE, a bit each.
var netlinkPlace = place{
	address: fmt.Sprintf("groups %#x", routeGroups),
	sockaddr: func(address string) (unix.Sockaddr, error) {
		groups, err := strconv.ParseUint(strings.TrimPrefix(address, "groups "), 0, 32)
		if err != nil {
			return nil, fmt.Errorf("joining netlink groups %q: not a number of 32 bits, such as %#x", address, routeGroups)
		}
		return &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: uint32(groups)}, nil
	},
	target: func(bound unix.Sockaddr) unix.Sockaddr {
		return &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: bound.(*unix.SockaddrNetlink).Pid}
	},
}

// routeGroups are the first groups of linux/rtnetlink.h: links, neighbours,
// addresses, routes and rules of both IP versions.
const routeGroups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_NEIGH-1) |
	1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV4_RULE-1) |
	1<<(unix.RTNLGRP_IPV6_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_RULE-1)

// vsockPlace binds to a port, for all context ids. The probe uses the kernel's vsock loopback,
// if there is one.
var vsockPlace = place{
	address: strconv.Itoa(ProbePort),
	sockaddr: func(address string) (unix.Sockaddr, error) {
		port, err := strconv.ParseUint(address, 0, 32)
		if err != nil {
			return nil, fmt.Errorf("listening on vsock port %q: not a number of 32 bits", address)
		}
		return &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: uint32(port)}, nil
	},
	target: func(bound unix.Sockaddr) unix.Sockaddr {
		return &unix.SockaddrVM{CID: unix.VMADDR_CID_LOCAL, Port: bound.(*unix.SockaddrVM).Port}
	},
}
