package capture

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/ebpfdump/ebpfdump/bpf"
	"golang.org/x/sys/unix"
)

// collector brings the two sides of a capture together: records of the tap and
// deliveries to userspace. It belongs to one goroutine, but for its counts.
type collector struct {
	tap       *bpf.Tap
	mailbox   *mailbox
	clock     clock
	home      *route                   // of the packets of the session's own socket
	routeOf   func(*bpf.Record) *route // of a packet of other processes' sockets; nil for home
	taken     func(batch) batch        // what other processes have got; nil for what is in the mailbox
	order     order
	limit     uint64 // packets of the kernel view; 0 for no limit
	poll      time.Duration
	hold      int64 // nanoseconds that a packet is held back, so that an earlier one can pass it
	snaplen   int
	immediate bool
	listener  uint64            // cookie of the socket that accepts, 0 if none does
	observe   func(*bpf.Record) // nil if nobody wants to see them

	record    bpf.Record
	packet    Packet
	noted     kernelPacket
	batch     batch
	waiting   []delivery // of batch, not paired yet
	lost      []uint64   // by cpu: losses up to its last record
	lostAll   uint64     // losses up to the newest record
	drops     uint64     // losses since the last packet of the kernel view
	newest    int64      // boot time of the newest record
	horizon   int64      // boot time up to which everything has been read
	scratch   []byte
	flushed   time.Time
	counts    [viewCount]atomic.Uint64
	loss      *queueLoss               // of the session's own socket, if the filter's drops may be in its count
	queue     atomic.Uint64            // messages that receive queues dropped, as far as deliveries told
	trimmed   atomic.Uint64            // packets of which the verdict keeps a part only
	records   uint64                   // that were read
	filtered  uint64                   // of records: packets that the verdict dropped
	broken    error                    // of the ring, which gives no more records then
	unreached [viewCount]atomic.Uint64 // headers below offset 0 that the filter could not reach
	peeks     atomic.Uint64            // deliveries that the process only peeked at
	empty     atomic.Uint64            // calls that returned no message where there are messages
	forgotten atomic.Uint64            // packets of sockets that nobody knows any more
}

const viewCount = ViewWire + 1

// roundRecords bounds one round, so that deliveries and the sink get their turn
// under any load.
const roundRecords = 4096

func (c *collector) full() bool { return c.limit > 0 && c.counts[ViewKernel].Load() >= c.limit }

// round reads what the tap has recorded, pairs what userspace has got, and
// writes what is old enough.
func (c *collector) round() error {
	horizon, err := c.read()
	if err != nil {
		return err
	}
	c.pair(horizon)
	if err := c.order.release(c.clock.wall(horizon - c.hold)); err != nil {
		return err
	}
	return c.flush()
}

// flushInterval is how long a sink may keep packets to itself.
const flushInterval = time.Second

// flush makes a sink that buffers let go of what it has.
func (c *collector) flush() error {
	sink, buffers := c.order.sink.(Flusher)
	if !buffers || !c.immediate && time.Since(c.flushed) < flushInterval {
		return nil
	}
	c.flushed = time.Now()
	c.order.failed = sink.Flush()
	return c.order.failed
}

// read takes records until the next poll is due, and returns the time on the
// boot clock up to which it has read everything.
//
// The tap takes the time after it has reserved the record's place. So whoever
// finds the ring empty has got every packet of the time before he looked.
func (c *collector) read() (horizon int64, err error) {
	began := bootNow()
	// The wait is rounded down to milliseconds, which must leave one.
	c.tap.SetDeadline(time.Now().Add(c.poll + time.Millisecond))
	for range roundRecords {
		if c.full() {
			break
		}
		err := c.tap.Read(&c.record)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, bpf.ErrFlushed) {
			c.horizon = began
			return began, nil
		}
		if err != nil {
			c.broken = fmt.Errorf("reading the ring: %w", err)
			return 0, c.broken
		}
		c.kernel()
	}
	// The ring holds more, but hardly anything older than the newest by so much.
	c.horizon = max(c.horizon, c.newest-holdTime.Nanoseconds())
	return c.horizon, nil
}

// finish takes what is left when no more can come, and writes all that is held
// back, also after something has failed.
func (c *collector) finish() error {
	rerr := c.readRest()
	c.pair(1<<63 - 1)
	// The second look gives up what stays incomplete.
	for looks := 1; c.taken != nil && (looks < 2 || len(c.batch.deliveries) > 0); looks++ {
		c.pair(1<<63 - 1)
	}
	return errors.Join(rerr, c.order.release(1<<63-1))
}

// readRest reads the ring to its end.
func (c *collector) readRest() error {
	if c.broken != nil {
		return nil // as was said
	}
	if err := c.tap.Flush(); err != nil {
		return fmt.Errorf("flushing the ring: %w", err)
	}
	for {
		err := c.tap.Read(&c.record)
		switch {
		case err == nil:
			c.kernel()
		case errors.Is(err, bpf.ErrFlushed):
			return nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("reading the ring: %w", err)
		}
	}
}

