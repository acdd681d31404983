package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
	"github.com/ebpfdump/ebpfdump/internal/confine"
	"github.com/ebpfdump/ebpfdump/internal/outfile"
)

// recordedFile is a convert.File, or a convert.Series of them.
type recordedFile interface {
	convert.PacketWriter
	Begin(o convert.WriteOptions) error
	Begun() bool
	Held() bool
	Release() error
	End(failure error, statistics ...capture.Statistics) error
	Failure() error
}

var (
	_ recordedFile = (*convert.File)(nil)
	_ recordedFile = (*convert.Series)(nil)

	_ capture.Waker = (*captureOutput)(nil)
)

// captureOutput is the destination of a capture's packets: a file, a pipe, or lines on
// stdout.
type captureOutput struct {
	recordedFile
	app  *app
	file *outfile.File // nil for stdout; the first one of a series
	live bool          // a terminal or a pipe, where packets should appear at once
	to   io.Writer     // what file or stdout is
	// selection chooses what a form with room for one view takes; nil for others.
	selection *convert.Selection
	series    *fileSeries // nil for one file
	held      heldPackets
	keys      *tlsKeys      // nil without --tls-keys
	processes *processes    // nil without --process-info
	lines     *convert.File // beside a file, a line or an object for each packet; nil if nobody wants them
	// interfaces are those of the capture.
	interfaces func() []*capture.Interface
	unwanted   func(capture.View) (uint64, error) // what its expression has left out
	begun      []sockets                          // whose interfaces the file begins with
	framed     *capture.Interface                 // of the last frame
	// unread is called when nobody reads the output any more; nil if that is all the same.
	unread func()
	full   bool // the last file of a series
	// all: nobody has named the views, and those are left out in which nothing can be.
	all bool
}

func (a *app) openCapture(ctx context.Context, p capturePlan) (*captureOutput, error) {
	a.files.Reads(append(p.filter.files(), p.reuseport.files()...)...)
	if !p.quiet {
		a.noteTables(p.config.Verdict)
	}
	if len(p.live.command) > 0 {
		a.files.Reads("-") // the command inherits it
	}
	out := &captureOutput{app: a, keys: p.keys, processes: p.processes, all: p.views == allViews}
	switch p.output.text {
	case "":
		lines, err := a.printed(&p)
		if err != nil {
			return nil, err
		}
		out.live, out.to = true, a.data
		out.recordedFile = lines
	case "-":
		if a.stdoutTerminal {
			return nil, usagef("pcapng is no text for a terminal: give a file (-o FILE), pipe it on, or leave -o out for lines")
		}
		stdout, err := a.files.Stdout(a.data)
		if err != nil {
			return nil, err
		}
		out.live, out.to = true, a.data
		if p.series.compression == nil {
			out.recordedFile = convert.NewStream(stdout, convert.Pcapng())
			break
		}
		to, err := p.series.compression.CompressStream(stdout)
		if err != nil {
			return nil, err
		}
		out.recordedFile = convert.NewFile(to, convert.Pcapng())
	default:
		if len(p.live.command) > 0 && !p.print {
			// The output of the command, which inherits stdout, must not mix with the packets.
			if _, err := a.files.Stdout(a.data); err != nil {
				return nil, err
			}
		}
		if err := out.openFile(ctx, p); err != nil {
			return nil, err
		}
		if p.print {
			lines, err := a.printed(&p)
			if err != nil {
				return nil, err
			}
			out.live, out.lines = true, lines
		}
		if p.form.OneView {
			out.selection = &convert.Selection{Views: p.config.Views, Format: p.form}
		}
	}
	return out, nil
}

// openFile opens the output that has a name, or the first one of a series.
func (out *captureOutput) openFile(ctx context.Context, p capturePlan) error {
	if p.series.several {
		return out.openSeries(ctx, p)
	}
	file, err := out.app.files.Create(ctx, p.output.text)
	if err != nil {
		return err
	}
	out.file, out.live, out.to = file, file.Pipe(), file
	var to convert.Target = file
	if p.series.compression != nil {
		if to, err = p.series.compression.Compress(file); err != nil {
			return err
		}
	}
	out.recordedFile = convert.NewFile(to, p.form)
	return nil
}

// WritePacket implements capture.Sink.
func (out *captureOutput) WritePacket(p *capture.Packet) error {
	if out.selection != nil && !out.selection.Takes(p) {
		return nil
	}
	if out.lines != nil {
		if err := out.lines.WritePacket(p); err != nil {
			return err
		}
	}
	if err := out.describeProcess(p); err != nil {
		return err
	}
	if i := p.Interface; i.View == capture.ViewWire && i != out.framed {
		out.framed = i
		if err := out.announceBeside(i); err != nil {
			return err
		}
	}
	if out.keys != nil {
		out.held.add(p)
		return out.writeWithKeys(time.Unix(0, p.Time).Add(-keyDelay))
	}
	return out.recordedFile.WritePacket(p)
}

