package convert

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/gopacket/layers"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/headers"
)

// lines prints the packets and returns the lines.
func lines(t *testing.T, options LineOptions, packets ...*capture.Packet) []string {
	t.Helper()
	options.Location = time.UTC
	var out bytes.Buffer
	w := NewLineWriter(&out, options)
	for _, p := range packets {
		if err := w.WritePacket(p); err != nil {
			t.Fatal(err)
		}
	}
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
}

func wantLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d lines, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Errorf("line %d\n got %q\nwant %q", i, got[i], want[i])
		}
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	packets := append(handshake(t, tcpKernel, client4, server4),
		segment(t, tcpKernel, client4, server4, layers.TCP{ACK: true, FIN: true}, ""),
		segment(t, tcpKernel, client4, server4, layers.TCP{ACK: true, RST: true}, ""),
		segment(t, tcpKernel, client4, server4, layers.TCP{}, ""),
		message(tcpUser, client4, server4, protocolTCP, probe),
		datagram(t, udpKernel, client4, server4, "\x00\x01\x02\x03abc\xff\xff\xff"),
		datagram(t, udp6Kernel, client6, server6, probe),
	)
	const at = "12:00:00.123456789 "
	const to = " 127.0.0.1:52638 > 127.0.0.1:16962 "
	wantLines(t, lines(t, LineOptions{}, packets...),
		at+"tcp:kernel"+to+"[S] 20",
		at+"tcp:kernel 127.0.0.1:16962 > 127.0.0.1:52638 [S.] 20",
		at+"tcp:kernel"+to+"[.] 20",
		at+"tcp:kernel"+to+"[P.] 31 01234567",
		at+"tcp:kernel"+to+"[F.] 20",
		at+"tcp:kernel"+to+"[R.] 20",
		at+"tcp:kernel"+to+"[none] 20",
		at+"tcp:user  "+to+"tcp 11 012345678",
		at+"udp:kernel"+to+"udp 18 0x000102",
		at+"udp6:kernel [fe80::1]:52638 > [fe80::2]:16962 udp 19 01234567",
	)
}

func TestLinesOfRealHeaders(t *testing.T) {
	t.Parallel()
	udp := datagram(t, udpKernel, client4, server4, "hi").Data
	tcp6 := segment(t, tcp6Kernel, client6, server6, layers.TCP{SYN: true}, "").Data
	frame := append(make([]byte, 12), 0x08, 0x00)
	frame = append(append(frame, ipv4(udp)...), "padding"...)
	tagged := append(make([]byte, 12), 0x81, 0x00, 0, 5, 0x86, 0xdd)
	tagged = append(appendIPv6Header(tagged, client6.Addr(), server6.Addr(), protocolTCP, len(tcp6)), tcp6...)
	jumbo := append(appendIPv6Header(nil, client6.Addr(), server6.Addr(), protocolTCP, 70000), tcp6...)
	fragment := ipv4([]byte("middle"))
	fragment[7] = 9
	icmp := datagram(t, udpKernel, client4, server4, "abc")
	icmp.Protocol, icmp.Src, icmp.Dst = protocolICMP, netip.AddrPortFrom(client4.Addr(), 0), netip.AddrPortFrom(server4.Addr(), 0)
	var packets []*capture.Packet
	for _, p := range []struct {
		iface *capture.Interface
		data  []byte
	}{
		{rawKernel, ipv4(udp)},
		{raw6Kernel, jumbo},
		{rawKernel, fragment},
		{rawKernel, ipv4(udp)[:23]},
		{rawKernel, []byte("\x4f")},
		{packetWire, frame},
		{packetWire, tagged},
		{packetWire, append(make([]byte, 12), 0x08, 0x06, 0, 1)},
		{packetWire, []byte{1}},
	} {
		packets = append(packets, &capture.Packet{Interface: p.iface, Time: noon, Data: p.data})
	}
	got := lines(t, LineOptions{Columns: 200}, append(packets, icmp)...)
	for i := range got {
		got[i] = strings.Join(strings.Fields(got[i])[1:], " ")
	}
	wantLines(t, got,
		"raw:kernel 127.0.0.1:52638 > 127.0.0.1:16962 udp 30 hi",
		"raw6:kernel [fe80::1]:52638 > [fe80::2]:16962 [S] 68",
		"raw:kernel 127.0.0.1 > 127.0.0.1 udp 26 middle",
		"raw:kernel 127.0.0.1 > 127.0.0.1 udp 23 0xcd9e42",
		"raw:kernel 1 O",
		"packet:wire 127.0.0.1:52638 > 127.0.0.1:16962 udp 51 hi",
		"packet:wire [fe80::1]:52638 > [fe80::2]:16962 [S] 78",
		"packet:wire ether 0x0806 16 0x0001",
		"packet:wire 1 0x01",
		"udp:kernel 127.0.0.1 > 127.0.0.1 icmp 11 abc",
	)
}

