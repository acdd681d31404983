package capture

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/pair"
	"github.com/ebpfdump/ebpfdump/capture/internal/process"
)

const (
	// ownPlaces is how many sockets get interfaces of their own; further ones share those of
	// their kind.
	ownPlaces = 64
	// routesLimit bounds the datagram sockets that are remembered.
	routesLimit = 1 << 14
	// connectedLimit bounds the connections that are remembered because they were found.
	connectedLimit = 1 << 16
)

// roster is the register of other processes' sockets: which interfaces their packets go to, and
// which Pairer pairs them. A record or an event describes its socket well enough to enter it,
// so that nothing has to be looked up when the first packet comes.
//
// The collector looks up and enters routes, the scanner enters the sockets that it finds; mu
// guards the register, and is never held during a system call. Other fields of routes and
// outlets belong to the collector's goroutine.
type roster struct {
	views      []View
	clockError int64
	decodeAs   string          // of Options; likewise
	expression *bpf.Expression // nil if there is none
	whose      string          // the process that is followed, for people; set before the first socket is entered
	named      map[int]string  // the processes that the user has named, by number; likewise
	streams    *pair.Streams   // the Pairer of all TCP connections
	room       pair.Room       // of all datagram sockets, for deep queues

	mu sync.Mutex
	// Sockets without a cookie are in none of those that are by cookie: 0 is that of many.
	own     map[uint64]*route // by cookie: of listeners, bound sockets, and those that have the tap
	shared  map[*Kind]*route  // by kind: of all other sockets
	recent  map[uint64]*route // by cookie: of datagram sockets that share interfaces, because each has its own queue
	earlier map[uint64]*route // the previous generation of recent
	texts   map[text]owner    // of MPTCP listeners: their packets have other sockets
	// wrapped are the packet sockets whose filters run inside the tap, by the key of the filter: a
	// packet's own socket, if it has one, is that of who sent it.
	wrapped map[uint64]*route
	outlets []*outlet
	owned   int
	sockets []string // descriptions of the sockets that were found, for people
	// connected are the courses whose receivers were found.
	connected map[course]struct{}
	mapped    atomic.Bool
}

func newRoster(views []View, clockError int64) *roster {
	r := &roster{
		views: views, clockError: clockError, streams: pair.NewStreams(),
		own: make(map[uint64]*route), shared: make(map[*Kind]*route),
		recent: make(map[uint64]*route), earlier: make(map[uint64]*route), texts: make(map[text]owner),
		connected: make(map[course]struct{}), wrapped: make(map[uint64]*route),
	}
	return r
}

// text identifies the listeners whose description is the same: those of a kind at a port.
type text struct {
	kind *Kind
	port uint16
}

// identity is how the kernel describes a socket in each record and event.
type identity struct {
	family, typ, protocol int
	listening             bool
	local, peer           uint16 // ports
}

func (id *identity) kind() *Kind { return kindOf(id.family, id.typ, id.protocol) }

