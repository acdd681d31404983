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

// Format is a file format: a row of the table that Formats lists.
type Format struct {
	// Name is what FormatByName takes.
	Name string
	// Summary describes it in a few words, for lists and messages.
	Summary string
	// OneView says that a file has room for only one view.
	OneView bool
	// Text says that a file is made for people, and may be printed on a terminal.
	Text bool

	suffixes []string // of file names, with the dot
	// link returns the link type of an interface in such a file; nil if it is the same as
	// in pcapng.
	link func(*capture.Interface) (uint16, error)
	// fits tells why a file has no room for a packet, whatever its interface's link type is; 0
	// if it has. It is nil if it has room for all of them.
	fits func(*capture.Packet) Reason
	// keeps has a bit for each detail that a file has room for.
	keeps uint32
	// tags says that a frame's VLAN tag is put back into its bytes.
	tags bool
	// unit is the resolution of timestamps in nanoseconds, 0 for 1, and latest the
	// largest, 0 for that of a capture.Packet.
	unit, latest int64
	// detect tells from the beginning of a file whether it has this format.
	detect func(head []byte) bool
	// open is nil for formats that are only written, create for those that are only read.
	open   func(in *window.Window, o ReadOptions) (Reader, error)
	create func(w io.Writer, o WriteOptions) (PacketWriter, error)
	// copies creates a file that has room for blocks other than packets, and counts in
	// left what it lacks of o.From. It is nil for formats that hold only packets.
	copies func(w io.Writer, o WriteOptions, left *omissionCounts) (itemWriter, error)
}

// formats begins with the formats that recognise their files for certain.
var formats []Format

