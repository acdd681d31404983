package convert

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// noon is a time with a nonzero digit in every decimal: 2026-11-05 12:00:00.123456789
// UTC.
const noon = 1793880000123456789

var (
	tcpKernel  = &capture.Interface{Kind: "tcp", View: capture.ViewKernel, Layer: capture.LayerTransport, Description: "TCP segments; the IPv4 header is synthetic", Header: capture.HeaderSynthetic}
	tcp6Kernel = &capture.Interface{Kind: "tcp6", View: capture.ViewKernel, Layer: capture.LayerTransport, IPv6: true, Description: "TCP segments; the IPv6 header is synthetic", Header: capture.HeaderSynthetic}
	tcpUser    = &capture.Interface{Kind: "tcp", View: capture.ViewUser, Layer: capture.LayerMessage, Description: "what recv returned"}
	udpKernel  = &capture.Interface{Kind: "udp", View: capture.ViewKernel, Layer: capture.LayerTransport}
	udp6Kernel = &capture.Interface{Kind: "udp6", View: capture.ViewKernel, Layer: capture.LayerTransport, IPv6: true}
	udpUser    = &capture.Interface{Kind: "udp", View: capture.ViewUser, Layer: capture.LayerMessage}
	unixUser   = &capture.Interface{Kind: "unix-dgram", View: capture.ViewUser, Layer: capture.LayerMessage}
	rawKernel  = &capture.Interface{Kind: "raw", View: capture.ViewKernel, Layer: capture.LayerNetwork}
	raw6Kernel = &capture.Interface{Kind: "raw6", View: capture.ViewKernel, Layer: capture.LayerNetwork, IPv6: true}
	packetWire = &capture.Interface{Kind: "packet", View: capture.ViewWire, Layer: capture.LayerLink}
)

var (
	client4 = netip.MustParseAddrPort("127.0.0.1:52638")
	server4 = netip.MustParseAddrPort("127.0.0.1:16962")
	client6 = netip.MustParseAddrPort("[fe80::1]:52638")
	server6 = netip.MustParseAddrPort("[fe80::2]:16962")
)

const probe = "0123456789\n"

// transport serializes a transport header and a payload, with the checksum that
// the header's addresses give.
func transport(t testing.TB, src, dst netip.AddrPort, header gopacket.SerializableLayer, payload string) []byte {
	t.Helper()
	var network gopacket.NetworkLayer = &layers.IPv4{SrcIP: src.Addr().AsSlice(), DstIP: dst.Addr().AsSlice(), Protocol: layers.IPProtocolTCP}
	if src.Addr().Is6() {
		network = &layers.IPv6{SrcIP: src.Addr().AsSlice(), DstIP: dst.Addr().AsSlice(), NextHeader: layers.IPProtocolTCP}
	}
	switch h := header.(type) {
	case *layers.TCP:
		h.SrcPort, h.DstPort = layers.TCPPort(src.Port()), layers.TCPPort(dst.Port())
		_ = h.SetNetworkLayerForChecksum(network)
	case *layers.UDP:
		h.SrcPort, h.DstPort = layers.UDPPort(src.Port()), layers.UDPPort(dst.Port())
		_ = h.SetNetworkLayerForChecksum(network)
	}
	b := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(b, options, header, gopacket.Payload(payload)); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(b.Bytes())
}

// segment is a TCP segment as a socket filter sees it.
func segment(t testing.TB, i *capture.Interface, src, dst netip.AddrPort, tcp layers.TCP, payload string) *capture.Packet {
	tcp.Window = 64240
	data := transport(t, src, dst, &tcp, payload)
	return &capture.Packet{Interface: i, Time: noon, Data: data, Len: len(data), Src: src, Dst: dst, Protocol: protocolTCP, Direction: capture.Inbound}
}

// datagram is a UDP datagram as a socket filter sees it.
func datagram(t testing.TB, i *capture.Interface, src, dst netip.AddrPort, payload string) *capture.Packet {
	data := transport(t, src, dst, &layers.UDP{}, payload)
	return &capture.Packet{Interface: i, Time: noon, Data: data, Len: len(data), Src: src, Dst: dst, Protocol: protocolUDP, Direction: capture.Inbound}
}

// message is what recvfrom returned.
func message(i *capture.Interface, src, dst netip.AddrPort, protocol uint8, payload string) *capture.Packet {
	return &capture.Packet{
		Interface: i, Time: noon, Data: []byte(payload), Len: len(payload), Src: src, Dst: dst,
		Protocol: protocol, Direction: capture.Inbound, Call: "recvfrom", PID: 4321, TID: 4322,
	}
}

// ipv4 puts a real IPv4 header before a packet's data.
func ipv4(data []byte) []byte {
	return append(appendIPv4Header(nil, client4.Addr(), server4.Addr(), protocolUDP, len(data)), data...)
}

// writeFile writes packets into a pcapng file and returns its path.
func writeFile(t testing.TB, packets ...*capture.Packet) string {
	t.Helper()
	return writeFileWith(t, packets)
}

func writeFileWith(t testing.TB, packets []*capture.Packet, statistics ...capture.Statistics) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out.pcapng")
	var file bytes.Buffer
	w, err := NewWriter(&file, Section{Hardware: "x86_64", OS: "Linux 6.1", Application: "ebpfdump test", Comment: "ebpfdump capture"})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packets {
		if err := w.WritePacket(p); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range statistics {
		if err := w.WriteStatistics(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs a program that must succeed, and returns its stdout.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(testutil.RequireTool(t, name), args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C.UTF-8")
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.String()
}

// fields returns a row of fields for each packet that tshark reads in the file.
func fields(t testing.TB, path string, names ...string) [][]string {
	t.Helper()
	args := []string{"-n", "-r", path, "-T", "fields", "-E", "separator=|"}
	for _, name := range names {
		args = append(args, "-e", name)
	}
	var rows [][]string
	for line := range strings.Lines(run(t, "tshark", args...)) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "|"))
	}
	return rows
}

// wantFields compares fields' rows, each joined by "|", with those expected.
func wantFields(t testing.TB, rows [][]string, want ...string) {
	t.Helper()
	if len(rows) != len(want) {
		t.Fatalf("%d rows, want %d: %q", len(rows), len(want), rows)
	}
	for i, row := range rows {
		if got := strings.Join(row, "|"); got != want[i] {
			t.Errorf("row %d is %q, want %q", i, got, want[i])
		}
	}
}

// wantNoExpert fails if tshark reports anything above severity chat about the packets.
func wantNoExpert(t testing.TB, path string) {
	t.Helper()
	const bad = "_ws.malformed || _ws.expert.severity >= 0x400000"
	if out := run(t, "tshark", "-n", "-r", path, "-Y", bad, "-V"); out != "" {
		t.Errorf("tshark complains:\n%s", out)
	}
}
