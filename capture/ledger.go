package capture

import (
	"fmt"
	"strings"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/pair"
	"golang.org/x/sys/unix"
)

// Counts is the progress of a capture. It can be read at any time.
type Counts struct {
	// Captured counts the packets of the kernel view that were taken from the ring. They are also
	// counted, for the pairing and for Options.Packets, where nobody has asked for that view.
	Captured uint64
	// Delivered counts the receiving calls that returned something, in the user view.
	Delivered uint64
	// Written counts the packets of all views that the Sink took. Captured packets are buffered
	// first, and discarded if the Sink fails.
	Written uint64
	// Trimmed counts those of Captured of which the verdict keeps only a part.
	Trimmed uint64
	// Unreached counts the headers below offset 0 that a view needs and that the filter could
	// not reach.
	Unreached uint64
	// NotIP counts the packets of packet sockets that are neither IPv4 nor IPv6, such as ARP: the net view
	// does not have them.
	NotIP uint64
	// QueueDropped counts the packets for which receive queues had no room, and those that
	// sockets dropped for other reasons, except by their filter. During the capture it is what
	// deliveries reported so far, never too many.
	QueueDropped uint64
	// Peeked counts the calls that left what they returned in the queue (MSG_PEEK). They are
	// not in Delivered.
	Peeked uint64
	// Empty counts the calls on sockets read as messages that returned an error, or the end of a
	// connection, instead. They are not in Delivered.
	Empty uint64
	// Sent counts the sending calls that took something, in the sent view, and Failed those that
	// returned an error instead. The latter are in the view, too.
	Sent, Failed uint64
	// Hooked counts the packets of the cgroup view, and Departed those of them that were sent.
	Hooked, Departed uint64
	// Freed counts the packets of the drop view, and Ordinary those that the kernel freed as well, without
	// a sign that it had not used them.
	Freed, Ordinary uint64
	// Framed counts the frames of the wire view, a packet once for each interface that it passed,
	// and FramedSent those of them that were sent.
	Framed, FramedSent uint64
	// Selected counts the packets of the select view.
	Selected uint64
	// Tap is the ledger of the tap.
	Tap bpf.Counters
	// Ingress is the ledger of what the cgroup hook saw arrive at sockets that have the tap as
	// well; at others the tap's is. Egress is that of what it saw being sent.
	Ingress, Egress bpf.Counters
	// Shared is what is both in Tap and in Ingress: of packets that have one record, while the view
	// cgroup is also one of sockets whose own filters run inside the tap.
	Shared bpf.Counters
	// Drops is the ledger of the packets that the kernel freed. DropsMissed counts those, of the whole
	// machine, for which it did not run the program.
	Drops       bpf.Counters
	DropsMissed uint64
	// Wire is that of the frames of the sockets on interfaces.
	Wire bpf.Counters
	// Select is the ledger of what the program saw that chooses a socket of a reuseport group.
	Select bpf.Counters
	// After says how many of those recorded came after the last packet that was asked for.
	After After
	// Calls is the ledger of the receiving system calls of other processes, and Sends that of
	// the sending ones.
	Calls, Sends bpf.CallCounters
}

// Lost is the number of packets and calls of which there was no record. Some of Missed may add
// to it.
func (c *Counts) Lost() uint64 {
	return c.Tap.Lost() + c.Ingress.Lost() - c.Shared.Lost() + c.Egress.Lost() + c.Wire.Lost() + c.Drops.Lost() + c.Select.Lost() + c.Calls.Lost() + c.Sends.Lost()
}

