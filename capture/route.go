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

// at is the interface of a view for a packet, nil if the view is not wanted.
func (r *route) at(view View, p *Packet) *Interface { return r.outlet.at(view, p) }

// outlet is a set of interfaces, one a view, that one socket or several share.
type outlet struct {
	interfaces map[View]*Interface
	// Where IPv4 packets of an IPv6 socket go: a file has one link type for each
	// interface. They are made when the first one comes.
	mapped map[View]*Interface
}

func newOutlet(kind *Kind, views []View, clockError int64) *outlet {
	p := &outlet{interfaces: make(map[View]*Interface), mapped: make(map[View]*Interface)}
	for _, v := range views {
		p.interfaces[v] = kind.newInterface(v, clockError)
	}
	return p
}

// describe adds to what the interfaces' descriptions say.
func (pl *outlet) describe(text string) {
	for _, i := range pl.interfaces {
		i.Description += "; " + text
	}
}

func (pl *outlet) at(view View, p *Packet) *Interface {
	i := pl.interfaces[view]
	if i == nil || !i.IPv6 || !p.Src.Addr().Is4() || i.Layer == LayerMessage || i.Layer == LayerLink {
		return i
	}
	m := pl.mapped[view]
	if m == nil {
		twin := *i
		twin.IPv6 = false
		twin.Description = strings.Replace(twin.Description, "IPv6 header", "IPv4 header", 1) + "; packets of the socket's IPv4 peers"
		m = &twin
		pl.mapped[view] = m
	}
	return m
}
