package explain

import (
	"net/netip"
	"slices"

	"github.com/ebpfdump/ebpfdump/capture"
)

// Choice says which packets are shown individually. The findings are about all of them. A packet
// must fit all that is set.
type Choice struct {
	// IDs are ranges of packet ids, from the first to the last.
	IDs [][2]uint64
	// Peers are addresses of which a packet comes from one or goes to one. Port 0 is any.
	Peers []netip.AddrPort
	// Lost are packets that userspace could have got, and did not, or not whole: also those that a
	// firewall or the kernel stopped before. Where the file does not tell what userspace got, only those are lost.
	Lost bool
	// Views are those of which a packet must be in one.
	Views []capture.View
}

// early tells whether a packet fits as far as its first view says.
func (c *Choice) early(e *entry) bool {
	in := func(r [2]uint64) bool { return r[0] <= e.id && e.id <= r[1] }
	at := func(peer netip.AddrPort) bool { return same(peer, e.src) || same(peer, e.dst) }
	return (len(c.IDs) == 0 || slices.ContainsFunc(c.IDs, in)) && (len(c.Peers) == 0 || slices.ContainsFunc(c.Peers, at))
}

// same compares an address with one that was asked for.
func same(asked, is netip.AddrPort) bool {
	return asked.Addr().Unmap() == is.Addr().Unmap() && (asked.Port() == 0 || asked.Port() == is.Port())
}

// chooses tells whether only some packets are shown.
func (c *Choice) chooses() bool { return len(c.IDs)+len(c.Peers)+len(c.Views) > 0 || c.Lost }

// waits tells whether only a packet's whole story tells if it is shown.
func (c *Choice) waits() bool { return c.Lost || len(c.Views) > 0 }

// late tells whether a packet fits, once all is known of it.
func (c *Choice) late(e *entry, lost bool) bool {
	seen := func(v capture.View) bool {
		return e.seen[v] || v == capture.ViewUser && (e.reads > 0 || e.peeked) || v == capture.ViewSent && e.sent
	}
	return (!c.Lost || lost) && (len(c.Views) == 0 || slices.ContainsFunc(c.Views, seen))
}

// consider keeps what is to be shown of a new packet, if it may be one of those.
func (a *analysis) consider(e *entry) {
	if !a.options.Choice.early(e) {
		return
	}
	if a.options.Choice.waits() {
		e.shown = &shown{}
		return
	}
	a.choose(e)
}

// choose shows a packet if there is room for one more.
func (a *analysis) choose(e *entry) {
	if a.options.Packets >= 0 && len(a.shown) >= a.options.Packets {
		a.omitted[e.item()]++
		e.shown = nil
		return
	}
	if e.shown == nil {
		e.shown = &shown{}
	}
	a.shown = append(a.shown, e)
}

// lost is how many packets userspace could have got, and did not. Without a user view of them that is only
// known of those that somebody before it has dropped.
func (u *Undelivered) lost(user bool) (n uint64) {
	known := []Count{u.ByFilter, u.ByKernel}
	if user {
		known = append(known, u.ByQueue, u.PassedOver, u.AtEnd, u.NotKnown, u.Trimmed, u.ByBuffer, u.InPart)
	}
	for _, c := range known {
		n += c.Packets
	}
	return n
}

// lost is how many packets the socket's process has lost, wherever that was.
func (s *socket) lost() uint64 {
	n := s.out.Undelivered.lost(s.user()) + s.strayed
	if s.out.Wire != nil {
		n += s.out.Wire.Stopped.Packets
	}
	if s.out.Drops != nil {
		n += s.out.Drops.Unseen.Packets
	}
	return n
}

// Shown is how many packets are shown individually.
func (e *Explanation) Shown() int { return len(e.packets) }
