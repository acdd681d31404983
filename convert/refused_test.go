package convert

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// shortest is longer than any header that Wireshark insists on, but those of ERF with many
// extensions.
const shortest = 40

// beginnings are what short packets are cut from: what may be the header of some link type, or
// nearly, such as an ERF record of each type, and Linux cooked headers.
func beginnings(link uint16) [][]byte {
	all := [][]byte{make([]byte, shortest), bytes.Repeat([]byte{0xff}, shortest)}
	with := func(at int, values ...byte) {
		b := make([]byte, shortest)
		copy(b[at:], values)
		all = append(all, b)
	}
	for _, last := range [][]byte{{0, 0x16}, {0, 0x17}, {1, 0x17}, {0x17, 0}, {0, 0x30}, {1, 0x30}} {
		with(14, last...)
	}
	if link == linkERF {
		for kind := range 256 {
			with(8, byte(kind))
			with(8, byte(kind), 0, 0, 0, 0, 0, 0, 0, 0x80) // two extensions, if any
		}
	}
	return all
}

// filesWith writes each content to a file of its own.
func filesWith(t *testing.T, contents map[string][]byte) (paths []string) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range contents {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}

// counts are the numbers of packets that capinfos finds in files, by their names. Those that it
// refuses are missing.
func counts(t *testing.T, paths []string) map[string]string {
	t.Helper()
	cmd := exec.Command(testutil.RequireTool(t, "capinfos"), append([]string{"-T", "-r", "-M", "-c"}, paths...)...)
	out, err := cmd.Output()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		path, n, _ := strings.Cut(strings.TrimSpace(line), "\t")
		found[filepath.Base(path)] = n
	}
	return found
}

