package explain

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// drawing is a line of bytes, or of a time line.
var drawing = regexp.MustCompile(`^.{13} (   )*[0-9a-f]{2} |[▁▂▃▄▅▆▇█]|^ {13}0s`)

// words are what is said in a text.
func words(text string) []string {
	var said strings.Builder
	for line := range strings.Lines(text) {
		if !drawing.MatchString(line) {
			said.WriteString(line)
		}
	}
	return strings.Fields(said.String())
}

// A narrow terminal has the same words in lines of its width, and no id, address or number is broken.
func TestNarrowText(t *testing.T) {
	t.Parallel()
	all := map[string]*Explanation{"hostile": explained(t, hostile().file(t), Options{Packets: -1})}
	for name, scene := range scenes {
		all[name] = scene(t)
	}
	for name, e := range all {
		wide := text(t, e, false)
		for _, columns := range []int{1, 40, 47, 64, 79, 200} {
			var out strings.Builder
			if err := e.WriteText(&out, false, columns); err != nil {
				t.Fatal(err)
			}
			narrow := out.String()
			room := min(max(columns, 40), 80)
			for line := range strings.Lines(narrow) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > room {
					t.Errorf("%s: %d of %d columns: %s", name, n, columns, line)
				}
			}
			if columns >= Columns {
				equal(t, name, narrow, wide)
			}
			if got, want := words(narrow), words(wide); name != "hostile" && !slices.Equal(got, want) {
				t.Errorf("%s: in %d columns it says\n%q\nand in %d\n%q", name, columns, got, Columns, want)
			}
		}
	}
}

func TestNarrowRows(t *testing.T) {
	t.Parallel()
	e := conversation().explain(t)
	for columns, want := range map[int]int{40: 6, 46: 6, 47: 8, 79: 16, 80: 16} {
		p := printer{columns: columns}
		equal(t, "bytes in a row", p.rowBytes(), want)
		for _, g := range e.packets {
			var wide, narrow []byte
			for _, r := range g.rows(rowBytes) {
				wide = append(wide, r.data...)
			}
			for _, r := range g.rows(want) {
				if r.start+len(r.data) > want {
					t.Errorf("%d bytes from %d on, in a row of %d", len(r.data), r.start, want)
				}
				narrow = append(narrow, r.data...)
			}
			equal(t, "number of bytes", len(narrow), len(wide))
		}
	}
}
