package remark

import (
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
)

// fact is a fact about a packet that a comment expresses as a sentence.
type fact struct {
	// holds tells whether the packet has it.
	holds func(p *capture.Packet) bool
	// say appends the sentence.
	say func(b []byte, p *capture.Packet) []byte
	// read parses the sentence into the fields of the packet. A sentence that say would
	// not produce from these fields was written by somebody else.
	read func(sentence string, p *capture.Packet) bool
}

// The facts in the order of a comment, for the views of the kernel and for the user view.
var (
	kernelFacts = []fact{
		{
			holds: func(p *capture.Packet) bool { return p.Filter.Changed },
			say:   sayFilterChange,
			read:  readFilterChange,
		},
		{
			holds: func(p *capture.Packet) bool { return p.Drop.Reason != "" },
			say:   sayDrop,
			read:  readDrop,
		},
		{
			holds: func(p *capture.Packet) bool { return p.Verdict.Unasked },
			say:   func(b []byte, _ *capture.Packet) []byte { return append(b, unasked...) },
			read: func(sentence string, p *capture.Packet) bool {
				p.Verdict.Unasked = p.Verdict.Unasked || sentence == unasked
				return sentence == unasked
			},
		},
		{
			holds: func(p *capture.Packet) bool { return p.Verdict.Dropped },
			say: func(b []byte, p *capture.Packet) []byte {
				if p.Verdict.Asked {
					return append(b, droppedAsked...)
				}
				return append(b, dropped...)
			},
			read: func(sentence string, p *capture.Packet) bool {
				if sentence != dropped && sentence != droppedAsked {
					return false
				}
				p.Verdict.Dropped, p.Verdict.Asked = true, sentence == droppedAsked
				return true
			},
		},
		{
			holds: func(p *capture.Packet) bool { return p.Verdict.Of > 0 },
			say: func(b []byte, p *capture.Packet) []byte {
				b = strconv.AppendUint(append(b, verdictIs...), uint64(p.Verdict.Keep), 10)
				b = strconv.AppendUint(append(b, " of "...), uint64(p.Verdict.Of), 10)
				if p.Verdict.Asked {
					return append(b, byTheAsked...)
				}
				return append(b, byTheFilter...)
			},
			read: func(sentence string, p *capture.Packet) bool {
				keep, of, ok := numbersIn(sentence, verdictIs, " of ", byTheFilter)
				asked := false
				if !ok {
					keep, of, asked = numbersIn(sentence, verdictIs, " of ", byTheAsked)
					ok = asked
				}
				if ok = ok && keep <= 1<<32-1 && 0 < of && of <= 1<<32-1; ok {
					p.Verdict.Keep, p.Verdict.Of, p.Verdict.Asked = uint32(keep), uint32(of), asked
				}
				return ok
			},
		},
		{
			holds: func(p *capture.Packet) bool { return p.Truncated },
			say: func(b []byte, p *capture.Packet) []byte {
				b = strconv.AppendInt(append(b, cutTo...), int64(len(p.Data)), 10)
				return append(strconv.AppendInt(append(b, " of "...), int64(p.Len), 10), byTheSnaplen...)
			},
			read: func(sentence string, p *capture.Packet) bool {
				captured, length, ok := numbersIn(sentence, cutTo, " of ", byTheSnaplen)
				// The lengths differ if another program truncated the packet again or
				// added a header.
				ok = ok && captured == uint64(len(p.Data)) && length == uint64(p.Len)
				p.Truncated = p.Truncated || ok
				return ok
			},
		},
	}
	userFacts = []fact{
		{
			holds: func(p *capture.Packet) bool { return p.Receipt.Peeked },
			say:   func(b []byte, _ *capture.Packet) []byte { return append(b, peeked...) },
			read: func(sentence string, p *capture.Packet) bool {
				p.Receipt.Peeked = p.Receipt.Peeked || sentence == peeked
				return sentence == peeked
			},
		},
		{
			holds: func(p *capture.Packet) bool { return p.Reception.Cut },
			say:   sayCutByBuffer,
			read:  readCutByBuffer,
		},
		{
			holds: saysDatagrams,
			say:   sayDatagrams,
			read:  readDatagrams,
		},
		{
			holds: func(p *capture.Packet) bool { return p.Reception.Descriptors() > 0 },
			say:   sayDescriptors,
			read:  readDescriptors,
		},
		{
			holds: func(p *capture.Packet) bool { return p.Reception.Flags&unix.MSG_CTRUNC != 0 },
			say:   func(b []byte, _ *capture.Packet) []byte { return append(b, ancillaryCut...) },
			read: func(sentence string, p *capture.Packet) bool {
				if sentence != ancillaryCut {
					return false
				}
				p.Reception.Flags |= unix.MSG_CTRUNC
				return true
			},
		},
		{
			holds: func(p *capture.Packet) bool { return p.Receipt.Belied },
			say: func(b []byte, p *capture.Packet) []byte {
				if p.Receipt.Denied {
					return append(b, deniedBelied...)
				}
				return append(b, belied...)
			},
			read: func(sentence string, p *capture.Packet) bool {
				if sentence != deniedBelied && sentence != belied {
					return false
				}
				p.Receipt.Belied, p.Receipt.Denied = true, sentence == deniedBelied
				return true
			},
		},
		{
			holds: func(p *capture.Packet) bool { return p.Receipt.BeforeTap > 0 },
			say: func(b []byte, p *capture.Packet) []byte {
				return append(strconv.AppendInt(append(b, firstBytes...), p.Receipt.BeforeTap, 10), " bytes"...)
			},
			read: func(sentence string, p *capture.Packet) bool {
				n, ok := numberIn(sentence, firstBytes, " bytes")
				if ok = ok && 0 < n && n <= 1<<63-1; ok {
					p.Receipt.BeforeTap = int64(n)
				}
				return ok
			},
		},
		{
			holds: func(p *capture.Packet) bool { return isMissing(p.Receipt.Missing) },
			say:   func(b []byte, p *capture.Packet) []byte { return append(b, missing[p.Receipt.Missing]...) },
			read:  readMissing,
		},
		{
			holds: func(p *capture.Packet) bool { return !p.Receipt.Fed.Empty() || p.Receipt.Later },
			say:   sayFed,
			read:  readFed,
		},
		{
			holds: func(p *capture.Packet) bool { return !p.Receipt.Packets.Empty() },
			say:   saySentIn,
			read:  readSentIn,
		},
		{
			holds: func(p *capture.Packet) bool { return p.Receipt.Waiting > 0 },
			say: func(b []byte, p *capture.Packet) []byte {
				return append(strconv.AppendInt(append(b, ofItsBytes...), p.Receipt.Waiting, 10), hadNotLeft...)
			},
			read: func(sentence string, p *capture.Packet) bool {
				n, ok := numberIn(sentence, ofItsBytes, hadNotLeft)
				if ok = ok && 0 < n && n <= 1<<63-1; ok {
					p.Receipt.Waiting = int64(n)
				}
				return ok
			},
		},
		{
			holds: func(p *capture.Packet) bool { return p.Receipt.QueueDropped > 0 },
			say:   sayQueueDropped,
			read:  readQueueDropped,
		},
		{
			holds: func(p *capture.Packet) bool { return p.Receipt.End },
			say:   func(b []byte, _ *capture.Packet) []byte { return append(b, endOfStream...) },
			read: func(sentence string, p *capture.Packet) bool {
				p.Receipt.End = p.Receipt.End || sentence == endOfStream
				return sentence == endOfStream
			},
		},
		{
			holds: func(p *capture.Packet) bool { return p.Receipt.Errno != 0 },
			say:   sayErrno,
			read:  readErrno,
		},
	}
)

