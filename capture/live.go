package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebpfdump/ebpfdump/bpf"
)

const (
	// scanInterval is how often a process is looked at for sockets that no system
	// call told of, such as those that it was handed.
	scanInterval = time.Second
	// exitInterval is how soon the end of a process is noticed.
	exitInterval = 50 * time.Millisecond
	// ownPlaces is how many sockets get interfaces of their own; further ones
	// share those of their kind.
	ownPlaces = 64
)

// JoinConfig says what a Live session captures.
type JoinConfig struct {
	// PID is the process, whose children are followed as well.
	PID int
	// Descriptors chooses sockets of the process by number. Default: all.
	Descriptors []int
	// Ports chooses sockets by their own or their peer's port. Default: all.
	Ports []uint16
	// ReplaceFilter takes sockets that have a filter already. A classic one is put
	// back at the end.
	ReplaceFilter bool
	// Verdict decides what the sockets keep of each packet, which changes what
	// the process gets. Default: everything.
	Verdict *bpf.Verdict

	// Views to hand to the sink. Default: ViewKernel and ViewUser.
	Views []View
	// Packets ends the capture after so many packets of the kernel view. Default: 0, no limit.
	Packets uint64
	// Snaplen is the most bytes kept of a packet. Default: bpf.MaxSnaplen.
	Snaplen int
	// RingSize is the size in bytes of each of the two ring buffers. Default: bpf.DefaultRingSize.
	RingSize int
	// Immediate hands packets on after a millisecond or two.
	Immediate bool
	// Notice is told what a user should know while the capture goes on. Default: nobody.
	Notice func(string)
}

// Live is a session on the sockets of a running process.
type Live struct {
	config    JoinConfig
	tap       *bpf.Tap
	reads     *bpf.Reads // nil if nobody wants the user view
	collector *collector
	follower  *follower
	started   int64 // on the boot clock
	scans     sync.Mutex
	hints     chan hint   // what the scanner should look at
	packets   bool        // there is a packet socket, which may have a ring
	joined    bool        // the first scan is over
	uring     atomic.Bool // a process has an io_uring
	mapped    atomic.Bool // a process has mapped a socket's ring into its memory
	refused   sync.Map    // what was said once
	keeper    *keeper
	command   *launcher // nil for a process that ran already

	mu        sync.RWMutex
	root      *process
	processes map[int]*watched
	members   map[uint64]*member // by cookie
	inodes    map[uint64]*member
	listeners map[uint16][]*member // by port
	shared    map[*Kind]*outlet
	outlets   []*outlet
	streams   *streams // the one pairer of all TCP connections
	owned     int
	gone      []goneSocket
	denied    error // why a socket whose filter was to be replaced is left alone
}

// watched is a process whose sockets are looked at.
type watched struct {
	*process
	follow  bool                // its system calls can be followed
	scanned bool                // has been looked at from its beginning to its end
	seen    map[int]uint64      // inodes of the descriptors that are dealt with
	ignored map[uint64]struct{} // inodes that were not chosen
}

// Join puts the tap on the sockets of a process, which notices nothing of it.
//
// An error is a *bpf.MissingError if a privilege or a feature of the kernel is
// missing, and unix.ESRCH if there is no such process.
func Join(config JoinConfig) (_ *Live, err error) {
	l, err := newLive(config)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.leave(), l.Close())
		}
	}()
	root, err := openProcess(config.PID)
	if err != nil {
		return nil, err
	}
	if l.keeper, err = startKeeper(l.tap, l.reads, nil); err != nil {
		root.close()
		return nil, err
	}
	if err := l.adopt(root); err != nil {
		return nil, err
	}
	return l, l.join()
}

