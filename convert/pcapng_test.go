package convert

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/ebpfdump/ebpfdump/capture"
)

func handshake(t testing.TB, i *capture.Interface, client, server netip.AddrPort) []*capture.Packet {
	return []*capture.Packet{
		segment(t, i, client, server, layers.TCP{SYN: true, Seq: 1000}, ""),
		segment(t, i, server, client, layers.TCP{SYN: true, ACK: true, Seq: 5000, Ack: 1001}, ""),
		segment(t, i, client, server, layers.TCP{ACK: true, Seq: 1001, Ack: 5001}, ""),
		segment(t, i, client, server, layers.TCP{ACK: true, PSH: true, Seq: 1001, Ack: 5001}, probe),
	}
}

func TestHandshakeInTshark(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		iface          *capture.Interface
		client, server netip.AddrPort
	}{{tcpKernel, client4, server4}, {tcp6Kernel, client6, server6}} {
		t.Run(tt.iface.Name(), func(t *testing.T) {
			t.Parallel()
			path := writeFile(t, handshake(t, tt.iface, tt.client, tt.server)...)
			rows := fields(t, path, "frame.interface_name", "frame.time_epoch", "tcp.stream", "tcp.flags.str", "tcp.seq", "tcp.len", "tcp.checksum.status")
			const common = "|1793880000.123456789|0|"
			wantFields(t, rows,
				tt.iface.Name()+common+"··········S·|0|0|2",
				tt.iface.Name()+common+"·······A··S·|0|0|2",
				tt.iface.Name()+common+"·······A····|1|0|2",
				tt.iface.Name()+common+"·······AP···|1|11|2",
			)
			checked := run(t, "tshark", "-n", "-r", path, "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-Y", "tcp.checksum.status == 1 && (ip.checksum.status == 1 || ipv6)")
			if got := strings.Count(checked, "\n"); got != 4 {
				t.Errorf("%d packets have good checksums:\n%s", got, checked)
			}
			wantNoExpert(t, path)
		})
	}
}

func TestUserViewInTshark(t *testing.T) {
	t.Parallel()
	unix := message(unixUser, netip.AddrPort{}, netip.AddrPort{}, 0, probe)
	unix.Call, unix.Direction = "recvmsg", capture.DirectionUnknown
	sent := message(tcpUser, client4, server4, protocolTCP, probe)
	sent.Call, sent.Direction = "send", capture.Outbound
	path := writeFile(t,
		message(tcpUser, client4, server4, protocolTCP, probe),
		message(udpUser, client4, server4, protocolUDP, probe),
		message(udpUser, client6, server6, protocolUDP, probe),
		message(udpUser, client4, server4, protocolUDP, ""),
		message(udpUser, client4, netip.AddrPort{}, protocolUDP, probe),
		message(tcpUser, netip.MustParseAddrPort("10.0.0.1:0"), server4, protocolICMP, probe),
		sent,
		unix,
	)
	rows := fields(t, path, "frame.interface_name", "data.data", "ip.src", "ip.dst", "ipv6.src", "exported_pdu.port_type", "exported_pdu.src_port", "exported_pdu.dst_port", "_ws.col.Protocol", "exported_pdu.p2p_dir", "frame.packet_flags_direction")
	const data = "303132333435363738390a"
	wantFields(t, rows,
		"tcp:user|"+data+"|127.0.0.1|127.0.0.1||2|52638|16962|recvfrom|1|0x00000001",
		"udp:user|"+data+"|127.0.0.1|127.0.0.1||3|52638|16962|recvfrom|1|0x00000001",
		"udp:user|"+data+"|||fe80::1|3|52638|16962|recvfrom|1|0x00000001",
		"udp:user||127.0.0.1|127.0.0.1||3|52638|16962|recvfrom|1|0x00000001",
		"udp:user|"+data+"|127.0.0.1|||3|52638||recvfrom|1|0x00000001",
		"tcp:user|"+data+"|10.0.0.1|127.0.0.1|||||recvfrom|1|0x00000001",
		"tcp:user|"+data+"|127.0.0.1|127.0.0.1||2|52638|16962|send|0|0x00000002",
		"unix-dgram:user|"+data+"|||||||recvmsg||",
	)
	wantNoExpert(t, path)
}

