package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// reporter prints the progress of a capture on stderr.
type reporter struct {
	app     *app
	plan    capturePlan
	session capture.Capture
	mu      sync.Mutex // lines come from several goroutines
	counter bool       // the terminal's current line shows the counter
	// stopped: Wireshark, which shows all that is said, has ended the capture.
	stopped atomic.Bool
}

// printf prints a line, replacing the counter.
func (r *reporter) printf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clear()
	r.app.stderr.Line(format, args...)
}

// clear removes the counter.
func (r *reporter) clear() {
	if r.counter {
		r.app.stderr.Clear()
		r.counter = false
	}
}

func (r *reporter) notice(text string) {
	if !r.stopped.Load() {
		r.printf("ebpfdump: %s", text)
	}
}

// begin says that the tap is attached.
func (r *reporter) begin(from source) {
	r.session = from.Capture
	if r.app.quiet {
		return
	}
	var views []string
	for _, v := range r.plan.config.Views {
		views = append(views, v.String())
	}
	filter := ""
	if e := r.plan.config.Expression; e != nil {
		filter = ", filter " + terminal.Plain(e.String())
	}
	r.printf("listening on %s, views %s, snaplen %s%s", from.on, strings.Join(views, ","), counted(uint64(r.plan.snaplenBytes()), "byte"), filter)
	const shown = 8
	for _, s := range from.sockets[:min(len(from.sockets), shown)] {
		r.printf("  %s", s)
	}
	if more := len(from.sockets) - shown; more > 0 {
		r.printf("  and %s more", counted(uint64(more), "socket"))
	}
	if r.plan.verbose {
		r.printf("ring of %d bytes, times within %v of the wall clock", from.RingSize(), from.ClockError())
	}
}

// slowEnd is how long the end of a capture may take before the user is told why.
const slowEnd = time.Second

// watch prints the counts once a second on a terminal, and at each SIGUSR1, until the
// capture ends.
func (r *reporter) watch(ctx context.Context) (stop func()) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGUSR1)
	ended := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		var tick, late <-chan time.Time
		if r.app.stderrTerminal && !r.plan.quiet && r.plan.output.text != "" {
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
				asks, tick, late = nil, nil, time.After(slowEnd)
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
	r.app.stderr.Overwrite(fmt.Sprintf(format, args...))
	r.counter = true
}

// count prints the counts so far, in less than 80 columns.
func (r *reporter) count(printf func(string, ...any)) {
	c, err := r.session.Counts()
	if err != nil {
		return // the capture itself will report the error
	}
	printf("%s captured, %d received by userspace, %d dropped by kernel", counted(r.captured(c), "packet"), c.Delivered, c.Tap.Lost())
}

