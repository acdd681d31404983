// Package pair finds out which packets brought what userspace got.
//
// It is told of packets, in the order in which a socket's filter saw them, and of
// deliveries, which are what receiving calls returned; of each only after the
// packets that came before it. It knows no sockets, takes no locks, and answers
// without changing what it was asked with.
//
// What an answer costs does not depend on how much waits, was lost or dropped, or
// is alike: a few comparisons where the packet is expected, and a few more among
// those that an index says are alike.
package pair

import "net/netip"

// Packet is what pairing needs of a packet.
type Packet struct {
	// ID is handed back; 0 for a packet that nobody asked for.
	ID uint64
	// Time is when the filter ran, in nanoseconds on any clock that deliveries have, too.
	Time int64
	// CPU ran the filter.
	CPU uint32
	// Cookie is that of the connection's socket; 0 if it has none yet.
	Cookie uint64
	// Src and Dst are the packet's addresses.
	Src, Dst netip.AddrPort
	// Data is what is known of the packet, from offset 0 on. It is not kept.
	Data []byte
	// Len is the packet's length in bytes, from offset 0 on.
	Len int
	// Verdict is how many bytes the filter keeps: 0 drops the packet, negative keeps all.
	Verdict int
	// Owner is handed back with the deliveries of the packet's stream.
	Owner any
}

// Delivery is what one receiving system call returned.
type Delivery struct {
	// Time is when the call returned.
	Time int64
	// Data is what is known of the bytes that userspace got.
	Data []byte
	// Full is the message's length in bytes, which may exceed len(Data).
	Full int
	// Drops is how many messages the socket has dropped since the filter came (SO_RXQ_OVFL).
	Drops uint64
	// Cookie is that of the socket; 0 if it is not known.
	Cookie uint64
	// From and To are the addresses of the sender and of the socket; its IP may be unspecified.
	From, To netip.AddrPort
	// Seq is TCP's sequence number of the first byte, if it is Sequenced.
	Seq       uint32
	Sequenced bool
	// Over says that the connection has ended, with an error or without.
	Over bool
	// Peek says that the bytes stay in the queue.
	Peek bool
	// Cut says that the buffer was full: the message may have been longer than Full.
	Cut bool
}

// Match is where a delivery came from.
type Match struct {
	// ID is that of the packet, or of the first one if several brought the bytes. 0 if none is known.
	ID uint64
	// Src and Dst are the packet's own addresses, which the socket may not know
	// exactly; invalid if they are unknown.
	Src, Dst netip.AddrPort
	// Missing says why there is no ID, or not the ID of all of it.
	Missing Missing
	// MissingBytes is how many bytes of a stream came before its first packet that was seen.
	MissingBytes int64
	// Dropped is how many messages the receive queue dropped before this one, as far
	// as no delivery before has told.
	Dropped uint64
	// DroppedIDs are the packets that were dropped, where that is certain.
	DroppedIDs Ranges
	// Fed are the packets that brought a part of a stream, if they are several or
	// there is more to it: Later says that packets which nobody asked for did so as well.
	Fed   Ranges
	Later bool
	// Before says that it was in the receive queue before the filter came.
	Before bool
	// After says that its packet is one that nobody asked for.
	After bool
	// Owner is that of the packets of the stream; nil if that is not known.
	Owner any
}

// Missing is a reason why the packet of a delivery is not known.
type Missing uint8

const (
	// NotMissing is for a packet that is known, or where no reason is known.
	NotMissing Missing = iota
	// NoPacket is for a message that no packet brought which the filter saw and recorded.
	NoPacket
	// Ambiguous is for a message that several packets have the bytes of, near to
	// some that were lost.
	Ambiguous
	// NoStream is for a connection of which no packet was seen.
	NoStream
	// NoSegments is for a part of a stream that no packet brought.
	NoSegments
	// BeforeFilter is for a part of a stream that came before the first packet that was seen.
	BeforeFilter
	// Reasons is behind the last one.
	Reasons
)

// A Pairer pairs the packets and the deliveries of one socket, or of all connections of a kind.
type Pairer interface {
	// Saw notes a packet that the filter saw. lost packets, of which nothing is
	// known, were seen by the filter since the packet before.
	Saw(p *Packet, lost int)
	// Delivered finds the packets behind a delivery.
	Delivered(d *Delivery) Match
}

// Nothing is the Pairer of what cannot be paired, or need not be.
type Nothing struct{}

// Saw does nothing.
func (Nothing) Saw(*Packet, int) {}

// Delivered knows nothing.
func (Nothing) Delivered(*Delivery) Match { return Match{} }
