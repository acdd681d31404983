package convert

import (
	"bytes"
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
	compressor   func() (func(dst, src []byte) ([]byte, error), error)
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

func newZstd() (func(dst, src []byte) ([]byte, error), error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(bufferSize))
	if err != nil {
		return nil, err
	}
	return func(dst, src []byte) ([]byte, error) { return e.EncodeAll(src, dst), nil }, nil
}

func newGzip() (func(dst, src []byte) ([]byte, error), error) {
	var to bytes.Buffer
	w, err := gzip.NewWriterLevel(&to, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	return func(dst, src []byte) ([]byte, error) {
		to.Reset()
		w.Reset(&to)
		if _, err := w.Write(src); err != nil {
			return dst, err
		}
		err := w.Close()
		return append(dst, to.Bytes()...), err
	}, nil
}

// compressing is a Target that compresses what goes to another one. Each Write makes a frame that
// is complete, so that whatever was flushed can be read, also after the writer was killed.
type compressing struct {
	ending
	to       io.Writer
	compress func(dst, src []byte) ([]byte, error)
	frame    []byte
}

// Compress returns a Target that compresses what goes to another one.
func (c *Compression) Compress(to Target) (Target, error) { return c.above(to, to) }

// CompressStream returns a Target that compresses what goes to a plain io.Writer.
func (c *Compression) CompressStream(to io.Writer) (Target, error) { return c.above(to, stream{}) }

func (c *Compression) above(to io.Writer, ends ending) (Target, error) {
	compress, err := c.compressor()
	if err != nil {
		return nil, fmt.Errorf("compressing with %s: %w", c.Name, err)
	}
	return &compressing{ending: ends, to: to, compress: compress}, nil
}

// Write writes a frame. If there is no room for all of it, none of it stays.
func (c *compressing) Write(b []byte) (int, error) {
	var err error
	if c.frame, err = c.compress(c.frame[:0], b); err != nil {
		return 0, err
	}
	n, err := c.to.Write(c.frame)
	if err == nil && n < len(c.frame) {
		err = io.ErrShortWrite
	}
	if err != nil {
		cutBack(c.to, n)
		return 0, err
	}
	return len(b), nil
}