// end finishes the output and prints the closing lines, even after a failure.
func (r *reporter) end(out *captureOutput, failure error) error {
	statistics, serr := r.session.Statistics()
	// What was captured is written even if the statistics are not available.
	err := firstError(out.End(failure, statistics...), serr)
	if out.selection != nil {
		r.app.leftOut(out.selection)
	}
	counts, cerr := r.session.Counts()
	if cerr == nil && !r.plan.quiet {
		r.closingLines(counts, statistics)
		if out.series != nil {
			r.printf("%s", out.series)
			r.beyond(out, statistics)
		}
		if out.keys != nil {
			r.printf("%s", out.keys)
		}
		if out.Failure() != nil {
			r.unwritten(written(out.recordedFile), statistics)
		}
	}
	switch {
	case failure != nil && errors.Is(err, failure):
		return failure
	case failure != nil || err != nil:
		return firstError(failure, err)
	case r.plan.failOnDrop && counts.Lost() > 0:
		return lossError{counts.Lost()}
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

// interfaceLines prints a line for each interface name, which several sockets of a
// process can share, and one for the account of each kind that has one. The packets cut
// off by the snaplen are only counted in total: of several kinds they have a line of their own.
func (r *reporter) interfaceLines(c capture.Counts, statistics []capture.Statistics) {
	var all []*nameSum
	byName := make(map[string]*nameSum)
	kinds, named := make(map[string]bool), make(map[capture.View]int)
	for _, s := range statistics {
		sum := byName[s.Interface.Name()]
		if sum == nil {
			sum = &nameSum{name: s.Interface.Name(), view: s.Interface.View, impossible: isImpossible(s.Interface)}
			byName[sum.name] = sum
			all = append(all, sum)
			named[sum.view]++
		}
		sum.add(&s)
		kinds[s.Interface.Kind] = true
	}
	cut := fmt.Sprintf("%d cut off by the snaplen", c.Tap.Truncated)
	for _, sum := range all {
		switch {
		case sum.impossible && sum.packets == 0 && r.plan.views == allViews:
		case sum.view == capture.ViewKernel && len(kinds) == 1 && named[sum.view] == 1:
			r.printf("%s: %s, %s", sum.name, counted(sum.packets, "packet"), cut)
		case sum.account != nil:
			before := ""
			if n := sum.account.Unseen; n > 0 {
				before = fmt.Sprintf(", %d dropped before the filter ran", n)
				if sum.account.Untapped {
					before = fmt.Sprintf(", %d dropped that the tap did not see", n)
				}
			}
			r.printf("%s: %s, %d dropped by the receive queue%s", sum.name, counted(sum.packets, "packet"), sum.account.Queue, before)
		case sum.view == capture.ViewCgroup && named[sum.view] == 1:
			r.printf("%s: %s, %d received and %d sent", sum.name, counted(sum.packets, "packet"), c.Hooked-c.Departed, c.Departed)
		case sum.view == capture.ViewDrop && len(sum.reasons.Counts) > 0:
			r.printf("%s: %s, %s", sum.name, counted(sum.packets, "packet"), &sum.reasons)
		case sum.view == capture.ViewWire && named[sum.view] == 1:
			r.printf("%s: %s, %d received and %d sent", sum.name, counted(sum.packets, "frame"), c.Framed-c.FramedSent, c.FramedSent)
		case sum.view == capture.ViewUser || sum.view == capture.ViewSent:
			r.printf("%s: %s, %s", sum.name, counted(sum.packets, "packet"), counted(sum.bytes, "byte"))
		default:
			r.printf("%s: %s", sum.name, counted(sum.packets, "packet"))
		}
	}
	if (named[capture.ViewKernel] > 1 || len(kinds) > 1) && (c.Tap.Truncated > 0 || r.plan.verbose) {
		r.printf("of all: %s", cut)
	}
	for _, sum := range all {
		if sum.account != nil {
			r.printf("%s", sum.account)
		}
	}
}

// nameSum adds up the interfaces with one name.
type nameSum struct {
	name           string
	view           capture.View
	packets, bytes uint64
	account        *capture.Account // nil for streams, and for views other than user
	reasons        capture.DropReasons
	impossible     bool // no packet can be there
}

func (n *nameSum) add(s *capture.Statistics) {
	n.packets += s.Delivered
	n.bytes += s.Bytes
	if s.Reasons != nil {
		n.reasons.Add(s.Reasons)
	}
	if s.Account == nil {
		return
	}
	if n.account == nil {
		n.account = new(capture.Account)
	}
	n.account.Add(s.Account)
}

// beyond says how many packets came after the last file of a series was full.
func (r *reporter) beyond(out *captureOutput, statistics []capture.Statistics) {
	var captured uint64
	for _, s := range statistics {
		captured += s.Delivered
	}
	if in := out.Written(); out.full && captured > in {
		r.printf("the last file is full: what came after that, %s in all views together, is in none", counted(captured-in, "packet"))
	}
}

// unwritten says how much of the capture is missing in an output that failed.
func (r *reporter) unwritten(written uint64, statistics []capture.Statistics) {
	var captured uint64
	for _, s := range statistics {
		captured += s.Delivered
	}
	r.printf("%s written of %d captured, all views together: the output has failed", counted(written, "packet"), captured)
}

// beside is what a view has that the three lines which are as tcpdump's do not count: they are about packets
// that came in.
type beside struct {
	view capture.View
	// what is captured, in the plural and by number, and how much was lost.
	what, captured, lost string
	complete             bool
}

// besides lists what there is beside the packets that came in, of the views that there are.
func (r *reporter) besides(c capture.Counts) (all []beside) {
	add := func(v capture.View, what, captured string, lost uint64, missing string) {
		if slices.Contains(r.plan.config.Views, v) {
			all = append(all, beside{v, what, captured, missing, lost == 0})
		}
	}
	number := func(n uint64) string { return fmt.Sprint(n) }
	add(capture.ViewCgroup, "packets that were sent are", number(c.Departed), c.Egress.Lost(), number(c.Egress.Lost()))
	add(capture.ViewDrop, "packets that the kernel dropped by itself are", number(c.Freed), c.Drops.Lost(), number(c.Drops.Lost()))
	add(capture.ViewWire, "frames on interfaces are", number(c.Framed), c.Wire.Lost(), number(c.Wire.Lost()))
	add(capture.ViewSent, "what was sent is", counted(c.Sent, "call"), c.Sends.Lost(), counted(c.Sends.Lost(), "piece"))
	return all
}

// notAmongThem says what the first three lines do not count: with -v or after losses a line for each view, and
// otherwise one for all.
func (r *reporter) notAmongThem(c capture.Counts) {
	if n := c.Calls.Lost(); n > 0 {
		r.printf("what calls returned is not among them: %s lost", counted(n, "piece"))
	}
	if c.Tap.Seen == 0 && c.Delivered > 0 && r.ofTheKernel(c) {
		r.printf("what userspace got without a filter that sees it is not among them: %s", counted(c.Delivered, "packet"))
	}
	var whole []string
	for _, b := range r.besides(c) {
		if b.complete && !r.plan.verbose {
			whole = append(whole, b.view.String())
			continue
		}
		r.printf("%s not among them: %s captured, %s lost", b.what, b.captured, b.lost)
	}
	if len(whole) > 0 {
		r.printf("what only %s not among them, and nothing of it is lost", viewsHave(whole))
	}
	if n := r.plan.packets; n > 0 && c.Captured >= n && slices.Contains(r.plan.config.Views, capture.ViewSent) {
		r.printf("the capture has ended with %s that came in (-c): what was sent does not count", counted(n, "packet"))
	}
}

// viewsHave is such as "the views wire and sent have is".
func viewsHave(names []string) string {
	if len(names) == 1 {
		return "the view " + names[0] + " has is"
	}
	return "the views " + enumerated(names) + " have is"
}

// enumerated is such as "wire, cgroup and sent".
func enumerated(names []string) string {
	last := len(names) - 1
	if last <= 0 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

// missingViews says which views are not in the file, of which kinds of socket, since no packet could be there.
func (r *reporter) missingViews(statistics []capture.Statistics) {
	if _, own := capture.KindByName(r.plan.sock); own || r.plan.views != allViews {
		return // which has been said
	}
	var said []string
	seen := make(map[string]bool)
	for _, s := range statistics {
		kind, ok := capture.KindByName(s.Interface.Kind)
		if !ok || seen[kind.Name] {
			continue
		}
		seen[kind.Name] = true
		if views := viewsWithout(kind); len(views) > 0 {
			said = append(said, fmt.Sprintf("%s of %s", enumerated(views), kind.Name))
		}
	}
	if len(said) > 0 {
		r.printf("--view all leaves out the views that have nothing of such a socket: %s", strings.Join(said, "; "))
	}
}

// ofTheKernel tells whether a view has what the tap has recorded, or what arrived at the cgroup hooks.
func (r *reporter) ofTheKernel(c capture.Counts) bool {
	return r.tapped(c) || slices.Contains(r.plan.config.Views, capture.ViewCgroup)
}

// tapped tells whether a view has what the tap has recorded. The cgroup view does unless the sockets
// have the tap as well.
func (r *reporter) tapped(c capture.Counts) bool {
	return slices.ContainsFunc(r.plan.config.Views, func(v capture.View) bool {
		return v == capture.ViewKernel || v == capture.ViewNet || v == capture.ViewLink || v == capture.ViewCgroup && c.Ingress.Seen == 0
	})
}

// captured is how many packets that came in are in the output: in the views of the kernel once, or else
// those that userspace got.
func (r *reporter) captured(c capture.Counts) uint64 {
	switch {
	case r.tapped(c):
		return c.Captured
	case r.ofTheKernel(c):
		return c.Hooked - c.Departed
	case slices.Contains(r.plan.config.Views, capture.ViewUser):
		return c.Delivered
	}
	return 0
}

// ledger prints how a view's packets add up: of the kernel view always, and of others with -v, after
// losses, and where not all were wanted. after of those that were recorded came after the last packet that was
// asked for, and none is in a view if hidden is set.
func (r *reporter) ledger(view string, c bpf.Counters, after uint64, hidden bool, more string) {
	if view != capture.ViewKernel.String() && c.Lost() == 0 && c.Unwanted == 0 && !r.plan.verbose {
		return
	}
	recorded, others := c.Recorded-min(after, c.Recorded), ""
	if hidden && recorded > 0 {
		recorded, others = 0, fmt.Sprintf(" + %d for the other views, without a view of the kernel", recorded)
	}
	if after > 0 {
		others += fmt.Sprintf(" + %d after the last packet that was asked for", after)
	}
	r.printf("%s: %d seen = %d recorded%s%s + %d ring full + %d load failed%s", view, c.Seen, recorded, others, r.unwanted(c), c.RingFull, c.LoadFailed, more)
}

// ledgers prints those of the views. That of what arrives at the cgroup hooks is the kernel view's unless
// sockets have the tap as well.
func (r *reporter) ledgers(c capture.Counts) {
	has := func(v capture.View) bool { return slices.Contains(r.plan.config.Views, v) }
	r.ledger(capture.ViewKernel.String(), c.Tap, c.After.Tap, !r.tapped(c), "")
	if has(capture.ViewWire) {
		r.ledger(capture.ViewWire.String(), c.Wire, c.After.Wire, false, "")
	}
	if has(capture.ViewCgroup) {
		if c.Ingress.Seen > 0 {
			r.ledger(capture.ViewCgroup.String()+", received", c.Ingress, c.After.Ingress, false, "")
		}
		r.ledger(capture.ViewCgroup.String()+", sent", c.Egress, c.After.Egress, false, "")
	}
	if has(capture.ViewDrop) {
		ordinary := ""
		if c.Ordinary > 0 {
			ordinary = fmt.Sprintf("; %d were no drops, as far as the kernel tells", c.Ordinary)
		}
		r.ledger(capture.ViewDrop.String(), c.Drops, c.After.Drops, false, ordinary)
		if c.DropsMissed > 0 {
			r.printf("of %d packets that it freed, of all sockets, the kernel did not tell", c.DropsMissed)
		}
	}
	if r.plan.config.Selection != nil && has(capture.ViewSelect) {
		r.ledger(capture.ViewSelect.String(), c.Select, c.After.Select, false, "")
	}
}

func (r *reporter) closingLines(c capture.Counts, statistics []capture.Statistics) {
	r.printf("%s captured", counted(r.captured(c), "packet"))
	r.printf("%s received by filter", counted(c.Tap.Seen, "packet"))
	r.printf("%s dropped by kernel", counted(c.Tap.Lost(), "packet"))
	r.notAmongThem(c)
	r.ledgers(c)
	r.interfaceLines(c, statistics)
	if v := r.plan.config.Verdict; v != nil {
		of := ""
		if r.plan.config.Expression != nil {
			of = " of those that are wanted"
		}
		r.printf("filter: %s dropped, %d%s truncated (%s)", counted(c.Tap.Dropped, "packet"), c.Trimmed, of, v.Name())
	}
	r.uncounted(c.Empty, "call", "returned an error or the end of a connection", capture.ViewUser)
	r.uncounted(c.Failed, "send", "failed", capture.ViewSent)
	r.liveLines(c)
	r.missingViews(statistics)
	if c.Unreached > 0 {
		r.printf("%s below offset 0 could not be reached by the filter", counted(c.Unreached, "header"))
	}
	if c.NotIP > 0 {
		r.printf("neither IPv4 nor IPv6, and so not in the view net: %s", counted(c.NotIP, "packet"))
	}
}

// uncounted says what is in a view, and not in the count of its packets.
func (r *reporter) uncounted(n uint64, noun, did string, in capture.View) {
	they := "they are"
	if n == 1 {
		they = "it is"
	}
	if n > 0 {
		r.printf("%s %s: %s in the %s view, and not in its count", counted(n, noun), did, they, in)
	}
}
