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
	held    []turn
	sorted  int // how many of held are in order
	merged  []turn
	unused  []*heldPacket
	arena   arena
	counter uint64
}

// turn is when a packet is to be handed on.
type turn struct {
	time     int64
	sequence uint64 // tells packets of the same nanosecond apart
	packet   *heldPacket
}

func (t turn) compare(other turn) int {
	if c := cmp.Compare(t.time, other.time); c != 0 {
		return c
	}
	return cmp.Compare(t.sequence, other.sequence)
}

type heldPacket struct {
	Packet
	chunk *chunk
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
	h.Packet = *p
	h.Data, h.chunk = o.arena.copy(p.Data)
	o.held = append(o.held, turn{p.Time, o.counter, h})
}

// sort puts what has been added in its place. The rest is in order, and most of
// it before all that is new.
func (o *order) sort() {
	added := o.held[o.sorted:]
	slices.SortFunc(added, turn.compare)
	if len(added) > 0 {
		at, _ := slices.BinarySearchFunc(o.held[:o.sorted], added[0], turn.compare)
		o.merged = merge(o.merged[:0], o.held[at:o.sorted], added)
		copy(o.held[at:], o.merged)
	}
	o.sorted = len(o.held)
}

// merge appends two lists that are in order as one.
func merge(to, a, b []turn) []turn {
	for len(a) > 0 && len(b) > 0 {
		if a[0].compare(b[0]) < 0 {
			to, a = append(to, a[0]), a[1:]
		} else {
			to, b = append(to, b[0]), b[1:]
		}
	}
	return append(append(to, a...), b...)
}

// release writes all packets up to a time. A failing sink gets no more packets.
func (o *order) release(until int64) error {
	o.sort()
	var (
		n   int
		err error
	)
	for ; n < len(o.held) && o.held[n].time <= until && err == nil; n++ {
		h := o.held[n].packet
		err = o.sink.WritePacket(&h.Packet)
		o.arena.free(h.chunk)
		h.Packet, h.chunk = Packet{}, nil
		o.unused = append(o.unused, h)
	}
	o.held = append(o.held[:0], o.held[n:]...)
	o.sorted = len(o.held)
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
