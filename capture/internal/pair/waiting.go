package pair

import (
	"bytes"
	"hash/maphash"
	"net/netip"
)

var seed = maphash.MakeSeed()

// headLen is how many first bytes of a datagram are kept in addition to the hash of all.
const headLen = 16

// datagram is one that has not been delivered.
type datagram struct {
	place    int // position in the order of the filter
	id       uint64
	time     int64
	hash     uint64 // of the first prefix bytes of the payload
	keep     int32  // length of the payload that userspace gets; -1 if it gets nothing
	prefix   int32  // how many bytes of it are known
	gone     bool   // delivered
	again    bool   // another one before it had the same bytes, as far as the Datagrams' kinds know
	begins   bool   // another one before it began with the same bytes
	head     [headLen]byte
	src, dst netip.AddrPort
}

// waitingLimit bounds the memory for datagrams that are never delivered, some 150 bytes each.
// Few receive queues have room for as many: it takes SO_RCVBUF of 100 MB.
const waitingLimit = 1 << 17

// waiting are the datagrams that were not delivered, in the order of the filter: a queue that
// can be searched by position.
type waiting struct {
	ring  []datagram // its length is a power of two
	first uint64     // number of the first one, at index number modulo len(ring)
	end   uint64     // number after the last one
	hint  uint64     // number at which the last look-up ended
	index index
}

func (w *waiting) at(number uint64) *datagram { return &w.ring[number&uint64(len(w.ring)-1)] }

func (w *waiting) len() int { return int(w.end - w.first) }

// push appends a datagram.
func (w *waiting) push() *datagram {
	switch {
	case w.len() == waitingLimit:
		w.pop()
	case w.len() == len(w.ring):
		w.grow()
	}
	w.end++
	return w.at(w.end - 1)
}

func (w *waiting) grow() {
	larger := make([]datagram, max(2*len(w.ring), 4)) // small at first: a process may have ten thousand sockets
	for number := w.first; number < w.end; number++ {
		larger[number&uint64(len(larger)-1)] = *w.at(number)
	}
	w.ring = larger
}

// pop removes the first one.
func (w *waiting) pop() {
	w.index.remove(w, w.first)
	w.first++
}

// forgottenAtOnce bounds how many datagrams are removed at once: if there are more, the next
// deliveries and packets remove the rest, so that none is delayed for long.
const forgottenAtOnce = 64

// forget removes delivered datagrams, and those before a position, from the front.
func (w *waiting) forget(before int) {
	for range forgottenAtOnce {
		if w.first == w.end || !w.at(w.first).gone && w.at(w.first).place >= before {
			return
		}
		w.pop()
	}
}

// find returns the number of the first datagram at or after a position. It begins where the
// last look-up ended, and searches in growing steps from there.
func (w *waiting) find(place int) uint64 {
	low, high := w.first, w.end // the answer is between them
	hint := min(max(w.hint, low), high)
	if hint < high && w.at(hint).place < place {
		low = hint + 1
		for step := uint64(1); low+step < high; step *= 2 {
			if w.at(low+step).place >= place {
				high = low + step
				break
			}
			low += step + 1
		}
	} else {
		high = hint
		for step := uint64(1); low+step < high; step *= 2 {
			if w.at(high-step).place < place {
				low = high - step + 1
				break
			}
			high -= step
		}
	}
	for low < high {
		middle := low + (high-low)/2
		if w.at(middle).place < place {
			low = middle + 1
		} else {
			high = middle
		}
	}
	w.hint = low
	return low
}

// sought is a delivery whose datagram is looked for. Hashes of its bytes are computed once,
// when they are needed.
type sought struct {
	*Delivery
	prefix int
	hash   uint64
}

func seek(d *Delivery) sought { return sought{Delivery: d, prefix: -1} }

func (s *sought) hashOf(prefix int) uint64 {
	if s.prefix != prefix {
		s.prefix, s.hash = prefix, maphash.Bytes(seed, s.Data[:prefix])
	}
	return s.hash
}

// whole tells whether the delivery has all bytes of its datagram.
func (s *sought) whole() bool { return !s.Cut && len(s.Data) >= s.Full }

// brought tells whether a datagram can be what was delivered.
func (w *datagram) brought(s *sought) bool {
	keep := int(w.keep)
	if w.gone || keep < s.Full || keep > s.Full && !s.Cut || !sameAddr(w.src, s.From) {
		return false
	}
	if keep == s.Full && int(w.prefix) <= len(s.Data) {
		return w.hash == s.hashOf(int(w.prefix))
	}
	// Userspace got only a part of it.
	known := min(len(s.Data), int(w.prefix), headLen)
	return bytes.Equal(s.Data[:known], w.head[:known])
}

// whole is the Whole of the delivery that the datagram brought.
func (w *datagram) whole(d *Delivery) int {
	if d.Cut && int(w.keep) > d.Full {
		return int(w.keep)
	}
	return 0
}

// sameAddr compares addresses and, where both have one, ports: raw sockets report none. If the
// sender is not known (b is invalid), any address is the same.
func sameAddr(a, b netip.AddrPort) bool {
	if a == b || !b.IsValid() {
		return true
	}
	return a.Addr() == b.Addr().WithZone("") && (a.Port() == b.Port() || a.Port() == 0 || b.Port() == 0)
}
