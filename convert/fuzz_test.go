package convert

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/text"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// traceSeeds are trace texts, good and bad.
func traceSeeds(t testing.TB) [][]byte {
	udp := datagram(t, udpKernel, client4, server4, probe).Data
	return [][]byte{
		[]byte(asRecorded),
		[]byte(kernelText(udp) + kernelText(ipv4(udp))),
		[]byte("# tracer: nop\n" + strings.ReplaceAll(kernelText(udp), "\n", "\r\n")),
		[]byte(dumpText("nc-1 [000] .... 1.000000: : ", text.KernelHead, 300, make([]byte, 128))),
		[]byte("CPU:1 [LOST 123 EVENTS]\n" + traceHead("3") + traceByte("1", "1ff") + traceHead("4294967296")),
		[]byte(dumpText("", text.KernelHead, 19, udp)),
	}
}

// serverSeeds are server texts, good and bad.
func serverSeeds(t testing.TB) [][]byte {
	return [][]byte{
		[]byte(userText([]byte(probe)) + userText(nil)),
		[]byte(userText(ipv4(datagram(t, udpKernel, client4, server4, probe).Data))),
		[]byte(text.UserHead + "300 bytes, dumping\n\tbyte[0]=0x1\n\tbyte[5]=0xfff\n"),
	}
}

// captureSeeds are pcapng and pcap files, our own and of other programs.
func captureSeeds(t testing.TB) [][]byte {
	ours, err := os.ReadFile(writeFileWith(t, fewPackets(t), someStatistics(udpUser)))
	if err != nil {
		t.Fatal(err)
	}
	seeds := [][]byte{ours}
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		f := newFile(order)
		f.section(stringOption(sectionApplication, "somebody"))
		f.iface(101, stringOption(interfaceResolution, "\xff"), numberOption(interfaceOffset, 1<<63))
		f.iface(linkUpperPDU, stringOption(interfaceName, "tcp:user"))
		f.packet(0, 1<<63, []byte("one"), numberOption(packetID, 9), stringOption(optionComment, "a"))
		f.packet(1, 5, append(appendPDUHeader(nil, message(tcpUser, client6, server6, protocolTCP, "")), "x"...))
		f.block(blockSimplePacket, f.numbers(5), []byte("small"))
		f.block(blockPacket, f.numbers(0, 0, 2_000_000, 3, 10), []byte("old"))
		f.block(0x0bad, []byte("unknown"))
		seeds = append(seeds, bytes.Clone(f.Bytes()))
		pcap := pcapFile(order, pcapNanoseconds, linkIPv4)
		seeds = append(seeds, append(pcap, pcapPacket(order, 1, 2, 9, "first")...))
	}
	for _, packed := range compressed(t, ours) {
		seeds = append(seeds, packed)
	}
	return seeds
}

func FuzzTraceText(f *testing.F) {
	fuzzReader(f, "trace", traceSeeds(f))
}

func FuzzServerText(f *testing.F) {
	fuzzReader(f, "server", serverSeeds(f))
}

// FuzzPcapng is for pcapng and pcap.
func FuzzPcapng(f *testing.F) {
	fuzzReader(f, "", captureSeeds(f))
}

func fuzzReader(f *testing.F, form string, seeds [][]byte) {
	for _, seed := range seeds {
		f.Add(seed)
	}
	format, _ := FormatByName(form)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, strict := range []bool{false, true} {
			var out bytes.Buffer
			convertAny(t, data, format, strict, &out)
			boundaries(t, out.Bytes())
		}
	})
}

// small has an output with a small buffer, to keep fuzzing fast.
func small(out io.Writer) packetForm { return packetForm{output{w: out, buf: make([]byte, 0, 1<<12)}} }

// convertAny reads a file with any content, and writes the result in every format. It
// fails if a packet is inconsistent, and returns how many are in out.
func convertAny(t testing.TB, data []byte, format *Format, strict bool, out io.Writer) (written uint64) {
	t.Helper()
	options := ReadOptions{Name: "in", Strict: strict}
	if len(data)%2 == 0 {
		options.Kind, _ = capture.KindByName([]string{"raw", "udp", "tcp6", "raw6"}[len(data)/2%4])
	}
	source, err := Open(bytes.NewReader(data), format, options)
	if err != nil {
		return 0
	}
	items, err := Merge(source)
	if err != nil {
		t.Fatal(err)
	}
	item, err := items.NextItem() // and with it what the section header needs
	copies := smallCopies(t, source, out)
	packets := uint64(0)
	for ; err == nil; item, err = items.NextItem() {
		if p := item.Packet; p != nil {
			packets++
			if p.Interface == nil || p.Time < 0 || len(p.Data) > p.Len || len(p.Data) > len(data) {
				t.Fatalf("packet %+v", p)
			}
		}
		for form, c := range copies {
			if err := c.writeItem(item); err != nil && form == "pcapng" { // the others have no room for all
				t.Fatalf("packet %+v: %v", item.Packet, err)
			}
		}
	}
	for _, s := range source.Statistics() {
		if s.Interface == nil {
			t.Fatalf("statistics %+v", s)
		}
	}
	copied := copies["pcapng"]
	if err := copied.Flush(); err != nil {
		t.Fatal(err)
	}
	if written = copied.Written(); written+copied.left[headlessPackets] != packets {
		t.Fatalf("%d of %d packets are written, and %d left out", written, packets, copied.left[headlessPackets])
	}
	return written
}

// TestNothingDamagedIsWritten lets Wireshark's reader read what is made from damaged
// files. capinfos reads many files at once.
func TestNothingDamagedIsWritten(t *testing.T) {
	t.Parallel()
	random := testutil.Random(t)
	dir := t.TempDir()
	captures := captureSeeds(t)
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		captures = append(captures, everything(t, order).Bytes(), delicate(t, order))
	}
	var (
		files []string
		want  strings.Builder
	)
	for _, tt := range []struct {
		form  string
		seeds [][]byte
	}{{"trace", traceSeeds(t)}, {"server", serverSeeds(t)}, {"", captures}} {
		format, _ := FormatByName(tt.form)
		for n, original := range tt.seeds {
			for try := range 20 {
				data := bytes.Clone(original)
				for range try { // the first one as it is
					data[random.IntN(len(data))] ^= byte(1 << random.IntN(8))
				}
				var out bytes.Buffer
				packets := convertAny(t, data, format, false, &out)
				if packets == 0 {
					continue
				}
				path := filepath.Join(dir, fmt.Sprintf("%s-%d-%d.pcapng", tt.form, n, try))
				if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
				files = append(files, path)
				fmt.Fprintf(&want, "%s\t%d\n", path, packets)
			}
		}
	}
	if got := run(t, "capinfos", append([]string{"-T", "-r", "-M", "-c"}, files...)...); got != want.String() {
		t.Errorf("files and packets:\n%s\nwant\n%s", got, want.String())
	}
}
