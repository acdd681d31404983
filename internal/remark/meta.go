// Package remark makes the sentences that a capture file carries, and takes them
// apart again: what a packet's comment and an interface's description say of
// facts that pcapng has no place for. Whoever rewords one changes it here, in
// both directions; everybody else has the facts as fields of a capture.Packet and
// a capture.Interface.
package remark

import (
	"fmt"
	"strings"

	"github.com/ebpfdump/ebpfdump/capture"
)

// between stands between two things that a comment says.
const between = "; "

// HasMeta tells whether there is something to say about a Meta. Of a hash and of
// a queue there is not: nearly every packet has one, and pcapng has options for them.
func HasMeta(m *capture.Meta) bool {
	return uint32(m.VLANProto)|m.Mark|m.Priority|m.GSOSize != 0
}

// AppendMeta appends what there is to say about a Meta, such as
//
//	vlan=100 (tag 8100 2064 beside the bytes), mark=0x2a, priority=6, gso=3 segments of 1448 bytes
//
// or nothing.
func AppendMeta(b []byte, m *capture.Meta) []byte {
	separator := ""
	if m.Tagged() {
		b = fmt.Appendf(b, "vlan=%d (tag %04x %04x beside the bytes)", m.VLAN(), m.VLANProto, m.VLANTCI)
		separator = ", "
	}
	if m.Mark != 0 {
		b = fmt.Appendf(b, "%smark=%#x", separator, m.Mark)
		separator = ", "
	}
	if m.Priority != 0 {
		b = fmt.Appendf(b, "%spriority=%d", separator, m.Priority)
		separator = ", "
	}
	if m.GSOSize != 0 {
		b = fmt.Appendf(b, "%sgso=%d segments of %d bytes", separator, m.GSOSegs, m.GSOSize)
	}
	return b
}

// parseMeta reads what AppendMeta made, and nothing else.
func parseMeta(text string) (m capture.Meta, ok bool) {
	for item := range strings.SplitSeq(text, ", ") {
		var n int
		switch name, _, _ := strings.Cut(item, "="); name {
		case "vlan":
			n, _ = fmt.Sscanf(item, "vlan=%d (tag %04x %04x beside the bytes)", new(uint16), &m.VLANProto, &m.VLANTCI)
		case "mark":
			n, _ = fmt.Sscanf(item, "mark=0x%x", &m.Mark)
		case "priority":
			n, _ = fmt.Sscanf(item, "priority=%d", &m.Priority)
		case "gso":
			n, _ = fmt.Sscanf(item, "gso=%d segments of %d bytes", &m.GSOSegs, &m.GSOSize)
		}
		if n == 0 {
			return capture.Meta{}, false
		}
	}
	// Whatever is written in another way is somebody else's.
	if string(AppendMeta(nil, &m)) != text {
		return capture.Meta{}, false
	}
	return m, true
}

// MetaSize is more than the bytes that AppendMetaBehind adds to a comment.
const MetaSize = 160

// AppendComment appends a comment, and behind it what there is to say about a Meta.
func AppendComment(b []byte, comment string, m *capture.Meta) []byte {
	return AppendMetaBehind(append(b, comment...), len(comment), m)
}

// AppendMetaBehind appends what there is to say about a Meta behind a comment of so many
// bytes, which b ends with.
func AppendMetaBehind(b []byte, comment int, m *capture.Meta) []byte {
	if comment > 0 && HasMeta(m) {
		b = append(b, between...)
	}
	return AppendMeta(b, m)
}

// CutMeta takes what AppendComment said of a Meta out of a comment: the end of
// one of its lines, of which a file of other tools may have several.
func CutMeta(comment string) (rest string, m capture.Meta, ok bool) {
	for begin, line := range lines(comment) {
		at := strings.LastIndex(line, between)
		text := line
		if at >= 0 {
			text = line[at+len(between):]
		}
		if m, ok = parseMeta(text); !ok {
			continue
		}
		end := begin + len(line)
		if at >= 0 {
			return comment[:begin+at] + comment[end:], m, true
		}
		// A line that says nothing else goes with its end.
		rest, after := comment[:begin], strings.TrimPrefix(comment[end:], "\n")
		if after == "" {
			rest = strings.TrimSuffix(rest, "\n")
		}
		return rest + after, m, true
	}
	return comment, capture.Meta{}, false
}

// lines goes through the lines of a text, with the place of each.
func lines(text string) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		at := 0
		for line := range strings.SplitSeq(text, "\n") {
			if !yield(at, line) {
				return
			}
			at += len(line) + 1
		}
	}
}
