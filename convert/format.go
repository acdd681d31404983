package convert

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/text"
	"github.com/ebpfdump/ebpfdump/convert/internal/window"
)

// Format is a form that packets can have in a file: one row of the table that Formats lists.
type Format struct {
	// Name is what FormatByName takes.
	Name string
	// Summary is a few words for lists and messages.
	Summary string
	// OneView says that a file has room for one view only.
	OneView bool
	// Text says that a file is for people, and fit for a terminal.
	Text bool

	suffixes []string // of file names, with the dot
	// link is the link type of an interface in such a file; nil if it is the
	// same as in pcapng.
	link func(*capture.Interface) (uint16, error)
	// keeps are the matters, one bit each, that a file has room for.
	keeps uint32
	// unit and latest are those of the times that a file has, in nanoseconds; 0 for
	// 1 and for those of a capture.Packet.
	unit, latest int64
	// detect tells from the beginning of a file whether it has this form.
	detect func(head []byte) bool
	// open is nil for forms that are only written, create for those that are only read.
	open   func(in *window.Window, o ReadOptions) (Reader, error)
	create func(w io.Writer, o WriteOptions) (PacketWriter, error)
	// copies creates a file that has room for blocks besides the packets, and counts
	// in left what it lacks of o.From. It is nil for forms that have only packets.
	copies func(w io.Writer, o WriteOptions, left *Ledger) (itemWriter, error)
}

// formats has the forms that are sure about their files first.
var formats []Format

func init() {
	formats = []Format{
		{
			Name: "pcapng", Summary: "all views with all that is known of them", suffixes: []string{".pcapng", ".ntar"},
			detect: isPcapng, open: openPcapng, create: createPcapng, copies: copyPcapng,
		},
		{
			Name: "pcap", Summary: "one view, for tcpdump and everything else on libpcap; IP without a link header as RAW (101)", suffixes: []string{".pcap", ".cap", ".dmp"},
			OneView: true, link: pcapLinkType, detect: isPcap, open: openPcap, create: createPcap, latest: math.MaxUint32*1e9 + 999_999_999,
		},
		{
			Name: "json", Summary: "one object a line", suffixes: []string{".json", ".jsonl", ".ndjson"},
			Text: true, create: createJSON, keeps: 1<<packetComments | 1<<packetMarks | 1<<longPackets,
		},
		{
			Name: "text", Summary: "trace text for the kernel's views, server text for the user view", suffixes: []string{".txt", ".text", ".log"},
			OneView: true, Text: true, create: createText, unit: 1000,
		},
		{
			Name: "trace", Summary: "what a filter printed to the kernel's trace pipe", Text: true,
			detect: text.IsTrace, open: openTrace,
		},
		{
			Name: "server", Summary: "what a server printed of the bytes that it received", Text: true,
			detect: text.IsServer, open: openServer,
		},
	}
}

// Formats lists the forms that can be read, or those that can be written.
func Formats(writable bool) []Format {
	return slices.DeleteFunc(slices.Clone(formats), func(f Format) bool {
		return writable && f.create == nil || !writable && f.open == nil
	})
}

// Readable tells whether files of this form can be read.
func (f *Format) Readable() bool { return f.open != nil }

// Writable tells whether files of this form can be written.
func (f *Format) Writable() bool { return f.create != nil }

// Pcapng is the form that has room for everything.
func Pcapng() *Format { return &formats[0] }

// Lines is the form for people at a terminal, see LineWriter. It has choices of its
// own and is nothing to choose by name, so it is no row of the table.
func Lines(o LineOptions) *Format {
	return &Format{
		Name: "lines", Summary: "a line for each packet", Text: true, keeps: 1 << packetComments,
		create: func(w io.Writer, _ WriteOptions) (PacketWriter, error) { return newLineFile(w, o), nil },
	}
}

// FormatByName finds the form that a user named.
func FormatByName(name string) (*Format, bool) {
	return find(func(f *Format) bool { return f.Name == name })
}

// FormatByFileName finds the form that a file is to have, from its name.
func FormatByFileName(name string) (*Format, bool) {
	suffix := strings.ToLower(filepath.Ext(name))
	return find(func(f *Format) bool { return slices.Contains(f.suffixes, suffix) })
}

func find(fits func(*Format) bool) (*Format, bool) {
	for i := range formats {
		if fits(&formats[i]) {
			return &formats[i], true
		}
	}
	return nil, false
}

// Reader gives the packets of a file, in the file's order.
type Reader interface {
	// Next returns the next packet, and io.EOF after the last one. The packet and
	// the memory behind its Data are good until the next call; its Interface is
	// the same pointer in all packets of an interface, and stays good.
	//
	// An error comes after all that was whole before it, and stays.
	Next() (*capture.Packet, error)
}

