package convert

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/remark"
)

// fileInterface is an interface of a file being read.
type fileInterface struct {
	// own describes the packets without the headers that our Writer added, plain the
	// packets with all their bytes. They are the same for interfaces whose packets got no
	// header.
	own, plain *capture.Interface
	// said is own as the file describes it, which is another one if ReadOptions decode it as
	// something else.
	said  *capture.Interface
	clock fileClock
	// retimed says that a copy has the times in nanoseconds since 1970 instead.
	retimed bool
	snaplen uint32 // 0 for no limit
	// section is the number of the last section that describes it.
	section int
	// body is the body of its block in a copy, and left counts what that leaves out.
	body string
	left omissionCounts
	// statistics is the index of its statistics among the reader's, if counted is set.
	statistics int
	counted    bool
}

// interfaceBlock reads an interface description block (section 4.2 of the draft).
func (r *pcapngReader) interfaceBlock(body []byte) (*fileInterface, error) {
	if len(body) < 8 {
		return nil, fmt.Errorf("an interface block of %d bytes", len(body)+blockFrame)
	}
	if len(r.interfaces) >= maxInterfaces {
		return nil, fmt.Errorf("more than %d interfaces", maxInterfaces)
	}
	i := &fileInterface{clock: microseconds, snaplen: r.order.Uint32(body[4:])}
	var name, description string
	described := optionsOf(body[8:], r.order)
	for code, value, ok := described.next(); ok; code, value, ok = described.next() {
		switch {
		case code == interfaceName:
			name = optionText(value)
		case code == interfaceDescription:
			description = optionText(value)
		case code == interfaceResolution && len(value) == 1:
			i.clock.resolution = value[0]
		case code == interfaceOffset && len(value) == 8:
			i.clock.offset = int64(r.order.Uint64(value))
		}
	}
	link := r.order.Uint16(body)
	own, ok := ownInterface(name, description, link)
	redecoded := ok && r.options.DecodeAs != "" && isDecodable(&own)
	said := own
	if redecoded {
		own, _ = ownInterface(name, remark.DecodedAs(description, r.options.DecodeAs), link)
	}
	r.copyBody(i, link, body[8:], func(b []byte, code uint16, _ []byte) ([]byte, bool) {
		if code == interfaceDescription && redecoded {
			return appendOption(b, code, remark.Description(&own)), true
		}
		return b, code == interfaceResolution || code == interfaceOffset
	})
	known, err := r.known.add(i, r.sections)
	if err != nil {
		return nil, err
	}
	r.interfaces = append(r.interfaces, known)
	if known != i {
		return known, nil
	}
	plain := plainInterface(name, description, link)
	i.plain = &plain
	i.own, i.said = i.plain, i.plain
	if ok {
		i.own, i.said = &own, &said
	}
	if len(r.described) < maxInterfaces {
		if r.numbers == nil {
			r.numbers = make(map[*capture.Interface]int)
		}
		r.numbers[i.own], r.numbers[i.plain] = len(r.described), len(r.described)
		r.described = append(r.described, i.own)
	}
	return i, nil
}

// isDecodable tells whether Wireshark can be told what the packets of an interface are.
func isDecodable(i *capture.Interface) bool {
	kind, known := capture.KindByName(i.Kind)
	return known && kind.Counted() && i.Layer == capture.LayerMessage && (i.View == capture.ViewUser || i.View == capture.ViewSent)
}

// copyBody makes the body of an interface's block for copies, where instead writes what is another
// option there. The clock stays the same, so that no timestamp changes, unless Wireshark cannot read
// it; it is the first option, since scapy misreads it elsewhere.
func (r *pcapngReader) copyBody(i *fileInterface, link uint16, foreign []byte, instead func([]byte, uint16, []byte) ([]byte, bool)) {
	limit := uint32(packetLimit(link))
	if i.snaplen != 0 {
		limit = min(limit, i.snaplen)
	}
	clock := i.clock
	if i.retimed = clock.tooFine(); i.retimed {
		clock = fileClock{resolution: 9}
	}
	b := order.AppendUint32(r.scratch[:0], uint32(link))
	b = order.AppendUint32(b, limit)
	b = appendOption(b, interfaceResolution, string([]byte{clock.resolution}))
	if clock.offset != 0 {
		b = appendOptionUint64(b, interfaceOffset, uint64(clock.offset))
	}
	b = appendForeign(b, &interfaceOptions, optionsOf(foreign, r.order), &i.left, instead)
	r.scratch = appendEndOfOptions(b)
	i.body = string(r.scratch)
}

const (
	// maxInterfaces limits the interfaces of a section.
	maxInterfaces = 1 << 10
	// maxKnown and maxKnownBytes bound the memory for the interfaces of all sections.
	maxKnown      = 4 << 10
	maxKnownBytes = 8 << 20
)

// plainInterface describes packets with all the bytes that they have in the file.
func plainInterface(name, description string, link uint16) capture.Interface {
	i := capture.Interface{Label: name, Layer: capture.LayerForeign}
	remark.ReadDescription(description, &i)
	if kind, view, ok := viewOf(name); ok {
		i.Kind, i.View, i.Label = kind, view, ""
	}
	readMember(&i)
	switch link {
	case linkEthernet:
		i.Layer = capture.LayerLink
	case linkIPv4:
		i.Layer = capture.LayerNetwork
	case linkIPv6:
		i.Layer, i.IPv6 = capture.LayerNetwork, true
	default:
		i.LinkType = link
	}
	return i
}

