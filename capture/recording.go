package capture

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// Capture is what a *Session of a socket and a *Live of the sockets of other processes have in
// common.
type Capture interface {
	// Run hands packets to the sink until the context ends or the capture does. It can be
	// called once.
	Run(ctx context.Context, sink Sink) error
	// Interfaces lists the interfaces that are known so far. Their descriptions of sockets may
	// change while Run runs: then only its Sink may call this and read them.
	Interfaces() []*Interface
	// Counts reads the current counters.
	Counts() (Counts, error)
	// Unwanted is how many packets the Expression has left out of a view so far.
	Unwanted(View) (uint64, error)
	// Statistics is the ledger of each interface, after Run.
	Statistics() ([]Statistics, error)
	// ClockError bounds the error of packet times against the wall clock.
	ClockError() time.Duration
	// RingSize is the size of each ring in bytes.
	RingSize() int
	// Close releases everything that the capture holds. It is safe to call it twice.
	Close() error
}

var (
	_ Capture = (*Session)(nil)
	_ Capture = (*Live)(nil)
)

// recording is what every capture consists of: a tap, the collector that reads it, and the
// counts of both.
type recording struct {
	views     []View
	notice    func(string)
	tap       *bpf.Tap
	hook      *bpf.Hook     // nil if nothing is recorded at the cgroup hooks
	drops     *bpf.Drops    // nil without ViewDrop
	flows     *bpf.Flows    // of the drops, which the wire view may have; nil without
	calls     *bpf.Calls    // nil if the calls of other processes are not followed
	wire      *wire         // nil if nobody wants to see the interfaces
	selector  *bpf.Selector // nil if no program chooses among the sockets
	collector *collector
	started   int64 // on the boot clock
	untapped  bool  // no account can balance: another filter replaces the tap, or deliveries are not known
	ran       atomic.Bool
}

// mayRun checks whether Run may begin: once, and with a sink.
func (r *recording) mayRun(sink Sink) error {
	if sink == nil {
		return errors.New("Run needs a Sink to hand packets to")
	}
	if r.ran.Swap(true) {
		return errors.New("this capture has run: open another one")
	}
	return nil
}

// Counts reads the current counters.
func (r *recording) Counts() (Counts, error) { return r.ledger().counts() }

// Statistics is the ledger of each interface, after Run.
func (r *recording) Statistics() ([]Statistics, error) { return r.ledger().statistics() }

// ClockError bounds the error of packet times against the wall clock.
func (r *recording) ClockError() time.Duration { return time.Duration(r.collector.clock.bound) }

// RingSize is the size of each ring in bytes.
func (r *recording) RingSize() int { return r.tap.RingSize() }

func (r *recording) ledger() *ledger {
	return &ledger{
		collector: r.collector, views: r.views, outlets: r.collector.origin.outlets(),
		started: r.started, tap: r.tap, hook: r.hook, drops: r.drops, calls: r.calls, wire: r.wire, selector: r.selector, untapped: r.untapped,
	}
}

// checkClock reports if the wall clock was set meanwhile.
func (r *recording) checkClock() error {
	step, err := r.collector.clock.stepped()
	if err == nil && step != 0 {
		r.notice(fmt.Sprintf("the wall clock was set by %v during the capture: the times are those of the clock at its start", step))
	}
	return err
}
