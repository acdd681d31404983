package capture

import (
	"cmp"
	"slices"
	"sync"
	"unsafe"

	"github.com/ebpfdump/ebpfdump/capture/internal/pair"
)

// delivery is what one receiving system call returned to userspace. Its Time is on
// the boot clock.
type delivery struct {
	pair.Delivery
	route *route
	out   bool  // a copy of an outgoing packet
	sent  bool  // it went the other way: a call that sends, From the socket To somewhere
	err   error // error of the call; then there is no Data
	end   bool  // end of stream
	// reception is what the call said; its Controls are the batch's.
	reception Reception
	callFlags uint32

	call string // empty for ownCall
	// Known only for calls of other processes.
	Ack      uint32 // TCP's sequence number of the next byte in the other direction
	began    int64  // when a call that sends began, on the boot clock
	pid, tid uint32
	inode    uint32 // of a unix stream; see Event.Inode
	lost     uint64 // calls that were lost since the previous delivery
}

// batch is deliveries ordered by time, and the memory for their bytes and ancillary data.
type batch struct {
	deliveries []delivery
	chunks     [][]byte // of chunkSize, or larger for a larger message
	used       int      // chunks that are full
	bytes      int
	controls   []Control // memory for those of deliveries
	// Messages that were received and discarded, because no view needs them.
	discarded discarded
}

// discarded is a sum of deliveries.
type discarded struct {
	route           *route
	messages, bytes uint64
	last            pair.Delivery // without its bytes
}

func byTime(x, y delivery) int { return cmp.Compare(x.Time, y.Time) }

// size is the memory that a batch needs, in bytes.
func (b *batch) size() int { return b.bytes + len(b.deliveries)*int(unsafe.Sizeof(delivery{})) }

const (
	// chunkSize is how many bytes are allocated at once for the bytes of deliveries.
	chunkSize = 256 << 10
	// chunksKept is how many chunks of a batch are reused: a single burst may need more.
	chunksKept = 32
)

// put appends a copy of a delivery and its bytes.
func (b *batch) put(d *delivery, data []byte) {
	b.deliveries = append(b.deliveries, *d)
	last := &b.deliveries[len(b.deliveries)-1]
	last.Data = b.copy(data)
	if n := len(d.reception.Controls); n > 0 {
		// Where this moves, those before keep the memory that they have.
		b.controls = append(b.controls, d.reception.Controls...)
		end := len(b.controls)
		last.reception.Controls = b.controls[end-n : end : end]
	}
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

// emptied returns an empty batch that reuses the memory.
func (b *batch) emptied() batch {
	clear(b.deliveries)
	kept := b.chunks[:min(len(b.chunks), chunksKept)]
	clear(b.chunks[len(kept):])
	for i, chunk := range kept {
		kept[i] = chunk[:0]
	}
	return batch{deliveries: b.deliveries[:0], chunks: kept, controls: b.controls[:0]}
}

// mailboxLimit bounds the memory, in bytes, of deliveries that wait for the collector. When it
// is reached, receivers block, and the socket's own queue overflows, counted.
const mailboxLimit = 16 << 20

// mailbox hands deliveries from the receivers to the collector, a batch at a time. Two batches
// alternate, so that nothing is allocated in the long run.
type mailbox struct {
	mu     sync.Mutex
	room   sync.Cond
	times  sendTimes
	filled batch
	closed bool
	// put calls wake if the collector rests.
	rest bool
	wake func()
}

func newMailbox(wake func(), times sendTimes) *mailbox {
	m := &mailbox{wake: wake, times: times}
	m.room.L = &m.mu
	return m
}

// put adds what a call returned: fill appends it to a batch, with the given time. It is later
// than the horizon of every take before.
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

// rests tells whether the mailbox is empty: then the next put wakes the collector.
func (m *mailbox) rests() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rest = len(m.filled.deliveries) == 0 && m.filled.discarded.messages == 0
	return m.rest
}

// putSent adds a send of our own that has ended.
func (m *mailbox) putSent(d *delivery, began int64, data []byte) {
	d.began = began
	m.put(func(b *batch, now int64) {
		d.Time = m.times.of(began, now)
		b.put(d, data)
	})
}

// take swaps the filled batch for an emptied one. Later deliveries have a time after the
// horizon.
func (m *mailbox) take(emptied batch, hurry bool) (taken batch, horizon int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken, m.filled, m.rest = m.filled, emptied, false
	m.room.Broadcast()
	horizon = m.times.horizon(bootNow(), hurry)
	if m.times.slack > 0 {
		slices.SortStableFunc(taken.deliveries, byTime) // a send may stand before what was received during it
	}
	return taken, horizon
}

// close ends the blocking of receivers.
func (m *mailbox) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.room.Broadcast()
}
