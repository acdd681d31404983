package convert

import (
	"errors"
	"time"

	"github.com/ebpfdump/ebpfdump/capture"
)

// ErrSeriesEnded says that a Series has as many files as it may have, and the last one has ended. A
// packet that it was returned for is in none of them.
var ErrSeriesEnded = errors.New("the last file of the series is full")

// SeriesLimits say when a file of a Series is full, and how many files there are. Zero is no
// limit.
type SeriesLimits struct {
	// Bytes is the size that a file has at least when the next one begins.
	Bytes int64
	// Packets is how many a file has, of all views together.
	Packets uint64
	// Duration is how long a file takes from its beginning, and Interval the same up to the next
	// multiple since 1970. One of both may be set. Such a file ends by the clock: while no packet
	// comes, files without packets follow each other.
	Duration, Interval time.Duration
	// Files is how many there may be: then the series ends.
	Files int
}

// SeriesOptions are what a Series needs besides its first file.
type SeriesOptions struct {
	SeriesLimits
	// Counted is the view whose packets SeriesLimits.Packets counts. A file goes on to take what the
	// other views have of them, until the next one comes. Default: those of all views.
	Counted capture.View
	// Compression compresses the files. Default: none. Then Bytes are those on the disk.
	Compression *Compression
	// Next makes the target of the next file, which begins at that time.
	Next func(begins time.Time) (Target, error)
	// Interfaces are those of the capture so far: each file begins with all of them, and ends with
	// their statistics.
	Interfaces func() []*capture.Interface
	// Unwanted is how many packets an Expression has left out of a view of the capture so far: of those
	// the statistics of each file have its own part. Nil without an Expression.
	Unwanted func(capture.View) (uint64, error)
	// Now is the time. Default: time.Now.
	Now func() time.Time
}

// Series writes a capture to one file after the other. Each is complete by itself: it has the
// section, all interfaces, and the statistics of its own part. Ids go on counting.
//
// Nothing is lost between two files. It has the methods of a File, and is for one goroutine at
// a time.
type Series struct {
	form *Format
	o    SeriesOptions
	w    WriteOptions

	file    *File // nil between two
	size    sized
	begins  time.Time
	until   time.Time // zero if no time ends it
	packets uint64    // in the current file
	counted uint64    // those of them that SeriesLimits.Packets counts
	files   int       // that were begun
	written uint64    // in those before the current one
	keys    []byte    // TLS keys, which each file begins with
	failure error
	ended   bool
	// processes are those that each file describes.
	processes []ProcessInfo

	parts    map[*capture.Interface]*part
	sorted   []*part                   // in the order of their first packets
	unwanted [capture.ViewCount]uint64 // in the statistics of the files before the current one
}

// part is what the current file has of an interface, and what those before had.
type part struct {
	at           *capture.Interface
	here, before capture.Statistics
	filtered     uint64 // of those here: dropped by the verdict
}

// sized is a Target that counts what is written to it.
type sized struct {
	Target
	bytes int64
}

func (s *sized) Write(b []byte) (int, error) {
	n, err := s.Target.Write(b)
	s.bytes += int64(n)
	return n, err
}

var _ PacketWriter = (*Series)(nil)

// lateness is how long after a file's time a packet may still come that belongs to it.
const lateness = 500 * time.Millisecond

// NewSeries returns a Series whose first file goes to a target. Nothing is written yet.
func NewSeries(first Target, form *Format, o SeriesOptions) (*Series, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Series{form: form, o: o, parts: make(map[*capture.Interface]*part)}
	return s, s.begin(first, o.Now())
}

// begin makes a target the current file.
func (s *Series) begin(to Target, at time.Time) (err error) {
	s.size = sized{Target: to}
	to = &s.size
	if s.o.Compression != nil {
		if to, err = s.o.Compression.Compress(to); err != nil {
			return err
		}
	}
	s.file = NewFile(to, s.form)
	s.begins, s.until, s.packets, s.counted = at, time.Time{}, 0, 0
	s.files++
	switch {
	case s.o.Interval > 0:
		s.until = at.Truncate(s.o.Interval).Add(s.o.Interval)
	case s.o.Duration > 0:
		s.until = at.Add(s.o.Duration)
	}
	return nil
}

// Files is the number of files that were begun.
func (s *Series) Files() int { return s.files }

// Begin writes the header of the first file, and keeps what the others need for theirs.
func (s *Series) Begin(o WriteOptions) error {
	s.w = o
	return s.file.Begin(o)
}

