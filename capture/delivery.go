package capture

import (
	"sync"
	"unsafe"

	"github.com/ebpfdump/ebpfdump/capture/internal/pair"
)

// delivery is what one receiving system call returned to userspace. Its Time is on
// the boot clock.
type delivery struct {
	pair.Delivery
	route *route
	out   bool  // a copy of what was sent, not received
	err   error // what the call failed with; there are no Data then
	end   bool  // end of stream

	// What follows is known of other processes' calls only.
	call     string
	pid, tid uint32
	lost     uint64 // calls of which nothing is known, since the delivery before
}

// batch is deliveries, in the order of their times, and the memory that their bytes are in.
type batch struct {
	deliveries []delivery
	chunks     [][]byte // of chunkSize, or of a larger message
	used       int      // chunks that are full
	bytes      int
	// What was received and thrown away, since nobody wants to see it.
	discarded discarded
}

// discarded is a sum of deliveries.
type discarded struct {
	route           *route
	messages, bytes uint64
	last            pair.Delivery // without its bytes
}

// size is what a batch takes of memory, in bytes.
func (b *batch) size() int { return b.bytes + len(b.deliveries)*int(unsafe.Sizeof(delivery{})) }

const (
	// chunkSize is how much memory is allocated at once for the bytes of deliveries.
	chunkSize = 256 << 10
	// chunksKept is how many chunks of a batch are used again: a burst may need more once.
	chunksKept = 32
)

// put copies a delivery with its bytes.
func (b *batch) put(d *delivery, data []byte) {
	b.deliveries = append(b.deliveries, *d)
	b.deliveries[len(b.deliveries)-1].Data = b.copy(data)
}

func (b *batch) copy(data []byte) []byte {
	if len(data) == 0 {
		return nil
	}
	b.bytes += len(data)
	for ; b.used < len(b.chunks); b.used++ {
		if chunk := b.chunks[b.used]; cap(chunk)-len(chunk) >= len(data) {
			break
		}
	}
	if b.used == len(b.chunks) {
		b.chunks = append(b.chunks, make([]byte, 0, max(chunkSize, len(data))))
	}
	chunk := append(b.chunks[b.used], data...)
	b.chunks[b.used] = chunk
	return chunk[len(chunk)-len(data) : len(chunk) : len(chunk)]
}

// emptied is the batch without what is in it, whose memory is used again.
func (b *batch) emptied() batch {
	clear(b.deliveries)
	kept := b.chunks[:min(len(b.chunks), chunksKept)]
	clear(b.chunks[len(kept):])
	for i, chunk := range kept {
		kept[i] = chunk[:0]
	}
	return batch{deliveries: b.deliveries[:0], chunks: kept}
}

// mailboxLimit bounds the memory in bytes that waits for the collector. A receiver that
// finds so many waits in turn, and the socket's own queue overflows, counted.
const mailboxLimit = 16 << 20

// mailbox hands deliveries from the receivers to the collector, a batch at a
// time. Two batches take turns, so that nothing is allocated in the long run.
type mailbox struct {
	mu     sync.Mutex
	room   sync.Cond
	filled batch
	closed bool
	// Whoever puts something in calls wake if the collector rests.
	rest bool
	wake func()
}

func newMailbox(wake func()) *mailbox {
	m := &mailbox{wake: wake}
	m.room.L = &m.mu
	return m
}

// put takes what a call returned: fill puts it into a batch, with the time that it is
// given. Whoever has taken the batch before gets nothing with an earlier time.
func (m *mailbox) put(fill func(b *batch, now int64)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.filled.size() > mailboxLimit && !m.closed {
		m.room.Wait()
	}
	fill(&m.filled, bootNow())
	if m.rest {
		m.rest = false
		m.wake()
	}
}

// rests tells whether nothing is there: then the next one to put something in wakes the
// collector.
func (m *mailbox) rests() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rest = len(m.filled.deliveries) == 0 && m.filled.discarded.messages == 0
	return m.rest
}

// take swaps the filled batch for an emptied one. What comes later has a time after
// the horizon.
func (m *mailbox) take(emptied batch) (taken batch, horizon int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken, m.filled, m.rest = m.filled, emptied, false
	m.room.Broadcast()
	return taken, bootNow()
}

// close lets no receiver wait any more.
func (m *mailbox) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.room.Broadcast()
}
