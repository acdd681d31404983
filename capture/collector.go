package capture

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"time"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/pair"
	"golang.org/x/sys/unix"
)

// collector merges the two sides of a capture: records of the tap and deliveries to userspace.
// It belongs to one goroutine, except for its atomic counts.
type collector struct {
	tap        *bpf.Tap
	origin     origin
	clock      clock
	sink       Sink
	failed     error  // error of the sink, which gets no more packets then
	limit      uint64 // packets of the kernel view; 0 for no limit
	poll       time.Duration
	snaplen    int
	expression *bpf.Expression // nil if every packet is wanted
	asked      []byte          // by the expression
	unselected unselected
	immediate  bool
	observe    func(*bpf.Record) // may be nil
	filters    *ownFilters       // that sockets have of their own; nil if nobody asks for them

	ring   arrivals
	record bpf.Record
	packet Packet
	noted  pair.Packet
	flows  *flows // nil without ViewSent
	// departures is nil unless what was sent is to be found in the cgroup view.
	departures *departures
	waiting    pending // deliveries, not paired yet
	got        int64   // boot time up to which deliveries have been taken
	took       bool    // the last take returned some
	lost       losses  // of packets
	untold     untold
	drops      uint64 // losses since the last packet of the kernel view
	ids        uint64 // the last one that was given
	hooks      cgroupHooks
	dropped    *drops // nil without ViewDrop
	frames     frames
	sightings  *sightings // nil without ViewWire and ViewDrop
	scratch    []byte
	flushed    time.Time

	counts    [ViewCount]atomic.Uint64
	written   atomic.Uint64            // packets that the sink took
	queue     atomic.Uint64            // messages that receive queues dropped, according to deliveries so far
	trimmed   atomic.Uint64            // packets of which the verdict keeps only a part
	records   uint64                   // that were read
	filtered  uint64                   // of records: packets that the verdict dropped
	unreached [ViewCount]atomic.Uint64 // headers below offset 0 that the filter could not reach
	notIP     atomic.Uint64            // packets of packet sockets that the net view cannot have
	peeks     atomic.Uint64            // deliveries that the process only peeked at
	empty     atomic.Uint64            // calls that returned no message where there are messages
	refused   atomic.Uint64            // sends that failed
	ordinary  atomic.Uint64            // packets that were freed and not dropped
	forgotten atomic.Uint64            // packets whose sockets are not known any more
	after     afterLimit
}

func (c *collector) full() bool { return c.limit > 0 && c.counts[ViewKernel].Load() >= c.limit }

// round waits for the next records or deliveries, and processes them.
func (c *collector) round() error {
	if !c.ring.waits() {
		if err := c.rest(); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, bpf.ErrFlushed) {
			return fmt.Errorf("reading the ring: %w", err)
		}
	}
	if err := c.look(false); err != nil || c.failed != nil {
		return errors.Join(err, c.failed)
	}
	return c.flush()
}

// rest sleeps until a record or delivery comes if there is none, and then waits a while for
// more: a wakeup for each packet would cost more than everything else that is done for it. The
// first after a silence is processed at once.
func (c *collector) rest() error {
	if c.ring.empty() && c.waiting.first() == nil && c.origin.rests() {
		begin := time.Now()
		if err := c.tap.Sleep(c.nextFlush()); err != nil {
			return err
		}
		if time.Since(begin) > silence {
			return nil
		}
	}
	return c.tap.Wait(time.Now().Add(c.poll))
}

// flushInterval is how long a sink may buffer packets.
const flushInterval = time.Second

// nextFlush is when to wake the collector even if nothing comes, because a sink that buffers
// must be flushed then.
func (c *collector) nextFlush() time.Time {
	next := time.Now().Add(flushInterval)
	if _, buffers := c.sink.(Flusher); buffers {
		next = c.flushed.Add(flushInterval)
	}
	if sink, wakes := c.sink.(Waker); wakes {
		if at := sink.Wakes(); !at.IsZero() && at.Before(next) {
			return at
		}
	}
	return next
}

// flush flushes a sink that buffers.
func (c *collector) flush() error {
	sink, buffers := c.sink.(Flusher)
	if !buffers || !c.immediate && time.Now().Before(c.nextFlush()) {
		return nil
	}
	c.flushed = time.Now()
	c.failed = sink.Flush()
	return c.failed
}

