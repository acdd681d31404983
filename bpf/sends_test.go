package bpf

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// sendsOf takes the sends that are in the ring, without those of other tests' sockets.
func sendsOf(tb testing.TB, r *Calls) []Event {
	tb.Helper()
	all := slices.DeleteFunc(events(tb, r), func(e Event) bool { return !e.Kind().Sends() && e.Kind() != CallControl })
	c, err := r.SendCounters()
	if err != nil {
		tb.Fatal(err)
	}
	if Preemptible() && c.Missed > 0 {
		spoiled.Add(1)
		tb.Skipf("the kernel missed %d sends: the test shows nothing", c.Missed)
	}
	if c.Seen != c.Recorded+c.RingFull+c.Fault || c.Fault != 0 {
		tb.Errorf("counters of the sends: %+v", c)
	}
	return all
}

// send is a call, and what is to be seen of it.
type send struct {
	name   string
	call   Call
	do     func() error
	errno  unix.Errno
	data   []string // of each message
	idle   bool     // nothing is sent, and nothing is to be seen
	unseen int      // bytes of which only the number is known
	to     netip.AddrPort
}

// check makes the calls, one after the other, and returns what was seen of them.
func (s *send) check(t *testing.T, r *Calls, fd int) []Event {
	t.Helper()
	if err := s.do(); s.errno == 0 && err != nil || s.errno != 0 && !errors.Is(err, s.errno) {
		t.Fatalf("%s: %v, want %v", s.name, err, s.errno)
	}
	got := sendsOf(t, r)
	var data []string
	for n, e := range got {
		if e.Kind() != s.call || int(e.Fd) != fd || e.Pid != uint32(os.Getpid()) || e.Tid == 0 || e.Began == 0 || e.Began > e.Time {
			t.Errorf("%s: event %d is %+v", s.name, n, e.EventHeader)
		}
		if e.MsgFlags != 0 || e.HasControl() || e.Control != 0 {
			t.Errorf("%s: what only a receiving call returns: %+v", s.name, e.EventHeader)
		}
		if e.Destination() != s.to {
			t.Errorf("%s: to %v, want %v", s.name, e.Destination(), s.to)
		}
		switch {
		case s.errno != 0:
			if e.Result != -int64(s.errno) || e.Wanted != 0 {
				t.Errorf("%s: result %d, %d bytes", s.name, e.Result, e.Wanted)
			}
		case e.Unseen():
			if e.Result != int64(s.unseen) || len(e.Data) != 0 {
				t.Errorf("%s: result %d, data %q", s.name, e.Result, e.Data)
			}
		case e.Offset == 0:
			data = append(data, string(e.Data))
			if int(e.Result) != int(e.Wanted) {
				t.Errorf("%s: result %d, %d bytes", s.name, e.Result, e.Wanted)
			}
		default:
			data[len(data)-1] += string(e.Data)
		}
	}
	if (len(got) == 0) != s.idle || !slices.Equal(data, s.data) {
		t.Errorf("%s: %d events, %.300q, want %.300q", s.name, len(got), data, s.data)
	}
	return got
}

// sendmmsg sends messages, to an address unless it is nil.
func sendmmsg(fd int, to *unix.RawSockaddrInet4, messages ...string) error {
	return sendmmsgFlags(fd, to, unix.MSG_NOSIGNAL, messages...)
}

func sendmmsgFlags(fd int, to *unix.RawSockaddrInet4, flags int, messages ...string) error {
	all := make([]mmsghdr, len(messages))
	tos := typeOfService()
	for i, m := range messages {
		half := len(m) / 2
		b := []byte(m)
		iov := []unix.Iovec{{Base: &b[0]}, {Base: &b[half]}}
		iov[0].SetLen(half)
		iov[1].SetLen(len(m) - half)
		all[i].hdr.Iov = &iov[0]
		all[i].hdr.SetIovlen(2)
		all[i].hdr.Flags = unix.MSG_TRUNC // what is left in there must not matter
		if to != nil {
			all[i].hdr.Control = &tos[0]
			all[i].hdr.SetControllen(len(tos))
		}
		if to != nil {
			all[i].hdr.Name, all[i].hdr.Namelen = (*byte)(unsafe.Pointer(to)), unix.SizeofSockaddrInet4
		}
	}
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&all[0])), uintptr(len(all)), uintptr(flags), 0, 0)
	if errno != 0 {
		return errno
	}
	if int(n) != len(all) {
		return errors.New("not all were sent")
	}
	return nil
}

