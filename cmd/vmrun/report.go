package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
)

// The guest reports over a separate serial port, so that the kernel's messages cannot mix
// with the program's output. A frame is a 12-byte header (mark, kind, number of an -out,
// length, checksum) and a payload.

type frameKind byte

const (
	frameStdout frameKind = iota + 1
	frameStderr
	// frameOut is a part of an -out, see sendOut.
	frameOut
	// frameNoOut says why an -out is not available.
	frameNoOut
	// frameFailed says why init could not run the program. It is the last frame.
	frameFailed
	// frameExit is the program's exit status, one byte. It is the last frame.
	frameExit
)

const (
	frameHeader = 12
	// frameLimit lets stdout and stderr interleave, and bounds the reader's memory.
	frameLimit = 32 << 10
)

var frameMark = [2]byte{0xeb, 0xdf}

type frame struct {
	kind    frameKind
	out     byte
	payload []byte
}

// reportWriter writes frames from several goroutines.
type reportWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (r *reportWriter) send(f frame) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		n := min(len(f.payload), frameLimit)
		b := append(frameMark[:], byte(f.kind), f.out)
		b = binary.BigEndian.AppendUint32(b, uint32(n))
		b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(f.payload[:n]))
		if _, err := r.w.Write(append(b, f.payload[:n]...)); err != nil {
			return err
		}
		if f.payload = f.payload[n:]; len(f.payload) == 0 {
			return nil
		}
	}
}

// stream returns a writer whose bytes become frames of one kind.
func (r *reportWriter) stream(kind frameKind, out byte) io.Writer {
	return &frameStream{r, kind, out}
}

type frameStream struct {
	r    *reportWriter
	kind frameKind
	out  byte
}

func (s *frameStream) Write(p []byte) (int, error) {
	if err := s.r.send(frame{s.kind, s.out, p}); err != nil {
		return 0, err
	}
	return len(p), nil
}

var errReportBroken = errors.New("the report from the guest is damaged")

// reportReader reads frames.
type reportReader struct {
	r       io.Reader
	started bool
}

// next returns the next frame, or io.EOF when the guest is gone.
func (r *reportReader) next() (frame, error) {
	header := make([]byte, frameHeader)
	if _, err := io.ReadFull(r.r, header); err != nil {
		return frame{}, endOfReport(err)
	}
	// The kernel's probing of the port may leave some bytes before the first frame.
	for !r.started && !bytes.HasPrefix(header, frameMark[:]) {
		copy(header, header[1:])
		if _, err := io.ReadFull(r.r, header[frameHeader-1:]); err != nil {
			return frame{}, endOfReport(err)
		}
	}
	r.started = true
	length := binary.BigEndian.Uint32(header[4:])
	if !bytes.HasPrefix(header, frameMark[:]) || length > frameLimit {
		return frame{}, errReportBroken
	}
	f := frame{frameKind(header[2]), header[3], make([]byte, length)}
	if _, err := io.ReadFull(r.r, f.payload); err != nil {
		return frame{}, endOfReport(err)
	}
	if crc32.ChecksumIEEE(f.payload) != binary.BigEndian.Uint32(header[8:]) {
		return frame{}, errReportBroken
	}
	return f, nil
}

// endOfReport makes the end of the report between frames and within one the same error.
func endOfReport(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return io.EOF
	}
	return fmt.Errorf("reading the guest's report: %w", err)
}
