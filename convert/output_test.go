package convert

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

var errFull = errors.New("no space")

// limited accepts limit bytes and then fails.
type limited struct {
	bytes.Buffer
	limit int
	// short makes it break the rule that a short write has an error.
	short bool
}

func (l *limited) Write(b []byte) (int, error) {
	room := l.limit - l.Len()
	if len(b) <= room {
		return l.Buffer.Write(b)
	}
	n, _ := l.Buffer.Write(b[:room])
	if l.short {
		return n, nil
	}
	return n, errFull
}

// limitedFile is limited, and can be truncated like a file.
type limitedFile struct {
	limited
	position int64
}

func (f *limitedFile) Write(b []byte) (int, error) {
	n, err := f.limited.Write(b)
	f.position += int64(n)
	return n, err
}

func (f *limitedFile) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekCurrent {
		return 0, errors.New("unexpected whence")
	}
	f.position += offset
	return f.position, nil
}

func (f *limitedFile) Truncate(size int64) error {
	f.Buffer.Truncate(int(size))
	return nil
}

// fewPackets has every kind of block but statistics.
func fewPackets(t testing.TB) []*capture.Packet {
	commented := datagram(t, udpKernel, client4, server4, probe)
	commented.Comment, commented.Drops, commented.ID = "dropped by the filter", 3, 7
	return []*capture.Packet{
		datagram(t, udpKernel, client4, server4, probe),
		message(udpUser, client4, server4, protocolUDP, probe),
		commented,
		datagram(t, udp6Kernel, client6, server6, probe),
		message(udpUser, client4, server4, protocolUDP, ""),
	}
}

// boundaries returns the offsets at which a block of the file ends.
func boundaries(t testing.TB, file []byte) []int {
	t.Helper()
	var ends []int
	for end := 0; end < len(file); {
		if len(file)-end < blockFrame {
			t.Fatalf("%d bytes are left at %d", len(file)-end, end)
		}
		length := int(order.Uint32(file[end+4:]))
		if length < blockFrame || length%4 != 0 || length > len(file)-end {
			t.Fatalf("block of %d bytes at %d", length, end)
		}
		if order.Uint32(file[end+length-4:]) != uint32(length) {
			t.Fatalf("block at %d states two lengths", end)
		}
		end += length
		ends = append(ends, end)
	}
	return ends
}

// writeUntilError writes the packets and flushes after each if asked to.
func writeUntilError(t *testing.T, out io.Writer, packets []*capture.Packet, flushEach bool) (*Writer, error) {
	w, err := NewWriter(out, Section{Application: "test"})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packets {
		if err := w.WritePacket(p); err != nil {
			return w, err
		}
		if flushEach {
			if err := w.Flush(); err != nil {
				return w, err
			}
		}
	}
	return w, w.Flush()
}

func TestFullDiskLeavesWholeBlocks(t *testing.T) {
	t.Parallel()
	packets := fewPackets(t)
	full := &limited{limit: 1 << 20}
	if _, err := writeUntilError(t, full, packets, false); err != nil {
		t.Fatal(err)
	}
	ends := boundaries(t, full.Bytes())
	for limit := range full.Len() {
		want := 0
		for _, end := range ends {
			if end <= limit {
				want = end
			}
		}
		for _, flushEach := range []bool{false, true} {
			f := &limitedFile{limited: limited{limit: limit}}
			w, err := writeUntilError(t, f, packets, flushEach)
			if !errors.Is(err, errFull) {
				t.Fatalf("limit %d: error %v", limit, err)
			}
			if f.Len() != want || f.position != int64(want) || !bytes.Equal(f.Bytes(), full.Bytes()[:want]) {
				t.Fatalf("limit %d: %d bytes and position %d, want %d", limit, f.Len(), f.position, want)
			}
			// Space that becomes free later must not lead to a file with a hole.
			f.limit = 1 << 20
			for _, again := range []error{
				w.WritePacket(packets[0]),
				w.Flush(),
				w.WriteStatistics(capture.Statistics{Interface: udpKernel}),
				w.WriteStatistics(capture.Statistics{Interface: rawKernel}),
			} {
				if !errors.Is(again, errFull) {
					t.Fatalf("limit %d: later error %v", limit, again)
				}
			}
			if f.Len() != want {
				t.Fatalf("limit %d: wrote after the error", limit)
			}
		}
	}
}

func TestBrokenPipe(t *testing.T) {
	t.Parallel()
	for _, short := range []bool{false, true} {
		want := errFull
		if short {
			want = io.ErrShortWrite
		}
		pipe := &limited{limit: 101, short: short}
		if _, err := writeUntilError(t, pipe, fewPackets(t), true); !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
		if pipe.Len() != 101 {
			t.Errorf("pipe took %d bytes", pipe.Len())
		}
	}
}

func TestDevFull(t *testing.T) {
	t.Parallel()
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		testutil.Missing(t, "%v", err)
	}
	defer f.Close()
	if _, err := writeUntilError(t, f, fewPackets(t), true); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v", err)
	}
}

// wholeBlocksOnly fails if a write is not made of complete blocks.
type wholeBlocksOnly struct {
	t      *testing.T
	writes int
	bytes  int
}

func (w *wholeBlocksOnly) Write(b []byte) (int, error) {
	boundaries(w.t, b)
	w.writes++
	w.bytes += len(b)
	return len(b), nil
}

func TestOnlyWholeBlocksAreWritten(t *testing.T) {
	t.Parallel()
	r := testutil.Random(t)
	out := &wholeBlocksOnly{t: t}
	long := strings.Repeat("x", 70000)
	w, err := NewWriter(out, Section{Hardware: long, OS: long, Application: long, Comment: long})
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 300000)
	for i := range 400 {
		iface := &capture.Interface{Kind: long[:r.IntN(70000)], View: capture.ViewUser, Layer: capture.LayerMessage, Description: long}
		p := message(iface, client6, server6, protocolUDP, "")
		p.Data, p.Comment, p.Call = data[:r.IntN(len(data))], long[:r.IntN(len(long))], long
		p.ID, p.Drops = 1, 1
		if i%10 == 0 { // The largest block that there is.
			p.Data, p.Comment = data, long
		}
		if err := w.WritePacket(p); err != nil {
			t.Fatal(err)
		}
		if cap(w.out.buf) != bufferSize {
			t.Fatalf("packet %d: the buffer grew", i)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if out.writes < 50 || out.writes > 400 {
		t.Errorf("%d writes for %d bytes", out.writes, out.bytes)
	}
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	var content []byte
	testutil.Mounted(t, "tmpfs", "size=64k", func(dir string) error {
		path := filepath.Join(dir, "out.pcapng")
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		defer f.Close()
		w, err := NewWriter(f, Section{})
		if err != nil {
			return err
		}
		p := datagram(t, udpKernel, client4, server4, probe)
		for range 2000 {
			if err = w.WritePacket(p); err != nil {
				break
			}
		}
		if err = errors.Join(err, w.Flush()); !errors.Is(err, syscall.ENOSPC) {
			return errors.Join(errors.New("the disk was not full"), err)
		}
		content, err = os.ReadFile(path)
		return err
	})
	if ends := boundaries(t, content); len(ends) < 100 || len(content) < 60000 {
		t.Errorf("%d blocks in %d bytes are left", len(ends), len(content))
	}
	path := filepath.Join(t.TempDir(), "out.pcapng")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	wantRows := len(boundaries(t, content)) - 2
	if rows := fields(t, path, "data.data"); len(rows) != wantRows {
		t.Errorf("tshark reads %d packets, want %d", len(rows), wantRows)
	}
}
