package capture

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/process"
)

// scanner inspects sockets of other processes by duplicates of their descriptors (pidfd_getfd):
// all that exist when a capture begins, and later those that a system call reported. It marks
// them, or attaches the tap to those whose packets no cgroup hook sees. It belongs to the
// goroutine of Join, and then to that of run.
type scanner struct {
	live      *Live
	requests  chan request
	seen      map[uint64]struct{} // inodes of one scan of several processes, which may share sockets
	listening bool                // a listener was marked
	taps      map[uint64]tapped   // by cookie
	listeners []tappedListener    // that had filters, which their connections would have
	queues    []*queue
	marked    []uint64                   // cookies of the first scan that are not known to the programs yet
	wrappers  map[uint64]*bpf.Wrapper    // by the key of the filter in them
	stays     map[filterAt]bool          // filters that cannot run inside the tap
	held      map[uint32]*bpf.HeldFilter // eBPF filters in whose place the tap is, by their programs' numbers
	leftOut   []string                   // sockets that only WrapFilter captures, as long as Join goes on
	denied    error                      // why a socket whose filter was to be replaced is skipped
}

// request asks to inspect a descriptor, which was a socket with that cookie, 0 if it had none.
type request struct {
	pid, fd int
	cookie  uint64
	bound   bool // it is followed already, and was bound to an address
	wrap    bool // it has got a filter that is to run inside the tap; nobody knows its descriptor
}

// tidyInterval is how often to check for processes that have ended or joined without an event.
const tidyInterval = time.Second

// requestsLimit bounds the sockets that wait to be inspected.
const requestsLimit = 4096

func newScanner(l *Live) *scanner {
	return &scanner{live: l, requests: make(chan request, requestsLimit), seen: make(map[uint64]struct{}), taps: make(map[uint64]tapped), wrappers: make(map[uint64]*bpf.Wrapper), stays: make(map[filterAt]bool), held: make(map[uint32]*bpf.HeldFilter)}
}

// ask requests to inspect a socket. If too many are waiting, that is reported.
func (s *scanner) ask(r request) {
	select {
	case s.requests <- r:
	default:
		s.live.refuse("so many sockets are new that not all can be looked at: some of their packets are missing")
	}
}

// run serves requests until the context ends.
func (s *scanner) run(ctx context.Context) {
	tidy := time.NewTicker(tidyInterval)
	defer tidy.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-s.requests:
			s.glance(r)
		case <-tidy.C:
			s.live.scope.bury()
			s.enterJoined()
			s.askQueues()
		}
	}
}

// glance serves a request.
func (s *scanner) glance(r request) {
	if r.wrap {
		s.wrapLater(r.cookie)
		return
	}
	p, err := s.live.scope.find(r.pid)
	if err != nil {
		return // it has ended
	}
	if r.bound && r.cookie != 0 {
		s.countNew(p, r.fd, r.cookie)
		return
	}
	if err := s.look(p, r.fd, 0, r.cookie); err != nil && !p.Exited() {
		s.live.refuse(err.Error())
	}
}

// join follows all processes of the scope, and inspects all their sockets. Processes that the
// capture may lack are told of, unless they are all that there are.
func (s *scanner) join() error {
	defer s.forgetSeen()
	var lacking []error
	some := false
	enter := func(p *process.Process) error {
		err := s.enter(p)
		switch {
		case err == nil:
			some = true
		case !s.live.scope.mayLack(p, err):
			return err
		case !errors.Is(err, unix.ESRCH):
			lacking = append(lacking, err)
		}
		return nil
	}
	if err := s.live.scope.each(enter); err != nil {
		return err
	}
	if !some && len(lacking) > 0 {
		return lacking[0]
	}
	for _, err := range lacking {
		s.live.refuse(err.Error())
	}
	if !s.listening {
		return nil
	}
	// For connections that were accepted after their process was scanned, and before the
	// listener was marked.
	return s.live.scope.each(func(p *process.Process) error {
		if err := s.scanLiving(p); err != nil && !s.live.scope.mayLack(p, err) {
			return err
		}
		return nil
	})
}

// enter follows a process. Its sockets are listed after that, since the kernel marks those that
// are made later.
func (s *scanner) enter(p *process.Process) error {
	if err := s.live.watchNetwork(p); err != nil {
		return err
	}
	if err := s.live.dropsOf(p.Network); err != nil {
		return err
	}
	if err := s.live.follow(p); err != nil {
		return err
	}
	return s.scanLiving(p)
}

// enterJoined follows processes that joined the scope.
func (s *scanner) enterJoined() {
	defer s.forgetSeen()
	for _, p := range s.live.scope.joined(s.live.followed) {
		if err := s.enter(p); err != nil && !errors.Is(err, unix.ESRCH) {
			s.live.refuse(err.Error())
		}
	}
}

