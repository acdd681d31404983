package explain

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
	"github.com/ebpfdump/ebpfdump/internal/remark"
)

// shownBytes limits the bytes shown of each packet, shownParts the reads and shownPeeks the peeks shown of one
// packet. The rest is only counted.
const (
	shownBytes = 256
	shownParts = 32
	shownPeeks = 4
)

// shown is a packet to be shown individually. Offsets are in bytes from the beginning of
// frame, which is the view that begins first.
type shown struct {
	kind      string
	id        uint64
	time      int64 // since the first packet of the file, in nanoseconds
	timed     bool  // time is a real time
	lasted    bool  // and so are those of reads
	direction capture.Direction
	src, dst  netip.AddrPort
	what      string // flags or protocol
	fate      string
	told      bool // fate is known even without a user view
	user      bool // there is a user view
	item      item
	departed  bool // a packet that was sent
	notes     []string
	meta      capture.Meta

	layer    capture.Layer // of frame
	protocol uint8
	ipv6     bool
	frame    []byte // the first bytes
	captured int    // length of the frame in the file
	length   int    // original length of the frame
	offset0  int    // offset at which the kernel view begins
	kernel   bool   // there is a kernel view
	spans    []span
	covers   []cover
	parts    []part
	talk     *talk
	// lost says that it did not come to its end, and missed that a read could have got more of it.
	lost, missed bool
	omitted      int // number of further reads
	peeks        int // those of parts that are peeks, and further ones
	morePeeks    int
}

// cover is the part of a frame that a view sees.
type cover struct {
	view     capture.View
	from, to int
}

// part is the part of a packet that a read got.
type part struct {
	read     uint64 // number of the read among the socket's
	from     int    // offset of its first byte in the packet
	readFrom int    // offset in what the read returned
	length   int
	whole    int // number of bytes that the read returned
	data     []byte
	call     string
	failed   bool
	sent     bool  // it was not a read that got it, but a call that sent it, with this number
	peeked   bool  // or one that only peeked at it, with this number
	time     int64 // as shown.time
	comment  string
	// into is what is known of the buffer, and with what else the message came.
	into string
}

// noteComment keeps a packet's comment.
func (e *entry) noteComment(p *capture.Packet) {
	if e.shown == nil || len(e.shown.notes) >= shownParts {
		return
	}
	if said := remark.Facts(p); said != "" {
		e.shown.notes = append(e.shown.notes, p.Interface.View.String()+": "+said)
	}
}

// note keeps a view of a packet, which begins that many bytes before the first view.
func (e *entry) note(p *capture.Packet, before int, agrees bool) {
	if e.shown == nil {
		return
	}
	e.noteComment(p)
	if e.shown.meta == (capture.Meta{}) {
		e.shown.meta = p.Meta
	}
	if !agrees {
		e.shown.notes = append(e.shown.notes, "the bytes of the "+p.Interface.View.String()+" view are others")
		return
	}
	g := e.shown
	// Until show, offsets are relative to the first view.
	g.covers = append(g.covers, cover{view: p.Interface.View, from: -before, to: e.length})
	if g.frame == nil || -before < g.offset0 {
		g.offset0 = -before
		g.captured = len(p.Data)
		g.frame = bytes.Clone(p.Data[:min(len(p.Data), shownBytes)])
		g.layer, g.ipv6, g.protocol = p.Interface.Layer, p.Interface.IPv6, p.Protocol
	}
}

// addPart keeps what a read, or a peek, got of a packet: length bytes, at offset from in the first
// view and at offset readFrom in what the call returned.
func (e *entry) addPart(p *capture.Packet, read uint64, from, readFrom, length int) {
	g := e.shown
	if g == nil {
		return
	}
	peeked := p.Receipt.Peeked
	switch {
	case peeked && g.peeks == shownPeeks:
		g.morePeeks++
		return
	case peeked:
		g.peeks++
	case g.reads() == shownParts:
		g.omitted++
		return
	}
	data := p.Data[min(readFrom, len(p.Data)):min(readFrom+length, len(p.Data))]
	g.parts = append(g.parts, part{
		read: read, from: from, readFrom: readFrom, length: length, whole: p.Got(),
		data: bytes.Clone(data[:min(len(data), shownBytes)]), call: p.Call, failed: failed(p), sent: e.sent, peeked: peeked, time: p.Time, comment: remark.Facts(p),
		into: receptionText(&p.Reception),
	})
}

// reads is how many of the parts that are shown are no peeks.
func (g *shown) reads() int { return len(g.parts) - g.peeks }

// show completes a packet once everything is known of it.
func (e *entry) show(fate string) {
	g := e.shown
	g.kind, g.id, g.direction, g.src, g.dst, g.fate = e.socket.out.Kind, e.id, e.direction, e.src, e.dst, fate
	g.talk, g.lost = e.talk, e.lost
	g.time, g.lasted = e.time-e.socket.analysis.first, e.socket.out.Timed
	view := capture.ViewUser
	switch g.item = e.item(); g.item {
	case itemSend:
		view = capture.ViewSent
	case itemPacket:
		view = e.first.View
	}
	g.timed = !e.socket.views[view].untimed
	for i := range g.parts {
		g.parts[i].time -= e.socket.analysis.first
	}
	switch {
	case e.isTCP:
		g.what = string(header.AppendTCPFlags(nil, e.tcp.Flags))
	case e.protocol != 0:
		g.what = protocolName(e.protocol)
	}
	if g.item != itemPacket {
		return
	}
	begin := g.offset0
	for i := range g.covers {
		g.covers[i].from -= begin
		g.covers[i].to -= begin
	}
	for i := range g.parts {
		g.parts[i].from -= begin
	}
	g.length = e.length - begin
	g.offset0 = e.offset0 - begin
	g.kernel, g.departed = e.seen[capture.ViewKernel], e.departed
	g.spans = dissect(g.layer, g.protocol, g.frame, g.length).spans
}

// tell completes a packet once everything is known of its socket.
func (s *socket) tell(g *shown) {
	g.user = s.user() && !g.departed && g.fate != unknownRead
	g.lost = g.lost || g.user && g.missed
	switch {
	case g.told:
	case !g.user:
		g.fate = unknownRead
	case s.late[g.id] || len(s.late) == rememberedIDs && g.reads() == 0:
		g.fate = "its read is too far behind it in the file to be followed"
	case s.ambiguous[g.id]:
		g.fate = "other packets have its id, so it is not sure whose reads these are"
		if g.reads() == 0 {
			g.fate = "other packets have its id, so it is not sure whether a read got it"
		}
	}
}

// duration formats nanoseconds for people: 118.4µs.
func duration(ns int64) string {
	d := time.Duration(ns)
	switch abs := max(d, -d); {
	case abs >= time.Second:
		return d.Round(time.Millisecond).String()
	case abs >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case abs >= time.Microsecond:
		return d.Round(100 * time.Nanosecond).String()
	}
	return d.String()
}
