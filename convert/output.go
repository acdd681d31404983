package convert

import (
	"fmt"
	"io"
)

// bufferSize holds the largest block, so that only whole blocks are handed on,
// and some 10,000 small packets, so that a system call costs each of them little.
const bufferSize = 1 << 20

// output collects the blocks of a file and writes only whole ones.
type output struct {
	w io.Writer
	// buf holds whole blocks between two calls.
	buf []byte
	// whole returns the size of the blocks in b that end within the first n bytes,
	// and how many packets are among them; nil for pcapng's.
	whole func(b []byte, n int) (size, packets int)
	// packets is how many have their end in buf, and written how many of those
	// before w has taken whole.
	packets int
	written uint64
	// err is the first failure; nothing is written after it.
	err error
}

// reserve makes room for a block of at most size bytes.
func (o *output) reserve(size int) error {
	if o.err != nil {
		return o.err
	}
	if size > cap(o.buf)-len(o.buf) {
		return o.flush()
	}
	return nil
}

// block writes a block of any size, also one that the buffer does not hold.
func (o *output) block(b []byte) error {
	if err := o.reserve(len(b)); err != nil {
		return err
	}
	if len(b) <= cap(o.buf)-len(o.buf) {
		o.buf = append(o.buf, b...)
		return nil
	}
	small := o.buf
	o.buf = b
	err := o.flush()
	o.buf = small
	return err
}

// flush writes the blocks in the buffer.
func (o *output) flush() error {
	if o.err != nil || len(o.buf) == 0 {
		return o.err
	}
	n, err := o.w.Write(o.buf)
	if err == nil && n < len(o.buf) {
		err = io.ErrShortWrite
	}
	if err != nil {
		o.err = fmt.Errorf("writing capture: %w", err)
		whole := o.whole
		if whole == nil {
			whole = wholeBlocks
		}
		var size int
		size, o.packets = whole(o.buf, n)
		cutBack(o.w, n-size)
	}
	o.written += uint64(o.packets)
	o.buf, o.packets = o.buf[:0], 0
	return o.err
}

// wholeBlocks returns the size of the blocks in b that end within the first n
// bytes, and how many packets are among them.
func wholeBlocks(b []byte, n int) (size, packets int) {
	for size < len(b) {
		next := size + int(order.Uint32(b[size+4:]))
		if next > n {
			break
		}
		if order.Uint32(b[size:]) == blockEnhancedPacket {
			packets++
		}
		size = next
	}
	return size, packets
}

// cutBack removes the last n bytes that were written to w if w is a file:
// when the disk is full, the file is to end with a whole block. A pipe cannot
// seek; what reads it sees the torn block. The failed write's error is the one
// to report, so errors on the way are not.
func cutBack(w io.Writer, n int) {
	file, ok := w.(interface {
		io.Seeker
		Truncate(size int64) error
	})
	if !ok || n <= 0 {
		return
	}
	end, err := file.Seek(0, io.SeekCurrent)
	if err != nil || end < int64(n) {
		return
	}
	if file.Truncate(end-int64(n)) == nil {
		_, _ = file.Seek(-int64(n), io.SeekCurrent)
	}
}
