package capture

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// follower turns what is known of other processes' system calls into
// deliveries. It belongs to the collector's goroutine.
type follower struct {
	live     *Live
	piece    bpf.Piece
	accepted map[uint64]*followed // connections, by the id that the kernel gave them
	forked   bool                 // there are children that may have what their parent has closed
	closed   []uint64             // those of accepted that a process has closed and another may have
	parts    map[uint32]*parts    // calls that are not complete yet, by thread
	lost     []uint64             // by cpu: losses up to its last record
	spliced  uint64               // bytes
	unknown  uint64               // calls on sockets that nobody knows
}

// closedLimit is how many connections are remembered that one of several
// processes has closed.
const closedLimit = 1 << 14

// parts is a message that comes in several pieces.
type parts struct {
	delivery
	bytes  []byte
	offset uint32
	wanted uint32
	old    bool // was there at the last look already
}

func newFollower(l *Live) *follower {
	return &follower{live: l, accepted: make(map[uint64]*followed), parts: make(map[uint32]*parts)}
}

// roundPieces bounds a look at the ring, so that packets get their turn under any load.
const roundPieces = 1 << 16

// take reads what processes got, in the order of time.
func (f *follower) take(b batch) batch {
	clear(b.deliveries)
	b = batch{deliveries: b.deliveries[:0], bytes: b.bytes[:0]}
	if f.live.reads == nil {
		return b
	}
	for range roundPieces {
		err := f.live.reads.Read(&f.piece)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			f.live.refuse("following the system calls: " + err.Error())
			break
		}
		f.takePiece(&b)
	}
	f.flush(&b)
	slices.SortStableFunc(b.deliveries, func(x, y delivery) int { return cmp.Compare(x.time, y.time) })
	return b
}

// takePiece takes the piece that was just read.
func (f *follower) takePiece(b *batch) {
	p := &f.piece
	switch p.Kind() {
	case bpf.CallSocket:
		f.live.ask(hint{int(p.Pid), int(p.Fd)})
		return
	case bpf.CallFork:
		// Unless it is a thread, the child has what its parent has.
		if group, err := threadGroup(int(p.Result)); err != nil || group != int(p.Pid) {
			f.forked = true
		}
		f.live.ask(hint{})
		return
	case bpf.CallExec:
		f.live.ask(hint{})
		return
	case bpf.CallIOUring:
		f.live.uring.Store(true)
		return
	case bpf.CallDup:
		if conn := f.accepted[p.Socket]; conn != nil {
			conn.copies++
		}
		return
	case bpf.CallAccept:
		f.accept(b)
		return
	case bpf.CallClose:
		f.close(b)
		return
	case bpf.CallSplice:
		f.spliced += uint64(max(p.Result, 0))
		if d, ok := f.delivery(); ok && d.full > 0 {
			b.put(d, nil) // nobody has seen its bytes
		}
		return
	}
	if p.Offset == 0 && p.Caplen == p.Wanted {
		if d, ok := f.delivery(); ok {
			b.put(d, p.Data)
		}
		return
	}
	f.part(b)
}

// part adds a piece to those before it.
func (f *follower) part(b *batch) {
	p := &f.piece
	m := f.parts[p.Tid]
	if m != nil && m.time != int64(p.Time) {
		f.give(b, m)
		m = nil
	}
	if m == nil {
		d, ok := f.delivery()
		if !ok {
			return
		}
		m = &parts{delivery: d, wanted: p.Wanted}
		f.parts[p.Tid] = m
	}
	if p.Offset == m.offset { // else a piece was lost, and what follows it is no use
		m.bytes = append(m.bytes, p.Data...)
		m.offset += p.Caplen
	}
	if p.Offset+p.Caplen == p.Wanted {
		f.give(b, m)
	}
}

func (f *follower) give(b *batch, m *parts) {
	b.put(m.delivery, m.bytes)
	delete(f.parts, m.tid)
}

// flush gives up on messages whose last piece was lost.
func (f *follower) flush(b *batch) {
	for _, m := range f.parts {
		if m.old {
			f.give(b, m)
		}
		m.old = true
	}
}

// put copies a delivery with its bytes.
func (b *batch) put(d delivery, data []byte) {
	at := len(b.bytes)
	b.bytes = append(b.bytes, data...)
	d.data = b.bytes[at:len(b.bytes):len(b.bytes)]
	b.deliveries = append(b.deliveries, d)
}

