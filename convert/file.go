package convert

import (
	"errors"
	"io"

	"github.com/ebpfdump/ebpfdump/capture"
)

// Target is where the bytes of a File go: a file on a disk, or a layer such as
// compression above one.
type Target interface {
	io.Writer
	// Check returns an error if what was written has been changed by somebody else.
	Check() error
	// Finish closes the target. If failure is set and nothing was written yet, no new
	// file remains and an older one is untouched.
	Finish(failure error) error
}

// File writes a capture in some format: Begin, then interfaces, packets and statistics,
// then End. It is a PacketWriter, so recording and converting write in the same way,
// whatever the format and the target are.
//
// Nothing reaches the target before the first packet, Release or a successful End: until
// then an older file is untouched.
//
// A File is for one goroutine at a time.
type File struct {
	form    *Format
	w       io.Writer
	ending  ending
	copier  *copier // nil before Begin
	held    bool
	ended   bool
	failure error // the first one of Flush and End
}

// ending is what a Target has besides Write.
type ending interface {
	Check() error
	Finish(failure error) error
}

// stream ends a writer that the caller opened and will close.
type stream struct{}

func (stream) Check() error       { return nil }
func (stream) Finish(error) error { return nil }

var _ PacketWriter = (*File)(nil)

// NewFile returns a File that writes a format to a target. Nothing is written yet.
func NewFile(to Target, form *Format) *File { return &File{form: form, w: to, ending: to, held: true} }

// NewStream returns a File that writes to a plain io.Writer, such as stdout.
func NewStream(w io.Writer, form *Format) *File {
	return &File{form: form, w: w, ending: stream{}, held: true}
}

// Begin writes the file's header.
func (f *File) Begin(o WriteOptions) error {
	c, err := newCopier(f.form, f.w, o)
	if err == nil {
		f.copier = c
	}
	return err
}

// Begun tells whether Begin was called.
func (f *File) Begun() bool { return f.copier != nil }

// Held tells whether everything written so far is held back until the first packet.
func (f *File) Held() bool { return f.held }

// Release writes the file's header to the target although there is no packet yet.
func (f *File) Release() error {
	f.held = false
	return f.Flush()
}

// AddInterface writes the description of an interface now instead of with its first
// packet.
func (f *File) AddInterface(i *capture.Interface) error { return f.copier.AddInterface(i) }

// WritePacket writes a packet. It does not keep p.
func (f *File) WritePacket(p *capture.Packet) error {
	f.held = false
	return f.copier.WritePacket(p)
}

// WriteItem writes the next item of a file being copied, and counts what the format has no
// room for, and what would make the file one that Wireshark refuses.
func (f *File) WriteItem(item *Item) error {
	if err := f.copier.writeItem(item); err != nil {
		return err
	}
	f.held = f.held && (item.Packet == nil || f.LeavesOut(item.Packet))
	return nil
}

// LeavesOut tells whether WriteItem only counts a packet.
func (f *File) LeavesOut(p *capture.Packet) bool { return f.form.leavesOut(p) }

// WriteStatistics writes the statistics of an interface.
func (f *File) WriteStatistics(s capture.Statistics) error { return f.copier.WriteStatistics(s) }

// Flush writes what is buffered to the target, and checks that nobody else has changed
// the file.
func (f *File) Flush() error {
	if f.held || f.copier == nil {
		return nil
	}
	err := f.copier.Flush()
	if err == nil {
		err = f.ending.Check()
	}
	return f.failed(err)
}

// errUnwritten finishes a target to which nothing was written.
var errUnwritten = errors.New("nothing to write")

// End writes statistics, flushes, and finishes the target. After a failure before the
// first packet no file remains. A second End does nothing.
func (f *File) End(failure error, statistics ...capture.Statistics) error {
	if f.ended {
		return nil
	}
	f.ended = true
	if f.copier == nil || f.held && failure != nil {
		return f.ending.Finish(errUnwritten)
	}
	var err error
	for _, s := range statistics {
		if err = f.WriteStatistics(s); err != nil {
			break // the writer keeps its first error, and Flush returns it again
		}
	}
	if flushed := f.Release(); err == nil {
		err = flushed
	}
	return f.failed(errors.Join(err, f.ending.Finish(err)))
}

func (f *File) failed(err error) error {
	if f.failure == nil {
		f.failure = err
	}
	return err
}

// Failure is the first error of the output itself that Flush or End met.
func (f *File) Failure() error { return f.failure }

// Written is the number of packets that are complete in the target, also after a failure.
func (f *File) Written() uint64 {
	if f.copier == nil {
		return 0
	}
	return f.copier.Written()
}

// Buffered is the number of bytes that wait for Flush.
func (f *File) Buffered() int {
	if f.copier == nil {
		return 0
	}
	return f.copier.Buffered()
}

// LeftOut lists what the file lacks of the items, or has changed.
func (f *File) LeftOut() []Omission {
	if f.copier == nil {
		return nil
	}
	return f.copier.leftOut()
}
