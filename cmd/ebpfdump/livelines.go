package main

import (
	"os"
	"os/signal"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/ebpfdump/ebpfdump/convert"
)

// showsColours tells whether stdout is a terminal whose user wants colours.
func (a *app) showsColours() bool {
	return a.stdoutTerminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// checkJSON refuses what does not go with JSON on stdout.
func (f *captureFlags) checkJSON() error {
	switch {
	case !f.json:
		return nil
	case f.hex:
		return usagef("--json has the bytes of each packet as data: leave -x out")
	case f.output.text == "-":
		return usagef("--json and -o - both want stdout: leave -o out for JSON, or --json for pcapng")
	case f.output.text != "" && !f.print:
		return usagef("--json prints on stdout: give the file a name that ends in .json, or add --print")
	}
	return nil
}

// printed is stdout, with a line or a JSON object for each packet.
func (a *app) printed(p *capturePlan) (*convert.File, error) {
	stdout, err := a.results()
	if err != nil {
		return nil, err
	}
	if p.json {
		form, _ := convert.FormatByName("json")
		return convert.NewStream(stdout, form), nil
	}
	o := convert.LineOptions{Hex: p.hex, Colours: a.showsColours()}
	if a.stdoutTerminal {
		o.Terminal = terminalColumns(os.Stdout)
	}
	return convert.NewStream(coloured(stdout, o.Colours), convert.Lines(o)), nil
}

// terminalColumns returns how wide a terminal is. It is asked again when it has changed, and not for
// each packet.
func terminalColumns(terminal *os.File) func() int {
	var columns atomic.Int32
	ask := func() {
		if wide, _, err := term.GetSize(int(terminal.Fd())); err == nil {
			columns.Store(int32(min(wide, 1<<20)))
		}
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	go func() {
		for range changed {
			ask()
		}
	}()
	ask()
	return func() int { return int(columns.Load()) }
}
