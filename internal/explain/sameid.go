package explain

import (
	"hash/maphash"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
)

// Packets of several captures that one file has, as mergecap makes it, have the same ids. They are
// told apart by their addresses.

// twins remember with which addresses the packets came that have an id, within bounds.
type twins struct {
	// ids are those so far, and first says with which addresses the first packet of each came,
	// in the place of its id.
	ids   idSet
	first []uint32
	// more are the further ones of the same id.
	more map[twin]bool
	seed maphash.Seed
	// apart are the packets that have an id of another one and other addresses.
	apart Count
}

// twin is a packet that has the id of another one.
type twin struct {
	id    uint64
	place uint32
}

// twinIDs bounds the ids whose addresses are remembered, and twinLimit the further packets with one.
const (
	twinIDs   = 1 << 20
	twinLimit = 1 << 18
)

// add adds a packet, and tells whether it is certain which of those with its id it is.
func (t *twins) add(e *entry) (certain bool) {
	if t.more == nil {
		t.more, t.seed = make(map[twin]bool), maphash.MakeSeed()
	}
	place := t.place(e)
	if t.ids.add(e.id) {
		if e.id < twinIDs {
			for uint64(len(t.first)) <= e.id {
				t.first = append(t.first, 0)
			}
			t.first[e.id] = place
		}
		return true
	}
	other := twin{e.id, place}
	if e.id >= uint64(len(t.first)) || t.first[e.id] == place || t.first[e.id] == 0 || t.more[other] || len(t.more) >= twinLimit {
		return false
	}
	t.more[other] = true
	t.apart.add(e.id, uint64(e.length))
	return true
}

// sameIDs is of how many captures packets with the same id are told apart in the window, so that no file
// makes finding one long.
const sameIDs = 16

// place is a hash of a packet's addresses, never 0.
func (t *twins) place(e *entry) uint32 {
	var h maphash.Hash
	h.SetSeed(t.seed)
	for _, a := range []netip.AddrPort{e.src, e.dst} {
		b := a.Addr().Unmap().As16()
		_, _ = h.Write(b[:])
		_, _ = h.Write([]byte{byte(a.Port() >> 8), byte(a.Port())})
	}
	return uint32(h.Sum64()) | 1
}

// find returns the packet in the window of which this is another view, or what a read got of it, nil
// if there is none. Of those with its id, it is the newest one that has the addresses, and not yet this view:
// one with others is of another capture, unless something may change addresses between the two views.
func (s *socket) find(p *capture.Packet) *entry {
	newest := s.open[p.ID]
	if p.ID == 0 || newest == nil {
		return nil
	}
	var found *entry
	for e := newest; e != nil; e = e.older {
		if !near(e.src, p.Src) || !near(e.dst, p.Dst) {
			continue
		}
		if found == nil || found.seen[p.Interface.View] && !e.seen[p.Interface.View] {
			found = e
		}
	}
	if found == nil && s.twins.apart.Packets == 0 && newest.older == nil && s.translated(newest, p) {
		return newest
	}
	return found
}

// translated tells whether a packet may have got other addresses between two views: a firewall translates them
// between an interface or a drop and the others, and an association of SCTP has several.
func (s *socket) translated(e *entry, p *capture.Packet) bool {
	outside := func(v capture.View) bool { return v == capture.ViewWire || v == capture.ViewDrop }
	k, known := capture.KindByName(s.out.Kind)
	return outside(p.Interface.View) || outside(e.first.View) || known && k.Protocol() == unix.IPPROTO_SCTP
}

// near tells whether two addresses may be the same: sockets that are bound to none, and programs that
// see no ports, leave them out.
func near(a, b netip.AddrPort) bool {
	any := func(a netip.Addr) bool { return !a.IsValid() || a.IsUnspecified() }
	return (any(a.Addr()) || any(b.Addr()) || a.Addr().Unmap() == b.Addr().Unmap()) &&
		(a.Port() == 0 || b.Port() == 0 || a.Port() == b.Port())
}

// opens makes a packet known by its id.
func (s *socket) opens(e *entry) {
	if e.id == 0 || e.first == nil {
		return
	}
	e.older = s.open[e.id]
	s.open[e.id] = e
	last := e
	for n := 1; n < sameIDs && last.older != nil; n++ {
		last = last.older
	}
	last.older = nil
}

// closes forgets a packet that leaves the window. It is the oldest one with its id, or forgotten already.
func (s *socket) closes(e *entry) {
	newest := s.open[e.id]
	if newest == e {
		delete(s.open, e.id)
		return
	}
	for newest != nil && newest.older != e {
		newest = newest.older
	}
	if newest != nil {
		newest.older = nil
	}
}
