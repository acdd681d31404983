package capture

import (
	"net/netip"

	"github.com/ebpfdump/ebpfdump/capture/internal/pair"
)

// Pairer pairs packets that were recorded elsewhere: of what userspace got only the bytes and
// their order are known, and not when, from whom, and how many the receive queue had dropped.
//
// It pairs as a capture does, by position in the queue or in the stream, and by the bytes where
// a capture knows the sender.
type Pairer struct {
	pairs interface {
		Saw(p *pair.Packet)
		Brought(d pair.Delivery, final bool) (m pair.Match, last uint64, ok bool)
	}
}

// Match says where the bytes that userspace got came from.
type Match struct {
	// ID is that of the packet, or of the first one if several brought the bytes.
	ID uint64
	// Last is the ID of the last packet that was needed.
	Last uint64
	// Src and Dst are the packet's addresses.
	Src, Dst netip.AddrPort
	// Receipt is what else is known.
	Receipt Receipt
}

// NewPairer makes a Pairer for the sockets of a kind.
func NewPairer(kind *Kind) *Pairer {
	if kind.stream {
		return &Pairer{pair.NewFound()}
	}
	return &Pairer{pair.NewWritten(kind.headerLen)}
}

// Saw adds a packet of the kernel view, with its ID. Packets come in the order in which the
// filter saw them. It does not keep p.
func (r *Pairer) Saw(p *Packet) {
	r.pairs.Saw(&pair.Packet{ID: p.ID, Src: p.Src, Dst: p.Dst, Data: p.Data, Len: max(p.Len, len(p.Data)), Verdict: -1})
}

// Brought finds the packets that brought what userspace got, among those seen so far. If ok is
// false it can be called again for the same packet, after more were seen; the final call also
// tries those that were passed over, and if it fails, the Receipt says so where packets had to be forgotten.
func (r *Pairer) Brought(p *Packet, final bool) (m Match, ok bool) {
	found, last, ok := r.pairs.Brought(pair.Delivery{Data: p.Data, Full: max(p.Len, len(p.Data))}, final)
	if !ok {
		return Match{Receipt: receiptOf(&found)}, false
	}
	return Match{ID: found.ID, Last: last, Src: found.Src, Dst: found.Dst, Receipt: receiptOf(&found)}, true
}
