package bpf

import (
	"bytes"
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

	for name, bad := range map[string][]byte{
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
	f.Fuzz(func(t *testing.T, raw []byte) {
		var rec Record
		if err := Decode(raw, &rec); err != nil {
			return
		}
		if len(rec.Data) != int(rec.Caplen) || len(rec.Data) > len(raw)-headerSize {
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
