package capture

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture/internal/pair"
)

// route is what becomes of a socket's packets: where they go, and who pairs
// them with what userspace gets.
type route struct {
	kind     *Kind
	protocol uint8
	outlet   *outlet
	pairer   pair.Pairer
	lost     uint64 // losses that the pairer knows of: whose they were nobody knows

	// Of a socket of another process with interfaces of its own, as far as it is known:
	cookie  uint64
	port    uint16
	address netip.Addr
	listens bool
}

func newRoute(kind *Kind, outlet *outlet) *route {
	return &route{kind: kind, protocol: kind.Protocol(), outlet: outlet, pairer: newPairer(kind)}
}

// newPairer makes the pairer for a kind.
func newPairer(kind *Kind) pair.Pairer {
	switch {
	case kind.stream && kind.Protocol() == unix.IPPROTO_TCP:
		return pair.NewStreams()
	case kind.stream:
		return pair.Nothing{} // its packets do not say where their bytes belong
	}
	return &pair.Datagrams{HeaderLen: kind.headerLen, CountsFiltered: kind.countsFiltered(), Adopted: kind.adopts}
}

// at is the lane of a view for a packet, nil if the view is not wanted.
func (r *route) at(view View, p *Packet) *lane { return r.outlet.at(view, p) }

// outlet is a set of interfaces that one socket or several share.
type outlet struct {
	kind  *Kind
	tally tally
	lanes [viewCount]*lane // nil where the view is not wanted
	// Where IPv4 packets of an IPv6 socket go: a file has one link type for each
	// interface. They are made when the first one comes.
	mapped [viewCount]*lane
}

// lane is where packets of one view go.
type lane struct {
	Interface
	handed   uint64 // packets that went there
	counted  uint64 // of handed: without peeks, and calls that returned no message
	filtered uint64 // packets that the verdict dropped
	written  uint64 // packets that the sink took
}

// record counts a packet that was meant for the lane.
func (l *lane) record(verdict int32) {
	if verdict == 0 {
		l.filtered++
	}
}

func newOutlet(kind *Kind, views []View, clockError int64) *outlet {
	p := &outlet{kind: kind}
	for _, v := range views {
		p.lanes[v] = &lane{Interface: kind.newInterface(v, clockError)}
	}
	return p
}

// owner is a process, and which of its sockets, both for people.
type owner struct{ process, sockets string }

func (o owner) String() string { return o.process + ", " + o.sockets }

// describe says whose packets the interfaces have, in place of what it said before.
func (pl *outlet) describe(whose owner) {
	for v, at := range pl.lanes {
		if at == nil {
			continue
		}
		at.Process, at.Sockets = whose.process, whose.sockets
		if m := pl.mapped[v]; m != nil {
			m.Process, m.Sockets = whose.process, whose.sockets
		}
	}
}

func (pl *outlet) at(view View, p *Packet) *lane {
	at := pl.lanes[view]
	if at == nil || !at.IPv6 || !p.Src.Addr().Is4() || at.Layer == LayerMessage || at.Layer == LayerLink {
		return at
	}
	m := pl.mapped[view]
	if m == nil {
		m = &lane{Interface: at.Interface}
		m.IPv6 = false
		pl.mapped[view] = m
	}
	return m
}