// Account says what became of the packets that a filter saw, each of which userspace gets as
// one message or not at all. It balances to the packet:
//
//	Seen + Before + Unknown = Delivered + Queue + Filtered + After + Unwanted + Unread
//
// Streams have none, since a read does not correspond to a segment.
type Account struct {
	// Kind is the name of the socket kind, with the number of the socket in its reuseport group: "udp[2]".
	Kind string
	// Seen counts the packets for which the filter ran, including those for which the ring had
	// no room.
	Seen uint64
	// Delivered counts the messages that userspace got, in the user view.
	Delivered uint64
	// Queue counts the packets that passed the filter and were dropped by the receive queue, in
	// most cases because it was full.
	Queue uint64
	// Filtered counts the packets that the verdict dropped.
	Filtered uint64
	// After counts the packets that came after the last one that was asked for.
	After uint64
	// Unread counts the packets that passed the filter, and of which nothing more is known: a
	// process has not read them yet, they were dropped by sockets in Closed, or they were read by calls
	// of which the ring had no room for a record.
	Unread uint64
	// CallsLost counts the records of receiving calls, of all the capture's sockets, that were lost.
	CallsLost uint64
	// Before counts those of Delivered that were in the receive queue before the socket got the
	// tap.
	Before uint64
	// Unknown counts those of Delivered that no filter saw for another reason.
	Unknown uint64
	// Untapped says that another filter stayed on one of the sockets, or that somebody has taken the tap off it
	// meanwhile: what came without the tap is among Unknown, and Before is 0.
	Untapped bool
	// Unwanted counts the messages that userspace got of packets which the Expression leaves out.
	Unwanted uint64
	// Unseen counts the packets that the socket dropped before its filter could see them: those
	// with a wrong checksum, and with raw sockets those for which the queue has no room. They
	// are not in the sum. If it is Untapped, those as well that were dropped while the tap was not on it.
	Unseen uint64
	// Closed counts the sockets that were closed before their count of drops could be read for
	// the last time: what they dropped after the previous reading is in Unread.
	Closed uint64

	again bool // a message whose sender could not queue it passes the filter again
}

// Add adds the account of more sockets of the kind.
func (a *Account) Add(b *Account) {
	a.Kind, a.again = b.Kind, b.again
	a.Seen += b.Seen
	a.Delivered += b.Delivered
	a.Queue += b.Queue
	a.Filtered += b.Filtered
	a.After += b.After
	a.Unread += b.Unread
	a.Before += b.Before
	a.Unknown += b.Unknown
	a.Untapped = a.Untapped || b.Untapped
	a.Unwanted += b.Unwanted
	a.Unseen += b.Unseen
	a.Closed += b.Closed
	a.CallsLost = max(a.CallsLost, b.CallsLost)
}

// String is the account as one line. Terms that are usually zero are left out when they are.
func (a *Account) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d seen = %d delivered + %d dropped by the receive queue + %d dropped by the filter",
		a.Kind, a.Seen, a.Delivered, a.Queue, a.Filtered)
	term := func(format string, n uint64) {
		if n > 0 {
			fmt.Fprintf(&b, format, n)
		}
	}
	unread := " + %d not read"
	switch {
	case a.CallsLost > 0:
		unread = " + %d not read, or by calls whose records were lost"
	case a.again:
		unread = " + %d not read, or sent again when there was room"
	}
	term(" + %d delivered that the expression leaves out", a.Unwanted)
	term(" + %d after the last packet that was asked for", a.After)
	term(unread, a.Unread)
	term(" - %d delivered from before the tap", a.Before)
	unknown := " - %d delivered that no filter saw"
	if a.Untapped {
		unknown = " - %d delivered while the tap was not on the socket"
	}
	term(unknown, a.Unknown)
	unseen := "; dropped besides before the filter could see them, for want of room or because they are broken: %d"
	if a.Untapped {
		unseen = "; dropped besides, which the tap did not see: %d"
	}
	term(unseen, a.Unseen)
	if a.Unread > 0 {
		term("; sockets closed before they could say what they dropped: %d, and it is among what was not read", a.Closed)
	}
	return b.String()
}

// tally is what the collector counts of the packets of an outlet.
type tally struct {
	seen     uint64 // records of packets that were asked for
	filtered uint64 // of seen: dropped by the verdict

	after          uint64 // records of packets beyond those
	afterFiltered  uint64
	afterDelivered uint64
	stray          uint64 // deliveries of packets beyond those, without a record

	delivered uint64 // messages, without peeks
	unwanted  uint64 // messages of packets that the expression leaves out
	before    uint64 // of delivered: had been in the queue before the socket got the tap
	bytes     uint64 // that were delivered, also of streams
	sent      uint64 // bytes

	drops dropCount // of the sockets whose count could be read
	// refused counts packets that passed the filter, and of which the kernel told that it has
	// dropped them afterwards.
	refused uint64
	closed  uint64 // sockets whose count could not be read at the end
}

// record counts a packet that the filter saw.
func (t *tally) record(wanted bool, verdict int32) {
	number, filtered := &t.seen, &t.filtered
	if !wanted {
		number, filtered = &t.after, &t.afterFiltered
	}
	*number++
	if verdict == 0 {
		*filtered++
	}
}