func (s *scanner) forgetSeen() { clear(s.seen) }

func (s *scanner) scanLiving(p *process.Process) error {
	if err := s.scan(p); err != nil && !p.Exited() {
		return err
	}
	return nil
}

// scan inspects all sockets of a process.
func (s *scanner) scan(p *process.Process) error {
	files, err := p.Descriptors()
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.IsURing() {
			s.live.uring.Store(true)
			if s.live.calls != nil {
				if err := s.live.calls.HasURing(); err != nil {
					return err
				}
			}
		}
		inode, ok := f.Inode()
		if !ok {
			continue
		}
		// A socket that is skipped by one descriptor may be chosen by another one.
		if _, seen := s.seen[inode]; seen || !s.descriptorChosen(p, f.FD) {
			continue
		}
		s.seen[inode] = struct{}{}
		if err := s.look(p, f.FD, inode, 0); err != nil {
			return err
		}
	}
	err = s.tellMarked()
	for inode := range p.MappedSockets() {
		if _, seen := s.seen[inode]; seen {
			s.live.roster.mapped.Store(true)
		}
	}
	return err
}

// look inspects a socket, and takes it if it is chosen.
func (s *scanner) look(p *process.Process, fd int, inode, cookie uint64) error {
	copied, err := p.CopyDescriptor(fd)
	if errors.Is(err, unix.EBADF) || errors.Is(err, unix.ESRCH) {
		return nil // closed by now
	}
	if err != nil {
		return err
	}
	defer unix.Close(copied)
	info, err := inspect(copied)
	if err == nil && (s.live.config.WrapFilter || info.onlyWrapped()) {
		f, ferr := getFilter(copied)
		info.filtered = ferr == nil && !f.none()
	}
	switch {
	case err != nil && !isShutDown(err):
		s.live.refuse(fmt.Sprintf("descriptor %d of %s is left alone: %v", fd, p, err))
		return nil
	case err != nil || cookie != 0 && info.cookie != cookie:
		return nil // shut down by now, or another socket
	}
	asked := inode == 0
	if info.kind() == nil || !asked && !s.chosen(p, fd, &info) {
		s.leaveOut(p, fd, &info)
		return nil
	}
	if asked && s.live.config.byDescriptor() && info.domain != unix.AF_INET && info.domain != unix.AF_INET6 {
		return nil
	}
	return s.take(p, fd, copied, asked, &info)
}

// leaveOutLimit bounds the sockets that are told of because they are left out.
const leaveOutLimit = 64

// leaveOut notes a socket that is skipped, as long as Join goes on, if it is one for WrapFilter.
func (s *scanner) leaveOut(p *process.Process, fd int, info *foreign) {
	c := &s.live.config
	if info.kind() == nil || !info.filtered || c.WrapFilter || len(c.Ports) > 0 || s.live.running.Load() || len(s.leftOut) == leaveOutLimit {
		return
	}
	s.leftOut = append(s.leftOut, fmt.Sprintf("%s %s (descriptor %d of %s)", info.kind().Name, info, fd, p))
}

// lookInherited inspects a socket that a command inherits from us. It need not be duplicated,
// but fd is its number in the command.
func (s *scanner) lookInherited(p *process.Process, fd int, own *os.File) error {
	raw, err := own.SyscallConn()
	if err != nil {
		return fmt.Errorf("looking at descriptor %d of the command: %w", fd, err)
	}
	cerr := raw.Control(func(copied uintptr) {
		var info foreign
		if info, err = inspect(int(copied)); err != nil {
			err = nil // not a socket
			return
		}
		if info.kind() != nil && s.chosen(p, fd, &info) {
			err = s.take(p, fd, int(copied), false, &info)
		}
	})
	return errors.Join(err, cerr, s.tellMarked())
}

