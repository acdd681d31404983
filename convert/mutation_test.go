package convert

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"

	"github.com/ebpfdump/ebpfdump/convert/internal/window"
	"github.com/ebpfdump/ebpfdump/internal/mutation"
)

// TestMutants reads damaged files of all formats, and copies the result. None of these
// tests is parallel, since they measure allocations.
func TestMutants(t *testing.T) {
	pcap := pcapFile(binary.LittleEndian, pcapNanoseconds, linkEthernet)
	turned := pcapFile(binary.BigEndian, pcapMicroseconds, linkIPv4)
	for range 20 {
		pcap = append(pcap, pcapPacket(binary.LittleEndian, 1, 2, 60, string(frame(t, probe)))...)
		turned = append(turned, pcapPacket(binary.BigEndian, 1, 2, 40, "packet")...)
	}
	// The window on a small file, and the memory per packet.
	bound := mutation.Bound{Fixed: 4 * window.FirstReadSize, PerByte: 64}
	for _, tt := range []struct {
		form  string
		seeds [][]byte
	}{
		{"pcapng", append(captureSeeds(t)[:1], everything(t, binary.LittleEndian).Bytes(), everything(t, binary.BigEndian).Bytes(), sections(t))},
		{"pcap", [][]byte{pcap, turned}},
		{"trace", traceSeeds(t)},
		{"server", serverSeeds(t)},
		{"hexdump", [][]byte{[]byte(scapyList), []byte(kernelWords + kernelMemory)}},
		{"hexlines", [][]byte{[]byte(linesHex)}},
	} {
		t.Run(tt.form, func(t *testing.T) {
			format, _ := FormatByName(tt.form)
			mutation.Test(t, bound, tt.seeds, func(t *testing.T, file []byte) int {
				return itemsIn(t, format, file)
			})
		})
	}
}

// sections is a file of several sections.
func sections(t testing.TB) []byte {
	var all bytes.Buffer
	for range 3 {
		all.Write(everything(t, binary.LittleEndian).Bytes())
		all.Write(everything(t, binary.BigEndian).Bytes())
	}
	return all.Bytes()
}

// itemsIn reads a file as convert does, and returns how many items are in it.
func itemsIn(t *testing.T, format *Format, file []byte) (n int) {
	source, err := Open(bytes.NewReader(file), format, ReadOptions{Name: "in", CutOff: true, Doubt: func(*InputError) {}})
	if err != nil {
		return 0
	}
	items, err := Merge(source)
	if err != nil {
		t.Fatal(err)
	}
	item, err := items.NextItem() // and with it what the section header needs
	copies := smallCopies(t, source, io.Discard)
	for ; err == nil; item, err = items.NextItem() {
		n++
		for _, c := range copies {
			if err := c.writeItem(item); err != nil && c.format.Name == "pcapng" {
				t.Fatal(err)
			}
		}
	}
	for _, c := range copies {
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		c.leftOut()
	}
	return n
}

// smallCopies starts a copy in each format, the one in pcapng to out, with small buffers:
// those of 1 MiB would hide the memory that reading takes.
func smallCopies(t testing.TB, source *Source, out io.Writer) map[string]*copier {
	t.Helper()
	ng := &Writer{out: small(out).out}
	o := WriteOptions{From: []*Source{source}}
	if err := ng.out.block(appendSection(nil, Section{}, o.sections(), new(omissionCounts))); err != nil {
		t.Fatal(err)
	}
	copies := make(map[string]*copier)
	for form, w := range map[string]PacketWriter{
		"pcap": &pcapWriter{packetForm: small(io.Discard)}, "json": &jsonWriter{small(io.Discard)}, "text": &textWriter{packetForm: small(io.Discard)},
	} {
		format, _ := FormatByName(form)
		copies[form] = &copier{format: format, PacketWriter: w}
	}
	copies["pcapng"] = &copier{format: Pcapng(), PacketWriter: ng, items: ng}
	return copies
}
