package convert

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/text"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// dumpedFrames are frames whose dumps are awkward: with payload that looks like a dump, with rows that
// repeat, without payload, over IPv6, in fragments.
func dumpedFrames(t testing.TB) [][]byte {
	frame := func(etherType string, packet []byte) []byte {
		return append([]byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01"+etherType), packet...)
	}
	v4 := func(payload string) []byte {
		return frame("\x08\x00", ipv4(datagram(t, udpKernel, client4, server4, payload).Data))
	}
	later := v4(strings.Repeat("a fragment ", 3))
	later[14+6] = 0x20 // more follow: tshark puts both together, and shows that as well
	first := bytes.Clone(later)
	later[14+6], later[14+7] = 0, byte((len(first)-14-20)/8)
	for _, f := range [][]byte{first, later} {
		f[14+10], f[14+11] = 0, 0
	}
	v6 := datagram(t, udp6Kernel, client6, server6, "over IPv6").Data
	six := append([]byte{0x60, 0, 0, 0, 0, byte(len(v6)), 17, 64}, client6.Addr().AsSlice()...)
	six = append(append(six, server6.Addr().AsSlice()...), v6...)
	return [][]byte{
		v4("ab cd ef 01 23 45 67 89 ab cd ef"), first, later, frame("\x86\xdd", six), v4(""),
		v4(strings.Repeat("\x00", 300) + "end"), v4(strings.Repeat("deadbeef", 40)),
	}
}

// rawPackets are the frames without their headers.
func rawPackets(frames [][]byte) (packets [][]byte) {
	for _, f := range frames {
		packets = append(packets, f[14:])
	}
	return packets
}

// readDump reads all packets of a text.
func readDump(t testing.TB, text string, o ReadOptions) (packets []capture.Packet, err error) {
	t.Helper()
	o.Name = "text"
	source, err := Open(strings.NewReader(text), nil, o)
	if err != nil {
		return nil, err
	}
	for {
		p, err := source.Next()
		if errors.Is(err, io.EOF) {
			return packets, nil
		}
		if err != nil {
			return packets, err
		}
		kept := *p
		kept.Data = bytes.Clone(p.Data)
		packets = append(packets, kept)
	}
}

func wantBytes(t *testing.T, packets []capture.Packet, want [][]byte) {
	t.Helper()
	if len(packets) != len(want) {
		t.Fatalf("%d packets, want %d", len(packets), len(want))
	}
	for i, p := range packets {
		if !bytes.Equal(p.Data, want[i]) || p.Len != len(want[i]) || p.ID != uint64(i+1) {
			t.Errorf("packet %d of %d bytes:\n%x\nwant %d:\n%x", p.ID, p.Len, p.Data, len(want[i]), want[i])
		}
	}
}

// TestDumps reads what the tools print of packets that are known.
func TestDumps(t *testing.T) {
	t.Parallel()
	frames := dumpedFrames(t)
	dir := t.TempDir()
	file := pcapFile(order, pcapNanoseconds, linkEthernet)
	for i, frame := range frames {
		file = append(file, pcapPacket(order, uint32(1793880000+i), 123456789, uint32(len(frame)), string(frame))...)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), frame, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "frames.pcap")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	const micros = 1793880000123456000 // as tcpdump prints it
	local := time.Unix(0, noon)
	ofDay := int64(local.Hour())*3_600_000_000_000 + int64(local.Minute())*60_000_000_000 + micros%60_000_000_000
	for _, test := range []struct {
		command string // with $F for each frame, or FRAMES for the capture of all
		raw     bool   // without link headers
		first   int64  // time of the first one, 0 if there is none
	}{
		{"hexdump -C $F", false, 0},
		{"xxd $F", false, 0},
		{"xxd -a $F", false, 0},
		{"xxd -g 1 -c 32 $F", false, 0},
		{"xxd -u -g 4 $F", false, 0},
		{"od -t x1 $F", false, 0},
		{"od -A x -t x1z -v $F", false, 0},
		{"od -A d -t x1z $F", false, 0},
		{"xxd -p -c 0 $F", false, 0},
		{"xxd -p -c 0 $F | sed 's/../& /g'", false, 0},
		{"tcpdump -n -x -r FRAMES", true, ofDay},
		{"tcpdump -n -xx -t -r FRAMES", false, 0},
		{"tcpdump -n -X -tt -r FRAMES", true, micros},
		{"tcpdump -n -x --number -r FRAMES", true, ofDay},
		{"tcpdump -n -x -# -tt -r FRAMES", true, micros},
		{"tcpdump -n -x --number -tttt -r FRAMES", true, micros},
		{"tcpdump -n -XX -tttt -v -e -r FRAMES", false, micros},
		{"tshark -n -x -r FRAMES", false, 0},
		{"tshark -n -x -P -r FRAMES", false, 0},
		{"tshark -n -x -V -r FRAMES", false, 0},
		{"tshark -n --hexdump delimit -r FRAMES", false, 0},
		{"tshark -n --hexdump noascii -r FRAMES", false, 0},
	} {
		t.Run(test.command, func(t *testing.T) {
			t.Parallel()
			tool, _, _ := strings.Cut(test.command, " ")
			testutil.RequireTool(t, tool)
			script := strings.ReplaceAll(test.command, "FRAMES", path)
			if strings.Contains(script, "$F") {
				script = fmt.Sprintf("for F in $(seq 0 %d); do %s; done", len(frames)-1, script)
			}
			cmd := exec.Command("sh", "-c", script)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
			text, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			packets, err := readDump(t, string(text), ReadOptions{Strict: true})
			if err != nil {
				t.Fatal(err)
			}
			want, kind := frames, "packet"
			if test.raw {
				want, kind = rawPackets(frames), "packet-dgram"
			}
			wantBytes(t, packets, want)
			p := packets[0]
			if p.Interface.Kind != kind || p.Interface.View != capture.ViewKernel || p.Dst.Port() != server4.Port() {
				t.Errorf("%s to %v", p.Interface.Name(), p.Dst)
			}
			if test.first == 0 && p.Interface.Times != capture.TimesNone || test.first != 0 && p.Time != test.first {
				t.Errorf("the first is of %d (%d), want %d", p.Time, p.Interface.Times, test.first)
			}
		})
	}
}