// kernel takes the record that was just read.
func (c *collector) kernel() {
	rec := &c.record
	if c.observe != nil {
		c.observe(rec)
	}
	c.newest = int64(rec.Time)
	lost := c.lostBefore(rec)
	c.drops += lost
	c.lostAll += lost
	c.records++
	if rec.Verdict == 0 {
		c.filtered++
	}

	p := &c.packet
	r := c.home
	if c.routeOf != nil {
		r = c.routeOf(rec)
	}
	if r == nil {
		c.forgotten.Add(1)
		return
	}
	*p = Packet{
		Time:      c.clock.wall(int64(rec.Time)),
		Direction: direction(rec.PktType),
		Protocol:  r.protocol,
		Meta:      metaOf(rec),
	}
	address(p, rec, r.kind.layer)
	c.noted = kernelPacket{
		time: int64(rec.Time), cpu: rec.Cpu, cookie: rec.Cookie, route: r, src: p.Src, dst: p.Dst,
		data: rec.Data, len: int(rec.Len), verdict: int(rec.Verdict),
	}
	if rec.Cookie == c.listener || rec.State == tcpListen || r.listens && rec.Cookie == r.cookie {
		c.noted.cookie = 0 // not that of the connection
	}
	wanted := !c.full()
	r.outlet.tally.record(wanted, rec.Verdict)
	if wanted {
		c.noted.id = c.counts[ViewKernel].Add(1)
		p.ID = c.noted.id
		if trims(rec.Verdict, rec.Len) {
			c.trimmed.Add(1)
		}
		c.views(r, p, rec)
	}
	r.pairer.saw(&c.noted, int(c.lostAll-r.lost))
	r.lost = c.lostAll
}

// lostBefore is the number of packets that the record's cpu lost since its record before.
func (c *collector) lostBefore(rec *bpf.Record) uint64 {
	for int(rec.Cpu) >= len(c.lost) {
		c.lost = append(c.lost, 0)
	}
	lost := rec.Lost - c.lost[rec.Cpu]
	c.lost[rec.Cpu] = rec.Lost
	return lost
}

func direction(pktType uint32) Direction {
	if pktType == unix.PACKET_OUTGOING {
		return Outbound
	}
	return Inbound
}

// address finds the packet's addresses in the network header that the tap
// reached, and its ports in the transport header.
func address(p *Packet, rec *bpf.Record, layer Layer) {
	if layer == LayerMessage {
		return // what the tap finds below a message is no header
	}
	var src, dst netip.Addr
	net, transport := rec.NetHeader(), rec.Data
	if layer == LayerLink {
		transport = transport[min(linkHeaderSize(transport), len(transport)):]
	}
	switch {
	case len(net) >= 20 && net[0]>>4 == 4:
		src, dst = netip.AddrFrom4([4]byte(net[12:16])), netip.AddrFrom4([4]byte(net[16:20]))
		p.Protocol = net[9]
		if layer != LayerTransport {
			transport = transport[min(int(net[0]&0xf)*4, len(transport)):]
		}
	case len(net) >= 40 && net[0]>>4 == 6:
		src, dst = netip.AddrFrom16([16]byte(net[8:24])), netip.AddrFrom16([16]byte(net[24:40]))
		if layer != LayerTransport {
			p.Protocol = net[6]
			transport = transport[min(40, len(transport)):]
		}
	default:
		return
	}
	var sport, dport uint16
	if hasPorts(p.Protocol) && len(transport) >= 4 {
		sport, dport = binary.BigEndian.Uint16(transport), binary.BigEndian.Uint16(transport[2:])
	}
	p.Src, p.Dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
}

// hasPorts tells whether an IP protocol's header begins with two ports.
func hasPorts(protocol uint8) bool {
	switch protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE, unix.IPPROTO_SCTP, unix.IPPROTO_DCCP:
		return true
	}
	return false
}

