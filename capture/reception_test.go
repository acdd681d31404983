package capture

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// outcome is what a program knows of a call that it made.
type outcome struct {
	Kind      string // of the socket
	Call      string
	Got       int // bytes in its buffer
	Errno     unix.Errno
	Reception Reception
	Peeked    bool
	Paired    bool // its packet is recorded
	Unsure    bool // or it is not: a unix socket gets its tap some time after it was made
	Unread    bool // its bytes are nowhere to be seen
}

// receptions are the calls that a process makes, and what it knows of them.
type receptions struct {
	kind     string // of the sockets that are received from
	outcomes []outcome
}

// targetReception makes the calls when it is told to, and says what it got.
func targetReception([]string) error {
	runtime.LockOSThread()
	fmt.Println("ready")
	bufio.NewScanner(os.Stdin).Scan()
	r := &receptions{}
	for _, each := range []func() error{r.sizes, r.ancillary, r.ancillary6, r.coalesced, r.unix, r.errors, r.ringed, r.multishot} {
		if err := each(); err != nil && !errors.Is(err, errUnsupported) {
			return err
		}
	}
	for _, o := range r.outcomes {
		line, err := json.Marshal(o)
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", line)
	}
	return untilStdinEnds("over")
}

// pair makes a datagram socket and one that is connected to it.
func (r *receptions) pair(domain int) (receiver, sender int, err error) {
	r.kind = "udp"
	var address unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if domain == unix.AF_INET6 {
		r.kind = "udp6"
		address = &unix.SockaddrInet6{Addr: [16]byte{15: 1}}
	}
	receiver, err1 := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	sender, err2 := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err := errors.Join(err1, err2, unix.Bind(receiver, address)); err != nil {
		return 0, 0, err
	}
	name, err := unix.Getsockname(receiver)
	return receiver, sender, errors.Join(err, unix.Connect(sender, name))
}

// noted keeps what is known of a call that returned n for a message of so many bytes.
func (r *receptions) noted(call string, n int, err error, buffer, sent int, more ...func(*outcome)) {
	o := outcome{Kind: r.kind, Call: call, Got: min(n, buffer), Paired: true}
	if !errors.As(err, &o.Errno) {
		o.Reception = Reception{Buffer: uint32(buffer), HasBuffer: true, Cut: sent > buffer}
		if o.Reception.Cut {
			o.Reception.Whole = uint32(sent)
		}
	}
	for _, change := range more {
		change(&o)
	}
	r.outcomes = append(r.outcomes, o)
}

// said is what a struct msghdr has after the call.
func said(h *unix.Msghdr, oob []byte) func(*outcome) {
	return saidBy(uint32(h.Flags), oob[:h.Controllen])
}

func saidBy(flags uint32, oob []byte) func(*outcome) {
	return func(o *outcome) {
		o.Reception.Flags = flags
		all, err := unix.ParseSocketControlMessage(oob)
		if err != nil {
			panic(err)
		}
		left := len(oob)
		for i, m := range all {
			if i == ControlsMax {
				break
			}
			left -= min(left, unix.CmsgSpace(len(m.Data)))
			if m.Header.Level == 17 && m.Header.Type == 104 {
				o.Reception.Segment = binary.NativeEndian.Uint32(m.Data)
			}
			o.Reception.Controls = append(o.Reception.Controls, Control{Level: m.Header.Level, Type: m.Header.Type, Len: uint32(len(m.Data))})
		}
		o.Reception.ControlRest = uint32(left)
	}
}

// recvmsg receives into a buffer in two parts, with so much room for ancillary data.
func recvmsg(fd, size, room, flags int) (n int, h *unix.Msghdr, oob []byte, err error) {
	b, oob := make([]byte, size+1), make([]byte, room+1)
	parts := []unix.Iovec{{Base: &b[0], Len: uint64(size / 2)}, {Base: &b[size/2], Len: uint64(size - size/2)}}
	h = &unix.Msghdr{Iov: &parts[0], Iovlen: 2, Control: &oob[0], Controllen: uint64(room)}
	r, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(h)), uintptr(flags))
	if errno != 0 {
		return 0, h, oob, errno
	}
	return int(r), h, oob, nil
}