// What a tool prints that the tests do not need: Scapy's hexdump() of packets and of lists, the kernel's
// print_hex_dump with bytes, words and addresses, and what filters print in a line.
const (
	datagramHex = "4500002000010000401100000a0000010a000002045759d9000c000061626364"
	payloadHex  = "045759d9000c000061626364"
	scapyText   = `0000  45 00 00 20 00 01 00 00 40 11 00 00 0A 00 00 01  E.. ....@.......
0010  0A 00 00 02 04 57 59 D9 00 0C 00 00 61 62 63 64  .....WY.....abcd
`
	scapyList = `0000 22:13:20.000001 IP / UDP 10.0.0.1:1111 > 10.0.0.2:23001 / Raw
` + scapyText + `0001 00:13:20.000002 IP / UDP 10.0.0.1:1111 > 10.0.0.2:23001 / Raw
` + scapyText
	kernelBytes = `[  123.456789] skb len=32 headroom=2 headlen=32 tailroom=0
[  123.456789] skb linear:   00000000: 45 00 00 20 00 01 00 00 40 11 00 00 0a 00 00 01
[  123.456790] other: another line
[  123.456790] skb linear:   00000010: 0a 00 00 02 04 57 59 d9 00 0c 00 00 61 62 63 64
`
	kernelWords = `[  124.000001] raw: 00000000: 20000045 00000100 00001140 0100000a  E.. ....@.......
[  124.000001] raw: 00000010: 0200000a d9595704 00000c00 64636261  .....WY.....abcd
`
	kernelMemory = `[  125.000001] mem: ffff888012345670: 45 00 00 20 00 01 00 00 40 11 00 00 0a 00 00 01
[  125.000001] mem: ffff888012345680: 0a 00 00 02 04 57 59 d9 00 0c 00 00 61 62 63 64
[  125.000001] mem: ffff888012349000: 45 00 00 20 00 01 00 00 40 11 00 00 0a 00 00 01
[  125.000001] mem: ffff888012349010: 0a 00 00 02 04 57 59 d9 00 0c 00 00 61 62 63 64
`
	journal  = "Nov 05 12:00:00 host kernel: dump: 00000000: 04 57 59 d9 00 0c 00 00 61 62 63 64              .WY.....abcd\n"
	linesHex = `# tracer: nop
#
CPU:1 [LOST 3 EVENTS]
          nc-2834    [001] ..s31  1234.567890: bpf_trace_printk: pkt len 12: 04 57 59 d9 00 0c 00 00 61 62 63 64
          nc-2834    [001] ..s31  1234.567891: bpf_trace_printk: latency 12345678
          nc-2834    [001] ..s31  1234.567892: bpf_trace_printk: 04:57:59:d9:00:0c:00:00:61:62:63:64
          nc-2834    [001] ..s31  1234.567893: bpf_trace_printk: len=12 045759d9000c0000
045759d9000c000061626364
`
	text2pcapText = `# what text2pcap takes
2026-11-05 12:00:00.5
0000 04 57 59 d9 00 0c 00 00
0008 61 62 63 64 ....WY..
`
)

