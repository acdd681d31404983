// Package window reads files of any size through a window of bounded size.
package window

import (
	"errors"
	"io"
)

const (
	// Size is the size in bytes of the window on a file that is being read. It
	// holds the largest block and the longest line.
	Size = 1 << 20
	// ReadSize is how many bytes are read at once: they are to be in the processor's
	// cache still when they are looked at. The first time it is less, since most
	// files are small.
	ReadSize      = 1 << 18
	FirstReadSize = 1 << 16
)

// Window is a file that is being read: a window of bounded size moves over it.
type Window struct {
	r io.Reader
	// buf[start:end] was read from r and not used yet.
	buf        []byte
	start, end int
	// offset is the place in the file of buf[start].
	offset int64
	// err is r's, due when all before it is used.
	err error
}

// New begins to read.
func New(r io.Reader) *Window { return &Window{r: r} }

// Unread is what is in the window.
func (in *Window) Unread() []byte { return in.buf[in.start:in.end] }

// Fill reads once, after all that is unread. It waits only if r does.
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
	// A reader may return nothing and no error, but not for ever.
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

// Peek returns the next n bytes, or those that there are and an error. They
// stay where they are until the next call of Peek or Fill.
func (in *Window) Peek(n int) ([]byte, error) {
	for in.end-in.start < n {
		if err := in.Fill(); err != nil {
			return in.Unread(), err
		}
	}
	return in.buf[in.start : in.start+n], nil
}

// Use goes on by n bytes that are in the window.
func (in *Window) Use(n int) {
	in.start += n
	in.offset += int64(n)
}

// Skip goes on by n bytes, whether they are in the window or not.
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

// Offset is the place in the file where the window begins.
func (in *Window) Offset() int64 { return in.offset }

// ErrCutOff is the reason of a file that ends within something.
var ErrCutOff = errors.New("the file is cut off here")
