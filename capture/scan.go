package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// goneSocket is a descriptor that a process with children has closed: the
// kernel's table still has it, for a child that nobody has looked at yet.
type goneSocket struct {
	pid uint32
	fd  int32
	id  uint64
}

// scan looks at the sockets of the process and of its children, and takes those
// that are new.
func (l *Live) scan() error {
	l.scans.Lock()
	defer l.scans.Unlock()
	l.mu.Lock()
	gone := l.gone
	l.gone = nil
	l.mu.Unlock()
	if l.root == nil {
		return nil
	}
	if err := l.watch(l.root); err != nil {
		return err
	}
	queue := []*watched{l.processes[l.root.pid]}
	alive := map[int]bool{}
	var errs []error
	for len(queue) > 0 {
		p := queue[0]
		queue = queue[1:]
		alive[p.pid] = true
		err := l.scanProcess(p)
		if err == nil && !p.scanned {
			// Again: what was copied before the original was watched is there by now.
			p.scanned = true
			err = l.scanProcess(p)
		}
		if err != nil && !p.exited() {
			errs = append(errs, err)
		}
		for _, pid := range p.children() {
			if child := l.child(pid); child != nil && !alive[pid] {
				queue = append(queue, child)
			}
		}
	}
	l.bury(alive)
	l.forgetClosed()
	l.askQueues(true)
	for _, g := range gone {
		l.reads.ForgetSocket(g.pid, g.fd, g.id)
	}
	return errors.Join(errs...)
}

// hint names a descriptor that has become a socket, or one that it was not
// before; the zero hint means that everything must be looked at.
type hint struct{ pid, fd int }

// glance looks at a single descriptor.
func (l *Live) glance(h hint) error {
	l.scans.Lock()
	defer l.scans.Unlock()
	p := l.processes[h.pid]
	if p == nil {
		return nil // a child that the next scan finds
	}
	target, err := os.Readlink(p.proc(fmt.Sprintf("fd/%d", h.fd)))
	if err != nil {
		return nil // closed by now
	}
	inode, ok := openFile{h.fd, target}.inode()
	if !ok {
		return nil
	}
	return l.see(p, h.fd, inode)
}

// child finds a process that a watched one has started; nil if it has ended.
func (l *Live) child(pid int) *watched {
	if p := l.processes[pid]; p != nil {
		return p
	}
	p, err := openProcess(pid)
	if err != nil {
		return nil
	}
	if err := l.watch(p); err != nil {
		l.refuse(err.Error())
		p.close()
		return nil
	}
	return l.processes[pid]
}

func (l *Live) watch(p *process) error {
	if l.processes[p.pid] != nil {
		return nil
	}
	follow := l.reads != nil && !p.is32Bit()
	if follow {
		// Before it is looked at, so that nothing is missed between the two.
		if err := l.reads.DiscoverProcess(uint32(p.pid)); err != nil {
			return err
		}
	}
	l.keeper.tell(keepProcess, uint64(p.pid))
	l.mu.Lock()
	l.processes[p.pid] = &watched{process: p, follow: follow, seen: make(map[int]uint64), ignored: make(map[uint64]struct{})}
	l.mu.Unlock()
	return nil
}

// bury forgets the processes that have ended.
func (l *Live) bury(alive map[int]bool) {
	for pid, p := range l.processes {
		if alive[pid] && !p.exited() || p.process == l.root || !p.exited() {
			continue
		}
		if l.reads != nil {
			l.reads.ForgetProcess(uint32(pid))
			for fd, inode := range p.seen {
				l.forget(p, fd, inode)
			}
		}
		l.mu.Lock()
		delete(l.processes, pid)
		l.mu.Unlock()
		p.close()
	}
}

// forgetAfter is how long after the end of a socket its packets are still to come.
const forgetAfter = 5 * time.Second