func TestDumpTexts(t *testing.T) {
	t.Parallel()
	trace := "          nc-2834    [001] ..s31  1234.567890: bpf_trace_printk: "
	for _, test := range []struct {
		name, text, kind, want string
		packets                int
		time                   int64 // of the last one
	}{
		{"Scapy", scapyText, "raw", datagramHex, 1, 1000},
		{"Scapy's list, over midnight", scapyList, "raw", datagramHex, 2, 86400e9 + 800e9 + 2000},
		{"the kernel's log", kernelBytes, "raw", datagramHex, 1, 123456789e3},
		{"the kernel's log in words", kernelWords, "raw", datagramHex, 1, 124000001e3},
		{"the kernel's log with addresses", kernelMemory, "raw", datagramHex, 2, 125000001e3},
		{"the journal", journal, "udp", payloadHex, 1, 1000},
		{"two dumps of the journal", journal + journal, "udp", payloadHex, 2, 2000},
		{"rows in the trace", trace + "00000000: 04 57 59 d9 00 0c 00 00 61 62 63 64\n", "udp", payloadHex, 1, 1234567890e3},
		{"a trace", strings.ReplaceAll(linesHex, "len=12 045759d9000c0000", ""), "udp", payloadHex, 3, 1234567892e3 + 1000},
		{"with other line breaks", strings.ReplaceAll(scapyText, "\n", "\r\n"), "raw", datagramHex, 1, 1000},
		{"without a last one", strings.TrimSpace(scapyText), "raw", datagramHex, 1, 1000},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			packets, err := readDump(t, test.text, ReadOptions{Strict: true})
			if err != nil || len(packets) != test.packets {
				t.Fatalf("%d packets, want %d: %v", len(packets), test.packets, err)
			}
			for _, p := range packets {
				if got := fmt.Sprintf("%x", p.Data); got != test.want || p.Interface.Kind != test.kind || p.Len != len(p.Data) {
					t.Errorf("%s, %d bytes: %s", p.Interface.Name(), p.Len, got)
				}
			}
			if last := packets[len(packets)-1].Time; last != test.time {
				t.Errorf("the last is of %d, want %d", last, test.time)
			}
		})
	}
	packets, err := readDump(t, linesHex, ReadOptions{})
	if err != nil || len(packets) != 4 || packets[2].Len != 12 || len(packets[2].Data) != 8 || !strings.Contains(packets[0].Comment, "the trace lost 3 lines") {
		t.Errorf("%d packets: %v: %+v", len(packets), err, packets)
	}
	packets, err = readDump(t, text2pcapText, ReadOptions{})
	if want := time.Date(2026, 11, 5, 12, 0, 0, 5e8, time.Local).UnixNano(); err != nil || len(packets) != 1 || packets[0].Time != want || fmt.Sprintf("%x", packets[0].Data) != payloadHex {
		t.Errorf("%+v: %v", packets, err)
	}
	messages, _ := capture.KindByName("unix-dgram")
	packets, err = readDump(t, "01 02 03 04 05 06 07 08\n38 39 0a\n", ReadOptions{Kind: messages, Strict: true})
	if err != nil || len(packets) != 2 || string(packets[1].Data) != "89\n" {
		t.Errorf("%+v: %v", packets, err)
	}
	udp6, _ := capture.KindByName("udp6")
	packets, err = readDump(t, "0000 "+strings.Repeat("00 ", 16)+"\n", ReadOptions{Kind: udp6})
	if err != nil || len(packets) != 1 || packets[0].Interface.Name() != "udp6:kernel" || !packets[0].Src.Addr().Is6() {
		t.Errorf("%+v: %v", packets, err)
	}
}

