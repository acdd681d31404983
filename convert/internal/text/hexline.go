package text

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
)

// row is a line of a hex dump: where its bytes stand in the packet, and the bytes.
type row struct {
	// offset has the digits as they are, since programs print them in base 16, 8 or 10.
	offset []byte
	// data is valid until the next row is parsed.
	data []byte
	// end says that there is an offset alone, which is the length of all.
	end bool
	// words says that the groups are numbers in the order of the machine that has printed them, as
	// hexdump and od do it if nobody asks for bytes.
	words bool
	// logged is how many bytes of the line precede the offset, as in the kernel's log.
	logged int
}

// digits are the bounds of the number of digits of an offset.
const (
	fewestDigits = 3
	mostDigits   = 16
)

// digitsOfOd is how many digits od prints of an offset, and hexdump without -C.
const digitsOfOd = 7

// maxLogged is how far behind the beginning of a line the offset is looked for that stands in the
// kernel's log.
const maxLogged = 256

// parseRow parses a line of a hex dump, as hexdump -C, xxd, tcpdump, tshark, od, Scapy and the kernel
// print it. What stands behind the bytes is no part of them. scratch is for the bytes.
func parseRow(line, scratch []byte) (r row, ok bool) {
	line = bytes.TrimRight(line, " \t\r")
	at := 0
	for at < len(line) && isBlank(line[at]) {
		at++
	}
	if r, ok = rowAt(line, at, scratch); ok {
		return r, true
	}
	// The kernel's: time and prefix, and then the offset with a colon.
	for from := at; from < min(len(line), maxLogged); {
		n := bytes.IndexByte(line[from:min(len(line), maxLogged)], ' ')
		if n < 0 {
			break
		}
		from += n + 1
		digits := hexDigitsAt(line, from)
		if digits != 8 && digits != 16 || from+digits >= len(line) || line[from+digits] != ':' {
			continue
		}
		if r, ok = rowAt(line, from, scratch); ok && !r.end {
			r.logged = from
			return r, true
		}
	}
	return row{}, false
}

func hexDigitsAt(line []byte, at int) (n int) {
	for at+n < len(line) && digitOf[line[at+n]] < 16 {
		n++
	}
	return n
}

// rowAt parses the row whose offset stands at some place of the line.
func rowAt(line []byte, at int, scratch []byte) (r row, ok bool) {
	rest := line[at:]
	if bytes.HasPrefix(rest, []byte("0x")) {
		rest = rest[2:]
	}
	n := hexDigitsAt(rest, 0)
	if n < fewestDigits || n > mostDigits {
		return r, false
	}
	r.offset, rest = rest[:n], rest[n:]
	if len(rest) == 0 {
		r.end = n >= 6
		return r, r.end
	}
	colon := rest[0] == ':'
	if colon {
		rest = rest[1:]
	}
	if len(rest) == 0 || rest[0] != ' ' {
		return r, false
	}
	logged := at > 0 && !bytes.HasPrefix(bytes.TrimLeft(line, " \t"), line[at:])
	text := bytes.TrimLeft(rest, " ")
	r.words = !colon && n == digitsOfOd && hexDigitsAt(text, 0) > 2
	r.data = appendGroups(scratch[:0], text, logged)
	return r, len(r.data) > 0
}

// appendGroups appends the bytes of groups of digits with a space between them. Two spaces end them,
// but for those in the middle of hexdump -C. With words a group of more than one byte is a number in
// the order of this machine, as the kernel prints it.
func appendGroups(b, text []byte, words bool) []byte {
	canonical := bytes.HasSuffix(text, []byte("|")) && bytes.Contains(text, []byte(" |"))
	size := 0 // of the first group, in digits
	for begin := len(b); ; {
		n := hexDigitsAt(text, 0)
		ends := n == len(text) || n < len(text) && text[n] == ' '
		if n == 0 || n%2 == 1 || !ends || size != 0 && n > size || n > mostDigits {
			return b
		}
		if size == 0 {
			size = n
		}
		at := len(b)
		for i := 0; i < n; i += 2 {
			b = append(b, digitOf[text[i]]<<4|digitOf[text[i+1]])
		}
		if words && n > 2 && binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
			slices.Reverse(b[at:])
		}
		text = text[n:]
		switch {
		case len(text) < 2 || text[1] != ' ':
		case canonical && size == 2 && len(b)-begin == 8 && len(text) > 2 && text[2] != ' ' && text[2] != '|':
			text = text[1:]
		default:
			return b
		}
		if len(text) == 0 {
			return b
		}
		text = text[1:]
		if n < size { // the last one is shorter where a number of bytes is odd
			return b
		}
	}
}

