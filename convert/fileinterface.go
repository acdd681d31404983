package convert

import (
	"fmt"
	"math"
	"math/bits"
	"strings"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/remark"
)

// fileInterface is an interface of a file that is being read.
type fileInterface struct {
	// own is what the packets are once the headers that our Writer put before them
	// are off; plain is what they are with all their bytes. Both are the same for
	// interfaces that the Writer put nothing before.
	own, plain *capture.Interface
	clock      fileClock
	snaplen    uint32 // 0 for no limit
	// section is the number of the last section that has it.
	section int
	// body is what its block holds in a copy, and left what it does not hold there.
	body string
	left Ledger
	// statistics is the place of its ledger among the reader's, if counted is set.
	statistics int
	counted    bool
}

// interfaceBlock reads an interface (section 4.2 of the draft).
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
	r.copyBody(i, link, body[8:])
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
	i.own = i.plain
	if own, ok := ownInterface(name, description, link); ok {
		i.own = &own
	}
	if len(r.described) < maxInterfaces {
		r.described = append(r.described, i.own)
	}
	return i, nil
}

// copyBody makes what the block of an interface holds in a copy. The clock stays
// as it is, so that every time is the same; it is the first option, since scapy
// misreads it otherwise.
func (r *pcapngReader) copyBody(i *fileInterface, link uint16, foreign []byte) {
	limit := i.snaplen
	if limit == 0 || limit > snaplen {
		limit = snaplen
	}
	b := order.AppendUint32(r.scratch[:0], uint32(link))
	b = order.AppendUint32(b, limit)
	b = appendOption(b, interfaceResolution, string([]byte{i.clock.resolution}))
	if i.clock.offset != 0 {
		b = appendOptionUint64(b, interfaceOffset, uint64(i.clock.offset))
	}
	b = appendForeign(b, &interfaceOptions, optionsOf(foreign, r.order), &i.left, func(b []byte, code uint16, _ []byte) ([]byte, bool) {
		return b, code == interfaceResolution || code == interfaceOffset
	})
	r.scratch = appendEndOfOptions(b)
	i.body = string(r.scratch)
}

const (
	// maxInterfaces is the most interfaces of a section.
	maxInterfaces = 1 << 10
	// maxKnown and maxKnownBytes bound the memory for those of all sections.
	maxKnown      = 4 << 10
	maxKnownBytes = 8 << 20
)

// plainInterface describes packets whose bytes are all as they are in the file.
func plainInterface(name, description string, link uint16) capture.Interface {
	i := capture.Interface{Label: name, Layer: capture.LayerForeign}
	remark.ReadDescription(description, &i)
	if kind, view, ok := viewOf(name); ok {
		i.Kind, i.View, i.Label = kind, view, ""
	}
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

// ownInterface describes packets of our Writer without what it put before them:
// they are known by the interface's name, and by the description, which says
// that a header is synthetic.
func ownInterface(name, description string, link uint16) (capture.Interface, bool) {
	kind, view, ok := viewOf(name)
	if !ok {
		return capture.Interface{}, false
	}
	i := capture.Interface{Kind: kind, View: view}
	remark.ReadDescription(description, &i)
	switch {
	case link == linkUpperPDU:
		i.Layer = capture.LayerMessage
	case (link == linkIPv4 || link == linkIPv6) && i.Header != capture.HeaderRecorded:
		i.Layer, i.IPv6 = capture.LayerTransport, link == linkIPv6
	default:
		return capture.Interface{}, false
	}
	return i, true
}

// viewOf takes an interface's name apart if it is one of ours: KIND:VIEW.
func viewOf(name string) (kind string, view capture.View, ok bool) {
	at := strings.LastIndexByte(name, ':')
	if at <= 0 {
		return "", 0, false
	}
	view, ok = capture.ViewByName(name[at+1:])
	return name[:at], view, ok
}

// interfaceSet has each interface once, also if several sections describe it. In
// one section two of the same description are two.
type interfaceSet struct {
	byBody       map[string][]*fileInterface
	count, bytes int
}

// add returns the interface itself, or the one that it is in sections before.
func (s *interfaceSet) add(i *fileInterface, section int) (*fileInterface, error) {
	for _, known := range s.byBody[i.body] {
		if known.section != section {
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

// fileClock is how an interface counts time.
type fileClock struct {
	// resolution is if_tsresol: 10 to the minus that, or 2 if the highest bit is set.
	resolution uint8
	// offset is if_tsoffset, in seconds.
	offset int64
}

// microseconds is the clock of interfaces that do not say which they have.
var microseconds = fileClock{resolution: 6}

// nanoseconds is a time in nanoseconds since the epoch, and what it lacks. What
// is before that or after the year 2262 becomes the nearest time that there is.
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
	// The offset may bring a time back that is too large without it.
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
