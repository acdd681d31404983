package capture

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// taker is a process that receives in one of many ways.
type taker struct {
	*ring
	fd  int // of the connection, or the bound socket
	way receiving
	// What goes on from one call to the next.
	armed bool
	pipe  [2]int
	room  []byte // for TCP_ZEROCOPY_RECEIVE
}

// receiving is a way to receive: it takes so many bytes, or so many datagrams, or
// learns with 0 that there will be no more.
type receiving struct {
	ring    bool
	flags   uint32 // of io_uring_setup
	cq      uint32 // completions that there is room for
	udp     bool
	prepare func(*taker) error
	take    func(r *taker, n int) error
}

// each takes n bytes by a request at a time, of which one returns how many came.
func each(one func(r *taker, left int) (int, error)) func(*taker, int) error {
	return func(r *taker, n int) error {
		for left := n; ; {
			got, err := one(r, left)
			if err != nil {
				return err
			}
			left -= got
			if left <= 0 || got == 0 {
				if left != 0 {
					return fmt.Errorf("%d of %d bytes are missing", left, n)
				}
				return nil
			}
		}
	}
}

// requests takes bytes by requests that differ in little.
func requests(change func(r *taker, s *sqe)) func(*taker, int) error {
	return each(func(r *taker, left int) (int, error) {
		s := sqe{opcode: opRecv, fd: int32(r.fd), addr: r.address(0), len: 700}
		change(r, &s)
		c, err := r.do(s)
		return int(c.res), err
	})
}