// look processes records and deliveries up to the time before which nothing can come any more.
// The last time it processes everything.
func (c *collector) look(last bool) (err error) {
	if err := c.tap.Begin(); err != nil {
		return fmt.Errorf("reading the ring: %w", err)
	}
	defer func() { c.tap.End(c.ring.free(c.tap)) }()
	if d := c.waiting.first(); d == nil || d.Time > c.got || last {
		c.take(last)
	}
	horizon := min(c.ring.scan(c.tap, last), c.got)
	if last {
		horizon = math.MaxInt64
	}
	return c.merge(horizon, last)
}

// take adds the new deliveries to those that are left from the last time, some of which may be
// later: a send stands where it began.
func (c *collector) take(last bool) {
	next := c.waiting.spare()
	next.batch, c.got = c.origin.take(next.batch, last, c.flows != nil && hurries(c.tap, c.ring.done))
	if c.took = len(next.deliveries) > 0; c.took {
		c.untold.look()
	}
	if next.discarded.messages > 0 {
		c.discard(&next.discarded)
	}
	c.waiting.add(next)
}

// roundBytes bounds how much of the ring one look processes, so that room is released and
// deliveries are processed under any load.
const roundBytes = 2 << 20

// merge processes records and deliveries up to a time on the boot clock, ordered by time: a
// delivery comes after the packets that brought it.
func (c *collector) merge(until int64, all bool) error {
	for budget := bpf.Place(roundBytes); ; {
		next, ok := c.ring.first()
		ok = ok && next.time <= until
		d := c.waiting.first()
		switch {
		case d != nil && d.Time <= until && (!ok || d.Time < next.time):
			c.untold.until(d.Time)
			c.user(d)
			c.waiting.pop()
		case !ok:
			return nil
		case !all && next.end-next.at > budget:
			c.ring.more = true
			return nil
		default:
			budget -= min(budget, next.end-next.at)
			if err := c.tap.Load(next.at, &c.record); err != nil {
				return fmt.Errorf("reading the ring: %w", err)
			}
			c.untold.until(next.time)
			c.kernel()
			c.ring.pop()
		}
	}
}

// finish processes what is left when no more can come, even after an error.
func (c *collector) finish() error {
	failed := c.failed
	err := c.look(false)
	for err == nil && (c.ring.waits() || c.took) {
		err = c.look(false)
	}
	if err == nil {
		err = c.look(true)
	}
	if failed == nil {
		err = errors.Join(err, c.failed)
	}
	return err
}

// kernel processes the record that was just read.
func (c *collector) kernel() {
	rec := &c.record
	if rec.Hook == bpf.HookSelect {
		if o, ours := c.origin.(*own); ours && o.group != nil {
			c.chosen(o.group)
		}
		return
	}
	whole, length := wholeOf(rec)
	switch {
	case rec.Hook == bpf.HookNone:
		c.announced(rec)
		return
	case rec.Hook == bpf.HookDrop:
		c.freed(whole, length)
		return
	case rec.Hook == bpf.HookWireIn || rec.Hook == bpf.HookWireOut:
		c.wired(whole, length)
		return
	case rec.Hook == bpf.HookEgress:
		c.departed(whole, length)
		return
	case rec.Hook == bpf.HookBeside, rec.Hook == bpf.HookIngress && c.hooks.beside != nil && !c.hooks.single:
		c.arrived(whole, length)
		return
	}
	if c.observe != nil {
		c.observe(rec)
	}
	lost := c.lostBefore(rec)
	c.records++
	if rec.Verdict == 0 {
		c.filtered++
	}

	r := c.origin.routeOf(rec)
	if r == nil {
		c.forgotten.Add(1)
		return
	}
	c.describe(r, rec)
	p := &c.packet
	wanted := !c.full()
	r.outlet.tally.record(wanted, rec.Verdict)
	if !wanted {
		c.after.tap.count(rec)
	}
	switch {
	case wanted && rec.Unwanted:
		c.noted.ID = pair.Unwanted
	case wanted:
		c.counts[ViewKernel].Add(1)
		c.noted.ID = c.idOf(rec, lost, whole, length, r.kind.layer)
		p.ID = c.noted.ID
		if trims(rec.Verdict, rec.Len) {
			c.trimmed.Add(1)
		}
		c.views(r, p, rec)
		if rec.Hook == bpf.HookIngress {
			c.cgroup(r, p, whole, length)
		}
	}
	if c.flows != nil && r.kind.stream && p.Protocol == unix.IPPROTO_TCP {
		c.segment(p, rec.Data)
	}
	r.pairer.Saw(&c.noted, int(c.untold.told-r.lost))
	r.lost = c.untold.told
}

