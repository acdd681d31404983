package explain

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ebpfdump/ebpfdump/capture"
)

// keepAll is the verdict of packets that say nothing of one.
const keepAll = -1

// parseVerdict finds in a packet's comment what the socket's filter decided:
// how many bytes to keep. Words like "verdict=12 of 19 (truncated by the
// filter)" say it.
func parseVerdict(comment string) int {
	_, rest, ok := strings.Cut(comment, "verdict=")
	if !ok {
		return keepAll
	}
	digits := strings.TrimLeft(rest, "0123456789")
	n, err := strconv.ParseUint(rest[:len(rest)-len(digits)], 10, 32)
	if err != nil {
		return keepAll
	}
	return int(min(n, 1<<30))
}

// beforeTap finds in a read's comment how many of its bytes came before the tap.
func beforeTap(comment string) (n int) {
	if _, err := fmt.Sscanf(comment, capture.BeforeTapBytes, &n); err != nil {
		return 0
	}
	return n
}

// failed tells whether a call returned an error, as its comment says then.
func failed(p *capture.Packet) bool {
	return len(p.Data) == 0 && p.Len == 0 &&
		(strings.HasPrefix(p.Comment, peerReset) || p.Call != "" && strings.HasPrefix(p.Comment, p.Call+": "))
}

// What the comments say of reads that end a stream.
const (
	endOfStream = "end of stream"
	peerReset   = "the peer reset the connection"
)

// dropped is a set of packets that the receive queue dropped, as a comment names them.
type dropped struct {
	ranges [][2]uint64
	// more says that others that are not named lie beyond the ranges, up to through.
	more    bool
	through uint64
}

// parseDropped reads a comment such as "the receive queue dropped 4 before this
// one: packets 4-6, 9 and 3 ranges more, to 17".
func parseDropped(comment string) (d dropped, ok bool) {
	_, rest, ok := strings.Cut(comment, "the receive queue dropped ")
	if !ok {
		return d, false
	}
	_, list, ok := strings.Cut(rest, ": packets ")
	if !ok {
		return d, false
	}
	list, _, _ = strings.Cut(list, ";")
	list, more, found := strings.Cut(list, " and ")
	if _, last, ok := strings.Cut(more, ", to "); found && ok {
		through, err := strconv.ParseUint(strings.TrimSpace(last), 10, 64)
		d.more, d.through = err == nil, through
	}
	for item := range strings.SplitSeq(list, ", ") {
		first, last, isRange := strings.Cut(strings.TrimSpace(item), "-")
		if !isRange {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 64)
		to, err2 := strconv.ParseUint(last, 10, 64)
		if err != nil || err2 != nil || from > to || len(d.ranges) == 2*shownRanges {
			break
		}
		d.ranges = append(d.ranges, [2]uint64{from, to})
	}
	return d, len(d.ranges) > 0
}

func (d *dropped) has(id uint64) bool {
	beyond := uint64(0)
	for _, r := range d.ranges {
		if id >= r[0] && id <= r[1] {
			return true
		}
		beyond = r[1]
	}
	return d.more && id > beyond && id <= d.through
}
