package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/process"
)

// Live is a session on the sockets of other processes.
type Live struct {
	recording
	config   JoinConfig
	follower *follower
	roster   *roster
	scanner  *scanner
	scope    scope
	command  *process.Launcher // nil if the process was running already
	uring    atomic.Bool       // a process has an io_uring
	running  atomic.Bool       // Run was called
	networks map[uint32]bool   // that processes were in when they were entered; only kept for drops
	wanted   func()            // ends the renewal of the tap's lease

	saidMu sync.Mutex
	said   map[string]bool
}

// Join follows the sockets of processes, which do not notice it.
//
// An error is a *bpf.MissingError if a privilege or a feature of the kernel is missing, and
// unix.ESRCH if there is no such process.
func Join(config JoinConfig) (_ *Live, err error) {
	switch {
	case len(config.PIDs) > 0 && config.Cgroup != "":
		return nil, errors.New("joining processes: JoinConfig has PIDs and a Cgroup: choose one")
	case len(config.PIDs) == 0 && config.Cgroup == "":
		return nil, errors.New("joining processes: JoinConfig.PIDs is empty: it names at least one")
	}
	l, err := newLive(config)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.leave(), l.Close())
		}
	}()
	whose, err := openScope(&l.config)
	if err != nil {
		return nil, err
	}
	l.follows(whose)
	for _, remark := range l.scope.remarks(l.calls != nil) {
		l.config.Notice(remark)
	}
	if err := l.scanner.join(); err != nil {
		return nil, fmt.Errorf("joining %s: %w", whose, err)
	}
	if l.scanner.denied != nil {
		return nil, fmt.Errorf("joining %s: %w", whose, l.scanner.denied)
	}
	l.tellLeftOut()
	if len(l.roster.listed()) > 0 {
		return l, nil
	}
	if config.byDescriptor() {
		return nil, fmt.Errorf("joining %s: %w", whose, &DescriptorError{config.Descriptors, "a socket that takes a filter"})
	}
	l.config.Notice(fmt.Sprintf("no socket of %s fits yet: those that are made from now on are taken%s", l.scope, l.withoutStreams()))
	return l, nil
}

// withoutStreams says that unix streams do not fit, unless they were asked for.
func (l *Live) withoutStreams() string {
	if l.config.UnixStreams {
		return ""
	}
	return " (unix streams, which no filter sees, only if they are asked for)"
}

// Start is Join for a command, which begins to run when Run is called. It is followed from its
// first instruction.
func Start(config JoinConfig, command Command) (_ *Live, err error) {
	if len(command.Args) == 0 {
		return nil, errors.New("starting a command: Command.Args is empty: its first word is the command")
	}
	if err := command.inner().User.Permitted(); err != nil {
		return nil, err
	}
	l, err := newLive(config)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.leave(), l.Close())
		}
	}()
	if l.command, err = process.Launch(command.inner()); err != nil {
		return nil, err
	}
	p, err := process.Open(l.command.PID())
	if err != nil {
		return nil, err
	}
	p.Command = process.NameOf(command.Args[0]) // as the kernel will call it
	l.follows(newFamilies(p))
	if err := l.watchOwn(); err != nil {
		return nil, err
	}
	if err := l.dropsOf(func() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }); err != nil {
		return nil, err
	}
	if err := l.follow(p); err != nil {
		return nil, err
	}
	return l, l.command.EachFile(func(fd int, own *os.File) error { return l.scanner.lookInherited(p, fd, own) })
}

// follows sets the scope, before the first process is followed.
func (l *Live) follows(s scope) {
	l.scope = s
	l.roster.whose, l.roster.named = s.String(), s.names()
}

// newLive makes a session that does not follow any process yet.
func newLive(config JoinConfig) (_ *Live, err error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	if config.Cgroup, err = groupFolder(config.Cgroup); err != nil {
		return nil, fmt.Errorf("following %w", err)
	}
	config.Options = config.Options.withDefaults()
	l := &Live{config: config, said: make(map[string]bool)}
	l.views, l.notice = config.Views, config.Notice
	l.scanner = newScanner(l)
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	if err := l.load(); err != nil {
		return nil, err
	}
	clock, err := newClock()
	if err != nil {
		return nil, err
	}
	l.started = bootNow()
	l.roster = newRoster(config.Views, clock.bound)
	l.roster.decodeAs = config.DecodeAs
	l.roster.expression = config.Expression
	l.collector = newCollector(config.Options, l.tap, clock)
	l.collector.looksAt(l.wire)
	if (config.changes() || config.WrapFilter) && config.wants(ViewCgroup) {
		l.collector.hooks.beside, l.collector.hooks.single = newBeside(), config.WrapFilter
		l.collector.untold = newUntold(l.tap.LostByCPU, l.hook.SharedLostByCPU)
	}
	l.collector.dropped = newDrops(l.drops)
	l.collector.departures.countLosses(l.hook)
	if l.tellsFilters() {
		l.collector.filters = newOwnFilters(func(text string) { l.tellOnce(text, l.config.Notice) })
	}
	if l.config.WrapFilter {
		l.collector.filters.unwrapped = func(cookie uint64) { l.scanner.ask(request{cookie: cookie, wrap: true}) }
	}
	l.follower = newFollower(l)
	l.collector.origin = l.follower
	if l.collector.flows != nil {
		l.collector.flows.courses.receives = l.roster.receives
	}
	return l, nil
}

