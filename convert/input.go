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
	// readSize is how many bytes are read at once, but for the first time: most
	// files are small.
	readSize      = 1 << 19
	firstReadSize = 1 << 16
)

// input is a file that is being read: a window of bounded size moves over it.
// While what is in the window is looked at, the next part is read already.
type input struct {
	r io.Reader
	// buf[start:end] was read from r and not used yet.
	buf        []byte
	start, end int
	// offset is the place in the file of buf[start].
	offset int64
	// err is r's, due when all before it is used.
	err error
	// other is where the next part is read to, behind room for what is left of this
	// one. It is nil before the file proves to be long.
	other []byte
	read  chan readResult
}

type readResult struct {
	n   int
	err error
}

func newInput(r io.Reader) *input { return &input{r: r, read: make(chan readResult, 1)} }

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
		got := readSome(in.r, in.buf)
		in.end, in.err = got.n, got.err
	default:
		in.next(left)
	}
	if in.start == in.end || len(left) == in.end-in.start {
		return in.err
	}
	return nil
}

// next takes the next part, and has the one after it read in the background.
func (in *input) next(left []byte) {
	var got readResult
	if in.other == nil {
		in.other = make([]byte, inputSize+readSize)
		got = readSome(in.r, in.other[inputSize:])
	} else {
		got = <-in.read
	}
	in.start, in.end, in.err = inputSize-len(left), inputSize+got.n, got.err
	copy(in.other[in.start:], left)
	in.buf, in.other = in.other, in.buf
	if in.err != nil {
		return
	}
	if len(in.other) < inputSize+readSize {
		in.other = make([]byte, inputSize+readSize)
	}
	// If nobody asks for it any more, it ends with the read.
	go func(r io.Reader, b []byte, done chan<- readResult) { done <- readSome(r, b) }(in.r, in.other[inputSize:], in.read)
}

// readSome reads at least a byte. A reader may return nothing and no error, but
// not for ever.
func readSome(r io.Reader, b []byte) readResult {
	for range 100 {
		if n, err := r.Read(b); n > 0 || err != nil {
			return readResult{n, err}
		}
	}
	return readResult{0, io.ErrNoProgress}
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
