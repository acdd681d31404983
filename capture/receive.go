package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture/internal/pair"
)

const (
	// receiveSize holds the longest datagram, including its link header and more than the 64
	// KiB of an IP packet, and a read of a stream as large as the longest segment.
	receiveSize = 68 << 10
	// receiveMessages is how many messages one call returns at most.
	receiveMessages = 64
	// oobSize holds the ancillary data of a message: the count of drops, and as many
	// descriptors as a unix socket passes at once (SCM_MAX_FD).
	oobSize = 24 + 16 + 253*4 + 4
)

// receiver reads what a socket has received, several messages at a time: recvmmsg(2) does for
// each of them what recvmsg does. It allocates nothing in the long run.
type receiver struct {
	socket   *socket
	discards bool // no view needs the bytes
	flags    uintptr
	memory   []byte // receiveSize for each message
	messages []message
	envelope []envelope
	call     func(fd uintptr) bool

	count int    // messages that the last call returned
	err   error  // of the last call
	fails int    // calls in a row that returned just this error
	last  uint32 // the socket's count of drops
	// controls are those of the message that is looked at.
	controls []Control
	drops    uint64 // drops since the socket got the filter
}

// message is struct mmsghdr of recvmmsg(2).
type message struct {
	header unix.Msghdr
	length uint32
	_      [4]byte
}

// envelope is what a message's header points to.
type envelope struct {
	name unix.RawSockaddrInet6
	oob  [oobSize]byte
	iov  unix.Iovec
}

func newReceiver(s *socket, kind *Kind, discards bool) *receiver {
	r := &receiver{socket: s, discards: discards, last: s.before.high}
	n := receiveMessages
	if kind.domain == unix.AF_UNIX {
		r.flags = unix.MSG_CMSG_CLOEXEC // of descriptors; packet sockets refuse it
	}
	switch {
	case !kind.stream:
		r.flags |= unix.MSG_TRUNC // return the message's own length
	case discards && kind.protocol == unix.IPPROTO_TCP:
		r.flags |= unix.MSG_TRUNC // discard the bytes
	}
	size := n * receiveSize
	switch {
	case kind.listens:
		n, size = 1, receiveSize // or the end of a connection would be returned many times
	case discards:
		size = 0
	}
	r.memory = make([]byte, size)
	r.messages, r.envelope = make([]message, n), make([]envelope, n)
	for i := range r.envelope {
		e := &r.envelope[i]
		if size > 0 {
			e.iov.Base = &r.memory[i*receiveSize]
			e.iov.SetLen(receiveSize)
		}
		r.messages[i].header = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&e.name)), Iov: &e.iov, Control: &e.oob[0]}
		r.messages[i].header.SetIovlen(1)
		r.messages[i].reset()
	}
	r.call = func(fd uintptr) bool {
		r.receive(int(fd))
		return r.err != unix.EAGAIN
	}
	return r
}

// wait receives the next messages, and waits for them if there are none.
func (r *receiver) wait() error {
	if err := r.socket.conn.Read(r.call); err != nil {
		return err
	}
	return r.err
}

// poll receives the messages that are in the queue, or returns unix.EAGAIN if there are none.
func (r *receiver) poll() error {
	if err := r.socket.conn.Control(func(fd uintptr) { r.receive(int(fd)) }); err != nil {
		return err
	}
	return r.err
}

func (r *receiver) receive(fd int) {
	for i := range r.messages[:r.count] {
		r.messages[i].reset()
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.messages[0])),
			uintptr(len(r.messages)), r.flags|unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			r.count, r.err, r.fails = int(n), nil, 0
			return
		case unix.EINTR:
		default:
			r.failed(errno)
			return
		}
	}
}

// failed notes how the last call failed.
func (r *receiver) failed(errno unix.Errno) {
	if errno != r.err || errno == unix.EAGAIN {
		r.fails = 0
	}
	r.count, r.err = 0, errno
	r.fails++
}

// failsMost is how often in a row a receiving call may fail in the same way. What a socket has
// to tell (an ICMP message, an interface that is down), the first call takes away, and the next
// one waits: so what comes this often comes for ever.
const failsMost = 16

// stuck tells whether the socket gives nothing but the same error any more.
func (r *receiver) stuck() bool { return r.fails >= failsMost && r.err != unix.EAGAIN }

// reset prepares the header for another message, because the kernel overwrites the lengths.
func (m *message) reset() {
	m.header.Namelen = uint32(unsafe.Sizeof(unix.RawSockaddrInet6{}))
	m.header.SetControllen(len(envelope{}.oob))
}

// ended tells whether the last call returned the end of a connection.
func (r *receiver) ended() bool { return r.count == 1 && r.messages[0].length == 0 }

// put appends what the last call returned to a batch.
func (r *receiver) put(b *batch, home *route, now int64, ended bool) {
	d := delivery{route: home}
	d.Time, d.Cookie, d.To = now, r.socket.cookie, r.socket.local
	if r.err != nil {
		d.err, d.From, d.Drops = r.err, r.socket.peer, r.drops
		b.put(&d, nil)
		return
	}
	for i := range r.messages[:r.count] {
		m := &r.messages[i]
		d.Full = int(m.length)
		d.reception = r.reception(i)
		d.Drops = r.drops
		if r.discards && !ended {
			b.discarded.add(home, &d.Delivery)
			continue
		}
		d.From, d.out, d.end = r.sender(i), r.outgoing(i), ended
		b.put(&d, r.data(i))
	}
}