// deliver counts a delivery that was not a peek.
func (t *tally) deliver(d *delivery, m *pair.Match, beyond bool) {
	switch {
	case beyond && m.After:
		t.afterDelivered++
		return
	case beyond:
		t.stray++
		return
	case m.Before:
		t.before++
	}
	t.delivered++
	got := d.Full
	if d.reception.HasBuffer {
		got = min(got, int(d.reception.Buffer)) // MSG_TRUNC returns the length of the message
	}
	t.bytes += uint64(got)
}

// dropCount bounds how many packets sockets have dropped, by their own 32-bit counter, which
// may increase while it is read. Sums and differences wrap around.
type dropCount struct{ low, high uint32 }

// since is the increase since an earlier count.
func (d dropCount) since(earlier dropCount) dropCount {
	return dropCount{d.low - earlier.high, d.high - earlier.low}
}

func (d *dropCount) add(more dropCount) {
	d.low += more.low
	d.high += more.high
}

// near returns the number nearest to another one that has these lower 32 bits.
func near(number int64, lower uint32) int64 { return number + int64(int32(lower-uint32(number))) }

// name names the outlet's sockets, as the names of its interfaces do.
func (p *outlet) name() string {
	for v, at := range p.lanes {
		if at != nil && View(v) != ViewSelect {
			return at.sockets()
		}
	}
	return p.kind.Name
}

// account balances an outlet's tally. missed packets have no record; the verdict dropped
// missedFiltered of them.
//
// What the queue dropped is computed from what is missing: userspace has got everything else.
// The kernel's own count checks that. That count may be off by some packets if senders are
// still active at the end, so it is only used as bounds.
func (p *outlet) account(missed, missedFiltered uint64) Account {
	t := &p.tally
	a := Account{
		Kind: p.name(), Seen: t.seen + t.after + missed, Filtered: t.filtered + missedFiltered,
		After: t.after + t.stray, Unwanted: t.unwanted, Delivered: t.delivered, Before: t.before, Closed: t.closed,
		again: p.kind.blocksSender(), Untapped: p.untapped.Load(),
	}
	if a.Untapped { // nobody can tell what waited before from what came since
		a.Before = 0
	}
	missing := int64(a.Seen+a.Before) - int64(a.Filtered+a.Delivered+a.After+a.Unwanted)
	other := t.after - t.afterFiltered - t.afterDelivered // dropped by the queue after the last one
	if p.kind.countsFiltered() {
		other += a.Filtered + t.afterFiltered
	}
	low := max(near(missing, t.drops.low-uint32(other)), 0)
	high := max(near(missing, t.drops.high-uint32(other)), low)
	switch {
	case missing < 0:
		a.Unknown, a.Unseen = uint64(-missing), uint64(low)
	case missing < low:
		a.Queue, a.Unseen = uint64(missing), uint64(low-missing)
	default:
		a.Queue = uint64(min(missing, max(high, int64(t.refused))))
		a.Unread = uint64(missing) - a.Queue
	}
	return a
}

// shortage is how many more packets the outlet's sockets have delivered and dropped than were recorded.
func (p *outlet) shortage() uint64 {
	a := p.account(0, 0)
	return a.Unknown + a.Unseen
}

// ledger adds up what a capture has counted, in the same way for a Session and a Live: all
// figures that are reported come from here.
type ledger struct {
	collector *collector
	views     []View
	outlets   []*outlet
	started   int64 // on the boot clock
	tap       *bpf.Tap
	hook      *bpf.Hook     // nil if nothing is recorded at the cgroup hooks
	drops     *bpf.Drops    // nil without ViewDrop
	calls     *bpf.Calls    // nil if the calls of other processes are not followed
	wire      *wire         // nil if nobody wants to see the interfaces
	selector  *bpf.Selector // nil if no program chooses among the sockets
	untapped  bool          // no account can balance
}

