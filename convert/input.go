package convert

import (
	"errors"
	"fmt"
	"io"
	"strconv"
)

const (
	// inputSize is the size in bytes of the window on a file that is being read. It
	// holds the largest block and the longest line.
	inputSize = 1 << 20
	// readSize is how many bytes are read at once: they are to be in the processor's
	// cache still when they are looked at. The first time it is less, since most
	// files are small.
	readSize      = 1 << 18
	firstReadSize = 1 << 16
)

// input is a file that is being read: a window of bounded size moves over it.
type input struct {
	r io.Reader
	// buf[start:end] was read from r and not used yet.
	buf        []byte
	start, end int
	// offset is the place in the file of buf[start].
	offset int64
	// err is r's, due when all before it is used.
	err error
}

func newInput(r io.Reader) *input { return &input{r: r} }

// unread is what is in the window.
func (in *input) unread() []byte { return in.buf[in.start:in.end] }

// fill reads once, after all that is unread. It waits only if r does.
func (in *input) fill() error {
	left := in.unread()
	switch {
	case in.err != nil:
		return in.err
	case len(left) > inputSize:
		return io.ErrShortBuffer
	case in.buf == nil:
		in.buf = make([]byte, firstReadSize)
	case len(in.buf) == firstReadSize && in.end == firstReadSize:
		in.buf = make([]byte, inputSize+readSize)
	}
	in.start, in.end = 0, copy(in.buf, left)
	// A reader may return nothing and no error, but not for ever.
	for range 100 {
		n, err := in.r.Read(in.buf[in.end:min(len(in.buf), in.end+readSize)])
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

// peek returns the next n bytes, or those that there are and an error. They
// stay where they are until the next call of peek or fill.
func (in *input) peek(n int) ([]byte, error) {
	for in.end-in.start < n {
		if err := in.fill(); err != nil {
			return in.unread(), err
		}
	}
	return in.buf[in.start : in.start+n], nil
}

// use goes on by n bytes that are in the window.
func (in *input) use(n int) {
	in.start += n
	in.offset += int64(n)
}

// skip goes on by n bytes, whether they are in the window or not.
func (in *input) skip(n int64) error {
	for n > 0 {
		if in.start == in.end {
			if err := in.fill(); err != nil {
				return err
			}
		}
		step := min(n, int64(in.end-in.start))
		in.use(int(step))
		n -= step
	}
	return nil
}

// InputError says what is wrong with an input, and where.
type InputError struct {
	// Name is the input's name, as ReadOptions gave it.
	Name string
	// Line counts from 1. It is 0 for binary formats.
	Line int64
	// Offset is the place in bytes from the beginning, for binary formats.
	Offset int64
	// Err is the reason.
	Err error
}

// Error is "name:line: reason" or "name: at byte offset: reason".
func (e *InputError) Error() string {
	if e.Line > 0 {
		return e.Name + ":" + strconv.FormatInt(e.Line, 10) + ": " + e.Err.Error()
	}
	return fmt.Sprintf("%s: at byte %d: %v", e.Name, e.Offset, e.Err)
}

// Unwrap returns the reason.
func (e *InputError) Unwrap() error { return e.Err }

// errCutOff is the reason of an input that ends within something.
var errCutOff = errors.New("the file is cut off here")

// CutOff says where a capture ends in the middle of a block.
type CutOff struct {
	// Name is the input's name, as ReadOptions gave it.
	Name string
	// Offset is the place in bytes of the block that is not whole, and Rest how
	// many bytes of it there are.
	Offset, Rest int64
	// Packets counts those before it.
	Packets uint64
}

// String is a sentence for people.
func (c CutOff) String() string {
	packets := "1 packet"
	if c.Packets != 1 {
		packets = fmt.Sprintf("%d packets", c.Packets)
	}
	return fmt.Sprintf("%s: the file ends in the middle of a block, %d bytes after its beginning: read up to there, %s", c.Name, c.Rest, packets)
}

// cutOff ends an input that is cut off. What is left of it is in the window.
func (o *ReadOptions) cutOff(err *InputError, in *input, packets uint64) (CutOff, error) {
	if o.Strict || !o.CutOff {
		return CutOff{}, err
	}
	rest := in.offset + int64(in.end-in.start) - err.Offset
	return CutOff{Name: err.Name, Offset: err.Offset, Rest: rest, Packets: packets}, io.EOF
}
