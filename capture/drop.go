package capture

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/pair"
)

// Drop says why the kernel has freed a packet without having used it.
type Drop struct {
	// Reason is the kernel's name for why, without SKB_DROP_REASON_, such as "SOCKET_RCVBUFF", or a
	// hexadecimal number for those of its subsystems. Empty for a packet that was not dropped.
	Reason string
	// Location is the function of the kernel that has freed it, empty if it is not known.
	Location string
}

// DropReasons says why the kernel dropped packets: the most frequent reason first.
type DropReasons struct{ Counts []ReasonCount }

// ReasonCount is how many packets were dropped for a reason, as Drop has it.
type ReasonCount struct {
	Reason  string
	Packets uint64
}

// drops is what the collector knows of the packets that the kernel frees.
type drops struct {
	told *bpf.Drops
	seen pair.Sightings // of the other views
	lost losses
	// since counts losses since the last packet of the view.
	since uint64
}

// reasonNone is the kernel's reason where it does not say any.
const reasonNone = "NOT_SPECIFIED"

// reasonPurge is that of packets in a queue that is emptied since its socket is closed.
const reasonPurge = "QUEUE_PURGE"

// reasonFilter is that of packets that the socket's filter turns away.
const reasonFilter = "SOCKET_FILTER"

// reasonPacketSocket is that of copies for packet sockets.
const reasonPacketSocket = "PACKET_SOCK_ERROR"

// isOrdinary tells whether a packet was freed as packets are that were used, or is the copy of
// another observer. Before Linux 6.8 TCP frees in the same way what opens or closes a connection
// and what it does not want, and gives no reason. What stays in its queue when a connection ends is
// what has closed it: bytes that were not read it frees without telling.
func (d *drops) isOrdinary(rec *bpf.Record) bool {
	reason, location := d.told.Reason(rec), d.told.Location(rec)
	switch {
	case reason == reasonPacketSocket, strings.HasPrefix(location, "packet_rcv"), strings.HasPrefix(location, "tpacket_rcv"):
		return true
	case rec.Type != unix.SOCK_STREAM || rec.PktType == unix.PACKET_OUTGOING:
		return false
	case reason == reasonPurge:
		return true
	case reason == reasonNone:
		return location == "" || slices.ContainsFunc(ofStreams, func(begins string) bool { return strings.HasPrefix(location, begins) })
	}
	return false
}

// ofStreams are how the functions begin in which TCP and its queues free segments.
var ofStreams = []string{"tcp_", "sk_stream_", "skb_queue_purge", "inet_"}

// sighting describes the packet of a record, whose Data begins at the filter's offset 0.
func sighting(p *Packet, rec *bpf.Record, layer Layer) pair.Sighting {
	s := pair.Sighting{Src: p.Src, Dst: p.Dst, Protocol: p.Protocol, Data: rec.Data, Len: int(rec.Len)}
	if layer == LayerNetwork {
		n, _ := netHeaderLen(rec.NetHeader())
		n = min(n, len(s.Data))
		s.Data, s.Len = s.Data[n:], s.Len-n
	}
	return s
}

// noteSeen remembers a packet of another view, for when the kernel frees it.
func (c *collector) noteSeen(r *route, p *Packet, rec *bpf.Record) {
	if c.dropped != nil && p.Src.IsValid() {
		s := sighting(p, rec, r.kind.layer)
		c.dropped.seen.Saw(&s, p.ID)
	}
}

// freed processes a packet that the kernel has freed.
func (c *collector) freed(whole []byte, length int) {
	d, rec := c.dropped, &c.record
	d.since += d.lost.since(rec.Cpu, rec.Lost)
	if d.isOrdinary(rec) {
		c.ordinary.Add(1)
		return
	}
	if c.full() {
		return // it is later than the last packet that was asked for
	}
	r := c.origin.routeOf(rec)
	if r == nil {
		c.forgotten.Add(1)
		return
	}
	p := &c.packet
	*p = Packet{
		Time: c.clock.wall(int64(rec.Time)), Direction: direction(rec.PktType), Protocol: r.protocol, Meta: metaOf(rec),
		Drop: Drop{Reason: d.told.Reason(rec), Location: d.told.Location(rec)},
	}
	address(p, rec, r.kind.layer)
	at := r.at(ViewDrop, p)
	if at == nil {
		return
	}
	s := sighting(p, rec, r.kind.layer)
	if p.ID = d.seen.Find(&s); p.ID == 0 {
		p.ID = c.newID()
	} else if p.Direction != Outbound && p.Drop.Reason != reasonFilter && p.Drop.Reason != reasonPurge {
		r.outlet.tally.refused++
	}
	p.Data, p.Len = whole[:min(len(whole), c.snaplen)], length
	p.Drops, d.since = d.since, 0
	c.counts[ViewDrop].Add(1)
	at.drop(p.Drop.Reason)
	c.add(p, at, true)
	p.Drops = 0
}

// drop counts a packet that was dropped for a reason.
func (l *lane) drop(reason string) {
	if l.reasons == nil {
		l.reasons = make(map[string]uint64)
	}
	l.reasons[reason]++
}

// reasonsOf are the reasons of a lane's packets, nil if it has none.
func (l *lane) reasonsOf() *DropReasons {
	if l.reasons == nil {
		return nil
	}
	all := &DropReasons{}
	for reason, n := range l.reasons {
		all.Counts = append(all.Counts, ReasonCount{reason, n})
	}
	all.sort()
	return all
}

func (r *DropReasons) sort() {
	slices.SortFunc(r.Counts, func(a, b ReasonCount) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), strings.Compare(a.Reason, b.Reason))
	})
}

// Add adds the reasons of more packets.
func (r *DropReasons) Add(more *DropReasons) {
	for _, m := range more.Counts {
		at := slices.IndexFunc(r.Counts, func(c ReasonCount) bool { return c.Reason == m.Reason })
		if at < 0 {
			r.Counts = append(r.Counts, m)
		} else {
			r.Counts[at].Packets += m.Packets
		}
	}
	r.sort()
}

// String lists the reasons, such as "5 SOCKET_RCVBUFF, 2 NETFILTER_DROP".
func (r *DropReasons) String() string {
	var words []string
	for _, c := range r.Counts {
		words = append(words, fmt.Sprintf("%d %s", c.Packets, c.Reason))
	}
	return strings.Join(words, ", ")
}

// openDrops begins to record what the kernel frees, if its view is wanted.
func openDrops(o *Options, ports []uint16, tap *bpf.Tap, hook *bpf.Hook) (*bpf.Drops, error) {
	if !o.wants(ViewDrop) {
		return nil, nil
	}
	told, err := bpf.OpenDrops(tap, hook, bpf.DropOptions{Snaplen: o.Snaplen, Ports: ports})
	if missing := (*bpf.MissingError)(nil); errors.As(err, &missing) {
		missing.Otherwise = cmp.Or(missing.Otherwise, "choose views without drop")
	}
	return told, err
}

// newDrops returns nil if nobody wants to know.
func newDrops(told *bpf.Drops) *drops {
	if told == nil {
		return nil
	}
	return &drops{told: told}
}

// openDrops begins to record what the kernel frees, so that whatever gets the filter is marked.
func (s *Session) openDrops() (err error) {
	if s.drops, err = openDrops(&s.config.Options, nil, s.tap, s.hook); s.drops == nil || err != nil {
		return err
	}
	if s.hook == nil {
		s.config.Filter = &marking{s.config.Filter, s.drops.Mark}
	}
	return nil
}
