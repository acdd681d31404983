package convert

import (
	"fmt"
	"io"
)

// bufferSize fits the largest block, so that only complete blocks are written, and some
// 10,000 small packets, which share the cost of a system call.
const bufferSize = 1 << 20

// output buffers the blocks of a file and writes only complete ones.
type output struct {
	w io.Writer
	// buf holds complete blocks between two calls.
	buf []byte
	// whole returns the size of the blocks in b that end within the first n bytes, and
	// the number of packets among them; nil for pcapng blocks.
	whole func(b []byte, n int) (size, packets int)
	// packets counts those that end in buf, written those before that w has taken
	// completely.
	packets int
	written uint64
	// err is the first error, after which nothing is written.
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

// block writes a block of any size, even one larger than the buffer.
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

// wholeBlocks returns the size of the blocks in b that end within the first n bytes, and
// the number of packets among them.
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

// cutBack removes the last n bytes written to w if w is a file, so that the file ends
// with a complete block when the disk is full. A pipe cannot seek: its reader sees the
// partial block. Errors here are ignored, since the failed write is what counts.
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