func TestSCTPAndDCCPPortsInTshark(t *testing.T) {
	t.Parallel()
	path := writeFile(t,
		message(tcpUser, client4, server4, protocolSCTP, probe),
		message(tcpUser, client4, server4, protocolDCCP, probe),
	)
	text := run(t, "tshark", "-n", "-r", path, "-V")
	for _, want := range []string{"Port Type: SCTP", "Port Type: DCCP"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// TestViewsAreJoined finds the views of one packet by their id.
func TestViewsAreJoined(t *testing.T) {
	t.Parallel()
	kernel := datagram(t, udpKernel, client4, server4, probe)
	user := message(udpUser, client4, server4, protocolUDP, probe)
	other := message(udpUser, client4, server4, protocolUDP, "other")
	kernel.ID, user.ID, other.ID = 7, 7, 8
	path := writeFile(t, kernel, user, other)
	out := run(t, "tshark", "-n", "-r", path, "-Y", "frame.packet_id == 7", "-T", "fields", "-e", "frame.interface_name", "-e", "data.data")
	if want := "udp:kernel\t303132333435363738390a\nudp:user\t303132333435363738390a\n"; out != want {
		t.Errorf("packet 7 is %q, want %q", out, want)
	}
}

func TestPacketOptionsInTshark(t *testing.T) {
	t.Parallel()
	p := datagram(t, udpKernel, client4, server4, probe)
	p.ID, p.Drops, p.Comment, p.PID, p.TID = 1<<40, 12, "dropped by the filter", 1, 2
	plain := datagram(t, udpKernel, client4, server4, probe)
	plain.Direction = capture.DirectionUnknown
	long := datagram(t, udpKernel, client4, server4, probe)
	long.Comment = strings.Repeat("ä", 40000)
	path := writeFile(t, p, plain, long)
	rows := fields(t, path, "frame.packet_id", "frame.drop_count", "frame.packet_flags_direction", "frame.comment")
	if len(rows) != 3 {
		t.Fatalf("%d rows", len(rows))
	}
	wantFields(t, rows[:2], "1099511627776|12|0x00000001|dropped by the filter", "|||")
	if got := rows[2][3]; got != strings.Repeat("ä", 32767) {
		t.Errorf("the long comment has %d bytes, valid UTF-8: %v", len(got), utf8.ValidString(got))
	}
	if rows := fields(t, path, "frame.interface_description"); rows[0][0] != "" {
		t.Errorf("description %q", rows[0])
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		s, want string
		limit   int
	}{
		{"abc", "abc", 3}, {"abcd", "abc", 3}, {"", "", 0}, {"aä", "a", 2}, {"aä", "aä", 3},
		{"€€", "€", 5}, {"€€", "€", 4}, {"𝄞𝄞", "𝄞", 7}, {"\x80\x80\x80\x80\x80\x80", "\x80\x80", 5},
	} {
		if got := cut(tt.s, tt.limit); got != tt.want {
			t.Errorf("cut(%q, %d) is %q, want %q", tt.s, tt.limit, got, tt.want)
		}
	}
}

func TestOversizePackets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		iface          *capture.Interface
		client, server netip.AddrPort
		header         int // of the network layer
	}{{tcpKernel, client4, server4, 20}, {tcp6Kernel, client6, server6, 48}} {
		t.Run(tt.iface.Name(), func(t *testing.T) {
			t.Parallel()
			var packets []*capture.Packet
			var want []string
			sequence := 1
			for _, size := range []int{65536, 70000, 262144, 300000} {
				p := segment(t, tt.iface, tt.client, tt.server, layers.TCP{ACK: true, Seq: uint32(sequence)}, strings.Repeat("x", size-20))
				packets = append(packets, p)
				captured := min(size+tt.header, snaplen)
				want = append(want, fmt.Sprintf("%d|%d|%d", captured, size+tt.header, size-20))
				sequence += size - 20
			}
			path := writeFile(t, packets...)
			wantFields(t, fields(t, path, "frame.cap_len", "frame.len", "tcp.len"), want...)
			wantNoExpert(t, path)
		})
	}
}