func init() {
	formats = []Format{
		{
			Name: "pcapng", Summary: "all views with all that is known of them", suffixes: []string{".pcapng", ".ntar"},
			detect: isPcapng, open: openPcapng, create: createPcapng, copies: copyPcapng,
		},
		{
			Name: "pcap", Summary: "one view, for tcpdump and all else on libpcap; IP alone is RAW (101)", suffixes: []string{".pcap", ".cap", ".dmp"},
			OneView: true, tags: true, link: pcapLinkType, fits: fitsPcap, detect: isPcap, open: openPcap, create: createPcap, latest: math.MaxUint32*1e9 + 999_999_999,
		},
		{
			Name: "json", Summary: "one object a line", suffixes: []string{".json", ".jsonl", ".ndjson"},
			Text: true, create: createJSON, keeps: 1<<packetComments | 1<<packetMarks | 1<<vlanTags | 1<<packetMetadata | 1<<flowMetadata | 1<<stateMetadata | 1<<receptions | 1<<longPackets,
		},
		{
			Name: "text", Summary: "trace text for the kernel's views, server text for the user view", suffixes: []string{".txt", ".text", ".log"},
			OneView: true, Text: true, create: createText, fits: fitsText, unit: 1000,
		},
		{
			Name: "hexdump", Summary: "rows of bytes: hexdump -C, xxd, od -t x1, tcpdump -x to -XX, tshark -x, text2pcap's, Scapy's, the kernel's", Text: true,
			detect: text.IsHexdump, open: openHexdump,
		},
		{
			Name: "hexlines", Summary: "one packet a line in hexadecimal, also from the kernel's trace pipe", Text: true,
			detect: text.IsHexLines, open: openHexLines,
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

// Formats lists the formats that can be read, or those that can be written.
func Formats(writable bool) []Format {
	return slices.DeleteFunc(slices.Clone(formats), func(f Format) bool {
		return writable && f.create == nil || !writable && f.open == nil
	})
}

// Readable tells whether files of this format can be read.
func (f *Format) Readable() bool { return f.open != nil }

// Writable tells whether files of this format can be written.
func (f *Format) Writable() bool { return f.create != nil }

// Pcapng is the format that has room for everything.
func Pcapng() *Format { return &formats[0] }

// Lines is the format of LineWriter, for people at a terminal. It has options of its own
// and cannot be chosen by name, so it is not in the table.
func Lines(o LineOptions) *Format {
	return &Format{
		Name: "lines", Summary: "a line for each packet", Text: true, keeps: 1<<packetComments | 1<<vlanTags | 1<<packetMetadata,
		create: func(w io.Writer, _ WriteOptions) (PacketWriter, error) { return newLineFile(w, o), nil },
	}
}

// FormatByName finds a format by its Name.
func FormatByName(name string) (*Format, bool) {
	return find(func(f *Format) bool { return f.Name == name })
}

// FormatByFileName finds the format that a file's suffix stands for.
//
// What it is compressed with may stand behind that.
func FormatByFileName(name string) (*Format, bool) {
	name, _ = CutCompression(name)
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

// Reader reads the packets of a file in order.
type Reader interface {
	// Next returns the next packet, and io.EOF after the last one. The packet and its
	// Data are valid until the next call. Its Interface is the same pointer in all
	// packets of an interface, and stays valid.
	//
	// An error comes after everything that was complete before it, and is permanent.
	Next() (*capture.Packet, error)
}

// ReadOptions supply what a file does not say itself. All but Name, CutOff and
// DecodeAs are for text.
type ReadOptions struct {
	// Name is the file's name, for messages.
	Name string
	// Kind is the kind of socket that a text came from; nil to infer it from the bytes.
	Kind *capture.Kind
	// Src and Dst are the addresses of packets without an IP header, loopback by
	// default. Ports count only where the packet has none itself.
	Src, Dst netip.AddrPort
	// BootTime is when the times of trace text count from, the epoch by default.
	BootTime time.Time
	// DecodeAs is the protocol that Wireshark is to take what went through unix streams for in a
	// copy, as in capture.Options (pcapng only). It stays as it is by default.
	DecodeAs string
	// Strict ends a text at the first doubtful line, which is skipped by default, and
	// makes a truncated input an error whatever CutOff says.
	Strict bool
	// Doubt, if set, is called for each doubtful line that is skipped.
	Doubt func(*InputError)
	// CutOff permits a capture that ends in the middle of a block, as after a crash of
	// its writer or on a full disk: everything complete before that is read, then Next
	// returns io.EOF and Source.CutOff tells where. By default this is an error.
	CutOff bool
}

// Source is a Reader of one file.
type Source struct {
	Reader
	// Format is the file's format.
	Format *Format
}

// Open starts reading a file, which may be compressed with gzip or zstd. If format is nil, it is
// detected from the content.
func Open(r io.Reader, format *Format, o ReadOptions) (*Source, error) {
	in := window.New(newPlain(r))
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

// errUnknownForm is the reason why no format was detected.
func errUnknownForm() error {
	var known strings.Builder
	for _, f := range Formats(false) {
		fmt.Fprintf(&known, "; %s (%s)", f.Name, f.Summary)
	}
	return fmt.Errorf("its form cannot be told from its content, which is none of those that are known: %s", strings.TrimPrefix(known.String(), "; "))
}

// detect finds a file's format. It reads no more than it must, since a pipe may deliver
// the rest much later.
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
		if err != nil && text.IsTracer(head) {
			f, _ := FormatByName("trace")
			return f, nil
		}
		if err != nil {
			return nil, errUnknownForm()
		}
	}
}

// Section returns what the file says of itself; ok only for pcapng.
func (s *Source) Section() (section Section, ok bool) {
	if r, is := s.Reader.(*pcapngReader); is && r.section != nil {
		return r.section.Section, true
	}
	return Section{}, false
}

// Statistics lists the statistics of the interfaces in the part of the file that was
// read.
func (s *Source) Statistics() []capture.Statistics {
	if r, is := s.Reader.(*pcapngReader); is {
		return r.statistics
	}
	return nil
}

// Interfaces lists the interfaces in the part of the file that was read, including those
// without packets.
func (s *Source) Interfaces() []*capture.Interface {
	if r, is := s.Reader.(*pcapngReader); is {
		return r.described
	}
	return nil
}

// Decodes tells whether the part of the file that was read has an interface that
// ReadOptions.DecodeAs is for.
func (s *Source) Decodes() bool {
	r, is := s.Reader.(*pcapngReader)
	return is && slices.ContainsFunc(r.described, isDecodable)
}

// CutOff tells where the file ended in the middle of a block, if it did and ReadOptions
// allowed it.
func (s *Source) CutOff() (at CutOff, ok bool) {
	switch r := s.Reader.(type) {
	case *pcapngReader:
		at = r.cut
	case *pcapReader:
		at = r.cut
	}
	return at, at != CutOff{}
}

// PacketWriter writes the packets, interfaces and statistics of a capture in some format,
// leaving out what that has no room for. After a failed write every method returns its
// error.
type PacketWriter interface {
	capture.Flusher
	// AddInterface writes the description of an interface now instead of with its first
	// packet.
	AddInterface(*capture.Interface) error
	// WriteStatistics writes the statistics of an interface that is in the file.
	WriteStatistics(capture.Statistics) error
	// Buffered is the number of bytes that wait for Flush.
	Buffered() int
	// Written is the number of packets that the underlying writer has taken completely,
	// also after a failed write.
	Written() uint64
}

// WriteOptions are what a file says besides its packets.
type WriteOptions struct {
	// Section describes the whole file (pcapng only).
	Section Section
	// From are the files being copied, whose section headers the copy keeps.
	From []*Source
	// BootTime is when the times of trace text count from, the epoch by default.
	BootTime time.Time
}

// leavesOut tells whether a packet would make a file one that Wireshark refuses.
func (f *Format) leavesOut(p *capture.Packet) bool { return !f.Text && isHeadless(p) }

// Create starts a file. The first bytes may be buffered until the first packet or Flush.
func (f *Format) Create(w io.Writer, o WriteOptions) (PacketWriter, error) {
	if f.create == nil {
		return nil, fmt.Errorf("writing %s: it can only be read", f.Name)
	}
	return f.create(w, o)
}

// packetForm is what the writers of formats that hold only packets have in common.
type packetForm struct{ out output }

// AddInterface writes nothing: the format has no interfaces.
func (w *packetForm) AddInterface(*capture.Interface) error { return w.out.err }

// WriteStatistics writes nothing: the format has no statistics.
func (w *packetForm) WriteStatistics(capture.Statistics) error { return w.out.err }

// Written is the number of complete packets in the file.
func (w *packetForm) Written() uint64 { return w.out.written }

// Buffered is the number of bytes that wait for Flush.
func (w *packetForm) Buffered() int { return len(w.out.buf) }

// Flush writes what is buffered.
func (w *packetForm) Flush() error { return w.out.flush() }
