package convert

import (
	"fmt"
	"io"
	"strconv"

	"github.com/ebpfdump/ebpfdump/convert/internal/window"
)

// InputError tells what is wrong with an input, and where.
type InputError struct {
	// Name is the input's name, as ReadOptions gave it.
	Name string
	// Line is the line number, from 1; 0 for binary formats.
	Line int64
	// Offset is the byte offset in the file, for binary formats.
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

// CutOff says where a capture ends in the middle of a block.
type CutOff struct {
	// Name is the input's name, as ReadOptions gave it.
	Name string
	// Offset is the byte offset of the incomplete block, and Rest how many bytes of it
	// there are: none if a compressed stream breaks off between blocks.
	Offset, Rest int64
	// Packets counts the packets before it.
	Packets uint64
}

// String is a sentence for people.
func (c CutOff) String() string {
	bytes, packets := "byte", "1 packet"
	if c.Rest != 1 {
		bytes = "bytes"
	}
	if c.Packets != 1 {
		packets = fmt.Sprintf("%d packets", c.Packets)
	}
	if c.Rest == 0 {
		return fmt.Sprintf("%s: the compressed stream breaks off: read up to there, %s", c.Name, packets)
	}
	return fmt.Sprintf("%s: the file ends in the middle of a block, %d %s after its beginning: read up to there, %s", c.Name, c.Rest, bytes, packets)
}

// cutOff ends an input that is truncated. What is left of it is in the window.
func (o *ReadOptions) cutOff(err *InputError, in *window.Window, packets uint64) (CutOff, error) {
	if o.Strict || !o.CutOff {
		return CutOff{}, err
	}
	rest := in.Offset() + int64(len(in.Unread())) - err.Offset
	return CutOff{Name: err.Name, Offset: err.Offset, Rest: rest, Packets: packets}, io.EOF
}
