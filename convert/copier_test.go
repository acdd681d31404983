package convert

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/convert/internal/window"
)

// pen is the Private Enterprise Number for documentation (RFC 5612).
const pen = 32473

// custom is a custom option: its owner's number and opaque data.
func custom(code uint16, value string) option {
	return option{code, func(order binary.AppendByteOrder) []byte { return append(order.AppendUint32(nil, pen), value...) }}
}

func numbersOption(code uint16, numbers ...uint32) option {
	return option{code, func(order binary.AppendByteOrder) (b []byte) {
		for _, n := range numbers {
			b = order.AppendUint32(b, n)
		}
		return b
	}}
}

// filterOption is the filter "accept all" as instructions.
func filterOption() option {
	return option{interfaceFilter, func(order binary.AppendByteOrder) []byte {
		return order.AppendUint32(append(order.AppendUint16([]byte{1}, 6), 0, 0), 262144)
	}}
}

var endOfOptions = stringOption(optionEnd, "")

const keyLog = "CLIENT_RANDOM 001122334455667788990011223344556677889900112233445566778899aabb 00\n"

// names is the body of a name resolution block.
func (f *file) names() []byte {
	record := func(kind uint16, address, name string) []byte {
		value := address + name + "\x00"
		b := f.order.AppendUint16(f.order.AppendUint16(nil, kind), uint16(len(value)))
		return append(append(b, value...), make([]byte, -len(value)&3)...)
	}
	return slices.Concat(
		record(1, "\x0a\x00\x00\x01", "client.example"),
		record(2, "\xfe\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01", "six.example\x00alias.example"),
		f.numbers(0),
		f.options([]option{stringOption(2, "dns.example"), stringOption(3, "\x0a\x00\x00\x35"), stringOption(optionComment, "asked"), endOfOptions}),
	)
}

func (f *file) secrets(keys string) []byte {
	const tlsKeyLog = 0x544c534b
	padded := append([]byte(keys), make([]byte, -len(keys)&3)...)
	return append(f.numbers(tlsKeyLog, uint32(len(keys))), padded...)
}