// delivery makes a delivery of the piece, without its bytes. It is not ok for a
// socket that nobody knows.
func (f *follower) delivery() (d delivery, ok bool) {
	p := &f.piece
	socket := f.socket(p.Socket)
	if socket == nil {
		f.unknown++
		return d, false
	}
	d = delivery{
		time: int64(p.Time), full: int(max(p.Result, 0)), socket: socket, call: p.Kind().String(),
		pid: p.Pid, tid: p.Tid, position: int64(p.Position), peek: p.Flags&unix.MSG_PEEK != 0,
		lost: f.lostBefore(),
	}
	kind := socket.route.Load().kind
	if kind.listens {
		d.end = p.Result == 0 && (p.Room > 0 || p.Kind() != bpf.CallRead && p.Kind() != bpf.CallRecvfrom)
	}
	switch {
	case p.Result < 0:
		d.err = unix.Errno(-p.Result)
	case !kind.stream:
		d.from = unmapped(p.Peer())
		d.cut = p.Room > 0 && p.Wanted >= p.Room
	}
	return d, true
}

// lostBefore is the number of records that the piece's cpu lost since its record before.
func (f *follower) lostBefore() uint64 {
	p := &f.piece
	for int(p.Cpu) >= len(f.lost) {
		f.lost = append(f.lost, 0)
	}
	lost := p.Lost - f.lost[p.Cpu]
	f.lost[p.Cpu] = p.Lost
	return lost
}

// socket finds the socket that the kernel's table calls id.
func (f *follower) socket(id uint64) *followed {
	if s := f.accepted[id]; s != nil {
		return s
	}
	f.live.mu.RLock()
	defer f.live.mu.RUnlock()
	if m := f.live.members[id]; m != nil {
		return &m.followed
	}
	return nil
}

// accept notes a connection that the kernel has begun to follow.
func (f *follower) accept(b *batch) {
	p, l := &f.piece, f.live
	l.mu.RLock()
	listener := l.members[p.Position]
	l.mu.RUnlock()
	if listener == nil {
		return
	}
	if !listener.passesOn.Load() {
		// It has no tap unless it gets one of its own.
		if m := l.lookAt(hint{int(p.Pid), int(p.Result)}); m != nil {
			f.accepted[p.Socket] = &m.followed
			return
		}
	}
	conn := &followed{from: unmapped(p.Peer()), to: netip.AddrPortFrom(netip.Addr{}, listener.port())}
	conn.route.Store(listener.route.Load())
	d := delivery{time: int64(p.Time), socket: conn, opened: true, from: conn.from, to: conn.to}
	if !conn.from.IsValid() {
		// The process did not ask who it is. Perhaps it has not closed it yet.
		if from, to := l.ends(int(p.Pid), int(p.Result)); from.IsValid() {
			conn.from, conn.to, conn.asked = from, to, true
		}
	}
	b.deliveries = append(b.deliveries, d)
	f.accepted[p.Socket] = conn
}

// lookAt looks at a descriptor without waiting for the scanner; nil if it is
// no socket that was chosen.
func (l *Live) lookAt(h hint) *member {
	if err := l.glance(h); err != nil {
		l.refuse(err.Error())
	}
	l.scans.Lock()
	defer l.scans.Unlock()
	p := l.processes[h.pid]
	if p == nil {
		return nil
	}
	inode, ok := p.seen[h.fd]
	if !ok {
		return nil
	}
	return l.inodes[inode]
}

// ends asks a connection for its two addresses; invalid if it is gone.
func (l *Live) ends(pid, fd int) (from, to netip.AddrPort) {
	l.mu.RLock()
	p := l.processes[pid]
	l.mu.RUnlock()
	if p == nil {
		return
	}
	copied, err := p.copyDescriptor(fd)
	if err != nil {
		return
	}
	defer unix.Close(copied)
	info, err := inspect(copied)
	if err != nil {
		return
	}
	return info.peer, info.local
}

// close notes that a process has closed a socket, which it may have passed on to others.
func (f *follower) close(b *batch) {
	p := &f.piece
	l := f.live
	l.mu.Lock()
	l.gone = append(l.gone, goneSocket{p.Pid, p.Fd, p.Socket})
	f.forked = f.forked || len(l.processes) > 1
	l.mu.Unlock()
	conn := f.accepted[p.Socket]
	switch {
	case conn == nil:
		return
	case conn.copies > 0:
		conn.copies--
		return
	case !f.forked:
		f.end(b, p.Socket)
		return
	}
	f.closed = append(f.closed, p.Socket)
	if len(f.closed) > closedLimit {
		f.end(b, f.closed[0])
		f.closed = f.closed[1:]
	}
}

// end forgets a connection.
func (f *follower) end(b *batch, id uint64) {
	if conn := f.accepted[id]; conn != nil {
		b.deliveries = append(b.deliveries, delivery{time: int64(f.piece.Time), socket: conn, closed: true})
		delete(f.accepted, id)
	}
}

func (f *follower) remarks() []string {
	var all []string
	if f.unknown > 0 {
		all = append(all, fmt.Sprintf("%d receiving calls were on sockets that were gone before they could be looked at", f.unknown))
	}
	return all
}