// Begun, Held, Release and Buffered are those of the current file.
func (s *Series) Begun() bool { return s.file == nil || s.file.Begun() }

// Held tells whether everything written so far is held back until the first packet.
func (s *Series) Held() bool { return s.file != nil && s.file.Held() }

// Release writes the file's header to the target although there is no packet yet.
func (s *Series) Release() error {
	if s.file == nil {
		return nil
	}
	return s.failed(s.file.Release())
}

// Buffered is the number of bytes that wait for Flush.
func (s *Series) Buffered() int {
	if s.file == nil {
		return 0
	}
	return s.file.Buffered()
}

// AddInterface writes the description of an interface now. Later files have it anyway.
func (s *Series) AddInterface(i *capture.Interface) error {
	if s.file == nil {
		return nil
	}
	return s.file.AddInterface(i)
}

// WritePacket writes a packet, into the next file if the current one is full.
func (s *Series) WritePacket(p *capture.Packet) error {
	at := time.Unix(0, p.Time)
	if s.file != nil && s.full(at, s.counts(p)) {
		if s.over(at) {
			at = s.after(at)
		}
		if err := s.finish(); err != nil {
			return err
		}
	}
	if s.file == nil {
		if err := s.next(at); err != nil {
			return err
		}
	}
	s.count(p)
	return s.file.WritePacket(p)
}

// counts tells whether a packet is one of those that SeriesLimits.Packets counts.
func (s *Series) counts(p *capture.Packet) bool {
	return s.o.Counted == 0 || p.Interface.View == s.o.Counted
}

// full tells whether the current file has no room for a packet of that time, which counts or not. A
// file without packets has, while its time lasts.
func (s *Series) full(at time.Time, counts bool) bool {
	return s.over(at) || s.packets > 0 &&
		(s.o.Packets > 0 && counts && s.counted >= s.o.Packets || s.o.Bytes > 0 && s.bytes() >= s.o.Bytes)
}

// bytes is the size of the current file. How much of what is buffered will be left of it when it is
// compressed nobody knows.
func (s *Series) bytes() int64 {
	if s.o.Compression != nil {
		return s.size.bytes
	}
	return s.size.bytes + int64(s.file.Buffered())
}

func (s *Series) over(at time.Time) bool { return !s.until.IsZero() && !at.Before(s.until) }

// after is when the file begins that follows one whose time is over: when that ended, or, where more time has
// passed than a file takes, as while the machine slept, now.
func (s *Series) after(now time.Time) time.Time {
	if now.Sub(s.until) < max(s.o.Duration, s.o.Interval) {
		return s.until
	}
	return now
}

// Wakes is when Flush should be called next although no packet comes, since the time of the current
// file is over then; zero if no time ends it.
func (s *Series) Wakes() time.Time {
	if s.file == nil || s.until.IsZero() {
		return time.Time{}
	}
	return s.until.Add(lateness)
}

// next begins the next file.
func (s *Series) next(at time.Time) error {
	if s.o.Files > 0 && s.files >= s.o.Files {
		return ErrSeriesEnded
	}
	to, err := s.o.Next(at)
	if err != nil {
		return s.failed(err)
	}
	if err := s.begin(to, at); err != nil {
		return s.failed(err)
	}
	if err := s.file.Begin(s.w); err != nil {
		return s.failed(err)
	}
	for _, i := range s.o.Interfaces() {
		if err := s.file.AddInterface(i); err != nil {
			return s.failed(err)
		}
	}
	if len(s.keys) > 0 {
		if err := s.file.WriteTLSKeys(s.keys); err != nil {
			return s.failed(err)
		}
	}
	return s.failed(s.writeProcesses())
}

// finish ends the current file with the statistics of its part.
func (s *Series) finish() error {
	for _, i := range s.o.Interfaces() {
		s.part(i)
		if !s.form.OneView {
			_ = s.file.AddInterface(i) // End returns the same error
		}
	}
	failure := s.leaveOut()
	var all []capture.Statistics
	for _, p := range s.sorted {
		st := p.here
		st.Interface, st.Start, st.End = p.at, s.begins.UnixNano(), s.o.Now().UnixNano()
		st.Received = st.Delivered + st.Unwanted + st.Dropped
		st.Accepted = st.Received - min(p.filtered+st.Unwanted, st.Received)
		all = append(all, st)
		p.before.Delivered += p.here.Delivered
		p.before.Dropped += p.here.Dropped
		p.before.OSDropped += p.here.OSDropped
		p.before.Accepted += st.Accepted
		p.here, p.filtered = capture.Statistics{}, 0
	}
	err := errors.Join(failure, s.file.End(nil, all...))
	s.written += s.file.Written()
	s.file = nil
	return s.failed(err)
}