// sayDrop says why the kernel has freed a packet.
func sayDrop(b []byte, p *capture.Packet) []byte {
	b = append(append(b, droppedFor...), p.Drop.Reason...)
	if p.Drop.Location != "" {
		b = append(append(append(b, droppedIn...), p.Drop.Location...), ')')
	}
	return b
}

func readDrop(sentence string, p *capture.Packet) bool {
	reason, ok := strings.CutPrefix(sentence, droppedFor)
	if !ok || p.Interface.View != capture.ViewDrop {
		return false
	}
	reason, location, located := strings.Cut(reason, droppedIn)
	location, closed := strings.CutSuffix(location, ")")
	if located != closed || !isKernelName(reason) || located && !isKernelName(location) {
		return false
	}
	p.Drop = capture.Drop{Reason: reason, Location: location}
	return true
}

// kernelName bounds the names that the kernel has for functions, in bytes.
const kernelName = 512

// isKernelName tells whether a text may be the name of a reason or a function, or a number.
func isKernelName(text string) bool {
	return text != "" && len(text) <= kernelName && strings.IndexFunc(text, func(c rune) bool {
		return c != '_' && c != '.' && c != '$' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
	}) < 0
}

const (
	otherFilter = "from here on the socket has a filter of its own: "
	otherTap    = "from here on the socket has a filter: " // that of another capture
	noFilter    = "from here on the socket has no filter of its own"

	droppedFor = "dropped by the kernel: "
	droppedIn  = " (in "

	verdictIs    = "verdict="
	byTheFilter  = " (truncated by the filter)"
	dropped      = verdictIs + "0 (dropped by the filter)"
	byTheAsked   = " (truncated by the filter, asked afterwards)"
	droppedAsked = verdictIs + "0 (dropped by the filter, asked afterwards)"
	unasked      = "the filter could not be asked about this packet"
	deniedBelied = "its filter, asked afterwards, would have dropped this"
	belied       = "its filter, asked afterwards, would have let another part of this through"
	cutTo        = "cut to "
	byTheSnaplen = " bytes by the snaplen"

	peeked        = "peeked at (MSG_PEEK), and left in the queue"
	firstBytes    = "the tap came after the packets of its first "
	readFrom      = "read from packets "
	andLater      = " and later ones"
	sentIn        = "sent in packet "
	sentInSeveral = "sent in packets "
	asFarAsKnown  = ", as far as is known"
	ofItsBytes    = "of its bytes "
	hadNotLeft    = " had not left when the call returned"
	queueDropped  = "the receive queue dropped "
	beforeThisOne = " before this one"
	whichPackets  = ": packets "
	endOfStream   = "end of stream"
	peerReset     = "the peer reset the connection"
)

