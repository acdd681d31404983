package capture

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/pair"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// OwnFilter is what a capture knows of a filter that sockets of a followed process have of their
// own, and what it decided.
type OwnFilter struct {
	// Filter says which one it is, such as "eBPF filter 12 (allow), loaded 2026-11-26 08:06:48 by
	// uid 0" or "classic filter of 4 instructions".
	Filter string
	// Instructions are those of a classic filter that is not long, as iptables and ip take them:
	// their number, and code, jt, jf and k of each.
	Instructions string
	// Wrapped says that it ran inside the tap, at least for some packets: then what it decided is
	// known.
	Wrapped bool
	// Asked says that it was asked afterwards what it had decided on each packet. If not, Reason
	// says why.
	Asked  bool
	Reason string
	// Packets counts the packets of sockets with this filter that were recorded before it ran.
	// Of them Unasked are those that it could not be asked about, Dropped those that it drops and
	// Trimmed those of which it keeps a part.
	Packets, Unasked, Dropped, Trimmed uint64
	// Belied counts the packets of which the process got something else than the answer.
	Belied uint64
}

const (
	// filtersLimit bounds the filters that are remembered, and askersLimit those of them that
	// are held to be asked.
	filtersLimit, askersLimit = 1024, 64
	// shownInstructions is up to how many instructions of a classic filter are listed.
	shownInstructions = 64
)

// ownFilters is the register of the filters that sockets have of their own. The scanner enters
// those that it finds, the collector those that it is told of; mu guards it, and is not held during
// a system call. Askers belong to the collector's goroutine.
type ownFilters struct {
	mu     sync.RWMutex
	known  map[uint64]*ownFilter // by key
	all    []*ownFilter          // in the order in which they were found
	askers int
	// changed tells of a filter that came, or went, after the first packets.
	changed func(string)
	// unwrapped tells of a socket whose filter does not run inside the tap; nil if none does. It
	// is called once for each, as long as sought has room.
	unwrapped func(cookie uint64)
	sought    map[uint64]struct{}
}

type ownFilter struct {
	words  string
	listed string     // instructions
	asker  *bpf.Asker // nil if it is not asked
	reason string     // why not

	wrapped                                    atomic.Bool
	packets, unasked, dropped, trimmed, belied atomic.Uint64
}

func newOwnFilters(changed func(string)) *ownFilters {
	return &ownFilters{known: make(map[uint64]*ownFilter), changed: changed}
}

