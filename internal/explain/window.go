package explain

import (
	"net/netip"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// entry is a packet, with what its views have shown so far.
type entry struct {
	socket    *socket
	id        uint64 // 0 if the packet is joined to no other
	number    uint64 // counts the packets of the socket
	time      int64  // in the first view, in nanoseconds since the epoch
	direction capture.Direction
	src, dst  netip.AddrPort

	// first is the view that came first, data its bytes, length how many it had.
	first  *capture.Interface
	data   []byte
	length int
	seen   [viewCount]bool
	// offset0 is where in the first view the kernel view begins. It is negative
	// if the first view begins within the kernel view.
	offset0 int
	// payload and end are places in the first view.
	payload, end int
	protocol     uint8
	isTCP        bool
	tcp          header.TCP
	verdict      int // keepAll, or how many bytes the socket's filter kept

	// got counts the payload's bytes that userspace got, reads the calls that
	// they took.
	got, reads uint64
	delivered  bool
	differs    bool // userspace got other bytes
	gotFrom    int  // where in the first view the bytes begin that userspace got
	ended      bool // a read got the end of the stream here
	failed     bool // and that was an error
	dropped    bool // by the receive queue
	passed     bool // a later packet was delivered
	repeated   bool
	handshake  bool
	// stream is where the payload belongs, from offset from to offset to;
	// pending says that not all of it was read.
	stream   *stream
	from, to int64
	pending  bool

	next  *entry // of the same socket
	shown *shown // nil beyond the number of packets to show
}

const viewCount = capture.ViewWire + 1

// size is how many bytes of memory an entry's packet takes.
func (e *entry) size() int { return len(e.data) }

// window has the packets that reads may still come for, in the order of the file.
type window struct {
	entries []*entry
	start   int
	bytes   int
}

func (w *window) len() int { return len(w.entries) - w.start }

func (w *window) add(e *entry) {
	if w.start > len(w.entries)/2 && w.start > 64 {
		n := copy(w.entries, w.entries[w.start:])
		clear(w.entries[n:])
		w.entries, w.start = w.entries[:n], 0
	}
	w.entries = append(w.entries, e)
	w.bytes += e.size()
}

// forget takes the oldest packet out, and counts what has become of it.
func (w *window) forget() {
	e := w.entries[w.start]
	w.entries[w.start] = nil
	w.start++
	w.bytes -= e.size()
	e.socket.settle(e)
}