// newLive makes a session that watches nobody yet.
func newLive(config JoinConfig) (_ *Live, err error) {
	common := Config{
		Kind: &kinds[0], Views: config.Views, Packets: config.Packets, Snaplen: config.Snaplen,
		RingSize: config.RingSize, Immediate: config.Immediate, Notice: config.Notice,
	}.withDefaults()
	common.Kind = nil
	config.Views, config.Snaplen, config.Notice = common.Views, common.Snaplen, common.Notice
	l := &Live{
		config:    config,
		hints:     make(chan hint, 256),
		processes: make(map[int]*watched),
		members:   make(map[uint64]*member),
		inodes:    make(map[uint64]*member),
		listeners: make(map[uint16][]*member),
		shared:    make(map[*Kind]*outlet),
		streams:   newStreams(),
	}
	l.streams.foreign = true
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	if l.tap, err = bpf.Open(bpf.Options{RingSize: config.RingSize, Snaplen: config.Snaplen, Verdict: config.Verdict}); err != nil {
		return nil, err
	}
	if slices.Contains(config.Views, ViewUser) {
		l.reads, err = bpf.OpenReads(bpf.ReadsOptions{RingSize: config.RingSize, Snaplen: config.Snaplen})
		if err != nil {
			return nil, err
		}
	}
	clock, err := newClock()
	if err != nil {
		return nil, err
	}
	l.started = bootNow()
	l.collector = newCollector(common, l.tap, clock)
	l.follower = newFollower(l)
	l.collector.routeOf, l.collector.taken = l.routeOf, l.follower.take
	return l, nil
}

// adopt takes the process whose end is the capture's.
func (l *Live) adopt(root *process) error {
	l.root = root
	if root.foreignNetwork() {
		l.config.Notice(fmt.Sprintf("%s is in another network namespace: its packets are those of that namespace", root))
	}
	if l.reads != nil && root.is32Bit() {
		l.config.Notice(fmt.Sprintf("%s is a 32-bit program, whose system calls are not followed: the user view stays empty", root))
		return nil
	}
	if l.reads == nil {
		return nil
	}
	return l.reads.WatchProcess(uint32(root.pid))
}

// join puts the tap on what is there.
func (l *Live) join() error {
	if err := l.scan(); err != nil {
		return fmt.Errorf("joining process %d: %w", l.config.PID, err)
	}
	if l.denied != nil {
		return fmt.Errorf("joining process %d: %w", l.config.PID, l.denied)
	}
	l.joined = true
	if len(l.members) > 0 {
		return nil
	}
	if len(l.config.Descriptors) > 0 {
		return fmt.Errorf("joining process %d: none of its descriptors %s is a socket that takes a filter", l.config.PID, strings.Trim(fmt.Sprint(l.config.Descriptors), "[]"))
	}
	l.config.Notice(fmt.Sprintf("%s has no socket yet that fits: those that it makes from now on are taken", l.root))
	return nil
}

// Process says which process is followed, and as what.
func (l *Live) Process() string { return l.root.String() }

// Sockets says which sockets the tap is on.
func (l *Live) Sockets() []string {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var all []string
	for _, m := range l.members {
		if m.tapped {
			all = append(all, fmt.Sprintf("%s %s (descriptor %d)", m.route.Load().kind.Name, &m.foreign, m.fd))
		}
	}
	slices.Sort(all)
	return all
}

// Interfaces lists the interfaces that are known, in the order of the views.
// There will be more when the process makes sockets of other kinds.
func (l *Live) Interfaces() []*Interface {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var all []*Interface
	for _, p := range l.outlets {
		for _, v := range l.config.Views {
			all = append(all, &p.lanes[v].Interface)
		}
	}
	return all
}

// ClockError bounds the error of packet times against the wall clock.
func (l *Live) ClockError() time.Duration { return time.Duration(l.collector.clock.bound) }

// RingSize is the size of each ring in bytes.
func (l *Live) RingSize() int { return l.tap.RingSize() }

// Run hands packets to the sink until the context or the process ends, or as
// many as the JoinConfig asked for are captured, or the sink fails. Then it
// takes the tap off all sockets. It can be called once.
func (l *Live) Run(ctx context.Context, sink Sink) (err error) {
	c := l.collector
	c.order.sink = sink
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var workers sync.WaitGroup
	workers.Go(func() { l.scanUntil(ctx) })
	workers.Go(func() { l.awaitExit(ctx); cancel() })
	if l.command != nil {
		workers.Go(func() { l.supervise(ctx) })
	}
	defer context.AfterFunc(ctx, func() { _ = l.tap.Flush() })()

	err = l.begin()
	for ctx.Err() == nil && !c.full() && err == nil {
		err = c.round()
	}
	cancel()
	workers.Wait()
	l.part()
	// Whatever fails here, the rest is done all the same: what was captured is
	// written, unless it is the sink that fails.
	return errors.Join(err, l.leave(), c.finish(), l.ledger().close(), l.checkClock())
}

func (l *Live) checkClock() error {
	step, err := l.collector.clock.stepped()
	if err == nil && step != 0 {
		l.config.Notice(clockNotice(step))
	}
	return err
}

