package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// A shell takes a command line apart into the words that it was made of, and it is one line.
func TestShellWords(t *testing.T) {
	t.Parallel()
	words := []string{"true\nfalse", "it's\t\\n", "\x1b[31mé", "", "a b", "$HOME", "it's", "\x019"}
	line := shellWords(words)
	if strings.ContainsAny(line, "\n\t\x1b") {
		t.Errorf("control characters in %q", line)
	}
	out, err := exec.CommandContext(t.Context(), "bash", "-c", `printf '%s\0' `+line).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"); !slices.Equal(got, words) {
		t.Errorf("%s is %q, want %q", line, got, words)
	}
}