// frame is an Ethernet frame with a UDP datagram.
func frame(t testing.TB, payload string) []byte {
	t.Helper()
	ip := ipv4(datagram(t, udpKernel, client4, server4, payload).Data)
	return append([]byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x08\x00"), ip...)
}

// everything is a file with everything that other programs write and a copy keeps, in the
// order of the copy.
func everything(t testing.TB, order binary.AppendByteOrder) *file {
	f := newFile(order)
	f.limit = 65535
	f.section(stringOption(sectionApplication, "dumpcap"), stringOption(optionComment, "first"), stringOption(optionComment, "second"),
		custom(customText, "of the section"), stringOption(sectionHardware, "mips"), stringOption(sectionOS, "IRIX"))
	f.block(blockSecrets, f.secrets(keyLog), f.options([]option{stringOption(optionComment, "keys"), endOfOptions}))
	f.iface(linkEthernet, stringOption(interfaceResolution, "\x06"), stringOption(interfaceName, "eth0"), stringOption(interfaceDescription, "uplink"),
		stringOption(optionComment, "one"), stringOption(optionComment, "two"),
		stringOption(4, "\x0a\x00\x00\x01\xff\xff\xff\x00"), stringOption(5, strings.Repeat("\xfe", 16)+"\x40"),
		stringOption(6, "\x02\x00\x00\x00\x00\x01"), stringOption(7, "\x02\x00\x00\xff\xfe\x00\x00\x01"), numberOption(8, 1e9),
		numbersOption(10, 3600), stringOption(interfaceFilter, "\x00udp port 53"), stringOption(12, "Linux 6.1"), stringOption(13, "\x04"),
		stringOption(15, "e1000"), numberOption(16, 1e6), numberOption(17, 2e6), custom(customBytes, "\x01\x02\x03"), endOfOptions)
	f.limit = snaplen
	f.iface(linkEthernet, stringOption(interfaceResolution, "\x09"), numberOption(interfaceOffset, 4_611_686_018), stringOption(interfaceName, "late"), filterOption(), endOfOptions)
	f.iface(linkEthernet, stringOption(interfaceResolution, "\x0c"), stringOption(interfaceName, "fine"), endOfOptions)
	f.iface(113, stringOption(interfaceResolution, "\x06"), stringOption(interfaceName, "unused"), endOfOptions)
	f.block(blockNames, f.names())
	f.block(blockCustom, f.numbers(pen), []byte("of the file!"))
	f.block(blockJournal, []byte("__REALTIME_TIMESTAMP=1700000000000000\nMESSAGE=hello\n"))
	f.packet(0, 1700000000123456, frame(t, "one"), stringOption(optionComment, "a"), stringOption(optionComment, "b"),
		numbersOption(packetFlags, 0x85), stringOption(3, "\x02\x01\x02\x03\x04"), numberOption(packetDropCount, 12),
		numberOption(packetID, 77), numbersOption(6, 3), numbersOption(packetProcess, 1, 2), custom(customText, "of the packet"), endOfOptions)
	f.packet(1, 1<<63+1, frame(t, "late"))
	f.packet(1, 1<<63+2, frame(t, "later"))
	f.packet(2, 1700000000123456789, frame(t, "fine"))
	f.block(blockSecrets, f.secrets("second"))
	f.packet(2, 1700000000123456790, frame(t, "finer"))
	for range 2 { // one a second, as some programs do
		f.block(blockStatistics, f.numbers(0, 395812, 1873821248), f.options([]option{
			stringOption(optionComment, "so far"), numbersOption(statisticsStart, 395812, 1873821000), numbersOption(statisticsEnd, 395812, 1873821248),
			numberOption(statisticsReceived, 10), numberOption(statisticsDropped, 1), numberOption(statisticsAccepted, 9),
			numberOption(statisticsOSDropped, 2), numberOption(statisticsDelivered, 8), endOfOptions,
		}))
	}
	return f
}

// TestCopyKeeps copies files of other programs in either byte order: every block is
// unchanged except for the section header.
func TestCopyKeeps(t *testing.T) {
	t.Parallel()
	little := everything(t, binary.LittleEndian).Bytes()
	section := Section{Application: "ebpfdump test", Comment: "ebpfdump convert"}
	copied, leftOut := copyOf(t, "pcapng", section, little)
	if len(leftOut) > 0 {
		t.Errorf("left out: %q", leftOut)
	}
	turned, leftOut := copyOf(t, "pcapng", section, everything(t, binary.BigEndian).Bytes())
	if len(leftOut) > 0 {
		t.Errorf("left out of the other byte order: %q", leftOut)
	}
	if !bytes.Equal(turned, copied) {
		t.Error("the copies of both byte orders differ")
	}
	before, after := blocksOf(t, little), blocksOf(t, copied)
	if len(before) != len(after) {
		t.Fatalf("%d blocks, want %d", len(after), len(before))
	}
	for n := range before {
		if n > 0 && !bytes.Equal(before[n], after[n]) {
			t.Errorf("block %d\n got %q\nwant %q", n, after[n], before[n])
		}
	}
	again, leftOut := copyOf(t, "pcapng", Section{Application: "ebpfdump test"}, copied)
	if len(leftOut) > 0 || !bytes.Equal(again, copied) {
		t.Errorf("a copy of the copy differs; left out: %q", leftOut)
	}
}

// blocksOf splits a file into blocks.
func blocksOf(t testing.TB, file []byte) (blocks [][]byte) {
	t.Helper()
	start := 0
	for _, end := range boundaries(t, file) {
		blocks = append(blocks, file[start:end])
		start = end
	}
	return blocks
}

// TestCopyInWireshark has Wireshark's tools read a file and its copy.
func TestCopyInWireshark(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name string, file []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		file := everything(t, order).Bytes()
		copied, _ := copyOf(t, "pcapng", Section{Application: "ebpfdump test", Comment: "ebpfdump convert"}, file)
		before, after := write(order.String(), file), write(order.String()+"-copy", copied)
		if got, want := run(t, "tshark", "-r", after, "-V", "-W", "n"), run(t, "tshark", "-r", before, "-V", "-W", "n"); got != want || strings.Count(got, "\nFrame ") < 5 {
			t.Errorf("%v: tshark reads\n%s\nwant\n%s", order, got, want)
		}
		of := func(path string) (lines []string) {
			for line := range strings.Lines(run(t, "capinfos", "-M", path)) {
				name, _, _ := strings.Cut(line, " ")
				switch {
				case slices.Contains([]string{"File", "SHA256:", "RIPEMD160:", "SHA1:"}, name):
				case strings.HasPrefix(line, "Capture application:"):
				case strings.Contains(line, "recorded by dumpcap"), strings.Contains(line, "ebpfdump convert"):
				default:
					lines = append(lines, line)
				}
			}
			return lines
		}
		if got, want := of(after), of(before); !slices.Equal(got, want) {
			t.Errorf("%v: capinfos reads\n%s\nwant\n%s", order, strings.Join(got, ""), strings.Join(want, ""))
		}
		text := run(t, "capinfos", after)
		for _, want := range []string{
			"Capture application: ebpfdump test", "Capture comment:     first\nCapture comment:     second\n", "Capture comment:     recorded by dumpcap\n",
			"Number of decryption secrets in file: 2", "Number of resolved IPv4 addresses in file: 1", "Number of interfaces in file: 4",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%v: no %q in\n%s", order, want, text)
			}
		}
	}
}

