// Package pair finds the packets that brought what userspace got.
//
// Its input is packets, in the order in which a socket's filter saw them, and deliveries, which
// are what receiving calls returned; a delivery only after the packets that came before it. It
// knows nothing of sockets, takes no locks, and does not modify its arguments.
//
// The cost of an answer does not depend on how many packets wait, were lost or dropped, or are
// alike: a few comparisons at the expected position, and a few more among those that an index
// says are alike.
package pair

import (
	"math"
	"net/netip"
)

// Packet is what pairing needs of a packet.
type Packet struct {
	// ID is returned in a Match; 0 for a packet beyond those that were asked for, and Unwanted for one that
	// nobody is to be told of.
	ID uint64
	// Time is when the filter ran, in nanoseconds, on the same clock as that of deliveries.
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
	// Answered says that the Verdict is what the filter says when it is asked again, which it
	// may not have said at the time. Filter identifies the filter then.
	Answered bool
	Filter   uint64
	// Owner is returned with the deliveries of the packet's stream.
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
	// Drops is how many messages the socket has dropped since it got the filter (SO_RXQ_OVFL).
	Drops uint64
	// Cookie is that of the socket; 0 if it is not known.
	Cookie uint64
	// From and To are the addresses of the sender and of the socket; its IP may be unspecified.
	From, To netip.AddrPort
	// Seq is TCP's sequence number of the first byte, if it is Sequenced.
	Seq       uint32
	Sequenced bool
	// Over says that the connection has ended, with or without an error.
	Over bool
	// Untold says that there are packets without a record, of before Time, of which Saw has not been
	// told yet.
	Untold bool
	// Peek says that the bytes stay in the queue.
	Peek bool
	// Cut says that the buffer was full: the message may have been longer than Full.
	Cut bool
}

// Match is where a delivery came from.
type Match struct {
	// ID is that of the packet, or of the first one if several brought the bytes. 0 if none is
	// known.
	ID uint64
	// Src and Dst are the packet's own addresses, which the socket may not know
	// exactly; invalid if they are unknown.
	Src, Dst netip.AddrPort
	// Whole is the length of a message of which the buffer had room for a part only (Cut), in
	// bytes; 0 if it is not known to be longer than what was delivered.
	Whole int
	// Missing says why there is no ID, or why some of the packets are not known.
	Missing Missing
	// MissingBytes is how many bytes of a stream came before its first packet that was seen.
	MissingBytes int64
	// Dropped is how many messages the receive queue dropped before this one, without those
	// that earlier deliveries reported.
	Dropped uint64
	// DroppedIDs are the packets that were dropped, where that is certain.
	DroppedIDs Ranges
	// Fed are the packets that brought a part of a stream, if there are several, or if Later is
	// set: it says that packets beyond those that were asked for did so as well.
	Fed   Ranges
	Later bool
	// Unwanted says that it, or a part of a stream, came from Unwanted packets.
	Unwanted bool
	// Before says that the message was in the receive queue before the socket got the filter.
	Before bool
	// After says that its packet is beyond those that were asked for.
	After bool
	// Belied says that the delivery shows that the verdict of its packet, which was Answered by
	// Filter, was another one: userspace got another part of it, or got it although it was
	// Denied, which means dropped.
	Belied, Denied bool
	Filter         uint64
	// Owner is that of the stream's packets; nil if it is not known.
	Owner any
}

// Unwanted is the ID of packets that have a place in the order and in the stream, as all others, and are
// not to be named.
const Unwanted = math.MaxUint64

// named takes Unwanted for what it stands for.
func (m Match) named() Match {
	if m.ID == Unwanted {
		m.ID, m.Unwanted = 0, true
	}
	return m
}

// Missing is a reason why the packet of a delivery is not known.
type Missing uint8

const (
	// NotMissing is for a packet that is known, or where no reason is known.
	NotMissing Missing = iota
	// NoPacket is for a message of which the filter recorded no packet.
	NoPacket
	// Ambiguous is for a message whose bytes several packets have, near some that were lost.
	// Those that were lost may have the same.
	Ambiguous
	// NoStream is for a connection of which no packet was seen.
	NoStream
	// NoSegments is for a part of a stream of which no packet was recorded.
	NoSegments
	// BeforeFilter is for a part of a stream that came before the first packet that was seen.
	BeforeFilter
	// Forgotten is for what may have been brought by a packet that had to be forgotten, since more waited to be
	// read than is kept.
	Forgotten
	// Reasons is the number of reasons.
	Reasons
)

// A Pairer pairs the packets and the deliveries of one socket, or of all connections of a kind.
type Pairer interface {
	// Saw adds a packet that the filter saw. Between it and the packet before, the filter saw
	// lost packets that were not recorded.
	Saw(p *Packet, lost int)
	// Delivered finds the packets that brought a delivery.
	Delivered(d *Delivery) Match
}

// Nothing is the Pairer for packets that cannot be paired, or need not be.
type Nothing struct{}

// Saw does nothing.
func (Nothing) Saw(*Packet, int) {}

// Delivered returns an empty Match.
func (Nothing) Delivered(*Delivery) Match { return Match{} }
