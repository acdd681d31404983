package capture

import (
	"errors"
	"fmt"
	"slices"
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
	// OtherTap says that it is the tap of another capture, or of one that has ended: then Filter says what is
	// inside of it, if anything.
	OtherTap bool
	// Instructions are those of a classic filter that is not long, as iptables and ip take them:
	// their number, and code, jt, jf and k of each.
	Instructions string
	// Sockets says which sockets it was on, as the descriptions of their interfaces do: such as "udp,
	// process 12 (named), descriptor 7, on 127.0.0.1:53".
	Sockets []string
	// Wrapped says that it ran inside the tap, at least for some packets: then what it decided is
	// known. Unwrapped says why it did not, on one of its sockets, if it was to
	// (JoinConfig.WrapFilter).
	Wrapped   bool
	Unwrapped string
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
	sought    map[filterAt]struct{}
}

// filterAt is a filter, by its key, on a socket, by its cookie.
type filterAt struct{ cookie, key uint64 }

type ownFilter struct {
	words  string
	tap    bool       // of another capture
	listed string     // instructions
	asker  *bpf.Asker // nil if it is not asked
	reason string     // why not

	outlets   []*outlet              // of the sockets that have, or had, it; mu of ownFilters guards this
	unwrapped atomic.Pointer[string] // why it does not run inside the tap

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
	own := &ownFilter{listed: instructionsText(f.Classic)}
	var toAsk *bpf.OwnFilter
	own.words, toAsk = describeFilter(f)
	own.tap = IsOtherTap(own.words)
	var err error
	switch {
	case askers >= askersLimit:
		own.reason = fmt.Sprintf("%d others are asked", askersLimit)
	case toAsk == nil:
		own.reason = "of the classic filter in it nothing more is known"
	default:
		if own.asker, err = bpf.OpenAsker(toAsk); err != nil {
			own.asker, own.reason = nil, reasonOf(err)
		}
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
func (o *ownFilters) seek(cookie, key uint64) {
	on := filterAt{cookie, key}
	if _, sought := o.sought[on]; sought || cookie == 0 {
		return
	}
	if len(o.sought) >= soughtLimit || o.sought == nil {
		o.sought = make(map[filterAt]struct{})
	}
	o.sought[on] = struct{}{}
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
func (o *ownFilters) list(sockets *roster) []OwnFilter {
	o.mu.RLock()
	defer o.mu.RUnlock()
	sockets.mu.Lock()
	defer sockets.mu.Unlock()
	var all []OwnFilter
	for _, f := range o.all {
		var on []string
		for _, at := range f.outlets {
			on = append(on, at.kind.Name+", "+at.whose.String())
		}
		all = append(all, OwnFilter{
			Filter: f.words, OtherTap: f.tap, Instructions: f.listed, Sockets: on, Wrapped: f.wrapped.Load(), Unwrapped: f.stays(),
			Asked: f.reason == "", Reason: f.reason,
			Packets: f.packets.Load(), Unasked: f.unasked.Load(), Dropped: f.dropped.Load(), Trimmed: f.trimmed.Load(),
			Belied: f.belied.Load(),
		})
	}
	return all
}

// found notes that sockets have a filter. It is called for each change only.
func (o *ownFilters) found(own *ownFilter, at *outlet) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !slices.Contains(own.outlets, at) { // there are not more than ownPlaces and kinds
		own.outlets = append(own.outlets, at)
	}
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

// tapOf begins what is said of a tap behind the number of its program. No name of a program has such characters.
const tapOf = ", the tap of "

// IsOtherTap tells whether the Filter of an Interface, or of a FilterChange, is the tap of another capture, or
// what one that has ended has left, and not a filter of the socket's own.
func IsOtherTap(filter string) bool {
	filter = strings.TrimPrefix(filter, FilterOfSome)
	before, _, ok := strings.Cut(filter, tapOf)
	return ok && strings.HasPrefix(before, "eBPF filter ") && !strings.ContainsAny(before, ",(:")
}

// describeFilter says in words which filter it is, and which one can be asked what it decides: nil for
// one of which that is not known.
func describeFilter(f *bpf.OwnFilter) (words string, ask *bpf.OwnFilter) {
	switch n := len(f.Classic); {
	case f.Program.ID == 0 && n == 1:
		return "classic filter of 1 instruction", f
	case f.Program.ID == 0 && n > shownInstructions:
		return fmt.Sprintf("classic filter of %d instructions (hash %016x)", n, f.Key()), f
	case f.Program.ID == 0:
		return fmt.Sprintf("classic filter of %d instructions", n), f
	}
	other, _, err := otherTap(f)
	if other == nil || err != nil {
		return describeProgram(f), f
	}
	whose := "another ebpfdump"
	if other.Ended {
		whose = "a capture that has ended"
	}
	words = fmt.Sprintf("eBPF filter %d%s%s", f.Program.ID, tapOf, whose)
	switch {
	case !other.Wraps:
		return words, f
	case other.Inside.Key() == 0:
		return words + ", with a classic filter inside", nil
	}
	return words + ", with " + describeProgram(&other.Inside) + " inside", &other.Inside
}

func describeProgram(f *bpf.OwnFilter) string {
	words := fmt.Sprintf("eBPF filter %d", f.Program.ID)
	if f.Program.Name != "" {
		words += " (" + terminal.Plain(f.Program.Name) + ")"
	}
	return fmt.Sprintf("%s, loaded %s by uid %d", words, loadedAt(f.Program.Loaded).Format(time.DateTime), f.UID)
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
		c.filters.seek(rec.Cookie, rec.Filter)
	}
	now := filterState{rec.Filter, rec.Filter != 0 && rec.Family == 0}
	if now != r.outlet.filter {
		if own != nil {
			c.filters.found(own, r.outlet)
		}
		r.outlet.changes(now, own, r.cookie == 0, c.filters.changed)
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

// filterState is which filter the sockets of a packet had: its key, 0 for none, and whether it ran
// inside the tap.
type filterState struct {
	key    uint64
	inside bool
}

// text says which filter it is, and how its verdicts are known. It is one clause, whatever a reason
// quotes.
func (f *ownFilter) text(inside bool) string {
	words := f.words
	if f.listed != "" {
		words += " (" + f.listed + ")"
	}
	switch why := f.stays(); {
	case why == "" || inside:
	case f.tap:
		words += ", which stays as it is"
	default:
		words += ", which cannot run inside the tap: " + why
	}
	switch {
	case inside:
		words += InsideTap
	case f.reason != "":
		words += ", which is not asked what it decides: " + f.reason
	default:
		words += ", asked afterwards what it had decided"
	}
	return strings.ReplaceAll(words, ";", ",")
}

// stays is why the filter does not run inside the tap, on one of its sockets, if it was to.
func (f *ownFilter) stays() string {
	if why := f.unwrapped.Load(); why != nil {
		return *why
	}
	return ""
}

// textOf is that of a filter that need not be known.
func (f *ownFilter) textOf(now filterState) string {
	switch {
	case f != nil:
		return f.text(now.inside)
	case now.key != 0:
		return "one of which nothing is known"
	}
	return ""
}

// FilterOfSome begins the Filter of an interface that sockets share. Then each packet's FilterChange says
// which of them have one.
const FilterOfSome = "that some of them have, such as "

// changes notes that the packets from now on are of sockets with another filter, or none.
func (pl *outlet) changes(now filterState, own *ownFilter, shared bool, tell func(string)) {
	before := pl.filter
	pl.filter, pl.filterText = now, own.textOf(now)
	kernel := pl.lanes[ViewKernel]
	switch {
	case kernel == nil || shared && (own == nil || kernel.Filter != ""):
		return
	case shared:
		pl.hasFilter(filterState{}, FilterOfSome+pl.filterText)
		return
	case kernel.Filter == "" && own != nil && pl.hasFilter(now, pl.filterText):
		return
	}
	whose := kernel.Process + ", " + kernel.Sockets
	switch {
	case own != nil && now.key != before.key:
		if own.tap {
			tell(whose + " has got a filter: " + pl.filterText)
			break
		}
		tell(whose + " has got a filter of its own: " + pl.filterText)
	case before.key != 0 && now.key == 0:
		tell(whose + " has no filter of its own any more")
	}
}

// hasFilter describes the filter of the sockets, on interfaces that have no packets yet. It tells
// whether there are such.
func (pl *outlet) hasFilter(is filterState, words string) (described bool) {
	for _, at := range []*lane{pl.lanes[ViewKernel], pl.mapped[ViewKernel]} {
		if at != nil && at.handed == 0 {
			at.Filter, at.filter, at.described = words, is, is
			described = true
		}
	}
	return described
}

// filterChange tells whether the next packet of the lane is the first one of sockets with another
// filter than those of the one before, or than the description says.
func (l *lane) filterChange(at *outlet) (change FilterChange) {
	if l.filter != at.filter {
		l.filter = at.filter
		change = FilterChange{Changed: true, Now: at.filterText}
	}
	return change
}