// announceBeside writes the interfaces of the same sockets before a frame, of which nothing may have come to the
// filter yet: who reads the file must know then that there is one.
func (out *captureOutput) announceBeside(frames *capture.Interface) error {
	if out.selection != nil || slices.Contains(out.begun, socketsOf(frames)) {
		return nil
	}
	out.begun = append(out.begun, socketsOf(frames))
	for _, i := range out.possible() {
		if i.View != capture.ViewWire && socketsOf(i) == socketsOf(frames) {
			if err := out.AddInterface(i); err != nil {
				return err
			}
		}
	}
	return nil
}

// Flush writes what is buffered.
func (out *captureOutput) Flush() error {
	var err error
	if out.lines != nil {
		err = out.lines.Flush()
	}
	err = errors.Join(err, out.describeProcesses())
	return errors.Join(err, out.writeWithKeys(time.Now().Add(-keyDelay)), out.recordedFile.Flush())
}

// Wakes is when it wants to be flushed although nothing comes.
func (out *captureOutput) Wakes() time.Time {
	if series, several := out.recordedFile.(*convert.Series); several {
		return series.Wakes()
	}
	return time.Time{}
}

// possible are the interfaces of the capture in which something may be.
func (out *captureOutput) possible() []*capture.Interface {
	return slices.DeleteFunc(out.interfaces(), func(i *capture.Interface) bool { return out.all && isImpossible(i) })
}

// begin writes the start of the output, once the tap is attached.
func (out *captureOutput) begin(from source) error {
	out.interfaces, out.unwanted = from.Interfaces, from.Unwanted
	if out.lines != nil {
		if err := out.lines.Begin(convert.WriteOptions{}); err != nil {
			return err
		}
	}
	if err := out.Begin(convert.WriteOptions{Section: section(out.app.commandLine())}); err != nil {
		return err
	}
	if out.selection != nil && !from.oneLink {
		return nil // only the first packet tells what its header has
	}
	// Who opens the file while nothing has come yet finds a capture without packets.
	for _, i := range out.possible() {
		out.begun = append(out.begun, socketsOf(i))
		if i.View == capture.ViewWire {
			continue // the first frame tells on which interface of the machine
		}
		if err := out.AddInterface(i); err != nil {
			return err
		}
	}
	// The command may fail to start, which must leave an older file untouched.
	if from.command && out.file != nil && !out.live {
		from.whenStarted(func() { _ = out.Release() }) // the next write returns the same error
		return out.file.Reserve(out.Buffered())
	}
	return out.Release()
}

// End finishes the output, with the statistics of all interfaces. A view that was recorded and had
// nothing of a socket is in the file as well, if another view of the socket is: otherwise nobody
// could tell it from one that was not asked for.
func (out *captureOutput) End(failure error, statistics ...capture.Statistics) error {
	out.processes.close()
	_ = out.describeProcesses() // the next write returns the same error
	if out.Begun() {
		_ = out.writeWithKeys(time.Unix(0, math.MaxInt64)) // the next write returns the same error
	}
	seen := make(map[sockets]bool)
	for _, begun := range out.begun {
		seen[begun] = true
	}
	for _, s := range statistics {
		seen[socketsOf(s.Interface)] = seen[socketsOf(s.Interface)] || s.Written > 0
	}
	for _, s := range statistics {
		if seen[socketsOf(s.Interface)] && out.Begun() && out.selection == nil && !(out.all && isImpossible(s.Interface)) {
			_ = out.AddInterface(s.Interface) // the next write returns the same error
		}
	}
	var err error
	if out.lines != nil {
		err = out.lines.End(failure)
	}
	return errors.Join(err, out.recordedFile.End(failure, statistics...))
}

// sockets are those whose views are interfaces.
type sockets struct{ kind, process, which string }

func socketsOf(i *capture.Interface) sockets { return sockets{i.Kind, i.Process, i.Sockets} }

// isImpossible tells whether no packet of an interface's sockets can be in its view.
func isImpossible(i *capture.Interface) bool {
	kind, ok := capture.KindByName(i.Kind)
	return ok && !kind.Shows(i.View)
}

// capabilities are those that the output still needs: a file held back may have to be
// removed.
func (out *captureOutput) capabilities() []int {
	if out.series != nil {
		return out.series.capabilities()
	}
	if folder, isNew := out.file.New(); isNew && out.Held() {
		return confine.NeedsToRemoveFrom(folder)
	}
	return nil
}

// whileRead runs a capture until it ends, or nobody reads the output any more, which is an error.
func (out *captureOutput) whileRead(ctx context.Context, run func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	unread := fmt.Errorf("writing capture: nobody reads it any more: %w", unix.EPIPE)
	defer outfile.AwaitUnread(out.to, func() {
		if out.unread != nil {
			out.unread()
		}
		cancel(unread)
	})()
	err := run(ctx)
	if errors.Is(err, convert.ErrSeriesEnded) {
		out.full = true
		return nil
	}
	if err == nil && errors.Is(context.Cause(ctx), unread) {
		return unread
	}
	return err
}

// written is the number of packets in an output, whether it failed or not.
func written(f recordedFile) uint64 {
	if changed := (*outfile.ChangedError)(nil); errors.As(f.Failure(), &changed) {
		return 0 // the content of the file is unknown now
	}
	return f.Written()
}

// section describes this machine and this program for the file.
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