// leaveOut counts what was left out of each view since the file before, at one interface of the view, since
// it is not known whose packets they were: the first one that has some here, or else the first one.
func (s *Series) leaveOut() error {
	if s.o.Unwanted == nil {
		return nil
	}
	var at [capture.ViewCount]*part
	for _, p := range s.sorted {
		if first := &at[p.at.View]; *first == nil || (*first).here.Delivered == 0 && p.here.Delivered > 0 {
			*first = p
		}
	}
	for v, p := range at {
		if p == nil {
			continue
		}
		all, err := s.o.Unwanted(capture.View(v))
		if err != nil {
			return err
		}
		p.here.Unwanted = all - min(s.unwanted[v], all)
		s.unwanted[v] = max(s.unwanted[v], all)
	}
	return nil
}

// count counts a packet for the statistics of its part, as the capture does for the whole.
func (s *Series) count(p *capture.Packet) {
	s.packets++
	if s.counts(p) {
		s.counted++
	}
	of := s.part(p.Interface)
	if p.Interface.View == capture.ViewUser {
		of.here.OSDropped += p.Drops
	} else {
		of.here.Dropped += p.Drops
	}
	if p.Verdict.Dropped {
		of.filtered++
	}
	if !p.Receipt.Peeked && p.Receipt.Errno == 0 {
		of.here.Delivered++
	}
}

// part is that of an interface.
func (s *Series) part(i *capture.Interface) *part {
	of := s.parts[i]
	if of == nil {
		of = &part{at: i}
		s.parts[i] = of
		s.sorted = append(s.sorted, of)
	}
	return of
}

// WriteStatistics writes the statistics of an interface.
func (s *Series) WriteStatistics(st capture.Statistics) error {
	if s.file == nil {
		return nil
	}
	return s.file.WriteStatistics(st)
}

// Flush writes what is buffered, and begins the next file if the time of the current one is over. If there may
// be no other one, the error is ErrSeriesEnded.
func (s *Series) Flush() error {
	if s.file == nil {
		return nil
	}
	if now := s.o.Now().Add(-lateness); s.over(now) {
		begins := s.after(now)
		if err := s.finish(); err != nil {
			return err
		}
		if err := s.next(begins); err != nil {
			return err
		}
		if s.form.OneView {
			return nil // only the first packet tells what its header has
		}
		return s.Release()
	}
	return s.failed(s.file.Flush())
}

// End ends the last file, whose statistics are what the capture counted in all without what the
// files before have.
func (s *Series) End(failure error, statistics ...capture.Statistics) error {
	if s.ended || s.file == nil {
		s.ended = true
		return nil
	}
	s.ended = true
	rest := make([]capture.Statistics, 0, len(statistics))
	for _, st := range statistics {
		if p := s.parts[st.Interface]; p != nil && s.files > 1 {
			st.Start = s.begins.UnixNano()
			st.Delivered -= min(p.before.Delivered, st.Delivered)
			st.Dropped -= min(p.before.Dropped, st.Dropped)
			st.OSDropped -= min(p.before.OSDropped, st.OSDropped)
			// All of a view is at one interface, which may be another one than in the files before.
			st.Unwanted -= min(s.unwanted[st.Interface.View], st.Unwanted)
			st.Received = st.Delivered + st.Unwanted + st.Dropped
			st.Accepted = min(st.Accepted-min(p.before.Accepted, st.Accepted), st.Received)
			if st.Comment != "" {
				st.Comment += "; of all files of the series"
			}
		}
		rest = append(rest, st)
	}
	return s.failed(s.file.End(failure, rest...))
}

func (s *Series) failed(err error) error {
	if s.failure == nil {
		s.failure = err
	}
	return err
}

// Failure is the first error of the output itself.
func (s *Series) Failure() error {
	if s.failure == nil && s.file != nil {
		return s.file.Failure()
	}
	return s.failure
}

// Written is the number of packets that are complete in the files.
func (s *Series) Written() uint64 {
	if s.file == nil {
		return s.written
	}
	return s.written + s.file.Written()
}
