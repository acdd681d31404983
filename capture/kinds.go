package capture

import "golang.org/x/sys/unix"

var kinds = []Kind{
	{
		Name: "raw", Summary: "raw IPv4 socket", domain: unix.AF_INET, typ: unix.SOCK_RAW,
		anyProtocol: true, layer: LayerNetwork, plural: "IPv4 packets", copies: true, probe: probeRaw,
	},
	{
		Name: "raw6", Summary: "raw IPv6 socket", domain: unix.AF_INET6, typ: unix.SOCK_RAW,
		anyProtocol: true, layer: LayerTransport, plural: "IPv6 payloads", copies: true, probe: probeRaw,
	},
	{
		Name: "tcp", Summary: "TCP listener over IPv4 and all it accepts", domain: unix.AF_INET, typ: unix.SOCK_STREAM,
		protocol: unix.IPPROTO_TCP, layer: LayerTransport, plural: "TCP segments", listens: true, stream: true,
		canEcho: true, probe: probeConnection,
	},
	{
		Name: "tcp6", Summary: "TCP listener over IPv6 and all it accepts", domain: unix.AF_INET6, typ: unix.SOCK_STREAM,
		protocol: unix.IPPROTO_TCP, layer: LayerTransport, plural: "TCP segments", listens: true, stream: true,
		canEcho: true, probe: probeConnection,
	},
	{
		Name: "mptcp", Summary: "MPTCP listener over IPv4 (no kernel lets it have a filter yet)", domain: unix.AF_INET, typ: unix.SOCK_STREAM,
		protocol: unix.IPPROTO_MPTCP, layer: LayerTransport, plural: "MPTCP segments", listens: true, stream: true,
		canEcho: true, probe: probeConnection,
	},
	{
		Name: "sctp", Summary: "SCTP listener over IPv4 and all it accepts", domain: unix.AF_INET, typ: unix.SOCK_STREAM,
		protocol: unix.IPPROTO_SCTP, layer: LayerTransport, plural: "SCTP packets", listens: true, adopts: true, stream: true,
		canEcho: true, probe: probeConnection,
	},
	{
		Name: "udp", Summary: "UDP socket over IPv4", domain: unix.AF_INET, typ: unix.SOCK_DGRAM,
		protocol: unix.IPPROTO_UDP, layer: LayerTransport, plural: "UDP datagrams", headerLen: 8, canEcho: true, probe: probeDatagram,
	},
	{
		Name: "udp6", Summary: "UDP socket over IPv6", domain: unix.AF_INET6, typ: unix.SOCK_DGRAM,
		protocol: unix.IPPROTO_UDP, layer: LayerTransport, plural: "UDP datagrams", headerLen: 8, canEcho: true, probe: probeDatagram,
	},
	{
		Name: "udplite", Summary: "UDP-Lite socket over IPv4", domain: unix.AF_INET, typ: unix.SOCK_DGRAM,
		protocol: unix.IPPROTO_UDPLITE, layer: LayerTransport, plural: "UDP-Lite datagrams", headerLen: 8, canEcho: true, probe: probeDatagram,
	},
	{
		Name: "udplite6", Summary: "UDP-Lite socket over IPv6", domain: unix.AF_INET6, typ: unix.SOCK_DGRAM,
		protocol: unix.IPPROTO_UDPLITE, layer: LayerTransport, plural: "UDP-Lite datagrams", headerLen: 8, canEcho: true, probe: probeDatagram,
	},
	{
		Name: "icmp", Summary: "ping socket over IPv4", domain: unix.AF_INET, typ: unix.SOCK_DGRAM,
		protocol: unix.IPPROTO_ICMP, layer: LayerTransport, plural: "ICMP messages", probe: probePing,
		denied: pingDenied,
	},
	{
		Name: "icmp6", Summary: "ping socket over IPv6", domain: unix.AF_INET6, typ: unix.SOCK_DGRAM,
		protocol: unix.IPPROTO_ICMPV6, layer: LayerTransport, plural: "ICMPv6 messages", probe: probePing,
		denied: pingDenied,
	},
	{
		Name: "packet", Summary: "packet socket for all frames of an interface", domain: unix.AF_PACKET, typ: unix.SOCK_RAW,
		place: packetPlace(unix.ETH_P_ALL), layer: LayerLink, plural: "frames", copies: true, probe: probeWire,
	},
	{
		Name: "packet-dgram", Summary: "packet socket for received IPv4, without the link header", domain: unix.AF_PACKET, typ: unix.SOCK_DGRAM,
		place: packetPlace(unix.ETH_P_IP), layer: LayerNetwork, plural: "IPv4 packets", copies: true, probe: probeWire,
	},
	{
		Name: "unix-stream", Summary: "unix stream listener and all it accepts", domain: unix.AF_UNIX, typ: unix.SOCK_STREAM,
		place: unixPlace, layer: LayerMessage, plural: "messages", listens: true, adopts: true, stream: true, canEcho: true, idle: true, probe: probeConnection,
		Note: "a unix stream socket takes a filter and never runs it: expect nothing in the kernel view, only what userspace reads",
	},
	{
		Name: "unix-dgram", Summary: "unix datagram socket", domain: unix.AF_UNIX, typ: unix.SOCK_DGRAM,
		place: unixPlace, layer: LayerMessage, plural: "messages", probe: probeDatagram,
	},
	{
		Name: "unix-seqpacket", Summary: "unix seqpacket listener and all it accepts", domain: unix.AF_UNIX, typ: unix.SOCK_SEQPACKET,
		place: unixPlace, layer: LayerMessage, plural: "messages", listens: true, adopts: true, canEcho: true, probe: probeConnection,
		Note: "a unix socket does not inherit its listener's filter: what is sent before the connection is accepted is only in the user view",
	},
	{
		Name: "netlink", Summary: "netlink socket for news of interfaces, addresses and routes", domain: unix.AF_NETLINK, typ: unix.SOCK_RAW,
		protocol: unix.NETLINK_ROUTE, place: netlinkPlace, layer: LayerMessage, plural: "netlink messages", copies: true, probe: probeNetlink,
		mayProbe: mayProbeNetlink,
	},
	{
		Name: "vsock", Summary: "vsock stream listener and all it accepts", domain: unix.AF_VSOCK, typ: unix.SOCK_STREAM,
		place: vsockPlace, layer: LayerMessage, plural: "messages", listens: true, adopts: true, stream: true, canEcho: true, probe: probeConnection,
	},
}

const pingDenied = `allow ping sockets (sysctl net.ipv4.ping_group_range="0 2147483647")`