// lostBefore counts the packets that the ring has lost since the last record of its cpu.
func (c *collector) lostBefore(rec *bpf.Record) uint64 {
	from, both, ledger := &c.lost, c.hooks.beside == nil, 0
	if c.hooks.single && rec.Hook != bpf.HookFilter {
		from, both, ledger = &c.hooks.lostSingle, true, 1
	}
	lost := from.since(rec.Cpu, rec.Lost)
	c.untold.tells(ledger, rec.Cpu, rec.Lost)
	c.drops += lost
	if both {
		c.hooks.drops += lost
	}
	return lost
}

// describe makes the packet of a record, for the views and for the pairing, with what the socket's
// own filter decides.
func (c *collector) describe(r *route, rec *bpf.Record) {
	p := &c.packet
	own := c.ownFilter(r, rec)
	answered := false
	if own != nil {
		rec.Verdict, answered = own.answer(rec)
	}
	*p = Packet{
		Time:      c.clock.wall(int64(rec.Time)),
		Direction: direction(rec.PktType),
		Protocol:  r.protocol,
		Netlink:   r.netlink,
		Meta:      metaOf(rec),
	}
	address(p, rec, r.kind.layer)
	c.noted = pair.Packet{
		Time: int64(rec.Time), CPU: rec.Cpu, Cookie: rec.Cookie, Owner: r, Src: p.Src, Dst: p.Dst,
		Data: rec.Data, Len: int(rec.Len), Verdict: int(rec.Verdict), Answered: answered, Filter: rec.Filter,
	}
	p.Verdict = Verdict{Asked: answered, Unasked: own != nil && own.asker != nil && rec.Family != 0 && !answered}
	if rec.State == tcpListen || r.listens && rec.Cookie == r.cookie {
		c.noted.Cookie = 0 // it is not the connection's
	}
}

// segment takes from a segment of TCP what the sent view needs to know of its connection.
func (c *collector) segment(p *Packet, segment []byte) {
	if _, ours := c.origin.(*own); ours {
		c.flows.saw(p, segment)
		return
	}
	c.flows.courses.arrived(course{p.Src, p.Dst}, segment)
}

// views adds the record to each requested view of the kernel's side.
func (c *collector) views(r *route, p *Packet, rec *bpf.Record) {
	// The first view has the losses.
	p.Drops = c.drops
	asked := p.Verdict
	p.Verdict = Verdict{}
	if at := r.at(ViewKernel, p); at != nil {
		p.Data, p.Len = rec.Data, int(rec.Len)
		p.Verdict, p.Truncated = verdictOf(rec.Verdict, rec.Len), rec.Caplen < rec.Len
		p.Verdict.Asked = asked.Asked && p.Verdict != Verdict{}
		p.Verdict.Unasked = asked.Unasked
		p.Filter = at.filterChange(r.outlet)
		at.record(rec.Verdict)
		c.add(p, at, true)
		c.drops, p.Drops = 0, 0
		p.Verdict, p.Truncated, p.Filter = Verdict{}, false, FilterChange{}
	}
	for _, view := range []View{ViewNet, ViewLink} {
		at, ok := r.at(view, p), true
		if at == nil {
			continue
		}
		if view == ViewNet && r.kind.domain == unix.AF_PACKET {
			ethertype := ethertypeOf(rec, r.kind.layer)
			if ethertype != unix.ETH_P_IP && ethertype != unix.ETH_P_IPV6 {
				c.notIP.Add(1)
				continue
			}
			at = r.outlet.ofVersion(view, ethertype == unix.ETH_P_IPV6)
		}
		at.record(rec.Verdict)
		if c.scratch, ok = appendBelow(c.scratch[:0], rec, r.kind.layer, view); !ok {
			c.unreached[view].Add(1)
			continue
		}
		data, length := rec.Data, int(rec.Len)
		if r.kind.layer == LayerLink && view == ViewNet {
			size := linkHeaderSize(data)
			data, length = data[min(size, len(data)):], max(length-size, 0)
		}
		p.Len = len(c.scratch) + length
		c.scratch = append(c.scratch, data...)
		p.Data = c.scratch
		c.counts[view].Add(1)
		c.add(p, at, true)
		c.drops, p.Drops = 0, 0
	}
}

