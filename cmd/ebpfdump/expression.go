package main

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

const expressionHelp = `
An EXPRESSION at the end, as tcpdump takes it (pcap-filter(7)), chooses what is
recorded: port 80 and host 10.0.0.1. It looks at each packet from the IP header
on, whatever offset 0 of the socket is, and the user view follows the packets.
What the socket gets does not change. A command stands behind it, after --.`

// arguments takes an expression, and a command after --.
func (f *captureFlags) arguments(cmd *cobra.Command, args []string) error {
	words := args
	if at := cmd.ArgsLenAtDash(); at >= 0 {
		if words, f.live.command = args[:at], args[at:]; len(f.live.command) == 0 {
			return usagef("which command? Give it behind --, as in ebpfdump capture -- curl http://127.0.0.1/")
		}
	}
	if len(words) == 0 {
		return nil
	}
	if _, err := exec.LookPath(words[0]); err != nil && f.tlsKeys == commandKeys && !isExpression(strings.Join(words, " ")) {
		return usagef("%q is one argument too many: a key log stands behind =, as in --tls-keys=%s", words[0], shellWords(words[:1]))
	}
	if f.sock == "" && !f.live.wanted(cmd) {
		return loose(cmd, words)
	}
	f.words = words
	return nil
}

// parseExpression parses the expression of the command line.
func (f captureFlags) parseExpression() (*bpf.Expression, error) {
	if len(f.words) == 0 {
		return nil, nil
	}
	e, err := bpf.ParseExpression(strings.Join(f.words, " "))
	if wrong := (*bpf.ExpressionError)(nil); errors.As(err, &wrong) && wrong.Unknown && wrong.At == 0 {
		if _, err := exec.LookPath(f.words[0]); err == nil {
			return nil, usagef("%q is one argument too many: a command to run goes behind --, as in ebpfdump capture -- %s", f.words[0], shellWords(f.words))
		}
		return nil, usagef("%q is one argument too many, and begins no capture filter: %w", wrong.Text[:wrong.End], err)
	}
	if err != nil {
		return nil, usagef("capture filter: %w", err)
	}
	kind, ok := capture.KindByName(f.sock)
	switch {
	case ok && !kind.HasIPPackets():
		return nil, usagef("a capture filter (%s) is about IP packets, and a %s has none", terminal.Plain(e.String()), kind.Summary)
	case f.decode.streams || f.decode.as != "":
		return nil, usagef("a capture filter (%s) is about IP packets, and unix streams have none: leave one of both out", terminal.Plain(e.String()))
	}
	return e, nil
}

// expressionWidth is how much of an expression is shown around what is wrong with it, where there is room for
// that, and expressionIndent what stands before it.
const (
	expressionWidth  = 72
	expressionIndent = "    "
)

// pointing are two lines that show the place of an error in an expression, none for other errors. There are so
// many columns for them, 0 if that is all the same.
func pointing(err error, columns int) []string {
	var wrong *bpf.ExpressionError
	if !errors.As(err, &wrong) {
		return nil
	}
	width := expressionWidth
	if columns > 0 {
		const ellipses = 2 * len("...")
		width = max(min(width, columns-len(expressionIndent)-ellipses), 2)
	}
	before, at, after := terminal.Plain(wrong.Text[:wrong.At]), terminal.Plain(wrong.Text[wrong.At:wrong.End]), terminal.Plain(wrong.Text[wrong.End:])
	if long := len(before) - width/2; long > 0 {
		before = "..." + before[long:]
	}
	if room := max(width-len(before), width/2); len(at) > room {
		at, after = at[:room]+"...", ""
	} else if room -= len(at); len(after) > room {
		after = after[:room] + "..."
	}
	return []string{
		expressionIndent + before + at + after,
		fmt.Sprintf("%s%s^%s", expressionIndent, strings.Repeat(" ", len(before)), strings.Repeat("~", max(len(at)-1, 0))),
	}
}

// unwanted is the term of a ledger for what an expression leaves out.
func (r *reporter) unwanted(c bpf.Counters) string {
	if r.plan.config.Expression == nil && c.Unwanted == 0 {
		return ""
	}
	return fmt.Sprintf(" + %d not wanted", c.Unwanted)
}
