package capture

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/pair"
)

// Selection is how a socket of a reuseport group was chosen for a packet (select view only).
type Selection struct {
	// Sockets is how many the group has; 0 if nothing is known.
	Sockets int
	// How says who chose.
	How Selector
	// Socket is the number of the chosen one, from 0 on in the order in which they were bound, and
	// Cookie its SO_COOKIE. Both are 0 unless How is SelectorProgram; Cookie also in packets that were
	// read from a file.
	Socket int
	Cookie uint64
	// Asked is the number that the program asked for in vain, and Errno why, 0 if there is no socket
	// of that number. They say nothing unless Refused.
	Refused bool
	Asked   uint32
	Errno   syscall.Errno
}

// Selector is who chooses a socket of a reuseport group.
type Selector uint8

const (
	// SelectorUnknown: it cannot be told, since a program chose from a map without indexes.
	SelectorUnknown Selector = iota
	// SelectorProgram: the program has named the socket.
	SelectorProgram
	// SelectorHash: the kernel takes one by the hash of the packet's addresses and ports, because the
	// program named none, or none that there is.
	SelectorHash
	// SelectorDrop: the program had the packet dropped.
	SelectorDrop
)

// MaxReuseport is the most sockets of a reuseport group.
const MaxReuseport = 128

// portGroup is the sockets of a reuseport group, in the order in which they were bound.
type portGroup struct {
	selector *bpf.Selector // nil if the kernel's hash chooses
	sockets  []*socket
	byCookie map[uint64]int
	filters  bool // the selector is a socket filter
	tells    bool // a record tells all that the program asks for
	home     *route
	lane     *lane // of the select view; nil if that was not asked for
	lost     losses
	drops    uint64 // losses since the last packet of the view
	last     []chosenPacket
}

// chosenPacket is a packet of the select view that no socket's filter has seen yet, by cpu: the kernel runs
// the filter of the chosen socket immediately after the selection, on the same cpu.
type chosenPacket struct {
	id, cookie uint64 // id is 0 if there is none; cookie is 0 if the program has not named the socket
	length     int    // from the transport header on
	from       int    // where the bytes are, from there on
	bytes      []byte // the first ones
}

// selectedBytes is how many bytes tell a packet from another one.
const selectedBytes = 64

// checkGroup refuses a Config whose group cannot be opened.
func (c *Config) checkGroup() error {
	switch {
	case c.Reuseport == 0 && c.Selection == nil && !c.wants(ViewSelect):
		return nil
	case c.Reuseport < 1 || c.Reuseport > MaxReuseport:
		return fmt.Errorf("opening a reuseport group: Config.Reuseport is %d: it must be from 1 to %d", c.Reuseport, MaxReuseport)
	case !c.Kind.CanReuseport():
		return fmt.Errorf("opening a reuseport group: which socket gets a packet can be told of UDP alone, and not of a %s", c.Kind.Summary)
	case c.wants(ViewSelect) && c.Selection == nil:
		return fmt.Errorf("opening a reuseport group: the view %v is what a Config.Selection sees, and there is none", ViewSelect)
	case c.wants(ViewSelect) && c.Expression != nil && c.Selection.Filters():
		return fmt.Errorf("opening a reuseport group: a socket filter that chooses sees no ports, by which an Expression may choose: the view %v does not go with it", ViewSelect)
	}
	return nil
}

// CanReuseport tells whether a reuseport group of the kind's sockets can be opened.
func (k *Kind) CanReuseport() bool { return k.protocol == unix.IPPROTO_UDP }

