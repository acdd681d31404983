package capture

import (
	"cmp"
	"errors"
	"hash/maphash"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/pair"
)

// The cgroup view is made of what the cgroup hooks record. What a joined process receives is
// recorded there anyway, and the kernel view is the same record from offset 0 on. Sockets that
// have the tap as well have two records of each packet: all of them, or those with a filter inside of it.

// cgroupHooks is what the collector knows of the hooks.
type cgroupHooks struct {
	beside      *beside // nil if what arrives has one record
	single      bool    // with beside: what has HookIngress has one record nevertheless
	lostArrived losses  // beside the tap
	lostSingle  losses
	lostSent    losses
	drops       uint64        // losses since the last packet of the view
	sent        atomic.Uint64 // packets of the view that were sent
}

// beside joins the two records of a packet, of the hook and of the tap. The kernel runs one
// immediately after the other, so the tap's record belongs to the last one of the hook on its
// cpu, unless either is lost.
type beside struct {
	seed maphash.Seed
	last []unclaimed // by cpu
}

// unclaimed is a record of the hook to which the tap's has not come yet.
type unclaimed struct {
	id, cookie uint64 // id is 0 if there is none
	length     uint32 // from offset 0 on
	bytes      uint64 // a hash
}

func newBeside() *beside { return &beside{seed: maphash.MakeSeed()} }

func (b *beside) of(cpu uint32) *unclaimed {
	for int(cpu) >= len(b.last) {
		b.last = append(b.last, unclaimed{})
	}
	return &b.last[cpu]
}

// saw takes a record of the hook, from offset 0 on.
func (b *beside) saw(rec *bpf.Record, id uint64) {
	*b.of(rec.Cpu) = unclaimed{id, rec.Cookie, rec.Len, maphash.Bytes(b.seed, rec.Data)}
}

// claim returns the id of the packet of a record of the tap, 0 if that is not certain. lost says
// that the tap has lost packets of the cpu before this one.
func (b *beside) claim(rec *bpf.Record, lost bool) uint64 {
	at := b.of(rec.Cpu)
	found := *at
	at.id = 0
	if lost || found.cookie != rec.Cookie || found.length != rec.Len || found.bytes != maphash.Bytes(b.seed, rec.Data) {
		return 0
	}
	return found.id
}

// wholeOf takes what comes before the filter's offset 0 off a record, and returns the record's
// bytes with that, and the length of the packet.
func wholeOf(rec *bpf.Record) (whole []byte, length int) {
	whole, length = rec.Data, int(rec.Len)
	before := min(int(rec.Before), len(whole))
	rec.Data = whole[before:]
	rec.Len -= uint32(before)
	rec.Caplen -= uint32(before)
	return whole, length
}

// newID numbers the packets in the order of their times, whichever view they are in.
func (c *collector) newID() uint64 {
	c.ids++
	return c.ids
}

// idOf is the id of a packet of the kernel view.
func (c *collector) idOf(rec *bpf.Record, lost uint64, whole []byte, length int, layer Layer) uint64 {
	if b := c.hooks.beside; b != nil && rec.Hook == bpf.HookFilter {
		if id := b.claim(rec, lost > 0); id != 0 {
			return id
		}
	}
	return c.sightings.arrives(rec, whole, length, layer, func() uint64 { return c.nextID(rec) })
}

// arrived processes what the hook has recorded of a packet that arrives at a socket with the tap.
func (c *collector) arrived(whole []byte, length int) {
	rec := &c.record
	c.hooks.drops += c.hooks.lostArrived.since(rec.Cpu, rec.Lost)
	r := c.hooked(&c.after.ingress)
	if r == nil {
		return
	}
	c.packet.Direction = direction(rec.PktType)
	c.packet.ID = c.sightings.arrives(rec, whole, length, r.kind.layer, func() uint64 { return c.nextID(rec) })
	c.hooks.beside.saw(rec, c.packet.ID)
	c.cgroup(r, &c.packet, whole, length)
}