// TestDoubtfulDumps names what cannot be read as it is.
func TestDoubtfulDumps(t *testing.T) {
	t.Parallel()
	raw, _ := capture.KindByName("raw")
	for _, test := range []struct {
		name, text, want string
		kind             *capture.Kind
	}{
		{"a row is missing", scapyText + "0030  45 00\n", "text:3: offset 0030 where 0x20 should come: what follows of this packet is skipped", nil},
		{"the first is missing", "0010  45 00\n" + scapyText, "text:1: a row of no packet, at offset 0010", nil},
		{"of a capture file", "00000000: d4c3 b2a1 0200 0400 0000 0000 0000 0000  ................\n", "it is the dump of a capture file", nil},
		{"of words", "0000000 0045 2000 0100 0000 1140 0000 000a 0100\n", "it has words, whose bytes are in the order of the machine", raw},
		{"of what nobody knows", "0000  01 02 03 04\n", "the kind of socket cannot be told", nil},
		{"no IP", "0000  ff 02 03 04\n", "text:1: a packet that begins with no IP header, but with 0xff", raw},
		{"a word or a packet", "04 57 59 d9 00 0c 00 00 61 62 63 64\ncafe\n", `text:2: "cafe" alone may be a packet, a number or a word: a packet says its length, as in len 2: cafe`, nil},
		{"a length that is too large", "pkt len 12: 04 57 59 d9 00 0c 00 00\n", "the packet has 12 bytes, but 8 of them follow", nil},
	} {
		_, err := readDump(t, test.text, ReadOptions{Strict: true, Kind: test.kind})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
	_, err := readDump(t, "hello\n", ReadOptions{})
	for _, f := range Formats(false) {
		if err == nil || !strings.Contains(err.Error(), f.Name+" ("+f.Summary+")") {
			t.Errorf("%v does not name %s", err, f.Name)
		}
	}
}

func hexSeeds() []string {
	return []string{scapyText, scapyList, kernelBytes, kernelWords, kernelMemory, journal, linesHex, text2pcapText, "00000000  00 00\n*\n0000ffff\n", "0000 00\nFrame (2 bytes):\nOther (3 bytes):\n0000 11\n"}
}

func fuzzHex(f *testing.F, form string) {
	for _, seed := range hexSeeds() {
		f.Add([]byte(seed))
	}
	format, _ := FormatByName(form)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, strict := range []bool{false, true} {
			options := ReadOptions{Name: "in", Strict: strict}
			if len(data)%2 == 0 {
				options.Kind, _ = capture.KindByName([]string{"raw", "udp", "packet", "packet-dgram", "unix-dgram"}[len(data)/2%5])
			}
			source, err := Open(bytes.NewReader(data), format, options)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			w, err := NewWriter(&out, Section{})
			if err != nil {
				t.Fatal(err)
			}
			for {
				p, err := source.Next()
				if err != nil {
					break
				}
				if p.Interface == nil || p.Time < 0 || len(p.Data) > p.Len || len(p.Data) > snaplen {
					t.Fatalf("packet %+v", p)
				}
				if err := w.WritePacket(p); err != nil {
					t.Fatalf("packet %+v: %v", p, err)
				}
			}
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			boundaries(t, out.Bytes())
		}
	})
}

func FuzzHexdump(f *testing.F)  { fuzzHex(f, "hexdump") }
func FuzzHexLines(f *testing.F) { fuzzHex(f, "hexlines") }

// A text in which something looks like a packet here and there is none of packets.
func TestProse(t *testing.T) {
	t.Parallel()
	const line = "tcp:kernel 3 303132333435363738390a4500001c\n"
	prose := strings.Repeat("What was read stands in the view of userspace.\n", 8)
	if text.IsHexLines([]byte(prose + line)) {
		t.Error("a line among nine is taken for packets")
	}
	if !text.IsHexLines([]byte(prose + line + line)) {
		t.Error("two lines among ten are not")
	}
}

// Editors of Windows put a byte order mark before the first row, and a carriage return behind each.
func TestByteOrderMark(t *testing.T) {
	t.Parallel()
	const dump = "\ufeff0000  45 00 00 1c 00 01 00 00 40 11 00 00 7f 00 00 01\r\n0010  7f 00 00 01 00 35 00 35 00 08 00 00\r\n"
	if !text.IsHexdump([]byte(dump)) {
		t.Error("it is not known as rows of bytes")
	}
	format, _ := FormatByName("hexdump")
	source, err := Open(strings.NewReader(dump), format, ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := source.Next()
	if err != nil || len(p.Data) != 28 {
		t.Fatalf("%d bytes, %v", len(p.Data), err)
	}
	if p, err := source.Next(); err != io.EOF {
		t.Errorf("%+v, %v", p, err)
	}
}