var receivings = map[string]receiving{
	"recv":                 {ring: true, take: requests(func(*taker, *sqe) {})},
	"deferred recv":        {ring: true, flags: setupSingleIssuer | setupDeferTaskrun, take: requests(func(*taker, *sqe) {})},
	"polled by the kernel": {ring: true, flags: setupSQPoll, take: requests(func(*taker, *sqe) {})},
	"worker":               {ring: true, take: requests(func(_ *taker, s *sqe) { s.flags = sqeAsync })},
	"read":                 {ring: true, take: requests(func(_ *taker, s *sqe) { s.opcode = opRead })},
	"waitall": {ring: true, take: each(func(r *taker, left int) (int, error) {
		c, err := r.do(sqe{opcode: opRecv, fd: int32(r.fd), addr: r.address(0), len: uint32(max(left, 1)), opFlags: unix.MSG_WAITALL})
		return int(c.res), err
	})},
	"registered file": {ring: true, prepare: func(r *taker) error {
		files := [3]int32{-1, -1, int32(r.fd)}
		return r.register(registerFiles, unsafe.Pointer(&files), len(files))
	}, take: requests(func(_ *taker, s *sqe) { s.fd, s.flags = 2, sqeFixedFile })},
	"registered buffer": {ring: true, prepare: func(r *taker) error {
		part := unix.Iovec{Base: &r.memory[0], Len: 8192}
		return r.register(registerBuffers, unsafe.Pointer(&part), 1)
	}, take: requests(func(r *taker, s *sqe) { s.opcode, s.addr = opReadFixed, r.address(1000) })},
	"readv":   {ring: true, take: vectored(opReadv, 300, 0, 1, 500)},
	"recvmsg": {ring: true, take: vectored(opRecvmsg, 100, 200, 300)},
	// More of them than are recorded.
	"many parts": {ring: true, take: vectored(opReadv, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60)},
	"batch":      {ring: true, take: batches},
	"peek": {ring: true, take: each(func(r *taker, left int) (int, error) {
		s := sqe{opcode: opRecv, fd: int32(r.fd), addr: r.address(0), len: 500}
		s.opFlags = unix.MSG_PEEK
		if _, err := r.do(s); err != nil {
			return 0, err
		}
		s.opFlags = 0
		c, err := r.do(s)
		return int(c.res), err
	})},
	"trunc": {ring: true, take: requests(func(_ *taker, s *sqe) { s.opFlags = unix.MSG_TRUNC })},
	"mixed": {ring: true, take: each(func(r *taker, left int) (int, error) {
		r.armed = !r.armed
		if r.armed {
			return unix.Read(r.fd, r.memory[:450])
		}
		c, err := r.do(sqe{opcode: opRecv, fd: int32(r.fd), addr: r.address(0), len: 350})
		return int(c.res), err
	})},
	"splice request": {ring: true, prepare: pipes, take: each(func(r *taker, left int) (int, error) {
		c, err := r.do(sqe{opcode: opSplice, fd: int32(r.pipe[1]), off: ^uint64(0), addr: ^uint64(0), spliceFD: int32(r.fd), len: 900})
		return int(c.res), errors.Join(err, r.drain(int(c.res)))
	})},
	"provided ring": {ring: true, prepare: func(r *taker) error { return r.provide(16, 512, 0) }, take: selected},
	"incremental":   {ring: true, prepare: func(r *taker) error { return r.provide(4, 4096, ringIncremental) }, take: multishots(0)},
	"multishot":     {ring: true, prepare: func(r *taker) error { return r.provide(16, 512, 0) }, take: multishots(0)},
	"bundle":        {ring: true, prepare: func(r *taker) error { return r.provide(16, 512, 0) }, take: multishots(recvBundle)},
	// Of 3,000 bytes there are more completions than there is room for.
	"overflow":      {ring: true, flags: setupCQSize, cq: 16, prepare: func(r *taker) error { return r.provide(64, 64, 0) }, take: multishots(0)},
	"provided list": {ring: true, prepare: func(r *taker) error { return r.provideListed(0, 16, 512) }, take: selected},

	"splice": {prepare: pipes, take: each(func(r *taker, left int) (int, error) {
		n, err := unix.Splice(r.fd, nil, r.pipe[1], nil, 900, 0)
		return int(n), errors.Join(err, r.drain(int(n)))
	})},
	"recv MSG_TRUNC": {take: each(func(r *taker, left int) (int, error) {
		n, _, err := unix.Recvfrom(r.fd, make([]byte, 600), unix.MSG_TRUNC)
		return n, err
	})},
	"recv MSG_TRUNC without a buffer": {take: each(func(r *taker, left int) (int, error) {
		n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(r.fd), 0, 600, unix.MSG_TRUNC, 0, 0)
		if errno != 0 {
			return 0, errno
		}
		return int(n), nil
	})},
	"TCP_ZEROCOPY_RECEIVE": {prepare: mapSocket, take: each(zerocopy)},

	"udp recv": {ring: true, udp: true, take: datagramWise(func(r *taker) error {
		_, err := r.do(sqe{opcode: opRecv, fd: int32(r.fd), addr: r.address(0), len: 2000})
		return err
	})},
	"udp recvmsg":           {ring: true, udp: true, take: datagramWise(messages)},
	"udp multishot":         {ring: true, udp: true, prepare: func(r *taker) error { return r.provide(16, 2048, 0) }, take: manyDatagrams(opRecv)},
	"udp multishot recvmsg": {ring: true, udp: true, prepare: func(r *taker) error { return r.provide(16, 2048, 0) }, take: manyDatagrams(opRecvmsg)},
}

// vectored takes bytes by a request with a buffer in parts, which says where they are
// only until the kernel has it.
func vectored(opcode uint8, sizes ...int) func(*taker, int) error {
	vector := make([]unix.Iovec, len(sizes))
	return each(func(r *taker, left int) (int, error) {
		at := 0
		for i, size := range sizes {
			vector[i] = unix.Iovec{Base: &r.memory[at], Len: uint64(size)}
			at += size + 100
		}
		message := unix.Msghdr{Iov: &vector[0], Iovlen: uint64(len(vector))}
		s := sqe{opcode: opcode, fd: int32(r.fd), addr: uint64(uintptr(unsafe.Pointer(&vector[0]))), len: uint32(len(vector))}
		if opcode == opRecvmsg {
			s.addr, s.len = uint64(uintptr(unsafe.Pointer(&message))), 1
		}
		r.put(s)
		if err := r.enter(0); err != nil {
			return 0, err
		}
		clear(vector)
		c, err := r.reap()
		runtime.KeepAlive(&message)
		return int(c.res), err
	})
}

