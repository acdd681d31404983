package explain

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"github.com/ebpfdump/ebpfdump/capture"
)

// socket is what is known of one kind of socket while its packets come in.
type socket struct {
	analysis *analysis
	out      *Socket
	// stream says that reads and segments are joined by sequence numbers, and not
	// by packet id.
	stream bool
	views  [viewCount]*view
	// open has the packets of the window by id.
	open    map[uint64]*entry
	streams connections
	// unpassed is the oldest packet in the window that no later delivery has
	// passed, newest the last packet.
	unpassed, newest *entry
	highest          uint64 // id
	entries          uint64
	reads            uint64
	usual            int // where in a packet the bytes of the last read began, from offset 0
	latencies        histogram
	protocols        map[uint8]bool
}

// view is one view of a socket while its packets come in.
type view struct {
	out *View
	// of is the interface of its first packet.
	of *capture.Interface
	// untimed says that its times are none.
	untimed bool
}

func newSocket(a *analysis, kind string) *socket {
	s := &socket{
		analysis: a, open: make(map[uint64]*entry), usual: -1,
		protocols: make(map[uint8]bool), out: &Socket{Kind: kind, Timed: true},
	}
	if k, ok := capture.KindByName(kind); ok {
		s.out.Summary = k.Summary
		s.stream = k.Protocol() == protocolTCP
	}
	return s
}

// view finds or makes the view of an interface.
func (s *socket) view(i *capture.Interface) *view {
	v := s.views[i.View]
	if v == nil {
		v = &view{of: i, out: &View{Name: i.View.String(), Description: i.Description}}
		s.views[i.View] = v
		s.out.Views = append(s.out.Views, v.out)
		if of, ok := processOf(i.Description); ok && v.out == s.out.Views[0] {
			s.out.Summary = "sockets of " + printable(of)
		}
		if strings.Contains(i.Description, noTimes) {
			v.untimed, s.out.Timed = true, false
		}
		if strings.Contains(i.Description, lentTimes) {
			s.out.Timed = false
		}
	}
	return v
}

// processOf finds in an interface's description whose sockets it is about.
func processOf(description string) (process string, ok bool) {
	_, rest, ok := strings.Cut(description, "; process ")
	name, _, whole := strings.Cut(rest, "), ")
	return "process " + name + ")", ok && whole
}

// What the descriptions of the interfaces say that convert makes of texts
// without times.
const (
	noTimes   = "there are no times"
	lentTimes = "times are those of the packets that brought it"
)

func (v *view) count(p *capture.Packet) {
	v.out.Packets++
	v.out.Bytes += uint64(max(p.Len, len(p.Data)))
	v.out.Drops += p.Drops
	if len(p.Data) < p.Len {
		v.out.Cut++
	}
	switch p.Direction {
	case capture.Inbound:
		v.out.Received++
	case capture.Outbound:
		v.out.Sent++
	default:
		v.out.Undirected++
	}
}

// ledger takes an interface's statistics. Sockets of one kind can have several
// interfaces.
func (v *view) ledger(s capture.Statistics) {
	if v.out.Statistics == nil {
		v.out.Statistics = &Statistics{}
	}
	sum := v.out.Statistics
	sum.Received += s.Received
	sum.Delivered += s.Delivered
	sum.Dropped += s.Dropped
	sum.Accepted += s.Accepted
	sum.OSDropped += s.OSDropped
	if s.Comment != "" && sum.Comment != "" {
		sum.Comment += "\n"
	}
	sum.Comment += s.Comment
}

// kernelPacket takes a packet of any view but userspace's.
func (s *socket) kernelPacket(p *capture.Packet) {
	e := s.open[p.ID]
	if p.Interface.View == capture.ViewWire && (e == nil || p.ID == 0) {
		return // it passed the interface, but not this socket's filter
	}
	if p.ID == 0 || e == nil || e.seen[p.Interface.View] || e.first == nil {
		s.newPacket(p)
		return
	}
	e.seen[p.Interface.View] = true
	before, agrees := e.compareView(p)
	if !agrees {
		s.views[p.Interface.View].out.Disagree++
	} else if p.Interface.View == capture.ViewKernel {
		e.offset0 = -before
		s.views[e.first.View].before(e.offset0)
	}
	if agrees && e.seen[capture.ViewKernel] {
		s.views[p.Interface.View].before(before + e.offset0)
	}
	e.note(p, before, agrees)
}

func (s *socket) newPacket(p *capture.Packet) {
	d := dissect(p.Interface.Layer, p.Protocol, p.Data, p.Len)
	e := &entry{
		socket: s, id: p.ID, time: p.Time, direction: p.Direction, src: p.Src, dst: p.Dst,
		first: p.Interface, data: bytes.Clone(p.Data), length: max(p.Len, len(p.Data)),
		payload: d.payload, end: d.end, protocol: d.protocol, verdict: parseVerdict(p.Comment),
	}
	e.header, e.tcp = d.tcp(p.Data)
	e.seen[p.Interface.View] = true
	if len(s.protocols) < 256 {
		s.protocols[d.protocol] = true
	}
	s.out.Packets++
	s.highest = max(s.highest, p.ID)
	s.enter(e)
	e.note(p, 0, true)
	if p.Interface.View == capture.ViewKernel {
		s.views[capture.ViewKernel].before(0)
	}
	if s.stream && e.tcp && e.verdict != 0 {
		s.streams.saw(e)
	}
}

