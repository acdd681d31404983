// Package window reads files of any size through a window of bounded size.
package window

import (
	"errors"
	"io"
)

const (
	// Size is the size of the window in bytes. It fits the largest block and the longest
	// line.
	Size = 1 << 20
	// ReadSize is how many bytes are read at once, few enough to be still in the
	// processor's cache when they are parsed. The first read is smaller, since most files
	// are small.
	ReadSize      = 1 << 18
	FirstReadSize = 1 << 16
)

// Window is a file being read through a window of bounded size that moves over it.
type Window struct {
	r io.Reader
	// buf[start:end] was read from r and not consumed yet.
	buf        []byte
	start, end int
	// offset is the file offset of buf[start].
	offset int64
	// err is the error of r, returned once everything before it is consumed.
	err error
}

// New starts reading.
func New(r io.Reader) *Window { return &Window{r: r} }

// Unread returns what is in the window.
func (in *Window) Unread() []byte { return in.buf[in.start:in.end] }

// Fill reads once and appends to the window. It blocks only if r does.
func (in *Window) Fill() error {
	left := in.Unread()
	switch {
	case in.err != nil:
		return in.err
	case len(left) > Size:
		return io.ErrShortBuffer
	case in.buf == nil:
		in.buf = make([]byte, FirstReadSize)
	case len(in.buf) == FirstReadSize && in.end == FirstReadSize:
		in.buf = make([]byte, Size+ReadSize)
	}
	in.start, in.end = 0, copy(in.buf, left)
	// An io.Reader may return 0, nil, but not forever.
	for range 100 {
		n, err := in.r.Read(in.buf[in.end:min(len(in.buf), in.end+ReadSize)])
		in.end += n
		in.err = err
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	in.err = io.ErrNoProgress
	return in.err
}

// Peek returns the next n bytes, or fewer and an error. They are valid until the next
// call of Peek or Fill.
func (in *Window) Peek(n int) ([]byte, error) {
	for in.end-in.start < n {
		if err := in.Fill(); err != nil {
			return in.Unread(), err
		}
	}
	return in.buf[in.start : in.start+n], nil
}

// Use consumes n bytes that are in the window.
func (in *Window) Use(n int) {
	in.start += n
	in.offset += int64(n)
}

// Skip consumes n bytes, whether they are in the window or not.
func (in *Window) Skip(n int64) error {
	for n > 0 {
		if in.start == in.end {
			if err := in.Fill(); err != nil {
				return err
			}
		}
		step := min(n, int64(in.end-in.start))
		in.Use(int(step))
		n -= step
	}
	return nil
}

// Offset is the file offset at which the window begins.
func (in *Window) Offset() int64 { return in.offset }

// ErrCutOff is the error for a file that ends in the middle of something.
var ErrCutOff = errors.New("the file is cut off here")