func TestLinesOfMessages(t *testing.T) {
	t.Parallel()
	unix := message(unixUser, netip.AddrPort{}, netip.AddrPort{}, 0, probe)
	sctp := message(udpUser, client4, netip.AddrPort{}, protocolSCTP, "")
	sctp.Comment = "end of stream"
	wantLines(t, lines(t, LineOptions{}, unix, sctp),
		"12:00:00.123456789 unix-dgram:user recvfrom 11 0123456789.",
		"12:00:00.123456789 udp:user        127.0.0.1:52638 > ? proto 132 0 ; end of stream",
	)
}

func TestHexDump(t *testing.T) {
	t.Parallel()
	p := message(unixUser, netip.AddrPort{}, netip.AddrPort{}, 0, "0123456789abcdef\x00\x1b[31m\x7f\xff red")
	wantLines(t, lines(t, LineOptions{Hex: true}, p)[1:],
		"  0000  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  0123456789abcdef",
		"  0010  00 1b 5b 33 31 6d 7f ff  20 72 65 64              ..[31m.. red",
	)
	p.Data = make([]byte, 0x10001)
	got := lines(t, LineOptions{Hex: true}, p)
	if last := got[len(got)-1]; !strings.HasPrefix(last, "  10000  00   ") || len(got) != 0x1002 {
		t.Errorf("%d lines, the last is %q", len(got), last)
	}
}

// TestNothingForTheTerminalToActOn has control characters wherever a packet can hold them.
func TestNothingForTheTerminalToActOn(t *testing.T) {
	t.Parallel()
	evil := "\x1b[2J\x00\r\n\x7f\x9b\u009b\u202e\xff日本"
	for b := range 256 {
		evil += string([]byte{byte(b)})
	}
	zone := netip.AddrPortFrom(netip.MustParseAddr("fe80::1").WithZone("eth\x1b[0"), 5)
	p := &capture.Packet{
		Interface: &capture.Interface{Kind: evil, View: capture.ViewUser, Layer: capture.LayerMessage},
		Src:       zone, Dst: netip.AddrPortFrom(zone.Addr(), 0), Data: []byte(evil), Comment: evil, Call: evil,
	}
	for _, line := range lines(t, LineOptions{Hex: true, Columns: 2000}, p) {
		if !utf8.ValidString(line) {
			t.Errorf("not UTF-8: %q", line)
		}
		for _, r := range line {
			if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u202e' {
				t.Errorf("%q in %q", r, line)
			}
		}
	}
}

func TestLineWidth(t *testing.T) {
	t.Parallel()
	text, binary := strings.Repeat("x", 100), strings.Repeat("\x00", 100)
	for _, payload := range []string{text, binary} {
		for columns := 60; columns < 200; columns++ {
			p := datagram(t, udpKernel, client4, server4, payload)
			line := lines(t, LineOptions{Columns: columns}, p)[0]
			if len(line) > max(columns, 71) {
				t.Errorf("%d columns, want %d: %q", len(line), columns, line)
			}
			p.Comment = "short"
			if line := lines(t, LineOptions{Columns: columns}, p)[0]; len(line) > max(columns, 79) || !strings.HasSuffix(line, " ; short") {
				t.Errorf("%d columns, want %d: %q", len(line), columns, line)
			}
		}
	}
}

func TestLineErrors(t *testing.T) {
	t.Parallel()
	w := NewLineWriter(&limited{}, LineOptions{})
	if err := w.WritePacket(&capture.Packet{}); err == nil {
		t.Error("no error without an interface")
	}
	if err := w.WritePacket(&capture.Packet{Interface: udpUser}); !errors.Is(err, errFull) {
		t.Errorf("error %v", err)
	}
	// An unknown layer prints like a message.
	lines(t, LineOptions{}, &capture.Packet{Interface: &capture.Interface{}, Data: []byte("x")})
}

func FuzzParseHeaders(f *testing.F) {
	f.Add(uint8(capture.LayerNetwork), uint8(0), ipv4([]byte("0123456789")))
	f.Add(uint8(capture.LayerNetwork), uint8(0), appendIPv6Header(nil, client6.Addr(), server6.Addr(), protocolTCP, 70000))
	f.Add(uint8(capture.LayerTransport), uint8(protocolTCP), make([]byte, 20))
	f.Add(uint8(capture.LayerLink), uint8(0), append(make([]byte, 12), 0x81, 0x00, 0, 5, 0x86, 0xdd))
	f.Fuzz(func(t *testing.T, layer, protocol uint8, data []byte) {
		p := &capture.Packet{Interface: &capture.Interface{Layer: capture.Layer(layer)}, Protocol: protocol, Data: data}
		if h := headers.Parse(p); len(h.Payload) > len(data) {
			t.Errorf("%d bytes of payload in %d", len(h.Payload), len(data))
		}
	})
}