// enter takes a new packet into the window.
func (s *socket) enter(e *entry) {
	e.number = s.entries
	s.entries++
	if s.newest != nil {
		s.newest.next = e
	}
	s.newest = e
	if s.unpassed == nil {
		s.unpassed = e
	}
	if e.id != 0 && e.first != nil {
		s.open[e.id] = e
	}
	s.analysis.enter(e)
}

// compareView tells how many bytes another view of the packet has before the
// first view's, and whether both are the same from there on. All views of a
// packet end with the same byte.
func (e *entry) compareView(p *capture.Packet) (before int, agrees bool) {
	before = max(p.Len, len(p.Data)) - e.length
	a, b := e.data, p.Data
	if before > 0 {
		b = b[min(before, len(b)):]
	} else {
		a = a[min(-before, len(a)):]
	}
	n := min(len(a), len(b))
	return before, bytes.Equal(a[:n], b[:n])
}

// before notes how far before offset 0 a view begins.
func (v *view) before(n int) {
	if v.out.Before == nil {
		v.out.Before = &Range{int64(n), int64(n)}
	}
	v.out.Before.Least, v.out.Before.Most = min(v.out.Before.Least, int64(n)), max(v.out.Before.Most, int64(n))
}

// userPacket takes what a read returned.
func (s *socket) userPacket(p *capture.Packet) {
	e := s.open[p.ID]
	if p.ID == 0 {
		e = nil
	}
	if strings.HasPrefix(p.Comment, capture.Peeked) {
		s.out.Mapping.Peeks++
		if e != nil {
			e.remark(p)
		}
		return
	}
	s.reads++
	if strings.HasPrefix(p.Comment, capture.BeforeTap) {
		s.out.Mapping.Before++
		s.enterRead(p)
		return
	}
	if d, ok := parseDropped(p.Comment); ok {
		s.passOver(e, &d)
	} else if e != nil {
		s.passOver(e, nil)
	}
	s.out.Losses.Queue += p.Drops
	bytesRead := max(p.Len, len(p.Data))
	if bytesRead > 0 {
		s.out.Comparison.Reads++
		s.out.Comparison.Bytes += uint64(bytesRead)
	}
	known := false
	if s.stream {
		known = s.readStream(e, p)
	} else if e != nil {
		known = true
		s.readDatagram(e, p)
	}
	if known {
		return
	}
	if p.ID != 0 && p.ID <= s.highest {
		s.out.Losses.Late++
	}
	if bytesRead > 0 {
		s.out.Comparison.Unknown++
	}
	s.enterRead(p)
}

// enterRead shows a read that belongs to no packet in the window.
func (s *socket) enterRead(p *capture.Packet) {
	e := &entry{
		socket: s, id: p.ID, time: p.Time, direction: p.Direction, src: p.Src, dst: p.Dst,
		verdict: keepAll, delivered: true,
	}
	e.seen[capture.ViewUser] = true
	s.enter(e)
	e.addPart(p, s.reads, 0, 0, max(p.Len, len(p.Data)))
}

// passOver goes to the packet that was delivered, and marks what lies before it.
// d are those that the receive queue dropped, nil if none; e is nil if nobody
// knows what was delivered.
func (s *socket) passOver(e *entry, d *dropped) {
	if s.stream || e == nil {
		return
	}
	// A packet that was overtaken on its way lies behind the mark already.
	for s.unpassed != nil && s.unpassed.number < e.number {
		s.unpassed.passed = true
		s.unpassed.dropped = d != nil && d.has(s.unpassed.id)
		s.unpassed = s.unpassed.next
	}
}

// settle counts what has become of a packet for which nothing more can come.
func (s *socket) settle(e *entry) {
	if s.open[e.id] == e {
		delete(s.open, e.id)
	}
	if s.unpassed == e {
		s.unpassed = e.next
	}
	if s.newest == e {
		s.newest = nil
	}
	e.next = nil
	if e.pending {
		e.stream.forget(e)
	}
	fate := e.settle()
	if e.shown != nil {
		e.show(fate)
	}
	e.data = nil
}

// finish completes what is reported of the socket.
func (s *socket) finish() {
	out := s.out
	if v := s.views[capture.ViewKernel]; v != nil {
		out.Begins = layerNames[v.of.Layer]
		out.Synthetic = strings.Contains(v.of.Description, "header is synthetic")
		out.Losses.Tap = v.out.Drops
		if v.out.Statistics != nil {
			out.Losses.Tap = max(out.Losses.Tap, v.out.Statistics.Dropped)
		}
	}
	if v := s.views[capture.ViewUser]; v != nil && v.out.Statistics != nil {
		out.Losses.Queue = max(out.Losses.Queue, v.out.Statistics.OSDropped)
	}
	for protocol := range s.protocols {
		if protocol != 0 {
			out.Protocols = append(out.Protocols, protocolName(protocol))
		}
	}
	slices.SortFunc(out.Protocols, cmp.Compare)
	out.Protocols = out.Protocols[:min(len(out.Protocols), 8)]
	if out.Timed {
		out.Latency = s.latencies.latency()
	}
	out.Findings = s.findings()
}

var layerNames = map[capture.Layer]string{
	capture.LayerLink:      "link",
	capture.LayerNetwork:   "network",
	capture.LayerTransport: "transport",
	capture.LayerMessage:   "message",
}
