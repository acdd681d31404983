package convert

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
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
}

// interfaceBlock reads an interface (section 4.2 of the draft).
func (r *pcapngReader) interfaceBlock(body []byte) error {
	if len(body) < 8 {
		return fmt.Errorf("an interface block of %d bytes", len(body)+blockFrame)
	}
	if len(r.interfaces) >= maxInterfaces {
		return fmt.Errorf("more than %d interfaces", maxInterfaces)
	}
	i := &fileInterface{clock: microseconds, snaplen: r.order.Uint32(body[4:])}
	var name, description string
	for code, value := range r.options(body[8:]) {
		switch {
		case code == interfaceName:
			name = text(value)
		case code == interfaceDescription:
			description = text(value)
		case code == interfaceResolution && len(value) == 1:
			i.clock.resolution = value[0]
		case code == interfaceOffset && len(value) == 8:
			i.clock.offset = int64(r.order.Uint64(value))
		}
	}
	link := r.order.Uint16(body)
	i.plain = r.known.add(plainInterface(name, description, link), r.interfaces)
	i.own = i.plain
	if own, ok := ownInterface(name, description, link); ok {
		i.own = r.known.add(own, r.interfaces)
	}
	r.interfaces = append(r.interfaces, i)
	return nil
}

// maxInterfaces bounds the memory for a file's interfaces, of which each has
// two texts of up to 64 KiB.
const maxInterfaces = 1 << 10

// plainInterface describes packets whose bytes are all as they are in the file.
func plainInterface(name, description string, link uint16) capture.Interface {
	i := capture.Interface{Label: name, Layer: capture.LayerForeign}
	i.Description, i.HasMeta = remark.CutDescription(description)
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
	i.Description, i.HasMeta = remark.CutDescription(description)
	switch {
	case link == linkUpperPDU:
		i.Layer = capture.LayerMessage
	case (link == linkIPv4 || link == linkIPv6) && strings.Contains(description, syntheticNote):
		i.Layer, i.IPv6 = capture.LayerTransport, link == linkIPv6
	default:
		return capture.Interface{}, false
	}
	return i, true
}

// syntheticNote is in the description of every interface whose IP headers the
// Writer made.
const syntheticNote = "header is synthetic"

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
type interfaceSet []*capture.Interface

func (s *interfaceSet) add(i capture.Interface, section []*fileInterface) *capture.Interface {
	for _, known := range *s {
		if *known == i && !slices.ContainsFunc(section, func(f *fileInterface) bool { return f.own == known || f.plain == known }) {
			return known
		}
	}
	if len(*s) >= 2*maxInterfaces {
		return &i
	}
	*s = append(*s, &i)
	return &i
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

// nanoseconds is a time in nanoseconds since the epoch. What is before that or
// after the year 2262 becomes the nearest time that there is.
func (c fileClock) nanoseconds(ticks uint64) int64 {
	if c.resolution == 9 && c.offset == 0 && ticks <= math.MaxInt64 {
		return int64(ticks)
	}
	const second = 1_000_000_000
	high, low := bits.Mul64(ticks, second)
	if exponent := uint(c.resolution & 0x7f); c.resolution&0x80 != 0 {
		high, low = shiftRight(high, low, exponent)
	} else {
		for ; exponent > 0; exponent-- {
			var rest uint64
			high, rest = high/10, high%10
			low, _ = bits.Div64(rest, low, 10)
		}
	}
	if high > 0 || low > math.MaxInt64 {
		low = math.MaxInt64
	}
	whole := int64(low)
	if c.offset >= 0 {
		if c.offset > (math.MaxInt64-whole)/second {
			return math.MaxInt64
		}
		return whole + c.offset*second
	}
	if c.offset < -math.MaxInt64/second {
		return 0
	}
	return max(whole+c.offset*second, 0)
}

// shiftRight shifts a number of 128 bits.
func shiftRight(high, low uint64, n uint) (uint64, uint64) {
	if n >= 64 {
		return 0, high >> (n - 64)
	}
	return high >> n, low>>n | high<<(64-n)
}
