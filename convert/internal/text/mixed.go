package text

import (
	"bytes"

	"github.com/ebpfdump/ebpfdump/internal/remark"
)

// parseOther tells whether a line, which is nothing that the form of a text knows, begins a packet in another
// form. It is strict: what is printed beside packets may have numbers that look like one.
func parseOther(line []byte, own remark.TextForm) (other remark.TextForm, ok bool) {
	_, text := tracePart(line)
	isHead := func(head string) bool {
		kind, _, _ := parseText(text, head)
		return kind == textHead
	}
	switch {
	case own != remark.FormTrace && isHead(KernelHead):
		return remark.FormTrace, true
	case own != remark.FormServer && isHead(UserHead):
		return remark.FormServer, true
	case own != remark.FormLines && isSurelyLine(text):
		return remark.FormLines, true
	case own != remark.FormRows && isSurelyRow(text):
		return remark.FormRows, true
	}
	return 0, false
}

// isSurelyLine tells whether a line is a packet by itself: it has nothing but bytes, or says how many there are,
// or they have a header that says it.
func isSurelyLine(line []byte) bool {
	line = bytes.TrimSpace(line)
	found, ok := parseHexLine(line, nil)
	if !ok {
		return false
	}
	from, stated := statedLength(line)
	length := int64(len(found.data))
	return hexTail(line, from) == 0 || stated == uint64(length) ||
		fitsIPv4(found.data, length, true) || fitsIPv6(found.data, length, true) || fitsFrame(found.data, length) || fitsUDP(found.data, length)
}

// isSurelyRow tells whether a line is the first row of a packet: what precedes the bytes is no part of them, as it is
// set off, or of another size.
func isSurelyRow(line []byte) bool {
	line = bytes.TrimPrefix(bytes.TrimLeft(line, " \t"), []byte("0x"))
	if !bytes.HasPrefix(line, []byte("000")) {
		return false
	}
	r, ok := parseRow(line, nil)
	if !ok || r.end || r.logged > 0 || r.value() != 0 || len(r.data) < 2 {
		return false
	}
	rest := line[len(r.offset):]
	return rest[0] == ':' || rest[1] == ' ' || hexDigitsAt(rest, 1) == 2
}
