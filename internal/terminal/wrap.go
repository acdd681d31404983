package terminal

import (
	"strings"
	"unicode/utf8"
)

// Wrap breaks a text at its spaces into lines of at most width columns. The first line
// may have another width, such as the space after a label. A word longer than a line
// gets a line of its own, so that a path can still be copied.
func Wrap(text string, first, width int) []string { return wrap(text, first, width, false) }

// WrapHard is Wrap, but breaks words longer than a line: for texts that others chose.
func WrapHard(text string, first, width int) []string { return wrap(text, first, width, true) }

// Hang is Wrap for a line that may be set in: further lines are set in by two columns more. A line that
// fits stays as it is, and so does any where the width is not known (0).
func Hang(line string, width int) []string {
	if width <= 0 || utf8.RuneCountInString(line) <= width {
		return []string{line}
	}
	text := strings.TrimLeft(line, " ")
	first := len(line) - len(text)
	further := first + 2
	lines := Wrap(text, width-first, width-further)
	for i := range lines {
		lines[i] = strings.Repeat(" ", first) + lines[i]
		first = further
	}
	return lines
}

func wrap(text string, first, width int, hard bool) []string {
	var lines []string
	line, room := []rune(nil), first
	for word := range strings.FieldsSeq(text) {
		rest := []rune(word)
		if len(line) > 0 && len(line)+1+len(rest) > room {
			lines = append(lines, string(line))
			line, room = nil, width
		}
		if len(line) > 0 {
			line = append(line, ' ')
		}
		for hard && len(rest) > room-len(line) {
			n := room - len(line)
			lines = append(lines, string(append(line, rest[:n]...)))
			line, room, rest = nil, width, rest[n:]
		}
		line = append(line, rest...)
	}
	return append(lines, string(line))
}
