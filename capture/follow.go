package capture

import (
	"math"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// follower turns the events of other processes' system calls into deliveries. It belongs to the
// collector's goroutine.
type follower struct {
	live     *Live
	event    bpf.Event
	parts    map[uint32]*parts // incomplete messages, by thread
	controls controlTable
	listed   []Control // the ancillary data of the event that was just read
	lost     losses    // of events
	spliced  uint64    // bytes
	times    sendTimes
	unsent   losses // of events of sends
	moved    uint64 // bytes that were sent, of which only the number is known

	aim     bpf.Place // position in the ring to read up to
	aimed   int64     // boot time when it was read
	aiming  bool      // it has not been reached yet
	horizon int64     // boot time up to which all events were read
}

// parts is a message that comes in several pieces.
type parts struct {
	delivery
	ended  uint64 // the Time of its pieces
	bytes  []byte
	offset uint32
	wanted uint32
	taken  int64 // boot time when its last piece was read: the next ones come at once
}

func newFollower(l *Live) *follower {
	return &follower{live: l, parts: make(map[uint32]*parts), times: newSendTimes(l.config.Views)}
}

// routeOf finds the route of a packet.
func (f *follower) routeOf(rec *bpf.Record) *route { return f.live.roster.ofRecord(rec) }

func (f *follower) outlets() []*outlet { return f.live.roster.listOutlets() }

// rests tells whether all events were read, so that the next one wakes the collector.
func (f *follower) rests() bool {
	calls := f.live.calls
	return len(f.parts) == 0 && !f.aiming && (calls == nil || calls.EndsSleep())
}

// takenBytes bounds what is read from the ring at once, so that packets are processed under any
// load, and memory is bounded.
const takenBytes = 2 << 20

// take reads what processes got, ordered by time.
func (f *follower) take(b batch, last, hurry bool) (taken batch, horizon int64) {
	calls := f.live.calls
	if calls == nil {
		return b, math.MaxInt64
	}
	if err := calls.Begin(); err != nil {
		return b, f.times.horizon(f.horizon, hurry)
	}
	defer calls.End()
	if !f.aiming {
		f.aimed, f.aim, f.aiming = bootNow(), calls.Reserved(), true
	}
	var newest int64
	for begin := calls.At(); calls.At() < f.aim && calls.At()-begin < takenBytes; {
		ok, err := calls.Next(&f.event)
		if err != nil {
			f.live.refuse("following the system calls: " + err.Error())
			continue
		}
		if !ok {
			break // it is still being written
		}
		newest = int64(f.event.Time)
		f.takeEvent(&b)
	}
	if calls.At() >= f.aim {
		f.horizon, f.aiming = f.aimed, false
	} else {
		// Hardly any event after it is older.
		f.horizon = max(f.horizon, newest)
	}
	horizon = f.times.horizon(f.incomplete(&b, last), hurry)
	slices.SortStableFunc(b.deliveries, byTime)
	return b, horizon
}

// incomplete discards messages whose last piece was lost, or all incomplete ones, and returns
// the time up to which everything is complete.
func (f *follower) incomplete(b *batch, last bool) (horizon int64) {
	horizon = f.horizon
	for _, m := range f.parts {
		if last || m.taken < f.horizon {
			f.give(b, m)
			continue
		}
		horizon = min(horizon, m.Time-1)
	}
	return horizon
}

// takeEvent processes the event that was just read.
func (f *follower) takeEvent(b *batch) {
	e := &f.event
	switch kind := e.Kind(); {
	case kind == bpf.CallControl:
		f.noteControls(e)
	case kind == bpf.CallIOUring:
		f.live.uring.Store(true)
	case kind == bpf.CallSocket || kind == bpf.CallAccept:
		f.live.scanner.ask(request{pid: int(e.Pid), fd: int(e.Fd), cookie: e.Cookie})
	case kind == bpf.CallListen || kind == bpf.CallBind:
		f.live.roster.news(e)
		switch {
		case kind == bpf.CallListen && f.live.config.wantsPort(e.LocalPort):
			// The socket may have been made by another process.
			f.live.scanner.ask(request{pid: int(e.Pid), fd: int(e.Fd), cookie: e.Cookie})
		case e.Type != unix.SOCK_STREAM:
			f.live.scanner.ask(request{pid: int(e.Pid), fd: int(e.Fd), cookie: e.Cookie, bound: true})
		}
	case !kind.Receives() && !kind.Sends():
		f.live.scanner.ask(request{pid: int(e.Pid), fd: int(e.Fd), cookie: e.Cookie})
	case kind.Sends() && e.Unseen():
		f.moved += uint64(max(e.Result, 0))
		if d, ok := f.delivery(); ok {
			b.put(&d, nil)
		}
	case e.Unseen():
		f.spliced += uint64(max(e.Result, 0))
		// TCP_ZEROCOPY_RECEIVE may return nothing when the process has to do something else. Where
		// splice has, it took an empty datagram, or the stream has ended.
		if d, ok := f.delivery(); ok && (d.Full > 0 || e.Result == 0 && kind == bpf.CallSplice) {
			b.put(&d, nil) // its bytes were not read
		}
	case e.Offset == 0 && e.Caplen == e.Wanted:
		if d, ok := f.delivery(); ok {
			b.put(&d, e.Data)
		}
	default:
		f.part(b)
	}
}

// part appends a piece to those before it.
func (f *follower) part(b *batch) {
	e := &f.event
	m := f.parts[e.Tid]
	if m != nil && (m.ended != e.Time || e.Offset == 0) {
		f.give(b, m)
		m = nil
	}
	if m == nil {
		d, ok := f.delivery()
		if !ok {
			return
		}
		d.reception.Controls = slices.Clone(d.reception.Controls)
		m = &parts{delivery: d, ended: e.Time, wanted: e.Wanted}
		f.parts[e.Tid] = m
	}
	if e.Offset == m.offset { // else a piece was lost, and those after it are useless
		m.bytes = append(m.bytes, e.Data...)
		m.offset += e.Caplen
	}
	m.taken = bootNow()
	if e.Offset+e.Caplen == e.Wanted {
		f.give(b, m)
	}
}

func (f *follower) give(b *batch, m *parts) {
	b.put(&m.delivery, m.bytes)
	delete(f.parts, m.tid)
}

// delivery makes a delivery of the event, without its bytes. ok is false for a socket of no
// Kind.
func (f *follower) delivery() (d delivery, ok bool) {
	e := &f.event
	at := f.live.roster.ofEvent(e)
	if at == nil {
		return d, false
	}
	if e.Kind().Sends() {
		return f.send(at), true
	}
	d = delivery{route: at, call: e.CallName(), pid: e.Pid, tid: e.Tid, lost: f.lost.since(e.Cpu, e.Lost)}
	d.Time, d.Full, d.Cookie, d.Peek = int64(e.Time), int(max(e.Result, 0)), e.Cookie, e.Flags&unix.MSG_PEEK != 0
	d.From, d.To = e.Peer(), e.Local()
	d.inode = e.Inode()
	d.Seq, d.Sequenced = e.StreamPlace()
	d.reception, d.callFlags = f.receptionOf(e, at.kind.stream), e.Flags
	d.Ack = e.Ack
	if at.kind.listens {
		// A read into an empty buffer returns 0, too.
		d.end = e.Result == 0 && (e.Room > 0 || e.Unseen() || e.Flags&unix.MSG_TRUNC != 0)
	}
	switch {
	case e.Result < 0:
		d.err = unix.Errno(-e.Result)
	case !at.kind.stream:
		if sender := e.Sender(); sender.IsValid() {
			d.From = sender
		}
		d.Cut = e.Short() || mayBeCut(e)
	}
	return d, true
}

// mayBeCut tells whether a message may have been longer than the buffer, of a call to which the
// kernel does not say that.
func mayBeCut(e *bpf.Event) bool {
	switch kind := e.Kind(); {
	case kind == bpf.CallRecvmsg || kind == bpf.CallRecvmmsg:
		return false
	case e.Unseen() && kind != bpf.CallSplice:
		return false // nothing is known of the buffer
	}
	return e.Room == bpf.RoomUnknown || e.Result >= int64(e.Room)
}

// send is delivery for a call that sends.
func (f *follower) send(at *route) delivery {
	e := &f.event
	d := delivery{route: at, sent: true, call: e.CallName(), pid: e.Pid, tid: e.Tid, lost: f.unsent.since(e.Cpu, e.Lost), Ack: e.Ack}
	d.Time, d.Full, d.Cookie = f.times.of(int64(e.Began), int64(e.Time)), int(max(e.Result, 0)), e.Cookie
	d.began = int64(e.Began)
	d.From, d.To = e.Local(), e.Peer()
	d.inode = e.Inode()
	if to := e.Destination(); to.IsValid() && !at.kind.stream {
		d.To = to
	}
	d.Seq, d.Sequenced = e.StreamPlace()
	if e.Result < 0 {
		d.err = unix.Errno(-e.Result)
	}
	return d
}
