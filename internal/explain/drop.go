package explain

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/ebpfdump/ebpfdump/capture"
)

// Drops is what the kernel freed without having used it.
type Drops struct {
	// Packets are all of them, and Reasons say why, the most frequent reason first: at most
	// sixteen, the last of which may be that of all others.
	Packets Count        `json:"packets"`
	Reasons []DropReason `json:"reasons"`
	// Unseen are those that no other view of the kernel's side has.
	Unseen Count `json:"in_no_other_view"`
	// Lost counts packets that were dropped and are not in the file.
	Lost uint64 `json:"lost"`
}

// DropReason are the packets that were dropped for a reason.
type DropReason struct {
	// Reason is the kernel's name for it.
	Reason string `json:"reason"`
	Count
}

// reasonsLimit bounds Reasons, and otherReasons stands for what is beyond.
const (
	reasonsLimit = 16
	otherReasons = "others"
)

// drop counts a packet.
func (d *Drops) drop(p *capture.Packet) {
	length := uint64(max(p.Len, len(p.Data)))
	d.Packets.add(p.ID, length)
	reason := printable(p.Drop.Reason)
	at := slices.IndexFunc(d.Reasons, func(r DropReason) bool { return r.Reason == reason })
	if at < 0 {
		if len(d.Reasons) == reasonsLimit-1 {
			reason = otherReasons
		}
		if len(d.Reasons) < reasonsLimit {
			d.Reasons = append(d.Reasons, DropReason{Reason: reason})
		}
		at = len(d.Reasons) - 1
	}
	d.Reasons[at].add(p.ID, length)
}

// dropped is made when there is something to tell.
func (s *socket) dropped() *Drops {
	if s.out.Drops == nil {
		s.out.Drops = &Drops{Reasons: []DropReason{}}
	}
	return s.out.Drops
}

// dropPacket handles a packet of the drop view. It is one that another view has, or nobody but the
// kernel has seen it.
func (s *socket) dropPacket(p *capture.Packet) {
	s.dropped().drop(p)
	reason := cmp.Or(printable(p.Drop.Reason), "a reason that is not in the file")
	if e := s.find(p); e != nil && !e.seen[capture.ViewDrop] {
		e.seen[capture.ViewDrop], e.reason, e.freed = true, reason, p.Time
		before, agrees := e.compareView(p)
		e.note(p, before, agrees)
		return
	}
	d := dissect(p.Interface.Layer, p.Protocol, p.Data, p.Len)
	e := &entry{
		socket: s, id: p.ID, time: p.Time, direction: p.Direction, src: p.Src, dst: p.Dst,
		first: p.Interface, length: max(p.Len, len(p.Data)), payload: d.payload, end: d.end, protocol: d.protocol,
		verdict: keepAll, reason: reason,
	}
	e.tcp, e.isTCP = d.tcp(p.Data)
	e.seen[capture.ViewDrop] = true
	s.enter(e)
	e.note(p, 0, true)
}

// dropAlone tells whether only the drop view has the packet.
func (e *entry) dropAlone() bool { return e.reason != "" && e.first.View == capture.ViewDrop }

// settleDropped counts a packet that nobody but the kernel has seen.
func (e *entry) settleDropped() (fate string) {
	e.socket.out.Drops.Unseen.add(e.id, uint64(max(e.end-e.payload, 0)))
	e.lose(laneDropped)
	if e.direction == capture.Outbound {
		return "the socket sent it, and the kernel dropped it: " + e.reason
	}
	return "the kernel dropped it, and no other view has it: " + e.reason
}

// finishDrops adds what the statistics say.
func (s *socket) finishDrops() {
	v := s.views[capture.ViewDrop]
	if v == nil {
		return
	}
	d := s.dropped()
	d.Lost = s.lossOf(capture.ViewDrop)
	slices.SortStableFunc(d.Reasons, func(a, b DropReason) int {
		return cmp.Compare(b.Packets, a.Packets)
	})
}

func (s *socket) sayDrops() Finding {
	f := Finding{Topic: "drop"}
	d := s.out.Drops
	if d == nil {
		return f
	}
	if d.Packets.Packets == 0 {
		f.Text = s.sayNothing(capture.ViewDrop, "Nothing was dropped by the kernel.")
	} else {
		f.Warning = true
		var words []string
		for _, r := range d.Reasons {
			words = append(words, fmt.Sprintf("%s (%s)", r.Reason, r.named()))
		}
		f.Text = fmt.Sprintf("The kernel dropped %s: ", packetsOf(d.Packets.Packets)) + list(words) + "."
	}
	if d.Unseen.Packets > 0 {
		f.Text += fmt.Sprintf(" No other view has %s.", d.Unseen.named())
	}
	f.Warning = f.Warning || s.mayLack(capture.ViewDrop)
	f.Text += s.sayLoss(capture.ViewDrop, packetsOf(d.Lost))
	return f
}
