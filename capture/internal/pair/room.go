package pair

import (
	"cmp"
	"hash/maphash"
	"net/netip"
)

// Room is for the datagrams of sockets in whose receive queues more wait than are kept for each socket in
// any case. Sockets can share one: then it bounds the memory for all of them.
type Room struct {
	chunks  int // in use
	most    int // datagrams; 0 for waitingLimit
	clock   uint64
	holders map[*waiting]struct{}
}

// take takes a chunk for a queue. If there is none, the queue in which nothing has come or gone for longest
// forgets its first datagrams: the socket may have been closed.
func (r *Room) take(w *waiting) {
	for most := cmp.Or(r.most, waitingLimit); r.chunks >= most/chunkLen; {
		var idle *waiting
		for one := range r.holders {
			if idle == nil || one.used < idle.used {
				idle = one
			}
		}
		idle.makeRoom()
	}
	if r.holders == nil {
		r.holders = make(map[*waiting]struct{})
	}
	r.holders[w] = struct{}{}
	r.chunks++
	w.taken++
	r.uses(w)
}

func (r *Room) giveBack(w *waiting) {
	r.chunks--
	if w.taken--; w.taken == 0 {
		delete(r.holders, w)
	}
	r.uses(w)
}

func (r *Room) uses(w *waiting) {
	r.clock++
	w.used = r.clock
}

// ends are the addresses of a datagram.
type ends struct{ src, dst netip.AddrPort }

// known are the addresses of the last datagrams. Those of most datagrams are among them, and need no
// memory of their own.
type known struct {
	last *ends
	some []*ends // by hash
	slab []ends  // the next ones
}

const (
	knownEnds = 64
	slabLen   = 32
)

// of returns the place of a datagram's addresses.
func (k *known) of(p *Packet) *ends {
	is := ends{p.Src, p.Dst}
	switch {
	case k.last == nil:
		k.last = &ends{p.Src, p.Dst}
	case *k.last != is:
		if k.some == nil {
			k.some = make([]*ends, knownEnds)
		}
		at := &k.some[maphash.Comparable(seed, is)%knownEnds]
		if *at == nil || **at != is {
			if len(k.slab) == 0 {
				k.slab = make([]ends, slabLen)
			}
			k.slab[0] = is
			*at, k.slab = &k.slab[0], k.slab[1:]
		}
		k.last = *at
	}
	return k.last
}
