package capture

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture/internal/pair"
)

// route says where a socket's packets go, and which Pairer pairs them with what userspace gets.
type route struct {
	kind        *Kind
	protocol    uint8
	netlink     uint16 // of a netlink socket
	outlet      *outlet
	pairer      pair.Pairer
	lost        uint64 // losses that the pairer was told of: it is not known whose they were
	carried     uint64 // losses before deliveries that were left out, and before sends
	carriedSent uint64

	// For a socket of another process with interfaces of its own, as far as it is known:
	cookie  uint64
	port    uint16
	address netip.Addr
	listens bool
}

func newRoute(kind *Kind, outlet *outlet) *route {
	return &route{kind: kind, protocol: kind.Protocol(), outlet: outlet, pairer: newPairer(kind)}
}

// setNetlink notes the protocol of a netlink socket.
func (r *route) setNetlink(protocol int) {
	if r.kind.domain == unix.AF_NETLINK {
		r.netlink = uint16(protocol)
	}
}

// newPairer makes the pairer for a kind.
func newPairer(kind *Kind) pair.Pairer {
	switch {
	case kind.stream && kind.Protocol() == unix.IPPROTO_TCP:
		return pair.NewStreams()
	case kind.stream:
		return pair.Nothing{} // its packets do not say where in the stream their bytes are
	}
	return &pair.Datagrams{HeaderLen: kind.headerLen, CountsFiltered: kind.countsFiltered(), Adopted: kind.adopts}
}

// at returns the lane of a view for a packet, nil if the view was not asked for.
func (r *route) at(view View, p *Packet) *lane { return r.outlet.at(view, p) }

// outlet is a set of interfaces of one socket, or shared by several.
type outlet struct {
	kind  *Kind
	tally tally
	lanes [ViewCount]*lane // nil where the view was not asked for
	// For packets of the other IP version: IPv4 ones of an IPv6 socket, IPv6 ones of a packet socket. In a
	// file, each interface has one link type. They are made when the first such packet comes.
	mapped [ViewCount]*lane
	// Those of the wire view, for each interface of the machine: of lanes, that view's is what they are
	// made of. They are made when the first frame comes.
	frames []framedLane
	// filter is the filter that the socket of the last packet had of its own, and filterText what to
	// say of it.
	filter     filterState
	filterText string
	whose      owner
	// unseen says that nothing records the packets of its sockets, as far as is known: none of them has got
	// the tap, and no hook sees them. The mutex of the roster guards it.
	unseen bool
	// untapped says that one of its sockets has not, or no more, the tap that it was to have.
	untapped atomic.Bool
}

// expects tells whether packets of a view can come.
func (pl *outlet) expects(v View, at *lane) bool {
	return !pl.unseen || at.handed > 0 || v != ViewKernel && v != ViewNet && v != ViewLink
}

// lane is one interface, and the counts of its packets.
type lane struct {
	Interface
	handed   uint64            // packets that were handed to it
	counted  uint64            // of handed: without peeks, and calls that returned no message
	filtered uint64            // packets that the verdict dropped
	written  uint64            // packets that the sink took
	reasons  map[string]uint64 // why the kernel has dropped the packets

	// filter is that of the last packet's socket, and described the one that the Interface tells of.
	filter, described filterState
}

// record counts a packet for the lane.
func (l *lane) record(verdict int32) {
	if verdict == 0 {
		l.filtered++
	}
}

func newOutlet(kind *Kind, views []View, decodeAs string, clockError int64) *outlet {
	p := &outlet{kind: kind}
	for _, v := range views {
		if (v == ViewCgroup || v == ViewWire || v == ViewDrop) && !kind.HasCgroupHooks() {
			continue
		}
		p.lanes[v] = &lane{Interface: kind.newInterface(v, clockError)}
	}
	if sent := p.lanes[ViewSent]; sent != nil && (p.lanes[ViewCgroup] != nil || p.lanes[ViewWire] != nil) && sent.Header == HeaderSegment {
		sent.Header = HeaderElsewhere
	}
	if user := p.lanes[ViewUser]; user != nil && readsSegments(views) && kind.segments() {
		user.Header = HeaderSegment
	}
	if kind.Counted() {
		p.streams(decodeAs)
	}
	return p
}

// streams prepares the views of unix streams: where what was sent is there, both directions are put
// together. No other view has the bytes.
func (pl *outlet) streams(decodeAs string) {
	for _, v := range []View{ViewUser, ViewSent} {
		at := pl.lanes[v]
		if at == nil {
			continue
		}
		at.DecodeAs = decodeAs
		if pl.lanes[ViewSent] != nil {
			at.Header = HeaderSegment
		}
	}
}

// readsSegments tells whether the user view is the other direction of the sent view. If a view of
// the kernel is there, that one is: twice the same bytes would look like a retransmission.
func readsSegments(views []View) bool {
	kernel := func(v View) bool { return v != ViewUser && v != ViewSent && v != ViewDrop }
	return slices.Contains(views, ViewSent) && !slices.ContainsFunc(views, kernel)
}

// owner is the descriptions of a process and of its sockets, for people.
type owner struct{ process, sockets string }

func (o owner) String() string { return o.process + ", " + o.sockets }

// describe replaces the description of whose packets the interfaces have.
func (pl *outlet) describe(whose owner) {
	pl.whose = whose
	for v, at := range pl.lanes {
		if at == nil {
			continue
		}
		at.Process, at.Sockets = whose.process, whose.sockets
		if m := pl.mapped[v]; m != nil {
			m.Process, m.Sockets = whose.process, whose.sockets
		}
	}
	for i := range pl.frames {
		pl.frames[i].Process, pl.frames[i].Sockets = whose.process, whose.sockets
	}
}

// at returns the lane of a view for a packet, whose addresses tell its IP version.
func (pl *outlet) at(view View, p *Packet) *lane {
	at, src := pl.lanes[view], p.Src.Addr()
	if at == nil || !src.IsValid() {
		return at
	}
	return pl.ofVersion(view, !src.Unmap().Is4() || at.IPv6 && !src.Is4())
}

// ofVersion returns the lane of a view for packets of an IP version, nil if the view was not asked for.
func (pl *outlet) ofVersion(view View, ipv6 bool) *lane {
	at := pl.lanes[view]
	if at == nil || at.IPv6 == ipv6 || at.Layer == LayerMessage || at.Layer == LayerLink {
		return at
	}
	m := pl.mapped[view]
	if m == nil {
		m = &lane{Interface: at.Interface, filter: at.described, described: at.described}
		m.IPv6 = ipv6
		pl.mapped[view] = m
	}
	return m
}
