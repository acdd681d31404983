package capture

import (
	"bytes"
	"encoding/binary"
	"math"
	"net/netip"
	"sort"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/pair"
)

// departures are the packets that sockets have sent, as far as calls may still come whose bytes are
// in them. A call stands where it ended, behind those of its packets that had left by then. TCP's
// are found by sequence number, those of others by the time that the call took and the bytes.
type departures struct {
	recent, earlier map[uint64]*departed // by cookie; those that were idle for longest are forgotten
	kept            int                  // parts and datagrams in recent
	noticed         uint64               // losses, as far as records have told
	lost            func() uint64        // all losses until now
}

// departed is what one socket has sent.
type departed struct {
	// Of TCP:
	src, dst netip.AddrPort
	next     uint32 // sequence number behind all that has left
	known    bool
	losses   uint64 // that had been noticed when next was set
	parts    []departedPart
	// Of others:
	datagrams []departedDatagram
	taken     int    // datagrams before this index were found by calls, or passed over
	tid       uint32 // of the last call, and when that ended
	ended     int64
	held      int // bytes that calls have left to be sent with those of later ones (MSG_MORE)
}

// departedPart is the bytes that a segment was the first to bring, from one sequence number to
// another.
type departedPart struct {
	id       uint64
	from, to uint32
}

type departedDatagram struct {
	id    uint64
	time  int64 // on the boot clock
	dst   netip.AddrPort
	size  int // of what a call has handed over
	skip  int // first bytes that the kernel may have changed since
	tail  [tailSize]byte
	cut   bool // the last bytes are not known
	found bool // by a call
}

const (
	// departedParts bounds what is remembered of one socket.
	departedParts = 1 << 10
	// departedKept bounds what is remembered of all, together with the generation before.
	departedKept = 1 << 15
	// tailSize is how many of the last bytes of a datagram are compared.
	tailSize = 32
	// departedTried bounds how many datagrams are compared with a call.
	departedTried = 64
)

// newDepartures returns nil if nobody wants to know what is in which packet.
func newDepartures(o *Options) *departures {
	if !o.wants(ViewSent) || !o.wants(ViewCgroup) {
		return nil
	}
	return &departures{recent: make(map[uint64]*departed)}
}

// countLosses sets where losses are counted.
func (d *departures) countLosses(hook *bpf.Hook) {
	if d == nil {
		return
	}
	d.lost = func() uint64 {
		if _, sent, err := hook.Counters(); err == nil {
			return sent.Lost()
		}
		return math.MaxUint64 // then nothing is certain
	}
}

// of returns what is known of a socket; nil if that is nothing, unless it is to be made.
func (d *departures) of(cookie uint64, make bool) *departed {
	if known := d.recent[cookie]; known != nil {
		return known
	}
	known := d.earlier[cookie]
	if known == nil && !make {
		return nil
	}
	if known == nil {
		known = &departed{}
	}
	d.room()
	d.recent[cookie] = known
	d.kept += len(known.parts) + len(known.datagrams)
	return known
}

// room begins a new generation if this one is full.
func (d *departures) room() {
	if len(d.recent) >= flowsLimit/2 || d.kept >= departedKept {
		d.earlier, d.recent, d.kept = d.recent, make(map[uint64]*departed), 0
	}
}

// saw takes a packet that was sent. rec begins at offset 0 of the socket's filter.
func (d *departures) saw(p *Packet, rec *bpf.Record, kind *Kind) {
	if rec.State == tcpListen && kind.stream {
		return // it is the kernel's own, for a connection that is not there yet
	}
	at := d.of(rec.Cookie, true)
	switch {
	case kind.stream && p.Protocol == unix.IPPROTO_TCP:
		d.sawSegment(at, p, rec)
	case !kind.stream:
		d.sawDatagram(at, p, rec, kind)
	}
	if d.kept >= departedKept {
		d.room()
		d.recent[rec.Cookie], d.kept = at, len(at.parts)+len(at.datagrams)
	}
}

func (d *departures) sawSegment(at *departed, p *Packet, rec *bpf.Record) {
	segment := rec.Data
	if len(segment) < 20 {
		return
	}
	const syn = 0x02
	seq := binary.BigEndian.Uint32(segment[4:])
	end := seq + rec.Len - min(uint32(segment[12]>>4)*4, rec.Len)
	begins := segment[13]&syn != 0
	if begins {
		seq, end = seq+1, end+1
	}
	if begins || at.src != p.Src || at.dst != p.Dst {
		d.kept -= len(at.parts)
		*at = departed{src: p.Src, dst: p.Dst, parts: at.parts[:0]}
	}
	if !at.known {
		at.known, at.next = true, seq
	}
	at.losses = d.noticed
	from := seq
	if int32(from-at.next) < 0 {
		from = at.next
	}
	if int32(end-from) > 0 {
		d.kept++
		if len(at.parts) >= departedParts {
			d.kept -= len(at.parts) / 2
			at.parts = append(at.parts[:0], at.parts[len(at.parts)/2:]...)
		}
		at.parts = append(at.parts, departedPart{p.ID, from, end})
		from = end
	}
	at.next = from
}

