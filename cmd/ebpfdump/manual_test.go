package main

import (
	"bytes"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ebpfdump/ebpfdump/internal/manual"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// No line of any --help is wider than a terminal.
func TestHelpWidth(t *testing.T) {
	t.Parallel()
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		var help bytes.Buffer
		cmd.SetOut(&help)
		if err := cmd.Help(); err != nil || help.Len() == 0 {
			t.Errorf("%s: %q, %v", cmd.CommandPath(), help.String(), err)
		}
		for line := range strings.Lines(help.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
				t.Errorf("%s --help has a line of %d columns: %s", cmd.CommandPath(), n, line)
			}
		}
		for _, sub := range cmd.Commands() {
			check(sub)
		}
	}
	check(newApp().rootCommand())
}

// Every page is what mandoc calls clean, has all flags, and fits into 80 columns.
func TestManual(t *testing.T) {
	t.Parallel()
	testutil.RequireTool(t, "mandoc")
	root := newApp().rootCommand()
	for _, cmd := range append([]*cobra.Command{root}, root.Commands()...) {
		if cmd.Hidden {
			continue
		}
		var page bytes.Buffer
		if err := manual.Write(&page, cmd, manual.Edition{Version: "v1.2.3", Date: time.Unix(1_700_000_000, 0)}); err != nil {
			t.Fatal(err)
		}
		name := manual.Name(cmd)
		if said := mandoc(t, page.Bytes(), "-T", "lint", "-W", "style"); said != "" {
			t.Errorf("%s:\n%s", name, said)
		}
		text := overstruck.ReplaceAllString(mandoc(t, page.Bytes(), "-T", "utf8", "-O", "width=80"), "")
		for line := range strings.Lines(text) {
			if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > 80 {
				t.Errorf("%s has a line of more than 80 columns: %s", name, line)
			}
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && !strings.Contains(text, "--"+f.Name) {
				t.Errorf("%s lacks --%s", name, f.Name)
			}
		})
		for _, section := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO"} {
			if !strings.Contains(text, "\n"+section+"\n") {
				t.Errorf("%s lacks the section %s", name, section)
			}
		}
		if strings.Contains(cmd.Long, "Exit status: ") != strings.Contains(text, "\nEXIT STATUS\n") {
			t.Errorf("%s has no section EXIT STATUS, or one too many:\n%s", name, text)
		}
	}
}

// overstruck is what makes a letter bold on a printer.
var overstruck = regexp.MustCompile(".\b")

func mandoc(t *testing.T, page []byte, args ...string) string {
	t.Helper()
	cmd := exec.Command("mandoc", args...)
	cmd.Stdin = bytes.NewReader(page)
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	return string(out)
}