// TestShortPacketsOfAnyLinkType copies packets of every length up to that of the longest header,
// of every link type. capinfos reads all that is written, to pcapng and to pcap, and refuses a
// file with the longest of each kind that was left out.
func TestShortPacketsOfAnyLinkType(t *testing.T) {
	t.Parallel()
	const links = 400
	f := newFile(binary.BigEndian)
	f.section()
	for link := range uint16(links) {
		f.iface(link)
	}
	refused := make(map[string][]byte) // files, by name
	copies := make(map[string][]byte)
	want := make(map[string]string)
	kept, left := 0, 0
	for link := range uint16(links) {
		single := newFile(binary.LittleEndian)
		single.section()
		single.iface(link)
		before, here := left, 0
		for n, b := range beginnings(link) {
			last := []byte(nil)
			for size := range shortest + 1 {
				f.packet(uint32(link), 5, b[:size])
				single.packet(0, 5, b[:size])
				if isHeadless(&capture.Packet{Interface: &capture.Interface{Layer: capture.LayerForeign, LinkType: link}, Data: b[:size]}) {
					left++
					last = b[:size]
				} else {
					kept++
					here++
				}
			}
			if left > before && last != nil {
				alone := newFile(binary.LittleEndian)
				alone.section()
				alone.iface(link)
				alone.packet(0, 5, last)
				refused[fmt.Sprintf("%d-%d.pcapng", link, n)] = alone.Bytes()
			}
		}
		if left > before {
			name := fmt.Sprintf("%d.pcap", link)
			copies[name], _ = copyOf(t, "pcap", Section{}, single.Bytes())
			want[name] = fmt.Sprint(here)
		}
	}
	all, leftOut := copyOf(t, "pcapng", Section{}, f.Bytes())
	if sentence := fmt.Sprintf("%d packets without the header of their link type left out: Wireshark refuses files with such", left); !slices.Equal(leftOut, []string{sentence}) {
		t.Errorf("left out %q, want %q", leftOut, sentence)
	}
	copies["all.pcapng"], want["all.pcapng"] = all, fmt.Sprint(kept)
	for name, n := range counts(t, filesWith(t, copies)) {
		if n != want[name] {
			t.Errorf("%s has %s packets, want %s", name, n, want[name])
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("capinfos refuses %v", want)
	}
	if len(refused) < 500 { // the types of ERF alone are more
		t.Errorf("%d packets were left out", len(refused))
	}
	if read := counts(t, filesWith(t, refused)); len(read) > 0 {
		t.Errorf("of %d files with a packet that was left out, capinfos reads %v", len(refused), read)
	}
}

// refusedBlock is what may stand before a packet in a file.
type refusedBlock struct {
	fill func(f *file)
	// bad says that a copy lacks it, or a part of it.
	bad bool
	// later says that only versions of Wireshark after 4.0 refuse it.
	later bool
	// little says that it means something else in the other byte order.
	little bool
}

func refusedBlocks(t *testing.T) map[string]refusedBlock {
	// What belongs to somebody is little-endian also in a section of the other order.
	numbers := newFile(binary.LittleEndian).numbers
	record := func(options ...option) []byte { return newFile(binary.LittleEndian).options(options) }
	journal := func(text string) func(f *file) {
		return func(f *file) { f.block(blockJournal, []byte(text)) }
	}
	names := func(records ...option) func(f *file) {
		return func(f *file) { f.block(blockNames, f.options(append(records, endOfOptions))) }
	}
	owned := func(pen uint32, data ...[]byte) func(f *file) {
		return func(f *file) { f.block(blockCustom, append([][]byte{f.numbers(pen)}, data...)...) }
	}
	process := func(options ...option) func(f *file) {
		all := record(options...)
		return owned(penWireshark, numbers(3, uint32(4+len(all)), 77), all)
	}
	event := func(options ...option) func(f *file) { return owned(penNetflix, numbers(1), record(options...)) }
	packet := func(options ...option) func(f *file) {
		return func(f *file) { f.packet(0, 5, frame(t, "x"), options...) }
	}
	netflix := func(value string) option {
		return option{customBytes, func(order binary.AppendByteOrder) []byte {
			return append(order.AppendUint32(nil, penNetflix), value...)
		}}
	}
	const time, address6 = "__REALTIME_TIMESTAMP=1", "0123456789abcdef"
	return map[string]refusedBlock{
		"journal":                      {fill: journal(time + "\n")},
		"journal, padded":              {fill: journal(time + "\n\x00\x00\x00\x00\x00\x00\x00")},
		"journal, short":               {fill: journal(time), bad: true},
		"journal, short and padded":    {fill: journal(time + "\x00\x00\x00\x00\x00\x00\x00"), bad: true},
		"journal of zeros":             {fill: journal(strings.Repeat("\x00", 28)), bad: true},
		"names":                        {fill: names(stringOption(1, "\x01\x02\x03\x04a\x00b\x00"), stringOption(2, address6+"c\x00"))},
		"names without an end":         {fill: names(stringOption(1, "\x01\x02\x03\x04a")), bad: true},
		"names, the second endless":    {fill: names(stringOption(1, "\x01\x02\x03\x04a\x00b")), bad: true},
		"names of IPv6, endless":       {fill: names(stringOption(2, address6+"a\x00b")), bad: true},
		"names, short":                 {fill: names(stringOption(1, "\x01\x02\x03")), bad: true},
		"names of IPv6, short":         {fill: names(stringOption(2, address6[1:])), bad: true},
		"event":                        {fill: event(stringOption(optionComment, "x"), stringOption(customText, "pen, x"), stringOption(customBytes, "\xc5\x2a\x00\x00\x01\x00\x00\x00"), endOfOptions)},
		"event with another option":    {fill: event(stringOption(2, "x"), endOfOptions), bad: true},
		"event with half an owner":     {fill: event(stringOption(customText, "123"), endOfOptions), bad: true},
		"event with half a type":       {fill: event(stringOption(customBytes, "\xc5\x2a\x00\x00\x01\x00"), endOfOptions), bad: true},
		"event, cut off":               {fill: owned(penNetflix, numbers(1, 20<<16|optionComment)), bad: true},
		"event with a long end":        {fill: owned(penNetflix, numbers(1, 20<<16|optionEnd)), bad: true},
		"skipped events":               {fill: owned(penNetflix, numbers(2, 5))},
		"skipped events, short":        {fill: owned(penNetflix, numbers(2)), bad: true},
		"no events":                    {fill: owned(penNetflix), bad: true},
		"unknown events":               {fill: owned(penNetflix, numbers(3, 0)), bad: true},
		"process":                      {fill: process(stringOption(2, "init"), stringOption(5, "1234"), stringOption(8, address6), endOfOptions)},
		"process with an end of two":   {fill: process(stringOption(5, "12"), endOfOptions), bad: true, later: true},
		"process with a short UUID":    {fill: process(stringOption(8, "12")), bad: true, later: true},
		"process with a short time":    {fill: process(stringOption(9, "12")), bad: true, later: true},
		"process without an id":        {fill: owned(penWireshark, numbers(3, 0)), bad: true, later: true},
		"process longer than a block":  {fill: owned(penWireshark, numbers(3, 500, 1)), bad: true, later: true},
		"process, overflowing":         {fill: owned(penWireshark, numbers(3, 1<<32-1, 1)), bad: true, later: true},
		"entry without a length":       {fill: owned(penWireshark, numbers(3)), bad: true, later: true},
		"unknown entry":                {fill: owned(penWireshark, numbers(9, 0))},
		"option of an interface":       {fill: func(f *file) { f.iface(linkEthernet, netflix("123")) }, bad: true},
		"option of a packet":           {fill: packet(netflix("")), bad: true},
		"option of statistics":         {fill: func(f *file) { f.block(blockStatistics, f.numbers(0, 0, 5), f.options([]option{netflix("123")})) }, bad: true},
		"option of names":              {fill: names(endOfOptions, netflix("123")), bad: true},
		"option, whole":                {fill: packet(netflix("1234"))},
		"option of macOS":              {fill: packet(stringOption(darwinFirst, "1234"), stringOption(darwinFirst+5, "12"), stringOption(darwinFirst+8, "f")), little: true},
		"option of macOS, long":        {fill: packet(stringOption(darwinFirst+5, "1234")), bad: true, later: true},
		"option of macOS, short":       {fill: packet(stringOption(darwinFirst+9, "12")), bad: true, later: true},
		"another interface of macOS's": {fill: func(f *file) { f.iface(linkEthernet, stringOption(darwinFirst, "12")) }, little: true},
	}
}

// packetsIn counts the packets of a file that we wrote.
func packetsIn(t *testing.T, content []byte) (n int) {
	for _, b := range blocksOf(t, content) {
		if order.Uint32(b) == blockEnhancedPacket {
			n++
		}
	}
	return n
}

// TestBlocksThatWiresharkRefuses copies blocks that Wireshark reads, and such for which it refuses
// the whole file, or takes the file for one that ends there: a copy lacks what is wrong in them.
func TestBlocksThatWiresharkRefuses(t *testing.T) {
	t.Parallel()
	files := make(map[string][]byte)
	whole := make(map[string]string)   // how many packets are in them
	damaged := make(map[string]string) // the same, of those that cannot be read
	var all []byte                     // copies, as sections of one file
	total := 0
	for name, b := range refusedBlocks(t) {
		for _, o := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
			if b.little && o == binary.AppendByteOrder(binary.BigEndian) {
				continue
			}
			f := newFile(o)
			f.section()
			f.iface(linkEthernet)
			b.fill(f)
			f.packet(0, 6, frame(t, "after it"))
			copied, leftOut := copyOf(t, "pcapng", Section{}, f.Bytes())
			var sentences []string
			if b.bad {
				sentences = []string{"1 damaged block or option left out: Wireshark refuses files with such"}
			}
			if !slices.Equal(leftOut, sentences) {
				t.Errorf("%s, %v: left out %q, want %q", name, o, leftOut, sentences)
			}
			n, key := packetsIn(t, copied), fmt.Sprintf("%s, %v", name, o)
			files[key], files["copy of "+key] = f.Bytes(), copied
			whole["copy of "+key] = fmt.Sprint(n)
			switch {
			case !b.bad:
				whole[key] = fmt.Sprint(n)
			case !b.later:
				damaged[key] = fmt.Sprint(n)
			}
			all = append(all, copied...)
			total += n
		}
	}
	files["all"], whole["all"] = all, fmt.Sprint(total)
	paths := filesWith(t, files)
	found := counts(t, paths)
	for name, n := range whole {
		if found[name] != n {
			t.Errorf("%s: capinfos reads %q packets, want %s", name, found[name], n)
		}
	}
	for name, n := range damaged {
		if found[name] == n {
			t.Errorf("%s: capinfos reads all of it", name)
		}
	}
	run(t, "tshark", "-n", "-r", filepath.Join(filepath.Dir(paths[0]), "all")) // which fails if it is refused
}