func (d *departures) sawDatagram(at *departed, p *Packet, rec *bpf.Record, kind *Kind) {
	begin, skip := kind.headerLen, 0
	switch {
	case kind.headerLen > 0:
	case kind.layer == LayerNetwork && len(rec.Data) > 0:
		begin, skip = int(rec.Data[0]&0xf)*4, changedBytes
	default:
		skip = changedBytes
	}
	if int(rec.Len) < begin {
		return
	}
	n := departedDatagram{
		id: p.ID, time: int64(rec.Time), dst: p.Dst, size: int(rec.Len) - begin, skip: skip, cut: rec.Caplen < rec.Len,
	}
	if !n.cut {
		tail := rec.Data[begin:]
		copy(n.tail[:], tail[max(0, len(tail)-tailSize):])
	}
	if len(at.datagrams) >= departedParts {
		gone := len(at.datagrams) / 2
		d.kept -= gone
		at.datagrams = append(at.datagrams[:0], at.datagrams[gone:]...)
		at.taken = max(0, at.taken-gone)
	}
	d.kept++
	at.datagrams = append(at.datagrams, n)
}

// changedBytes are those at the beginning of a message that the kernel may complete: an ICMP header.
const changedBytes = 8

// name says in which packets the bytes of a call are. placed says that their place in the stream is
// known.
func (d *departures) name(p *Packet, of *delivery, placed bool) {
	at := d.of(of.Cookie, false)
	switch {
	case of.err != nil || at == nil:
	case !of.route.kind.stream:
		d.nameDatagram(at, p, of)
	case placed && of.Full > 0 && at.known && at.src == unmapped(p.Src) && at.dst == unmapped(p.Dst):
		d.nameSegments(at, p, of)
	}
}

func (d *departures) nameSegments(at *departed, p *Packet, of *delivery) {
	begin, end := of.Seq, of.Seq+uint32(of.Full)
	first := sort.Search(len(at.parts), func(i int) bool { return int32(at.parts[i].to-begin) > 0 })
	var ids pair.Ranges
	named := 0
	for _, part := range at.parts[first:] {
		from, to := part.from, part.to
		if int32(from-end) >= 0 {
			break
		}
		if int32(from-begin) < 0 {
			from = begin
		}
		if int32(to-end) > 0 {
			to = end
		}
		named += int(int32(to - from))
		if n := len(ids.Ranges); part.id != pair.Unwanted && (n == 0 || max(ids.Ranges[n-1][1], ids.Last) < part.id) {
			ids.Add(part.id)
		}
	}
	waiting := 0
	if behind := int32(end - at.next); behind > 0 {
		waiting = min(int(behind), of.Full)
	}
	r := &p.Receipt
	r.Packets = IDs(ids)
	if waiting > 0 && d.lost() == at.losses {
		r.Waiting = int64(waiting)
		named += waiting
	}
	r.Partly = named < of.Full && !r.Packets.Empty()
}

func (d *departures) nameDatagram(at *departed, p *Packet, of *delivery) {
	// Two threads at once: then the order tells nothing.
	together := at.tid != of.tid && at.ended > of.began
	at.tid, at.ended = of.tid, of.Time
	if of.call == "sendmmsg" && !together {
		d.nameNext(at, p, of)
		return
	}
	found := -1
	begin := len(at.datagrams)
	for tried := 0; begin > 0 && at.datagrams[begin-1].time >= of.began; tried++ {
		if tried == departedTried {
			return
		}
		begin--
		switch n := &at.datagrams[begin]; {
		case n.time > of.Time || !n.holds(of, at.held):
		case found >= 0:
			return // which of them nobody can tell
		default:
			found = begin
		}
	}
	if found < 0 {
		at.held = min(at.held+of.Full, 1<<20)
		return
	}
	at.take(found, p)
}

// nameNext is for one of the messages of a call that sends them in their order.
func (d *departures) nameNext(at *departed, p *Packet, of *delivery) {
	next := max(at.taken, sort.Search(len(at.datagrams), func(i int) bool { return at.datagrams[i].time >= of.began }))
	if next < len(at.datagrams) && at.datagrams[next].holds(of, at.held) && at.datagrams[next].time <= of.Time {
		at.take(next, p)
	}
}

func (d *departed) take(i int, p *Packet) {
	n := &d.datagrams[i]
	n.found = true
	d.taken, d.held = max(d.taken, i+1), 0
	if n.id != pair.Unwanted {
		p.Receipt.Packets = IDs{Ranges: [][2]uint64{{n.id, n.id}}}
	}
}

// holds tells whether a datagram has the bytes of a call at its end, and nothing before them but
// what earlier calls have left to it.
func (n *departedDatagram) holds(of *delivery, held int) bool {
	if n.found || n.size != of.Full && n.size != of.Full+held {
		return false
	}
	if to := of.To; to.IsValid() && !to.Addr().IsUnspecified() && n.dst.IsValid() {
		to = unmapped(to)
		if to.Addr().WithZone("") != n.dst.Addr() || n.dst.Port() != 0 && to.Port() != n.dst.Port() {
			return false
		}
	}
	if n.cut || len(of.Data) < of.Full {
		return true // as far as the bytes are known
	}
	size := min(len(of.Data), tailSize, max(0, n.size-n.skip))
	have := n.tail[:min(n.size, tailSize)]
	return bytes.Equal(of.Data[len(of.Data)-size:], have[len(have)-size:])
}