// counts may be called while the capture goes on.
func (g *ledger) counts() (Counts, error) {
	c := g.collector
	counts := Counts{
		Captured:     c.counts[ViewKernel].Load(),
		Delivered:    c.counts[ViewUser].Load(),
		Written:      c.written.Load(),
		Trimmed:      c.trimmed.Load(),
		Unreached:    c.unreached[ViewNet].Load() + c.unreached[ViewLink].Load(),
		NotIP:        c.notIP.Load(),
		QueueDropped: c.queue.Load(),
		Peeked:       c.peeks.Load(),
		Empty:        c.empty.Load(),
		Sent:         c.counts[ViewSent].Load(),
		Failed:       c.refused.Load(),
		Hooked:       c.counts[ViewCgroup].Load(),
		Departed:     c.hooks.sent.Load(),
		Freed:        c.counts[ViewDrop].Load(),
		Ordinary:     c.ordinary.Load(),
		Framed:       c.counts[ViewWire].Load(),
		FramedSent:   c.frames.sent.Load(),
		Selected:     c.counts[ViewSelect].Load(),
		After:        c.after.counts(), // before more are recorded
	}
	var err error
	if g.selector != nil {
		unwanted := c.unselected.all.Load() // before more are recorded
		if counts.Select, err = g.selector.Counters(); err != nil {
			return counts, err
		}
		counts.Select.Recorded -= unwanted
		counts.Select.Unwanted += unwanted
	}
	if g.wire != nil {
		if counts.Wire, err = g.wire.tap.Counters(); err != nil {
			return counts, err
		}
	}
	if g.hook != nil {
		// First, so that there is never more of it than of what it is a part of.
		if counts.Shared, err = g.hook.Shared(); err != nil {
			return counts, err
		}
		if counts.Ingress, counts.Egress, err = g.hook.Counters(); err != nil {
			return counts, err
		}
	}
	if g.drops != nil {
		if counts.Drops, counts.DropsMissed, err = g.drops.Counters(); err != nil {
			return counts, err
		}
	}
	if g.calls != nil {
		if counts.Calls, err = g.calls.Counters(); err != nil {
			return counts, err
		}
		if counts.Sends, err = g.calls.SendCounters(); err != nil {
			return counts, err
		}
	}
	counts.Tap, err = g.tap.Counters()
	counts.Tap = counts.Tap.Plus(counts.Shared)
	return counts, err
}

// statistics returns the ledger of each interface, after the capture. The tap's losses are
// attributed to the first one that has packets, or whose socket has, because it is not known whose packets they
// were.
func (g *ledger) statistics() ([]Statistics, error) {
	counts, err := g.counts()
	if err != nil {
		return nil, err
	}
	var all []Statistics
	accounts := g.accounts(counts)
	for _, v := range g.views {
		first := g.first(v)
		for n, p := range g.outlets {
			p.each(v, func(at *lane) {
				if !p.expects(v, at) {
					return
				}
				st := g.lane(at, counts, at == first)
				if at == p.lanes[v] && accounts != nil {
					st.balance(accounts[n])
				}
				switch v {
				case ViewDrop:
					if st.Reasons != nil {
						st.Comment = st.Reasons.String()
					}
				case ViewUser:
					st.Bytes = p.tally.bytes
				case ViewSent:
					st.Bytes = p.tally.sent
				}
				all = append(all, st)
			})
		}
	}
	return all, nil
}

// first returns the first lane of a view that has packets, or else that of the first socket that other views have
// packets of, or else the first one.
func (g *ledger) first(v View) (first *lane) {
	var best uint64
	for _, p := range g.outlets {
		handed := p.handed()
		p.each(v, func(at *lane) {
			rank := min(handed, 1) + 2*min(at.handed, 1)
			if first == nil || rank > best {
				first, best = at, rank
			}
		})
	}
	return first
}

// handed is how many packets there are in all views of an outlet.
func (pl *outlet) handed() (n uint64) {
	for v := range ViewCount {
		pl.each(v, func(at *lane) { n += at.handed })
	}
	return n
}

// lane returns the ledger of one interface, with all losses of its view if it is the first.
func (g *ledger) lane(at *lane, counts Counts, first bool) Statistics {
	c := g.collector
	st := Statistics{
		Interface: &at.Interface, Start: c.clock.wall(g.started), End: c.clock.wall(bootNow()),
		Delivered: at.counted, Written: at.written, Reasons: at.reasonsOf(),
	}
	filtered := at.filtered
	if first {
		st.Unwanted = g.unwanted(at.View, &counts)
	}
	switch {
	case !first:
	case at.View == ViewUser:
		st.Dropped = counts.Calls.Lost()
	case at.View == ViewSent:
		st.Dropped = counts.Sends.Lost()
	case at.View == ViewDrop:
		st.Dropped = counts.Drops.Lost()
	case at.View == ViewWire:
		st.Dropped = counts.Wire.Lost()
	case at.View == ViewSelect:
		st.Dropped, filtered = counts.Select.Lost(), counts.Select.Dropped-min(c.unselected.dropped.Load(), counts.Select.Dropped)
	case at.View == ViewCgroup:
		st.Dropped = counts.Ingress.Lost() + counts.Egress.Lost()
		if c.hooks.beside == nil {
			st.Dropped += counts.Tap.Lost()
		}
	default:
		// Losses after the last packet that was asked for do not count, as far as they are
		// known.
		lost := counts.Tap.Lost()
		for _, p := range g.outlets {
			lost -= min(p.tally.stray, lost)
		}
		st.Dropped = lost + c.unreached[at.View].Load()
		filtered += counts.Tap.Dropped - min(counts.Tap.Dropped, c.filtered)
	}
	st.Received = st.Delivered + st.Unwanted + st.Dropped
	st.Accepted = st.Received - min(filtered+st.Unwanted, st.Received)
	return st
}