// TestFineClocks copies interfaces whose clocks have more units in a second than 64 bits can
// count: their times become nanoseconds, and those of all others stay as they are.
func TestFineClocks(t *testing.T) {
	t.Parallel()
	const offset = 1_700_000_000
	var all bytes.Buffer
	var clocks []fileClock
	for n, resolution := range []byte{19, 20, 0x7f, 0x80 | 63, 0x80 | 64, 0xff, 20} {
		f := newFile(binary.BigEndian)
		f.section()
		clocks = append(clocks, fileClock{resolution: resolution, offset: offset + int64(n)})
		// The block of a copy does not tell the interfaces with fine clocks apart.
		f.iface(linkEthernet, stringOption(interfaceResolution, string([]byte{resolution})), numberOption(interfaceOffset, uint64(clocks[n].offset)))
		f.packet(0, 1<<63, frame(t, "x"))
		f.block(blockStatistics, f.numbers(0, 1<<31, 0), f.options([]option{numbersOption(statisticsStart, 1<<31, 0), numbersOption(statisticsEnd, 3<<30, 0)}))
		all.Write(f.Bytes())
	}
	copied, leftOut := copyOf(t, "pcapng", Section{}, all.Bytes())
	if want := []string{"the times of 5 packets are in nanoseconds now: Wireshark refuses files with a unit as fine as they had"}; !slices.Equal(leftOut, want) {
		t.Errorf("left out %q, want %q", leftOut, want)
	}
	source, err := Open(bytes.NewReader(copied), nil, ReadOptions{Name: "in"})
	if err != nil {
		t.Fatal(err)
	}
	packets, err := drain(source)
	if err != nil || len(packets) != len(clocks) {
		t.Fatalf("%d packets, error %v", len(packets), err)
	}
	statistics := source.Statistics()
	for n, c := range clocks {
		at, _ := c.nanoseconds(1 << 63)
		end, _ := c.nanoseconds(3 << 62)
		if packets[n].Time != at || statistics[n].Start != at || statistics[n].End != end {
			t.Errorf("clock %+v: %d, from %d to %d, want %d to %d", c, packets[n].Time, statistics[n].Start, statistics[n].End, at, end)
		}
	}
	for _, i := range source.Reader.(*pcapngReader).interfaces {
		if i.clock.tooFine() {
			t.Errorf("the copy has a clock with 2^64 units or more in a second: %+v", i.clock)
		}
	}
}

// delicate is a file with all blocks of refusedBlocks, and of every link type that has them, packets
// with no more than the header that Wireshark insists on.
func delicate(t *testing.T, order binary.AppendByteOrder) []byte {
	f := newFile(order)
	f.section()
	f.iface(linkEthernet)
	blocks := refusedBlocks(t)
	for _, name := range slices.Sorted(maps.Keys(blocks)) {
		blocks[name].fill(f)
	}
	id := uint32(2 + strings.Count(strings.Join(slices.Collect(maps.Keys(blocks)), "\n"), "interface")) // those of the blocks
	for _, link := range []uint16{linkSunATM, linkMTP2, linkIrDA, linkLAPD, linkSITA, linkERF, linkBluetooth, linkPPP, linkI2C, linkLLCP, linkBluetoothMonitor} {
		f.iface(link)
		for _, b := range beginnings(link) {
			for size := range b {
				if beginsAs(link, b[:size]) {
					f.packet(id, 5, b[:size])
					break
				}
			}
		}
		id++
	}
	return f.Bytes()
}
