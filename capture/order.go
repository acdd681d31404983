package capture

import (
	"cmp"
	"slices"
)

// order holds packets back until nothing earlier can come any more, and then
// hands them to a sink in the order of their times. Memory of packets that
// were handed on is used again, so that in the long run nothing is allocated.
type order struct {
	sink    Sink
	held    []*heldPacket
	unused  []*heldPacket
	arena   arena
	counter uint64
}

type heldPacket struct {
	Packet
	sequence uint64 // tells packets of the same nanosecond apart
	chunk    *chunk
}

// add copies a packet and its data.
func (o *order) add(p *Packet) {
	var h *heldPacket
	if n := len(o.unused); n > 0 {
		h, o.unused = o.unused[n-1], o.unused[:n-1]
	} else {
		h = new(heldPacket)
	}
	o.counter++
	h.Packet, h.sequence = *p, o.counter
	h.Data, h.chunk = o.arena.copy(p.Data)
	o.held = append(o.held, h)
}

// release writes all packets up to a time. A failing sink gets no more packets.
func (o *order) release(until int64) error {
	// Almost always sorted already, which costs one pass.
	slices.SortFunc(o.held, func(a, b *heldPacket) int {
		if c := cmp.Compare(a.Time, b.Time); c != 0 {
			return c
		}
		return cmp.Compare(a.sequence, b.sequence)
	})
	var (
		n   int
		err error
	)
	for ; n < len(o.held) && o.held[n].Time <= until && err == nil; n++ {
		h := o.held[n]
		err = o.sink.WritePacket(&h.Packet)
		o.arena.free(h.chunk)
		h.Packet, h.chunk = Packet{}, nil
		o.unused = append(o.unused, h)
	}
	o.held = append(o.held[:0], o.held[n:]...)
	return err
}

// chunkSize is the least that an arena allocates at once, in bytes.
const chunkSize = 1 << 20

// arena hands out memory by the chunk and takes it back by the chunk, when all
// that was handed out of it is free.
type arena struct {
	filling *chunk
	empty   []*chunk
}

type chunk struct {
	memory []byte
	used   int
	held   int // copies that are not free yet
}

func (a *arena) copy(data []byte) ([]byte, *chunk) {
	if a.filling == nil || len(a.filling.memory)-a.filling.used < len(data) {
		a.filling = a.next(len(data))
	}
	c := a.filling
	to := c.memory[c.used : c.used+len(data) : c.used+len(data)]
	copy(to, data)
	c.used += len(data)
	c.held++
	return to, c
}

func (a *arena) next(size int) *chunk {
	if n := len(a.empty); n > 0 && size <= chunkSize {
		c := a.empty[n-1]
		a.empty = a.empty[:n-1]
		return c
	}
	return &chunk{memory: make([]byte, max(size, chunkSize))}
}

func (a *arena) free(c *chunk) {
	c.held--
	if c.held > 0 {
		return
	}
	c.used = 0
	if c != a.filling && len(c.memory) == chunkSize {
		a.empty = append(a.empty, c)
	}
}