// missing has the sentences for the reasons why the packets of a delivery are unknown.
var missing = [capture.MissingReasons]string{
	capture.MissingPacket:    "the tap has no record of the packet that brought this",
	capture.MissingAmbiguous: "the tap lost packets about here, and several have these bytes",
	capture.MissingStream:    "the tap has no record of this stream",
	capture.MissingSegments:  "the tap has no record of the segments that brought this",
	capture.MissingBeforeTap: "the tap came after the packets that brought this",
	capture.MissingForgotten: "more packets waited to be read than are kept, and what brought this may be among those forgotten",
	capture.MissingInTrace:   "the trace has no packet that brought this",
}

func isMissing(m capture.Missing) bool { return capture.NotMissing < m && m < capture.MissingReasons }

func readMissing(sentence string, p *capture.Packet) bool {
	for reason := capture.NotMissing + 1; reason < capture.MissingReasons; reason++ {
		if sentence == missing[reason] {
			p.Receipt.Missing = reason
			return true
		}
	}
	return false
}

func sayFilterChange(b []byte, p *capture.Packet) []byte {
	switch {
	case p.Filter.Now == "":
		return append(b, noFilter...)
	case capture.IsOtherTap(p.Filter.Now):
		return append(append(b, otherTap...), p.Filter.Now...)
	}
	return append(append(b, otherFilter...), p.Filter.Now...)
}

func readFilterChange(sentence string, p *capture.Packet) bool {
	now, other := strings.CutPrefix(sentence, otherFilter)
	if other = other && now != "" && !capture.IsOtherTap(now); !other {
		now, other = strings.CutPrefix(sentence, otherTap)
		other = other && capture.IsOtherTap(now)
	}
	if !other && sentence != noFilter {
		return false
	}
	p.Filter = capture.FilterChange{Changed: true}
	if other {
		p.Filter.Now = now
	}
	return true
}

func sayFed(b []byte, p *capture.Packet) []byte {
	b = appendIDs(append(b, readFrom...), &p.Receipt.Fed)
	if p.Receipt.Later {
		b = append(b, andLater...)
	}
	return b
}

func readFed(sentence string, p *capture.Packet) bool {
	list, ok := strings.CutPrefix(sentence, readFrom)
	if !ok {
		return false
	}
	list, later := strings.CutSuffix(list, andLater)
	ids, ok := parseIDs(list)
	if ok = ok || later && list == ""; ok {
		p.Receipt.Fed, p.Receipt.Later = ids, later
	}
	return ok
}