// sizes receives messages with buffers of several sizes.
func (r *receptions) sizes() error {
	fd, sender, err := r.pair(unix.AF_INET)
	if err != nil {
		return err
	}
	const long = 1200
	message := bytes.Repeat([]byte("0123456789ab"), long/12)
	b := make([]byte, 2*long)
	for _, size := range []int{512, long - 1, long, long + 1, 0, 5} {
		send := func() {
			if err == nil {
				err = unix.Send(sender, message, 0)
			}
		}
		recvfrom := func(flags int, more ...func(*outcome)) {
			n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(size), uintptr(flags), 0, 0)
			err = errors.Join(err, failure(errno))
			r.noted("recvfrom", int(n), nil, size, long, more...)
		}
		send()
		recvfrom(0)
		send()
		recvfrom(unix.MSG_PEEK, func(o *outcome) { o.Peeked = true })
		recvfrom(unix.MSG_TRUNC)
		if size > 0 {
			send()
			n, rerr := unix.Read(fd, b[:size])
			r.noted("read", n, rerr, size, long)
			send()
			n, rerr = unix.Preadv2(fd, [][]byte{b[:1], b[long : long+size-1]}, -1, 0)
			r.noted("preadv2", n, rerr, size, long)
			for _, most := range []int{2, 64, 65, 1024} {
				send()
				n, rerr = unix.Readv(fd, split(b[:size], most))
				r.noted("readv", n, rerr, size, long)
			}
			send()
			err = errors.Join(err, r.spliced(fd, size, long))
		} else {
			send()
			err = errors.Join(err, r.idle(fd))
			recvfrom(0)
			err = errors.Join(err, unix.Send(sender, nil, 0), r.spliced(fd, 10, 0))
		}
		for _, flags := range []int{0, unix.MSG_TRUNC | unix.MSG_CMSG_CLOEXEC} {
			send()
			n, h, oob, rerr := recvmsg(fd, size, 0, flags)
			r.noted("recvmsg", n, rerr, size, long, said(h, oob), func(o *outcome) { o.Reception.Flags &^= echoed })
		}
		send()
		send()
		err = errors.Join(err, r.several(fd, size, long))
	}
	// Nothing there is no event.
	if _, _, rerr := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT); rerr != unix.EAGAIN {
		return fmt.Errorf("more than was sent: %w", rerr)
	}
	return err
}

func failure(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// several receives two messages with one call, the second one with room enough.
func (r *receptions) several(fd, size, sent int) error {
	var (
		all   [2]message
		parts [2]unix.Iovec
		b     = make([]byte, 4000)
	)
	sizes := []int{size, 2000}
	for i := range all {
		parts[i] = unix.Iovec{Base: &b[2000*i], Len: uint64(sizes[i])}
		all[i].header = unix.Msghdr{Iov: &parts[i], Iovlen: 1}
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&all[0])), 2, 0, 0, 0)
	if errno != 0 || n != 2 {
		return fmt.Errorf("recvmmsg: %d, %w", n, errno)
	}
	for i := range all {
		r.noted("recvmmsg", int(all[i].length), nil, sizes[i], sent, said(&all[i].header, nil))
	}
	return nil
}

// ancillary receives all that comes with a datagram, with enough room for it, some and none.
func (r *receptions) ancillary() error {
	fd, sender, err := r.pair(unix.AF_INET)
	if err != nil {
		return err
	}
	err = unix.SetsockoptString(sender, unix.SOL_IP, unix.IP_OPTIONS, "\x01\x01\x01\x00") // no operation, three times
	const software = unix.SOF_TIMESTAMPING_RX_SOFTWARE | unix.SOF_TIMESTAMPING_SOFTWARE
	for _, o := range [][3]int{
		{unix.SOL_IP, unix.IP_PKTINFO, 1}, {unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1}, {unix.SOL_IP, unix.IP_RECVTTL, 1}, {unix.SOL_IP, unix.IP_RECVTOS, 1},
		{unix.SOL_IP, unix.IP_RECVORIGDSTADDR, 1}, {unix.SOL_SOCKET, unix.SO_TIMESTAMPING, software}, {unix.SOL_IP, unix.IP_RECVOPTS, 1},
	} {
		err = errors.Join(err, unix.SetsockoptInt(fd, o[0], o[1], o[2]))
		for _, room := range []int{0, 10, 16, 30, 100, 1000} {
			err = errors.Join(err, unix.Send(sender, []byte("with more"), 0))
			n, h, oob, rerr := recvmsg(fd, 100, room, 0)
			r.noted("recvmsg", n, rerr, 100, 9, said(h, oob))
		}
	}
	if last := r.outcomes[len(r.outcomes)-1].Reception; last.ControlRest == 0 {
		return fmt.Errorf("too little comes with it: %+v", last)
	}
	return err
}

