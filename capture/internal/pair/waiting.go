package pair

import (
	"bytes"
	"cmp"
	"hash/maphash"
	"net/netip"
)

var seed = maphash.MakeSeed()

// headLen is how many first bytes of a datagram are kept in addition to the hash of all.
const headLen = 16

// datagram is one that has not been delivered.
type datagram struct {
	place  int // position in the order of the filter
	id     uint64
	time   int64
	hash   uint64 // of the first prefix bytes of the payload
	keep   int32  // length of the payload that userspace gets; -1 if it gets nothing
	prefix int32  // how many bytes of it are known
	head   [headLen]byte
	*ends
	next   [lists]uint32 // in the index, how much later the next one in the same list is; 0 if there is none
	gone   bool          // delivered
	again  bool          // another one before it had the same bytes, as far as the Datagrams' kinds know
	begins bool          // another one before it began with the same bytes
}

// waiting are the datagrams that were not delivered, in the order of the filter: a queue that
// can be searched by position.
type waiting struct {
	// chunks is a ring of them. A small queue has one that grows, a deep one as many as it needs,
	// of chunkLen each: so none of them is copied, and what was read makes room.
	chunks [][]datagram
	spare  []datagram // a chunk that can be used again
	first  uint64     // number of the first one
	end    uint64     // number after the last one
	hint   uint64     // number at which the last look-up ended
	room   *Room
	taken  int    // chunks of it
	used   uint64 // when the last one was taken or given back
	// forgotten is the place after the last one that was removed to make room.
	forgotten int
	index     index
	known     known
}

const (
	chunkLen = 1 << 10
	// waitingAlone is how many datagrams of each socket are kept in any case, some 170 bytes each, and
	// waitingLimit how many more of all sockets that share a Room. To have as many in one queue takes
	// SO_RCVBUF of 400 MB.
	waitingAlone = 1 << 14
	waitingLimit = 1 << 19
)

func (w *waiting) at(number uint64) *datagram {
	if len(w.chunks) == 1 {
		return &w.chunks[0][number&uint64(len(w.chunks[0])-1)]
	}
	return &w.chunks[number/chunkLen&uint64(len(w.chunks)-1)][number%chunkLen]
}

func (w *waiting) len() int { return int(w.end - w.first) }

// push appends a datagram.
func (w *waiting) push(room *Room) *datagram {
	switch n := w.len(); {
	case len(w.chunks) > 1:
	case len(w.chunks) == 0:
		w.chunks = [][]datagram{make([]datagram, 4)} // small at first: a process may have ten thousand sockets
	case n == chunkLen:
		w.spread()
	case n == len(w.chunks[0]):
		w.place(make([]datagram, 2*n))
	}
	if len(w.chunks) > 1 && w.end%chunkLen == 0 {
		w.chunk(room)
	}
	w.end++
	return w.at(w.end - 1)
}

// place moves a small queue to a larger chunk.
func (w *waiting) place(larger []datagram) {
	for number := w.first; number < w.end; number++ {
		larger[number&uint64(len(larger)-1)] = *w.at(number)
	}
	w.chunks[0] = larger
}

// spread makes a queue of several chunks of one that has filled its only one.
func (w *waiting) spread() {
	all := make([][]datagram, 4)
	for number := w.first; number < w.end; number++ {
		chunk := &all[number/chunkLen%4]
		if *chunk == nil {
			*chunk = make([]datagram, chunkLen)
		}
		(*chunk)[number%chunkLen] = *w.at(number)
	}
	w.chunks = all
}

// chunk takes one for the next datagram.
func (w *waiting) chunk(room *Room) {
	if w.held() >= waitingAlone/chunkLen {
		if w.room == nil {
			w.room = cmp.Or(room, new(Room))
		}
		w.room.take(w)
	}
	if w.held() == len(w.chunks) {
		larger := make([][]datagram, 2*len(w.chunks))
		for at := w.first / chunkLen; at < w.end/chunkLen; at++ {
			larger[at&uint64(len(larger)-1)] = w.chunks[at&uint64(len(w.chunks)-1)]
		}
		w.chunks = larger
	}
	if w.spare == nil {
		w.spare = make([]datagram, chunkLen)
	}
	w.chunks[w.end/chunkLen&uint64(len(w.chunks)-1)], w.spare = w.spare, nil
}

// held is how many full chunks there are.
func (w *waiting) held() int { return int(w.end/chunkLen - w.first/chunkLen) }

// pop removes the first one.
func (w *waiting) pop() {
	w.index.remove(w, w.first)
	w.first++
	if len(w.chunks) == 1 || w.first%chunkLen != 0 {
		return
	}
	chunk := &w.chunks[(w.first/chunkLen-1)&uint64(len(w.chunks)-1)]
	clear(*chunk) // it has pointers
	w.spare, *chunk = *chunk, nil
	if w.taken > 0 {
		w.room.giveBack(w)
	}
}

// makeRoom removes the first ones, up to the end of a chunk.
func (w *waiting) makeRoom() {
	for more := true; more; more = w.first%chunkLen != 0 {
		if one := w.at(w.first); !one.gone {
			w.forgotten = one.place + 1
		}
		w.pop()
	}
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
