package text

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/window"
)

// maxLine is the length of the longest line that is parsed. Longer ones are skipped: no
// line of a trace is longer than a page.
const maxLine = 1 << 16

// lines reads the lines of a text and returns the complete packets. Trace text and server
// text have it in common.
type lines struct {
	in      *window.Window
	options Options
	dumps   dumps
	line    int64 // number of the last line that was read
	packets uint64
	kind    kindFinder
	packet  capture.Packet
	taken   bool // the oldest of dumps is the packet that was returned last
	err     error
	refused error // the doubt that ends a strict text
}

// byteOrderMark is U+FEFF in UTF-8.
var byteOrderMark = []byte("\ufeff")

func newLines(in *window.Window, o Options) *lines {
	t := &lines{in: in, options: o}
	t.dumps.doubt, t.dumps.snaplen = t.doubt, o.Snaplen
	t.kind.kind = o.Kind
	t.kind.known = o.Kind != nil
	return t
}

func (t *lines) errorf(line int64, format string, args ...any) error {
	return t.options.Error(max(line, 1), fmt.Errorf(format, args...))
}

// doubt reports a line that cannot be accepted as it is.
func (t *lines) doubt(line int64, format string, args ...any) error {
	if t.options.Strict {
		t.refused = t.errorf(line, format, args...)
		return t.refused
	}
	if t.options.Doubt != nil {
		t.options.Doubt(max(line, 1), fmt.Errorf(format, args...))
	}
	return nil
}

// enough is the number of packets from which the kind of socket is inferred, if so many
// are available.
const enough = 16

// next returns the next complete packet. It calls parse until there is one; an error of
// parse ends the text.
func (t *lines) next(parse func() error) (*dump, error) {
	if t.taken {
		t.dumps.release()
		t.taken = false
	}
	for {
		if d := t.dumps.ready(); d != nil {
			if t.kind.known || t.err != nil || len(t.dumps.queue) >= enough || len(t.in.Unread()) == 0 {
				t.taken = true
				t.packets++
				return d, nil
			}
		}
		if t.err != nil {
			return nil, t.err
		}
		if err := parse(); err != nil {
			t.finish(err)
		}
	}
}

// finish ends the text. The complete packets are still returned before the error.
func (t *lines) finish(err error) {
	if errors.Is(err, io.EOF) {
		if doubt := t.dumps.endAll(); doubt != nil {
			err = doubt
		}
	} else if err != t.refused {
		err = t.errorf(t.line+1, "%w", err)
	}
	if !errors.Is(err, io.EOF) {
		t.dumps.abandon(t.options.Strict)
	} else if t.packets == 0 && t.dumps.ready() == nil {
		err = t.errorf(t.line, "there is no packet in all of the text")
	}
	t.err = err
}

// readLine returns the next line without its line break. whole is false for a last line
// without one. The line is nil if it is too long to parse.
func (t *lines) readLine() (line []byte, whole bool, err error) {
	scanned := 0
	for {
		b := t.in.Unread()
		if n := bytes.IndexByte(b[scanned:], '\n'); n >= 0 {
			n += scanned
			t.in.Use(n + 1)
			t.line++
			if n > maxLine {
				return nil, true, nil
			}
			return bytes.TrimSuffix(t.withoutMark(b[:n]), []byte{'\r'}), true, nil
		}
		if len(b) > maxLine {
			t.line++
			return nil, true, t.skipLine()
		}
		scanned = len(b)
		if err := t.in.Fill(); err != nil {
			if !errors.Is(err, io.EOF) || len(b) == 0 {
				return nil, false, err
			}
			t.in.Use(len(b))
			t.line++
			return t.withoutMark(b), false, nil
		}
	}
}

// withoutMark cuts the byte order mark that editors of Windows put before the first line of UTF-8.
func (t *lines) withoutMark(line []byte) []byte {
	if t.line == 1 {
		return bytes.TrimPrefix(line, byteOrderMark)
	}
	return line
}

// skipLine skips the rest of a line of any length.
func (t *lines) skipLine() error {
	for {
		b := t.in.Unread()
		if n := bytes.IndexByte(b, '\n'); n >= 0 {
			t.in.Use(n + 1)
			return nil
		}
		t.in.Use(len(b))
		if err := t.in.Fill(); errors.Is(err, io.EOF) {
			return nil // the next line will return it
		} else if err != nil {
			return err
		}
	}
}

