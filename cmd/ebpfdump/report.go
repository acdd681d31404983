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
	address := session.Addr().String()
	if session.Addr().Port() == 0 {
		address = fmt.Sprintf("%s protocol %d", session.Addr().Addr(), config.Protocol)
	}
	snaplen := config.Snaplen
	if snaplen == 0 {
		snaplen = bpf.MaxSnaplen
	}
	r.printf("listening on %s %s, views %s, snaplen %d bytes", config.Kind.Name, address, strings.Join(views, ","), snaplen)
	if r.plan.verbose {
		r.printf("ring of %d bytes, times within %v of the wall clock", session.RingSize(), session.ClockError())
	}
}

// watch prints the counts once a second on a terminal, and whenever SIGUSR1 comes.
func (r *reporter) watch(ctx context.Context) (stop func()) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGUSR1)
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		var tick <-chan time.Time
		if r.app.stderrTerminal && !r.plan.quiet && r.plan.output != "" {
			ticker := time.NewTicker(time.Second)
			defer ticker.Stop()
			tick = ticker.C
		}
		for {
			select {
			case <-ctx.Done():
				return
			case <-asked:
				r.count(r.printf)
			case <-tick:
				r.count(r.overwrite)
			}
		}
	})
	return func() {
		signal.Stop(asked)
		cancel()
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
	for _, s := range statistics {
		switch s.Interface.View {
		case capture.ViewKernel:
			r.printf("%s: %d packets; %d seen = %d recorded + %d ring full + %d load failed; %d truncated",
				s.Interface.Name(), s.Delivered, c.Tap.Seen, c.Tap.Recorded, c.Tap.RingFull, c.Tap.LoadFailed, c.Tap.Truncated)
		case capture.ViewUser:
			r.printf("%s: %d packets; %d dropped by the receive queue", s.Interface.Name(), s.Delivered, c.QueueDropped)
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
