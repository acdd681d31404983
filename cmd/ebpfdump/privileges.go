package main

import (
	"fmt"
	"strings"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/privilege"
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
		fmt.Fprintf(&text, "\n  %-26s %s", what, wrapped(r.Needs, 2+26+1))
	}
	return text.String()
}

// wrapped lists capabilities within the 80 columns of a terminal.
func wrapped(needs []bpf.Capability, indent int) string {
	var text strings.Builder
	column := indent
	for i, c := range needs {
		word := c.String()
		if i < len(needs)-1 {
			word += ","
		}
		switch {
		case i == 0:
		case column+1+len(word) > 80:
			text.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			text.WriteByte(' ')
			column++
		}
		text.WriteString(word)
		column += len(word)
	}
	return text.String()
}
