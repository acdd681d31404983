package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/capability"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// mustFollow follows sockets of the test itself.
func mustFollow(tb testing.TB, opts CallsOptions, fds ...int) *Calls {
	tb.Helper()
	requirePrivilege(tb)
	hook := mustHook(tb, mustOpen(tb, Options{RingSize: MinRingSize, Snaplen: MaxSnaplen}), HookOptions{})
	opts.Choose = ChooseKnown
	c, err := openCallsOf(hook, opts, wayOf(tb))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
	})
	for _, fd := range fds {
		cookie, err := hook.Mark(fd)
		if err == nil {
			err = c.Known(0, cookie)
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	if err := hook.Follow(uint32(os.Getpid()), nil); err != nil {
		tb.Fatal(err)
	}
	c.NoteBlocked(uint32(os.Getpid()))
	return c
}

// An event wakes who sleeps for the tap that was opened with the calls.
func TestCallsEndSleep(t *testing.T) {
	t.Parallel()
	requirePrivilege(t)
	f, err := OpenFollowing(Options{RingSize: MinRingSize, WakeFirst: true}, HookOptions{}, &CallsOptions{Choose: ChooseKnown})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !f.Calls.EndsSleep() {
		t.Skip("from Linux 7.0 on nobody is woken in the middle of a system call")
	}
	receiver, sender := udpPair(t)
	cookie, err := f.Hook.Mark(receiver)
	if err == nil {
		err = errors.Join(f.Calls.Known(0, cookie), f.Hook.Follow(uint32(os.Getpid()), nil))
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err := unix.Send(sender, []byte("x"), 0); err != nil {
			t.Fatal(err)
		}
		over := make(chan error)
		go func() { over <- f.Tap.Sleep(time.Now().Add(time.Minute)) }()
		if n, err := unix.Read(receiver, make([]byte, 10)); n != 1 || err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
		if err := <-over; err != nil {
			t.Fatalf("asleep: %v", err)
		}
		for e := new(Event); f.Calls.Read(e) == nil; {
		}
	}
}

// pieces takes what is in the ring of the calls that the test makes itself,
// and not those of the processes and sockets that other tests make.
func pieces(tb testing.TB, r *Calls) []Event {
	tb.Helper()
	return slices.DeleteFunc(events(tb, r), func(e Event) bool { return !e.Kind().Receives() })
}

// events takes all that is in the ring.
func events(tb testing.TB, r *Calls) []Event {
	tb.Helper()
	var all []Event
	for {
		var p Event
		err := r.Read(&p)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			tb.Fatal(err)
		}
		p.Data = bytes.Clone(p.Data)
		all = append(all, p)
	}
	// From Linux 7.0 on, the kernel may pass calls over at tracepoints, and at probes while
	// somebody who changes a map is preempted; it counts them.
	c, err := r.Counters()
	if err != nil {
		tb.Fatal(err)
	}
	if Preemptible() && c.Missed > 0 {
		spoiled.Add(1)
		tb.Skipf("the kernel missed %d calls: the test shows nothing", c.Missed)
	}
	sound.Add(1)
	return all
}

// Looks at the ring after which the kernel had missed calls, and others.
var spoiled, sound atomic.Int32

func TestMain(m *testing.M) {
	code := m.Run()
	if spoiled.Load() > sound.Load() {
		fmt.Fprintf(os.Stderr, "the kernel missed calls in %d tests, and in %d it did not: that is no rare event\n", spoiled.Load(), sound.Load())
		code = 1
	}
	os.Exit(code)
}

func tcpPair(tb testing.TB) (listener, client int) {
	tb.Helper()
	open := func() int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	listener, client = open(), open()
	if err := unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		tb.Fatal(err)
	}
	if err := unix.Listen(listener, 4); err != nil {
		tb.Fatal(err)
	}
	to, err := unix.Getsockname(listener)
	if err != nil {
		tb.Fatal(err)
	}
	if err := unix.Connect(client, to); err != nil {
		tb.Fatal(err)
	}
	return listener, client
}

func TestCallsSeeEachCall(t *testing.T) { eachWay(t, checkCallsSeeEachCall) }

