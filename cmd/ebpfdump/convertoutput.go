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
	describe  func() convert.Section

	mu      sync.Mutex           // a signal and the clock come from other goroutines
	stdout  io.Writer            // for data, if there is no file
	file    *outfile.File        // nil for stdout
	writer  convert.PacketWriter // nil before the first packet
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
	if name == "-" {
		o.stdout, err = o.app.files.Stdout(o.app.stdout)
	} else {
		o.file, err = o.app.files.Create(ctx, name)
	}
	return err
}

// WritePacket writes a packet if it is selected.
func (o *convertOutput) WritePacket(p *capture.Packet) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopped {
		return errStopped
	}
	o.read++
	if !o.selection.Takes(p) {
		return nil
	}
	if o.writer == nil {
		if err := o.begin(); err != nil {
			return err
		}
	}
	if err := o.writer.WritePacket(p); err != nil {
		return err
	}
	o.count(p.Interface)
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

func (o *convertOutput) begin() error {
	w := o.stdout
	if o.file != nil {
		w = o.file
	}
	writer, err := o.format.Create(w, convert.WriteOptions{Section: o.describe()})
	o.writer = writer
	return err
}

// end is called when the inputs ended well.
func (o *convertOutput) end() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writer != nil || o.stopped {
		return nil
	}
	if o.read > 0 {
		return fmt.Errorf("none of the %d packets is of a view that was asked for", o.read)
	}
	return o.begin() // a capture without packets is a capture
}

// Flush hands on what was written so far.
func (o *convertOutput) Flush() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writer == nil || o.stopped {
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
func (o *convertOutput) finish(statistics []capture.Statistics, failure error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stopped = true
	if o.writer == nil || failure != nil && len(o.counts) == 0 {
		if o.file != nil {
			return o.file.Finish(errUnwritten)
		}
		return nil
	}
	var err error
	if ng, ok := o.writer.(*convert.Writer); ok {
		for _, s := range statistics {
			err = firstError(err, ng.WriteStatistics(s))
		}
	}
	err = firstError(err, o.writer.Flush())
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
