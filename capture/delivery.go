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
	bytes      []byte
	// What was received and thrown away, since nobody wants to see it.
	discarded discarded
}

// discarded is a sum of deliveries.
type discarded struct {
	route           *route
	messages, bytes uint64
	last            pair.Delivery // without its bytes
}

func (b *batch) size() int {
	return len(b.bytes) + len(b.deliveries)*int(unsafe.Sizeof(delivery{}))
}

// put copies a delivery with its bytes.
func (b *batch) put(d *delivery, data []byte) {
	at := len(b.bytes)
	b.bytes = append(b.bytes, data...)
	b.deliveries = append(b.deliveries, *d)
	b.deliveries[len(b.deliveries)-1].Data = b.bytes[at:len(b.bytes):len(b.bytes)]
}

// keptBatch is the size in bytes from which on memory is not used again: a burst
// may need so much once.
const keptBatch = 4 << 20

// emptied is the batch without what is in it.
func (b *batch) emptied() batch {
	clear(b.deliveries)
	if cap(b.bytes)+cap(b.deliveries)*int(unsafe.Sizeof(delivery{})) > keptBatch {
		return batch{}
	}
	return batch{deliveries: b.deliveries[:0], bytes: b.bytes[:0]}
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
}

func newMailbox() *mailbox {
	m := &mailbox{}
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
}

// take swaps the filled batch for an emptied one. What comes later has a time after
// the horizon.
func (m *mailbox) take(emptied batch) (taken batch, horizon int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken, m.filled = m.filled, emptied
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
