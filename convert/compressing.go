package convert

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Compression is how a file is compressed while it is written.
type Compression struct {
	// Name is "gzip" or "zstd", and Suffix what its files end in, such as ".gz".
	Name, Suffix string
	open         func(w io.Writer) (compressor, error)
}

// compressor compresses into the writer that it was opened with. What was written before Flush can be
// read after it.
type compressor interface {
	io.Writer
	Flush() error
	Close() error
}

// Compressions are those that Wireshark reads as well.
var Compressions = []Compression{
	{"zstd", ".zst", newZstd},
	{"gzip", ".gz", newGzip},
}

// CutCompression removes the suffix of a compression from the name of a file, nil if it has none.
func CutCompression(name string) (string, *Compression) {
	for i := range Compressions {
		if c := &Compressions[i]; strings.HasSuffix(name, c.Suffix) {
			return strings.TrimSuffix(name, c.Suffix), c
		}
	}
	return name, nil
}

// newZstd makes one frame of a file: Wireshark 4.0 reads several only if they are small.
func newZstd(w io.Writer) (compressor, error) {
	return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(bufferSize))
}

// members are those of a gzip file: each is complete, so that a file which was not finished is, too.
type members struct {
	to     io.Writer
	member *gzip.Writer
	begun  bool
}

func newGzip(w io.Writer) (compressor, error) {
	member, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	return &members{to: w, member: member}, err
}

func (m *members) Write(b []byte) (int, error) {
	if !m.begun {
		m.member.Reset(m.to)
		m.begun = true
	}
	return m.member.Write(b)
}

func (m *members) Flush() error { return m.Close() }

func (m *members) Close() error {
	if !m.begun {
		return nil
	}
	m.begun = false
	return m.member.Close()
}

// compressing is a Target that compresses what goes to another one. Whatever was written to it can be
// read, also if it is never finished.
type compressing struct {
	ending
	to      io.Writer
	through compressor
	packed  bytes.Buffer // what goes to the target next
	begun   bool
}

// Compress returns a Target that compresses what goes to another one.
func (c *Compression) Compress(to Target) (Target, error) { return c.above(to, to) }

// CompressStream returns a Target that compresses what goes to a plain io.Writer.
func (c *Compression) CompressStream(to io.Writer) (Target, error) { return c.above(to, stream{}) }

func (c *Compression) above(to io.Writer, ends ending) (Target, error) {
	t := &compressing{ending: ends, to: to}
	var err error
	if t.through, err = c.open(&t.packed); err != nil {
		return nil, fmt.Errorf("compressing with %s: %w", c.Name, err)
	}
	return t, nil
}

// Write writes bytes that can be read at once. If there is no room for all of them, none stays.
func (t *compressing) Write(b []byte) (int, error) {
	t.begun = true
	_, err := t.through.Write(b)
	if err == nil {
		err = t.through.Flush()
	}
	if err = errors.Join(err, t.pass()); err != nil {
		return 0, err
	}
	return len(b), nil
}

// pass hands on what is compressed.
func (t *compressing) pass() error {
	defer t.packed.Reset()
	size := t.packed.Len()
	n, err := t.to.Write(t.packed.Bytes())
	if err == nil && n < size {
		err = io.ErrShortWrite
	}
	if err != nil {
		cutBack(t.to, n)
	}
	return err
}

// Finish ends what is compressed, and finishes the target.
func (t *compressing) Finish(failure error) error {
	var err error
	if t.begun && failure == nil {
		if err = t.through.Close(); err == nil {
			err = t.pass()
		}
	}
	if failure == nil {
		failure = err
	}
	return errors.Join(err, t.ending.Finish(failure))
}
