package explain

import (
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
	peeks            uint64
	usual            int // offset of the last read's bytes in its packet, from offset 0
	latencies        histogram
	lastReached      uint64    // number of the last packet that came to a filter or hook
	climbs           histogram // from an interface to the filter or hook
	// twins knows the packets that have the id of another one, and ambiguous are the ids of which it is not
	// certain whose they are.
	twins     twins
	ambiguous map[uint64]bool
	// unjoined are the packets of PassedOver and AtEnd, unfollowed those of sockets whose reads are not followed.
	unjoined, unfollowed Count
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
		if choice.late(e, s.lost() > before || e.trimmed()) {
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
	if unfollowed := s.unfollowed; s.user() {
		unfollowed.moveTo(&u.NotKnown)
	}
}

var layerNames = map[capture.Layer]string{
	capture.LayerLink:      "link",
	capture.LayerNetwork:   "network",
	capture.LayerTransport: "transport",
	capture.LayerMessage:   "message",
}
