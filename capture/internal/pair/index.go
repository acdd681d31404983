package pair

import (
	"hash/maphash"
	"net/netip"
)

// index finds datagrams by their bytes when they are not at the expected position. It stays
// empty as long as all are.
type index struct {
	lists map[uint64]list
	begun uint64 // number of the first datagram that is or was in the index
	done  uint64 // number after the last one
	// Lengths of known bytes that are less than the datagram's own: with a snaplen there is
	// one.
	prefixes []int
}

// list is the last digits of the numbers of the first and the last datagram of a list.
type list struct{ first, last uint32 }

// number is that of a waiting datagram of which the last digits are known.
func (w *waiting) number(digits uint32) uint64 { return w.first + uint64(digits-uint32(w.first)) }

// Each datagram is in three lists.
const (
	exact = iota // of those with the same sender, length and bytes, as far as they are known
	whole        // the same, from any sender
	head         // of those with the same first bytes
	lists
)

// prefixesLimit bounds the lengths that are tried for each delivery.
const prefixesLimit = 8

// backlog is how many datagrams wait before they are added to the index ahead of time, a few
// with each new one, so that no single look-up has to add many.
const backlog = 1 << 10

// mix scrambles a number so that each bit of the result depends on all bits (SplitMix64).
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

// ahead adds some datagrams to the index if many wait.
func (x *index) ahead(w *waiting) {
	if w.len() > backlog && x.done < w.end {
		x.extend(w, min(max(x.done, w.first)+2, w.end))
	}
}

// extend adds datagrams up to a number to the index.
func (x *index) extend(w *waiting, end uint64) {
	if x.done < w.first {
		x.begun, x.done = w.first, w.first
	}
	if x.lists == nil {
		x.lists = make(map[uint64]list)
	}
	for ; x.done < end; x.done++ {
		for which := range lists {
			x.insert(w, which, x.done)
		}
	}
}

func (x *index) insert(w *waiting, which int, number uint64) {
	one, digits := w.at(number), uint32(number)
	key := one.key(which)
	l, ok := x.lists[key]
	if ok {
		w.at(w.number(l.last)).next[which] = digits - l.last
		l.last = digits
	} else {
		l = list{digits, digits}
	}
	x.lists[key] = l
}

// remove removes the first datagram of all from its lists, where it is the first as well.
func (x *index) remove(w *waiting, number uint64) {
	if number < x.begun || number >= x.done {
		return
	}
	for which := range lists {
		one := w.at(number)
		key := one.key(which)
		if l, ok := x.lists[key]; ok && l.first == uint32(number) { // else it was removed before
			x.behind(key, l, one.next[which])
		}
	}
	if len(x.lists) == 0 {
		x.lists = nil // maps do not shrink
	}
}

// behind removes from the front of a list, up to one that is next later than its first.
func (x *index) behind(key uint64, l list, next uint32) {
	if next == 0 {
		delete(x.lists, key)
		return
	}
	l.first += next
	x.lists[key] = l
}

const (
	// fittingLimit bounds how many fitting datagrams are shown for a delivery.
	fittingLimit = 32
	// passedLimit bounds how many others in the lists are skipped for it. At most behind of
	// them were delivered already, and those that cannot be delivered any more are removed.
	passedLimit = 4 * behind
)

// alike calls found with the numbers of datagrams that may have brought what was delivered, in
// order within each list, until it returns false, and tells whether it has shown all. Those
// before position low cannot be delivered any more, those before position from are not wanted.
func (x *index) alike(w *waiting, s *sought, low, from int, found func(number uint64) bool) (all bool) {
	x.extend(w, w.end)
	fitting, passed := 0, 0
	walk := func(which int, key uint64) bool {
		l, ok := x.lists[key]
		for ok && w.at(w.number(l.first)).place < low && passed < passedLimit {
			x.behind(key, l, w.at(w.number(l.first)).next[which])
			l, ok = x.lists[key]
			passed++
		}
		if !ok {
			return true
		}
		for at := w.number(l.first); ; at += uint64(w.at(at).next[which]) {
			switch one := w.at(at); {
			case one.place < from || !one.brought(s):
				if passed++; passed > passedLimit {
					return false
				}
			default:
				if fitting++; fitting > fittingLimit || !found(at) {
					return false
				}
			}
			if w.at(at).next[which] == 0 {
				return true
			}
		}
	}
	if !s.whole() {
		return walk(head, headKey(s.Data[:min(len(s.Data), headLen)]))
	}
	of := func(prefix int) bool {
		hash := s.hashOf(prefix)
		if s.From.Port() == 0 {
			return walk(whole, wholeKey(hash, s.Full, prefix))
		}
		// Packets of raw sockets may have no ports, and addresses no zone.
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