// ownInterface describes packets of our Writer without the header that it added. They are
// recognised by the interface's name, and by its description, which says that the header
// is synthetic.
func ownInterface(name, description string, link uint16) (capture.Interface, bool) {
	kind, view, ok := viewOf(name)
	if !ok {
		return capture.Interface{}, false
	}
	i := capture.Interface{Kind: kind, View: view, Layer: capture.LayerMessage}
	remark.ReadDescription(description, &i)
	readMember(&i)
	if !isDecodable(&i) {
		i.DecodeAs = ""
	}
	switch {
	case link == linkUpperPDU:
		i.Layer = capture.LayerMessage
	case link == linkNetlink && view == capture.ViewKernel:
		i.Layer, i.LinkType = capture.LayerMessage, linkNetlink
	case (link == linkIPv4 || link == linkIPv6) && i.Header != capture.HeaderRecorded:
		i.Layer, i.IPv6 = capture.LayerTransport, link == linkIPv6
	default:
		return capture.Interface{}, false
	}
	return i, true
}

// viewOf parses the name of an interface if it has our form, KIND:VIEW.
func viewOf(name string) (kind string, view capture.View, ok bool) {
	at := strings.LastIndexByte(name, ':')
	if at <= 0 {
		return "", 0, false
	}
	view, ok = capture.ViewByName(name[at+1:])
	return name[:at], view, ok
}

// readMember takes the number of a socket of a group off the interface's kind, where the description
// tells of the same one.
func readMember(i *capture.Interface) {
	if i.Members == 0 {
		return
	}
	kind, ok := strings.CutSuffix(i.Kind, "["+strconv.Itoa(i.Member)+"]")
	if !ok || kind == "" {
		i.Member, i.Members = 0, 0
		return
	}
	i.Kind = kind
}

// interfaceSet holds each interface once, also if several sections describe it. Two
// interfaces of one section are distinct even if their descriptions are equal.
type interfaceSet struct {
	byBody       map[string][]*fileInterface
	count, bytes int
}

// add returns the interface, or the equal one of an earlier section.
func (s *interfaceSet) add(i *fileInterface, section int) (*fileInterface, error) {
	for _, known := range s.byBody[i.body] {
		if known.section != section && known.clock == i.clock {
			known.section = section
			return known, nil
		}
	}
	s.count++
	s.bytes += len(i.body)
	if s.count > maxKnown || s.bytes > maxKnownBytes {
		return nil, fmt.Errorf("more than %d interfaces, or %d bytes of their descriptions, in all sections", maxKnown, maxKnownBytes)
	}
	if s.byBody == nil {
		s.byBody = make(map[string][]*fileInterface)
	}
	i.section = section
	s.byBody[i.body] = append(s.byBody[i.body], i)
	return i, nil
}

// fileClock is the timestamp clock of an interface.
type fileClock struct {
	// resolution is if_tsresol: the negative exponent of 10, or of 2 if the highest bit
	// is set.
	resolution uint8
	// offset is if_tsoffset, in seconds.
	offset int64
}

// microseconds is the default clock.
var microseconds = fileClock{resolution: 6}

// tooFine tells whether a second has more units than 64 bits can count. Wireshark 4.0 reads other
// times then, and newer versions refuse the file.
func (c fileClock) tooFine() bool {
	if exponent := c.resolution & 0x7f; c.resolution&0x80 != 0 {
		return exponent > 63
	}
	return c.resolution > 19
}

// nanoseconds converts a timestamp to nanoseconds since the epoch, and tells what was
// lost. A time before the epoch or after the year 2262 becomes the nearest one in that
// range.
func (c fileClock) nanoseconds(ticks uint64) (int64, timeLoss) {
	switch { // nearly all files have one of these clocks
	case c.offset != 0:
	case c.resolution == 9 && ticks <= math.MaxInt64:
		return int64(ticks), timeExact
	case c.resolution == 6 && ticks <= math.MaxInt64/1000:
		return int64(ticks) * 1000, timeExact
	}
	const second = 1_000_000_000
	high, low := bits.Mul64(ticks, second)
	loss := timeExact
	if exponent := uint(c.resolution & 0x7f); c.resolution&0x80 != 0 {
		if uint(bits.TrailingZeros64(low)) < min(exponent, 64) || exponent > 64 && uint(bits.TrailingZeros64(high)) < exponent-64 {
			loss = timeRounded
		}
		high, low = shiftRight(high, low, exponent)
	} else {
		for ; exponent > 0; exponent-- {
			var rest uint64
			high, rest = high/10, high%10
			if low, rest = bits.Div64(rest, low, 10); rest != 0 {
				loss = timeRounded
			}
		}
	}
	// A negative offset may bring a time that overflows back into range.
	if c.offset < 0 {
		offHigh, offLow := bits.Mul64(uint64(-c.offset), second)
		var borrow uint64
		low, borrow = bits.Sub64(low, offLow, 0)
		if high, borrow = bits.Sub64(high, offHigh, borrow); borrow != 0 {
			return 0, timeOutside
		}
	} else {
		offHigh, offLow := bits.Mul64(uint64(c.offset), second)
		var carry uint64
		low, carry = bits.Add64(low, offLow, 0)
		high, _ = bits.Add64(high, offHigh, carry)
	}
	if high > 0 || low > math.MaxInt64 {
		return math.MaxInt64, timeOutside
	}
	return int64(low), loss
}

// shiftRight shifts a number of 128 bits.
func shiftRight(high, low uint64, n uint) (uint64, uint64) {
	if n >= 64 {
		return 0, high >> (n - 64)
	}
	return high >> n, low>>n | high<<(64-n)
}
