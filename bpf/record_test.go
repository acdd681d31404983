package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf/btf"
)

// sample is a record as the kernel would write it.
func sample(rec RecordHeader, data []byte) []byte {
	header := unsafe.Slice((*byte)(unsafe.Pointer(&rec)), headerSize)
	return append(bytes.Clone(header), data...)
}

func TestDecode(t *testing.T) {
	t.Parallel()
	var rec Record
	in := RecordHeader{Len: 11, Caplen: 3, LinkLen: -14, NetLen: 20, Cookie: 7, Verdict: -1}
	if err := Decode(sample(in, []byte("abcdefgh")), &rec); err != nil {
		t.Fatal(err)
	}
	if rec.RecordHeader != in || string(rec.Data) != "abc" || cap(rec.Data) != 3 {
		t.Errorf("decoded %+v, %q", rec.RecordHeader, rec.Data)
	}
	if len(rec.LinkHeader()) != 0 || len(rec.NetHeader()) != 20 {
		t.Errorf("headers of %d and %d bytes", len(rec.LinkHeader()), len(rec.NetHeader()))
	}

	// A note has the packet's bytes in the place of the fields from Ifindex on.
	packet := append(bytes.Repeat([]byte{0x45}, 24), "abcdefgh"...)
	in = RecordHeader{Len: 500, Caplen: 32, Before: 24, NetLen: 0, Cookie: 7, Hook: HookIngress | noteBit}
	note := append(sample(in, nil)[:noteHead], append(packet, bytes.Repeat([]byte{0xff}, noteSize-noteHead-32)...)...)
	if err := Decode(note, &rec); err != nil {
		t.Fatal(err)
	}
	want := RecordHeader{Len: 500, Caplen: 32, Before: 24, NetLen: 20, Cookie: 7, Hook: HookIngress}
	copy(want.Net[:], packet[:20])
	if rec.RecordHeader != want || !rec.Unwanted || !bytes.Equal(rec.Data, packet) || cap(rec.Data) != 32 {
		t.Errorf("decoded %+v, %q", rec.RecordHeader, rec.Data)
	}

	longer := bytes.Clone(note)
	binary.NativeEndian.PutUint32(longer[unsafe.Offsetof(in.Caplen):], uint32(noteSize-noteHead)+1)
	for name, bad := range map[string][]byte{
		"note too long":   longer,
		"empty":           nil,
		"short":           sample(in, nil)[:headerSize-1],
		"caplen too long": sample(RecordHeader{Len: 9, Caplen: 9}, []byte("abcdefgh")),
		"more than len":   sample(RecordHeader{Len: 2, Caplen: 3}, []byte("abcdefgh")),
		"link too long":   sample(RecordHeader{LinkLen: 15}, nil),
		"net too long":    sample(RecordHeader{NetLen: 65}, nil),
	} {
		if err := Decode(bad, &rec); !errors.Is(err, errRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The Go layout is generated from the C one; a Go file that is older than the
// object beside it must not go unnoticed.
func TestRecordLayout(t *testing.T) {
	t.Parallel()
	spec, err := loadTap()
	if err != nil {
		t.Fatal(err)
	}
	var record *btf.Struct
	if err := spec.Types.TypeByName("record", &record); err != nil {
		t.Fatal(err)
	}
	if int(record.Size) != headerSize {
		t.Errorf("the record's header has %d bytes in C and %d in Go", record.Size, headerSize)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample(RecordHeader{Len: 11, Caplen: 3, NetLen: 20}, []byte("abcdefgh")))
	f.Add([]byte{})
	f.Add(sample(RecordHeader{Len: 111, Caplen: 100, NetLen: 14, Before: 3, Hook: noteBit}, make([]byte, noteSize-headerSize)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var rec Record
		if err := Decode(raw, &rec); err != nil {
			return
		}
		head := headerSize
		if len(raw) == noteSize && rec.Unwanted {
			head = noteHead
		}
		if len(rec.Data) != int(rec.Caplen) || len(rec.Data) > len(raw)-head {
			t.Errorf("%d bytes of data from %d", len(rec.Data), len(raw))
		}
		_, _ = rec.LinkHeader(), rec.NetHeader()
	})
}

func BenchmarkDecode(b *testing.B) {
	raw := sample(RecordHeader{Len: 72, Caplen: 72, NetLen: 20, LinkLen: 14}, make([]byte, 128))
	var rec Record
	b.ReportAllocs()
	for b.Loop() {
		if err := Decode(raw, &rec); err != nil {
			b.Fatal(err)
		}
	}
}
