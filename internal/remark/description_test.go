package remark

import (
	"testing"
	"time"

	"github.com/ebpfdump/ebpfdump/capture"
)

const (
	metaSaid  = "; a comment tells the VLAN tag, mark, priority and GSO of each packet that had any"
	frameSaid = metaSaid + "; such a tag is put back after the addresses, as libpcap does it: the filter did not see it there"
)

// described are the descriptions in existing files.
func described() map[string]capture.Interface {
	const (
		tap                   = capture.SourceTap
		kernel, user          = capture.ViewKernel, capture.ViewUser
		transport, linkHeader = capture.LayerTransport, capture.LayerLink
		synthetic             = capture.HeaderSynthetic
	)
	trace := func(header capture.Header, kind string, boot time.Time) capture.Interface {
		i := capture.Interface{Kind: kind, View: kernel, Source: capture.SourceTrace, Header: header}
		DescribeTrace(&i, boot)
		return i
	}
	return map[string]capture.Interface{
		"":                    {},
		"frames":              {Description: "frames"},
		"frames" + frameSaid:  {Description: "frames", HasMeta: true, Layer: linkHeader},
		"segments" + metaSaid: {Description: "segments", HasMeta: true, Layer: transport},
		metaSaid:              {HasMeta: true},
		"TCP segments as the socket filter sees them, from offset 0; the IPv4 header is synthetic, its addresses are real; times are within 1264 ns of the wall clock at the start" + metaSaid: {
			Kind: "tcp", View: kernel, Layer: transport, Source: tap, Header: synthetic, ClockError: 1264, HasMeta: true},
		"IPv4 packets as the socket filter sees them, from offset 0; times are within 0 ns of the wall clock at the start" + metaSaid: {
			Kind: "raw", View: kernel, Layer: capture.LayerNetwork, Source: tap, HasMeta: true},
		"frames as the socket filter sees them, from offset 0; times are within 5 ns of the wall clock at the start" + frameSaid: {
			Kind: "packet", View: kernel, Layer: linkHeader, Source: tap, ClockError: 5, HasMeta: true},
		"UDP datagrams as the socket filter sees them, from offset 0; the IPv4 header is synthetic, its addresses are real; times are within 7 ns of the wall clock at the start; " +
			"socket 2 of 4 of a reuseport group" + metaSaid: {
			Kind: "udp", View: kernel, Layer: transport, Source: tap, Header: synthetic, ClockError: 7, HasMeta: true, Member: 2, Members: 4},
		"what recvmsg returned to userspace; socket 0 of 4 of a reuseport group": {
			Kind: "udp", View: user, Layer: capture.LayerMessage, Source: tap, Members: 4},
		"UDP datagrams as the program sees them that chooses a socket of a reuseport group, from data to data_end; the IPv6 header is synthetic, its addresses are real": {
			Kind: "udp6", View: capture.ViewSelect, Layer: transport, IPv6: true, Source: tap, Header: synthetic},
		"payloads as the socket filter sees them that chooses a socket of a reuseport group, from offset 0": {
			Kind: "udp", View: capture.ViewSelect, Layer: capture.LayerMessage, Source: tap},
		"what recvmsg returned to userspace": {Kind: "tcp6", View: user, Layer: capture.LayerMessage, IPv6: true, Source: tap},
		"what recvmsg returned to userspace; a VLAN tag is not in it: a socket gets that as PACKET_AUXDATA": {
			Kind: "packet-dgram", View: user, Layer: capture.LayerMessage, Source: tap},
		"the same packets from the network header on, which the filter reaches with bpf_skb_load_bytes_relative" + metaSaid: {
			Kind: "udp", View: capture.ViewNet, Layer: capture.LayerNetwork, Source: tap, HasMeta: true},
		"the same packets from the link header on, which the filter reaches with bpf_skb_load_bytes_relative" + frameSaid: {
			Kind: "udp6", View: capture.ViewLink, Layer: linkHeader, IPv6: true, Source: tap, HasMeta: true},
		"UDP datagrams as the socket filter sees them, from offset 0; the IPv4 header is synthetic, its addresses are real; times are within 7 ns of the wall clock at the start; " +
			"recorded at the cgroup_skb/ingress hook, just before the socket's own filter; process 12 (nginx), descriptor 7, on [::]:53; packets of the socket's IPv4 peers" + metaSaid: {
			Kind: "udp6", View: kernel, Layer: transport, Source: tap, Header: synthetic, ClockError: 7, Process: "process 12 (nginx)", Sockets: "descriptor 7, on [::]:53", HasMeta: true},
		"TCP segments as the socket filter sees them, from offset 0; the IPv6 header is synthetic, its addresses are real; times are within 7 ns of the wall clock at the start; " +
			"recorded at the cgroup_skb/ingress hook, just before the socket's own filter; process 12 (nginx), its other sockets" + metaSaid: {
			Kind: "tcp6", View: kernel, Layer: transport, IPv6: true, Source: tap, Header: synthetic, ClockError: 7, Process: "process 12 (nginx)", Sockets: "its other sockets", HasMeta: true},
		"UDP datagrams as the socket filter sees them, from offset 0; times are within 7 ns of the wall clock at the start; recorded at the cgroup_skb/ingress hook, just before the socket's own filter; " +
			"the socket has a filter of its own: classic filter of 1 instruction (1,6 0 0 9), asked afterwards what it had decided; process 12 (nginx), its other sockets": {
			Kind: "udp", View: kernel, Layer: transport, Source: tap, ClockError: 7, Process: "process 12 (nginx)", Sockets: "its other sockets",
			Filter: "classic filter of 1 instruction (1,6 0 0 9), asked afterwards what it had decided"},
		"UDP datagrams as the socket filter sees them, from offset 0; times are within 7 ns of the wall clock at the start; recorded at the cgroup_skb/ingress hook, just before the socket's own filter; " +
			"the socket has a filter: eBPF filter 12, the tap of a capture that has ended, with a classic filter inside; process 12 (nginx), its other sockets": {
			Kind: "udp", View: kernel, Layer: transport, Source: tap, ClockError: 7, Process: "process 12 (nginx)", Sockets: "its other sockets",
			Filter: "eBPF filter 12, the tap of a capture that has ended, with a classic filter inside"},
		"TCP segments as packet sockets get them on the interface eth0; what arrives before a firewall, what leaves behind it; process 12 (nginx), on port 80" + frameSaid: {
			Kind: "tcp6", View: capture.ViewWire, Layer: linkHeader, IPv6: true, Source: tap, Device: "eth0", Process: "process 12 (nginx)", Sockets: "on port 80", HasMeta: true},
		"UDP datagrams as packet sockets get them on the interface tun0; what arrives before a firewall, what leaves behind it; packets of the socket's IPv4 peers" + metaSaid: {
			Kind: "udp6", View: capture.ViewWire, Layer: capture.LayerNetwork, Source: tap, Device: "tun0", HasMeta: true},
		"messages as the socket filter sees them, from offset 0; times are within 7 ns of the wall clock at the start; process 12 (nginx), its other sockets" + metaSaid: {
			Kind: "unix-dgram", View: kernel, Layer: capture.LayerMessage, Source: tap, ClockError: 7, Process: "process 12 (nginx)", Sockets: "its other sockets", HasMeta: true},
		"netlink messages as the socket filter sees them, from offset 0; times are within 7 ns of the wall clock at the start" + metaSaid: {
			Kind: "netlink", View: kernel, Layer: capture.LayerMessage, LinkType: capture.LinkNetlink, Source: tap, ClockError: 7, HasMeta: true},
		"what recvmsg returned to userspace; the headers of IP and TCP or UDP are synthetic, so that both directions can be put together; their addresses are the number of the connection": {
			Kind: "unix-stream", View: user, Layer: capture.LayerMessage, Source: tap, Header: capture.HeaderSegment},
		"what recvmsg returned to userspace; the headers of IP and TCP or UDP are synthetic, so that both directions can be put together; their addresses are the number of the connection; decoded as http": {
			Kind: "unix-stream", View: user, Layer: capture.LayerMessage, Source: tap, Header: capture.HeaderSegment, DecodeAs: "http"},
		"what receiving system calls returned to the process; process 12 (; decoded as x), descriptor 7, unnamed; decoded as dbus, each call by itself": {
			Kind: "unix-stream", View: user, Layer: capture.LayerMessage, Source: tap, Process: "process 12 (; decoded as x)", Sockets: "descriptor 7, unnamed", DecodeAs: "dbus"},
		"what receiving system calls returned to the process; process 12 (nginx), on port 53": {
			Kind: "udp", View: user, Layer: capture.LayerMessage, Source: tap, Process: "process 12 (nginx)", Sockets: "on port 53"},
		"packets of a udp socket as its filter printed them, from offset 0; the IPv4 header is synthetic, and so are its addresses; times count from boot, which is taken to be 1970-01-01T00:00:05Z": trace(
			capture.HeaderInvented, "udp", time.Unix(5, 0)),
		"packets of a raw socket as its filter printed them, from offset 0; times count from boot, which is taken to be the epoch, since nobody said when that was": trace(
			capture.HeaderRecorded, "raw", time.Time{}),
		"what a server got, as it printed it; there are no times, only an order: a microsecond each": {
			Kind: "unknown", View: user, Source: capture.SourceServer, Times: capture.TimesNone},
		"what a server got, as it printed it; times are those of the packets that brought it": {
			Kind: "udp", View: user, Source: capture.SourceServer, Times: capture.TimesLent},
	}
}

