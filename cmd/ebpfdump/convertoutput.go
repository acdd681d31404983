package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
)

// convertOutput is where converted packets go. Nothing of an older file is
// touched before the first packet.
type convertOutput struct {
	app       *app
	format    *convert.Format
	selection convert.Selection
	describe  func() convert.Section

	mu      sync.Mutex // a signal and the clock come from other goroutines
	file    *outputFile
	writer  convert.PacketWriter // nil before the first packet
	stopped bool
	read    uint64
	counts  []interfaceCount
}

type interfaceCount struct {
	iface   *capture.Interface
	packets uint64
}

var errStopped = errors.New("stopped")

func (o *convertOutput) open(ctx context.Context, name string) (err error) {
	if name != "-" {
		o.file, err = createOutput(ctx, name)
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
	w := o.app.data
	if o.app.stdoutTerminal {
		w = o.app.stdout
	}
	if o.file != nil {
		if err := o.file.Begin(); err != nil {
			return err
		}
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
			o.file.Abort()
			o.file = nil
		}
		return nil
	}
	var err error
	if ng, ok := o.writer.(*convert.Writer); ok {
		for _, s := range statistics {
			err = errors.Join(err, ng.WriteStatistics(s))
		}
	}
	err = errors.Join(err, o.writer.Flush())
	if o.file == nil {
		return err
	}
	if cerr := o.file.Close(); cerr != nil && !errors.Is(cerr, os.ErrClosed) {
		err = errors.Join(err, fmt.Errorf("closing the output: %w", cerr))
	}
	return err
}