// awaitExit returns when the process or the context ends.
func (l *Live) awaitExit(ctx context.Context) {
	for ctx.Err() == nil {
		if l.root.exited() {
			if l.command == nil {
				l.config.Notice(fmt.Sprintf("%s has ended", l.root))
			}
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(exitInterval):
		}
	}
}

// scanUntil looks at the process again and again, and at single descriptors
// when a system call gave a hint.
func (l *Live) scanUntil(ctx context.Context) {
	tick := time.NewTicker(scanInterval)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			err = l.scan()
		case h := <-l.hints:
			if h == (hint{}) {
				err = l.scan()
			} else {
				err = l.glance(h)
			}
		}
		if err != nil && !l.root.exited() {
			l.refuse(err.Error())
		}
	}
}

// ask gives the scanner a hint. If it has too many already, the next scan sees
// to it.
func (l *Live) ask(h hint) {
	select {
	case l.hints <- h:
	default:
	}
}

// refuse tells of something that cannot be had, once.
func (l *Live) refuse(text string) {
	if _, said := l.refused.LoadOrStore(text, true); !said {
		l.config.Notice(text)
	}
}

// Counts reads the counters as they stand.
func (l *Live) Counts() (Counts, error) { return l.ledger().counts() }

// Statistics is the ledger of each interface, after Run.
func (l *Live) Statistics() ([]Statistics, error) { return l.ledger().statistics() }

func (l *Live) ledger() *ledger {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return &ledger{
		collector: l.collector, views: l.config.Views, outlets: slices.Clone(l.outlets),
		started: l.started, tap: l.tap, reads: l.reads, untapped: l.reads == nil,
	}
}

// Remarks says what is worth knowing at the end, above all what could not be seen.
func (l *Live) Remarks() []string {
	var all []string
	if l.uring.Load() {
		all = append(all, "the process uses io_uring: what it received that way is not in the user view")
	}
	if l.mapped.Load() {
		all = append(all, "the process has mapped a socket into its memory: what it reads there is not in the user view")
	}
	if n := l.follower.spliced; n > 0 {
		all = append(all, fmt.Sprintf("%d bytes went by splice from a socket to somewhere else: they are not in the user view", n))
	}
	if n := l.collector.forgotten.Load(); n > 0 {
		all = append(all, fmt.Sprintf("%d packets were of sockets that had been closed for long: they are not in the capture", n))
	}
	return append(all, l.follower.remarks()...)
}

// Close gives up the programs and the processes. It is safe to call it twice.
func (l *Live) Close() error {
	var closers []io.Closer
	if l.tap != nil {
		closers = append(closers, l.tap)
	}
	if l.reads != nil {
		closers = append(closers, l.reads)
	}
	l.mu.Lock()
	for pid, p := range l.processes {
		if p.process != l.root {
			p.close()
		}
		delete(l.processes, pid)
	}
	if l.root != nil && l.root.pidfd >= 0 {
		l.root.close()
		l.root.pidfd = -1
	}
	l.mu.Unlock()
	if l.command != nil {
		l.command.close()
	}
	l.keeper.close()
	var errs []error
	for _, c := range closers {
		if err := c.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// leave takes the tap off everything that can be reached. Before, it becomes a
// filter that only keeps all, so that nothing depends on how far this comes.
func (l *Live) leave() error {
	var errs []error
	l.askQueues(false)
	if l.reads != nil {
		// Before the tap, or else there are deliveries of what it did not see.
		errs = append(errs, l.reads.Stop())
	}
	errs = append(errs, l.tap.Stop())
	quiesce()
	l.scans.Lock()
	defer l.scans.Unlock()
	// Twice: what is accepted while listeners still have the tap inherits it.
	for range 2 {
		for _, p := range l.processes {
			l.lookForMapped(p.process)
			errs = append(errs, p.eachSocket(l.release))
		}
	}
	l.countClosed()
	l.keeper.tell(keepDone, 0)
	return errors.Join(errs...)
}

// release takes the tap off a socket.
func (l *Live) release(fd int, inode uint64) error {
	m := l.inodes[inode]
	if m != nil {
		if !m.tapped {
			return nil
		}
		m.settleDrops(queueDrops(fd))
		m.tapped = false
		return restoreFilter(fd, m.saved)
	}
	info, err := inspect(fd)
	if err != nil || l.parentOf(&info) == nil {
		return nil
	}
	if f, err := getFilter(fd); err != nil || !f.extended {
		return nil
	}
	return restoreFilter(fd, nil)
}
