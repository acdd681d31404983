package convert

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/headers"
	"github.com/ebpfdump/ebpfdump/convert/internal/window"
)

// manyPackets has packets of every layer with every field set.
func manyPackets(t testing.TB) []*capture.Packet {
	all := map[*capture.Interface]*capture.Interface{}
	synthetic := func(i *capture.Interface) *capture.Interface {
		if all[i] == nil {
			described := *i
			described.Description, described.Header = "the header is synthetic", capture.HeaderSynthetic
			all[i] = &described
		}
		return all[i]
	}
	full := datagram(t, synthetic(udpKernel), client4, server4, probe)
	full.ID, full.Drops, full.Comment, full.PID, full.TID, full.Direction = 1<<63, 12, "ä\nb", 4, 5, capture.Outbound
	bare := datagram(t, full.Interface, client4, server4, probe)
	bare.Direction, bare.Time = capture.DirectionUnknown, 0
	sent := message(udpUser, client6, server6, protocolUDP, "")
	sent.Call, sent.Direction = "sendmsg", capture.Outbound
	long := segment(t, synthetic(tcpKernel), client4, server4, layers.TCP{ACK: true}, strings.Repeat("x", 70000))
	long6 := segment(t, synthetic(tcp6Kernel), client6, server6, layers.TCP{ACK: true}, strings.Repeat("x", 70000))
	cutOff := datagram(t, full.Interface, client4, server4, probe)
	cutOff.Data = cutOff.Data[:3]
	return append(handshake(t, synthetic(tcp6Kernel), client6, server6),
		full, bare, sent, long, long6, cutOff,
		message(tcpUser, client4, server4, protocolTCP, probe),
		message(udpUser, client4, netip.AddrPort{}, protocolUDP, probe),
		message(unixUser, netip.AddrPort{}, netip.AddrPort{}, 0, probe),
		message(tcpUser, client4, server4, protocolSCTP, probe),
		&capture.Packet{Interface: packetWire, Data: make([]byte, 60), Len: 90},
		&capture.Packet{Interface: rawKernel, Data: ipv4(datagram(t, udpKernel, client4, server4, probe).Data), Time: math.MaxInt64},
		&capture.Packet{Interface: raw6Kernel, Data: []byte{0x60}},
	)
}