// typeOfService is ancillary data of which the kernel makes a field of the IP header.
func typeOfService() []byte {
	oob := make([]byte, unix.CmsgSpace(4))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
	h.Level, h.Type = unix.SOL_IP, unix.IP_TOS
	h.SetLen(unix.CmsgLen(4))
	return oob
}

func errOf[T any](_ T, err error) error { return err }

func TestSendsSeeEachCall(t *testing.T) { eachWay(t, checkSendsSeeEachCall) }

func checkSendsSeeEachCall(t *testing.T) {
	receiver, connected := udpPair(t)
	bare, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(bare)
	at, err := unix.Getsockname(receiver)
	if err != nil {
		t.Fatal(err)
	}
	to := at.(*unix.SockaddrInet4)
	there := netip.AddrPortFrom(netip.AddrFrom4(to.Addr), uint16(to.Port))
	raw := &unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr, Port: uint16(to.Port)>>8 | uint16(to.Port)<<8}
	empty, err := os.Create(t.TempDir() + "/empty")
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	var sent []string
	barrier := testutil.NewBarrier(t)
	r := mustFollow(t, CallsOptions{RingSize: MinRingSize, Sends: true}, connected, bare)
	for _, s := range []send{
		{name: "write", call: CallWrite, data: []string{"a write"}, do: func() error { return errOf(unix.Write(connected, []byte("a write"))) }},
		{name: "writev", call: CallWritev, data: []string{"several parts"}, do: func() error {
			return errOf(unix.Writev(connected, [][]byte{[]byte("several"), {}, []byte(" parts")}))
		}},
		{name: "pwritev2", call: CallPwritev2, data: []string{"and flags"}, do: func() error {
			return errOf(unix.Pwritev2(connected, [][]byte{[]byte("and "), []byte("flags")}, -1, 0))
		}},
		{name: "an empty datagram", call: CallWrite, data: []string{""}, do: func() error { return errOf(unix.Write(connected, nil)) }},
		{name: "an empty message", call: CallSendmsg, data: []string{""}, do: func() error { return unix.Sendmsg(connected, nil, nil, nil, 0) }},
		{name: "writev of nothing", idle: true, do: func() error { return errOf(unix.Writev(connected, [][]byte{{}, {}})) }},
		{name: "pwritev2 of nothing", idle: true, do: func() error { return errOf(unix.Pwritev2(connected, [][]byte{{}}, -1, 0)) }},
		{name: "sendfile of nothing", idle: true, do: func() error { return errOf(unix.Sendfile(connected, int(empty.Fd()), nil, 100)) }},
		{name: "send", call: CallSendto, data: []string{"sent"}, do: func() error { return unix.Send(connected, []byte("sent"), 0) }},
		{name: "sendmsg to the peer", call: CallSendmsg, data: []string{"a message"}, do: func() error { return unix.Sendmsg(connected, []byte("a message"), nil, nil, 0) }},
		{name: "sendmsg with ancillary data", call: CallSendmsg, data: []string{"a message"}, do: func() error {
			return unix.Sendmsg(connected, []byte("a message"), typeOfService(), nil, 0)
		}},
		{name: "too long", call: CallWrite, errno: unix.EMSGSIZE, do: func() error { return errOf(unix.Write(connected, make([]byte, 1<<16))) }},
		{name: "sendto", call: CallSendto, to: there, data: []string{"there"}, do: func() error { return unix.Sendto(bare, []byte("there"), 0, to) }},
		{name: "sendmsg", call: CallSendmsg, to: there, data: []string{"to there"}, do: func() error { return unix.Sendmsg(bare, []byte("to there"), nil, to, 0) }},
		{name: "sendmmsg", call: CallSendmmsg, to: there, data: []string{"one", "another", "a third"}, do: func() error { return sendmmsg(bare, raw, "one", "another", "a third") }},
		{name: "nowhere", call: CallSendto, errno: unix.EDESTADDRREQ, do: func() error { return unix.Send(bare, []byte("x"), 0) }},
		{name: "messages nowhere", call: CallSendmmsg, errno: unix.EDESTADDRREQ, do: func() error { return sendmmsg(bare, nil, "to", "nobody") }},
	} {
		fd := connected
		if s.to.IsValid() || s.errno == unix.EDESTADDRREQ {
			fd = bare
		}
		var events []Event
		barrier.Do(t, func() { events = s.check(t, r, fd) })
		for _, e := range events {
			if _, ok := e.StreamPlace(); ok {
				t.Errorf("%s: a datagram has a place in a stream", s.name)
			}
		}
		sent = append(sent, s.data...)
	}
	var received []string
	b := make([]byte, 100)
	for n, _, err := unix.Recvfrom(receiver, b, unix.MSG_DONTWAIT); err == nil; n, _, err = unix.Recvfrom(receiver, b, unix.MSG_DONTWAIT) {
		received = append(received, string(b[:n]))
	}
	if !slices.Equal(received, sent) {
		t.Errorf("seen: %q, received: %q", sent, received)
	}
}

