package explain

import (
	"net/netip"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// entry is a packet with what its views have shown so far.
type entry struct {
	socket    *socket
	id        uint64 // 0 for a packet without one
	number    uint64 // number of the packet among the socket's
	time      int64  // in the first view, in nanoseconds since the epoch
	direction capture.Direction
	src, dst  netip.AddrPort

	// first is the interface of the first view, data its bytes, length the original
	// length.
	first  *capture.Interface
	data   []byte
	length int
	seen   [capture.ViewCount]bool
	// begins is how many bytes each view has before the first one, of those that agree with it.
	begins [capture.ViewCount]int32
	agrees [capture.ViewCount]bool
	// offset0 is the offset in the first view at which the kernel view begins. It is
	// negative if the first view begins within the kernel view.
	offset0 int
	// payload and end are the offsets of the payload in the first view.
	payload, end int
	protocol     uint8
	isTCP        bool
	tcp          header.TCP
	verdict      int // keepAll, or the bytes that the socket's filter kept

	// got counts the bytes of payload that userspace got, reads the calls that returned
	// them.
	got, reads uint64
	delivered  bool
	peeked     bool   // a call returned bytes of it and left them in the queue
	sent       bool   // it is a call that sent something
	departed   bool   // it is a packet that was sent
	framed     bool   // it was seen first on an interface, or by the program that chooses a socket
	refused    bool   // the program that chooses a socket had it dropped
	reached    bool   // the filter or a hook saw it, or else the file has no view of those
	piece      bool   // it is a fragment
	about      bool   // it is ICMP about a packet of the socket
	differs    bool   // userspace got other bytes
	gotFrom    int    // offset in the first view of the bytes that userspace got
	ended      bool   // a read returned the end of the stream here
	failed     bool   // and it returned an error
	short      bool   // the buffer of a read had no room for the rest
	dropped    bool   // by the receive queue
	reason     string // for which the kernel dropped it, empty if it did not
	lost       bool   // counted as dropped or stopped
	passed     bool   // a later packet was delivered
	givenUp    bool   // a read may still come, and will not be joined to it
	repeated   bool
	handshake  bool
	// stream has the payload from offset from to offset to; pending says that it was not
	// completely read.
	stream   *stream
	from, to int64
	pending  bool

	next  *entry // of the same socket
	talk  *talk
	freed int64  // when the kernel dropped it, 0 if it did not
	older *entry // with the same id
	shown *shown // nil if the packet is not shown
}

// size is the memory of an entry's packet in bytes.
func (e *entry) size() int { return len(e.data) }

// window holds the packets that later reads may belong to, in the file's order.
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

// forget removes the oldest packet, and counts its fate.
func (w *window) forget() {
	e := w.entries[w.start]
	w.entries[w.start] = nil
	w.start++
	w.bytes -= e.size()
	e.socket.settle(e)
}