// TestReadWhatWasWritten compares every field of every packet.
func TestReadWhatWasWritten(t *testing.T) {
	t.Parallel()
	written := manyPackets(t)
	ledger := someStatistics(unixUser)
	ledger.Comment = "unix-dgram: 10 seen = 8 delivered + 2 dropped"
	file, err := os.ReadFile(writeFileWith(t, written, ledger))
	if err != nil {
		t.Fatal(err)
	}
	source, err := Open(bytes.NewReader(file), nil, ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	packets, err := drain(source)
	if err != nil || len(packets) != len(written) {
		t.Fatalf("%d packets, error %v", len(packets), err)
	}
	seen := map[string]*capture.Interface{}
	for n, p := range packets {
		want := *written[n]
		if !reflect.DeepEqual(*p.Interface, *want.Interface) {
			t.Errorf("packet %d: interface %+v, want %+v", n, *p.Interface, *want.Interface)
		}
		key := fmt.Sprintf("%+v", *p.Interface)
		if before := seen[key]; before != nil && before != p.Interface {
			t.Errorf("packet %d: %s is another interface than before", n, p.Interface.Name())
		}
		seen[key] = p.Interface
		want.Interface, want.Len = p.Interface, originalLength(&want)
		want.Data = want.Data[:min(len(want.Data), len(p.Data))]
		switch want.Interface.Layer { // these say it themselves
		case capture.LayerLink, capture.LayerNetwork:
			h := headers.Parse(&want)
			want.Src, want.Dst, want.Protocol = h.Src, h.Dst, h.Protocol
		}
		if len(want.Data) < 4 && want.Interface.Layer == capture.LayerTransport {
			want.Src, want.Dst = netip.AddrPortFrom(want.Src.Addr(), 0), netip.AddrPortFrom(want.Dst.Addr(), 0)
		}
		if len(want.Data) == 0 {
			want.Data, p.Data = nil, nil
		}
		if !reflect.DeepEqual(*p, want) {
			t.Errorf("packet %d:\n got %+v\nwant %+v", n, *p, want)
		}
	}
	if s, ok := source.Section(); !ok || s != (Section{Hardware: "x86_64", OS: "Linux 6.1", Application: "ebpfdump test", Comment: "ebpfdump capture"}) {
		t.Errorf("section %+v", s)
	}
	statistics := source.Statistics()
	if len(statistics) != 1 || statistics[0].Interface.Name() != unixUser.Name() {
		t.Fatalf("statistics %+v", statistics)
	}
	ledger.Interface = statistics[0].Interface
	if statistics[0] != ledger {
		t.Errorf("statistics %+v", statistics[0])
	}
}

// rewrite reads a file and writes all of it.
func rewrite(t testing.TB, file []byte) []byte {
	t.Helper()
	out, _ := copyOf(t, "pcapng", Section{Application: "ebpfdump test"}, file)
	return out
}

// copyOf copies files into one of some format, and returns what was left out.
func copyOf(t testing.TB, form string, section Section, files ...[]byte) (copied []byte, leftOut []string) {
	t.Helper()
	return copyRead(t, form, section, ReadOptions{Name: "in"}, files...)
}

func copyRead(t testing.TB, form string, section Section, read ReadOptions, files ...[]byte) (copied []byte, leftOut []string) {
	t.Helper()
	var sources []*Source
	for _, file := range files {
		source, err := Open(bytes.NewReader(file), nil, read)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, source)
	}
	items, err := Merge(sources...)
	if err != nil {
		t.Fatal(err)
	}
	format, ok := FormatByName(form)
	if !ok {
		t.Fatalf("no form %q", form)
	}
	var (
		out  bytes.Buffer
		file *File
	)
	for {
		item, err := items.NextItem()
		if file == nil { // the first item is behind the section header
			file = NewStream(&out, format)
			if err := file.Begin(WriteOptions{Section: section, From: sources}); err != nil {
				t.Fatal(err)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := file.WriteItem(item); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.End(nil); err != nil {
		t.Fatal(err)
	}
	for _, o := range file.LeftOut() {
		leftOut = append(leftOut, o.String())
	}
	return out.Bytes(), leftOut
}

// TestRewritingLosesNothing reads and writes our own files: they stay identical.
func TestRewritingLosesNothing(t *testing.T) {
	t.Parallel()
	packets := manyPackets(t)
	file, err := os.ReadFile(writeFileWith(t, packets, someStatistics(packets[0].Interface)))
	if err != nil {
		t.Fatal(err)
	}
	again := rewrite(t, file)
	for at, end := range boundaries(t, file) {
		if len(again) < end || !bytes.Equal(again[:end], file[:end]) {
			t.Fatalf("block %d, which ends at %d, has changed", at, end)
		}
	}
	if len(again) != len(file) {
		t.Errorf("%d bytes, want %d", len(again), len(file))
	}
}

// TestForeignHeadersStay has packets of interfaces with our names, but with headers that
// our Writer would not make: they are not removed.
func TestForeignHeadersStay(t *testing.T) {
	t.Parallel()
	file := newFile(binary.LittleEndian)
	file.section()
	file.iface(linkIPv4, stringOption(interfaceName, "tcp:kernel"), stringOption(interfaceDescription, "the header is synthetic"))
	file.iface(linkUpperPDU, stringOption(interfaceName, "tcp:user"))
	file.iface(linkIPv6, stringOption(interfaceName, "tcp:kernel"), stringOption(interfaceDescription, "the header is synthetic"))
	good := ipv4([]byte("payload"))
	ttl := bytes.Clone(good)
	ttl[8] = 63
	pdu := appendPDUHeader(nil, message(tcpUser, client4, server4, protocolTCP, ""))
	http := bytes.Replace(pdu, []byte("data"), []byte("http"), 1)
	wanted := []string{"payload", string(ttl), "short", "body", string(http) + "body", string(pdu[:20]), "\x00\x0c", "not an address", string(good)}
	for i, data := range []string{string(good), string(ttl), "short"} {
		file.packet(0, uint64(i), []byte(data))
	}
	for i, data := range []string{string(pdu) + "body", string(http) + "body", string(pdu[:20]), "\x00\x0c", "not an address"} {
		file.packet(1, uint64(i), []byte(data), option{packetFlags, func(o binary.AppendByteOrder) []byte { return o.AppendUint32(nil, 1) }})
	}
	file.packet(2, 0, good)
	packets := mustRead(t, bytes.NewReader(file.Bytes()), ReadOptions{})
	for i, p := range packets {
		if string(p.Data) != wanted[i] {
			t.Errorf("packet %d is %q, want %q", i, p.Data, wanted[i])
		}
		if name := p.Interface.Name(); name != "tcp:kernel" && name != "tcp:user" {
			t.Errorf("packet %d is of %s", i, name)
		}
	}
	// Written again, the packets are unchanged.
	again := filepath.Join(t.TempDir(), "again.pcapng")
	if err := os.WriteFile(again, rewrite(t, file.Bytes()), 0o600); err != nil {
		t.Fatal(err)
	}
	before := filepath.Join(t.TempDir(), "before.pcapng")
	if err := os.WriteFile(before, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := run(t, "tshark", "-n", "-r", again, "-x"), run(t, "tshark", "-n", "-r", before, "-x"); got != want {
		t.Errorf("after rewriting:\n%s\nbefore:\n%s", got, want)
	}
}

// TestFilesOfOthers reads files of other programs in either byte order.
func TestFilesOfOthers(t *testing.T) {
	t.Parallel()
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		f := newFile(order)
		f.section(stringOption(sectionApplication, "somebody\x00"))
		f.iface(101, stringOption(interfaceName, "tun0"))
		f.iface(linkEthernet)
		f.iface(113, stringOption(interfaceName, "any:thing"), stringOption(interfaceDescription, "SLL"))
		f.block(0x0bad, []byte("a custom block, which nobody knows"))
		f.packet(0, 1_000_000, []byte("one"), numberOption(packetID, 9), stringOption(optionComment, "a"), stringOption(optionComment, "b"), numberOption(packetDropCount, 3))
		f.block(blockSimplePacket, f.numbers(5), []byte("small"))
		// The obsolete block: interface and drops of 16 bits each.
		f.block(blockPacket, f.order.AppendUint16(f.order.AppendUint16(nil, 2), 7), f.numbers(0, 2_000_000, 3, 10), []byte("old"))
		f.packet(1, 3_000_000, make([]byte, 14))
		f.iface(linkEthernet)
		f.packet(3, 3_000_000, make([]byte, 14)) // of an interface like that, but another
		f.section()                              // another section: its interfaces count from 0 again
		f.iface(101, stringOption(interfaceName, "tun0"))
		f.packet(0, 4_000_000, []byte("two"), option{packetFlags, func(o binary.AppendByteOrder) []byte { return o.AppendUint32(nil, 0xff000002) }})

		packets := mustRead(t, bytes.NewReader(f.Bytes()), ReadOptions{})
		if len(packets) != 6 {
			t.Fatalf("%d packets", len(packets))
		}
		tun := capture.Interface{Label: "tun0", Layer: capture.LayerForeign, LinkType: 101}
		any := capture.Interface{Label: "any:thing", Description: "SLL", Layer: capture.LayerForeign, LinkType: 113}
		for i, want := range []capture.Packet{
			{Interface: &tun, Time: 1e9, ID: 9, Comment: "a\nb", Drops: 3, Data: []byte("one"), Len: 3},
			{Interface: &tun, Data: []byte("small"), Len: 5},
			{Interface: &any, Time: 2e9, Drops: 7, Data: []byte("old"), Len: 10},
			{Interface: &capture.Interface{Layer: capture.LayerLink}, Time: 3e9, Data: make([]byte, 14), Len: 14},
			{Interface: &capture.Interface{Layer: capture.LayerLink}, Time: 3e9, Data: make([]byte, 14), Len: 14},
			{Interface: &tun, Time: 4e9, Direction: capture.Outbound, Data: []byte("two"), Len: 3},
		} {
			if !reflect.DeepEqual(*packets[i], want) {
				t.Errorf("%v: packet %d:\n got %+v\nwant %+v", order, i, *packets[i], want)
			}
		}
		if packets[0].Interface != packets[5].Interface {
			t.Error("the same interface of another section is another")
		}
		if packets[3].Interface == packets[4].Interface {
			t.Error("two interfaces are one")
		}
		path := filepath.Join(t.TempDir(), "again.pcapng")
		if err := os.WriteFile(path, rewrite(t, f.Bytes()), 0o600); err != nil {
			t.Fatal(err)
		}
		if rows := fields(t, path, "frame.number"); len(rows) != 7 { // the custom block is one
			t.Errorf("tshark reads %d packets of what was written", len(rows))
		}
	}
}

func TestFileClock(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		clock fileClock
		ticks uint64
		want  int64
		loss  timeLoss
	}{
		{microseconds, 1793880000123456, 1793880000123456000, timeExact},
		{fileClock{resolution: 9}, noon, noon, timeExact},
		{fileClock{resolution: 0}, 17, 17e9, timeExact},
		{fileClock{resolution: 3}, 1500, 15e8, timeExact},
		{fileClock{resolution: 12}, 1500, 1, timeRounded},
		{fileClock{resolution: 19}, math.MaxUint64, 1844674407, timeRounded},
		{fileClock{resolution: 0x7f}, math.MaxUint64, 0, timeRounded},
		{fileClock{resolution: 0x80}, 3, 3e9, timeExact},
		{fileClock{resolution: 0x80 | 20}, 3 << 19, 15e8, timeExact},
		{fileClock{resolution: 12}, 1_500_000, 1500, timeExact},
		{fileClock{resolution: 0x80 | 32}, 1, 0, timeRounded},
		{fileClock{resolution: 9, offset: -1 << 33}, 1<<63 + 5, 1<<63 - 1<<33*1_000_000_000 + 5, timeExact},
		{fileClock{resolution: 0x80 | 64}, 1 << 63, 5e8, timeExact},
		{fileClock{resolution: 0xff}, math.MaxUint64, 0, timeRounded},
		{fileClock{resolution: 0}, math.MaxUint64, math.MaxInt64, timeOutside},
		{fileClock{resolution: 9}, math.MaxUint64, math.MaxInt64, timeOutside},
		{fileClock{resolution: 6, offset: 10}, 1, 10000001000, timeExact},
		{fileClock{resolution: 9, offset: -10}, 11e9, 1e9, timeExact},
		{fileClock{resolution: 9, offset: -10}, 9e9, 0, timeOutside},
		{fileClock{resolution: 9, offset: math.MaxInt64}, 9, math.MaxInt64, timeOutside},
		{fileClock{resolution: 9, offset: math.MinInt64}, 9, 0, timeOutside},
	} {
		if got, loss := tt.clock.nanoseconds(tt.ticks); got != tt.want || loss != tt.loss {
			t.Errorf("%+v: %d ticks are %d (%d), want %d (%d)", tt.clock, tt.ticks, got, loss, tt.want, tt.loss)
		}
	}
}

// TestTimesAsTshark compares timestamps with those that tshark reads.
func TestTimesAsTshark(t *testing.T) {
	t.Parallel()
	f := newFile(binary.BigEndian)
	f.section()
	for i, tt := range []struct {
		resolution byte
		ticks      uint64
	}{{6, 1793880000123456}, {9, noon}, {3, 1793880000123}, {0, 1793880000}, {0x80 | 10, 1793880000<<10 | 512}} {
		f.iface(linkIPv4, stringOption(interfaceResolution, string([]byte{tt.resolution})), numberOption(interfaceOffset, uint64(i)))
		f.packet(uint32(i), tt.ticks, []byte{0x45})
	}
	path := filepath.Join(t.TempDir(), "clocks.pcapng")
	if err := os.WriteFile(path, f.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, row := range fields(t, path, "frame.time_epoch") {
		p := mustRead(t, bytes.NewReader(f.Bytes()), ReadOptions{})[i]
		if got := fmt.Sprintf("%d.%09d", p.Time/1e9, p.Time%1e9); got != row[0] {
			t.Errorf("interface %d: %s, tshark says %s", i, got, row[0])
		}
	}
}

// TestCutOffFiles cuts files at every byte: everything complete is read, and then the
// offset of the incomplete block is reported.
func TestCutOffFiles(t *testing.T) {
	t.Parallel()
	whole, err := os.ReadFile(writeFileWith(t, fewPackets(t), someStatistics(udpUser)))
	if err != nil {
		t.Fatal(err)
	}
	ends := boundaries(t, whole)
	all := mustRead(t, bytes.NewReader(whole), ReadOptions{})
	for n := 12; n < len(whole); n++ {
		last := 0
		packets := 0
		for _, end := range ends {
			if end > n {
				break
			}
			if order.Uint32(whole[last:]) == blockEnhancedPacket {
				packets++
			}
			last = end
		}
		got := read(t, bytes.NewReader(whole[:n]), ReadOptions{})
		if len(got.packets) != packets || packets > 0 && !bytes.Equal(got.packets[packets-1].Data, all[packets-1].Data) {
			t.Fatalf("cut at %d: %d packets, want %d", n, len(got.packets), packets)
		}
		want := fmt.Sprintf("in: at byte %d: the file is cut off here", last)
		if last == n {
			want = "<nil>"
		}
		if fmt.Sprint(got.err) != want {
			t.Fatalf("cut at %d: error %v, want %s", n, got.err, want)
		}
	}
}

// TestDamagedFiles covers false claims of a file.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		damage func(f *file)
		want   string
	}{
		{"a block of 4 GiB", func(f *file) { f.Write(f.numbers(blockEnhancedPacket, math.MaxUint32&^3)) }, "a block of 4294967292 bytes: more than 1048576 are not read"},
		{"an unknown block of 4 GiB", func(f *file) { f.Write(f.numbers(0x99, math.MaxUint32&^3)) }, "a block of 4294967292 bytes: the file has not as many"},
		{"a section of 4 GiB", func(f *file) { f.Write(f.numbers(blockSection, math.MaxUint32&^3, byteOrderMagic)) }, "a section header of 4294967292 bytes"},
		{"a section of another byte order", func(f *file) { f.block(blockSection, f.numbers(5, 5, 5, 5)) }, "a section's byte order is"},
		{"a later version", func(f *file) { f.block(blockSection, f.numbers(byteOrderMagic, 2, 0, 0)) }, "version"},
		{"a block of 8 bytes", func(f *file) { f.Write(f.numbers(1, 8)) }, "a block of 8 bytes"},
		{"a block of 13 bytes", func(f *file) { f.Write(f.numbers(1, 13, 0, 0)) }, "a block of 13 bytes"},
		{"two lengths", func(f *file) { f.Write(f.numbers(blockEnhancedPacket, 16, 0, 20)) }, "a block of 16 bytes ends with the length 20"},
		{"an empty packet block", func(f *file) { f.block(blockEnhancedPacket) }, "a packet block of 12 bytes"},
		{"an empty simple packet block", func(f *file) { f.block(blockSimplePacket) }, "a packet block of 12 bytes"},
		{"an empty interface block", func(f *file) { f.block(blockInterface) }, "an interface block of 12 bytes"},
		{"an empty statistics block", func(f *file) { f.block(blockStatistics) }, "a statistics block of 12 bytes"},
		{"an unknown interface", func(f *file) { f.packet(1, 0, nil) }, "a packet of interface 1 of 1"},
		{"statistics of an unknown interface", func(f *file) { f.block(blockStatistics, f.numbers(7, 0, 0)) }, "statistics of interface 7 of 1"},
		{"a packet longer than its block", func(f *file) { f.block(blockEnhancedPacket, f.numbers(0, 0, 0, 5, 5), []byte("four")) }, "a packet of 5 bytes in a block that has 4"},
		{"2000 interfaces", func(f *file) {
			for range 2000 {
				f.iface(1)
			}
		}, "more than 1024 interfaces"},
		{"junk", func(f *file) { f.WriteString(strings.Repeat("junk", 100)) }, "a block of "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
				f := newFile(order)
				f.section()
				f.iface(linkIPv4)
				f.packet(0, 1, []byte("good"))
				at := f.Len()
				tt.damage(f)
				if !strings.HasPrefix(tt.want, "more") {
					f.packet(0, 2, []byte("unreached"))
				}
				got := read(t, bytes.NewReader(f.Bytes()), ReadOptions{})
				if len(got.packets) != 1 || got.err == nil || !strings.Contains(got.err.Error(), tt.want) {
					t.Errorf("%d packets, error %v, want %s", len(got.packets), got.err, tt.want)
				}
				if prefix := fmt.Sprintf("in: at byte %d: ", at); tt.name != "2000 interfaces" && got.err != nil && !strings.HasPrefix(got.err.Error(), prefix) {
					t.Errorf("error %v, want it at byte %d", got.err, at)
				}
			}
		})
	}
}

