package convert

import (
	"errors"
	"io"

	"github.com/ebpfdump/ebpfdump/capture"
)

// Target is what the bytes of a File go to: a file on a disk, or what stands before
// one, such as compression.
type Target interface {
	io.Writer
	// Check tells whether what was written is still there.
	Check() error
	// Finish is the end. After a failure before the first Write all is as it was
	// before: nothing is made, and nothing older is touched.
	Finish(failure error) error
}

// File is a capture in some form while it is written: Begin, then interfaces,
// packets and statistics, then End. It is a PacketWriter, so that a program that
// records and one that converts write in the same way, whatever the form is and
// wherever the bytes go.
//
// Nothing reaches the target before the first packet, Release or a good End: until
// then an older file is as it was.
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

// ending is what a target has besides Write.
type ending interface {
	Check() error
	Finish(failure error) error
}

// stream is the end of what somebody else opened, and closes.
type stream struct{}

func (stream) Check() error       { return nil }
func (stream) Finish(error) error { return nil }

var _ PacketWriter = (*File)(nil)

// NewFile makes a File of a form. Nothing is written yet.
func NewFile(to Target, form *Format) *File { return &File{form: form, w: to, ending: to, held: true} }

// NewStream makes a File of what can only be written to, such as stdout.
func NewStream(w io.Writer, form *Format) *File {
	return &File{form: form, w: w, ending: stream{}, held: true}
}

// Begin writes what stands at the beginning.
func (f *File) Begin(o WriteOptions) error {
	c, err := newCopier(f.form, f.w, o)
	if err == nil {
		f.copier = c
	}
	return err
}

// Begun tells whether there was a Begin.
func (f *File) Begun() bool { return f.copier != nil }

// Held tells whether all that was written so far waits for the first packet.
func (f *File) Held() bool { return f.held }

// Release hands on what stands at the beginning although there is no packet yet.
func (f *File) Release() error {
	f.held = false
	return f.Flush()
}

// AddInterface writes what there is to say of an interface now, and not with its
// first packet.
func (f *File) AddInterface(i *capture.Interface) error { return f.copier.AddInterface(i) }

// WritePacket writes a packet. It does not keep p.
func (f *File) WritePacket(p *capture.Packet) error {
	f.held = false
	return f.copier.WritePacket(p)
}

// WriteItem writes what comes next in a file that is copied. What the form has no
// room for is counted.
func (f *File) WriteItem(item *Item) error {
	if err := f.copier.writeItem(item); err != nil {
		return err
	}
	f.held = f.held && item.Packet == nil
	return nil
}

// WriteStatistics writes the ledger of an interface.
func (f *File) WriteStatistics(s capture.Statistics) error { return f.copier.WriteStatistics(s) }

// Flush hands on what was written so far, and looks whether it is still there.
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

// errUnwritten is why a target is finished that nothing was written to.
var errUnwritten = errors.New("nothing to write")

// End writes statistics, hands on what waits, and finishes the target. After a
// failure before the first packet nothing is left of the file. A second End does
// nothing.
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

// Failure is the first error of the output itself that Flush and End have met.
func (f *File) Failure() error { return f.failure }

// Written is how many packets the target has taken whole, also after a failure.
func (f *File) Written() uint64 {
	if f.copier == nil {
		return 0
	}
	return f.copier.Written()
}

// Buffered is how many bytes wait for Flush.
func (f *File) Buffered() int {
	if f.copier == nil {
		return 0
	}
	return f.copier.Buffered()
}

// LeftOut lists what of the items is not in the file, or not as it was.
func (f *File) LeftOut() []Omission {
	if f.copier == nil {
		return nil
	}
	return f.copier.leftOut()
}