// load loads the programs.
func (l *Live) load() error {
	c := &l.config
	var calls *bpf.CallsOptions
	if c.wants(ViewUser) || c.wants(ViewSent) || c.changes() || c.WrapFilter {
		calls = &bpf.CallsOptions{
			RingSize: c.RingSize, Snaplen: c.Snaplen, Ports: c.Ports, NewsOfAll: c.changes(), NewsOnly: !c.wants(ViewUser), Sends: c.wants(ViewSent),
			UnixStreams: c.UnixStreams,
		}
		switch {
		case c.byDescriptor():
			calls.Choose = bpf.ChooseKnown
		case len(c.Ports) > 0:
			calls.Choose = bpf.ChoosePorts
		}
	}
	link, cgroup := c.wants(ViewLink), c.wants(ViewCgroup)
	notes := c.wants(ViewUser) || c.Verdict != nil || c.WrapFilter
	f, err := bpf.OpenFollowing(
		bpf.Options{RingSize: c.RingSize, Snaplen: c.Snaplen, NoLink: !link, WakeFirst: true, Verdict: c.Verdict, Leased: true, Expression: c.Expression, Notes: notes},
		bpf.HookOptions{
			Snaplen: c.Snaplen, NoLink: !link, Record: !c.changes() || cgroup, FromNetwork: cgroup, Egress: cgroup, Beside: c.changes(), BesideWrappers: c.WrapFilter && cgroup,
			TellFilters: l.tellsFilters(), MarkNew: !c.byDescriptor(), Ports: c.Ports, Cgroup: c.Cgroup,
			Expression: c.Expression, Notes: notes && !c.changes(), NotesOfSent: c.wants(ViewSent),
		},
		calls,
	)
	if missing := (*bpf.MissingError)(nil); errors.As(err, &missing) && missing.Setting == bpf.SettingCalls {
		missing.Hint, missing.Setting = "choose views without ViewUser and ViewSent", SettingViews
	}
	if err != nil {
		return err
	}
	l.tap, l.hook, l.calls, l.untapped = f.Tap, f.Hook, f.Calls, !c.wants(ViewUser)
	ctx, cancel := context.WithCancel(context.Background())
	l.wanted = cancel
	if err := l.openWire(); err != nil {
		return err
	}
	if err := l.openDrops(); err != nil {
		return err
	}
	// Now, since loading the rest may have taken as long as the lease lasts.
	err = l.tap.Renew()
	go l.renew(ctx)
	return err
}

// tellsFilters tells whether packets are recorded just before the filters that sockets have of
// their own. What those decide is asked for any view: without it, packets that a filter drops would
// be missing in the account of the user view.
func (l *Live) tellsFilters() bool { return !l.config.changes() }

// OwnFilters lists the filters that the sockets have of their own. It may be called while the
// capture goes on.
func (l *Live) OwnFilters() []OwnFilter {
	if l.collector.filters == nil {
		return nil
	}
	return l.collector.filters.list(l.roster)
}

// follow begins to follow a process. ESRCH means that it has ended.
func (l *Live) follow(p *process.Process) error {
	if err := l.hook.Follow(uint32(p.PID), p.Lives); err != nil {
		return err
	}
	if l.calls != nil {
		l.calls.NoteBlocked(uint32(p.PID))
	}
	return nil
}

// followed tells whether the kernel follows a process already.
func (l *Live) followed(pid int) bool { return l.hook.Follows(uint32(pid)) }

