package capture

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture/internal/pair"
)

const (
	// Peeked is how the comment of a delivery begins that took nothing out of the queue.
	Peeked = "peeked at (MSG_PEEK), and left in the queue"
	// BeforeTap is the comment of a delivery of which the tap saw nothing.
	BeforeTap = "the tap came after the packets that brought this"
	// BeforeTapBytes is that of one of which it missed so many bytes at the beginning.
	BeforeTapBytes = "the tap came after the packets of its first %d bytes"
)

// missing says why the packets of a delivery are not known.
var missing = [...]string{
	pair.NoPacket:     "the tap has no record of the packet that brought this",
	pair.Ambiguous:    "the tap lost packets about here, and several have these bytes",
	pair.NoStream:     "the tap has no record of this stream",
	pair.NoSegments:   "the tap has no record of the segments that brought this",
	pair.BeforeFilter: BeforeTap,
}

// matchComment says what is worth saying of where a delivery came from, or nothing.
func matchComment(m *pair.Match) (comment string) {
	comment = missing[m.Missing]
	switch {
	case m.Missing != pair.NotMissing:
	case !m.Fed.Empty() || m.Later:
		comment = "read from packets " + m.Fed.String()
		if m.Later {
			comment += " and later ones"
		}
	case m.Dropped > 0:
		comment = fmt.Sprintf("the receive queue dropped %d before this one", m.Dropped)
		if !m.DroppedIDs.Empty() {
			comment += ": packets " + m.DroppedIDs.String()
		}
	}
	if m.MissingBytes > 0 {
		comment = join(fmt.Sprintf(BeforeTapBytes, m.MissingBytes), comment)
	}
	return comment
}

// endComment says how a stream ended.
func endComment(call string, err error) string {
	switch {
	case err == nil:
		return "end of stream"
	case errors.Is(err, unix.ECONNRESET):
		return "the peer reset the connection"
	}
	return call + ": " + err.Error()
}