// balance reconciles an interface's ledger with the account of its sockets, nil if they have
// none.
func (st *Statistics) balance(a *Account) {
	switch {
	case a == nil:
	case st.Interface.View == ViewUser:
		st.OSDropped, st.Account, st.Comment = a.Queue+a.Unseen, a, a.String()
	case st.Interface.View == ViewSent, st.Interface.View == ViewCgroup, st.Interface.View == ViewWire, st.Interface.View == ViewDrop, st.Interface.View == ViewSelect: // it is about what the filter saw
	default:
		st.OSDropped = a.Unseen
	}
}

// accounts returns the account of each outlet, nil for streams, and for sockets of others of whose
// reads nothing is known.
func (g *ledger) accounts(counts Counts) []*Account {
	if g.untapped {
		return nil
	}
	c := g.collector
	missed := counts.Tap.Seen - min(counts.Tap.Seen, c.records)
	filtered := counts.Tap.Dropped - min(counts.Tap.Dropped, c.filtered)
	all := make([]*Account, len(g.outlets))
	heir := g.heir()
	_, ours := c.origin.(*own)
	counted := func(p *outlet) bool { return !p.kind.stream && (ours || p.kind.ReadsFollowed()) }
	// Whose the packets without a record are, is only known where more has become of them than was recorded.
	rest := missed - min(missed, filtered) // of which the heir has the filtered ones
	shares := make([]uint64, len(g.outlets))
	for n, p := range g.outlets {
		if counted(p) {
			shares[n] = min(p.shortage(), rest)
			rest -= shares[n]
		}
	}
	for n, p := range g.outlets {
		if !counted(p) {
			continue
		}
		var a Account
		if p == heir {
			a = p.account(shares[n]+rest+min(missed, filtered), filtered)
		} else {
			a = p.account(shares[n], 0)
		}
		if g.drops != nil && counts.Drops.Lost()+counts.Drops.Unwanted == 0 {
			a.Closed = 0 // the kernel has told of each
		}
		a.CallsLost = counts.Calls.Lost()
		all[n] = &a
	}
	return all
}

// heir is the outlet to whose account packets without a record are attributed.
func (g *ledger) heir() *outlet {
	for _, p := range g.outlets {
		if p.tally.seen+p.tally.after > 0 {
			return p
		}
	}
	if len(g.outlets) == 0 {
		return nil
	}
	return g.outlets[0]
}

// close replaces the receive queues' drops that deliveries reported by the final counts.
func (g *ledger) close() error {
	counts, err := g.counts()
	if err != nil {
		return err
	}
	var dropped uint64
	accounts := g.accounts(counts)
	for _, a := range accounts {
		if a != nil {
			dropped += a.Queue + a.Unseen
		}
	}
	if accounts != nil {
		g.collector.queue.Store(dropped)
	}
	return nil
}

// quiesce waits until every filter that was running has finished: its packet is counted, and in
// the receive queue or dropped. Both happen in one RCU read-side critical section, whose end
// this waits for; except for messages of local processes (unix, netlink), whose senders can be
// preempted in between. On kernels without it, a packet that is just being filtered may be
// counted as unread.
func quiesce() {
	const global = 1 // MEMBARRIER_CMD_GLOBAL of linux/membarrier.h
	_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0)
}

// losses is how many records, or events, each cpu had lost when it wrote its newest one.
type losses []uint64

// since takes the count in a record or an event of a cpu, and returns by how much it exceeds
// the previous one.
func (l *losses) since(cpu uint32, count uint64) uint64 {
	for int(cpu) >= len(*l) {
		*l = append(*l, 0)
	}
	more := count - (*l)[cpu]
	(*l)[cpu] = count
	return more
}