// TestSnaplen checks that no packet exceeds 262144 bytes: tshark would not read on after
// a longer one.
func TestSnaplen(t *testing.T) {
	t.Parallel()
	data := make([]byte, snaplen+1000)
	var packets []*capture.Packet
	for _, i := range []*capture.Interface{udpKernel, udp6Kernel, udpUser, packetWire, rawKernel, raw6Kernel} {
		for _, size := range []int{snaplen - 1, snaplen, len(data)} {
			packets = append(packets, &capture.Packet{Interface: i, Data: data[:size], Len: 1 << 30, Protocol: protocolUDP, Call: "recvfrom"})
		}
	}
	path := writeFile(t, packets...)
	rows := fields(t, path, "frame.interface_name", "frame.cap_len", "frame.len")
	if len(rows) != len(packets) {
		t.Fatalf("tshark reads %d packets, want %d", len(rows), len(packets))
	}
	for i, row := range rows {
		captured, _ := strconv.Atoi(row[1])
		original, _ := strconv.Atoi(row[2])
		if captured > snaplen || captured < snaplen-1 || original < 1<<30 || original > 1<<30+100 {
			t.Errorf("packet %d of %s: %d of %d bytes", i, row[0], captured, original)
		}
	}
}

func TestOddPackets(t *testing.T) {
	t.Parallel()
	path := writeFile(t,
		&capture.Packet{Interface: udpKernel},
		&capture.Packet{Interface: udpUser},
		&capture.Packet{Interface: packetWire},
		&capture.Packet{Interface: udpUser, Time: -5, Data: []byte("data that is longer than Len"), Len: 3},
		&capture.Packet{Interface: rawKernel, Data: ipv4([]byte(probe))},
	)
	wantFields(t, fields(t, path, "frame.interface_name", "frame.time_epoch", "frame.cap_len", "frame.len"),
		"udp:kernel|0.000000000|20|20",
		"udp:user|0.000000000|12|12",
		"packet:wire|0.000000000|0|0",
		"udp:user|0.000000000|40|40",
		"raw:kernel|0.000000000|31|31",
	)
}

func TestPacketsThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	var file bytes.Buffer
	w, err := NewWriter(&file, Section{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	before := file.Len()
	for name, p := range map[string]*capture.Packet{
		"no interface":       {},
		"unset layer":        {Interface: &capture.Interface{Kind: "tcp", View: capture.ViewKernel}},
		"unknown layer":      {Interface: &capture.Interface{Layer: 200}},
		"IPv6 source":        {Interface: tcpKernel, Src: client6},
		"IPv6 destination":   {Interface: tcpKernel, Dst: client6},
		"one of each family": {Interface: tcpKernel, Src: client4, Dst: client6},
	} {
		if err := w.WritePacket(p); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := w.WriteStatistics(capture.Statistics{Interface: tcpKernel}); err != nil {
		t.Errorf("statistics of an unwritten interface: %v", err)
	}
	if err := w.WriteStatistics(capture.Statistics{}); err != nil {
		t.Errorf("statistics of no interface: %v", err)
	}
	if err := w.Flush(); err != nil || file.Len() != before {
		t.Errorf("%d bytes were written, error %v", file.Len()-before, err)
	}
	if err := w.WritePacket(datagram(t, udpKernel, client4, server4, probe)); err != nil {
		t.Errorf("a good packet after bad ones: %v", err)
	}
}

func TestSectionAndStatisticsInCapinfos(t *testing.T) {
	t.Parallel()
	path := writeFileWith(t, fewPackets(t), someStatistics(udpKernel), someStatistics(udpUser), someStatistics(rawKernel))
	text := run(t, "capinfos", path)
	for _, want := range []string{
		"Capture hardware:    x86_64", "Capture oper-sys:    Linux 6.1", "Capture application: ebpfdump test",
		"Capture comment:     ebpfdump capture", "Number of packets:   5", "Number of interfaces in file: 3",
		"Name = udp:kernel", "Number of stat entries = 1", "Capture length = 262144", "Time precision = nanoseconds (9)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func someStatistics(i *capture.Interface) capture.Statistics {
	return capture.Statistics{Interface: i, Start: noon, End: noon + 1e9, Received: 10, Dropped: 1, Accepted: 8, OSDropped: 2, Delivered: 9}
}

// TestBlocks compares blocks with the draft whose fields no tool prints.
func TestBlocks(t *testing.T) {
	t.Parallel()
	user := message(udpUser, client4, server4, protocolUDP, probe)
	user.ID, user.Drops, user.Comment = 7, 3, "hello"
	path := writeFileWith(t, []*capture.Packet{user}, someStatistics(udpUser))
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ends := boundaries(t, file)
	if len(ends) != 4 {
		t.Fatalf("%d blocks", len(ends))
	}
	var want []byte
	want = append(want, "\x01\x00\x00\x00\x2c\x00\x00\x00\xfc\x00\x00\x00\x00\x00\x04\x00"...)
	want = append(want, "\x09\x00\x01\x00\x09\x00\x00\x00\x02\x00\x08\x00udp:user\x00\x00\x00\x00\x2c\x00\x00\x00"...)
	if got := file[ends[0]:ends[1]]; !bytes.Equal(got, want) {
		t.Errorf("interface block\n got %q\nwant %q", got, want)
	}

	// Before them are 72 bytes of tags, 11 of payload and 1 of padding.
	options := file[ends[1]+28+84 : ends[2]-4]
	want = []byte("\x02\x00\x04\x00\x01\x00\x00\x00" + "\x04\x00\x08\x00\x03\x00\x00\x00\x00\x00\x00\x00" +
		"\x05\x00\x08\x00\x07\x00\x00\x00\x00\x00\x00\x00" + "\x08\x00\x08\x00\xe1\x10\x00\x00\xe2\x10\x00\x00" +
		"\x01\x00\x05\x00hello\x00\x00\x00" + "\x00\x00\x00\x00")
	if !bytes.Equal(options, want) {
		t.Errorf("packet options\n got %q\nwant %q", options, want)
	}

	want = order.AppendUint32(nil, 5)
	want = order.AppendUint32(want, 112)
	want = order.AppendUint32(want, 0)
	wantTime := func(ns int64) { want = order.AppendUint32(order.AppendUint32(want, uint32(ns>>32)), uint32(ns)) }
	wantTime(noon + 1e9)
	for code, value := range []uint64{2: noon, noon + 1e9, 10, 1, 8, 2, 9} {
		if code < 2 {
			continue
		}
		want = append(want, byte(code), 0, 8, 0)
		if code < 4 {
			wantTime(int64(value))
			continue
		}
		want = order.AppendUint64(want, value)
	}
	want = append(want, 0, 0, 0, 0, 112, 0, 0, 0)
	if got := file[ends[2]:ends[3]]; !bytes.Equal(got, want) {
		t.Errorf("statistics block\n got %x\nwant %x", got, want)
	}
}

// TestExportedPDUHeader compares with the header in a file that Wireshark dissects
// correctly.
func TestExportedPDUHeader(t *testing.T) {
	t.Parallel()
	const want = "000c000464617461" + "001400047f000001" + "001500047f000001" + "0018000400000003" + "001900040000cd9e" + "001a000400004242" +
		"002100087265637666726f6d" + "0023000400000001" + "00000000"
	if got := fmt.Sprintf("%x", appendPDUHeader(nil, message(udpUser, client4, server4, protocolUDP, probe))); got != want {
		t.Errorf("header\n got %s\nwant %s", got, want)
	}
}

func TestReadBackWithPcapgo(t *testing.T) {
	t.Parallel()
	packets := append(fewPackets(t), handshake(t, tcpKernel, client4, server4)...)
	file, err := os.Open(writeFile(t, packets...))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, err := pcapgo.NewNgReader(file, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.SectionInfo(); got.Application != "ebpfdump test" || got.Comment != "ebpfdump capture" || got.OS != "Linux 6.1" || got.Hardware != "x86_64" {
		t.Errorf("section %+v", got)
	}
	for n, p := range packets {
		data, info, err := r.ReadPacketData()
		if err != nil {
			t.Fatalf("packet %d: %v", n, err)
		}
		i, err := r.Interface(info.InterfaceIndex)
		if err != nil {
			t.Fatal(err)
		}
		if i.Name != p.Interface.Name() || i.Description != p.Interface.Description || i.SnapLength != snaplen {
			t.Errorf("packet %d: interface %+v", n, i)
		}
		if info.Timestamp.UnixNano() != p.Time || !bytes.HasSuffix(data, p.Data) || info.Length-info.CaptureLength != p.Len-len(p.Data) {
			t.Errorf("packet %d: %+v %x", n, info, data)
		}
	}
	if _, _, err := r.ReadPacketData(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last packet: %v", err)
	}
	if r.NInterfaces() != 4 {
		t.Errorf("%d interfaces", r.NInterfaces())
	}
}

func TestOneViewInTcpdump(t *testing.T) {
	t.Parallel()
	// Two interfaces of the same link type are fine for libpcap.
	packets := append(handshake(t, tcpKernel, client4, server4), datagram(t, udpKernel, client4, server4, probe))
	path := writeFile(t, packets...)
	out := run(t, "tcpdump", "-n", "-tt", "-v", "-r", path)
	for _, want := range []string{
		"1793880000.123456 IP (tos 0x0, ttl 64, id 0, offset 0, flags [DF], proto TCP (6), length 40)",
		"127.0.0.1.52638 > 127.0.0.1.16962: Flags [S], cksum",
		"UDP, length 11",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "incorrect") || strings.Contains(out, "bad") {
		t.Errorf("tcpdump complains:\n%s", out)
	}
}

// TestRewritten checks that tools which rewrite files leave ours readable.
func TestRewritten(t *testing.T) {
	t.Parallel()
	packets := fewPackets(t)
	for i, p := range packets {
		p.Time -= int64(i) * 1e6
	}
	path := filepath.Join(t.TempDir(), "out.pcapng")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w, err := NewWriter(file, Section{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packets {
		if err := w.AddInterface(p.Interface); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range packets {
		if err := w.WritePacket(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.WriteStatistics(someStatistics(udpKernel)), w.Flush()); err != nil {
		t.Fatal(err)
	}
	names := []string{"frame.interface_name", "frame.time_epoch", "frame.packet_id", "frame.drop_count", "frame.comment", "data.data"}
	original := fields(t, path, names...)
	for _, tool := range []string{"editcap", "reordercap", "tshark"} {
		t.Run(tool, func(t *testing.T) {
			t.Parallel()
			out := filepath.Join(t.TempDir(), "again.pcapng")
			args := []string{path, out}
			if tool == "tshark" {
				args = []string{"-r", path, "-w", out}
			}
			run(t, tool, args...)
			var want []string
			for _, row := range original {
				want = append(want, strings.Join(row, "|"))
			}
			if tool == "reordercap" {
				for i, j := 0, len(want)-1; i < j; i, j = i+1, j-1 {
					want[i], want[j] = want[j], want[i]
				}
			}
			wantFields(t, fields(t, out, names...), want...)
		})
	}
}

func TestEmptyCapture(t *testing.T) {
	t.Parallel()
	path := writeFile(t)
	if rows := fields(t, path, "frame.number"); len(rows) != 0 {
		t.Errorf("%d packets", len(rows))
	}
}
