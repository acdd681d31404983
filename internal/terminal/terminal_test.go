package terminal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// hostile has one of everything that a terminal acts on: escape sequences, C1 controls as
// a byte and as a character, line breaks, bidirectional controls, broken UTF-8.
const hostile = "a\x1b]0;t\a\x9b31m\u009b2J\r\nb\u202ec\u2066\u200f\u061c\u2028\x7f\xff\xc3日本 \U000e0041é"

// acts finds a character that no text may contain.
func acts(text, allowed string) (at int) {
	for i, r := range text {
		_, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case strings.ContainsRune(allowed, r):
		case r < ' ', r >= 0x7f && r < 0xa0, r == utf8.RuneError && size == 1,
			r == 0x61c, r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2060 && r <= 0x206f:
			return i
		}
	}
	return -1
}

func TestPlain(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", ""},
		{"nginx: worker", "nginx: worker"},
		{`C:\x1b`, `C:\x1b`},
		{"日本 é", "日本 é"},
		{"\x1b[2J", `\x1b[2J`},
		{"a\nb\tc\rd", `a\nb\tc\rd`},
		{"\x9b1m\u009b1m", `\x9b1m\u009b1m`},
		{"\u202e\u2028\xff", `\u202e\u2028\xff`},
		{"\U000e0041", `\U000e0041`},
		{"cut \xe6\x97", `cut \xe6\x97`},
	} {
		if got := Plain(test.text); got != test.want {
			t.Errorf("%q: got %s, want %s", test.text, got, test.want)
		}
	}
	if at := acts(Plain(hostile), ""); at >= 0 {
		t.Errorf("%q acts at %d", Plain(hostile), at)
	}
	if acts(hostile, "") < 0 {
		t.Error("nothing would be found at all")
	}
}

func TestSentences(t *testing.T) {
	file := &fs.PathError{Op: "open", Path: "x\nebpfdump: all is well\x1b[8m", Err: os.ErrNotExist}
	const open = `open x\nebpfdump: all is well\x1b[8m: file does not exist`
	joined := errors.Join(file, errors.New("second"), errors.Join(errors.New("third")))
	for _, test := range []struct {
		err  error
		want []string
	}{
		{file, []string{open}},
		{fmt.Errorf("reading: %w", file), []string{"reading: " + open}},
		{joined, []string{open, "second", "third"}},
		{fmt.Errorf("closing: %w", joined), []string{"closing: " + open + "; second; third"}},
		{fmt.Errorf("%w, and %w", file, errors.New("b")), []string{open + ", and b"}},
	} {
		if got := Sentences(test.err); !slices.Equal(got, test.want) {
			t.Errorf("got %q\nwant %q", got, test.want)
		}
	}
}

// A Writer prints the same however the text is split into writes.
func TestWriter(t *testing.T) {
	text := "first\tline\n" + hostile + "\x1b[31mred\x1b[8m\n" + Red + "\n"
	for size := 1; size <= len(text); size++ {
		var b bytes.Buffer
		w := NewWriter(&b)
		for piece := range slices.Chunk([]byte(text), size) {
			if n, err := w.Write(piece); n != len(piece) || err != nil {
				t.Fatalf("%d bytes: %d, %v", len(piece), n, err)
			}
		}
		want := strings.ReplaceAll(strings.ReplaceAll(Plain(text), `\n`, "\n"), `\t`, "\t")
		if b.String() != want {
			t.Fatalf("in pieces of %d: got\n%s\nwant\n%s", size, b.String(), want)
		}
		if at := acts(b.String(), "\n\t"); at >= 0 {
			t.Fatalf("%q acts at %d", b.String(), at)
		}
	}
}

func TestWriterColoured(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b).Coloured()
	fmt.Fprint(w, BoldRed+"no"+Reset+"\x1b[8mhidden\x1b[1;31\n\x1b]0;t\a")
	if want := BoldRed + "no" + Reset + `\x1b[8mhidden\x1b[1;31` + "\n" + `\x1b]0;t\x07`; b.String() != want {
		t.Errorf("got %q\nwant %q", b.String(), want)
	}
}

func TestWriterLines(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	w.Line("%s: %d", "x\ny", 1)
	w.Overwrite("half\r\n")
	w.Clear()
	if want := `x\ny: 1` + "\n\r" + `half\r\n` + "\x1b[K\r\x1b[K"; b.String() != want {
		t.Errorf("got %q\nwant %q", b.String(), want)
	}
}

func TestTerminalLines(t *testing.T) {
	var b bytes.Buffer
	columns := 12
	w := NewTerminal(&b, func() int { return columns })
	w.Line("%s: one\nline", "cut at words")
	w.Overwrite("1234567890123")
	columns = 0
	w.Line("as long as it is")
	w.Overwrite("1234567890123")
	columns = 3
	w.Coloured().Line("a b c")
	want := "cut at\n  words:\n  one\\nline\n" + "\r12345678901\x1b[K" + "as long as it is\n" + "\r1234567890123\x1b[K" + "a b\n  c\n"
	if b.String() != want {
		t.Errorf("got %q\nwant %q", b.String(), want)
	}
}

func TestWriteJSON(t *testing.T) {
	valid := strings.ToValidUTF8(hostile, "?")
	for _, indent := range []string{"", "  "} {
		var b bytes.Buffer
		if err := WriteJSON(&b, map[string]string{valid: valid}, indent); err != nil {
			t.Fatal(err)
		}
		if at := acts(b.String(), "\n"); at >= 0 {
			t.Errorf("%q acts at %d", b.String(), at)
		}
		if lines := strings.Count(b.String(), "\n"); indent == "" && lines != 1 {
			t.Errorf("%d lines", lines)
		}
		var back map[string]string
		if err := json.Unmarshal(b.Bytes(), &back); err != nil || back[valid] != valid {
			t.Errorf("%v: got %q\nwant %q", err, back, valid)
		}
	}
}

func FuzzPlain(f *testing.F) {
	f.Add(hostile)
	f.Fuzz(func(t *testing.T, text string) {
		got := Plain(text)
		if at := acts(got, ""); at >= 0 {
			t.Errorf("%q acts at %d", got, at)
		}
		if Plain(got) != got {
			t.Errorf("%q changes again", got)
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	line := []byte("12:00:00.123456789 tcp:kernel 10.0.0.1:52638 > 10.0.0.2:16962 [P.] 43 01234567\n")
	var out bytes.Buffer
	w := NewWriter(&out)
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		out.Reset()
		_, _ = w.Write(line)
	}
}