// openGroup opens the sockets of a reuseport group. None of them gets a packet before all of them and
// the program that chooses are in place.
func (s *Session) openGroup() (err error) {
	g := &portGroup{byCookie: make(map[uint64]int)}
	s.group = g
	if s.config.Selection != nil {
		record := s.config.wants(ViewSelect)
		g.filters, g.tells = s.config.Selection.Filters(), s.config.Selection.Tells()
		g.selector, err = s.tap.OpenSelector(s.config.Selection, s.config.Reuseport, record)
		if missing := (*bpf.MissingError)(nil); errors.As(err, &missing) && record {
			missing.Otherwise = cmp.Or(missing.Otherwise, "choose views without select")
		}
		if err != nil {
			return err
		}
	}
	config := s.config
	prepare := config.Prepare
	config.Prepare = func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return fmt.Errorf("setting SO_REUSEPORT: %w", err)
		}
		if prepare != nil {
			return prepare(fd)
		}
		return nil
	}
	for range s.config.Reuseport {
		member, err := openSocket(&config, s.tap.Rejection(), s.tap.Rejection())
		if err != nil {
			return err
		}
		s.keep(member)
		g.byCookie[member.cookie] = len(g.sockets)
		g.sockets = append(g.sockets, member)
		config.Listen = member.local // if the kernel has chosen the port
	}
	s.main = g.sockets[0]
	if err := g.attach(); err != nil {
		return err
	}
	for _, member := range g.sockets {
		if err := member.begin(s.config.Filter); err != nil {
			return err
		}
	}
	return nil
}

// attach puts the selector in place.
func (g *portGroup) attach() error {
	if g.selector == nil {
		return nil
	}
	var fds []int
	var fill func(left []*socket) error
	fill = func(left []*socket) error {
		if len(left) == 0 {
			return errors.Join(g.selector.Fill(fds), g.selector.Attach(fds[0]))
		}
		return left[0].control(func(fd int) error {
			fds = append(fds, fd)
			return fill(left[1:])
		})
	}
	return fill(g.sockets)
}

// begin lets a socket that has rejected everything get packets.
func (s *socket) begin(filter Filter) error {
	return s.control(func(fd int) error {
		if err := empty(fd); err != nil {
			return err
		}
		s.before.low = queueDrops(fd)
		if err := filter.Attach(fd); err != nil {
			return err
		}
		s.before.high = queueDrops(fd)
		return nil
	})
}

// join makes a route for each socket of a group.
func (o *own) join(g *portGroup, config *Config, clockError int64) {
	g.home = o.home
	for i, member := range g.sockets {
		r := o.home
		if i > 0 {
			r = o.newRoute(config, clockError)
			r.outlet.lanes[ViewSelect] = nil // the group has one
		} else if at := r.outlet.lanes[ViewSelect]; at != nil {
			g.lane = at
			if g.filters {
				at.Layer, at.Header = LayerMessage, HeaderRecorded
			}
		}
		if q, ok := r.pairer.(*pair.Datagrams); ok {
			q.Shared = true
		}
		r.cookie = member.cookie
		r.outlet.member(i, len(g.sockets))
		o.members = append(o.members, r)
	}
	o.group = g
}

// member names the outlet's interfaces after a socket of a group.
func (pl *outlet) member(i, of int) {
	for v, at := range pl.lanes {
		// What is on an interface, or dropped, may be nobody's of the group.
		if at != nil && View(v) != ViewWire && View(v) != ViewDrop {
			at.Member, at.Members = i, of
		}
	}
}

// routeOfSocket is the route of what a socket of ours got.
func (o *own) routeOfSocket(s *socket) *route {
	if o.group != nil {
		if i, ok := o.group.byCookie[s.cookie]; ok {
			return o.members[i]
		}
	}
	return o.home
}

// chosen processes what a selector has recorded.
func (c *collector) chosen(g *portGroup) {
	rec := &c.record
	g.drops += g.lost.since(rec.Cpu, rec.Lost)
	if c.full() {
		c.after.selected.count(rec)
		return // it is later than the last packet that was asked for
	}
	choice, _ := rec.Chosen()
	wholeOf(rec)
	if !c.wantsChosen(rec) {
		c.unselected.all.Add(1)
		if rec.Verdict != bpf.Passes {
			c.unselected.dropped.Add(1)
		}
		g.saw(rec.Cpu, chosenPacket{}) // the filter of its socket has it next
		return
	}
	id := c.newID
	if !g.filters {
		id = func() uint64 { return c.sightings.chosen(rec, c.newID) }
	}
	s := g.selection(rec, choice)
	p := &c.packet
	*p = Packet{
		Time: c.clock.wall(int64(rec.Time)), ID: id(), Direction: Inbound, Protocol: unix.IPPROTO_UDP, Meta: metaOf(rec), Selection: s,
		Data: rec.Data, Len: int(rec.Len), Drops: g.drops,
	}
	before := 0 // the bytes
	if g.filters {
		before = g.home.kind.headerLen
	}
	if g.filters {
		p.Src, p.Dst = addressesIn(rec.NetHeader(), g.sockets[0].local.Port())
	} else {
		address(p, rec, LayerTransport)
	}
	p.Truncated = len(p.Data) == c.snaplen && p.Len > c.snaplen
	g.saw(rec.Cpu, chosenPacket{p.ID, s.Cookie, before + p.Len, before, p.Data[:min(len(p.Data), selectedBytes)]})
	at := g.home.at(ViewSelect, p)
	g.drops = 0
	c.counts[ViewSelect].Add(1)
	c.add(p, at, true)
	p.Truncated, p.Drops, p.Selection = false, 0, Selection{}
}