// enter enters a filter, and prepares to ask it. It may be called again for one that is known.
func (o *ownFilters) enter(f *bpf.OwnFilter) *ownFilter {
	key := f.Key()
	o.mu.RLock()
	known, full, askers := o.known[key], len(o.all) >= filtersLimit, o.askers
	o.mu.RUnlock()
	if known != nil || key == 0 || full {
		return known
	}
	own := &ownFilter{words: describeFilter(f), listed: instructionsText(f.Classic)}
	var err error
	if askers >= askersLimit {
		own.reason = fmt.Sprintf("%d others are asked", askersLimit)
	} else if own.asker, err = bpf.OpenAsker(f); err != nil {
		own.asker, own.reason = nil, reasonOf(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if known := o.known[key]; known != nil { // the other one was faster
		if own.asker != nil {
			own.asker.Close()
		}
		return known
	}
	if own.asker != nil {
		o.askers++
	}
	o.known[key] = own
	o.all = append(o.all, own)
	return own
}

// reasonOf is why a filter is not asked.
func reasonOf(err error) string {
	if why := (*bpf.UnaskedError)(nil); errors.As(err, &why) {
		return why.Reason
	}
	return err.Error()
}

// of finds a filter by its key, nil if there is none or it is not known.
func (o *ownFilters) of(key uint64) *ownFilter {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.known[key]
}

// soughtLimit bounds the sockets that are remembered because somebody looks for them.
const soughtLimit = 1 << 12

// seek has the filter of a socket run inside the tap.
func (o *ownFilters) seek(cookie uint64) {
	if _, sought := o.sought[cookie]; sought || cookie == 0 {
		return
	}
	if len(o.sought) >= soughtLimit || o.sought == nil {
		o.sought = make(map[uint64]struct{})
	}
	o.sought[cookie] = struct{}{}
	o.unwrapped(cookie)
}

// answer asks the filter about a packet that was just recorded. asked is false if it cannot be.
func (f *ownFilter) answer(rec *bpf.Record) (verdict int32, asked bool) {
	f.packets.Add(1)
	verdict = rec.Verdict
	switch {
	case rec.Family == 0: // it has run inside the tap
	case f.asker == nil:
		return verdict, false
	case rec.Caplen == rec.Len: // it may look at what the snaplen cuts off
		if verdict, asked = f.asker.Ask(rec.Data, contextOf(rec)); asked {
			break
		}
		fallthrough
	default:
		f.unasked.Add(1)
		return rec.Verdict, false
	}
	switch {
	case verdict == 0:
		f.dropped.Add(1)
	case trims(verdict, rec.Len):
		f.trimmed.Add(1)
	}
	return verdict, asked
}

// contextOf is what a filter sees of a recorded packet besides its bytes.
func contextOf(rec *bpf.Record) bpf.Context {
	m := metaOf(rec)
	return bpf.Context{
		Protocol: fromNetworkOrder(rec.Protocol), Known: true,
		VLANProto: m.VLANProto, VLANTCI: m.VLANTCI, Mark: m.Mark, Priority: m.Priority,
		GSOSize: m.GSOSize, GSOSegs: m.GSOSegs, Hash: m.Hash, Queue: m.Queue,
	}
}

// list lists what is known of each filter.
func (o *ownFilters) list() []OwnFilter {
	o.mu.RLock()
	defer o.mu.RUnlock()
	var all []OwnFilter
	for _, f := range o.all {
		all = append(all, OwnFilter{
			Filter: f.words, Instructions: f.listed, Wrapped: f.wrapped.Load(), Asked: f.reason == "", Reason: f.reason,
			Packets: f.packets.Load(), Unasked: f.unasked.Load(), Dropped: f.dropped.Load(), Trimmed: f.trimmed.Load(),
			Belied: f.belied.Load(),
		})
	}
	return all
}

// close lets go of all filters, and keeps what is known of them.
func (o *ownFilters) close() (errs []error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, f := range o.all {
		if f.asker != nil {
			errs = append(errs, f.asker.Close())
			f.asker = nil
		}
	}
	return errs
}

// describeFilter says in words which filter it is.
func describeFilter(f *bpf.OwnFilter) string {
	if f.Program.ID != 0 {
		words := fmt.Sprintf("eBPF filter %d", f.Program.ID)
		if f.Program.Name != "" {
			words += " (" + terminal.Plain(f.Program.Name) + ")"
		}
		return fmt.Sprintf("%s, loaded %s by uid %d", words, loadedAt(f.Program.Loaded).Format(time.DateTime), f.UID)
	}
	n := len(f.Classic)
	words := fmt.Sprintf("classic filter of %d instructions", n)
	if n == 1 {
		words = "classic filter of 1 instruction"
	}
	return words
}

func instructionsText(program []unix.SockFilter) string {
	if len(program) == 0 || len(program) > shownInstructions {
		return ""
	}
	var b strings.Builder
	fmt.Fprint(&b, len(program))
	for _, ins := range program {
		fmt.Fprintf(&b, ",%d %d %d %d", ins.Code, ins.Jt, ins.Jf, ins.K)
	}
	return b.String()
}

// loadedAt is the time of the wall clock at a time of the boot clock.
func loadedAt(boot int64) time.Time { return time.Now().Add(time.Duration(boot - bootNow())) }

// announced enters a filter that the hook tells of.
func (c *collector) announced(rec *bpf.Record) {
	c.lostBefore(rec)
	if f, err := rec.Announced(); err == nil && c.filters != nil {
		c.filters.enter(&f)
	}
}

// ownFilter finds the filter that a packet's socket had of its own, nil if it had none, and notes
// it for the description of the interfaces.
func (c *collector) ownFilter(r *route, rec *bpf.Record) *ownFilter {
	if c.filters == nil {
		return nil
	}
	own := c.filters.of(rec.Filter)
	if own != nil && rec.Family != 0 && c.filters.unwrapped != nil {
		c.filters.seek(rec.Cookie)
	}
	if rec.Filter != r.outlet.filter {
		r.outlet.changes(rec.Filter, own, r.cookie == 0, c.filters.changed)
	}
	return own
}

// belied counts an answer that was wrong.
func (c *collector) belied(r *route, m *pair.Match) {
	if own := c.filters.of(m.Filter); own != nil {
		own.belied.Add(1)
	}
	if m.Denied && r.outlet.tally.filtered > 0 {
		r.outlet.tally.filtered--
	}
}

// InsideTap ends the Filter of an interface whose sockets have the filter inside the tap.
const InsideTap = ", run inside the tap"

// String says which filter it is, and how its verdicts are known.
func (f *ownFilter) String() string {
	words := f.words
	if f.listed != "" {
		words += " (" + f.listed + ")"
	}
	if f.wrapped.Load() {
		return words + InsideTap
	}
	if f.reason != "" {
		return words + ", which is not asked what it decides: " + f.reason
	}
	return words + ", asked afterwards what it had decided"
}

// changes notes that the packets from now on are of sockets with another filter, or none (key 0).
func (pl *outlet) changes(key uint64, own *ownFilter, shared bool, tell func(string)) {
	before := pl.filter
	pl.filter = key
	kernel := pl.lanes[ViewKernel]
	switch {
	case kernel == nil || shared && (own == nil || kernel.Filter != ""):
		return
	case shared:
		pl.hasFilter("that some of them have, such as " + own.String())
		return
	case kernel.handed == 0 && kernel.Filter == "" && own != nil:
		pl.hasFilter(own.String())
		return
	}
	whose := kernel.Process + ", " + kernel.Sockets
	switch {
	case own != nil:
		tell(whose + " has got a filter of its own: " + own.String())
	case before != 0 && key == 0:
		tell(whose + " has no filter of its own any more")
	}
}

// hasFilter describes the filter of the sockets.
func (pl *outlet) hasFilter(words string) {
	for _, at := range []*lane{pl.lanes[ViewKernel], pl.mapped[ViewKernel]} {
		if at != nil {
			at.Filter = words
		}
	}
}
