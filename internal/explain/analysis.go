package explain

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
)

// Source is a capture being read, such as a convert.Source.
type Source interface {
	// Next returns the next packet, io.EOF after the last one.
	Next() (*capture.Packet, error)
	// Section returns what the file says of itself.
	Section() (section convert.Section, ok bool)
	// Interfaces lists the interfaces in the part that was read, including those without
	// packets.
	Interfaces() []*capture.Interface
	// Statistics lists the statistics in the part that was read.
	Statistics() []capture.Statistics
	// CutOff tells where the file ended in the middle of a block.
	CutOff() (at convert.CutOff, ok bool)
}

// Options configure Read.
type Options struct {
	// Name is the capture's name, for the report.
	Name string
	// Packets is how many packets are kept to be shown individually; negative for all,
	// which takes about two kilobytes of memory each.
	Packets int
	// Connections is how many connections are shown, besides those of the packets that are; negative for
	// all. Default: DefaultConnections.
	Connections int
	// Choice says which packets those are. Default: the first ones.
	Choice Choice
	// forget bounds the window of packets that reads may still belong to.
	forget limits
}

// limits bound the packets that are kept for comparison with later reads, and those of which afterwards only
// so much is kept that a read can be joined to them, some 150 bytes each.
type limits struct{ packets, bytes, afar int }

// defaultLimits are well above what the receive queues of a few busy sockets hold.
var defaultLimits = limits{packets: 1 << 16, bytes: 32 << 20, afar: 1 << 20}

// Explanation is the result of Read.
type Explanation struct {
	// Report has the findings.
	Report Report
	// packets are those to show individually, and omitted counts the others.
	packets []*shown
	omitted tally
	// groups are the connections with those packets, and left says which connections are not among them.
	groups []*group
	left   string
}

// ErrForeign is the error for a file that has packets, but no interface that is a view of
// a socket.
var ErrForeign = errors.New("no capture of ebpfdump: none of its interfaces is a socket's view, such as tcp:kernel")

// Read reads a capture to its end.
//
// If it is damaged, the error comes with an explanation of everything before the damage.
func Read(source Source, o Options) (*Explanation, error) {
	if o.forget == (limits{}) {
		o.forget = defaultLimits
	}
	a := &analysis{
		options: o, sockets: make(map[string]*socket),
		report: Report{Version: Version, File: o.Name, Sockets: []*Socket{}},
	}
	a.interfaces = source.Interfaces
	err := a.read(source)
	section, _ := source.Section()
	for _, i := range source.Interfaces() {
		if s := a.socket(i); s != nil {
			s.view(i)
		}
	}
	// A capture of nothing has no interfaces, and may have no statistics.
	ours := len(a.order) > 0 || a.report.Packets == 0 && strings.HasPrefix(section.Application, "ebpfdump")
	statistics := source.Statistics()
	for _, s := range statistics {
		ours = ours || s.Interface.View != 0
	}
	if !ours && err == nil {
		err = ErrForeign
	}
	if !ours {
		return nil, err
	}
	if at, ok := source.CutOff(); ok {
		a.report.CutOff = &CutOff{Offset: at.Offset, Rest: at.Rest}
	}
	a.finish(section, statistics, err)
	e := &Explanation{packets: a.explained(), omitted: a.omitted}
	groups, left := a.grouped(e.packets)
	e.Report, e.groups, e.left = a.report, groups, leftTalks(left)
	return e, err
}

// analysis is the state of reading a capture.
type analysis struct {
	options Options
	report  Report
	sockets map[string]*socket
	// interfaces lists those that the file has told of so far.
	interfaces func() []*capture.Interface
	order      []*socket // in the file's order
	window     window
	afar       int // packets that have left it unread
	whole      int // those of them that are kept whole, and their bytes
	wholeBytes int
	shown      []*entry
	omitted    tally // what fits the choice so far and is not shown
	talks      int   // connections so far
	first      int64 // earliest time, in nanoseconds since the epoch
	last       int64
	// ended is when the capture ended, as far as the file tells; 0 while it is read.
	ended int64
}

const readingCapture = "reading capture: "

