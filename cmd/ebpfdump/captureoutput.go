package main

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/convert"
	"github.com/ebpfdump/ebpfdump/internal/confine"
	"github.com/ebpfdump/ebpfdump/internal/outfile"
)

// captureOutput is where the packets of a capture go: to a pcapng file, a
// pipe, or as lines to stdout.
type captureOutput struct {
	*convert.File
	app  *app
	file *outfile.File // nil for stdout
	live bool          // somebody is watching: a terminal or a pipe
}

func (a *app) openCapture(ctx context.Context, p capturePlan) (*captureOutput, error) {
	a.files.Reads(p.filter.files()...)
	if len(p.live.command) > 0 {
		a.files.Reads("-") // the command has it
	}
	out := &captureOutput{app: a}
	switch p.output {
	case "":
		stdout, err := a.results()
		if err != nil {
			return nil, err
		}
		out.live = true
		out.File = convert.NewStream(stdout, convert.Lines(convert.LineOptions{Hex: p.hex}))
	case "-":
		if a.stdoutTerminal {
			return nil, usagef("pcapng is no text for a terminal: give a file (-o FILE), pipe it on, or leave -o out for lines")
		}
		stdout, err := a.files.Stdout(a.data)
		if err != nil {
			return nil, err
		}
		out.live = true
		out.File = convert.NewStream(stdout, convert.Pcapng())
	default:
		if len(p.live.command) > 0 {
			// What the command prints must not come between the packets.
			if _, err := a.files.Stdout(a.data); err != nil {
				return nil, err
			}
		}
		file, err := a.files.Create(ctx, p.output)
		if err != nil {
			return nil, err
		}
		out.file, out.live = file, file.Pipe()
		out.File = convert.NewFile(file, convert.Pcapng())
	}
	return out, nil
}

// begin writes what stands at the beginning of the output. The tap is in place.
func (out *captureOutput) begin(from source) error {
	if err := out.Begin(convert.WriteOptions{Section: section(out.app.commandLine())}); err != nil {
		return err
	}
	// One interface may wait for its first packet; several go first, because
	// reordercap stops at a file that has them later.
	if all := from.Interfaces(); len(all) > 1 {
		for _, i := range all {
			if err := out.AddInterface(i); err != nil {
				return err
			}
		}
	}
	// A command may turn out not to run.
	if from.command && out.file != nil && !out.live {
		return out.file.Reserve(out.Buffered())
	}
	return out.Release()
}

// capabilities are those that the output still needs: what is held may have to be
// removed.
func (out *captureOutput) capabilities() []int {
	if folder, isNew := out.file.New(); isNew && out.Held() {
		return confine.NeedsToRemoveFrom(folder)
	}
	return nil
}

// written is how many packets an output has, after it failed or not.
func written(f *convert.File) uint64 {
	if changed := (*outfile.ChangedError)(nil); errors.As(f.Failure(), &changed) {
		return 0 // nobody knows what is in the file now
	}
	return f.Written()
}

// section describes this machine and this program.
func section(comment string) convert.Section {
	var name unix.Utsname
	_ = unix.Uname(&name)
	return convert.Section{
		Hardware:    unix.ByteSliceToString(name.Machine[:]),
		OS:          unix.ByteSliceToString(name.Sysname[:]) + " " + unix.ByteSliceToString(name.Release[:]),
		Application: "ebpfdump " + version(),
		Comment:     comment,
	}
}