// ownCall is the system call by which a Session receives.
const ownCall = "recvmsg"

// user processes a delivery.
func (c *collector) user(d *delivery) {
	if d.sent {
		c.send(d)
		return
	}
	r := d.route
	var m pair.Match
	var receipt Receipt
	// An error reports ICMP or a queue overflow, not a message, and neither is the end of a
	// connection.
	empty := !r.kind.stream && (d.err != nil || d.end)
	if empty && d.err != nil {
		receipt = endOf(d.err)
	} else if !empty {
		d.Over = d.err != nil || d.end
		d.Untold = c.untold.all > r.lost
		m = r.pairer.Delivered(&d.Delivery)
		receipt = receiptOf(&m)
	}
	if owner, ok := m.Owner.(*route); ok {
		r = owner
	}
	if r.kind.listens && (d.end || d.err != nil) {
		receipt = endOf(d.err)
	}
	receipt.Peeked = d.Peek
	c.queue.Add(m.Dropped)
	if m.Belied {
		c.belied(r, &m)
	}
	if c.leavesOut(r, d, &m) {
		if !d.Peek && !empty && !m.Before {
			r.outlet.tally.unwanted++
		}
		c.read(r, d, &m, receipt) // for the places of others
		r.carried += c.packet.Drops
		return
	}
	beyond := m.ID == 0 && c.full() // of a packet beyond the limit
	if !empty && !d.Peek {
		r.outlet.tally.deliver(d, &m, beyond)
	}
	switch {
	case beyond:
		return
	case d.Peek:
		c.peeks.Add(1)
	case empty:
		c.empty.Add(1)
	default:
		c.counts[ViewUser].Add(1)
	}
	c.read(r, d, &m, receipt)
	c.packet.Drops += r.carried
	r.carried = 0
	if at := r.at(ViewUser, &c.packet); at != nil {
		c.add(&c.packet, at, !empty && !d.Peek)
	}
}

// read makes the packet of a delivery.
func (c *collector) read(r *route, d *delivery, m *pair.Match, receipt Receipt) {
	c.packet = Packet{
		Time:      c.clock.wall(d.Time),
		ID:        m.ID,
		Direction: Inbound,
		Data:      d.Data[:min(len(d.Data), c.snaplen)],
		Len:       d.Full,
		Drops:     d.lost + m.Dropped,
		Src:       d.From,
		Dst:       d.To,
		Protocol:  r.protocol,
		Call:      cmp.Or(d.call, ownCall),
		PID:       d.pid,
		TID:       d.tid,
	}
	if d.out {
		c.packet.Direction = Outbound
	}
	if m.Dst.IsValid() {
		c.packet.Src, c.packet.Dst = m.Src, m.Dst
	}
	c.packet.Receipt, c.packet.Reception = receipt, d.reception
	c.packet.Reception.complete(d, m, r.kind.stream)
	if c.flows != nil {
		c.flows.read(&c.packet, d)
	}
}

// discard counts deliveries that are not in a requested view.
func (c *collector) discard(d *discarded) {
	r := d.route
	m := r.pairer.Delivered(&d.last)
	c.queue.Add(m.Dropped)
	c.counts[ViewUser].Add(d.messages)
	r.outlet.tally.delivered += d.messages
	r.outlet.tally.bytes += d.bytes
}

// add hands a packet to the sink, for a lane. After the sink has failed it gets no more
// packets: they are discarded, and only what it took is counted.
func (c *collector) add(p *Packet, at *lane, counted bool) {
	p.Interface = &at.Interface
	at.handed++
	if counted {
		at.counted++
	}
	if c.failed != nil {
		return
	}
	if c.failed = c.sink.WritePacket(p); c.failed == nil {
		at.written++
		c.written.Add(1)
	}
}
