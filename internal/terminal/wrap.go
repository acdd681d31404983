package terminal

import "strings"

// Wrap breaks a text at its spaces into lines of at most width columns. The first line
// may have another width, such as the space after a label. A word longer than a line
// gets a line of its own, so that a path can still be copied.
func Wrap(text string, first, width int) []string { return wrap(text, first, width, false) }

// WrapHard is Wrap, but breaks words longer than a line: for texts that others chose.
func WrapHard(text string, first, width int) []string { return wrap(text, first, width, true) }

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
