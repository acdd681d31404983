package capture

import (
	"errors"
	"syscall"

	"github.com/ebpfdump/ebpfdump/capture/internal/pair"
)

// Receipt is what is known of how userspace got the bytes of a packet of the user view, besides
// its ID and its Call. The zero Receipt is that of a call which took the bytes of the one
// packet that has the ID.
type Receipt struct {
	// Peeked says that what the call returned was left in the queue (MSG_PEEK).
	Peeked bool
	// End says that nothing was returned because the peer has ended the connection, and Errno
	// is the error with which the call failed, 0 for none.
	End   bool
	Errno syscall.Errno
	// Missing says why the packet that brought the bytes is not known.
	Missing Missing
	// BeforeTap is how many of the first bytes came in packets before the tap was attached, if
	// not all of them did.
	BeforeTap int64
	// Fed are the packets that brought bytes of a stream, if there were several; Later says
	// that packets beyond the limit of the capture did so as well.
	Fed   IDs
	Later bool
	// Belied says that userspace got something else than the packet's filter had answered when it
	// was asked afterwards, and Denied that it had answered to drop the packet.
	Belied, Denied bool
	// QueueDropped is how many messages the receive queue dropped between the previous message
	// and this one, and DroppedIDs are their packets, where these are certain.
	QueueDropped uint64
	DroppedIDs   IDs
	// Of a call that sent something, where the cgroup view is recorded as well: Packets are those
	// in which its bytes have left, Waiting is how many bytes had not left when the call returned,
	// and Partly says that it is not known of all others where they are.
	Packets IDs
	Waiting int64
	Partly  bool
}

// IDs are packet ids, of which the first ranges are listed and the rest is counted, so that the
// size is bounded.
type IDs struct {
	// Ranges are the first and the last id of each range, in ascending order.
	Ranges [][2]uint64
	// More is how many ranges there are beyond those, and Last their last id. Both are 0 if
	// there are no more.
	More int
	Last uint64
}

// Empty tells whether there are none.
func (i *IDs) Empty() bool { return len(i.Ranges) == 0 }

// Missing is a reason why the packet that brought what userspace got is not known.
type Missing uint8

// Reasons that the pairing finds have the numbers of package pair.
const (
	// NotMissing is for a packet that is known, or where no reason is known.
	NotMissing = Missing(pair.NotMissing)
	// MissingPacket is for a message of which the tap recorded no packet.
	MissingPacket = Missing(pair.NoPacket)
	// MissingAmbiguous is for a message whose bytes several packets have, near some that the
	// tap has lost.
	MissingAmbiguous = Missing(pair.Ambiguous)
	// MissingStream is for a connection of which no packet was recorded.
	MissingStream = Missing(pair.NoStream)
	// MissingSegments is for a part of a stream of which no packet was recorded.
	MissingSegments = Missing(pair.NoSegments)
	// MissingBeforeTap is for a part of a stream that came before the tap was attached.
	MissingBeforeTap = Missing(pair.BeforeFilter)
	// MissingForgotten is for what may be of a packet that had to be forgotten, since more waited to be read than
	// is kept.
	MissingForgotten = Missing(pair.Forgotten)
	// MissingInTrace is for bytes in a server's text that no packet of the trace text brought.
	MissingInTrace = Missing(pair.Reasons)

	// MissingReasons is the number of reasons.
	MissingReasons = MissingInTrace + 1
)

// receiptOf returns what a Match says about a delivery. Drops of the queue are only in the
// receipt of a message whose packet is known: Packet.Drops counts them anyway.
func receiptOf(m *pair.Match) Receipt {
	r := Receipt{Missing: Missing(m.Missing), BeforeTap: m.MissingBytes, Belied: m.Belied, Denied: m.Denied}
	switch {
	case m.Missing != pair.NotMissing:
	case !m.Fed.Empty() || m.Later:
		r.Fed, r.Later = IDs(m.Fed), m.Later
	case m.Dropped > 0:
		r.QueueDropped, r.DroppedIDs = m.Dropped, IDs(m.DroppedIDs)
	}
	return r
}

// endOf says how a connection ended, or a call failed.
func endOf(err error) Receipt {
	if err == nil {
		return Receipt{End: true}
	}
	var errno syscall.Errno
	errors.As(err, &errno)
	return Receipt{Errno: errno}
}