// views hands the record on in every view of the kernel's side that is wanted.
func (c *collector) views(r *route, p *Packet, rec *bpf.Record) {
	// Whichever view comes first tells of the losses.
	p.Drops = c.drops
	if at := r.at(ViewKernel, p); at != nil {
		p.Data, p.Len = rec.Data, int(rec.Len)
		p.Comment = verdictComment(rec.Verdict, rec.Len)
		if rec.Caplen < rec.Len {
			p.Comment = join(p.Comment, fmt.Sprintf("cut to %d of %d bytes by the snaplen", rec.Caplen, rec.Len))
		}
		at.record(rec.Verdict)
		c.add(p, at, true)
		c.drops, p.Drops, p.Comment = 0, 0, ""
	}
	for _, view := range []View{ViewNet, ViewLink} {
		at := r.at(view, p)
		if at == nil {
			continue
		}
		at.record(rec.Verdict)
		var ok bool
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

// linkHeaderLen is the length of an Ethernet header.
const linkHeaderLen = 14

// appendBelow appends what stands before offset 0, from the view's own header
// on. It is not ok where the filter could not reach all of it.
func appendBelow(to []byte, rec *bpf.Record, layer Layer, view View) (_ []byte, ok bool) {
	switch layer {
	case LayerMessage:
		return to, false
	case LayerLink:
		// Nothing is below; but an interface of IPv4 packets takes no others.
		return to, view == ViewLink || len(rec.NetHeader()) > 0 && rec.NetHeader()[0]>>4 == 4
	}
	if view == ViewLink {
		link := rec.LinkHeader()
		// Devices without a link header (tun) have the network header here.
		if len(link) < 14 || uint32(binary.NativeEndian.Uint16(link[12:])) != rec.Protocol {
			return to, false
		}
		to = append(to, link...)
	}
	if layer != LayerTransport {
		return to, true
	}
	n, ok := netHeaderLen(rec.NetHeader())
	if !ok {
		return to, false
	}
	return append(to, rec.NetHeader()[:n]...), true
}

// netHeaderLen is the length of an IP header with options or extension headers
// (RFC 791, RFC 8200); not ok if net does not hold all of it.
func netHeaderLen(net []byte) (n int, ok bool) {
	if len(net) < 20 {
		return 0, false
	}
	if net[0]>>4 == 4 {
		n = int(net[0]&0xf) * 4
		return n, n >= 20 && n <= len(net)
	}
	if net[0]>>4 != 6 || len(net) < 40 {
		return 0, false
	}
	next, n := net[6], 40
	for {
		switch next {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS, unix.IPPROTO_FRAGMENT, unix.IPPROTO_AH:
		default:
			return n, n <= len(net)
		}
		if n+8 > len(net) {
			return 0, false
		}
		length := (int(net[n+1]) + 1) * 8
		switch next {
		case unix.IPPROTO_FRAGMENT:
			length = 8
		case unix.IPPROTO_AH:
			length = (int(net[n+1]) + 2) * 4
		}
		next, n = net[n], n+length
	}
}

// pair joins the deliveries up to a time on the boot clock with the packets
// that brought them.
func (c *collector) pair(until int64) {
	if c.loss != nil {
		c.loss.unrecorded(c.tap.Counters())
	}
	looked := false
	for {
		if len(c.waiting) == 0 {
			if looked && c.taken != nil {
				return // messages that are not complete yet get until the next round
			}
			looked = true
			c.batch = c.take(c.batch)
			c.waiting = c.batch.deliveries
		}
		for len(c.waiting) > 0 && c.waiting[0].time <= until {
			c.user(&c.waiting[0])
			c.waiting = c.waiting[1:]
		}
		if len(c.waiting) > 0 || len(c.batch.deliveries) == 0 {
			return
		}
	}
}

// take gets what userspace has got since the last time.
func (c *collector) take(emptied batch) batch {
	if c.taken != nil {
		return c.taken(emptied)
	}
	return c.mailbox.take(emptied)
}

// Peeked is how the comment of a delivery begins that took nothing out of the queue.
const Peeked = "peeked at (MSG_PEEK), and left in the queue"

// ownCall is how a Session receives.
const ownCall = "recvmsg"

// user takes a delivery.
func (c *collector) user(d *delivery) {
	r := c.home
	if d.route != nil {
		r = d.route
	}
	var m match
	// An error is no message but news of ICMP or of the queue, and the end of a connection is none either.
	empty := !r.kind.stream && (d.err != nil || d.end)
	if empty && d.err != nil {
		m.comment = endComment(cmp.Or(d.call, ownCall), d.err)
	} else if !empty {
		m = r.pairer.delivered(d)
	}
	if m.route != nil {
		r = m.route
	}
	drops := d.lost + m.dropped
	c.queue.Add(m.dropped)
	beyond := m.id == 0 && c.full() // of a packet beyond the limit
	if !empty && !d.peek {
		r.outlet.tally.deliver(d, &m, beyond)
	}
	switch {
	case beyond:
		return
	case d.peek:
		c.peeks.Add(1)
		m.comment = join(Peeked, m.comment)
	case empty:
		c.empty.Add(1)
	default:
		c.counts[ViewUser].Add(1)
	}
	c.packet = Packet{
		Time:      c.clock.wall(d.time),
		ID:        m.id,
		Direction: Inbound,
		Data:      d.data[:min(len(d.data), c.snaplen)],
		Len:       d.full,
		Drops:     drops,
		Comment:   m.comment,
		Src:       d.from,
		Dst:       d.to,
		Protocol:  r.protocol,
		Call:      cmp.Or(d.call, ownCall),
		PID:       d.pid,
		TID:       d.tid,
	}
	if d.out {
		c.packet.Direction = Outbound
	}
	if m.dst.IsValid() {
		c.packet.Src, c.packet.Dst = m.src, m.dst
	}
	if r.kind.listens && (d.end || d.err != nil) {
		c.packet.Comment = endComment(c.packet.Call, d.err)
		if d.peek {
			c.packet.Comment = join(Peeked, c.packet.Comment)
		}
	}
	if at := r.at(ViewUser, &c.packet); at != nil {
		c.add(&c.packet, at, !empty && !d.peek)
	}
}

// add hands a packet on, to be written to a lane in its turn.
func (c *collector) add(p *Packet, at *lane, counted bool) {
	p.Interface = &at.Interface
	at.handed++
	if counted {
		at.counted++
	}
	c.order.add(p, at)
}