// batches takes bytes by as many requests at once as are sure to get some.
func batches(r *taker, n int) error {
	const size = 300
	for left := n; ; {
		k := max(1, min(left/size, int(r.params.sqEntries)))
		for i := range k {
			r.put(sqe{opcode: opRecv, fd: int32(r.fd), addr: r.address(i * size), len: size, userData: uint64(i)})
		}
		if err := r.enter(uint32(k)); err != nil {
			return err
		}
		for range k {
			c, err := r.reap()
			if err != nil {
				return err
			}
			left -= int(c.res)
		}
		if left <= 0 {
			return nil
		}
	}
}

// selected takes bytes by single requests for which the kernel chooses a buffer.
func selected(r *taker, n int) error {
	return each(func(r *taker, left int) (int, error) {
		c, err := r.do(sqe{opcode: opRecv, fd: int32(r.fd), len: uint32(r.bufferSize), flags: sqeBufferSelect, bufGroup: bufferGroup})
		if err != nil || c.flags&cqeBuffer == 0 {
			return int(c.res), err
		}
		id := int(c.flags >> 16)
		if r.buffers == nil {
			return int(c.res), r.provideListed(id, 1, r.bufferSize)
		}
		r.giveBack(id)
		return int(c.res), nil
	})(r, n)
}

// multishots takes bytes by a request that goes on.
func multishots(flags uint16) func(*taker, int) error {
	return func(r *taker, n int) error {
		for left := n; ; {
			if !r.armed {
				r.put(sqe{opcode: opRecv, fd: int32(r.fd), flags: sqeBufferSelect, bufGroup: bufferGroup, ioprio: recvMultishot | flags, userData: 7})
				r.armed = true
			}
			if err := r.enter(1); err != nil {
				return err
			}
			c, err := r.reap()
			r.armed = c.flags&cqeMore != 0
			if errors.Is(err, unix.ENOBUFS) {
				continue
			}
			if err != nil {
				return err
			}
			left -= int(c.res)
			if c.flags&cqeBuffer != 0 && c.flags&cqeBufferMore == 0 {
				for taken := 0; taken < max(1, int(c.res)); taken += r.bufferSize {
					r.giveBack((int(c.flags>>16) + taken/r.bufferSize) % (len(r.buffers) / 16))
					if flags&recvBundle == 0 {
						break
					}
				}
			}
			if left <= 0 {
				return nil
			}
		}
	}
}

func pipes(r *taker) error { return unix.Pipe2(r.pipe[:], unix.O_CLOEXEC) }

func (r *taker) drain(n int) error {
	for n > 0 {
		got, err := unix.Read(r.pipe[0], r.memory[:n])
		if err != nil {
			return err
		}
		n -= got
	}
	return nil
}

func mapSocket(r *taker) (err error) {
	r.room, err = unix.Mmap(r.fd, 0, 1<<16, unix.PROT_READ, unix.MAP_SHARED)
	return err
}

