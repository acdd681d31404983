package explain

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// socket is the state of one kind of socket while its packets are read.
type socket struct {
	analysis *analysis
	out      *Socket
	// stream says that reads are matched with segments by sequence number instead of
	// packet id.
	stream bool
	views  [capture.ViewCount]*view
	// undivided are, of each view, the kinds of socket with which losses stand that may be of this one as well, and
	// counted says that the statistics at the end have all of them.
	undivided [capture.ViewCount][]string
	counted   [capture.ViewCount]bool
	// open holds the packets of the window by id.
	open    map[uint64]*entry
	streams connections
	// unpassed is the oldest packet in the window that no later delivery has overtaken,
	// newest the last packet.
	unpassed, newest *entry
	afar             afar
	highest          uint64 // id
	entries          uint64
	reads, sends     uint64
	usual            int // offset of the last read's bytes in its packet, from offset 0
	latencies        histogram
	lastReached      uint64    // number of the last packet that came to a filter or hook
	climbs           histogram // from an interface to the filter or hook
	// twins knows the packets that have the id of another one, and ambiguous are the ids of which it is not
	// certain whose they are.
	twins     twins
	ambiguous map[uint64]bool
	// unjoined are the packets of PassedOver and AtEnd.
	unjoined Count
	// late are the packets that had left the window when their reads came.
	late map[uint64]bool
	// unsure counts the reads that were compared with nothing because several packets have
	// the id that they name.
	unsure uint64
	// distant counts the reads that were compared with nothing because their packets lie too far back.
	distant uint64
	// talks are the connections, by the addresses of what comes, talkOrder those in the order of their first
	// packets, and further is all beyond their limit.
	talks     map[connection]*talk
	talkOrder []*talk
	further   *talk
	// strayed counts packets that came to the program which chooses a socket, and to no filter although the file
	// has what those saw.
	strayed uint64
	// fins and resets are those of Unseen, by whether a read returned them.
	fins, resets ends
	// process is the owner of the sockets, and names are those that it had; several says that
	// there are more owners, own that an interface names none.
	process      string
	names        []string
	several, own bool
	protocols    map[uint8]bool
	// filters are those that the sockets of interfaces had of their own at the last packet, and
	// unfiltered counts the packets that came while they had none.
	filters    map[*capture.Interface]string
	unfiltered Count
}

// ends are segments that end a stream.
type ends struct{ read, unread Count }

// view is the state of one view of a socket while its packets are read.
type view struct {
	out *View
	// ours is the first interface whose packets have the form that the Writer gives them.
	ours *capture.Interface
	// untimed says that it has no real times.
	untimed bool
	// mixed says that not all of its packets begin with the same layer.
	mixed bool
	// synthetic counts the packets with a synthetic IP header, and invented those of them
	// whose addresses are invented.
	synthetic, invented uint64
	// printed says that the packets were not recorded by a tap, but printed by a filter.
	printed bool
	// last is the interface of the last packet; made and invents tell whether it adds to
	// synthetic and invented.
	last          *capture.Interface
	made, invents bool
	// begun and ended are the times of its first and its last packet.
	begun, ended int64
	// strange says that its packets have another header than the one that the Writer
	// would add.
	strange bool
}

func newSocket(a *analysis, kind string) *socket {
	s := &socket{
		analysis: a, open: make(map[uint64]*entry), usual: -1,
		protocols: make(map[uint8]bool), ambiguous: make(map[uint64]bool), late: make(map[uint64]bool), out: &Socket{Kind: kind, Timed: true, Calls: &Calls{}, Connections: []*Connection{}},
	}
	if k, ok := capture.KindByName(kind); ok {
		s.out.Summary = k.Summary
		s.stream = k.Protocol() == header.ProtocolTCP
	}
	return s
}

// view returns the view of an interface, creating it if necessary.
func (s *socket) view(i *capture.Interface) *view {
	v := s.views[i.View]
	if v != nil && v.last == i {
		return v
	}
	if v == nil {
		v = &view{out: &View{Name: i.View.String(), Description: i.Description}}
		s.views[i.View] = v
		s.out.Views = append(s.out.Views, v.out)
		v.untimed = i.Times == capture.TimesNone
		s.out.Timed = s.out.Timed && i.Times == capture.TimesRecorded
	}
	v.take(i)
	if i.Filter != "" {
		s.hasFilter(i)
	}
	switch {
	case i.Process == "":
		s.own = true
	default:
		s.ownedBy(i.Process)
	}
	return v
}

// ownedBy notes an owner, such as "process 12 (nginx)". The number says which it is: a process gets
// another name when it runs another program.
func (s *socket) ownedBy(process string) {
	number, name, _ := strings.Cut(process, " (")
	name = strings.TrimSuffix(name, ")")
	switch {
	case s.process == "":
		s.process, s.names = number, []string{name}
	case s.process != number:
		s.several = true
	case len(s.names) < namesLimit && !slices.Contains(s.names, name):
		s.names = append(s.names, name)
	}
}