// forgetClosed forgets the sockets that no process has any more. Not at once,
// since their last packets may still be on their way, and not the listeners,
// whose connections live on.
func (l *Live) forgetClosed() {
	open := make(map[uint64]bool)
	for _, p := range l.processes {
		for _, inode := range p.seen {
			open[inode] = true
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for cookie, m := range l.members {
		if open[m.inode] {
			m.missing = time.Time{}
			continue
		}
		if m.missing.IsZero() {
			m.missing = time.Now()
		}
		if time.Since(m.missing) > forgetAfter && !m.listening {
			m.closeDrops()
			delete(l.members, cookie)
			delete(l.inodes, m.inode)
			l.keeper.tell(keepGone, m.inode)
		}
	}
}

func (l *Live) scanProcess(p *watched) error {
	files, err := p.descriptors()
	if err != nil {
		return err
	}
	open := make(map[int]uint64)
	var errs []error
	for _, f := range files {
		if f.target == "anon_inode:[io_uring]" {
			l.uring.Store(true)
		}
		inode, ok := f.inode()
		if !ok {
			continue
		}
		open[f.fd] = inode
		if err := l.see(p, f.fd, inode); err != nil {
			errs = append(errs, err)
		}
	}
	for fd, inode := range p.seen {
		if open[fd] != inode {
			l.forget(p, fd, inode)
			delete(p.seen, fd)
		}
	}
	for inode := range p.ignored {
		if !slices.Contains(values(open), inode) {
			delete(p.ignored, inode)
		}
	}
	if l.packets || !l.joined {
		l.lookForMapped(p.process)
	}
	if p.follow && p.process != l.root {
		// From here on it has descriptors of its own.
		errs = append(errs, l.reads.WatchProcess(uint32(p.pid)))
	}
	return errors.Join(errs...)
}

// lookForMapped notes whether a process reads packets from its own memory.
func (l *Live) lookForMapped(p *process) {
	if l.mapped.Load() {
		return
	}
	for inode := range p.mappedSockets() {
		if l.inodes[inode] != nil {
			l.mapped.Store(true)
		}
	}
}

func values(m map[int]uint64) []uint64 {
	all := make([]uint64, 0, len(m))
	for _, v := range m {
		all = append(all, v)
	}
	return all
}

func (l *Live) forget(p *watched, fd int, inode uint64) {
	if m := l.inodes[inode]; m != nil && l.reads != nil {
		l.reads.ForgetSocket(uint32(p.pid), int32(fd), m.cookie)
	}
}

// see deals with a descriptor that is open.
func (l *Live) see(p *watched, fd int, inode uint64) error {
	if _, ignored := p.ignored[inode]; ignored {
		return nil
	}
	m := l.inodes[inode]
	if m != nil && m.settled.Load() && p.seen[fd] == inode {
		return nil
	}
	if before, ok := p.seen[fd]; ok && before != inode {
		l.forget(p, fd, before)
	}
	if m != nil && m.settled.Load() {
		p.seen[fd] = inode
		return l.follow(p, fd, m)
	}
	copied, err := p.copyDescriptor(fd)
	if errors.Is(err, unix.EBADF) || errors.Is(err, unix.ESRCH) {
		return nil // closed by now
	}
	if err != nil {
		return err
	}
	defer unix.Close(copied)
	return l.look(p, fd, inode, copied, false)
}

// look deals with a socket that is new, or of which it is not known yet what
// it is for. The filter of one that is ours does not count.
func (l *Live) look(p *watched, fd int, inode uint64, copied int, ours bool) error {
	info, err := inspect(copied)
	if err != nil {
		return nil // shut down by now
	}
	if m := l.inodes[inode]; m != nil {
		l.settle(m, info)
		p.seen[fd] = inode
		return l.follow(p, fd, m)
	}
	parent := l.parentOf(&info)
	kind := info.kind()
	if kind == nil || parent == nil && !l.chosen(p, fd, &info) {
		if kind == nil || info.local.Port() != 0 || len(l.config.Ports) == 0 {
			p.ignored[inode] = struct{}{}
		}
		return nil
	}
	m := &member{foreign: info, inode: inode, owner: p.process, fd: fd}
	p.seen[fd] = inode
	l.add(m, kind, parent)
	if err := l.follow(p, fd, m); err != nil {
		return err
	}
	l.attach(m, copied, parent, ours)
	return nil
}

// chosen tells whether the user wants the socket.
func (l *Live) chosen(p *watched, fd int, info *foreign) bool {
	if len(l.config.Descriptors) > 0 {
		return p.process == l.root && slices.Contains(l.config.Descriptors, fd)
	}
	if len(l.config.Ports) > 0 {
		return info.hasPort(l.config.Ports)
	}
	switch info.domain {
	case unix.AF_INET, unix.AF_INET6:
		return true
	case unix.AF_UNIX:
		return info.typ != unix.SOCK_STREAM // whose filter never runs
	}
	return false
}

// parentOf finds the listener that a connection was accepted from.
func (l *Live) parentOf(info *foreign) *member {
	if info.typ != unix.SOCK_STREAM || info.listening || !info.local.IsValid() {
		return nil
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, m := range l.listeners[info.local.Port()] {
		if m.local.Addr().IsUnspecified() || m.local.Addr() == info.local.Addr() {
			return m
		}
	}
	return nil
}

// add makes a socket a member and finds its outlet.
func (l *Live) add(m *member, kind *Kind, parent *member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.members[m.cookie], l.inodes[m.inode] = m, m
	l.packets = l.packets || m.domain == unix.AF_PACKET
	m.from, m.to = m.peer, m.local
	if parent != nil {
		m.settled.Store(true)
		m.route.Store(parent.route.Load())
		return
	}
	l.place(m, kind)
}

// settle looks again at a socket that had no address when it was taken.
func (l *Live) settle(m *member, info foreign) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m.local, m.peer, m.listening = info.local, info.peer, info.listening
	if !m.own {
		l.place(m, info.kind())
	}
}

// lookAgain settles a socket without waiting for the scanner.
func (l *Live) lookAgain(m *member) {
	copied, err := m.owner.copyDescriptor(m.fd)
	if err != nil {
		return // closed by now
	}
	defer unix.Close(copied)
	if info, err := inspect(copied); err == nil && info.cookie == m.cookie {
		l.settle(m, info)
	}
}

// place gives a socket its route: listeners, and what was there when we came,
// get interfaces of their own; other sockets share those of their kind.
func (l *Live) place(m *member, kind *Kind) {
	m.localPort.Store(uint32(m.local.Port()))
	bound := m.local.Port() != 0 || m.domain == unix.AF_UNIX
	m.settled.Store(m.listening || m.peer.IsValid() || bound && !kind.stream || m.typ == unix.SOCK_RAW)
	single := m.listening || !l.joined && !kind.stream || bound && !kind.stream && !m.peer.IsValid()
	if single && !m.own && l.owned < ownPlaces {
		m.own = true
		l.owned++
		pl := l.newOutlet(kind, m.String())
		l.route(m, kind, pl)
	} else if m.route.Load() == nil {
		pl := l.shared[kind]
		if pl == nil {
			pl = l.newOutlet(kind, fmt.Sprintf("%s, its other sockets", l.root))
			l.shared[kind] = pl
		}
		l.route(m, kind, pl)
	}
	if m.listening && !slices.Contains(l.listeners[m.local.Port()], m) {
		l.listeners[m.local.Port()] = append(l.listeners[m.local.Port()], m)
		l.keeper.tell(keepPort, uint64(m.local.Port()))
	}
}

// route sends a socket's packets to an outlet. Datagrams are paired for each
// socket by itself, wherever its packets go; streams by their addresses.
func (l *Live) route(m *member, kind *Kind, pl *outlet) {
	r := newRoute(kind, pl)
	switch p := r.pairer.(type) {
	case *streams:
		r.pairer = l.streams
	case *datagrams:
		p.uncounted = true
		if before := m.route.Load(); before != nil {
			r.pairer, r.lost = before.pairer, before.lost
		}
	}
	if kind.TakesProtocol() {
		r.protocol = uint8(m.protocol)
	}
	m.route.Store(r)
}

func (l *Live) newOutlet(kind *Kind, text string) *outlet {
	pl := newOutlet(kind, l.config.Views, l.collector.clock.bound)
	if at := pl.lanes[ViewUser]; at != nil {
		at.Description = strings.Replace(at.Description, "what recvmsg returned to userspace",
			"what read, readv, recvfrom, recvmsg and recvmmsg returned to the process", 1)
	}
	pl.describe(text)
	l.outlets = append(l.outlets, pl)
	return pl
}

// follow begins to record what a process gets from a socket. One that a child has
// from its parent goes on where the parent was.
func (l *Live) follow(p *watched, fd int, m *member) error {
	if l.reads == nil || l.reads.WatchInherited(uint32(p.pid), int32(fd)) {
		return nil
	}
	return l.reads.WatchSocket(uint32(p.pid), int32(fd), m.cookie)
}

// attach puts the tap on a member, if it takes one.
func (l *Live) attach(m *member, copied int, parent *member, ours bool) {
	f, err := getFilter(copied)
	if err != nil {
		l.refuse(fmt.Sprintf("%s: %v", m, err))
		return
	}
	if ours {
		f = filter{}
	}
	if f.extended && parent != nil && parent.tapped {
		m.tapped = true // inherited
		return
	}
	if !f.none() && parent != nil && !parent.tapped {
		return // inherited from a listener that is left alone
	}
	if !f.none() && !l.config.ReplaceFilter {
		l.refuse(fmt.Sprintf("%s has a filter already, and is left alone: --replace-filter takes its place", m))
		return
	}
	if err := mayRestore(copied, f.classic); err != nil {
		l.refuse(fmt.Sprintf("%s is left alone: %v", m, err))
		l.denied = err
		return
	}
	if f.extended {
		l.refuse(fmt.Sprintf("%s had an eBPF filter, which cannot be put back at the end", m))
	}
	l.keeper.tellSocket(m.inode, f.classic)
	m.before.low = queueDrops(copied)
	if err := l.tap.Attach(copied); err != nil {
		l.refuse(fmt.Sprintf("%s is not in the kernel view: %v", m, err))
		return
	}
	m.before.high = queueDrops(copied)
	m.drops = m.before.high
	m.tapped, m.saved = true, f.classic
	m.passesOn.Store(!m.route.Load().kind.adopts)
}

// routeOf finds the way of a packet by the socket whose filter ran: one that we
// know, or a connection that a listener passed the tap on to. nil is for one
// that was forgotten.
func (l *Live) routeOf(rec *bpf.Record) *route {
	l.mu.RLock()
	m := l.members[rec.Cookie]
	l.mu.RUnlock()
	if m != nil && !m.settled.Load() {
		// Its own packet comes before the news of what made it possible.
		l.lookAgain(m)
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if m != nil {
		r := m.route.Load()
		if r.kind.stream && !m.listening && !m.from.IsValid() {
			var p Packet
			address(&p, rec, r.kind.layer)
			m.from, m.to = p.Src, p.Dst
		}
		return r
	}
	if len(rec.Data) >= 4 {
		for _, m := range l.listeners[binary.BigEndian.Uint16(rec.Data[2:])] {
			return m.route.Load()
		}
	}
	return nil
}