func checkCallsSeeEachCall(t *testing.T) {
	receiver, sender := udpPair(t)
	r := mustFollow(t, CallsOptions{RingSize: MinRingSize}, receiver)
	from, err := unix.Getsockname(sender)
	if err != nil {
		t.Fatal(err)
	}
	port := from.(*unix.SockaddrInet4).Port

	buf, second := make([]byte, 64), make([]byte, 64)
	for _, test := range []struct {
		call    Call
		named   bool // returns the sender's address
		flags   uint32
		receive func() error
	}{
		{call: CallRead, receive: func() error { _, err := unix.Read(receiver, buf); return err }},
		{call: CallReadv, receive: func() error { _, err := unix.Readv(receiver, [][]byte{buf[:3], second}); return err }},
		{call: CallRecvfrom, named: true, flags: unix.MSG_PEEK, receive: func() error { _, _, err := unix.Recvfrom(receiver, buf, unix.MSG_PEEK); return err }},
		{call: CallRecvfrom, named: true, receive: func() error { _, _, err := unix.Recvfrom(receiver, buf, 0); return err }},
		{call: CallRecvmsg, named: true, receive: func() error { _, _, _, _, err := unix.Recvmsg(receiver, buf, nil, 0); return err }},
	} {
		text := "to " + test.call.String()
		if err := unix.Send(sender, []byte(text), 0); err != nil {
			t.Fatal(err)
		}
		if err := test.receive(); err != nil {
			t.Fatal(err)
		}
		if test.flags&unix.MSG_PEEK != 0 {
			if _, err := unix.Read(receiver, second); err != nil {
				t.Fatal(err)
			}
		}
		got := pieces(t, r)
		var data []byte
		for _, p := range got {
			if p.Kind() == test.call {
				data = append(data, p.Data...)
			}
		}
		p := got[0]
		cookie, _ := unix.GetsockoptUint64(receiver, unix.SOL_SOCKET, unix.SO_COOKIE)
		if string(data) != text || p.Kind() != test.call || p.Result != int64(len(text)) || p.Cookie != cookie || p.Flags != test.flags {
			t.Errorf("%s: %+v brought %q", test.call, got, data)
		}
		if test.named && int(p.Sender().Port()) != port || !test.named && p.Sender().IsValid() {
			t.Errorf("%s: sender %v, want port %d", test.call, p.Sender(), port)
		}
		if p.Pid != uint32(os.Getpid()) || p.Tid == 0 || int(p.Fd) != receiver {
			t.Errorf("%s: process %d thread %d descriptor %d", test.call, p.Pid, p.Tid, p.Fd)
		}
	}
	// Nothing there is no record.
	if _, _, err := unix.Recvfrom(receiver, buf, unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
		t.Fatal(err)
	}
	if got := pieces(t, r); len(got) != 0 {
		t.Errorf("EAGAIN: %+v", got)
	}
	checkCallsLedger(t, r)
}

// Without this, nobody would know that the best way does not work.
func TestCallsGoTheBestWay(t *testing.T) {
	t.Parallel()
	requirePrivilege(t)
	hook := mustHook(t, mustOpen(t, Options{RingSize: MinRingSize, Snaplen: MaxSnaplen}), HookOptions{})
	r, err := OpenCalls(hook, CallsOptions{RingSize: MinRingSize})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	switch {
	case r.way == bestWay() || !capability.Held(unix.CAP_SYS_ADMIN):
	case bestWay() == atFunctions:
		t.Errorf("way %v: the functions of system calls cannot be probed: %v", r.way, r.attachProbes())
	default:
		t.Errorf("way %v: the tracepoints of single calls are not to be had: %v", r.way, errors.Join(r.single.open(syscalls), r.attachSingle(nil)))
	}
}