// Whatever is written elsewhere, or to sockets that are not chosen, is nobody's business.
func TestSendsSkipOthers(t *testing.T) { eachWay(t, checkSendsSkipOthers) }

func checkSendsSkipOthers(t *testing.T) {
	_, chosen := udpPair(t)
	_, other := udpPair(t)
	r := mustFollow(t, CallsOptions{RingSize: MinRingSize, Sends: true}, chosen)
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	file, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, fd := range []int{int(file.Fd()), pipe[1], other} {
		for range 10 {
			if _, err := unix.Write(fd, []byte("not this")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := unix.Write(-1, []byte("x")); !errors.Is(err, unix.EBADF) {
		t.Fatal(err)
	}
	if got := sendsOf(t, r); len(got) != 0 {
		t.Errorf("%d sends, such as %+v", len(got), got[0].EventHeader)
	}
}

func TestSendsSeeStreams(t *testing.T) { eachWay(t, checkSendsSeeStreams) }

func checkSendsSeeStreams(t *testing.T) {
	listener, client := tcpPair(t)
	server, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	// Once: by then, another test may have the number.
	closeServer := sync.OnceFunc(func() { unix.Close(server) })
	defer closeServer()
	r := mustFollow(t, CallsOptions{RingSize: MinRingSize, Sends: true}, client)
	name := t.TempDir() + "/file"
	if err := os.WriteFile(name, []byte("from a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	long := strings.Repeat("many bytes, in several pieces ", 5000)
	var at uint32
	for n, s := range []send{
		{name: "write", call: CallWrite, data: []string{"a write"}, do: func() error { return errOf(unix.Write(client, []byte("a write"))) }},
		{name: "messages", call: CallSendmmsg, data: []string{"one", "another"}, do: func() error { return sendmmsg(client, nil, "one", "another") }},
		{name: "sendfile", call: CallSendfile, unseen: 11, do: func() error { return errOf(unix.Sendfile(client, int(file.Fd()), nil, 100)) }},
		{name: "splice", call: CallSpliceTo, unseen: 4, do: func() error {
			if _, err := unix.Write(pipe[1], []byte("pipe")); err != nil {
				return err
			}
			return errOf(unix.Splice(pipe[0], nil, client, nil, 4, 0))
		}},
		{name: "write of nothing", idle: true, do: func() error { return errOf(unix.Write(client, nil)) }},
		{name: "send of nothing", idle: true, do: func() error { return unix.Send(client, nil, 0) }},
		{name: "sendmsg of nothing", idle: true, do: func() error { return unix.Sendmsg(client, nil, nil, nil, 0) }},
		{name: "the end of the file", idle: true, do: func() error { return errOf(unix.Sendfile(client, int(file.Fd()), nil, 100)) }},
		{name: "a long one", call: CallSendto, data: []string{long}, do: func() error { return unix.Send(client, []byte(long), 0) }},
	} {
		for _, e := range s.check(t, r, client) {
			seq, ok := e.StreamPlace()
			if n > 0 && e.Offset == 0 && seq != at || !ok {
				t.Errorf("%s: is at %d (%v), and the one before ended at %d", s.name, seq, ok, at)
			}
			at = seq + uint32(e.Result)
		}
	}
	want := "a writeoneanotherfrom a filepipe" + long
	if got := readFully(t, server, len(want)); string(got) != want {
		t.Errorf("the peer got %d bytes, and not those that were sent", len(got))
	}
	closeServer()
	failing := send{name: "after the end", call: CallSendto, errno: unix.EPIPE, do: func() error {
		for range 1000 {
			if err := unix.Send(client, []byte("x"), unix.MSG_NOSIGNAL); err != nil {
				sendsOf(t, r) // those before; of a reset connection, it is the next one that fails in this way
				return unix.Send(client, []byte("x"), unix.MSG_NOSIGNAL)
			}
		}
		return nil
	}}
	failing.check(t, r, client)
}

// What fails, or is before a connection, has no place in its stream; and what makes one has that
// of its bytes.
func TestSendsMakeConnections(t *testing.T) { eachWay(t, checkSendsMakeConnections) }

func checkSendsMakeConnections(t *testing.T) {
	listener, _ := tcpPair(t)
	at, err := unix.Getsockname(listener)
	if err != nil {
		t.Fatal(err)
	}
	to := at.(*unix.SockaddrInet4)
	there := netip.AddrPortFrom(netip.AddrFrom4(to.Addr), uint16(to.Port))
	raw := &unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr, Port: uint16(to.Port)>>8 | uint16(to.Port)<<8}
	var fds [3]int
	for i := range fds {
		if fds[i], err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fds[i])
	}
	r := mustFollow(t, CallsOptions{RingSize: MinRingSize, Sends: true}, fds[:]...)
	const fastOpen = 0x20000000 // MSG_FASTOPEN
	makes := []send{
		{name: "fast open", call: CallSendto, data: []string{"a request"}, to: there, do: func() error { return unix.Sendto(fds[0], []byte("a request"), fastOpen, to) }},
		{name: "one message", call: CallSendmmsg, data: []string{"a longer request"}, to: there, do: func() error { return sendmmsgFlags(fds[1], raw, fastOpen, "a longer request") }},
		{name: "messages", call: CallSendmmsg, data: []string{"one", "and another"}, to: there, do: func() error {
			// Where the peer's cookie is known, this connects later, with the first bytes.
			if err := errors.Join(unix.SetsockoptInt(fds[2], unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1), unix.Connect(fds[2], to)); err != nil {
				return err
			}
			return sendmmsg(fds[2], raw, "one", "and another")
		}},
	}
	for i, s := range makes {
		fd := fds[i]
		checkUnconnected(t, r, fd)
		end := uint32(0)
		made := s.check(t, r, fd)
		for n, e := range made {
			seq, ok := e.StreamPlace()
			if !ok || n > 0 && e.Offset == 0 && seq != end {
				t.Errorf("%s: is at %d (%v), and the message before ended at %d", s.name, seq, ok, end)
			}
			end = seq + uint32(e.Result)
		}
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1); err != nil {
			t.Fatal(err)
		}
		out, in := placesOf(t, fd)
		if ack := made[0].Ack; end != out || ack != 0 && ack != in {
			t.Errorf("%s: ends at %d and acknowledges %d, and the kernel is at %d and %d", s.name, end, ack, out, in)
		}
		after := send{name: "after " + s.name, call: CallWrite, data: []string{"x"}, do: func() error { return errOf(unix.Write(fd, []byte("x"))) }}
		for _, e := range after.check(t, r, fd) {
			if seq, ok := e.StreamPlace(); !ok || seq != out || e.Ack != in {
				t.Errorf("%s: is at %d (%v) and acknowledges %d, and the kernel was at %d and %d", after.name, seq, ok, e.Ack, out, in)
			}
		}
	}
}

// checkUnconnected uses a socket that is not connected.
func checkUnconnected(t *testing.T, r *Calls, fd int) {
	t.Helper()
	early := send{name: "unconnected", call: CallSendto, errno: unix.EPIPE, do: func() error { return unix.Send(fd, []byte("x"), unix.MSG_NOSIGNAL) }}
	all := early.check(t, r, fd)
	if _, _, err := unix.Recvfrom(fd, make([]byte, 1), 0); !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("receiving before a connection: %v", err)
	}
	if n, err := unix.Read(fd, nil); n != 0 || err != nil { // it asks no socket, and is no event
		t.Errorf("reading nothing before a connection: %d, %v", n, err)
	}
	all = append(all, pieces(t, r)...)
	for _, e := range all {
		if _, ok := e.StreamPlace(); ok || e.Ack != 0 {
			t.Errorf("a place in a stream that is not there: %+v", e.EventHeader)
		}
	}
	if len(all) != 2 {
		t.Errorf("%d calls", len(all))
	}
}

// placesOf asks the kernel where the next byte of each direction is.
func placesOf(t *testing.T, fd int) (out, in uint32) {
	t.Helper()
	set := func(option, value int) {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, option, value); err != nil {
			t.Fatal(err)
		}
	}
	get := func(queue int) uint32 {
		set(unix.TCP_REPAIR_QUEUE, queue)
		seq, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(seq)
	}
	const receive, send = 1, 2 // TCP_RECV_QUEUE, TCP_SEND_QUEUE
	set(unix.TCP_REPAIR, unix.TCP_REPAIR_ON)
	out, in = get(send), get(receive)
	set(unix.TCP_REPAIR, unix.TCP_REPAIR_OFF_NO_WP)
	return out, in
}