func (a *analysis) read(source Source) error {
	for {
		p, err := source.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf(readingCapture+"%w", err)
		}
		a.packet(p)
	}
}

// socketLimit bounds the kinds and the foreign interfaces of a file, which can name any
// number of them.
const socketLimit = 64

func (a *analysis) packet(p *capture.Packet) {
	if a.report.Packets == 0 {
		a.first, a.last = p.Time, p.Time
	}
	a.report.Packets++
	a.first, a.last = min(a.first, p.Time), max(a.last, p.Time)
	s := a.socket(p.Interface)
	if s == nil {
		a.foreign(p.Interface.Name())
		return
	}
	v := s.view(p.Interface)
	v.count(p)
	if v.strange {
		v.out.Foreign++
		return
	}
	if p.Interface.View == capture.ViewUser {
		s.userPacket(p)
		return
	}
	if p.Interface.View == capture.ViewSent {
		s.sentPacket(p)
		return
	}
	s.kernelPacket(p)
}

// socket returns the state of an interface's kind of socket, nil if the interface is not
// a view of a socket.
func (a *analysis) socket(i *capture.Interface) *socket {
	if i.View == 0 {
		return nil
	}
	if s := a.sockets[i.Kind]; s != nil {
		return s
	}
	if len(a.order) >= socketLimit {
		return nil
	}
	s := newSocket(a, i.Kind)
	a.sockets[i.Kind] = s
	a.order = append(a.order, s)
	a.report.Sockets = append(a.report.Sockets, s.out)
	return s
}

// announces tells whether the file has an interface, which may have no packets yet, for what a filter
// or a hook of a kind of socket sees.
func (a *analysis) announces(kind string) bool {
	return slices.ContainsFunc(a.interfaces(), func(i *capture.Interface) bool {
		return i.Kind == kind && (i.View == capture.ViewKernel || i.View == capture.ViewNet || i.View == capture.ViewLink || i.View == capture.ViewCgroup)
	})
}

func (a *analysis) foreign(name string) {
	if name == "" {
		name = "(without a name)"
	}
	for i := range a.report.Foreign {
		if f := &a.report.Foreign[i]; f.Name == name || i == socketLimit-1 {
			f.Packets++
			return
		}
	}
	if len(a.report.Foreign) == socketLimit-1 {
		name = "(all others)"
	}
	a.report.Foreign = append(a.report.Foreign, Foreign{Name: name, Packets: 1})
}

// enter adds a new packet.
func (a *analysis) enter(e *entry) {
	e.belongs()
	a.consider(e)
	a.window.add(e)
	for a.window.len() > a.options.forget.packets || a.window.bytes > a.options.forget.bytes {
		a.window.forget()
	}
}

// finish completes the report.
func (a *analysis) finish(section convert.Section, statistics []capture.Statistics, damage error) {
	a.ended = a.last
	for _, s := range statistics {
		a.ended = max(a.ended, s.End)
	}
	for _, s := range a.order {
		s.finishAfar()
	}
	for a.window.len() > 0 {
		a.window.forget()
	}
	r := &a.report
	r.Application, r.Command = section.Application, section.Comment
	r.OS, r.Hardware = section.OS, section.Hardware
	if damage != nil {
		r.Damage = strings.TrimPrefix(damage.Error(), readingCapture)
	}
	for _, s := range statistics {
		if socket := a.socket(s.Interface); socket != nil {
			socket.view(s.Interface).addStatistics(s)
		}
	}
	a.undivide()
	timed := false
	for _, s := range a.order {
		s.finish()
		for _, v := range s.views {
			timed = timed || v != nil && !v.untimed
		}
	}
	if !timed {
		return
	}
	// Times that count from boot, or are artificial, are near the epoch.
	if a.first > int64(365*24*time.Hour) {
		start := time.Unix(0, a.first).UTC()
		r.Start = &start
	}
	r.Duration = a.last - a.first
}

// explained returns the packets to show.
func (a *analysis) explained() []*shown {
	var all []*shown
	for _, e := range a.shown {
		e.socket.tell(e.shown)
		all = append(all, e.shown)
	}
	return all
}