// Descriptions never change, and everything in them that matters is read back.
func TestDescriptionComesBack(t *testing.T) {
	t.Parallel()
	for text, i := range described() {
		if got := Description(&i); got != text {
			t.Errorf("%+v is described as %q, want %q", i, got, text)
		}
		read := capture.Interface{Layer: i.Layer}
		ReadDescription(text, &read)
		if again := Description(&read); again != text {
			t.Errorf("%q is written as %q", text, again)
		}
		source := i.Source
		if source == capture.SourceTap {
			source = capture.SourceUnknown
		}
		if read.HasMeta != i.HasMeta || read.Header != i.Header || read.Times != i.Times || read.Filter != i.Filter || read.Process != i.Process || read.Device != i.Device || read.Member != i.Member || read.Members != i.Members || read.Source != source {
			t.Errorf("%q is read as %+v, want %+v", text, read, i)
		}
	}
}

func FuzzReadDescription(f *testing.F) {
	for text := range described() {
		f.Add(text, true)
		f.Add(text, false)
	}
	f.Fuzz(func(t *testing.T, text string, link bool) {
		var i capture.Interface
		if link {
			i.Layer = capture.LayerLink
		}
		ReadDescription(text, &i)
		known := i.HasMeta
		if again := Description(&i); again != text && !known {
			t.Errorf("%q is written as %q", text, again)
		}
	})
}
