package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
	"github.com/ebpfdump/ebpfdump/internal/outfile"
)

// convertOutput is the destination of converted packets. An older file is untouched
// before the first packet.
type convertOutput struct {
	app       *app
	format    *convert.Format
	selection convert.Selection
	describe  func() convert.WriteOptions

	mu       sync.Mutex    // signals and the timer run in other goroutines
	target   *outfile.File // nil for stdout
	file     *convert.File
	stopped  bool
	read     uint64
	headless uint64 // that the file leaves out
	counts   []interfaceCount
}

type interfaceCount struct {
	iface   *capture.Interface
	packets uint64
}

var errStopped = errors.New("stopped")

func (o *convertOutput) open(ctx context.Context, name string) error {
	if name != "-" {
		target, err := o.app.files.Create(ctx, name)
		if err != nil {
			return err
		}
		var to convert.Target = target
		if _, compression := convert.CutCompression(name); compression != nil {
			if to, err = compression.Compress(target); err != nil {
				return err
			}
		}
		o.target, o.file = target, convert.NewFile(to, o.format)
		return nil
	}
	stdout, err := o.stdout()
	o.file = convert.NewStream(stdout, o.format)
	return err
}

// stdout is what - stands for. Formats other than text are refused on a terminal.
func (o *convertOutput) stdout() (io.Writer, error) {
	if o.app.stdoutTerminal {
		return o.app.results()
	}
	return o.app.files.Stdout(o.app.data)
}

// WriteItem writes an item if it is selected.
func (o *convertOutput) WriteItem(item *convert.Item) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopped {
		return errStopped
	}
	if item.Packet != nil {
		o.read++
	}
	if !o.selection.TakesItem(item) {
		return nil
	}
	if !o.file.Begun() {
		if err := o.file.Begin(o.describe()); err != nil {
			return err
		}
	}
	if err := o.file.WriteItem(item); err != nil {
		return err
	}
	if item.Packet != nil && o.file.LeavesOut(item.Packet) {
		o.headless++
	} else if item.Packet != nil {
		o.count(item.Packet.Interface)
	}
	return nil
}

func (o *convertOutput) count(i *capture.Interface) {
	for n := range o.counts {
		if known := o.counts[n].iface; known == i || known.Name() == i.Name() {
			o.counts[n].packets++
			return
		}
	}
	o.counts = append(o.counts, interfaceCount{i, 1})
}

// end is called when the inputs ended without an error.
func (o *convertOutput) end() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.counts) > 0 || o.stopped {
		return nil
	}
	if len(o.selection.LeftOut()) > 0 {
		return fmt.Errorf("%s has no room for any of the packets", o.format.Name)
	}
	if o.headless > 0 {
		return errors.New("no packet has the header of its link type, and Wireshark refuses files without it")
	}
	if o.read > 0 && len(o.selection.Interfaces) > 0 {
		return fmt.Errorf("none of the %s is of an interface that was asked for: there are %s", counted(o.read, "packet"), listedInterfaces(o.selection.Sources...))
	}
	if o.read > 0 {
		if o.read == 1 {
			return errors.New("the one packet is of no view that was asked for")
		}
		return fmt.Errorf("none of the %d packets is of a view that was asked for", o.read)
	}
	if o.file.Begun() {
		return nil
	}
	return o.file.Begin(o.describe()) // a capture without packets is a valid file
}

// Flush writes what is buffered.
func (o *convertOutput) Flush() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopped {
		return nil
	}
	return o.file.Flush()
}

// stop refuses further packets.
func (o *convertOutput) stop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stopped = true
}

// finish completes the output. After a failure before the first packet, no file remains.
func (o *convertOutput) finish(failure error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stopped = true
	return o.file.End(failure)
}
