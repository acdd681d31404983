package pair

import (
	"encoding/binary"
	"math/bits"
)

// kinds remembers what bytes the last datagrams had, also those that were delivered, in as little
// room as can be looked up at once: an older kind makes room for a newer one. Its length is a
// power of two. One half is for whole datagrams and one for their beginnings, so that those of one datagram
// never make room for each other.
type kinds []uint32

// kindsRoom is for a socket near a loss.
const kindsRoom = 1 << 10

// fewKinds is for a socket of which nothing was lost yet: a process may have ten thousand.
type fewKinds [32]uint32

// kind is the same for datagrams with the same length, bytes and sender's port. Addresses are not
// part of it, because the sender of a delivery may not be known.
func (w *datagram) kind() uint64 {
	return mix(w.hash ^ uint64(w.src.Port())<<48 ^ uint64(uint32(w.keep))<<20 ^ uint64(uint32(w.prefix)))
}

// beginning is the same for datagrams with the same first bytes.
func (w *datagram) beginning() uint64 {
	return ^mix(binary.LittleEndian.Uint64(w.head[:]) ^ bits.RotateLeft64(binary.LittleEndian.Uint64(w.head[8:]), 21))
}

// sort notes a datagram, and whether there was one like it.
func (k kinds) sort(w *datagram) {
	if len(k) == 0 {
		return
	}
	whole, beginnings := k[:len(k)/2], k[len(k)/2:]
	again, begins := whole.note(w.kind()), beginnings.note(w.beginning())
	w.again, w.begins = w.again || again, w.begins || begins
}

func (k kinds) note(kind uint64) (known bool) {
	at, rest := &k[kind%uint64(len(k))], uint32(kind>>32)|1
	known = *at == rest
	*at = rest
	return known
}

// manyKinds begins to remember many kinds, with those of the datagrams that wait, of which there
// may be more.
func (q *Datagrams) manyKinds() {
	if q.many != nil {
		return
	}
	q.many = make(kinds, kindsRoom)
	w := &q.waiting
	for number := w.end - min(uint64(w.len()), kindsRoom); number < w.end; number++ {
		q.many.sort(w.at(number))
	}
}