// ofRecord finds the route of a packet. nil is for a socket with the tap that is not known any
// more.
func (r *roster) ofRecord(rec *bpf.Record) *route {
	id := identity{
		family: int(rec.Family), typ: int(rec.Type), protocol: int(rec.SocketProtocol),
		listening: rec.State == tcpListen, local: rec.LocalPort, peer: rec.PeerPort,
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec.Family == 0 {
		return r.ofTap(rec)
	}
	if known := r.own[rec.Origin]; known != nil {
		return known
	}
	return r.of(rec.Origin, id)
}

// ofTap finds the route of a packet that the tap has recorded, in which only the cookie
// identifies the socket: one that the scanner has found, or a connection that inherited the tap
// from its listener.
func (r *roster) ofTap(rec *bpf.Record) *route {
	if known := r.wrapped[rec.Filter]; known != nil {
		return known
	}
	if known := r.own[rec.Cookie]; known != nil {
		return known
	}
	if known := r.remembered(rec.Cookie); known != nil {
		return known
	}
	p := Packet{Protocol: unix.IPPROTO_TCP} // as over IPv6, where address does not look for it
	address(&p, rec, LayerTransport)
	if !p.Dst.IsValid() {
		return nil
	}
	for i := range kinds {
		// A listener over IPv6, behind that over IPv4 in the table, may have taken it as well.
		if k := &kinds[i]; k.stream && k.Protocol() == p.Protocol {
			if at := r.listenerOf(p.Dst, k); at != nil {
				return at
			}
		}
	}
	return nil
}

// tcpListen is the state of a listening socket, TCP_LISTEN of the kernel.
const tcpListen = 10

// ofEvent finds the route of a delivery, as far as its socket alone determines it: a
// connection's listener is found by its packets. nil is for a socket of no Kind.
func (r *roster) ofEvent(e *bpf.Event) *route {
	id := identity{
		family: int(e.Family), typ: int(e.Type), protocol: int(e.Protocol),
		listening: e.State == tcpListen, local: e.LocalPort, peer: e.PeerPort,
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.own[e.Cookie]; known != nil {
		return known
	}
	if e.Type == unix.SOCK_STREAM && !id.listening && e.LocalPort != 0 {
		if at := r.listenerOf(e.Local(), id.kind()); at != nil {
			return at
		}
	}
	return r.of(e.Cookie, id)
}

// listenerOf finds the listener of a kind that accepts connections to an address: the one bound
// to it, or else one bound to any address. It is only a guess where several share a port, and
// only for connections of which no packet has been seen.
func (r *roster) listenerOf(local netip.AddrPort, kind *Kind) (found *route) {
	for _, own := range r.own {
		if own.port != local.Port() || !own.listens || own.kind != kind {
			continue
		}
		if found == nil || own.address == local.Addr() {
			found = own
		}
	}
	return found
}

// of finds or makes the route of a socket without interfaces of its own. A listener, or a bound
// socket without a peer, gets its own if there is room.
func (r *roster) of(cookie uint64, id identity) *route {
	kind := id.kind()
	switch {
	case kind == nil:
		return nil
	case cookie == 0:
		// It gets one with its mark or its tap, so no filter has seen what it has got.
		return r.sharedRoute(kind)
	}
	if known := r.remembered(cookie); known != nil {
		return known
	}
	if (id.listening || !kind.stream && id.peer == 0 && id.local != 0) && r.owned < ownPlaces {
		whose, known := r.texts[text{kind, id.local}]
		if !known {
			whose = owner{r.whose, fmt.Sprintf("on port %d", id.local)} // until the scanner or an event describes it
		}
		own := r.enter(cookie, kind, id.protocol, whose)
		own.port, own.listens = id.local, id.listening
		return own
	}
	shared := r.sharedRoute(kind)
	if kind.stream {
		return shared
	}
	own := r.newRoute(kind, shared.outlet)
	r.remember(cookie, own)
	return own
}

// sharedRoute is the route of the sockets of a kind that have no interfaces of their own.
func (r *roster) sharedRoute(kind *Kind) *route {
	shared := r.shared[kind]
	if shared == nil {
		shared = r.newRoute(kind, r.newOutlet(kind, owner{r.whose, "its other sockets"}))
		r.shared[kind] = shared
	}
	return shared
}

// remembered finds the route of a datagram socket that was seen recently.
func (r *roster) remembered(cookie uint64) *route {
	if known := r.recent[cookie]; known != nil {
		return known
	}
	known := r.earlier[cookie]
	if known != nil {
		r.remember(cookie, known)
	}
	return known
}

func (r *roster) remember(cookie uint64, known *route) {
	if len(r.recent) >= routesLimit/2 {
		r.earlier, r.recent = r.recent, make(map[uint64]*route)
	}
	r.recent[cookie] = known
}

// enter gives a socket interfaces of its own.
func (r *roster) enter(cookie uint64, kind *Kind, protocol int, whose owner) *route {
	r.owned++
	own := r.newRoute(kind, r.newOutlet(kind, whose))
	own.cookie = cookie
	if kind.TakesProtocol() {
		own.protocol = uint8(protocol)
	}
	own.setNetlink(protocol)
	r.own[cookie] = own
	return own
}

func (r *roster) newRoute(kind *Kind, at *outlet) *route {
	own := newRoute(kind, at)
	if !slices.Contains(r.views, ViewUser) {
		own.pairer = pair.Nothing{}
	}
	switch p := own.pairer.(type) {
	case *pair.Streams:
		own.pairer = r.streams
	case *pair.Datagrams:
		p.Uncounted, p.Room = true, &r.room
	}
	return own
}

func (r *roster) newOutlet(kind *Kind, whose owner) *outlet {
	views := r.views
	if !kind.ReadsFollowed() {
		views = slices.DeleteFunc(slices.Clone(views), func(v View) bool { return v == ViewUser })
	}
	at := newOutlet(kind, views, r.decodeAs, r.clockError)
	at.unseen = !kind.HasCgroupHooks()
	at.chosenBy(r.expression)
	at.describe(whose)
	r.outlets = append(r.outlets, at)
	return at
}

// add enters a socket that the scanner has found, and tells whether it is new. whose is called
// for its description, if it gets interfaces of its own.
func (r *roster) add(found *foreign, whose func() owner, tapped bool) bool {
	kind := found.kind()
	r.mu.Lock()
	defer r.mu.Unlock()
	if kind != nil && kind.Protocol() == unix.IPPROTO_TCP && found.peer.IsValid() && len(r.connected) < connectedLimit {
		r.connected[course{found.peer, found.local}] = struct{}{}
	}
	if found.cookie == 0 || r.own[found.cookie] != nil || kind == nil {
		return false
	}
	bound := found.local.Port() != 0 || found.domain == unix.AF_UNIX
	mptcp := found.protocol == unix.IPPROTO_MPTCP
	if found.listening && mptcp {
		r.texts[text{kind, found.local.Port()}] = whose()
		return true
	}
	single := tapped || found.listening || bound && !kind.stream && !found.peer.IsValid()
	switch {
	case !single || r.remembered(found.cookie) != nil:
	case r.owned < ownPlaces:
		own := r.enter(found.cookie, kind, found.protocol, whose())
		own.port, own.address, own.listens = found.local.Port(), found.local.Addr(), found.listening
		own.outlet.unseen = own.outlet.unseen || tapped
	case tapped:
		shared := r.newRoute(kind, r.sharedRoute(kind).outlet)
		shared.setNetlink(found.protocol)
		r.remember(found.cookie, shared)
	}
	return true
}

// news enters a listener or a bound socket that a system call reported. Its first packet may
// have been seen by then, but has not been written.
func (r *roster) news(e *bpf.Event) {
	kind := kindOf(int(e.Family), int(e.Type), int(e.Protocol))
	listens := e.Kind() == bpf.CallListen
	if kind == nil || kind.stream != listens || e.Cookie == 0 {
		return // one without a cookie the scanner enters when it has one
	}
	what := "on"
	if listens {
		what = "listening on"
	}
	whose := owner{r.caller(e), fmt.Sprintf("descriptor %d, %s %s", e.Fd, what, e.Local())}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Protocol == unix.IPPROTO_MPTCP {
		r.texts[text{kind, e.LocalPort}] = whose
		for _, own := range r.own {
			if own.port == e.LocalPort && own.kind == kind {
				own.outlet.describe(whose)
			}
		}
		return
	}
	own := r.own[e.Cookie]
	if own == nil && r.owned < ownPlaces && r.remembered(e.Cookie) == nil {
		own = r.enter(e.Cookie, kind, int(e.Protocol), whose)
	}
	if own != nil {
		own.outlet.describe(whose)
		own.port, own.address, own.listens = e.LocalPort, e.Local().Addr(), listens
	}
}

// caller is the process that made a call, for people. The kernel tells the name of the thread, which
// is the process's only if it is the first thread.
func (r *roster) caller(e *bpf.Event) string {
	if text, ok := r.named[int(e.Pid)]; ok && e.Tid != e.Pid {
		return text
	}
	return (&process.Process{PID: int(e.Pid), Command: e.Command()}).String()
}

// receives tells whether the receiver of a course was found among the sockets that are followed.
func (r *roster) receives(c course) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, found := r.connected[c]
	return found
}

// recorded notes that a socket has got the tap.
func (r *roster) recorded(cookie uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := cmp.Or(r.own[cookie], r.remembered(cookie)); known != nil {
		known.outlet.unseen = false
	}
}

// leavesReads tells whether there are sockets whose packets are recorded and whose reads are not followed.
func (r *roster) leavesReads() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.outlets, func(at *outlet) bool { return !at.kind.ReadsFollowed() && !at.unseen })
}

