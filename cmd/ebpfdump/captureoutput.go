package main

import (
	"context"
	"io"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
	"github.com/ebpfdump/ebpfdump/internal/confine"
	"github.com/ebpfdump/ebpfdump/internal/outfile"
)

// captureOutput is where the packets of a capture go: to a pcapng file, a
// pipe, or as lines to stdout.
type captureOutput struct {
	packets capture.Flusher
	app     *app
	stdout  io.Writer       // for data
	file    *outfile.File   // nil for stdout
	ng      *convert.Writer // nil for lines
	live    bool            // somebody is watching: a terminal or a pipe
	hex     bool
	// held: nothing is written before the first packet, since the command may turn
	// out not to run.
	held bool
	// failure is the first error of the output itself.
	failure error
}

func (a *app) openCapture(ctx context.Context, p capturePlan) (out *captureOutput, err error) {
	a.files.Reads(p.filter.files()...)
	out = &captureOutput{app: a, hex: p.hex}
	if len(p.live.command) > 0 {
		a.files.Reads("-") // the command has it
	}
	switch p.output {
	case "":
		out.live = true
		out.stdout, err = a.results()
	case "-":
		if a.stdoutTerminal {
			return nil, usagef("pcapng is no text for a terminal: give a file (-o FILE), pipe it on, or leave -o out for lines")
		}
		out.live = true
		out.stdout, err = a.files.Stdout(a.data)
	default:
		if len(p.live.command) > 0 {
			// What the command prints must not come between the packets.
			if _, err := a.files.Stdout(a.data); err != nil {
				return nil, err
			}
		}
		if out.file, err = a.files.Create(ctx, p.output); err == nil {
			out.live = out.file.Pipe()
		}
	}
	return out, err
}

// begin writes what stands at the beginning of the output. The tap is in place.
func (out *captureOutput) begin(from source, lines bool) error {
	if lines {
		out.packets = newLines(out.stdout, out.hex)
		return nil
	}
	w := out.stdout
	if out.file != nil {
		w = out.file
	}
	ng, err := convert.NewWriter(w, section(out.app.commandLine()))
	if err != nil {
		return err
	}
	out.ng, out.packets = ng, ng
	// One interface may wait for its first packet; several go first, because
	// reordercap stops at a file that has them later.
	if all := from.Interfaces(); len(all) > 1 {
		for _, i := range all {
			if err := ng.AddInterface(i); err != nil {
				return err
			}
		}
	}
	if from.command && out.file != nil && !out.live {
		out.held = true
		return out.file.Reserve(ng.Buffered())
	}
	return out.Flush()
}

// capabilities are those that the output still needs: what is held may have to be
// removed.
func (out *captureOutput) capabilities() []int {
	if folder, isNew := out.file.New(); isNew && out.held {
		return confine.NeedsToRemoveFrom(folder)
	}
	return nil
}

// WritePacket writes a packet.
func (out *captureOutput) WritePacket(p *capture.Packet) error {
	out.held = false
	return out.failed(out.packets.WritePacket(p))
}

// Flush hands on what was written so far, and looks whether it is still there.
func (out *captureOutput) Flush() error {
	if out.held {
		return nil
	}
	err := out.packets.Flush()
	if err == nil && out.file != nil {
		err = out.file.Check()
	}
	return out.failed(err)
}

func (out *captureOutput) failed(err error) error {
	if out.failure == nil {
		out.failure = err
	}
	return err
}

// finish writes what stands at the end of the output.
func (out *captureOutput) finish(statistics []capture.Statistics, failure error) error {
	if failure != nil && out.held {
		return nil
	}
	out.held = false
	if out.ng != nil {
		for _, s := range statistics {
			if err := out.ng.WriteStatistics(s); err != nil {
				return out.failed(err)
			}
		}
	}
	if err := out.Flush(); err != nil || out.file == nil {
		return err
	}
	return out.failed(out.file.Finish(nil))
}

// close gives up the file. After a failure before begin, nothing is left of it.
func (out *captureOutput) close(failure error) error {
	if out.file == nil {
		return nil
	}
	return out.file.Finish(failure)
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
	w       io.Writer
	buffer  []byte
	ends    []int // of packets in the buffer
	written uint64
	err     error
}

func newLines(w io.Writer, hex bool) *lines {
	l := &lines{w: w}
	l.LineWriter = convert.NewLineWriter(l, convert.LineOptions{Hex: hex})
	return l
}

// Write takes the lines of one packet.
func (l *lines) Write(b []byte) (int, error) {
	if len(l.buffer)+len(b) > bpf.MaxSnaplen {
		if err := l.Flush(); err != nil {
			return 0, err
		}
	}
	l.buffer = append(l.buffer, b...)
	l.ends = append(l.ends, len(l.buffer))
	return len(b), l.err
}

// Flush prints what waits.
func (l *lines) Flush() error {
	if l.err != nil || len(l.buffer) == 0 {
		return l.err
	}
	n, err := l.w.Write(l.buffer)
	l.err = err
	for _, end := range l.ends {
		if end <= n {
			l.written++
		}
	}
	l.buffer, l.ends = l.buffer[:0], l.ends[:0]
	return err
}

// Written is how many packets were printed.
func (l *lines) Written() uint64 { return l.written }
