package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// No flag that takes a value takes none, as from a variable that is not set: the command would
// do something else.
func TestEmptyValues(t *testing.T) {
	t.Parallel()
	seen := 0
	for _, cmd := range newApp().rootCommand().Commands() {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.NoOptDefVal == "" {
				names = append(names, f.Name)
			}
		})
		for _, name := range names {
			seen++
			for _, fresh := range newApp().rootCommand().Commands() {
				if fresh.Name() != cmd.Name() {
					continue
				}
				err := fresh.ParseFlags([]string{"--" + name, ""})
				if err == nil {
					err = requireValues(fresh, nil)
				}
				if err == nil || !strings.Contains(err.Error(), "--"+name) {
					t.Errorf("%s --%s '': %v", cmd.Name(), name, err)
				}
			}
		}
	}
	if seen < 40 {
		t.Errorf("only %d flags were tried", seen)
	}
}

func TestProcessNames(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"1":                {"1"},
		"1,nginx":          {"1", "nginx"},
		"1,,":              {"1", "", ""},
		`"a,b",c`:          {"a,b", "c"},
		`a"b`:              {`a"b`},
		" a ":              {" a "},
		"a\x1b[31m\nb\r,c": {"a\x1b[31m\\nb\\r", "c"},
		"":                 nil,
	} {
		var got []string
		if err := (processNames{&got}).Set(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}
