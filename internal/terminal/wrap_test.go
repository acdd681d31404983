package terminal

import (
	"slices"
	"strings"
	"testing"
)

func TestWrap(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 12)
	for _, test := range []struct {
		text       string
		soft, hard []string
	}{
		{"", []string{""}, []string{""}},
		{"one two  three", []string{"one two", "three"}, []string{"one two", "three"}},
		{"one two " + long + " three", []string{"one two", long, "three"}, []string{"one two", "éééééé", "éééééé", "three"}},
		{long, []string{long}, []string{"éééééééé", "éééé"}},
	} {
		if got := Wrap(test.text, 8, 6); !slices.Equal(got, test.soft) {
			t.Errorf("%q: %q", test.text, got)
		}
		if got := WrapHard(test.text, 8, 6); !slices.Equal(got, test.hard) {
			t.Errorf("%q, breaking words: %q", test.text, got)
		}
	}
}

func TestHang(t *testing.T) {
	t.Parallel()
	path := "/" + strings.Repeat("é", 20)
	for _, test := range []struct {
		line  string
		width int
		want  []string
	}{
		{"", 10, []string{""}},
		{"one  two three", 14, []string{"one  two three"}},
		{"one two three", 0, []string{"one two three"}},
		{"one two three four", 10, []string{"one two", "  three", "  four"}},
		{"  one two three", 10, []string{"  one two", "    three"}},
		{"reads " + path + " now", 10, []string{"reads", "  " + path, "  now"}}, // to be copied
		{"one two", 1, []string{"one", "  two"}},
	} {
		if got := Hang(test.line, test.width); !slices.Equal(got, test.want) {
			t.Errorf("%q in %d: %q", test.line, test.width, got)
		}
	}
}
