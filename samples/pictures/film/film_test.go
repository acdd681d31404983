package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// TestRecord films a shell: what it answers, and what is to be seen at the end.
func TestRecord(t *testing.T) {
	testutil.RequireTool(t, "bash")
	recorded, err := record("/bin/true", []scene{
		{[]string{`printf '\033[1;32mgreen\033[0m  %s\tλ\n' "<a>" \`, "    more"}, time.Second},
		{[]string{"stty size"}, time.Second},
	})
	if err != nil {
		t.Fatal(err)
	}
	shown := pace(recorded)
	var s screen
	for _, o := range shown {
		if err := s.write(o.at, o.text); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		`$ printf '\033[1;32mgreen\033[0m  %s\tλ\n' "<a>" \`, ">     more",
		"green  <a>      λ", "green  more     λ",
		"$ stty size", "36 80", "$ ",
	}
	if got := s.lines(); !slices.Equal(got, want) {
		t.Errorf("the screen shows %q, want %q", got, want)
	}
	if !slices.ContainsFunc(s.pieces, func(p piece) bool { return p.text == "green" && p.look == look{bold: true, colour: 2} }) {
		t.Errorf("nothing is green and bold: %v", s.pieces)
	}
	if !slices.IsSortedFunc(shown, func(a, b output) int { return int(a.at - b.at) }) || end(shown) < 2*time.Second {
		t.Errorf("the order of time is wrong: %v", shown)
	}
	film := string(drawing(&s, end(shown)))
	wellFormed(t, film)
	if !strings.Contains(film, ">&lt;a&gt;<") {
		t.Error("the film lacks what the shell printed")
	}
}

// TestScroll: of a long film the end stands still.
func TestScroll(t *testing.T) {
	var s screen
	for i := range 100 {
		if err := s.write(time.Duration(i)*time.Second, "line\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	if film := string(drawing(&s, time.Minute*2)); !strings.Contains(film, `<g class="page" transform="translate(0,-1105)">`) {
		t.Errorf("the last %d of 101 rows are not those that are shown", rows)
	}
}

// TestForeign: what a screen of this kind cannot show is no film.
func TestForeign(t *testing.T) {
	for _, text := range []string{"\x1b[2J", "\x1b[5;5H", "\x1b]0;title\a 0123456789", "\x1b[38;5;1m"} {
		if err := new(screen).write(0, text); err == nil {
			t.Errorf("%q is shown", text)
		}
	}
}

// TestFilmOfReadme: the film that is there is one of these commands. make pictures makes it anew.
func TestFilmOfReadme(t *testing.T) {
	b, err := os.ReadFile("../../film.svg")
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 200<<10 {
		t.Errorf("it has %d bytes", len(b))
	}
	text := wellFormed(t, string(b))
	for _, s := range scenes {
		for _, line := range s.lines {
			if typed := strings.ReplaceAll(line, " ", ""); !strings.Contains(text, typed) {
				t.Errorf("nobody types %q: make pictures", line)
			}
		}
	}
	for _, answer := range []string{"5 packets captured", "All payload reached userspace.", "303132333435363738390a", "end of stream"} {
		if !strings.Contains(text, answer) {
			t.Errorf("nothing answers %q", answer)
		}
	}
}

// wellFormed returns the text of an SVG.
func wellFormed(t *testing.T, picture string) (text string) {
	t.Helper()
	var all strings.Builder
	inside := false
	for d := xml.NewDecoder(strings.NewReader(picture)); ; {
		token, err := d.Token()
		switch {
		case errors.Is(err, io.EOF):
			return all.String()
		case err != nil:
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			inside = token.Name.Local == "text"
		case xml.EndElement:
			inside = false
		case xml.CharData:
			if inside {
				all.Write(token)
			}
		}
	}
}
