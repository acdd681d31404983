package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
)

// captureOutput is where the packets of a capture go: to a pcapng file, a
// pipe, or as lines to stdout.
type captureOutput struct {
	capture.Flusher
	app  *app
	file *outputFile     // nil for stdout
	ng   *convert.Writer // nil for lines
	live bool            // somebody is watching: a terminal or a pipe
	hex  bool
}

func (a *app) openCapture(ctx context.Context, p capturePlan) (*captureOutput, error) {
	out := &captureOutput{app: a, hex: p.hex}
	switch p.output {
	case "":
		out.live = true
	case "-":
		if a.stdoutTerminal {
			return nil, usagef("pcapng is no text for a terminal: give a file (-o FILE), pipe it on, or leave -o out for lines")
		}
		out.live = true
	default:
		file, err := createOutput(ctx, p.output)
		if err != nil {
			return nil, err
		}
		out.file = file
		info, err := file.Stat()
		out.live = err == nil && info.Mode()&os.ModeNamedPipe != 0
	}
	if p.output != "" {
		// Until begin there is nothing to flush.
		out.ng = new(convert.Writer)
	}
	return out, nil
}

// begin writes what stands at the beginning of the output. The tap is in place.
func (out *captureOutput) begin(s session) error {
	if out.ng == nil {
		out.Flusher = newLines(out.app.stdout, out.hex)
		return nil
	}
	w := out.app.data
	if out.file != nil {
		if err := out.file.Begin(); err != nil {
			return err
		}
		out.file.created = false // from now on it holds packets
		w = out.file
	}
	ng, err := convert.NewWriter(w, section(out.app.commandLine()))
	if err != nil {
		return err
	}
	out.ng, out.Flusher = ng, ng
	// One interface may wait for its first packet; several go first, because
	// reordercap stops at a file that has them later.
	if all := s.Interfaces(); len(all) > 1 {
		for _, i := range all {
			if err := ng.AddInterface(i); err != nil {
				return err
			}
		}
	}
	return ng.Flush()
}

// finish writes what stands at the end of the output.
func (out *captureOutput) finish(statistics []capture.Statistics) error {
	if out.ng != nil {
		for _, s := range statistics {
			if err := out.ng.WriteStatistics(s); err != nil {
				return err
			}
		}
	}
	return out.Flush()
}

// close gives up the file. After a failure before begin, nothing is left of it.
func (out *captureOutput) close(failure error) error {
	if out.file == nil {
		return nil
	}
	if failure != nil && out.file.created {
		out.file.Abort()
		return nil
	}
	if err := out.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("closing the output: %w", err)
	}
	return nil
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

// lines prints packets on stdout, some at a time.
type lines struct {
	*convert.LineWriter
	buffer *bufio.Writer
}

func newLines(w io.Writer, hex bool) lines {
	buffer := bufio.NewWriterSize(w, bpf.MaxSnaplen)
	return lines{convert.NewLineWriter(buffer, convert.LineOptions{Hex: hex}), buffer}
}

func (l lines) Flush() error { return l.buffer.Flush() }
