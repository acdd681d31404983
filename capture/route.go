package capture

import "strings"

// route is what becomes of a socket's packets: where they go, and who pairs
// them with what userspace gets.
type route struct {
	kind     *Kind
	protocol uint8
	outlet   *outlet
	pairer   pairer
	lost     uint64 // losses that the pairer knows of: whose they were nobody knows
}

func newRoute(kind *Kind, outlet *outlet) *route {
	return &route{kind: kind, protocol: kind.Protocol(), outlet: outlet, pairer: newPairer(kind)}
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

// describe adds to what the interfaces' descriptions say.
func (pl *outlet) describe(text string) {
	for _, at := range pl.lanes {
		if at != nil {
			at.Description += "; " + text
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
		m.Description = strings.Replace(m.Description, "IPv6 header", "IPv4 header", 1) + "; packets of the socket's IPv4 peers"
		pl.mapped[view] = m
	}
	return m
}