// baseOf is the base in which the digits of an offset mean n, as programs print them; 0 if there is none.
func (r *row) baseOf(n uint64) (base uint64) {
	for _, base := range []uint64{16, 8, 10} {
		if value, rest, ok := cutNumber(r.offset, base); ok && len(rest) == 0 && value == n {
			return base
		}
	}
	return 0
}

// likelyBase is the base that the number of digits speaks for: od prints seven octal ones.
func (r *row) likelyBase() uint64 {
	if len(r.offset) == digitsOfOd {
		return 8
	}
	return 16
}

// value is the offset in base 16.
func (r *row) value() uint64 {
	n, _, _ := cutNumber(r.offset, 16)
	return n
}

// fewestBytes is how many bytes a line has at least that is a packet by itself, whatever the text is:
// the header of a datagram. A shorter one says its length, or is nothing but bytes with spaces or colons
// between them, in a text with a packet a line.
const fewestBytes = 8

// hexLine is a packet in one line.
type hexLine struct {
	data []byte
	// length is the packet's, at least that of data.
	length uint64
}

// parseHexLine parses a line that ends with the bytes of a packet, with spaces or colons between
// them or without. What precedes them may say the length: pkt len 19: d1 3a.
func parseHexLine(line, scratch []byte) (h hexLine, ok bool) {
	line = bytes.TrimRight(line, " \t\r")
	from, stated := statedLength(line)
	begin := hexTail(line, from)
	if begin < 0 {
		return h, false
	}
	b := scratch[:0]
	high, half := byte(0), false
	for _, c := range line[begin:] {
		switch digit := digitOf[c]; {
		case digit >= 16:
		case half:
			b, half = append(b, high<<4|digit), false
		default:
			high, half = digit, true
		}
	}
	h = hexLine{data: b, length: uint64(len(b))}
	if stated > h.length && stated <= math.MaxUint16*2 {
		h.length = stated
	}
	return h, len(b) >= fewestBytes || len(b) > 0 && stated == uint64(len(b))
}

// parseShortLine parses a line of fewer bytes and nothing else. sure is false where they are digits without
// anything between them, which may be a number or a word.
func parseShortLine(line, scratch []byte) (h hexLine, sure, ok bool) {
	line = bytes.TrimSpace(line)
	if len(line) == 0 || hexTail(line, 0) != 0 {
		return h, false, false
	}
	h, _ = parseHexLine(line, scratch)
	return h, len(line) == 3*len(h.data)-1 && len(h.data) > 1, true
}

// hexTail is where the bytes at the end of a line begin, not before from; -1 if there are none.
// Groups of digits are even.
func hexTail(line []byte, from int) (begin int) {
	begin = -1
	for end := len(line); ; {
		at := end
		for at > from && digitOf[line[at-1]] < 16 {
			at--
		}
		if n := end - at; n == 0 || n%2 == 1 {
			return begin
		}
		if at == 0 {
			return 0
		}
		if at == from || line[at-1] == ' ' || line[at-1] == '\t' || line[at-1] == ':' || line[at-1] == '=' {
			begin = at
		} else {
			return begin
		}
		if at == from {
			return begin
		}
		switch line[at-1] {
		case ' ', ':':
			end = at - 1
		default:
			return begin
		}
	}
}

// statedLength finds "len 19", "len=19" or "length: 19" in a line: where what follows begins, and the
// number.
func statedLength(line []byte) (end int, length uint64) {
	for _, word := range [][]byte{[]byte("length"), []byte("len")} {
		at := bytes.LastIndex(line, word)
		if at < 0 || at > 0 && isLetter(line[at-1]) {
			continue
		}
		at += len(word)
		digits := at
		for digits < len(line) && (line[digits] == ' ' || line[digits] == '=' || line[digits] == ':') {
			digits++
		}
		if digits == at {
			continue
		}
		n, rest, ok := cutNumber(line[digits:], 10)
		if ok && len(rest) > 0 && digitOf[rest[0]] >= 16 {
			return len(line) - len(rest), n
		}
	}
	return 0, 0
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
