package capture

import (
	"net/netip"
	"sync"
	"unsafe"
)

// delivery is what one receiving system call returned to userspace.
type delivery struct {
	time   int64 // on the boot clock, when the call returned
	data   []byte
	full   int    // length of the message, which may exceed len(data)
	drops  uint64 // of the receive queue since the tap came (SO_RXQ_OVFL)
	cookie uint64 // of the socket; 0 if it is another process's
	from   netip.AddrPort
	to     netip.AddrPort // local address; its IP may be unspecified
	out    bool           // a copy of what was sent, not received
	err    error          // what the call failed with; data is empty then
	end    bool           // end of stream

	// What follows is known of other processes' calls only.
	route     *route // nil for the session's own socket
	call      string
	pid, tid  uint32
	seq       uint32 // TCP's sequence number of the first byte
	sequenced bool   // it is known
	peek      bool   // the bytes stay in the queue
	cut       bool   // the buffer was full: the message may have been longer
	lost      uint64 // calls of which nothing is known, since the delivery before
}

// mailboxLimit bounds the memory in bytes that waits for the collector. A receiver that
// finds so many waits in turn, and the socket's own queue overflows, counted.
const mailboxLimit = 64 << 20

// mailbox hands deliveries from the receivers to the collector, a batch at a
// time. Two batches take turns, so that nothing is allocated in the long run.
type mailbox struct {
	mu     sync.Mutex
	room   sync.Cond
	filled batch
	closed bool
}

type batch struct {
	deliveries []delivery
	bytes      []byte
}

func (b *batch) size() int {
	return len(b.bytes) + len(b.deliveries)*int(unsafe.Sizeof(delivery{}))
}

func newMailbox() *mailbox {
	m := &mailbox{}
	m.room.L = &m.mu
	return m
}

// put copies a delivery. It waits while the mailbox is full.
func (m *mailbox) put(d delivery) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.filled.size() > mailboxLimit && !m.closed {
		m.room.Wait()
	}
	b := &m.filled
	at := len(b.bytes)
	b.bytes = append(b.bytes, d.data...)
	d.data = b.bytes[at:len(b.bytes):len(b.bytes)]
	b.deliveries = append(b.deliveries, d)
}

// take swaps the filled batch for an empty one, whose memory is used again.
func (m *mailbox) take(emptied batch) batch {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken := m.filled
	clear(emptied.deliveries)
	m.filled = batch{deliveries: emptied.deliveries[:0], bytes: emptied.bytes[:0]}
	m.room.Broadcast()
	return taken
}

// close lets no receiver wait any more.
func (m *mailbox) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.room.Broadcast()
}