// take sets the interface of the next packets. A view may have several: of different
// sockets, or for either version of IP.
func (v *view) take(i *capture.Interface) {
	v.last = i
	v.printed = v.printed || i.Source == capture.SourceTrace
	synthetic := i.Header == capture.HeaderSynthetic || i.Header == capture.HeaderInvented
	v.made = i.Layer == capture.LayerTransport && synthetic
	v.strange = i.Layer == capture.LayerForeign || i.Layer != capture.LayerTransport && synthetic
	v.invents = v.made && i.Header == capture.HeaderInvented
	switch {
	case v.strange:
	case v.ours == nil:
		v.ours = i
	default:
		v.mixed = v.mixed || i.Layer != v.ours.Layer
	}
}

// summary is a few words about the sockets.
func (s *socket) summary() string {
	switch {
	case s.own || s.process == "":
		return s.out.Summary
	case s.several:
		return "sockets of several processes"
	}
	return "sockets of " + s.process + " (" + strings.Join(s.names, ", ") + ")"
}

func (v *view) count(p *capture.Packet) {
	if v.out.Packets == 0 {
		v.begun, v.ended = p.Time, p.Time
	}
	v.begun, v.ended = min(v.begun, p.Time), max(v.ended, p.Time)
	v.out.Packets++
	v.out.Bytes += uint64(max(p.Len, len(p.Data)))
	v.out.Drops += p.Drops
	if len(p.Data) < p.Len {
		v.out.Cut++
	}
	if v.made {
		v.synthetic++
	}
	if v.invents {
		v.invented++
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

// addStatistics adds an interface's statistics. Sockets of one kind can have several
// interfaces.
func (v *view) addStatistics(s capture.Statistics) {
	if v.out.Statistics == nil {
		v.out.Statistics = &Statistics{}
	}
	sum := v.out.Statistics
	sum.Received += s.Received
	sum.Delivered += s.Delivered
	sum.Dropped += s.Dropped
	sum.NotWanted += s.Unwanted
	sum.Accepted += s.Accepted
	sum.OSDropped += s.OSDropped
	if s.Comment != "" && sum.Comment != "" {
		sum.Comment += "\n"
	}
	sum.Comment += s.Comment
}

// kernelPacket handles a packet of the kernel's views.
func (s *socket) kernelPacket(p *capture.Packet) {
	if p.Interface.View == capture.ViewDrop {
		s.dropPacket(p)
		return
	}
	if p.Interface.View == capture.ViewCgroup && s.cgroupPacket(p) {
		return
	}
	if p.Interface.View == capture.ViewSelect {
		s.selectPacket(p)
		return
	}
	if p.Interface.View == capture.ViewWire {
		if p.ID != 0 { // else it passed the interface, and belongs to no packet
			s.wirePacket(p)
		}
		return
	}
	s.countAnswer(p)
	if p.Interface.View == capture.ViewKernel {
		s.countFilter(p)
	}
	e := s.find(p)
	if e == nil || e.seen[p.Interface.View] || e.departed {
		s.newPacket(p)
		return
	}
	s.sameView(e, p)
}

// sameView handles another view of a packet.
func (s *socket) sameView(e *entry, p *capture.Packet) {
	if p.Interface.View != capture.ViewWire && p.Interface.View != capture.ViewSelect && e.framed && !e.reached {
		s.reach(e, p)
	}
	e.seen[p.Interface.View] = true
	e.talk.filtered = e.talk.filtered || p.Interface.View == capture.ViewKernel
	before, agrees := e.compareView(p)
	if p.Interface.View == capture.ViewKernel {
		e.verdict = keptBytes(p.Verdict)
	}
	e.begins[p.Interface.View], e.agrees[p.Interface.View] = int32(before), agrees
	switch {
	case !agrees:
		s.views[p.Interface.View].out.Disagree++
	case p.Interface.View == capture.ViewKernel:
		e.offset0 = -before
		for v, agrees := range e.agrees {
			if agrees {
				s.views[v].before(int(e.begins[v]) + e.offset0)
			}
		}
	case e.seen[capture.ViewKernel]:
		s.views[p.Interface.View].before(before + e.offset0)
	}
	e.note(p, before, agrees)
}

func (s *socket) newPacket(p *capture.Packet) {
	d := dissect(p.Interface.Layer, p.Protocol, p.Data, p.Len)
	e := s.newEntry(p, &d)
	if p.Interface.View == capture.ViewKernel {
		s.views[capture.ViewKernel].before(0)
	}
	s.reach(e, p)
}

// newEntry enters a packet that came in, or that the filter saw.
func (s *socket) newEntry(p *capture.Packet, d *dissection) *entry {
	e := &entry{
		socket: s, id: p.ID, time: p.Time, direction: p.Direction, src: p.Src, dst: p.Dst,
		first: p.Interface, data: bytes.Clone(p.Data), length: max(p.Len, len(p.Data)),
		payload: d.payload, end: d.end, protocol: d.protocol, verdict: keptBytes(p.Verdict),
		framed: p.Interface.View == capture.ViewWire || p.Interface.View == capture.ViewSelect,
	}
	e.tcp, e.isTCP = d.tcp(p.Data)
	e.seen[p.Interface.View], e.agrees[p.Interface.View] = true, true
	s.highest = max(s.highest, p.ID)
	if p.ID != 0 && !s.twins.add(e) {
		s.out.Ambiguous.add(p.ID, uint64(e.length))
		if len(s.ambiguous) < rememberedIDs {
			s.ambiguous[p.ID] = true
		}
	}
	s.enter(e)
	e.talk.filtered = e.talk.filtered || p.Interface.View == capture.ViewKernel
	e.note(p, 0, true)
	return e
}

// reach counts a packet that came to the socket's filter or its hook, as this view has it.
func (s *socket) reach(e *entry, p *capture.Packet) {
	e.reached = true
	s.lastReached = e.number
	e.verdict = keptBytes(p.Verdict)
	if e.framed && p.Interface.View != capture.ViewWire {
		if e.first.View == capture.ViewWire {
			s.climbs.add(p.Time - e.time)
		}
		e.time = p.Time
	}
	if len(s.protocols) < 256 {
		s.protocols[e.protocol] = true
	}
	s.out.Packets++
	s.out.countMetadata(p)
	if s.stream && e.isTCP && e.verdict != 0 {
		s.streams.saw(e)
	}
}

// rememberedIDs bounds late.
const rememberedIDs = 1 << 12

// enter adds a new packet to the window.
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
	s.opens(e)
	s.analysis.enter(e)
}

// compareView returns how many bytes another view of the packet has before the first
// view, and whether both are equal from there on. All views of a packet end with the same
// byte.
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

// before records how far before offset 0 a view begins.
func (v *view) before(n int) {
	if v.out.Before == nil {
		v.out.Before = &Range{int64(n), int64(n)}
	}
	v.out.Before.Least, v.out.Before.Most = min(v.out.Before.Least, int64(n)), max(v.out.Before.Most, int64(n))
}

// userPacket handles what a read returned.
func (s *socket) userPacket(p *capture.Packet) {
	e := s.find(p)
	s.countAnswer(p)
	if p.Receipt.Belied && e != nil {
		e.verdict = keepAll
	}
	if p.Receipt.Peeked {
		s.out.Mapping.Peeks++
		if e != nil {
			e.noteComment(p)
		}
		return
	}
	s.reads++
	if e != nil {
		e.talk.reads(p)
	} else {
		s.talk(p.Direction, p.Src, p.Dst).reads(p)
	}
	s.out.Mapping.Reads++
	s.passOver(e, &p.Receipt.DroppedIDs)
	afar := s.readAfar(p)
	s.countDrops(p)
	bytesRead := p.Got()
	if bytesRead > 0 {
		s.out.Comparison.Reads++
		s.out.Comparison.Bytes += uint64(bytesRead)
	}
	switch {
	case failed(p):
		s.out.Mapping.Errors++
	case bytesRead == 0 && (s.stream || p.Receipt.End):
		s.out.Mapping.Ends++
	}
	s.out.Calls.count(p)
	if p.Receipt.Missing == capture.MissingBeforeTap {
		s.out.Mapping.Before++
		s.out.Comparison.Unknown++
		s.enterRead(p)
		return
	}
	known := false
	if s.stream {
		known = s.readStream(e, p)
	} else if e != nil {
		known = true
		s.readDatagram(e, p)
	}
	switch {
	case known:
		return
	case afar && bytesRead > 0:
		s.out.Comparison.Unknown++
		s.distant++
		return
	case afar:
		return
	}
	s.missed(p)
	if bytesRead > 0 {
		s.out.Comparison.Unknown++
	}
	s.enterRead(p)
}

// countDrops counts what was lost before a read. What the queue dropped is only told of a message whose packet
// is known: of others the count has both.
func (s *socket) countDrops(p *capture.Packet) {
	queue := min(p.Receipt.QueueDropped, p.Drops)
	s.out.Losses.Queue += queue
	if rest := p.Drops - queue; s.stream || p.ID != 0 {
		s.out.Losses.Calls += rest
	} else {
		s.out.Losses.QueueOrCalls += rest
	}
}

// missed counts why a read belongs to no packet in the window although it names one.
func (s *socket) missed(p *capture.Packet) {
	switch {
	case p.ID == 0 || p.ID > s.highest:
	case s.ambiguous[p.ID]:
		if p.Got() > 0 {
			s.unsure++
		}
	case s.open[p.ID] != nil: // of another capture
	default:
		s.out.Losses.Late++
		if p.Got() > 0 {
			s.distant++
		}
		if len(s.late) < rememberedIDs {
			s.late[p.ID] = true
		}
	}
}

// enterRead adds a read that belongs to no packet in the window as an entry of its own.
func (s *socket) enterRead(p *capture.Packet) {
	e := &entry{
		socket: s, id: p.ID, time: p.Time, direction: p.Direction, src: p.Src, dst: p.Dst,
		verdict: keepAll, delivered: true,
	}
	e.seen[capture.ViewUser] = true
	s.enter(e)
	e.addPart(p, s.reads, 0, 0, p.Got())
}

// passOver advances to the packet that was delivered, and marks those before it. dropped
// are those that the receive queue dropped; e is nil if the delivered packet is unknown.
func (s *socket) passOver(e *entry, dropped *capture.IDs) {
	if s.stream || e == nil {
		return
	}
	s.passAfar(e.number, dropped)
	// A packet that was overtaken may be before unpassed already.
	for s.unpassed != nil && s.unpassed.number < e.number {
		s.unpassed.passed = true
		s.unpassed.dropped = has(dropped, s.unpassed.id) && near(s.unpassed.dst, e.dst)
		s.unpassed = s.unpassed.next
	}
}

// settle takes a packet out of the window, and counts its fate unless a read may come.
func (s *socket) settle(e *entry) {
	if s.unpassed == e {
		s.unpassed = e.next
	}
	if s.newest == e {
		s.newest = nil
	}
	e.next = nil
	if s.waits(e) {
		s.putAfar(e)
		return
	}
	s.conclude(e)
}

// leaves forgets by what a packet would be found.
func (s *socket) leaves(e *entry) {
	s.closes(e)
	if e.pending {
		e.stream.forget(e)
	}
}

// conclude counts the fate of a packet.
func (s *socket) conclude(e *entry) {
	s.leaves(e)
	before := s.lost()
	fate, told := e.settle()
	if e.reason != "" && !e.lost {
		e.lose(laneDropped)
	}
	if choice := &s.analysis.options.Choice; e.shown != nil && choice.waits() {
		if choice.late(e, s.lost() > before) {
			s.analysis.choose(e)
		} else {
			e.shown = nil
		}
	}
	if e.shown != nil {
		e.show(fate)
		e.shown.told, e.shown.missed = told, s.lost() > before
	}
	e.data = nil
}

// finish completes the report on the socket.
func (s *socket) finish() {
	out := s.out
	if v := s.views[capture.ViewKernel]; v != nil {
		if v.ours != nil {
			out.Begins = layerNames[v.ours.Layer]
		}
		out.Synthetic = v.synthetic > 0 && v.synthetic == v.out.Packets
		out.Losses.Tap = s.lossOf(capture.ViewKernel)
	}
	out.Losses.Calls = s.lossOf(capture.ViewUser)
	if v := s.views[capture.ViewUser]; v != nil && v.out.Statistics != nil {
		out.Losses.Queue = max(out.Losses.Queue, v.out.Statistics.OSDropped)
		out.Losses.QueueOrCalls = 0 // the statistics tell them apart
	}
	s.finishSent()
	s.finishCgroup()
	s.finishDrops()
	s.finishWire()
	s.finishTalks()
	for protocol := range s.protocols {
		if protocol != 0 {
			out.Protocols = append(out.Protocols, protocolName(protocol))
		}
	}
	slices.SortFunc(out.Protocols, cmp.Compare)
	out.Protocols = out.Protocols[:min(len(out.Protocols), 8)]
	out.Summary = s.summary()
	if out.Calls.empty() {
		out.Calls = nil
	}
	if !s.user() {
		out.Delivered = Count{}
		out.Undelivered = Undelivered{ByFilter: out.Undelivered.ByFilter, ByKernel: out.Undelivered.ByKernel}
	}
	s.setApart()
	if out.Timed {
		out.Latency = s.latencies.latency()
	}
	out.Findings = s.findings()
}

// setApart counts by themselves the packets of which it is not certain that no read got them.
func (s *socket) setApart() {
	u := &s.out.Undelivered
	if s.user() && !s.paired() {
		u.NotKnown, u.PassedOver, u.AtEnd = s.unjoined, Count{}, Count{}
	}
}

var layerNames = map[capture.Layer]string{
	capture.LayerLink:      "link",
	capture.LayerNetwork:   "network",
	capture.LayerTransport: "transport",
	capture.LayerMessage:   "message",
}