// zerocopy is TCP_ZEROCOPY_RECEIVE, and recv for what is not whole pages.
func zerocopy(r *taker, left int) (int, error) {
	request := struct {
		address      uint64
		length, skip uint32
	}{address: uint64(uintptr(unsafe.Pointer(&r.room[0]))), length: uint32(len(r.room))}
	size := uint32(unsafe.Sizeof(request))
	const tcpZerocopyReceive = 35
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(r.fd), unix.IPPROTO_TCP, tcpZerocopyReceive, uintptr(unsafe.Pointer(&request)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 && errno != unix.EAGAIN && errno != unix.EIO { // which it says at the end
		return 0, errno
	}
	if errno == 0 && request.length > 0 {
		if err := unix.Madvise(r.room, unix.MADV_DONTNEED); err != nil {
			return 0, err
		}
		return int(request.length), nil
	}
	want := 600
	if errno == 0 && request.skip > 0 {
		want = int(request.skip)
	}
	n, _, err := unix.Recvfrom(r.fd, make([]byte, want), 0)
	return n, err
}

func datagramWise(one func(*taker) error) func(*taker, int) error {
	return func(r *taker, n int) error {
		for range n {
			if err := one(r); err != nil {
				return err
			}
		}
		return nil
	}
}

// messages receives a datagram with its sender.
func messages(r *taker) error {
	var name unix.RawSockaddrInet4
	vector := unix.Iovec{Base: &r.memory[0], Len: 2000}
	message := unix.Msghdr{Iov: &vector, Iovlen: 1, Name: (*byte)(unsafe.Pointer(&name)), Namelen: unix.SizeofSockaddrInet4}
	_, err := r.do(sqe{opcode: opRecvmsg, fd: int32(r.fd), addr: uint64(uintptr(unsafe.Pointer(&message))), len: 1})
	if err == nil && name.Port == 0 {
		err = errors.New("no sender")
	}
	return err
}

// manyDatagrams receives by a request that goes on, the messages with their senders.
func manyDatagrams(opcode uint8) func(*taker, int) error {
	message := unix.Msghdr{Namelen: unix.SizeofSockaddrInet4, Controllen: 24}
	return func(r *taker, n int) error {
		for range n {
			if !r.armed {
				s := sqe{opcode: opcode, fd: int32(r.fd), flags: sqeBufferSelect, bufGroup: bufferGroup, ioprio: recvMultishot, userData: 8}
				if opcode == opRecvmsg {
					s.addr, s.len = uint64(uintptr(unsafe.Pointer(&message))), 1
				}
				r.put(s)
				r.armed = true
			}
			if err := r.enter(1); err != nil {
				return err
			}
			c, err := r.reap()
			if err != nil {
				return err
			}
			r.armed = c.flags&cqeMore != 0
			r.giveBack(int(c.flags >> 16))
		}
		return nil
	}
}

// targetTakers has a child for each way that it is told. Descriptors from 3 on are the
// children's stdin and stdout.
func targetTakers(ways []string) error {
	for i, way := range ways {
		stdin, stdout := os.NewFile(uintptr(3+2*i), "stdin"), os.NewFile(uintptr(4+2*i), "stdout")
		taker := &exec.Cmd{Path: "/proc/self/exe", Args: []string{targetName, "taker", way}, Stdin: stdin, Stdout: stdout, Stderr: os.Stderr}
		if err := taker.Start(); err != nil {
			return err
		}
		stdin.Close()
		stdout.Close()
	}
	return untilStdinEnds("started")
}

// targetTaker takes what it is told to in one of the ways: for a number on stdin so
// many bytes or datagrams.
func targetTaker(args []string) error {
	runtime.LockOSThread()
	r := &taker{way: receivings[args[0]]}
	err := r.open()
	if err == nil && r.way.ring {
		r.ring, err = newRing(16, r.way.flags, r.way.cq)
	} else {
		r.ring = &ring{memory: make([]byte, 1<<16)}
	}
	if err == nil && r.way.prepare != nil {
		err = r.way.prepare(r)
	}
	for lines := bufio.NewScanner(os.Stdin); err == nil && lines.Scan(); {
		var n int
		if n, err = strconv.Atoi(lines.Text()); err == nil {
			err = r.way.take(r, n)
		}
		if err == nil {
			fmt.Println("taken")
		}
	}
	if errors.Is(err, errUnsupported) {
		return untilStdinEnds("unsupported")
	}
	return err
}

// open says where it listens, and waits for the connection if there will be one.
func (r *taker) open() error {
	if r.way.udp {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return err
		}
		file, err := conn.File()
		if err != nil {
			return err
		}
		fmt.Println(conn.LocalAddr())
		r.fd = int(file.Fd())
		runtime.SetFinalizer(file, nil)
		return nil
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	if err := unix.Listen(fd, 1); err != nil {
		return err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	fmt.Println(addrPort(name))
	r.fd, _, err = unix.Accept4(fd, unix.SOCK_CLOEXEC)
	return err
}
