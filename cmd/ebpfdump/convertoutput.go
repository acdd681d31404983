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

// convertOutput is where converted packets go. Nothing of an older file is
// touched before the first packet.
type convertOutput struct {
	app       *app
	format    *convert.Format
	selection convert.Selection
	describe  func() convert.WriteOptions

	mu      sync.Mutex      // a signal and the clock come from other goroutines
	stdout  io.Writer       // for data, if there is no file
	file    *outfile.File   // nil for stdout
	writer  *convert.Copier // nil before the first item
	stopped bool
	read    uint64
	counts  []interfaceCount
	failure error // of the output itself, at the end
}

type interfaceCount struct {
	iface   *capture.Interface
	packets uint64
}

var (
	errStopped = errors.New("stopped")
	// errUnwritten is why a file that was opened is not written.
	errUnwritten = errors.New("nothing to write")
)

func (o *convertOutput) open(ctx context.Context, name string) (err error) {
	if name == "-" && o.app.stdoutTerminal {
		o.stdout, err = o.app.results() // other forms than text are refused there
	} else if name == "-" {
		o.stdout, err = o.app.files.Stdout(o.app.data)
	} else {
		o.file, err = o.app.files.Create(ctx, name)
	}
	return err
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
	if o.writer == nil {
		if err := o.begin(); err != nil {
			return err
		}
	}
	if err := o.writer.WriteItem(item); err != nil {
		return err
	}
	if item.Packet != nil {
		o.count(item.Packet.Interface)
	}
	return nil
}

func (o *convertOutput) count(i *capture.Interface) {
	for n := range o.counts {
		if o.counts[n].iface == i {
			o.counts[n].packets++
			return
		}
	}
	o.counts = append(o.counts, interfaceCount{i, 1})
}

func (o *convertOutput) begin() (err error) {
	w := o.stdout
	if o.file != nil {
		w = o.file
	}
	o.writer, err = o.format.Copy(w, o.describe())
	return err
}

// end is called when the inputs ended well.
func (o *convertOutput) end() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.counts) > 0 || o.stopped {
		return nil
	}
	if o.read > 0 {
		return fmt.Errorf("none of the %d packets is of a view that was asked for", o.read)
	}
	if o.writer != nil {
		return nil
	}
	return o.begin() // a capture without packets is a capture
}

// Flush hands on what was written so far.
func (o *convertOutput) Flush() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writer == nil || o.stopped || len(o.counts) == 0 {
		return nil
	}
	return o.writer.Flush()
}

// stop takes no more packets.
func (o *convertOutput) stop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stopped = true
}

// finish completes the output. After a failure before the first packet, nothing
// is left of it.
func (o *convertOutput) finish(failure error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stopped = true
	if o.writer == nil || failure != nil && len(o.counts) == 0 {
		if o.file != nil {
			return o.file.Finish(errUnwritten)
		}
		return nil
	}
	err := o.writer.Flush()
	if o.file != nil {
		err = errors.Join(err, o.file.Finish(err))
	}
	o.failure = err
	return err
}

// written is how many packets an output has, after it failed or not.
func written(w any, failure error) uint64 {
	if changed := (*outfile.ChangedError)(nil); errors.As(failure, &changed) {
		return 0 // nobody knows what is in the file now
	}
	if counts, ok := w.(interface{ Written() uint64 }); ok {
		return counts.Written()
	}
	return 0
}
