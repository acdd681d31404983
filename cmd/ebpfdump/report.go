package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture"
)

// reporter tells the user on stderr how the capture goes.
type reporter struct {
	app     *app
	plan    capturePlan
	session *capture.Session
	mu      sync.Mutex // lines come from several goroutines
	counter bool       // a counter stands on the terminal's line
}

// printf prints a line of its own.
func (r *reporter) printf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clear()
	fmt.Fprintf(r.app.stderr, format+"\n", args...)
}

// clear takes the counter away.
func (r *reporter) clear() {
	if r.counter {
		fmt.Fprint(r.app.stderr, "\r\x1b[K")
		r.counter = false
	}
}

func (r *reporter) notice(text string) { r.printf("ebpfdump: %s", text) }

// begin says that the tap is in place.
func (r *reporter) begin(session *capture.Session) {
	r.session = session
	config := r.plan.config
	var views []string
	for _, v := range config.Views {
		views = append(views, v.String())
	}
	snaplen := config.Snaplen
	if snaplen == 0 {
		snaplen = bpf.MaxSnaplen
	}
	r.printf("listening on %s %s, views %s, snaplen %d bytes", config.Kind.Name, session.Address(), strings.Join(views, ","), snaplen)
	if r.plan.verbose {
		r.printf("ring of %d bytes, times within %v of the wall clock", session.RingSize(), session.ClockError())
	}
}

// patience is how long the end of a capture may take before the user hears why.
const patience = time.Second

// watch prints the counts once a second on a terminal, and whenever SIGUSR1
// comes, until the capture has ended.
func (r *reporter) watch(ctx context.Context) (stop func()) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGUSR1)
	ended := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		var tick, late <-chan time.Time
		if r.app.stderrTerminal && !r.plan.quiet && r.plan.output != "" {
			ticker := time.NewTicker(time.Second)
			defer ticker.Stop()
			tick = ticker.C
		}
		asks := ctx.Done()
		for {
			select {
			case <-ended:
				return
			case <-asks:
				asks, tick, late = nil, nil, time.After(patience)
			case <-late:
				r.notice("waiting for whoever reads the output; the same signal again gives up")
			case <-asked:
				r.count(r.printf)
			case <-tick:
				r.count(r.overwrite)
			}
		}
	})
	return func() {
		signal.Stop(asked)
		close(ended)
		done.Wait()
	}
}

// overwrite prints over the counter.
func (r *reporter) overwrite(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.app.stderr, "\r"+format+"\x1b[K", args...)
	r.counter = true
}

// count prints how far the capture has come, on less than 80 columns.
func (r *reporter) count(printf func(string, ...any)) {
	c, err := r.session.Counts()
	if err != nil {
		return // the capture itself will say why
	}
	printf("%d packets captured, %d received by userspace, %d dropped by kernel", c.Captured, c.Delivered, c.Tap.Lost())
}

// end finishes the output and prints the closing lines, also after a failure.
func (r *reporter) end(out *captureOutput, failure error) error {
	statistics, err := r.session.Statistics()
	if err == nil {
		err = out.finish(statistics)
	}
	counts, cerr := r.session.Counts()
	if cerr == nil && !r.plan.quiet {
		r.closingLines(counts, statistics)
	}
	switch {
	case failure != nil && errors.Is(err, failure):
		return failure
	case failure != nil || err != nil:
		return firstError(failure, err)
	case r.plan.failOnDrop && counts.Tap.Lost() > 0:
		return lossError{counts.Tap.Lost()}
	}
	return cerr
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *reporter) closingLines(c capture.Counts, statistics []capture.Statistics) {
	r.printf("%d packets captured", c.Captured)
	r.printf("%d packets received by filter", c.Tap.Seen)
	r.printf("%d packets dropped by kernel", c.Tap.Lost())
	r.printf("tap: %d seen = %d recorded + %d ring full + %d load failed",
		c.Tap.Seen, c.Tap.Recorded, c.Tap.RingFull, c.Tap.LoadFailed)
	for _, s := range statistics {
		switch s.Interface.View {
		case capture.ViewKernel:
			r.printf("%s: %d packets, %d cut off by the snaplen", s.Interface.Name(), s.Delivered, c.Tap.Truncated)
		case capture.ViewUser:
			r.printf("%s: %d packets, %d dropped by the receive queue", s.Interface.Name(), s.Delivered, c.QueueDropped)
		default:
			r.printf("%s: %d packets", s.Interface.Name(), s.Delivered)
		}
	}
	if v := r.plan.config.Verdict; v != nil {
		r.printf("filter: %d packets dropped, %d truncated (%s)", c.Tap.Dropped, c.Trimmed, v.Name())
	}
	if c.Unreached > 0 {
		r.printf("%d headers below offset 0 could not be reached by the filter", c.Unreached)
	}
}
