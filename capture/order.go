package capture

import (
	"cmp"
	"slices"
	"sync/atomic"
)

// order holds packets back until nothing earlier can come any more, and then
// hands them to a sink in the order of their times. Memory of packets that
// were handed on is used again, so that in the long run nothing is allocated.
type order struct {
	sink    Sink
	failed  error         // of the sink, which gets no more packets then
	written atomic.Uint64 // packets that the sink took
	held    []turn
	sorted  int // how many of held are in order
	merged  []turn
	arena   arena
	counter uint64
}

// turn is when a packet is to be handed on.
type turn struct {
	time     int64
	sequence uint64 // tells packets of the same nanosecond apart
	packet   *Packet
	lane     *lane  // that the packet is for
	chunk    *chunk // has the packet
}

func (t turn) compare(other turn) int {
	if c := cmp.Compare(t.time, other.time); c != 0 {
		return c
	}
	return cmp.Compare(t.sequence, other.sequence)
}

// add copies a packet of a lane and its data.
func (o *order) add(p *Packet, at *lane) {
	o.counter++
	held, c := o.arena.copy(p)
	o.held = append(o.held, turn{p.Time, o.counter, held, at, c})
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

// release writes all packets up to a time. A sink that fails gets no more
// packets, now or later: they are given up, and only what it took is counted.
func (o *order) release(until int64) error {
	o.sort()
	var (
		n       int
		written uint64
		err     error
	)
	for ; n < len(o.held) && o.held[n].time <= until; n++ {
		if o.failed == nil {
			if err = o.sink.WritePacket(o.held[n].packet); err == nil {
				o.held[n].lane.written++
				written++
			}
			o.failed = err
		}
		o.arena.free(o.held[n].chunk)
	}
	o.written.Add(written)
	o.held = append(o.held[:0], o.held[n:]...)
	o.sorted = len(o.held)
	return err
}

const (
	// chunkSize is how many bytes of data an arena allocates at once, at least.
	chunkSize = 1 << 18
	// chunkPackets is how many packets go with them: those of 512 bytes fill both.
	chunkPackets = chunkSize / 512
)

// arena hands out memory by the chunk and takes it back by the chunk, when all
// that was handed out of it is free. Packets that come one after the other lie
// so, too: there are so many that the cpu must see the next one coming.
type arena struct {
	filling *chunk
	empty   []*chunk
}

type chunk struct {
	packets []Packet // those in use, with room for chunkPackets
	memory  []byte   // the data of those in use
	held    int      // packets that are not free yet
}

// copy copies a packet and its data.
func (a *arena) copy(p *Packet) (*Packet, *chunk) {
	c := a.filling
	if c == nil || len(c.packets) == cap(c.packets) || cap(c.memory)-len(c.memory) < len(p.Data) {
		c = a.next(len(p.Data))
		a.filling = c
	}
	at := len(c.memory)
	c.memory = append(c.memory, p.Data...)
	c.packets = append(c.packets, *p)
	c.held++
	held := &c.packets[len(c.packets)-1]
	held.Data = c.memory[at:len(c.memory):len(c.memory)]
	return held, c
}

func (a *arena) next(size int) *chunk {
	if n := len(a.empty); n > 0 && size <= chunkSize {
		c := a.empty[n-1]
		a.empty = a.empty[:n-1]
		return c
	}
	return &chunk{packets: make([]Packet, 0, chunkPackets), memory: make([]byte, 0, max(size, chunkSize))}
}

func (a *arena) free(c *chunk) {
	c.held--
	if c.held > 0 {
		return
	}
	c.packets, c.memory = c.packets[:0], c.memory[:0]
	if c != a.filling && cap(c.memory) == chunkSize {
		a.empty = append(a.empty, c)
	}
}