// TestCopySections joins sections, which renumbers their interfaces.
func TestCopySections(t *testing.T) {
	t.Parallel()
	var all bytes.Buffer
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		f := newFile(order)
		f.section(stringOption(optionComment, order.String()))
		f.iface(linkEthernet, stringOption(interfaceName, order.String()))
		f.iface(linkEthernet, stringOption(interfaceName, "both"))
		f.packet(0, 1, frame(t, "a"))
		f.packet(1, 2, frame(t, "b"))
		f.block(blockStatistics, f.numbers(1, 0, 9), f.options([]option{numberOption(statisticsReceived, 1), endOfOptions}))
		all.Write(f.Bytes())
	}
	copied, leftOut := copyOf(t, "pcapng", Section{}, all.Bytes())
	if want := []string{"1 section header left out: the output has one section, and its header comes first"}; !slices.Equal(leftOut, want) {
		t.Errorf("left out: %q", leftOut)
	}
	path := filepath.Join(t.TempDir(), "copy.pcapng")
	if err := os.WriteFile(path, copied, 0o600); err != nil {
		t.Fatal(err)
	}
	wantFields(t, fields(t, path, "frame.interface_id", "frame.interface_name"),
		"0|LittleEndian", "1|both", "2|BigEndian", "1|both")
	var about []uint32
	for _, b := range blocksOf(t, copied) {
		if order.Uint32(b) == blockStatistics {
			about = append(about, order.Uint32(b[8:]))
		}
	}
	if !slices.Equal(about, []uint32{1, 1}) {
		t.Errorf("statistics of the interfaces %d", about)
	}
}

// TestCopyAllocations bounds the allocations for copying many packets.
func TestCopyAllocations(t *testing.T) {
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		f := newFile(order)
		f.section()
		f.iface(linkEthernet)
		for range 5000 {
			f.packet(0, 5, frame(t, probe), numberOption(packetID, 1), numbersOption(packetFlags, 1), custom(customText, "x"), endOfOptions)
		}
		if n := testing.AllocsPerRun(1, func() { copyOf(t, "pcapng", Section{}, f.Bytes()) }); n > 200 {
			t.Errorf("%v: %v allocations", order, n)
		}
	}
}

