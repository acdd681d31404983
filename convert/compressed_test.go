package convert

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/ebpfdump/ebpfdump/internal/mutation"
)

// compressed is a file as gzip and zstd make it.
func compressed(t testing.TB, file []byte) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	for name, create := range map[string]func(io.Writer) io.WriteCloser{
		"gzip": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		"zstd": func(w io.Writer) io.WriteCloser {
			z, err := zstd.NewWriter(w)
			if err != nil {
				t.Fatal(err)
			}
			return z
		},
	} {
		var b bytes.Buffer
		z := create(&b)
		if _, err := z.Write(file); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		all[name] = b.Bytes()
	}
	return all
}

func TestCompressed(t *testing.T) {
	t.Parallel()
	file := everything(t, binary.LittleEndian).Bytes()
	want := itemsIn(t, nil, file)
	for name, packed := range compressed(t, file) {
		if got := itemsIn(t, nil, packed); got != want || want == 0 {
			t.Errorf("%s: %d items, and %d when it is not compressed", name, got, want)
		}
		// Several parts one after the other are one file, as when a writer began again.
		if got := itemsIn(t, nil, append(bytes.Clone(packed), packed...)); got <= want {
			t.Errorf("%s: %d items in two parts, and %d in one", name, got, want)
		}
		// Wherever it is cut off, that is an error or is told of.
		for n := range packed {
			source, err := Open(bytes.NewReader(packed[:n]), nil, ReadOptions{Name: "in", CutOff: true})
			if err != nil {
				continue
			}
			for err == nil {
				_, err = source.Next()
			}
			if _, told := source.CutOff(); errors.Is(err, io.EOF) && !told {
				t.Errorf("%s: %d of %d bytes are taken for a whole file", name, n, len(packed))
			}
		}
	}
	damaged := compressed(t, file)["gzip"]
	damaged[len(damaged)-6] ^= 1 // of the checksum
	source, err := Open(bytes.NewReader(damaged), nil, ReadOptions{Name: "in", CutOff: true})
	for err == nil {
		_, err = source.Next()
	}
	if err == nil || !strings.Contains(err.Error(), "unpacking gzip: ") {
		t.Errorf("damaged: %v", err)
	}
}

// framed is a zstd file of blocks that are not compressed, whose window has 1<<log bytes.
func framed(file []byte, log byte) []byte {
	framed := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3}
	const most = 100_000
	for {
		n, last := min(len(file), most), uint32(0)
		if n == len(file) {
			last = 1
		}
		header := binary.LittleEndian.AppendUint32(nil, uint32(n)<<3|last)
		framed = append(append(framed, header[:3]...), file[:n]...)
		if file = file[n:]; last == 1 {
			return framed
		}
	}
}

func TestCompressedWindow(t *testing.T) {
	t.Parallel()
	file := everything(t, binary.LittleEndian).Bytes()
	for _, log := range []byte{17, 23, 27} {
		if got, want := itemsIn(t, nil, framed(file, log)), itemsIn(t, nil, file); got != want {
			t.Errorf("a window of 1<<%d bytes: %d items of %d", log, got, want)
		}
	}
	for _, log := range []byte{28, 31, 41} {
		source, err := Open(bytes.NewReader(framed(file, log)), nil, ReadOptions{Name: "in"})
		for err == nil {
			_, err = source.Next()
		}
		if want := "reading in: it is compressed with a window of more than 128 MB: unpack it with zstd first"; err.Error() != want {
			t.Errorf("a window of 1<<%d bytes: %v", log, err)
		}
	}
}

// TestCompressedMutants is not parallel, since it measures allocations.
func TestCompressedMutants(t *testing.T) {
	for name, seed := range compressed(t, everything(t, binary.LittleEndian).Bytes()) {
		t.Run(name, func(t *testing.T) {
			// Besides the window, blocks of up to 128 KB several times; and a file may unpack to
			// a thousand times its size.
			bound := mutation.Bound{Fixed: zstdWindow + 8<<20, PerByte: 64 << 10}
			mutation.Test(t, bound, [][]byte{seed}, func(t *testing.T, file []byte) int {
				itemsIn(t, nil, file)
				return 0
			})
		})
	}
}
