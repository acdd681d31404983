package capture

import (
	"cmp"
	"errors"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// follower turns what is known of other processes' system calls into
// deliveries. It belongs to the collector's goroutine.
type follower struct {
	live    *Live
	event   bpf.Event
	parts   map[uint32]*parts // calls that are not complete yet, by thread
	lost    []uint64          // by cpu: losses up to its last event
	spliced uint64            // bytes
}

// parts is a message that comes in several pieces.
type parts struct {
	delivery
	bytes  []byte
	offset uint32
	wanted uint32
	old    bool // was there at the last look already
}

func newFollower(l *Live) *follower {
	return &follower{live: l, parts: make(map[uint32]*parts)}
}

const (
	// roundEvents and roundBytes bound a look at the ring, so that packets get their
	// turn under any load, and memory has an end.
	roundEvents = 1 << 13
	roundBytes  = 4 << 20
)

// take reads what processes got, in the order of time.
func (f *follower) take(b batch) batch {
	clear(b.deliveries)
	b = batch{deliveries: b.deliveries[:0], bytes: b.bytes[:0]}
	if f.live.calls == nil {
		return b
	}
	for n := 0; n < roundEvents && len(b.bytes) < roundBytes; n++ {
		err := f.live.calls.Read(&f.event)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			f.live.refuse("following the system calls: " + err.Error())
			break
		}
		f.takeEvent(&b)
	}
	f.flush(&b)
	slices.SortStableFunc(b.deliveries, func(x, y delivery) int { return cmp.Compare(x.time, y.time) })
	return b
}

// takeEvent takes the event that was just read.
func (f *follower) takeEvent(b *batch) {
	e := &f.event
	switch kind := e.Kind(); {
	case kind == bpf.CallIOUring:
		f.live.uring.Store(true)
	case kind == bpf.CallListen || kind == bpf.CallBind:
		f.live.roster.news(e)
		if e.Type != unix.SOCK_STREAM {
			f.live.scanner.ask(request{pid: int(e.Pid), fd: int(e.Fd), cookie: e.Cookie, bound: true})
		}
	case !kind.Receives():
		f.live.scanner.ask(request{pid: int(e.Pid), fd: int(e.Fd), cookie: e.Cookie})
	case kind.Unseen():
		f.spliced += uint64(max(e.Result, 0))
		if d, ok := f.delivery(); ok && d.full > 0 {
			b.put(d, nil) // nobody has seen its bytes
		}
	case e.Offset == 0 && e.Caplen == e.Wanted:
		if d, ok := f.delivery(); ok {
			b.put(d, e.Data)
		}
	default:
		f.part(b)
	}
}

// part adds a piece to those before it.
func (f *follower) part(b *batch) {
	e := &f.event
	m := f.parts[e.Tid]
	if m != nil && (m.time != int64(e.Time) || e.Offset == 0) {
		f.give(b, m)
		m = nil
	}
	if m == nil {
		d, ok := f.delivery()
		if !ok {
			return
		}
		m = &parts{delivery: d, wanted: e.Wanted}
		f.parts[e.Tid] = m
	}
	if e.Offset == m.offset { // else a piece was lost, and what follows it is no use
		m.bytes = append(m.bytes, e.Data...)
		m.offset += e.Caplen
	}
	if e.Offset+e.Caplen == e.Wanted {
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

// delivery makes a delivery of the event, without its bytes. It is not ok for a
// socket of no kind.
func (f *follower) delivery() (d delivery, ok bool) {
	e := &f.event
	at := f.live.roster.ofEvent(e)
	if at == nil {
		return d, false
	}
	d = delivery{
		time: int64(e.Time), full: int(max(e.Result, 0)), cookie: e.Cookie, route: at, call: e.Kind().String(),
		pid: e.Pid, tid: e.Tid, peek: e.Flags&unix.MSG_PEEK != 0, lost: f.lostBefore(),
		from: e.Peer(), to: e.Local(),
	}
	d.seq, d.sequenced = e.StreamPlace()
	if at.kind.listens {
		// A read into no room returns nothing, too.
		d.end = e.Result == 0 && (e.Room > 0 || e.Kind().Unseen() || e.Flags&unix.MSG_TRUNC != 0)
	}
	switch {
	case e.Result < 0:
		d.err = unix.Errno(-e.Result)
	case !at.kind.stream:
		if sender := e.Sender(); sender.IsValid() {
			d.from = sender
		}
		d.cut = e.Short() || e.Room > 0 && e.Wanted >= e.Room && e.Kind() != bpf.CallRecvmsg && e.Kind() != bpf.CallRecvmmsg
	}
	return d, true
}

// lostBefore is the number of events that the event's cpu lost since its event before.
func (f *follower) lostBefore() uint64 {
	e := &f.event
	for int(e.Cpu) >= len(f.lost) {
		f.lost = append(f.lost, 0)
	}
	lost := e.Lost - f.lost[e.Cpu]
	f.lost[e.Cpu] = e.Lost
	return lost
}
