// Package terminal keeps untrusted text from controlling a terminal: names of processes,
// sockets, interfaces and files, comments, payload.
//
// There are two lines of defence. Where untrusted text enters a sentence, Plain escapes
// it, including line breaks, so that it cannot forge a line. And all text on stdout and
// stderr goes through a Writer, which escapes what was forgotten, except for line breaks
// and tabs. The tool's own sequences, such as colours, have separate methods there.
package terminal

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// Plain escapes a text to one printable line: control characters, line breaks, characters
// that change the direction of writing and other invisible ones become \x1b, \n, \u202e
// and so on, and a byte that is not UTF-8 becomes \xff.
//
// Backslashes are not escaped, so the original cannot be restored.
func Plain(s string) string {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return string(AppendPlain(nil, s))
		}
	}
	return s
}

// ASCII is the character that stands for a byte beside a hex dump: itself if it is
// printable ASCII, otherwise a dot.
func ASCII(c byte) byte {
	if c < ' ' || c > '~' {
		return '.'
	}
	return c
}

// AppendPlain appends Plain(s).
func AppendPlain(to []byte, s string) []byte {
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		if size == 1 && r == utf8.RuneError {
			to = appendByte(to, s[0])
		} else {
			to = appendRune(to, r)
		}
		s = s[size:]
	}
	return to
}

func appendByte(to []byte, c byte) []byte {
	return append(to, '\\', 'x', hexDigits[c>>4], hexDigits[c&0xf])
}

func appendRune(to []byte, r rune) []byte {
	switch {
	case unicode.IsPrint(r):
		return utf8.AppendRune(to, r)
	case r == '\n':
		return append(to, `\n`...)
	case r == '\t':
		return append(to, `\t`...)
	case r == '\r':
		return append(to, `\r`...)
	case r < utf8.RuneSelf:
		return appendByte(to, byte(r))
	case r > 0xffff:
		return fmt.Appendf(to, `\U%08x`, r)
	}
	return fmt.Appendf(to, `\u%04x`, r)
}

// Sentences returns the message of an error, with one line for each error that was
// joined. The lines are plain, whatever the error quotes.
func Sentences(err error) []string {
	if parts := joined(err); parts != nil {
		var all []string
		for _, part := range parts {
			all = append(all, Sentences(part)...)
		}
		return all
	}
	text := err.Error()
	// Errors that were joined and then wrapped are one sentence: the line breaks between
	// them come from errors.Join.
	for inner := err; inner != nil; {
		wrapper, ok := inner.(interface{ Unwrap() error })
		if !ok {
			break
		}
		if inner = wrapper.Unwrap(); inner != nil && joined(inner) != nil {
			text = strings.Replace(text, inner.Error(), strings.Join(Sentences(inner), "; "), 1)
			break
		}
	}
	return []string{Plain(text)}
}

// joined returns the errors that errors.Join joined. An error that wraps several in a
// sentence of its own has none.
func joined(err error) []error {
	join, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	var texts []string
	for _, part := range join.Unwrap() {
		texts = append(texts, part.Error())
	}
	if len(texts) == 0 || err.Error() != strings.Join(texts, "\n") {
		return nil
	}
	return join.Unwrap()
}

// Writer prints text on a terminal, or wherever stdout and stderr lead. Everything except
// printable characters, line breaks and tabs is escaped like in Plain.
//
// Several goroutines may use it at once.
type Writer struct {
	mu      sync.Mutex
	to      io.Writer
	colours bool
	columns func() int // of the terminal; nil if it is none
	pending []byte     // the start of a character whose rest is still to come
	buf     []byte
}

// NewWriter returns a Writer that prints to w.
func NewWriter(w io.Writer) *Writer { return &Writer{to: w} }

// NewTerminal returns a Writer that prints to a terminal with so many columns, which may change; 0 if that
// is not known.
func NewTerminal(w io.Writer, columns func() int) *Writer { return &Writer{to: w, columns: columns} }

// Columns is how many columns there are for a line; 0 if it may be as long as it likes.
func (t *Writer) Columns() int {
	if t.columns == nil {
		return 0
	}
	return t.columns()
}

// Coloured returns another Writer to the same destination that lets colours through.
func (t *Writer) Coloured() *Writer { return &Writer{to: t.to, colours: true, columns: t.columns} }

// Write prints text.
func (t *Writer) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.pending) == 0 && shows(p) {
		return t.to.Write(p)
	}
	text := append(t.pending, p...)
	t.buf = t.buf[:0]
	for len(text) > 0 && (utf8.FullRune(text)) {
		r, size := utf8.DecodeRune(text)
		switch {
		case size == 1 && r == utf8.RuneError:
			t.buf = appendByte(t.buf, text[0])
		case r == '\n' || r == '\t':
			t.buf = append(t.buf, byte(r))
		case r == '\x1b' && t.colours && colourAt(text) > 0:
			size = colourAt(text)
			t.buf = append(t.buf, text[:size]...)
		default:
			t.buf = appendRune(t.buf, r)
		}
		text = text[size:]
	}
	t.pending = append([]byte(nil), text...)
	if _, err := t.to.Write(t.buf); err != nil {
		return 0, err
	}
	return len(p), nil
}

// shows tells whether a text needs no escaping, by a fast check.
func shows(p []byte) bool {
	for _, c := range p {
		if (c < ' ' || c > '~') && c != '\n' && c != '\t' {
			return false
		}
	}
	return true
}

// Line prints a line. It stays one line, whatever the arguments contain, but on a terminal, where it is
// broken between words.
func (t *Writer) Line(format string, args ...any) {
	lines := Hang(Plain(fmt.Sprintf(format, args...)), t.Columns())
	_, _ = io.WriteString(t, strings.Join(lines, "\n")+"\n")
}

// Overwrite prints a text over the current line, and leaves the cursor there. What has no room in the line is
// left out, since only one line can be overwritten.
func (t *Writer) Overwrite(text string) {
	text = Plain(text)
	if columns := t.Columns(); columns > 0 && utf8.RuneCountInString(text) >= columns {
		text = string([]rune(text)[:columns-1])
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = io.WriteString(t.to, "\r"+text+"\x1b[K")
}

// Clear clears the current line.
func (t *Writer) Clear() { t.Overwrite("") }

// Raw is the underlying writer, for output that draws by itself and contains no untrusted
// text.
func (t *Writer) Raw() io.Writer { return t.to }

// Colours that a coloured Writer lets through (ECMA-48, select graphic rendition). None
// of them can hide text.
const (
	Reset     = "\x1b[0m"
	Bold      = "\x1b[1m"
	Faint     = "\x1b[2m"
	Red       = "\x1b[31m"
	Green     = "\x1b[32m"
	Yellow    = "\x1b[33m"
	Magenta   = "\x1b[35m"
	Cyan      = "\x1b[36m"
	BoldRed   = "\x1b[1;31m"
	BoldGreen = "\x1b[1;32m"
)

var colours = []string{Reset, Bold, Faint, Red, Green, Yellow, Magenta, Cyan, BoldRed, BoldGreen}

// colourAt is the length of the colour sequence at the start of a text, 0 if there is
// none.
func colourAt(text []byte) int {
	for _, colour := range colours {
		if len(text) >= len(colour) && string(text[:len(colour)]) == colour {
			return len(colour)
		}
	}
	return 0
}
