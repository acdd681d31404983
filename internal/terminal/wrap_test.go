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