// A socket that takes a part of what it is given takes the beginning, and one that takes
// nothing leaves nothing.
func TestSendsSeeParts(t *testing.T) { eachWay(t, checkSendsSeeParts) }

func checkSendsSeeParts(t *testing.T) {
	listener, client := tcpPair(t)
	server, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(server)
	r := mustFollow(t, CallsOptions{RingSize: 16 << 20, Sends: true}, client)
	block := make([]byte, 200_000)
	for i := range block {
		block[i] = byte(i) ^ byte(i>>8)
	}
	var sent []byte
	part := false
	for range 10_000 {
		n, err := unix.SendmsgN(client, block, nil, nil, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		part = part || n < len(block)
		sent = append(sent, block[:n]...)
	}
	if !part {
		t.Error("every send took all")
	}
	var seen []byte
	for _, e := range sendsOf(t, r) {
		if e.Result < 0 || int(e.Offset)+len(e.Data) > int(e.Result) {
			t.Fatalf("%+v", e.EventHeader)
		}
		seen = append(seen, e.Data...)
	}
	if got := readFully(t, server, len(sent)); !bytes.Equal(got, sent) || !bytes.Equal(seen, sent) {
		t.Errorf("%d bytes sent, %d seen, %d received", len(sent), len(seen), len(got))
	}
}

func readFully(t *testing.T, fd, want int) []byte {
	t.Helper()
	got, buf := []byte(nil), make([]byte, 1<<16)
	for len(got) < want {
		n, err := unix.Read(fd, buf)
		if err != nil || n == 0 {
			t.Fatalf("%d bytes of %d: %v", len(got), want, err)
		}
		got = append(got, buf[:n]...)
	}
	return got
}

// Without Sends, nothing of it is there.
func TestSendsCostNothing(t *testing.T) {
	t.Parallel()
	_, sender := udpPair(t)
	r := mustFollow(t, CallsOptions{RingSize: MinRingSize}, sender)
	if err := unix.Send(sender, []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	if got := sendsOf(t, r); len(got) != 0 || r.sends != nil {
		t.Errorf("%d sends, programs %v", len(got), r.sends)
	}
	if c, err := r.SendCounters(); err != nil || c != (CallCounters{}) {
		t.Errorf("counters %+v, %v", c, err)
	}
}