// take marks a socket or attaches the tap to it. copied is our duplicate of its descriptor.
func (s *scanner) take(p *process.Process, fd, copied int, asked bool, info *foreign) error {
	if info.listening {
		// Before it is marked, so that connections accepted meanwhile are reported.
		s.listening = true
		if err := s.known(allWaiting, info.cookie); err != nil {
			return err
		}
	}
	if err := s.live.enterWire(p, copied, info); err != nil {
		return err
	}
	if err := s.live.enterDropped(p, copied, info); err != nil {
		return err
	}
	tap := s.live.taps(copied, info)
	whose := func() owner { return owner{p.String(), fmt.Sprintf("descriptor %d, %s", fd, info)} }
	fresh, taken := s.live.roster.add(info, whose, tap), true
	var before dropCount
	counted := fresh && s.counted(info.cookie) != nil
	if counted {
		before.low = queueDrops(copied)
	}
	switch {
	case !tap && !(asked && s.hasMark(copied)):
		if err := s.mark(copied, info); err != nil {
			return err
		}
	case tap && fresh:
		// With WrapFilter for what comes when the process takes its filter off, or replaces it.
		if c := &s.live.config; (c.wants(ViewCgroup) || c.wants(ViewDrop) || c.WrapFilter) && info.kind().HasCgroupHooks() {
			if err := s.mark(copied, info); err != nil {
				return err
			}
		}
		if taken = s.attach(whose().String(), copied, info); !taken {
			if at := s.live.roster.outletOf(info.cookie); at != nil {
				at.untapped.Store(true)
			}
		}
	}
	if tap && fresh && taken {
		s.live.roster.recorded(info.cookie)
	}
	if fresh && !asked && (taken || info.kind().ReadsFollowed()) {
		s.live.roster.list(fmt.Sprintf("%s %s (descriptor %d)", info.kind().Name, info, fd))
	}
	if fresh && !tap && s.live.collector.filters != nil && !s.live.running.Load() {
		s.noteFilter(copied, info)
	}
	if counted {
		before.high = queueDrops(copied)
		s.count(p, fd, info, before)
	}
	if !info.listening && !asked {
		s.marked = append(s.marked, info.cookie) // the first scan announces them all at once
		return nil
	}
	return s.known(waiting(copied, info), info.cookie)
}

// noteFilter enters the filter that a socket has of its own, as long as the capture does not run:
// later the first packet tells of it.
func (s *scanner) noteFilter(copied int, info *foreign) {
	f, err := getFilter(copied)
	if err != nil || f.none() {
		return // it is told of with the first packet
	}
	own := bpf.OwnFilter{Classic: f.classic}
	if f.extended {
		if own, err = s.live.hook.Extended(copied); err != nil || own.Program.ID == 0 {
			return
		}
	}
	if entered := s.live.collector.filters.enter(&own); entered != nil {
		s.describeFilter(info, entered, filterState{key: own.Key()})
	}
}

// describeFilter notes the filter that a socket has of its own, as long as the capture does not run.
func (s *scanner) describeFilter(info *foreign, own *ownFilter, is filterState) {
	if at := s.live.roster.hasFilter(info.cookie, is, own.text(is.inside)); at != nil {
		s.live.collector.filters.found(own, at)
	}
}

// known tells the programs on system calls that sockets are marked.
func (s *scanner) known(waiting uint32, cookies ...uint64) error {
	if s.live.calls == nil || len(cookies) == 0 {
		return nil
	}
	return s.live.calls.Known(waiting, cookies...)
}

// tellMarked calls known for all sockets that a first scan has marked.
func (s *scanner) tellMarked() error {
	err := s.known(0, s.marked...)
	s.marked = s.marked[:0]
	return err
}

// allWaiting is for an unknown number of connections.
const allWaiting = math.MaxUint32

// waiting is how many connections are in a listener's backlog.
func waiting(fd int, info *foreign) uint32 {
	if !info.listening {
		return 0
	}
	tcp, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
	if err != nil {
		return allWaiting // not TCP
	}
	return tcp.Unacked // for a listener, the length of its backlog, which tcp(7) does not document
}

// hasMark tells whether a socket has its mark. A socket that the roster knows from an event may
// not have it.
func (s *scanner) hasMark(copied int) bool {
	_, ok := s.live.hook.Origin(copied)
	return ok
}

func (s *scanner) mark(copied int, info *foreign) error {
	err := s.live.hook.MarkAs(copied, info.cookie)
	if err == nil && info.listening && info.protocol == unix.IPPROTO_MPTCP {
		err = s.live.hook.MarkMPTCP(copied, info.local.Port(), info.cookie)
	}
	return err
}

// descriptorChosen tells whether a descriptor is one of those that the user chose, if any.
func (s *scanner) descriptorChosen(p *process.Process, fd int) bool {
	c := &s.live.config
	return !c.byDescriptor() || s.live.scope.named(p) && slices.Contains(c.Descriptors, fd)
}

// chosen tells whether to capture a socket that existed before.
func (s *scanner) chosen(p *process.Process, fd int, info *foreign) bool {
	c := &s.live.config
	if c.byDescriptor() {
		return s.descriptorChosen(p, fd)
	}
	if len(c.Ports) > 0 {
		return info.hasPort(c.Ports)
	}
	switch info.domain {
	case unix.AF_INET, unix.AF_INET6:
		return true
	case unix.AF_UNIX:
		if c.Expression != nil {
			return false // they have no IP packets
		}
		return c.UnixStreams || info.typ != unix.SOCK_STREAM // whose filter never runs
	}
	return c.WrapFilter && info.filtered // as in onlyWrapped
}