// quoted quotes the beginning of a line for a message.
func quoted(line []byte) string {
	const shown = 40
	if len(line) <= shown {
		return strconv.QuoteToASCII(string(line))
	}
	end := shown
	for end > shown-utf8.UTFMax && !utf8.RuneStart(line[end]) {
		end--
	}
	return strconv.QuoteToASCII(string(line[:end])) + "..."
}

// textKind is the kind of a line without its trace prefix.
type textKind uint8

const (
	textOther textKind = iota
	textHead           // a packet's length
	textByte           // one of its bytes
	textEnd            // the empty line at its end
	textBad            // looks like one of these, but is malformed
)

// parseText parses a line of a dump. head is KernelHead or UserHead. The numbers are the
// length, or a byte's index and value.
func parseText(line []byte, head string) (kind textKind, index, value uint64) {
	for len(line) > 0 && isBlank(line[len(line)-1]) {
		line = line[:len(line)-1]
	}
	if len(line) == 0 {
		return textEnd, 0, 0
	}
	for isBlank(line[0]) {
		line = line[1:]
	}
	if rest, ok := bytes.CutPrefix(line, []byte(ByteHead[1:])); ok {
		index, rest, ok1 := cutNumber(rest, 10)
		rest, ok2 := bytes.CutPrefix(rest, []byte("]=0x"))
		value, rest, ok3 := cutNumber(rest, 16)
		if !ok1 || !ok2 || !ok3 || len(rest) > 0 {
			return textBad, 0, 0
		}
		return textByte, index, value
	}
	if rest, ok := bytes.CutPrefix(line, []byte(head)); ok {
		length, rest, ok := cutNumber(rest, 10)
		if !ok || string(rest) != HeadEnd {
			return textBad, 0, 0
		}
		return textHead, length, 0
	}
	return textOther, 0, 0
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' }

// cutNumber parses the digits at the start of b. A number that overflows becomes the
// largest one.
func cutNumber(b []byte, base uint64) (n uint64, rest []byte, ok bool) {
	at := 0
	for ; at < len(b); at++ {
		digit := uint64(digitOf[b[at]])
		if digit >= base {
			break
		}
		if n > (math.MaxUint64-digit)/base {
			n = math.MaxUint64
			continue
		}
		n = n*base + digit
	}
	return n, b[at:], at > 0
}

// digitOf is the value of a digit, 0xff for other bytes.
var digitOf = func() (table [256]uint8) {
	for c := range table {
		table[c] = 0xff
	}
	for value, c := range "0123456789abcdef" {
		table[c] = uint8(value)
	}
	for value, c := range "ABCDEF" {
		table[c] = uint8(10 + value)
	}
	return table
}()

// byteLine is the start of a byte's line up to its value: 8 bytes, and 3 to 5 more.
type byteLine struct {
	first, second, mask uint64
	size                int
}

var byteLines = func() (lines [256]byteLine) {
	for i := range lines {
		text := fmt.Appendf(nil, "%s%d]=0x", ByteHead, i)
		var padded, mask [16]byte
		copy(padded[:], text)
		for n := range text {
			mask[n] = 0xff
		}
		little := binary.LittleEndian
		lines[i] = byteLine{
			first: little.Uint64(padded[:]), second: little.Uint64(padded[8:]), mask: little.Uint64(mask[8:]), size: len(text),
		}
	}
	return lines
}()

// byteRoom is how many bytes parseByte may access.
const byteRoom = 20

// parseByte is the fast path for a byte's line exactly as filters print it, without a
// search for the line break. It returns the size of the line including an empty line
// after it, and the number of these lines, which is 0 if b does not begin with the line
// for that index. b has at least byteRoom bytes.
func parseByte(b []byte, index int) (value byte, size, lines int) {
	l := &byteLines[index&0xff]
	b = b[:byteRoom]
	if binary.LittleEndian.Uint64(b) != l.first || binary.LittleEndian.Uint64(b[8:])&l.mask != l.second {
		return 0, 0, 0
	}
	size = l.size
	value = digitOf[b[size]]
	next := b[size+1]
	size++
	if digit := digitOf[next]; digit < 16 && value < 16 {
		value = value<<4 | digit
		next = b[size+1]
		size++
	} else if value > 15 {
		return 0, 0, 0
	}
	if next == '\r' {
		size++
		next = b[size]
	}
	if next != '\n' {
		return 0, 0, 0
	}
	size++
	if b[size] == '\n' {
		return value, size + 1, 2
	}
	return value, size, 1
}