func (r *receptions) ancillary6() error {
	fd, sender, err := r.pair(unix.AF_INET6)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	for _, option := range []int{unix.IPV6_RECVPKTINFO, unix.IPV6_RECVTCLASS, unix.IPV6_RECVHOPLIMIT} {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_IPV6, option, 1))
	}
	err = errors.Join(err, unix.Send(sender, []byte("six"), 0))
	n, h, oob, rerr := recvmsg(fd, 2, 1000, 0)
	r.noted("recvmsg", n, rerr, 2, 3, said(h, oob))
	return err
}

// coalesced receives several datagrams at once (UDP_GRO).
func (r *receptions) coalesced() error {
	fd, sender, err := r.pair(unix.AF_INET)
	err = errors.Join(err, unix.SetsockoptInt(fd, 17, 104, 1), unix.SetsockoptInt(sender, 17, 103, 100))
	told := false
	for _, sent := range []int{50, 100, 200, 350} {
		for _, size := range []int{2000, 250} {
			err = errors.Join(err, unix.Send(sender, bytes.Repeat([]byte("g"), sent), 0))
			for left := sent; left > 0 && err == nil; {
				n, h, oob, rerr := recvmsg(fd, size, 100, 0)
				whole := left
				if h.Controllen == 0 { // old kernels take it apart on the way
					whole = min(left, 100)
				}
				told = told || h.Controllen > 0
				r.noted("recvmsg", n, rerr, size, whole, said(h, oob))
				left -= whole
				err = errors.Join(err, rerr)
			}
		}
	}
	if !told && kernelBetween([2]int{6, 0}, [2]int{99, 0}) {
		return errors.New("UDP_GRO tells of no segments")
	}
	return err
}

