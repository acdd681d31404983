// Package remark formats and parses the sentences in a capture file: what a packet's
// comment and an interface's description say about facts that pcapng has no field for.
// Both directions are here, so that a sentence can be reworded in one place; all other
// packages use the fields of capture.Packet and capture.Interface.
package remark

import (
	"fmt"
	"strings"

	"github.com/ebpfdump/ebpfdump/capture"
)

// between separates two sentences of a comment.
const between = "; "

// HasMeta tells whether a comment mentions a Meta. Hash and queue alone are not
// mentioned: nearly every packet has them, and pcapng has options for them.
func HasMeta(m *capture.Meta) bool {
	return uint32(m.VLANProto)|m.Mark|m.Priority|m.GSOSize != 0
}

// AppendMeta appends the sentence about a Meta, such as
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

// parseMeta parses what AppendMeta made, and nothing else.
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
	// A text that AppendMeta would write differently is somebody else's.
	if string(AppendMeta(nil, &m)) != text {
		return capture.Meta{}, false
	}
	return m, true
}

// MetaSize is an upper bound on what AppendMetaBehind adds to a comment.
const MetaSize = 160

// AppendComment appends a comment and the sentence about a Meta.
func AppendComment(b []byte, comment string, m *capture.Meta) []byte {
	return AppendMetaBehind(append(b, comment...), len(comment), m)
}

// AppendMetaBehind appends the sentence about a Meta to b, which ends with a comment of
// that many bytes.
func AppendMetaBehind(b []byte, comment int, m *capture.Meta) []byte {
	if comment > 0 && HasMeta(m) {
		b = append(b, between...)
	}
	return AppendMeta(b, m)
}

// CutMeta removes the sentence of AppendComment about a Meta from a comment. It is at the
// end of a line; files of other tools may have several lines.
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
		// A line that contains nothing else is removed with its line break.
		rest, after := comment[:begin], strings.TrimPrefix(comment[end:], "\n")
		if after == "" {
			rest = strings.TrimSuffix(rest, "\n")
		}
		return rest + after, m, true
	}
	return comment, capture.Meta{}, false
}

// lines iterates over the lines of a text and their offsets.
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