// TestOddOptions has malformed options: no packet is lost.
func TestOddOptions(t *testing.T) {
	t.Parallel()
	f := newFile(binary.BigEndian)
	f.section(stringOption(optionComment, "\xff\xfe"))
	f.iface(linkIPv4, stringOption(interfaceResolution, "\xff"), stringOption(interfaceName, strings.Repeat("x", 65535)))
	f.iface(linkIPv4, stringOption(interfaceResolution, "two"), stringOption(interfaceOffset, "no number"))
	f.packet(0, math.MaxUint64, []byte("a"), stringOption(packetID, "four"), stringOption(packetFlags, ""), stringOption(packetDropCount, "x"))
	f.block(blockEnhancedPacket, f.numbers(1, 0, 0, 0, 0), []byte{0, 1, 0xff, 0xff, 0, 0, 0, 0})
	f.block(blockEnhancedPacket, f.numbers(1, 0, 0, 0, math.MaxUint32))
	got := read(t, bytes.NewReader(f.Bytes()), ReadOptions{})
	if got.err != nil || len(got.packets) != 3 || got.packets[2].Len != math.MaxUint32 {
		t.Errorf("%d packets, error %v", len(got.packets), got.err)
	}
}

// TestPacketsOfAnySize has packets longer than our Writer writes.
func TestPacketsOfAnySize(t *testing.T) {
	t.Parallel()
	f := newFile(binary.LittleEndian)
	f.section()
	f.iface(linkEthernet)
	sizes := []int{0, 1, snaplen, snaplen + 1, window.Size - 100}
	for _, size := range sizes {
		f.packet(0, 0, make([]byte, size))
	}
	for _, step := range []int{1 << 20, 1000} {
		got := read(t, pieces{bytes.NewReader(f.Bytes()), step}, ReadOptions{})
		if got.err != nil || len(got.packets) != len(sizes) {
			t.Fatalf("%d packets, error %v", len(got.packets), got.err)
		}
		for i, p := range got.packets {
			if len(p.Data) != sizes[i] {
				t.Errorf("packet %d has %d bytes", i, len(p.Data))
			}
		}
	}
}