// unix receives descriptors and the sender's identity.
func (r *receptions) unix() error {
	// More than one of a kind, since they may share an interface, and the other kind has another.
	for _, kind := range []int{unix.SOCK_DGRAM, unix.SOCK_SEQPACKET, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
		r.kind = "unix-dgram"
		if kind == unix.SOCK_SEQPACKET {
			r.kind = "unix-seqpacket"
		}
		both, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		unsure := func(o *outcome) { o.Paired, o.Unsure = false, true }
		receive := func(room int, oob []byte) {
			err = errors.Join(err, unix.Sendmsg(both[0], []byte("unix"), oob, nil, 0))
			n, h, oob, rerr := recvmsg(both[1], 100, room, unix.MSG_CMSG_CLOEXEC)
			flags := uint32(h.Flags) &^ echoed
			r.noted("recvmsg", n, rerr, 100, 4, said(h, oob), unsure, func(o *outcome) { o.Reception.Flags = flags })
		}
		receive(1000, unix.UnixRights(0, 1, 2))
		receive(unix.CmsgSpace(4), unix.UnixRights(0, 1, 2))
		receive(1000, unix.UnixRights(0))
		err = errors.Join(err, unix.SetsockoptInt(both[1], unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
		receive(1000, nil)
		receive(1000, unix.UnixRights(0))
		if err != nil {
			return err
		}
	}
	return nil
}

// errors receives nothing but errors.
func (r *receptions) errors() error {
	fd, sender, err := r.pair(unix.AF_INET)
	if err != nil {
		return err
	}
	unpaired := func(o *outcome) { o.Paired = false }
	unix.Close(fd)
	for range 2 {
		// Nobody listens there any more.
		if err := unix.Send(sender, []byte("q"), 0); err != nil {
			return err
		}
		_, _, rerr := unix.Recvfrom(sender, make([]byte, 10), 0)
		r.noted("recvfrom", 0, rerr, 10, 0, unpaired)
		if rerr != unix.ECONNREFUSED {
			return fmt.Errorf("refused: %w", rerr)
		}
	}
	l, err := listenTCP()
	if err != nil {
		return err
	}
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	// Not connected yet.
	r.kind = "tcp"
	_, rerr := unix.Read(client, make([]byte, 10))
	r.noted("read", 0, rerr, 10, 0, unpaired)
	address := netip.MustParseAddrPort(l.Addr().String())
	if err := unix.Connect(client, &unix.SockaddrInet4{Addr: address.Addr().As4(), Port: int(address.Port())}); err != nil {
		return err
	}
	server, err := l.AcceptTCP()
	if err == nil {
		_, err = server.Write([]byte("hello"))
	}
	if err != nil {
		return err
	}
	n, rerr := unix.Read(client, make([]byte, 2))
	r.noted("read", n, rerr, 2, 0)
	if err := r.idle(client); err != nil { // this is not the end
		return err
	}
	n, rerr = unix.Read(client, make([]byte, 10))
	r.noted("read", n, rerr, 10, 0)
	if err := errors.Join(server.SetLinger(0), server.Close()); err != nil {
		return err
	}
	waiting := []unix.PollFd{{Fd: int32(client), Events: unix.POLLIN}}
	if _, err := unix.Poll(waiting, -1); err != nil {
		return err
	}
	_, rerr = unix.Read(client, make([]byte, 10))
	r.noted("read", 0, rerr, 10, 0)
	if rerr != unix.ECONNRESET {
		return fmt.Errorf("reset: %w", rerr)
	}
	return nil
}

// ringed receives by requests of io_uring.
func (r *receptions) ringed() error {
	if fd, err := ioURing(); err != nil {
		return errUnsupported
	} else if err := unix.Close(fd); err != nil {
		return err
	}
	ring, err := newRing(8, 0, 0)
	if err != nil {
		return err
	}
	fd, sender, err := r.pair(unix.AF_INET)
	err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_PKTINFO, 1))
	for _, size := range []int{512, 1500} {
		for range 2 {
			err = errors.Join(err, unix.Send(sender, make([]byte, 1200), 0))
		}
		if err != nil {
			return err
		}
		c, rerr := ring.do(sqe{opcode: opRecv, fd: int32(fd), addr: ring.address(0), len: uint32(size)})
		r.noted("io_uring recv", int(c.res), rerr, size, 1200)
		vector := unix.Iovec{Base: &ring.memory[0], Len: uint64(size)}
		oob := make([]byte, 100)
		h := unix.Msghdr{Iov: &vector, Iovlen: 1, Control: &oob[0], Controllen: uint64(len(oob))}
		c, rerr = ring.do(sqe{opcode: opRecvmsg, fd: int32(fd), addr: uint64(uintptr(unsafe.Pointer(&h))), len: 1})
		r.noted("io_uring recvmsg", int(c.res), rerr, size, 1200, said(&h, oob))
		runtime.KeepAlive(&h)
		// In more parts than are recorded, but for those that are empty.
		vectors := make([]unix.Iovec, 20)
		vectors[0] = vector
		err = unix.Send(sender, make([]byte, 1200), 0)
		c, readv := ring.do(sqe{opcode: opReadv, fd: int32(fd), addr: uint64(uintptr(unsafe.Pointer(&vectors[0]))), len: uint32(len(vectors))})
		r.noted("io_uring readv", int(c.res), readv, size, 1200, func(o *outcome) {
			if !o.Reception.Cut {
				o.Reception = Reception{}
			}
		})
		runtime.KeepAlive(vectors)
		if err = errors.Join(err, rerr, readv); err != nil {
			return err
		}
	}
	return nil
}

// multishot receives by a request that goes on, into buffers that begin with what recvmsg says.
func (r *receptions) multishot() error {
	const size, room, head = 512, 64, 16
	ring, err := newRing(8, 0, 0)
	if err == nil {
		err = ring.provide(4, size, 0)
	}
	if err != nil {
		return err
	}
	fd, sender, err := r.pair(unix.AF_INET)
	err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_PKTINFO, 1), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1))
	if err != nil {
		return err
	}
	h := unix.Msghdr{Controllen: room}
	ring.put(sqe{opcode: opRecvmsg, fd: int32(fd), flags: sqeBufferSelect, bufGroup: bufferGroup, ioprio: recvMultishot, addr: uint64(uintptr(unsafe.Pointer(&h))), len: 1})
	for _, sent := range []int{100, 1200} {
		if err := errors.Join(unix.Send(sender, make([]byte, sent), 0), ring.enter(1)); err != nil {
			return err
		}
		c, err := ring.reap()
		if err != nil {
			return err
		}
		b := ring.memory[int(c.flags>>16)*size:][:size]
		controls, length, flags := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[8:]), binary.NativeEndian.Uint32(b[12:])
		r.noted("io_uring recvmsg", int(length), nil, size-room-head, sent, saidBy(flags, b[head:][:controls]))
	}
	runtime.KeepAlive(&h)
	return nil
}