// data returns the bytes of a message that were received.
func (r *receiver) data(i int) []byte {
	if len(r.memory) == 0 {
		return nil
	}
	return r.memory[i*receiveSize:][:min(int(r.messages[i].length), receiveSize)]
}

// add counts a delivery.
func (d *discarded) add(home *route, one *pair.Delivery) {
	d.route = home
	d.messages++
	d.bytes += uint64(one.Full)
	d.last = *one
}

// countDrops takes the socket's count of drops. It wraps around, and may be less than before
// when several cpus fill the queue.
func (r *receiver) countDrops(count uint32) {
	if end := r.socket.closing.Load(); end != nil && int32(count-*end) > 0 {
		count = *end
	}
	if more := int32(count - r.last); more > 0 {
		r.drops += uint64(more)
		r.last = count
	}
}

// sender is the address of a message's sender, or the peer.
func (r *receiver) sender(i int) netip.AddrPort {
	if r.messages[i].header.Namelen == 0 {
		return r.socket.peer
	}
	name := &r.envelope[i].name
	switch name.Family {
	case unix.AF_INET:
		name := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(name.Addr), networkOrder(name.Port))
	case unix.AF_INET6:
		from := netip.AddrFrom16(name.Addr)
		if name.Scope_id != 0 {
			from = from.WithZone(strconv.FormatUint(uint64(name.Scope_id), 10))
		}
		return netip.AddrPortFrom(from, networkOrder(name.Port))
	}
	return netip.AddrPort{}
}

// outgoing tells whether a packet socket marked a message as outgoing.
func (r *receiver) outgoing(i int) bool {
	name := &r.envelope[i].name
	if r.messages[i].header.Namelen == 0 || name.Family != unix.AF_PACKET {
		return false
	}
	return (*unix.RawSockaddrLinklayer)(unsafe.Pointer(name)).Pkttype == unix.PACKET_OUTGOING
}

// networkOrder converts a field from network byte order.
func networkOrder(field uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], field)
	return binary.BigEndian.Uint16(b[:])
}

// receiveAll reads a socket to its end, or until stop. A socket that can be read no more ends the
// session.
func (s *Session) receiveAll(socket *socket) {
	r := newReceiver(socket, s.config.Kind, s.config.discards())
	var (
		pause pacer
		ended bool
		home  = s.own.routeOfSocket(socket)
	)
	put := func(b *batch, now int64) { r.put(b, home, now, ended) }
	for {
		err := r.wait()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// Stopped: nothing more arrives, so read what is in the queue.
			err = r.poll()
		}
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, os.ErrClosed) {
			if socket != s.main && s.group == nil {
				s.forget(socket)
			}
			return
		}
		ended = s.config.Kind.listens && (err != nil || r.ended())
		s.own.mailbox.put(put)
		if ended {
			s.forget(socket)
			return
		}
		if r.stuck() {
			s.unreadable(fmt.Errorf("receiving: %w, however often it is tried", err))
			return
		}
		if err != nil {
			if r.fails == 1 {
				s.config.Notice("receiving: " + err.Error())
			}
			continue
		}
		if s.config.Echo && !s.stopping.Load() {
			s.echo(r)
		}
		if !s.config.Kind.listens && !s.stopping.Load() {
			pause.after(r.count)
		}
	}
}

// echo sends back what the last call returned.
func (s *Session) echo(r *receiver) {
	for i := range r.count {
		from := r.sender(i)
		if err := r.socket.send(r.data(i), from, s.sent); err != nil && !s.stopping.Load() {
			s.config.Notice(fmt.Sprintf("sending back to %s: %v", from, err))
		}
	}
}

// sending is a call of ours that has sent something, or failed to.
type sending struct {
	socket *socket
	to     netip.AddrPort
	began  int64 // on the boot clock
	data   []byte
	err    error
}

// sent notes what was sent back, if somebody wants to see it.
func (s *Session) sent(did *sending) {
	if !s.config.wants(ViewSent) {
		return
	}
	d := delivery{route: s.own.routeOfSocket(did.socket), sent: true, call: "sendto", err: did.err}
	if did.socket.connected {
		d.call = "sendmsg"
	}
	d.Cookie, d.Full, d.From, d.To = did.socket.cookie, len(did.data), did.socket.local, did.to
	s.own.mailbox.putSent(&d, did.began, did.data)
}

const (
	// pauseMessages is how many messages should arrive during a pause: a small part of what the
	// smallest usual receive queue holds.
	pauseMessages = 16
	// pauseMost and pauseLeast bound a pause. The kernel adds some 50 us to it.
	pauseMost  = 200 * time.Microsecond
	pauseLeast = 20 * time.Microsecond
)

// pacer pauses between the reads of a queue that fills steadily: a wakeup for each message
// would cost more than everything else that is done for it.
type pacer struct{ last time.Time }

// after pauses after a read that returned so many messages.
func (p *pacer) after(count int) {
	now := time.Now()
	elapsed := now.Sub(p.last)
	p.last = now
	if elapsed > 5*pauseMost || count == 0 {
		return // messages that come now and then are read at once
	}
	pause := min(elapsed*pauseMessages/time.Duration(count), pauseMost)
	if pause < pauseLeast {
		return
	}
	// time.Sleep may take a millisecond.
	_ = unix.Nanosleep(&unix.Timespec{Nsec: pause.Nanoseconds()}, nil)
}