func checkCallsLedger(t *testing.T, r *Calls) {
	t.Helper()
	c, err := r.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if c.Seen != c.Recorded+c.RingFull+c.Fault || c.Fault != 0 {
		t.Errorf("counters %+v", c)
	}
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

func TestCallsSeeRecvmmsg(t *testing.T) { eachWay(t, checkCallsSeeRecvmmsg) }

func checkCallsSeeRecvmmsg(t *testing.T) {
	receiver, sender := udpPair(t)
	r := mustFollow(t, CallsOptions{RingSize: MinRingSize}, receiver)
	texts := []string{"one", "", "three"}
	barrier := testutil.NewBarrier(t)
	for _, text := range texts {
		barrier.Send(t, sender, []byte(text))
	}
	const room = 8
	var (
		messages [room]mmsghdr
		parts    [room][2]unix.Iovec
		buffers  [room][64]byte
		names    [room]unix.RawSockaddrInet6
	)
	for i := range messages {
		parts[i][0] = unix.Iovec{Base: &buffers[i][0], Len: 2}
		parts[i][1] = unix.Iovec{Base: &buffers[i][2], Len: 62}
		messages[i].hdr = unix.Msghdr{Iov: &parts[i][0], Iovlen: 2, Name: (*byte)(unsafe.Pointer(&names[i])), Namelen: 28}
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(receiver), uintptr(unsafe.Pointer(&messages[0])), room, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 || int(n) != len(texts) {
		t.Fatalf("recvmmsg: %d, %v", n, errno)
	}
	var got []string
	for _, p := range pieces(t, r) {
		if p.Offset == 0 {
			got = append(got, "")
		}
		if !p.Sender().IsValid() || p.Kind() != CallRecvmmsg {
			t.Errorf("%+v", p)
		}
		got[len(got)-1] += string(p.Data)
	}
	if len(got) != len(texts) || got[0] != texts[0] || got[1] != texts[1] || got[2] != texts[2] {
		t.Errorf("got %q, want %q", got, texts)
	}
	checkCallsLedger(t, r)
}

// A connection is followed from accept to close, and its bytes are counted,
// those of a long read in several pieces and those of a peek not.
func TestCallsFollowConnections(t *testing.T) { eachWay(t, checkCallsFollowConnections) }

func checkCallsFollowConnections(t *testing.T) {
	listener, client := tcpPair(t)
	r := mustFollow(t, CallsOptions{RingSize: 4 << 20}, listener)
	conn, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	sent := bytes.Repeat([]byte("0123456789abcdef"), 12000)
	go func() {
		for data := sent; len(data) > 0; {
			n, err := unix.Write(client, data)
			if err != nil {
				t.Error(err)
				break
			}
			data = data[n:]
		}
		unix.Shutdown(client, unix.SHUT_WR)
	}()
	buf := make([]byte, len(sent))
	if _, _, err := unix.Recvfrom(conn, buf[:4], unix.MSG_PEEK); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{10, 100000, len(buf)} {
		if _, _, err := unix.Recvfrom(conn, buf[:size], unix.MSG_WAITALL); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := unix.Read(conn, buf); n != 0 || err != nil {
		t.Fatalf("read %d, %v behind the end", n, err)
	}
	unix.Close(conn)

	all := pieces(t, r)
	end := all[len(all)-1]
	if end.Kind() != CallRead || end.Result != 0 || len(end.Data) != 0 {
		t.Errorf("end of stream: %+v", end)
	}
	first, _ := all[0].StreamPlace()
	var read []byte
	for _, p := range all[:len(all)-1] {
		seq, ok := p.StreamPlace()
		if p.Cookie != end.Cookie || !ok || !p.Peer().IsValid() || p.Local().Port() == 0 {
			t.Fatalf("another socket: %+v", p)
		}
		if p.Flags&unix.MSG_PEEK != 0 {
			if string(p.Data) != "0123" || seq != first {
				t.Errorf("peek: %+v", p)
			}
			continue
		}
		if int(seq-first)+int(p.Offset) != len(read) {
			t.Errorf("piece of bytes %d to %d follows %d", int(seq-first)+int(p.Offset), p.Caplen, len(read))
		}
		read = append(read, p.Data...)
	}
	if !bytes.Equal(read, sent) {
		t.Errorf("%d bytes, sent %d", len(read), len(sent))
	}
	checkCallsLedger(t, r)
}

// A read that waits already when the programs come is seen when it returns.
func TestCallsSeeTheCallInProgress(t *testing.T) { eachWay(t, checkCallsSeeTheCallInProgress) }

func checkCallsSeeTheCallInProgress(t *testing.T) {
	receiver, sender := udpPair(t)
	done := waitIn(func() error {
		_, err := unix.Read(receiver, make([]byte, 64))
		return err
	})
	r := mustFollow(t, CallsOptions{RingSize: MinRingSize}, receiver)
	checkAwaited(t, r, sender, done)
}

// waitIn returns when a thread is in a call, and tells when it no longer is.
func waitIn(call func() error) (done chan error) {
	waiting := make(chan struct{})
	done = make(chan error)
	go func() {
		runtime.LockOSThread()
		close(waiting)
		done <- call()
	}()
	<-waiting
	time.Sleep(50 * time.Millisecond)
	return done
}

// There is news of a connection whose accept was running when the programs came, also
// if it was not blocked then, so that nobody could note it.
func TestCallsTellOfTheAcceptInProgress(t *testing.T) {
	eachWay(t, checkCallsTellOfTheAcceptInProgress)
}

func checkCallsTellOfTheAcceptInProgress(t *testing.T) {
	requirePrivilege(t)
	listener, _ := tcpPair(t)
	first, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(first)
	to, err := unix.Getsockname(listener)
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan int)
	done := waitIn(func() error {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		accepted <- fd
		return err
	})
	hook := mustHook(t, mustOpen(t, Options{RingSize: MinRingSize}), HookOptions{})
	opts := CallsOptions{RingSize: MinRingSize, Choose: ChoosePorts, Ports: []uint16{uint16(to.(*unix.SockaddrInet4).Port)}}
	r, err := openCallsOf(hook, opts, wayOf(t))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := hook.Follow(uint32(os.Getpid()), nil); err != nil {
		t.Fatal(err)
	}
	again, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(again)
		err = unix.Connect(again, to)
	}
	if err != nil {
		t.Fatal(err)
	}
	fd := <-accepted
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	all := slices.DeleteFunc(events(t, r), func(e Event) bool { return e.Kind() != CallAccept })
	if len(all) != 1 || all[0].Kind() != CallAccept || int(all[0].Fd) != fd {
		t.Errorf("accepted as %d, events %+v", fd, all)
	}
}

func checkAwaited(t *testing.T, r *Calls, sender int, done chan error) {
	t.Helper()
	if err := unix.Send(sender, []byte("awaited"), 0); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := pieces(t, r); len(got) != 1 || string(got[0].Data) != "awaited" {
		t.Errorf("got %+v", got)
	}
}

// A descriptor means what the kernel takes it for at the time of the call, however
// it came to be: by dup2 over another socket or over a file, and back.
func TestCallsKnowDescriptors(t *testing.T) { eachWay(t, checkCallsKnowDescriptors) }

func checkCallsKnowDescriptors(t *testing.T) {
	receiver, sender := udpPair(t)
	stranger, toStranger := udpPair(t)
	c := mustFollow(t, CallsOptions{RingSize: MinRingSize}, receiver)
	zero, err := unix.Open("/dev/zero", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(zero)
	copied, err := unix.Dup(receiver)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(copied)
	for _, step := range []struct {
		over     int // becomes what fd means
		fd       int
		recorded bool
	}{
		{receiver, copied, true}, {stranger, receiver, false}, {zero, receiver, false}, {copied, receiver, true}, {zero, copied, false}, {receiver, stranger, true},
	} {
		if step.over != step.fd {
			if err := unix.Dup3(step.over, step.fd, unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
		}
		for _, fd := range []int{sender, toStranger} {
			if err := unix.Send(fd, []byte("12345"), unix.MSG_DONTWAIT); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
				t.Fatal(err)
			}
		}
		if _, err := unix.Read(step.fd, make([]byte, 64)); err != nil {
			t.Fatal(err)
		}
		got := pieces(t, c)
		if (len(got) == 1) != step.recorded || len(got) > 1 {
			t.Errorf("%+v: %+v", step, got)
		}
	}
}

func TestCallsCountWhatTheRingLoses(t *testing.T) {
	t.Parallel()
	receiver, sender := udpPair(t)
	r := mustFollow(t, CallsOptions{RingSize: MinRingSize}, receiver)
	buf := make([]byte, 30000)
	for range 100 {
		if err := unix.Send(sender, buf, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Read(receiver, buf); err != nil {
			t.Fatal(err)
		}
	}
	n := len(pieces(t, r))
	c, err := r.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if c.RingFull == 0 || c.Recorded < uint64(n) || c.Seen != c.Recorded+c.RingFull+c.Fault {
		t.Errorf("%d pieces, counters %+v", n, c)
	}
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Send(sender, buf, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Read(receiver, buf); err != nil {
		t.Fatal(err)
	}
	if got := pieces(t, r); len(got) != 0 {
		t.Errorf("%d pieces after Stop", len(got))
	}
}

func TestCallsSnaplen(t *testing.T) {
	t.Parallel()
	receiver, sender := udpPair(t)
	r := mustFollow(t, CallsOptions{RingSize: MinRingSize, Snaplen: 4}, receiver)
	if err := unix.Send(sender, []byte("truncated"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Read(receiver, make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	if got := pieces(t, r); len(got) != 1 || string(got[0].Data) != "trun" || got[0].Result != 9 {
		t.Errorf("got %+v", got)
	}
}

func FuzzDecodeEvent(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, eventSize))
	f.Add(bytes.Repeat([]byte{0xff}, eventSize+64))
	f.Fuzz(func(t *testing.T, sample []byte) {
		var p Event
		if err := DecodeEvent(sample, &p); err != nil {
			if !errors.Is(err, errEvent) {
				t.Errorf("error %v", err)
			}
			return
		}
		if len(p.Data) != int(p.Caplen) {
			t.Errorf("%d bytes, caplen %d", len(p.Data), p.Caplen)
		}
		p.Peer()
		if _, ok := p.Controls(); ok && p.Kind() != CallControl {
			t.Errorf("%s has ancillary data", p.CallName())
		}
	})
}