// unselected counts what the expression leaves out of the select view, which has no place for it in the kernel: of
// all, those that the program has dropped as well.
type unselected struct{ all, dropped atomic.Uint64 }

// wantsChosen asks the expression about a packet that a program has seen from the transport header on.
func (c *collector) wantsChosen(rec *bpf.Record) bool {
	if c.expression == nil {
		return true
	}
	n, ok := netHeaderLen(rec.NetHeader())
	if !ok {
		return false
	}
	c.asked = append(append(c.asked[:0], rec.NetHeader()[:n]...), rec.Data...)
	return c.expression.Wants(c.asked, n+int(rec.Len))
}

// selection finds out what became of a packet.
func (g *portGroup) selection(rec *bpf.Record, choice bpf.Chosen) Selection {
	s := Selection{Sockets: len(g.sockets), How: SelectorHash}
	named := func(number int64) {
		if number < 0 || number >= int64(len(g.sockets)) {
			s.Refused, s.Asked = true, uint32(number)
			return
		}
		s.How, s.Socket, s.Cookie = SelectorProgram, int(number), g.sockets[number].cookie
	}
	if g.filters {
		named(int64(uint32(rec.Verdict)))
		return s
	}
	switch {
	case rec.Verdict != bpf.Passes:
		s.How = SelectorDrop
	case !g.tells:
		s.How = SelectorUnknown
	case choice.Calls > 0 && choice.Errno != 0:
		s.Refused, s.Asked, s.Errno = true, choice.Index, choice.Errno
	case choice.Calls > 0:
		named(int64(choice.Index))
	}
	return s
}

// saw keeps a packet until the filter of its socket has seen it.
func (g *portGroup) saw(cpu uint32, p chosenPacket) {
	for int(cpu) >= len(g.last) {
		g.last = append(g.last, chosenPacket{})
	}
	at := &g.last[cpu]
	p.bytes = append(at.bytes[:0], p.bytes...)
	*at = p
}

// claim returns the id of the packet of a record, as it was in the select view; 0 if that is not certain.
func (g *portGroup) claim(rec *bpf.Record) uint64 {
	if int(rec.Cpu) >= len(g.last) {
		return 0
	}
	at := &g.last[rec.Cpu]
	id := at.id
	at.id = 0
	if at.cookie != 0 && at.cookie != rec.Cookie || at.length != int(rec.Len) {
		return 0
	}
	data := rec.Data[min(at.from, len(rec.Data)):]
	if n := min(len(data), len(at.bytes)); !bytes.Equal(data[:n], at.bytes[:n]) {
		return 0
	}
	return id
}

// nextID is the id of a packet that arrives at a socket: the one that it has in the select view, or
// a new one.
func (c *collector) nextID(rec *bpf.Record) uint64 {
	if o, ours := c.origin.(*own); ours && o.group != nil && rec.Hook != bpf.HookEgress {
		if id := o.group.claim(rec); id != 0 {
			return id
		}
	}
	return c.newID()
}

// addressesIn are the addresses in a network header, with the port that the packet is for.
func addressesIn(net []byte, port uint16) (src, dst netip.AddrPort) {
	switch {
	case len(net) >= 20 && net[0]>>4 == 4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(net[12:16])), 0), netip.AddrPortFrom(netip.AddrFrom4([4]byte(net[16:20])), port)
	case len(net) >= 40 && net[0]>>4 == 6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(net[8:24])), 0), netip.AddrPortFrom(netip.AddrFrom16([16]byte(net[24:40])), port)
	}
	return src, dst
}