// TestManyComments has a packet with as many comments as fit into a block. Joining them
// one by one would take gigabytes.
func TestManyComments(t *testing.T) {
	f := newFile(binary.LittleEndian)
	f.section(slices.Repeat([]option{stringOption(optionComment, "c")}, 100_000)...)
	f.iface(linkEthernet)
	f.packet(0, 5, []byte("x"), slices.Repeat([]option{stringOption(optionComment, "c")}, 100_000)...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	packets := mustRead(t, bytes.NewReader(f.Bytes()), ReadOptions{})
	runtime.ReadMemStats(&after)
	if len(packets) != 1 || packets[0].Comment != strings.Repeat("c\n", 99_999)+"c" {
		t.Errorf("%d packets", len(packets))
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
		t.Errorf("%d KiB were allocated", grown>>10)
	}
}

// TestMergeKeepsOrder merges files whose blocks precede the packets that need them.
func TestMergeKeepsOrder(t *testing.T) {
	t.Parallel()
	var files [][]byte
	for n, times := range [][]uint64{{10, 30}, {20, 40}} {
		f := newFile(binary.LittleEndian)
		f.section(stringOption(optionComment, fmt.Sprint("file ", n)), stringOption(sectionOS, fmt.Sprint("OS ", n)))
		f.iface(linkEthernet, stringOption(interfaceName, fmt.Sprint("if", n)))
		for i, at := range times {
			f.block(blockSecrets, f.secrets(fmt.Sprintf("keys %d-%d", n, i)))
			f.packet(0, at, frame(t, fmt.Sprintf("packet %d-%d", n, i)))
		}
		f.block(blockStatistics, f.numbers(0, 0, 50))
		files = append(files, f.Bytes())
	}
	copied, leftOut := copyOf(t, "pcapng", Section{}, files...)
	if len(leftOut) > 0 {
		t.Errorf("left out: %q", leftOut)
	}
	var got []string
	for _, b := range blocksOf(t, copied) {
		switch kind := order.Uint32(b); kind {
		case blockSecrets:
			got = append(got, string(b[16:24]))
		case blockEnhancedPacket:
			at := bytes.Index(b, []byte("packet "))
			got = append(got, fmt.Sprintf("%s of %d", b[at:at+10], order.Uint32(b[8:])))
		default:
			got = append(got, fmt.Sprint("block ", kind))
		}
	}
	want := []string{
		"block 168627466", "block 1", "keys 0-0", "block 1", "keys 1-0", "packet 0-0 of 0", "keys 0-1", "packet 1-0 of 1",
		"keys 1-1", "packet 0-1 of 0", "block 5", "packet 1-1 of 1", "block 5",
	}
	if !slices.Equal(got, want) {
		t.Errorf("order\n got %q\nwant %q", got, want)
	}
	source, err := Open(bytes.NewReader(copied), nil, ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := drain(source); err != nil {
		t.Fatal(err)
	}
	if s, _ := source.Section(); s.OS != "OS 0" || s.Comment != "file 0\nfile 1\nrecorded on OS 1" {
		t.Errorf("section %+v", s)
	}
}

// TestLeftOut covers what a copy leaves out, and the sentences about it.
func TestLeftOut(t *testing.T) {
	t.Parallel()
	little := func(fill func(f *file)) []byte {
		f := newFile(binary.LittleEndian)
		f.section()
		f.iface(linkEthernet)
		fill(f)
		return f.Bytes()
	}
	big := func(fill func(f *file)) []byte {
		f := newFile(binary.BigEndian)
		f.section()
		f.iface(linkEthernet)
		fill(f)
		return f.Bytes()
	}
	packet := frame(t, "x")
	for _, tt := range []struct {
		name string
		file []byte
		form string
		want []string
	}{
		{"nothing", little(func(f *file) { f.packet(0, 5, packet) }), "pcapng", nil},
		{"a verdict", little(func(f *file) {
			f.packet(0, 5, packet, stringOption(packetVerdict, "\x01\x05\x00\x00\x00\x00\x00\x00\x00"))
		}), "pcapng",
			[]string{"1 packet verdict left out: editcap, mergecap and tshark -w make damaged files of verdicts"}},
		{"not to be copied", little(func(f *file) {
			f.block(blockCustomUncopied, f.numbers(pen, 1))
			f.packet(0, 5, packet, custom(customTextUncopied, "x"), custom(customBytesUncopied, "x"))
		}), "pcapng", []string{"3 custom blocks and options left out: marked as not to be copied"}},
		{"unknown options", little(func(f *file) { f.packet(0, 5, packet, numberOption(99, 1)) }), "pcapng", nil},
		{"unknown options turned", big(func(f *file) { f.packet(0, 5, packet, numberOption(99, 1), numberOption(99, 1)) }), "pcapng",
			[]string{"2 options of unknown meaning left out: the file has the other byte order, and whether they are numbers is not known"}},
		{"unknown blocks", little(func(f *file) { f.block(0x77, f.numbers(1)); f.packet(0, 5, packet) }), "pcapng",
			[]string{"1 block of unknown type left out: interfaces have other numbers in the output"}},
		{"damage", little(func(f *file) {
			f.packet(0, 5, packet, stringOption(6, "toolong!!"), numberOption(packetID, 5))
			f.packet(0, 5, packet, stringOption(customText, "12"))
			f.block(blockSecrets, f.numbers(1, 500), []byte("short"))
			f.block(blockCustom)
			f.block(blockJournal, []byte("x"))
			f.block(blockNames, f.numbers(4<<16|1, 5, 0))
		}), "pcapng", []string{"6 damaged blocks and options left out: Wireshark refuses files with such"}},
		{"long packets", little(func(f *file) { f.packet(0, 5, make([]byte, snaplen+1)) }), "pcapng",
			[]string{"1 packet cut to 262144 bytes: Wireshark refuses files that have longer ones"}},
		{"long packets, pcap", little(func(f *file) { f.packet(0, 5, make([]byte, snaplen+1)) }), "pcap", []string{
			"1 interface description left out: pcap has no room for it",
			"1 packet cut to 262144 bytes: Wireshark refuses files that have longer ones"}},
		{"long packets, JSON", little(func(f *file) { f.packet(0, 5, make([]byte, snaplen+1)) }), "json",
			[]string{"1 interface description left out: json has no room for it"}},
		{"no times", little(func(f *file) { f.block(blockSimplePacket, f.numbers(5), []byte("small")) }), "pcapng",
			[]string{"1 packet without a time: it has the one of 1970 now"}},
		{"late times, pcap", little(func(f *file) { f.packet(0, 1<<51, packet); f.packet(0, 1<<53, packet); f.packet(0, 1<<54, packet) }), "pcap", []string{
			"1 interface description left out: pcap has no room for it",
			"the times of 2 packets are not their own: they are earlier or later than any that pcap has"}},
		{"late times, JSON", little(func(f *file) { f.packet(0, 1<<53, packet); f.packet(0, 1<<54, packet) }), "json", []string{
			"1 interface description left out: json has no room for it",
			"the time of 1 packet is not its own: it is earlier or later than any that json has"}},
		{"everything, pcap", everything(t, binary.LittleEndian).Bytes(), "pcap", []string{
			"1 packet comment left out: pcap has no room for it",
			"4 packet ids, directions, drop counts and processes left out: pcap has no room for them",
			"1 flow hash or queue number left out: pcap has no room for it",
			"3 other packet options left out: pcap has no room for them",
			"4 interface descriptions left out: pcap has no room for them",
			"2 interface statistics blocks left out: pcap has no room for them",
			"1 section header left out: pcap has no room for it",
			"2 blocks of decryption secrets left out: pcap has no room for them",
			"1 name resolution block left out: pcap has no room for it",
			"1 custom block left out: pcap has no room for it",
			"1 systemd journal entry left out: pcap has no room for it",
			"the times of 2 packets are rounded: pcap has no finer ones",
			"the times of 2 packets are not their own: they are earlier or later than any that pcap has"}},
		{"everything, JSON", everything(t, binary.BigEndian).Bytes(), "json", []string{
			"3 other packet options left out: json has no room for them",
			"4 interface descriptions left out: json has no room for them",
			"2 interface statistics blocks left out: json has no room for them",
			"1 section header left out: json has no room for it",
			"2 blocks of decryption secrets left out: json has no room for them",
			"1 name resolution block left out: json has no room for it",
			"1 custom block left out: json has no room for it",
			"1 systemd journal entry left out: json has no room for it",
			"the times of 2 packets are rounded: json has no finer ones",
			"the times of 2 packets are not their own: they are earlier or later than any that json has"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			copied, leftOut := copyOf(t, tt.form, Section{}, tt.file)
			if !slices.Equal(leftOut, tt.want) {
				t.Errorf("left out\n got %q\nwant %q", leftOut, tt.want)
			}
			if tt.form != "pcapng" {
				return
			}
			path := filepath.Join(t.TempDir(), "copy.pcapng")
			if err := os.WriteFile(path, copied, 0o600); err != nil {
				t.Fatal(err)
			}
			run(t, "capinfos", path) // which fails if Wireshark takes the file for a damaged one
		})
	}
}

// What a format has no room for can be said of several kinds in one sentence.
func TestWhatIsLeftOut(t *testing.T) {
	t.Parallel()
	var counts omissionCounts
	counts[packetComments], counts[sectionHeaders], counts[verdicts] = 2, 1, 3
	var got []string
	for _, o := range counts.omissions("pcap") {
		if o.Expected {
			got = append(got, o.What())
		}
	}
	if want := []string{"2 packet comments", "1 section header"}; !slices.Equal(got, want) {
		t.Errorf("left out %q", got)
	}
	for m := range journalBlocks + 1 {
		counts = omissionCounts{}
		counts[m] = 2
		if o := counts.omissions("pcap")[0]; o.What()+" left out: pcap has no room for them" != o.String() {
			t.Errorf("%q of %q", o.What(), o.String())
		}
	}
}

// TestLargeBlocks copies blocks larger than the window, up to the largest that Wireshark
// reads.
func TestLargeBlocks(t *testing.T) {
	f := newFile(binary.BigEndian)
	f.section()
	f.iface(linkEthernet)
	f.packet(0, 5, frame(t, "before"))
	for _, size := range []int{window.Size, 3 << 20, largestBlock - 20} {
		f.block(blockSecrets, f.secrets(strings.Repeat("k", size)))
	}
	f.block(blockSecrets, f.secrets(strings.Repeat("k", largestBlock)))
	f.packet(0, 6, frame(t, "after"))
	copied, leftOut := copyOf(t, "pcapng", Section{}, f.Bytes())
	if want := []string{"1 block of more than 16 MiB left out: Wireshark refuses files with such"}; !slices.Equal(leftOut, want) {
		t.Errorf("left out %q", leftOut)
	}
	path := filepath.Join(t.TempDir(), "copy.pcapng")
	if err := os.WriteFile(path, copied, 0o600); err != nil {
		t.Fatal(err)
	}
	if text := run(t, "capinfos", path); !strings.Contains(text, "Number of decryption secrets in file: 3\n") || !strings.Contains(text, "Number of packets:   2\n") {
		t.Errorf("capinfos reads\n%s", text)
	}
	// Reading only the packets takes no memory for the rest.
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if n := len(mustRead(t, bytes.NewReader(f.Bytes()), ReadOptions{})); n != 2 {
		t.Errorf("%d packets", n)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 2*(window.Size+window.ReadSize) {
		t.Errorf("reading the packets allocated %d KiB", grown>>10)
	}
}

// TestManyInterfaces exceeds the limits on interfaces and sections.
func TestManyInterfaces(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		sections, name int
		bad            bool
	}{{2000, 10, false}, {2 * maxKnown, 10, true}, {1000, 60000, true}} {
		f := newFile(binary.LittleEndian)
		for n := range tt.sections {
			f.section()
			f.iface(linkEthernet, stringOption(interfaceName, fmt.Sprintf("%0*d", tt.name, n)))
			f.packet(0, 5, []byte("x"))
		}
		got := read(t, bytes.NewReader(f.Bytes()), ReadOptions{})
		if (got.err != nil) != tt.bad || got.err != nil && !strings.Contains(got.err.Error(), "interfaces") {
			t.Errorf("%d sections: %d packets, error %v", tt.sections, len(got.packets), got.err)
		}
	}
	// The same interface in several sections counts once.
	f := newFile(binary.LittleEndian)
	for range 4 * maxKnown {
		f.section()
		f.iface(linkEthernet, stringOption(interfaceName, "eth0"))
		f.packet(0, 5, []byte("x"))
	}
	if got := mustRead(t, bytes.NewReader(f.Bytes()), ReadOptions{}); len(got) != 4*maxKnown || got[0].Interface != got[len(got)-1].Interface {
		t.Errorf("%d packets", len(got))
	}
}

// TestCutOffIsNoDamage reads files that end in the middle of a block.
func TestCutOffIsNoDamage(t *testing.T) {
	t.Parallel()
	order := binary.LittleEndian
	pcapng := newFile(order)
	pcapng.section()
	header := pcapng.Len()
	pcapng.iface(linkEthernet)
	pcapng.packet(0, 1, frame(t, "whole"))
	end := pcapng.Len()
	for name, last := range map[string]func(){
		"packet":  func() { pcapng.packet(0, 2, frame(t, "torn")) },
		"section": func() { pcapng.section(stringOption(optionComment, "x")) },
		"unknown": func() { pcapng.block(0x77, make([]byte, 100)) },
		"large":   func() { pcapng.block(blockSecrets, make([]byte, window.Size+100)) },
	} {
		pcapng.Truncate(end)
		last()
		for _, rest := range []int{1, 7, 8, 11, 15, pcapng.Len() - end - 1} {
			for _, strict := range []bool{false, true} {
				source, err := Open(bytes.NewReader(pcapng.Bytes()[:end+rest]), nil, ReadOptions{Name: "in", CutOff: true, Strict: strict})
				if err != nil {
					t.Fatal(err)
				}
				items, err := Merge(source)
				if err != nil {
					t.Fatal(err)
				}
				packets, err := drain(items)
				at, ok := source.CutOff()
				want := CutOff{Name: "in", Offset: int64(end), Rest: int64(rest), Packets: 1}
				if len(packets) != 1 || ok == strict || (err != nil) != strict || !strict && at != want {
					t.Errorf("%d bytes of a %s block, strict %v: %d packets, %+v, error %v", rest, name, strict, len(packets), at, err)
				}
			}
		}
	}
	// A file without a complete section header is an error.
	if got := read(t, bytes.NewReader(pcapng.Bytes()[:header-1]), ReadOptions{CutOff: true}); got.err == nil {
		t.Error("a part of a section header is a file")
	}
	// An impossible length is damage even if the file ends before it.
	pcapng.Truncate(end)
	pcapng.Write(pcapng.numbers(0x77, math.MaxUint32&^3))
	if got := read(t, bytes.NewReader(pcapng.Bytes()), ReadOptions{CutOff: true}); got.err == nil {
		t.Error("a block of 4 GiB is no damage")
	}

	pcap := append(pcapFile(order, pcapMicroseconds, linkEthernet), pcapPacket(order, 1, 2, 5, "whole")...)
	size := len(pcap)
	pcap = append(pcap, pcapPacket(order, 1, 2, 4, "torn")...)
	for rest := 1; size+rest < len(pcap); rest++ {
		source, err := Open(bytes.NewReader(pcap[:size+rest]), nil, ReadOptions{Name: "in", CutOff: true})
		if err != nil {
			t.Fatal(err)
		}
		packets, err := drain(source)
		if at, _ := source.CutOff(); err != nil || len(packets) != 1 || at != (CutOff{"in", int64(size), int64(rest), 1}) {
			t.Errorf("pcap: %d bytes: %d packets, %+v, error %v", rest, len(packets), at, err)
		}
	}
}
