package convert

import (
	"io"

	"github.com/ebpfdump/ebpfdump/capture"
)

// lineFile is the PacketWriter of lines. It buffers them, and counts those that were
// printed.
type lineFile struct {
	lines   *LineWriter
	w       io.Writer
	buffer  []byte
	ends    []int // of packets in the buffer
	written uint64
	err     error
}

func newLineFile(w io.Writer, o LineOptions) *lineFile {
	l := &lineFile{w: w}
	l.lines = NewLineWriter(l, o)
	return l
}

// WritePacket prints a packet, at the latest with Flush.
func (l *lineFile) WritePacket(p *capture.Packet) error { return l.lines.WritePacket(p) }

// AddInterface prints nothing: every line names its interface.
func (l *lineFile) AddInterface(*capture.Interface) error { return l.err }

// WriteStatistics prints nothing.
func (l *lineFile) WriteStatistics(capture.Statistics) error { return l.err }

// Write buffers the lines of one packet.
func (l *lineFile) Write(b []byte) (int, error) {
	if len(l.buffer)+len(b) > snaplen {
		if err := l.Flush(); err != nil {
			return 0, err
		}
	}
	l.buffer = append(l.buffer, b...)
	l.ends = append(l.ends, len(l.buffer))
	return len(b), l.err
}

// Flush prints what is buffered.
func (l *lineFile) Flush() error {
	if l.err != nil || len(l.buffer) == 0 {
		return l.err
	}
	n, err := l.w.Write(l.buffer)
	l.err = err
	for _, end := range l.ends {
		if end <= n {
			l.written++
		}
	}
	l.buffer, l.ends = l.buffer[:0], l.ends[:0]
	return err
}

// Written is the number of packets that were printed.
func (l *lineFile) Written() uint64 { return l.written }

// Buffered is the number of bytes that wait for Flush.
func (l *lineFile) Buffered() int { return len(l.buffer) }