// What the user view says of each call is what the process knows of it.
func TestReception(t *testing.T) {
	t.Parallel()
	for _, snaplen := range []int{bpf.MaxSnaplen, 60} {
		t.Run(strconv.Itoa(snaplen), func(t *testing.T) {
			t.Parallel()
			checkReception(t, snaplen)
		})
	}
}

func checkReception(t *testing.T, snaplen int) {
	target := startTarget(t, "reception")
	l := mustJoin(t, JoinConfig{PIDs: []int{target.Process.Pid}, Options: Options{Snaplen: snaplen}})
	var want []outcome
	sink := runLive(t, l, func() {
		fmt.Fprintln(target.stdin, "go")
		for line := target.line(t); line != "over"; line = target.line(t) {
			var o outcome
			if err := json.Unmarshal([]byte(line), &o); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			want = append(want, o)
		}
	})
	got := sink.view(ViewUser)
	if len(got) != len(want) {
		t.Errorf("%d calls, want %d", len(got), len(want))
	}
	for i, p := range got[:min(len(got), len(want))] {
		w := want[i]
		o := outcome{
			Kind: p.Interface.Kind, Unread: w.Unread, Call: p.Call, Got: p.Got(), Errno: p.Receipt.Errno, Reception: p.Reception, Peeked: p.Receipt.Peeked,
			Paired: p.ID != 0 && !w.Unsure, Unsure: w.Unsure,
		}
		if !reflect.DeepEqual(o, w) {
			t.Errorf("call %d:\n got %+v\nwant %+v", i, o, w)
		}
		known := min(w.Got, snaplen)
		if w.Unread {
			known = 0
		}
		if p.Receipt.Errno == 0 && len(p.Data) != known || p.Receipt.End {
			t.Errorf("call %d: %d bytes, %+v, the process has %d", i, len(p.Data), p.Receipt, w.Got)
		}
	}
	checkLiveLedger(t, l)
	checkSegments(t, sink)
}

// checkSegments holds that what UDP_GRO tells of is in the packet that the read has the id of.
func checkSegments(t *testing.T, sink *memory) {
	t.Helper()
	kernel := make(map[uint64]Packet)
	for _, p := range sink.view(ViewKernel) {
		kernel[p.ID] = p
	}
	for _, p := range sink.view(ViewUser) {
		if p.Reception.Segment == 0 {
			continue
		}
		length := p.Got()
		if p.Reception.Cut {
			length = int(p.Reception.Whole)
		}
		if n, _ := p.Reception.Datagrams(length); kernel[p.ID].Meta.GSOSize != p.Reception.Segment || int(kernel[p.ID].Meta.GSOSegs) != n {
			t.Errorf("%d datagrams of %d bytes, in packet %d %+v", n, p.Reception.Segment, p.ID, kernel[p.ID].Meta)
		}
	}
}

// A session on a socket of its own says so as well, and keeps none of the descriptors that are
// passed to it.
func TestOwnReception(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	const long = receiveSize + 1000
	ns := mustNamespace(t)
	sink, _ := run(t, Config{Kind: mustKind(t, "unix-dgram"), Namespace: ns}, func(s *Session) {
		err := ns.Do(func() error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			for _, size := range []int{3, long} {
				to := &unix.SockaddrUnix{Name: s.Address()}
				err = errors.Join(err, unix.Sendmsg(fd, make([]byte, size), unix.UnixRights(int(w.Fd()), int(w.Fd())), to, 0))
			}
			return err
		})
		if err = errors.Join(err, w.Close(), s.settle(t.Context(), Counts{})); err != nil {
			t.Fatal(err)
		}
	})
	rights := []Control{{Level: unix.SOL_SOCKET, Type: unix.SCM_RIGHTS, Len: 8}}
	want := []Reception{
		{Buffer: receiveSize, HasBuffer: true, Controls: rights},
		{Buffer: receiveSize, HasBuffer: true, Controls: rights, Cut: true, Whole: long, Flags: unix.MSG_TRUNC},
	}
	var got []Reception
	for _, p := range sink.view(ViewUser) {
		got = append(got, p.Reception)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	// Not while another test starts a process, which has a copy of w until it becomes its program.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	waiting := []unix.PollFd{{Fd: int32(r.Fd()), Events: unix.POLLIN}}
	if n, err := unix.Poll(waiting, 0); n != 1 || err != nil || waiting[0].Revents&unix.POLLHUP == 0 {
		t.Errorf("somebody has the descriptors still: %d, %v, %+v", n, err, waiting)
	}
}
