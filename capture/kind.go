package capture

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Kind is a kind of socket: one row of the table below. All that the rest of
// the package knows of a kind stands in its row.
type Kind struct {
	// Name is what --sock takes and what interfaces are named after.
	Name string
	// Summary is a few words for lists and messages.
	Summary string

	domain, typ int
	protocol    int // of socket(2); 0 for kinds that are opened with Config.Protocol

	layer     Layer // of offset 0 of the socket filter's __sk_buff
	plural    string
	stream    bool // listens, and is read as a stream of bytes
	headerLen int  // bytes from offset 0 on that userspace does not get (datagrams)
	probe     probe
}

var kinds = []Kind{
	{
		Name: "raw", Summary: "raw IPv4 socket", domain: unix.AF_INET, typ: unix.SOCK_RAW,
		layer: LayerNetwork, plural: "IPv4 packets", probe: probeRaw,
	},
	{
		Name: "raw6", Summary: "raw IPv6 socket", domain: unix.AF_INET6, typ: unix.SOCK_RAW,
		layer: LayerTransport, plural: "IPv6 payloads", probe: probeRaw,
	},
	{
		Name: "tcp", Summary: "TCP listener over IPv4 and all it accepts", domain: unix.AF_INET, typ: unix.SOCK_STREAM,
		protocol: unix.IPPROTO_TCP, layer: LayerTransport, plural: "TCP segments", stream: true, probe: probeStream,
	},
	{
		Name: "tcp6", Summary: "TCP listener over IPv6 and all it accepts", domain: unix.AF_INET6, typ: unix.SOCK_STREAM,
		protocol: unix.IPPROTO_TCP, layer: LayerTransport, plural: "TCP segments", stream: true, probe: probeStream,
	},
	{
		Name: "udp", Summary: "UDP socket over IPv4", domain: unix.AF_INET, typ: unix.SOCK_DGRAM,
		protocol: unix.IPPROTO_UDP, layer: LayerTransport, plural: "UDP datagrams", headerLen: 8, probe: probeDatagram,
	},
	{
		Name: "udp6", Summary: "UDP socket over IPv6", domain: unix.AF_INET6, typ: unix.SOCK_DGRAM,
		protocol: unix.IPPROTO_UDP, layer: LayerTransport, plural: "UDP datagrams", headerLen: 8, probe: probeDatagram,
	},
	{
		Name: "mptcp", Summary: "MPTCP listener over IPv4 (no kernel lets it have a filter yet)", domain: unix.AF_INET, typ: unix.SOCK_STREAM,
		protocol: unix.IPPROTO_MPTCP, layer: LayerTransport, plural: "MPTCP segments", stream: true, probe: probeStream,
	},
}

// Kinds lists the kinds of socket that a Session can open.
func Kinds() []Kind { return append([]Kind(nil), kinds...) }

// KindByName finds the kind that a user named.
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
func (k *Kind) TakesProtocol() bool { return k.protocol == 0 }

// CanEcho tells whether what the socket received can be sent back through it.
func (k *Kind) CanEcho() bool { return k.typ != unix.SOCK_RAW }

// Loopback is the kind's default address, with the port of the probe.
func (k *Kind) Loopback() netip.AddrPort {
	if k.IPv6() {
		return netip.AddrPortFrom(netip.IPv6Loopback(), ProbePort)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), ProbePort)
}

// family is how the kind's IP version is called.
func (k *Kind) family() string {
	if k.IPv6() {
		return "IPv6"
	}
	return "IPv4"
}

// newInterface describes one view of the kind. clockError is the bound of the
// error of its times, in nanoseconds.
func (k *Kind) newInterface(view View, clockError int64) *Interface {
	i := &Interface{Kind: k.Name, View: view, IPv6: k.IPv6()}
	switch view {
	case ViewKernel:
		i.Layer = k.layer
		i.Description = k.plural + " as the socket filter sees them, from offset 0"
		if k.layer == LayerTransport {
			i.Description += fmt.Sprintf("; the %s header is synthetic, its addresses are real", k.family())
		}
		i.Description += fmt.Sprintf("; times are within %d ns of the wall clock at the start", clockError)
	case ViewUser:
		i.Layer = LayerMessage
		i.Description = "what recvmsg returned to userspace"
	case ViewNet:
		i.Layer = LayerNetwork
		i.Description = "the same packets from the network header on, which the filter reaches with bpf_skb_load_bytes_relative"
	case ViewLink:
		i.Layer = LayerLink
		i.Description = "the same packets from the link header on, which the filter reaches with bpf_skb_load_bytes_relative"
	}
	return i
}
