package main

import (
	"fmt"
	"strings"

	"github.com/ebpfdump/ebpfdump/internal/capability"
	"github.com/ebpfdump/ebpfdump/internal/privilege"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// privilegeHelp lists for a command's help which capabilities it needs.
func privilegeHelp(command string) string {
	var text strings.Builder
	text.WriteString("Capabilities, which root has:\n")
	for _, r := range privilege.Requirements() {
		if r.Command != command {
			continue
		}
		what := "always"
		if r.Form != "" {
			what = r.Form
		}
		needs := "none"
		if len(r.Needs) > 0 {
			needs = wrapped(r.Needs, 2+26+1)
		}
		fmt.Fprintf(&text, "\n  %-26s %s", what, needs)
	}
	return text.String()
}

// wrapped lists capabilities within the 80 columns of a terminal, from a column on.
func wrapped(needs []capability.Cap, indent int) string {
	names := make([]string, len(needs))
	for i, c := range needs {
		names[i] = c.String()
	}
	lines := terminal.Wrap(strings.Join(names, ", "), 80-indent, 80-indent)
	return strings.Join(lines, "\n"+strings.Repeat(" ", indent))
}