// taps tells whether the tap must be attached to a socket, given by our copy of its descriptor: if
// no cgroup hook sees its packets, if what the process receives is to be changed, or if the socket
// has a filter that is to run inside the tap.
func (l *Live) taps(copied int, info *foreign) bool {
	if kind := info.kind(); kind != nil && kind.Counted() && !l.config.byDescriptor() {
		return false // nobody would run it
	}
	if l.config.changes() || info.domain != unix.AF_INET && info.domain != unix.AF_INET6 {
		return true
	}
	if !l.config.WrapFilter {
		return false
	}
	f, err := getFilter(copied)
	return err == nil && !f.none()
}

// inherited tells whether a socket's filter is our tap.
func (l *Live) inherited(fd int, f *filter) bool {
	if !f.extended {
		return false
	}
	ours, err := l.hook.HasTap(fd)
	if err == nil && !ours && l.config.WrapFilter {
		var wrapper *bpf.Wrapper
		wrapper, err = l.scanner.wrapperOn(fd)
		ours = wrapper != nil
	}
	if err != nil {
		l.refuse(err.Error())
	}
	return err == nil && ours
}

// Process describes the processes that are followed.
func (l *Live) Process() string { return l.scope.String() }

// Sockets describes the sockets that existed when the capture began.
func (l *Live) Sockets() []string { return l.roster.listed() }

// Interfaces lists the interfaces that are known, in the order of the views. More follow when
// the process makes sockets of other kinds. While Run runs, only its Sink may call this.
func (l *Live) Interfaces() []*Interface {
	var all []*Interface
	l.roster.eachLane(func(at *lane) { all = append(all, &at.Interface) })
	return all
}

// Run hands packets to the sink until the context or all processes end, the JoinConfig's number
// of packets was captured, or the sink fails. Then it removes the tap from all sockets that
// have it. It can be called once.
func (l *Live) Run(ctx context.Context, sink Sink) (err error) {
	if err := l.mayRun(sink); err != nil {
		return err
	}
	c := l.collector
	c.sink = sink
	l.running.Store(true)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var workers sync.WaitGroup
	workers.Go(func() { l.scanner.run(ctx) })
	workers.Go(func() { l.awaitExit(ctx); cancel() })
	defer context.AfterFunc(ctx, func() { _ = l.tap.Flush() })()

	err = l.begin()
	for ctx.Err() == nil && !c.full() && err == nil {
		err = c.round()
	}
	cancel()
	workers.Wait()
	l.part()
	// Even after an error, what was captured is still written, unless the error is the sink's.
	return errors.Join(err, l.leave(), c.finish(), l.ledger().close(), l.checkClock())
}

// renewInterval is how often the tap's lease is renewed, well within bpf.Lease.
const renewInterval = bpf.Lease / 12

// renew renews the tap's lease until the context ends.
func (l *Live) renew(ctx context.Context) {
	tick := time.NewTicker(renewInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := l.tap.Renew(); err != nil && ctx.Err() == nil {
				l.refuse(err.Error())
			}
		}
	}
}

// awaitExit returns when all processes or the context have ended.
func (l *Live) awaitExit(ctx context.Context) {
	err := l.scope.await(ctx, func(process string) {
		if l.command == nil {
			l.config.Notice(process + " has ended")
		}
	})
	if err != nil && ctx.Err() == nil {
		l.refuse(err.Error())
		<-ctx.Done()
	}
}

// remarksLimit bounds how many different notices there are about sockets that cannot be
// captured.
const remarksLimit = 20

// refuse reports something that cannot be captured, once.
func (l *Live) refuse(text string) { l.tellOnce(text, l.config.Notice) }

// filtered reports a socket that is skipped because it has a filter, once.
func (l *Live) filtered(socket string) {
	tell := l.config.Notice
	if l.config.Filtered != nil {
		tell = func(string) { l.config.Filtered(socket) }
	}
	l.tellOnce(socket+" has a filter already, and is left alone: ReplaceFilter takes its place", tell)
}

// tellLeftOut reports the sockets that are skipped without WrapFilter: those of processes that were
// named, or if there are no others.
func (l *Live) tellLeftOut() {
	left := l.scanner.leftOut
	l.scanner.leftOut = nil
	switch {
	case len(left) == 0 || l.config.Cgroup != "" && len(l.roster.listed()) > 0:
	case l.config.LeftOut != nil:
		l.config.LeftOut(left)
	default:
		l.config.Notice(strings.Join(left, ", ") + ": left out, although there is a filter: WrapFilter takes it along")
	}
}

func (l *Live) tellOnce(text string, tell func(string)) {
	l.saidMu.Lock()
	defer l.saidMu.Unlock()
	if l.said[text] || len(l.said) > remarksLimit {
		return
	}
	l.said[text] = true
	if len(l.said) > remarksLimit {
		text, tell = "and more of the kind, which is not said any more", l.config.Notice
	}
	tell(text)
}

