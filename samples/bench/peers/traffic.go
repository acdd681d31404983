package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The processes that send and receive. They make their system calls directly,
// as a program in C does: Go's scheduler would cost as much as what is measured.
//
// Each says "ready" on stdout when it is. Senders then wait for a line on stdin,
// send, and say how many nanoseconds it took; receivers go on until they are killed.

const (
	senderAddr   = "10.99.0.1"
	receiverAddr = "10.99.0.2"
	// firstPort is the receiver's; if it has several sockets, the ones after it as well.
	firstPort = 20000
	// piece is what a TCP stream is written and read by.
	piece = 64 << 10
	// exchange is what a short connection carries in each direction.
	exchange = 64
)

var receiver = [4]byte{10, 99, 0, 2}

var roles = map[string]func(args []string) error{
	"send-udp":       withNumbers(3, func(n []int) error { return sendUDP(n[0], n[1], n[2]) }),
	"send-stream":    withNumbers(1, func(n []int) error { return sendStream(n[0]) }),
	"connect":        withNumbers(1, func(n []int) error { return connect(n[0]) }),
	"receive-udp":    withNumbers(1, func(n []int) error { return receiveUDP(n[0]) }),
	"receive-stream": withNumbers(0, func([]int) error { return receiveStreams() }),
	"answer":         withNumbers(0, func([]int) error { return answer() }),
}

func withNumbers(n int, f func([]int) error) func(args []string) error {
	return func(args []string) error {
		if len(args) != n {
			return fmt.Errorf("wants %d numbers", n)
		}
		numbers := make([]int, n)
		for i, a := range args {
			var err error
			if numbers[i], err = strconv.Atoi(a); err != nil {
				return err
			}
		}
		// Nothing is allocated while it counts, and nobody is to look after it.
		debug.SetGCPercent(-1)
		return f(numbers)
	}
}

func ready() { fmt.Println("ready") }

// timed waits for a line, and says how long f then took.
func timed(f func() error) error {
	ready()
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	begin := time.Now()
	if err := f(); err != nil {
		return err
	}
	fmt.Println(time.Since(begin).Nanoseconds())
	return nil
}

// call repeats a system call that a signal has interrupted.
func call(number, a, b, c, d, e, f uintptr) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(number, a, b, c, d, e, f)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

func read(fd int, p []byte) (int, error) {
	return call(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), 0, 0, 0)
}

func write(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := call(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), 0, 0, 0)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// place is an address as the kernel takes it.
func place(port int) *unix.RawSockaddrInet4 {
	a := &unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: receiver}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&a.Port))[:], uint16(port))
	return a
}

// sendUDP sends count datagrams of size bytes as fast as it can, to each of the
// receiver's sockets in turn.
func sendUDP(count, size, sockets int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if sockets == 1 {
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: firstPort, Addr: receiver}); err != nil {
			return err
		}
	}
	places := make([]*unix.RawSockaddrInet4, sockets)
	for i := range places {
		places[i] = place(firstPort + i)
	}
	payload := make([]byte, size)
	return timed(func() error {
		for i := range count {
			// Each datagram is another one, as they are in life.
			binary.LittleEndian.PutUint32(payload, uint32(i))
			var to, length uintptr
			if sockets > 1 {
				to, length = uintptr(unsafe.Pointer(places[i%sockets])), unix.SizeofSockaddrInet4
			}
			if _, err := call(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&payload[0])), uintptr(size), 0, to, length); err != nil {
				return fmt.Errorf("datagram %d: %w", i, err)
			}
		}
		return nil
	})
}

func receiveUDP(sockets int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = uint64(sockets) + spareDescriptors
	limit.Max = max(limit.Max, limit.Cur)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("asking for %d descriptors: %w", limit.Cur, err)
	}
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	var fd int
	for i := range sockets {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return fmt.Errorf("socket %d: %w", i, err)
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: firstPort + i, Addr: receiver}); err != nil {
			return fmt.Errorf("port %d: %w", firstPort+i, err)
		}
		if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return err
		}
	}
	ready()
	buf := make([]byte, 64<<10)
	if sockets == 1 { // it simply waits in recv
		for {
			if _, err := read(fd, buf); err != nil {
				return err
			}
		}
	}
	events := make([]unix.EpollEvent, 256)
	for {
		const forever = ^uintptr(0)
		n, err := call(unix.SYS_EPOLL_PWAIT, uintptr(poll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), forever, 0, 0)
		if err != nil {
			return err
		}
		for _, e := range events[:n] {
			_, err := call(unix.SYS_RECVFROM, uintptr(e.Fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), unix.MSG_DONTWAIT, 0, 0)
			if err != nil && !errors.Is(err, unix.EAGAIN) {
				return err
			}
		}
	}
}

func dial() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	_, err = call(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(place(firstPort))), unix.SizeofSockaddrInet4, 0, 0, 0)
	return fd, err
}

func listen() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: firstPort, Addr: receiver}); err != nil {
		return -1, err
	}
	return fd, unix.Listen(fd, 128)
}

// accepted hands each connection to serve, and closes it.
func accepted(serve func(fd int) error) error {
	listener, err := listen()
	if err != nil {
		return err
	}
	ready()
	for {
		fd, err := call(unix.SYS_ACCEPT4, uintptr(listener), 0, 0, unix.SOCK_CLOEXEC, 0, 0)
		if err != nil {
			return err
		}
		if err := errors.Join(serve(fd), unix.Close(fd)); err != nil {
			return err
		}
	}
}

// untilEOF reads what still comes.
func untilEOF(fd int, buf []byte) error {
	for {
		if n, err := read(fd, buf); n == 0 || err != nil {
			return err
		}
	}
}

// sendStream is done when the other side has read it all and closes.
func sendStream(pieces int) error {
	fd, err := dial()
	if err != nil {
		return err
	}
	buf := make([]byte, piece)
	return timed(func() error {
		for i := range pieces {
			binary.LittleEndian.PutUint32(buf, uint32(i))
			if err := write(fd, buf); err != nil {
				return err
			}
		}
		if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
			return err
		}
		return untilEOF(fd, buf)
	})
}

func receiveStreams() error {
	buf := make([]byte, piece)
	return accepted(func(fd int) error { return untilEOF(fd, buf) })
}

// connect makes connections one after the other, with one exchange in each.
func connect(count int) error {
	buf := make([]byte, exchange)
	return timed(func() error {
		for i := range count {
			fd, err := dial()
			if err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
			if err := write(fd, buf); err != nil {
				return err
			}
			if _, err := read(fd, buf); err != nil {
				return err
			}
			if err := unix.Close(fd); err != nil {
				return err
			}
		}
		return nil
	})
}

func answer() error {
	buf := make([]byte, exchange)
	return accepted(func(fd int) error {
		n, err := read(fd, buf)
		if err != nil || n == 0 {
			return err
		}
		if err := write(fd, buf[:n]); err != nil {
			return err
		}
		return untilEOF(fd, buf)
	})
}