// list adds the description of a socket for Sockets.
func (r *roster) list(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sockets = append(r.sockets, text)
}

func (r *roster) listed() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(slices.Values(r.sockets))
}

func (r *roster) listOutlets() []*outlet {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.outlets)
}

// hasKind tells whether there are interfaces for sockets of a family and type.
func (r *roster) hasKind(domain, typ int) bool {
	return slices.ContainsFunc(r.listOutlets(), func(at *outlet) bool { return at.kind.domain == domain && at.kind.typ == typ })
}

// outletOf returns the outlet of a socket, if it has interfaces of its own.
func (r *roster) outletOf(cookie uint64) *outlet {
	r.mu.Lock()
	defer r.mu.Unlock()
	if own := r.own[cookie]; own != nil {
		return own.outlet
	}
	return nil
}

// hasFilter describes the filter that a socket has of its own, if it has interfaces of its own of
// which there is no packet yet. It returns what has them, nil if nothing does.
func (r *roster) hasFilter(cookie uint64, is filterState, words string) *outlet {
	r.mu.Lock()
	defer r.mu.Unlock()
	own := r.own[cookie]
	if own == nil || own.outlet.filter.key != 0 {
		return nil
	}
	own.outlet.filter, own.outlet.filterText = is, words
	own.outlet.hasFilter(is, words)
	return own.outlet
}

// wraps notes that a packet socket's filter runs inside the tap.
func (r *roster) wraps(cookie, key uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if own := cmp.Or(r.own[cookie], r.remembered(cookie)); own != nil {
		r.wrapped[key] = own
	}
}

// eachLane calls do for every interface for which something can come.
func (r *roster) eachLane(do func(*lane)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, at := range r.outlets {
		for _, v := range r.views {
			at.each(v, func(l *lane) {
				if at.expects(v, l) {
					do(l)
				}
			})
		}
	}
}

// kindOf finds the Kind of a socket, nil if there is none.
func kindOf(domain, typ, protocol int) *Kind {
	if protocol == unix.IPPROTO_MPTCP {
		protocol = unix.IPPROTO_TCP // what it speaks with ordinary peers
	}
	for i := range kinds {
		k := &kinds[i]
		if k.domain == domain && k.typ == typ && (k.protocol == protocol || k.protocol == 0) {
			return k
		}
	}
	return nil
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	if !a.IsValid() {
		return a
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