// attach attaches the tap to a socket, if it takes one. It tells whether its packets are recorded.
func (s *scanner) attach(what string, copied int, info *foreign) bool {
	l := s.live
	f, err := getFilter(copied)
	if err != nil {
		l.refuse(fmt.Sprintf("%s: %v", what, err))
		return false
	}
	if !f.none() && l.inherited(copied, &f) {
		if _, known := s.taps[info.cookie]; !known {
			s.taps[info.cookie] = tapped{what: what}
		}
		return true
	}
	var own bpf.OwnFilter
	if f.extended {
		if own, err = l.hook.Extended(copied); err != nil {
			l.refuse(fmt.Sprintf("%s: %v", what, err))
			return false
		}
		left, err := s.removeLeft(copied, &own)
		if err != nil {
			l.refuse(fmt.Sprintf("%s: %v", what, err))
		}
		if left {
			if f = (filter{}); !l.taps(copied, info) {
				return true // it is marked
			}
		}
	}
	if !f.none() && l.config.WrapFilter {
		return s.wrap(what, copied, info, &f)
	}
	if f.extended {
		if err := mayReplace(&own); err != nil {
			l.refuse(fmt.Sprintf("%s has a filter, and is left as it is: %v", what, err))
			return false
		}
	}
	if !f.none() && !l.config.ReplaceFilter {
		l.filtered(what)
		return false
	}
	return s.replace(what, copied, info, &f, &own)
}

// replace puts the tap in the place of a socket's filter, if it has one.
func (s *scanner) replace(what string, copied int, info *foreign, f *filter, own *bpf.OwnFilter) bool {
	l := s.live
	t := tapped{what: what, classic: f.classic}
	err := mayRestore(copied, f.classic)
	if f.extended {
		t.held, err = s.hold(own)
	}
	if err != nil {
		l.refuse(fmt.Sprintf("%s is left alone: %v", what, err))
		if missing := (*bpf.MissingError)(nil); errors.As(err, &missing) {
			s.denied = err
		}
		return false
	}
	if err := l.tap.Attach(copied); err != nil {
		l.refuse(fmt.Sprintf("%s is not in the kernel view: %v", what, err))
		return false
	}
	s.taps[info.cookie] = t
	if info.listening && info.local.Port() != 0 && t.filtered() {
		s.listeners = append(s.listeners, tappedListener{endpointOf(copied, info), t})
	}
	return true
}

// removeLeft removes the tap of a capture that was killed from a socket. It keeps everything, so the
// socket gets what it did.
func (s *scanner) removeLeft(copied int, own *bpf.OwnFilter) (removed bool, err error) {
	other, _, err := otherTap(own)
	if err != nil || other == nil || !other.Ended || other.Wraps {
		return false, nil
	}
	if err := restoreFilter(copied, nil); err != nil {
		return false, err
	}
	return true, nil
}

// leave removes the tap from the sockets that have it. All sockets of followed processes are
// inspected, since accepted connections inherit the tap.
func (s *scanner) leave() error {
	if len(s.taps) == 0 {
		return nil
	}
	var errs []error
	// Twice: connections inherit the tap while listeners still have it.
	for range 2 {
		errs = append(errs, s.leaveInherited())
		s.eachFollowed(func(p *process.Process) { errs = append(errs, p.EachSocket(s.release)) })
	}
	return errors.Join(errs...)
}

// eachFollowed calls do for each process of the scope, and for those that only the kernel knows to
// be followed: their parents have ended.
func (s *scanner) eachFollowed(do func(*process.Process)) {
	seen := make(map[int]bool)
	_ = s.live.scope.each(func(p *process.Process) error {
		seen[p.PID] = true
		do(p)
		return nil
	})
	for _, pid := range process.All() {
		if seen[pid] || !s.live.hook.Follows(uint32(pid)) {
			continue
		}
		if p, err := process.Open(pid); err == nil {
			do(p)
			p.Close()
		}
	}
}

// leaveInherited removes the tap from the sockets that a command inherited from us, even after
// it has ended.
func (s *scanner) leaveInherited() error {
	command := s.live.command
	if command == nil {
		return nil
	}
	return command.EachFile(func(_ int, own *os.File) (err error) {
		raw, cerr := own.SyscallConn()
		if cerr != nil {
			return nil // closed by its owner
		}
		_ = raw.Control(func(fd uintptr) { // fails if its owner has closed it
			if _, ferr := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE); ferr == nil {
				err = s.release(int(fd), 0)
			}
		})
		return err
	})
}
