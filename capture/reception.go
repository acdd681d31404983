package capture

import (
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/pair"
)

// Reception is what a receiving call was given, and what it said besides a message's bytes and
// its sender. The zero Reception is that of a call of which nothing is known.
type Reception struct {
	// Buffer is the size of the buffer that the call was given, in bytes, all its parts
	// together, if it is known (HasBuffer). It is not for a call that put nothing there: one
	// that failed, or that discarded bytes of a stream (MSG_TRUNC).
	Buffer    uint32
	HasBuffer bool
	// Cut says that the buffer had no room for the whole message, and Whole is how many bytes
	// that has, 0 if it is not known. Then Buffer is known.
	Cut   bool
	Whole uint32
	// Flags are those that recvmsg or recvmmsg returned in msg_flags, such as unix.MSG_CTRUNC.
	Flags uint32
	// Segment is the size of the datagrams of which one call got several (UDP_GRO), but for the
	// last one, which may be shorter. It is 0 for a single datagram.
	Segment uint32
	// Controls are the ancillary data that came with the message, by kind and size. It belongs
	// to the packet like its Data.
	Controls []Control
	// ControlRest is how many bytes of ancillary data there are besides.
	ControlRest uint32
}

// Control is a control message of ancillary data (cmsg(3)).
type Control struct {
	// Level and Type are those of struct cmsghdr, such as unix.SOL_SOCKET and unix.SCM_RIGHTS.
	Level, Type int32
	// Len is the length of its data, in bytes.
	Len uint32
}

// ControlsMax is how many Controls a Reception has at most.
const ControlsMax = len(bpf.ControlHeaders{}.All)

// Descriptors is how many file descriptors came with the message (SCM_RIGHTS).
func (r *Reception) Descriptors() (n int) {
	for _, c := range r.Controls {
		if c.Level == unix.SOL_SOCKET && c.Type == unix.SCM_RIGHTS {
			n += int(c.Len / 4)
		}
	}
	return n
}

// Datagrams is how many datagrams are in a message of that length, and the length of the last.
func (r *Reception) Datagrams(length int) (n, last int) {
	segment := int(r.Segment)
	if segment == 0 || length <= segment {
		return 1, length
	}
	n = (length + segment - 1) / segment
	return n, length - (n-1)*segment
}

// echoed are flags of a call that recvmsg returns as they were given, saying nothing of the
// message.
const echoed = unix.MSG_CMSG_CLOEXEC | 1<<31 // MSG_CMSG_COMPAT

// receptionOf returns what an event says. The Controls are in memory of the follower.
func (f *follower) receptionOf(e *bpf.Event, stream bool) (r Reception) {
	if e.Result < 0 {
		return r // nothing was put into the buffer, and its size was not looked at
	}
	// Of a stream, MSG_TRUNC discards what would have been put into the buffer.
	if discards := stream && e.Flags&unix.MSG_TRUNC != 0; !e.Unseen() && e.Room != bpf.RoomUnknown && !discards {
		r.Buffer, r.HasBuffer = e.Room, true
	}
	r.Flags = e.MsgFlags &^ echoed
	if e.HasControl() {
		f.takeControls(e, &r)
	}
	return r
}

// waitingControls is the ancillary data of a message that is to come.
type waitingControls struct {
	cpu, number uint32 // of the event, which the message has, too
	headers     bpf.ControlHeaders
}

// controlsKept bounds the ancillary data whose messages do not come, since the ring had no room
// for them: that which waits for longest is forgotten.
const controlsKept = 1 << 10

// controlTable is the ancillary data of messages whose own event has not come, by thread.
type controlTable struct{ recent, earlier map[uint32]waitingControls }

func (t *controlTable) put(tid uint32, w waitingControls) {
	if t.recent == nil || len(t.recent) >= controlsKept/2 {
		t.earlier, t.recent = t.recent, make(map[uint32]waitingControls)
	}
	t.recent[tid] = w
}

// take removes what waits for a thread's message.
func (t *controlTable) take(tid uint32) (w waitingControls, ok bool) {
	if w, ok = t.recent[tid]; !ok {
		w, ok = t.earlier[tid]
	}
	delete(t.recent, tid)
	delete(t.earlier, tid)
	return w, ok
}

// noteControls keeps the ancillary data that the event tells of.
func (f *follower) noteControls(e *bpf.Event) {
	headers, ok := e.Controls()
	if !ok {
		return
	}
	f.controls.put(e.Tid, waitingControls{cpu: e.Cpu, number: e.Control, headers: headers})
}

// takeControls adds the ancillary data of the event's message. If it was lost, this is said by
// a rest.
func (f *follower) takeControls(e *bpf.Event, r *Reception) {
	w, ok := f.controls.take(e.Tid)
	if !ok || e.Control == 0 || w.cpu != e.Cpu || w.number != e.Control {
		r.ControlRest = unix.SizeofCmsghdr
		return
	}
	f.listed = f.listed[:0]
	for _, h := range w.headers.All {
		if h.Len < unix.SizeofCmsghdr {
			break
		}
		f.listed = append(f.listed, Control{Level: h.Level, Type: h.Type, Len: h.Len - unix.SizeofCmsghdr})
	}
	r.Controls, r.ControlRest, r.Segment = f.listed, w.headers.Rest, w.headers.Segment
}

// complete completes what the call said with what is known of its packet.
func (r *Reception) complete(d *delivery, m *pair.Match, stream bool) {
	if stream || d.err != nil {
		return
	}
	whole := m.Whole
	if r.HasBuffer && d.Full > int(r.Buffer) {
		whole = d.Full
	}
	if whole == 0 && r.Flags&unix.MSG_TRUNC == 0 {
		return
	}
	if !r.HasBuffer {
		if d.callFlags&unix.MSG_TRUNC != 0 {
			return // the call returned the length of the message, so that of the buffer stays unknown
		}
		r.Buffer, r.HasBuffer = uint32(d.Full), true // it is full
	}
	r.Cut, r.Whole = true, uint32(whole)
}