// Signal sends a signal to the command. Without a command it does nothing: a process that was
// running already is not ours to signal.
func (l *Live) Signal(s os.Signal) {
	if l.command != nil {
		l.command.Signal(s)
	}
}

// Status is how the command ended, after Run: nil if it is not known, because the capture ended
// first.
func (l *Live) Status() *os.ProcessState {
	if l.command == nil || !l.scope.over() {
		return nil
	}
	return l.command.State()
}

// begin lets the command begin.
func (l *Live) begin() error {
	if l.command == nil {
		return nil
	}
	err := l.command.Release()
	if err != nil {
		l.command.State()
		return err
	}
	if l.config.Started != nil {
		l.config.Started(l.command.PID())
	}
	return nil
}

// part reports that the command has not ended, and goes on without the capture.
func (l *Live) part() {
	if l.command != nil && !l.scope.over() {
		l.config.Notice(fmt.Sprintf("%s goes on, and is not captured any more", l.scope))
	}
}

// leave ends the recording, and removes the tap from the sockets that have it. The tap is first
// turned into a filter that keeps everything, so that a socket that is not reached does no
// harm.
func (l *Live) leave() error {
	var errs []error
	l.scanner.askQueues()
	if l.calls != nil {
		// First, or else there are deliveries of packets that were not recorded.
		errs = append(errs, l.calls.Stop())
	}
	if l.drops != nil {
		errs = append(errs, l.drops.Stop())
	}
	errs = append(errs, l.hook.Stop(), l.wire.Stop(), l.tap.Stop())
	l.wanted()
	quiesce()
	errs = append(errs, l.scanner.leave())
	l.scanner.settleQueues()
	return errors.Join(errs...)
}

// Remarks returns what is worth knowing at the end, above all what could not be captured.
func (l *Live) Remarks() []string {
	var all []string
	if l.uring.Load() && l.calls != nil && l.calls.NoURing() != nil {
		all = append(all, fmt.Sprintf("the process uses io_uring: what it received that way is not in the user view (%v)", l.calls.NoURing()))
	}
	if l.roster.mapped.Load() {
		all = append(all, "the process has mapped a socket into its memory: what it reads there is not in the user view")
	}
	if n := l.follower.spliced; n > 0 {
		all = append(all, quantity(n, "byte")+" went by splice, without a copy or into buffers that nobody can find: the user view has the length only")
	}
	if n := l.follower.moved; n > 0 {
		all = append(all, quantity(n, "byte")+" went out by sendfile or splice: the sent view has the length only")
	}
	if l.uring.Load() && l.config.wants(ViewSent) {
		all = append(all, "the process uses io_uring: what it sent that way is not in the sent view")
	}
	if l.config.wants(ViewCgroup) && bpf.HidesSYNACKs() && l.roster.hasKind(unix.AF_INET6, unix.SOCK_STREAM) {
		all = append(all, hiddenSYNACKs)
	}
	if l.config.wants(ViewUser) && l.roster.leavesReads() {
		all = append(all, "what packet and netlink sockets read is not followed: the user view has none of it")
	}
	if n := l.unwatched(); n > 0 {
		all = append(all, fmt.Sprintf("sockets were made in %s that the capture does not see: the wire view has nothing of those", otherNetworks(n)))
	}
	if n := l.collector.forgotten.Load(); n > 0 {
		all = append(all, quantity(n, "packet")+" of sockets that nobody knows: not in the capture")
	}
	return all
}

// quantity is a number with its noun.
func quantity(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Close releases the programs and the processes. It is safe to call it twice.
func (l *Live) Close() error {
	if l.wanted != nil {
		l.wanted()
	}
	if l.scope != nil {
		l.scope.close()
	}
	if l.command != nil {
		l.command.Close()
	}
	var closers []io.Closer
	if l.calls != nil {
		closers = append(closers, l.calls)
	}
	if l.drops != nil {
		closers = append(closers, l.drops)
	}
	closers = append(closers, l.flows, l.wire)
	if l.hook != nil {
		closers = append(closers, l.hook)
	}
	if l.tap != nil {
		closers = append(closers, l.tap)
	}
	errs := l.scanner.closeFilters()
	if l.collector != nil && l.collector.filters != nil {
		errs = append(errs, l.collector.filters.close()...)
	}
	return errors.Join(append(errs, closeAll(closers))...)
}