// TestCapturesMemory reads files that claim much and contain little.
func TestCapturesMemory(t *testing.T) {
	little := newFile(binary.LittleEndian)
	little.section()
	little.iface(linkIPv4)
	claims := bytes.Clone(little.Bytes())
	for _, size := range []uint32{1 << 20, 1<<20 - 4, 1<<32 - 4} {
		for _, block := range []uint32{blockEnhancedPacket, blockSimplePacket, blockInterface, 0x77} {
			f := append(bytes.Clone(claims), little.numbers(block, size, 0, 0, 0, size, size)...)
			for name, file := range map[string][]byte{"pcapng": f, "pcap": append(pcapFile(binary.LittleEndian, pcapMicroseconds, 1), little.numbers(0, 0, size, size)...)} {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				got := read(t, bytes.NewReader(file), ReadOptions{})
				runtime.ReadMemStats(&after)
				if grown := after.TotalAlloc - before.TotalAlloc; grown > 5<<20 || got.err == nil {
					t.Errorf("%s block %d of %d bytes: %d KiB were allocated, error %v", name, block, size, grown>>10, got.err)
				}
			}
		}
	}
}

func TestReadAllocations(t *testing.T) {
	packets := slices.Repeat(handshake(t, &capture.Interface{
		Kind: "tcp", View: capture.ViewKernel, Layer: capture.LayerTransport, Description: "header is synthetic", Header: capture.HeaderSynthetic,
	}, client4, server4), 1000)
	packets = append(packets, slices.Repeat([]*capture.Packet{message(tcpUser, client4, server4, protocolTCP, probe)}, 4000)...)
	file, err := os.ReadFile(writeFile(t, packets...))
	if err != nil {
		t.Fatal(err)
	}
	n := testing.AllocsPerRun(1, func() {
		source, err := Open(bytes.NewReader(file), nil, ReadOptions{})
		for err == nil {
			_, err = source.Next()
		}
	})
	if n > 100 {
		t.Errorf("%v allocations for %d packets", n, len(packets))
	}
}

func BenchmarkPcapngReader(b *testing.B) {
	var file bytes.Buffer
	w, err := NewWriter(&file, Section{})
	if err != nil {
		b.Fatal(err)
	}
	p := datagram(b, &capture.Interface{Kind: "udp", View: capture.ViewKernel, Layer: capture.LayerTransport, Description: "the header is synthetic", Header: capture.HeaderSynthetic}, client4, server4, strings.Repeat("x", 56))
	for range 10000 {
		if err := w.WritePacket(p); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(file.Len()))
	b.ReportAllocs()
	for b.Loop() {
		source, err := Open(bytes.NewReader(file.Bytes()), nil, ReadOptions{})
		for err == nil {
			_, err = source.Next()
		}
	}
}