// departed processes what the hook has recorded of a packet that a socket sends.
func (c *collector) departed(whole []byte, length int) {
	rec := &c.record
	lost := c.hooks.lostSent.since(rec.Cpu, rec.Lost)
	c.hooks.drops += lost
	if c.departures != nil {
		c.departures.noticed += lost
	}
	r := c.hooked(&c.after.egress)
	if r == nil {
		return
	}
	c.packet.Direction = Outbound
	if rec.Unwanted {
		if c.packet.ID = pair.Unwanted; c.departures != nil {
			c.departures.saw(&c.packet, rec, r.kind)
		}
		return
	}
	c.packet.ID = c.newID()
	c.sightings.leaves(rec, whole, length, r.kind.layer, c.packet.ID)
	if c.departures != nil {
		c.departures.saw(&c.packet, rec, r.kind)
	}
	c.cgroup(r, &c.packet, whole, length)
}

// hooked makes the packet of a record of which there is no kernel view, and returns its route. It is
// nil if the packet is not wanted, or of a socket that is not known any more. The packet has no id yet.
func (c *collector) hooked(after *afterCount) *route {
	rec := &c.record
	if c.full() {
		after.count(rec)
		return nil // it is later than the last packet that was asked for
	}
	r := c.origin.routeOf(rec)
	if r == nil {
		c.forgotten.Add(1)
		return nil
	}
	c.packet = Packet{Time: c.clock.wall(int64(rec.Time)), Protocol: r.protocol, Meta: metaOf(rec)}
	address(&c.packet, rec, r.kind.layer)
	return r
}

// cgroup adds a packet to the cgroup view, if somebody wants to see that.
func (c *collector) cgroup(r *route, p *Packet, whole []byte, length int) {
	at := r.at(ViewCgroup, p)
	if at == nil {
		return
	}
	p.Data, p.Len = whole[:min(len(whole), c.snaplen)], length
	p.Truncated = len(p.Data) < length
	p.Drops, c.hooks.drops = c.hooks.drops, 0
	c.counts[ViewCgroup].Add(1)
	if p.Direction == Outbound {
		c.hooks.sent.Add(1)
	}
	c.add(p, at, true)
	p.Truncated, p.Drops = false, 0
}

// hiddenSYNACKs says what the kernel does not show the hook.
const hiddenSYNACKs = "before Linux 6.6 the kernel shows cgroup_skb/egress no SYN-ACK over IPv6: the view cgroup has none"

// openHook opens the hook beside the tap, if its view is wanted, so that whatever gets the filter
// is marked.
func (s *Session) openHook() (err error) {
	if !s.config.wants(ViewCgroup) {
		return nil
	}
	s.hook, err = bpf.OpenHook(s.tap, bpf.HookOptions{
		Snaplen: s.config.Snaplen, NoLink: true, Record: true, FromNetwork: true, Egress: true, Beside: true, NoProcesses: true,
		Expression: s.config.Expression, NotesOfSent: s.config.wants(ViewSent),
	})
	if missing := (*bpf.MissingError)(nil); errors.As(err, &missing) {
		missing.Otherwise = cmp.Or(missing.Otherwise, "choose views without cgroup")
	}
	if err != nil {
		return err
	}
	if s.config.Kind == kindOf(unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_TCP) && bpf.HidesSYNACKs() {
		s.config.Notice(hiddenSYNACKs)
	}
	s.config.Filter = &marking{s.config.Filter, func(fd int) error {
		_, err := s.hook.Mark(fd)
		return err
	}}
	return nil
}

// marking is a Filter whose sockets are marked.
type marking struct {
	Filter
	mark func(fd int) error
}

func (m *marking) Attach(fd int) error {
	if err := m.mark(fd); err != nil {
		return err
	}
	return m.Filter.Attach(fd)
}
