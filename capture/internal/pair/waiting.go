package pair

import (
	"bytes"
	"hash/maphash"
	"net/netip"
)

var seed = maphash.MakeSeed()

// headLen is how many first bytes of a datagram are kept beside the hash of all.
const headLen = 16

// datagram is one that has not been delivered.
type datagram struct {
	place    int // in the order of the filter
	id       uint64
	time     int64
	hash     uint64 // of the first prefix bytes of the payload
	keep     int32  // length of the payload that userspace gets; -1 if it gets none of it
	prefix   int32  // how many bytes of it are known
	gone     bool   // delivered
	head     [headLen]byte
	src, dst netip.AddrPort
}

// waitingLimit bounds the memory for datagrams that are never delivered, some 140
// bytes each. Few receive queues have room for as many: it takes SO_RCVBUF of 100 MB.
const waitingLimit = 1 << 17

// waiting are the datagrams that were not delivered, in the order of the filter: a
// queue that is found by place.
type waiting struct {
	ring  []datagram // a power of two
	first uint64     // number of the first one; the ring has it at number modulo size
	end   uint64     // number behind the last one
	hint  uint64     // number that the last look-up ended at
	index index
}

func (w *waiting) at(number uint64) *datagram { return &w.ring[number&uint64(len(w.ring)-1)] }

func (w *waiting) len() int { return int(w.end - w.first) }

// push adds a datagram behind all others.
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
	larger := make([]datagram, max(2*len(w.ring), 4)) // a process may have ten thousand sockets
	for number := w.first; number < w.end; number++ {
		larger[number&uint64(len(larger)-1)] = *w.at(number)
	}
	w.ring = larger
}

// pop forgets the first one.
func (w *waiting) pop() {
	w.index.remove(w, w.first)
	w.first++
}

// forgottenAtOnce is how many datagrams are forgotten at once: of more, each of the next
// deliveries and packets takes its share, so that none has to wait for all.
const forgottenAtOnce = 64

// forget drops what was delivered, and what stands before a place, from the front.
func (w *waiting) forget(before int) {
	for range forgottenAtOnce {
		if w.first == w.end || !w.at(w.first).gone && w.at(w.first).place >= before {
			return
		}
		w.pop()
	}
}

// find is the number of the first datagram from a place on. It looks where the
// last one was found, and in growing steps from there.
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

// sought is a delivery whose datagram is looked for. Hashes of its bytes are
// computed when somebody asks, and once.
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

// whole tells whether the delivery has all that a datagram of its length has.
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
	// Userspace got a part of it only.
	known := min(len(s.Data), int(w.prefix), headLen)
	return bytes.Equal(s.Data[:known], w.head[:known])
}

// sameAddr compares addresses and, where both have one, ports: raw sockets
// report none. A sender that nobody wrote down or asked for (b is invalid) may be any.
func sameAddr(a, b netip.AddrPort) bool {
	if a == b || !b.IsValid() {
		return true
	}
	return a.Addr() == b.Addr().WithZone("") && (a.Port() == b.Port() || a.Port() == 0 || b.Port() == 0)
}
