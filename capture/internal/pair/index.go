package pair

import (
	"hash/maphash"
	"net/netip"
)

// index finds datagrams by their bytes, when they are not at the place where they
// are expected. As long as all are, nothing is put into it.
type index struct {
	lists map[uint64]list
	next  [lists][]uint64 // number of the next one in the same list, plus one; beside waiting.ring
	begun uint64          // number of the first datagram that is in the index, or was
	done  uint64          // number behind the last one
	// Lengths of known bytes that are less than the datagram's own: of a capture with
	// a snaplen there is one.
	prefixes []int
}

// list is the numbers, plus one, of the first and the last datagram of a list.
type list struct{ first, last uint64 }

// Each datagram is in three lists.
const (
	exact = iota // of those with its sender, its length and the same bytes, as far as they are known
	whole        // of those from any sender
	head         // of those with the same first bytes
	lists
)

// prefixesLimit bounds the lengths that are tried for each delivery.
const prefixesLimit = 8

// backlog is how many datagrams wait before they are put into the index ahead of
// time, a few with each new one, so that no single look-up has to do it for many.
const backlog = 1 << 10

// mix makes another number of one, so that all its bits depend on all of it (SplitMix64).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

func wholeKey(hash uint64, keep, prefix int) uint64 {
	return mix(hash ^ mix(uint64(keep)<<32|uint64(prefix)))
}

func exactKey(src netip.AddrPort, hash uint64, keep, prefix int) uint64 {
	return mix(wholeKey(hash, keep, prefix) ^ maphash.Comparable(seed, src))
}

func headKey(bytes []byte) uint64 { return ^maphash.Bytes(seed, bytes) }

func (w *datagram) key(which int) uint64 {
	switch which {
	case exact:
		return exactKey(w.src, w.hash, int(w.keep), int(w.prefix))
	case whole:
		return wholeKey(w.hash, int(w.keep), int(w.prefix))
	}
	return headKey(w.head[:min(max(w.prefix, 0), headLen)])
}

// noted remembers how much of a datagram is known.
func (x *index) noted(keep, prefix int) {
	if prefix >= keep || len(x.prefixes) == prefixesLimit {
		return
	}
	for _, known := range x.prefixes {
		if known == prefix {
			return
		}
	}
	x.prefixes = append(x.prefixes, prefix)
}

// ahead puts some datagrams into the index if many wait.
func (x *index) ahead(w *waiting) {
	if w.len() > backlog && x.done < w.end {
		x.extend(w, min(max(x.done, w.first)+2, w.end))
	}
}

// extend puts datagrams up to a number into the index.
func (x *index) extend(w *waiting, end uint64) {
	if x.done < w.first {
		x.begun, x.done = w.first, w.first
	}
	if x.lists == nil {
		x.lists = make(map[uint64]list)
	}
	for which := range x.next {
		if len(x.next[which]) != len(w.ring) {
			x.resize(w, which)
		}
	}
	for ; x.done < end; x.done++ {
		for which := range x.next {
			x.insert(w, which, x.done)
		}
	}
}

// resize follows the ring, which has become larger.
func (x *index) resize(w *waiting, which int) {
	larger := make([]uint64, len(w.ring))
	if old := x.next[which]; len(old) > 0 {
		for number := max(x.begun, w.first); number < x.done; number++ {
			larger[number&uint64(len(larger)-1)] = old[number&uint64(len(old)-1)]
		}
	}
	x.next[which] = larger
}

func (x *index) insert(w *waiting, which int, number uint64) {
	next := x.next[which]
	mask := uint64(len(next) - 1)
	next[number&mask] = 0
	key := w.at(number).key(which)
	l, ok := x.lists[key]
	if ok {
		next[(l.last-1)&mask] = number + 1
		l.last = number + 1
	} else {
		l = list{number + 1, number + 1}
	}
	x.lists[key] = l
}

// remove takes the first datagram of all out of its lists, where it is the first as well.
func (x *index) remove(w *waiting, number uint64) {
	if number < x.begun || number >= x.done {
		return
	}
	for which, next := range x.next {
		key := w.at(number).key(which)
		l := x.lists[key]
		if l.first != number+1 {
			continue // it was thrown away before
		}
		l.first = next[number&uint64(len(next)-1)]
		x.replace(key, l)
	}
	if len(x.lists) == 0 {
		x.lists = nil // maps do not become smaller
	}
}

func (x *index) replace(key uint64, l list) {
	if l.first == 0 {
		delete(x.lists, key)
	} else {
		x.lists[key] = l
	}
}

const (
	// fittingLimit bounds how many datagrams are found for a delivery.
	fittingLimit = 32
	// passedLimit bounds how many others of the lists are passed over for it. There are at
	// most behind that were delivered, and those that cannot be any more are thrown away.
	passedLimit = 4 * behind
)

// alike calls found with the numbers of datagrams that can have brought what was
// delivered, those of one list in their order, until it returns false, and tells
// whether it has shown all. What stands before low cannot be delivered any more, what
// stands before from is not asked for.
func (x *index) alike(w *waiting, s *sought, low, from int, found func(number uint64) bool) (all bool) {
	x.extend(w, w.end)
	fitting, passed := 0, 0
	walk := func(which int, key uint64) bool {
		next := x.next[which]
		l := x.lists[key]
		begin := l.first
		for l.first != 0 && w.at(l.first-1).place < low && passed < passedLimit {
			l.first = next[(l.first-1)&uint64(len(next)-1)]
			passed++
		}
		if l.first != begin {
			x.replace(key, l)
		}
		for at := l.first; at != 0; at = next[(at-1)&uint64(len(next)-1)] {
			if w.at(at-1).place < from || !w.at(at-1).brought(s) {
				if passed++; passed > passedLimit {
					return false
				}
				continue
			}
			if fitting++; fitting > fittingLimit || !found(at-1) {
				return false
			}
		}
		return true
	}
	if !s.whole() {
		return walk(head, headKey(s.Data[:min(len(s.Data), headLen)]))
	}
	of := func(prefix int) bool {
		hash := s.hashOf(prefix)
		if s.From.Port() == 0 {
			return walk(whole, wholeKey(hash, s.Full, prefix))
		}
		// Raw sockets' packets may have no ports, and addresses no zone.
		src := netip.AddrPortFrom(s.From.Addr().WithZone(""), s.From.Port())
		return walk(exact, exactKey(src, hash, s.Full, prefix)) &&
			walk(exact, exactKey(netip.AddrPortFrom(src.Addr(), 0), hash, s.Full, prefix))
	}
	if !of(s.Full) {
		return false
	}
	for _, prefix := range x.prefixes {
		if prefix < s.Full && !of(prefix) {
			return false
		}
	}
	return true
}
