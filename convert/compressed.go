package convert

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/ebpfdump/ebpfdump/convert/internal/window"
)

// zstdWindow is the largest window of a zstd file that is read: as much as libzstd, and so Wireshark,
// reads where nobody asks for more, and as its levels need up to the highest. A file may claim any,
// and that is allocated.
const zstdWindow = 128 << 20

// compressions are those that Wireshark reads as well, and how their files begin.
var compressions = []struct {
	name, magic string
	open        func(io.Reader) (io.Reader, error)
}{
	{"gzip", "\x1f\x8b", func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
	{"zstd", "\x28\xb5\x2f\xfd", func(r io.Reader) (io.Reader, error) {
		return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
	}},
}

// UnpackError says that a compressed file cannot be unpacked, or no further.
type UnpackError struct{ error }

// Unwrap is what stands behind it.
func (e *UnpackError) Unwrap() error { return e.error }

// longestMagic is the length of the longest beginning.
const longestMagic = 4

// plain reads a file as it was before it was compressed, if it was. One that ends too early is cut
// off there: what is before can be read.
type plain struct {
	file *bufio.Reader
	name string    // of the compression
	from io.Reader // nil before the first Read
}

func newPlain(r io.Reader) *plain { return &plain{file: bufio.NewReaderSize(r, 16)} }

func (p *plain) Read(b []byte) (int, error) {
	if p.from == nil {
		if err := p.begin(); err != nil {
			return 0, p.failed(err)
		}
	}
	n, err := p.from.Read(b)
	return n, p.failed(err)
}

// begin finds out how the file is compressed. A short one is not, and an error comes again.
func (p *plain) begin() (err error) {
	head, _ := p.file.Peek(longestMagic)
	for _, c := range compressions {
		if strings.HasPrefix(string(head), c.magic) {
			p.name = c.name
			p.from, err = c.open(p.file)
			return err
		}
	}
	p.from = p.file
	return nil
}

func (p *plain) failed(err error) error {
	switch {
	case err == nil || p.name == "" || errors.Is(err, io.EOF):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return window.ErrCutOff
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		err = fmt.Errorf("it is compressed with a window of more than %d MB: unpack it with zstd first", zstdWindow>>20)
	default:
		err = fmt.Errorf("unpacking %s: %w", p.name, err)
	}
	return &UnpackError{err}
}