// ReadOptions are what a file does not say itself. All but Name are for text.
type ReadOptions struct {
	// Name is the file's name for messages.
	Name string
	// Kind is the kind of socket that text is about; nil to find it from the bytes.
	Kind *capture.Kind
	// Src and Dst are the addresses of packets without an IP header, loopback by
	// default. Ports count only where the packet has none itself.
	Src, Dst netip.AddrPort
	// BootTime is when the times of trace text count from, the epoch by default.
	BootTime time.Time
	// Strict ends a text at the first doubtful line, and any input that is cut off
	// with an error, whatever CutOff says. The default is to skip the line.
	Strict bool
	// Doubt, if set, hears of each doubtful line that is skipped.
	Doubt func(*InputError)
	// CutOff lets a capture end in the middle of a block, as after a crash of the
	// program that wrote it or on a full disk: what is whole before that is read,
	// the end is io.EOF, and Source.CutOff tells. The default is an error.
	CutOff bool
}

// Source is a Reader of one file.
type Source struct {
	Reader
	// Format is the file's form.
	Format *Format
}

// Open begins to read a file of a form, or, if format is nil, of the form that
// its content shows.
func Open(r io.Reader, format *Format, o ReadOptions) (*Source, error) {
	in := window.New(r)
	if format == nil {
		var err error
		if format, err = detect(in); err != nil {
			return nil, fmt.Errorf("reading %s: %w", o.Name, err)
		}
	}
	if format.open == nil {
		return nil, fmt.Errorf("reading %s: %s can only be written", o.Name, format.Name)
	}
	reader, err := format.open(in, o)
	if err != nil {
		return nil, err
	}
	return &Source{Reader: reader, Format: format}, nil
}

// errUnknownForm is the reason why a file is not read.
var errUnknownForm = errors.New("its form cannot be told from its content: it is neither pcapng, pcap, trace text nor server text")

// detect finds a file's form. It reads no further than it must, since more may
// be long in coming.
func detect(in *window.Window) (*Format, error) {
	for {
		err := in.Fill()
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrShortBuffer) {
			return nil, err
		}
		head := in.Unread()
		if f, ok := find(func(f *Format) bool { return f.detect != nil && f.detect(head) }); ok {
			return f, nil
		}
		if err != nil && len(head) == 0 {
			return nil, errors.New("it is empty")
		}
		if err != nil {
			return nil, errUnknownForm
		}
	}
}

// Section tells what a file says of itself; ok only for pcapng.
func (s *Source) Section() (section Section, ok bool) {
	if r, is := s.Reader.(*pcapngReader); is && r.section != nil {
		return r.section.Section, true
	}
	return Section{}, false
}

// Statistics lists the ledgers of the interfaces in the part of the file that
// was read.
func (s *Source) Statistics() []capture.Statistics {
	if r, is := s.Reader.(*pcapngReader); is {
		return r.statistics
	}
	return nil
}

// Interfaces lists the interfaces in the part of the file that was read, those
// without packets as well.
func (s *Source) Interfaces() []*capture.Interface {
	if r, is := s.Reader.(*pcapngReader); is {
		return r.described
	}
	return nil
}

// CutOff tells where a file ended in the middle of a block, if it did and
// ReadOptions allowed it.
func (s *Source) CutOff() (at CutOff, ok bool) {
	switch r := s.Reader.(type) {
	case *pcapngReader:
		at = r.cut
	case *pcapReader:
		at = r.cut
	}
	return at, at != CutOff{}
}

// PacketWriter takes packets and what else there is to a capture, and writes it in
// some form. What the form has no room for is left out. After a failed write every
// method returns its error.
type PacketWriter interface {
	capture.Flusher
	// AddInterface writes what there is to say of an interface now, and not with its
	// first packet.
	AddInterface(*capture.Interface) error
	// WriteStatistics writes the ledger of an interface that is in the file.
	WriteStatistics(capture.Statistics) error
	// Buffered is how many bytes wait for Flush.
	Buffered() int
	// Written is how many packets the underlying writer has taken whole, so far or,
	// after a failed write, at all.
	Written() uint64
}

// WriteOptions are what a written file is to say.
type WriteOptions struct {
	// Section describes the whole file, for pcapng.
	Section Section
	// From are the files that are copied, whose section headers the copy is to keep.
	From []*Source
	// BootTime is when the times of trace text count from, the epoch by default.
	BootTime time.Time
}

// Create begins to write a file. The first bytes may wait for the first packet
// or for Flush.
func (f *Format) Create(w io.Writer, o WriteOptions) (PacketWriter, error) {
	if f.create == nil {
		return nil, fmt.Errorf("writing %s: it can only be read", f.Name)
	}
	return f.create(w, o)
}

// packetForm is what writers of forms that have nothing but packets have in common.
type packetForm struct{ out output }

// AddInterface writes nothing: there is no room for interfaces.
func (w *packetForm) AddInterface(*capture.Interface) error { return w.out.err }

// WriteStatistics writes nothing, likewise.
func (w *packetForm) WriteStatistics(capture.Statistics) error { return w.out.err }

// Written is how many packets the file has.
func (w *packetForm) Written() uint64 { return w.out.written }

// Buffered is how many bytes wait for Flush.
func (w *packetForm) Buffered() int { return len(w.out.buf) }

// Flush hands on what waits in the buffer.
func (w *packetForm) Flush() error { return w.out.flush() }