// single tells whether there is one id only.
func single(ids *capture.IDs) bool {
	return len(ids.Ranges) == 1 && ids.More == 0 && ids.Ranges[0][0] == ids.Ranges[0][1]
}

func saySentIn(b []byte, p *capture.Packet) []byte {
	in := sentInSeveral
	if single(&p.Receipt.Packets) {
		in = sentIn
	}
	b = appendIDs(append(b, in...), &p.Receipt.Packets)
	if p.Receipt.Partly {
		b = append(b, asFarAsKnown...)
	}
	return b
}

func readSentIn(sentence string, p *capture.Packet) bool {
	list, one := strings.CutPrefix(sentence, sentIn)
	list, several := strings.CutPrefix(list, sentInSeveral)
	if one == several {
		return false
	}
	list, partly := strings.CutSuffix(list, asFarAsKnown)
	ids, ok := parseIDs(list)
	if ok = ok && one == single(&ids); ok {
		p.Receipt.Packets, p.Receipt.Partly = ids, partly
	}
	return ok
}

func sayQueueDropped(b []byte, p *capture.Packet) []byte {
	b = append(strconv.AppendUint(append(b, queueDropped...), p.Receipt.QueueDropped, 10), beforeThisOne...)
	if !p.Receipt.DroppedIDs.Empty() {
		b = appendIDs(append(b, whichPackets...), &p.Receipt.DroppedIDs)
	}
	return b
}

func readQueueDropped(sentence string, p *capture.Packet) bool {
	if !strings.HasPrefix(sentence, queueDropped) {
		return false
	}
	said, list, named := strings.Cut(sentence, whichPackets)
	n, ok := numberIn(said, queueDropped, beforeThisOne)
	var ids capture.IDs
	if ok && named {
		ids, ok = parseIDs(list)
	}
	if ok = ok && n > 0; ok {
		p.Receipt.QueueDropped, p.Receipt.DroppedIDs = n, ids
	}
	return ok
}

func sayErrno(b []byte, p *capture.Packet) []byte {
	if p.Receipt.Errno == syscall.ECONNRESET {
		return append(b, peerReset...)
	}
	return append(append(append(b, p.Call...), ": "...), p.Receipt.Errno.Error()...)
}

func readErrno(sentence string, p *capture.Packet) bool {
	if sentence == peerReset {
		p.Receipt.Errno = syscall.ECONNRESET
		return true
	}
	text, ok := strings.CutPrefix(sentence, p.Call)
	if !ok || p.Call == "" {
		return false
	}
	if text, ok = strings.CutPrefix(text, ": "); !ok {
		return false
	}
	errno, ok := errnos()[text]
	if number, unnamed := strings.CutPrefix(text, "errno "); !ok && unnamed {
		n, isNumber := number64(number)
		errno = syscall.Errno(n)
		ok = isNumber && n > 0 && errno.Error() == text
	}
	if ok {
		p.Receipt.Errno = errno
	}
	return ok
}

// errnos maps names to errors, except ECONNRESET, which has a sentence of its own.
var errnos = sync.OnceValue(func() map[string]syscall.Errno {
	known := make(map[string]syscall.Errno)
	for errno := syscall.Errno(1); errno < 1<<9; errno++ {
		if errno != syscall.ECONNRESET {
			known[errno.Error()] = errno
		}
	}
	return known
})

// numberIn parses the number between two texts.
func numberIn(sentence, before, behind string) (n uint64, ok bool) {
	text, ok1 := strings.CutPrefix(sentence, before)
	text, ok2 := strings.CutSuffix(text, behind)
	if !ok1 || !ok2 {
		return 0, false
	}
	return number64(text)
}

// numbersIn parses two numbers.
func numbersIn(sentence, before, middle, behind string) (first, second uint64, ok bool) {
	text, ok := strings.CutPrefix(sentence, before)
	if !ok {
		return 0, 0, false
	}
	text, rest, ok := strings.Cut(text, middle)
	if !ok {
		return 0, 0, false
	}
	first, ok1 := number64(text)
	second, ok2 := numberIn(rest, "", behind)
	return first, second, ok1 && ok2
}

// number64 parses a number as it is written here: without a sign or leading zeros.
func number64(text string) (n uint64, ok bool) {
	if text == "" || text[0] == '0' && len(text) > 1 || text[0] == '+' {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil
}
