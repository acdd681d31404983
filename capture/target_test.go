package capture

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"github.com/ebpfdump/ebpfdump/bpf"
	"golang.org/x/sys/unix"
)

// targetName is argument 0 of the processes that the tests join: this test
// binary as somebody else's program.
const targetName = "ebpfdump-target"

func TestMain(m *testing.M) {
	Reenter()
	if filepath.Base(os.Args[0]) == targetName {
		if err := targets[os.Args[1]](os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "target:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if spoiled.Load() > sound.Load() {
		fmt.Fprintf(os.Stderr, "the kernel missed calls in %d tests, and in %d it did not: that is no rare event\n", spoiled.Load(), sound.Load())
		code = 1
	}
	os.Exit(code)
}

// Tests of the user view in which the kernel missed calls, and others.
var spoiled, sound atomic.Int32

// targets are the programs: each says on stdout where it listens, and ends when
// stdin does.
var targets = map[string]func(args []string) error{
	"echo":      func(args []string) error { return listenAndEcho(args[0], args[1], false) },
	"mptcp":     targetMPTCP,
	"refilter":  targetRefilter,
	"udp":       targetUDP,
	"held":      targetHeld,
	"prefork":   targetPrefork,
	"leaver":    targetLeaver,
	"worker":    targetWorker,
	"churn":     targetChurn,
	"into":      targetInto,
	"churned":   targetChurned,
	"locked":    func([]string) error { return targetFilter(true) },
	"filter":    func([]string) error { return targetFilter(false) },
	"owner":     targetOwner,
	"sink":      targetSink,
	"redialer":  targetRedialer,
	"sender":    targetSender,
	"splice":    targetSplice,
	"unheld":    targetUnheld,
	"seqpacket": targetSeqpacket,
	"handover":  targetHandover,
	"reader":    targetReader,
	"peek":      targetPeek,
	"taker":     targetTaker,
	"takers":    targetTakers,
	"mapped":    targetMapped,
	"many":      targetMany,
	"idle":      func([]string) error { return untilStdinEnds("idle") },
	"client":    targetClient,
	"exit":      func(args []string) error { os.Exit(3); return nil },
	"joiner":    targetJoiner,
	"replacer":  targetReplacer,
	"filtered":  targetFiltered,
	"reception": targetReception,
	"confined":  targetConfined,
	"uring":     targetRingServer,
}

// targetMPTCP listens at once, or after it is told to, at an address or anywhere.
func targetMPTCP(args []string) error {
	if args[0] == "after" {
		fmt.Println("ready")
		if _, err := os.Stdin.Read(make([]byte, 16)); err != nil {
			return err
		}
	}
	address := "127.0.0.1:0"
	if len(args) > 1 {
		address = args[1]
	}
	return listenAndEcho("tcp4", address, true)
}

// targetRefilter gives its socket a filter when it is told to.
func targetRefilter([]string) error {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := os.Stdin.Read(make([]byte, 16)); err != nil {
		return err
	}
	if err := keepAll(conn); err != nil {
		return err
	}
	return untilStdinEnds("done")
}

// keepAll gives a socket a filter that keeps everything.
func keepAll(conn syscall.Conn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) {
		err = restoreFilter(int(fd), []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff}})
	})
	return errors.Join(err, cerr)
}

// targetFiltered echoes on connections of a listener with a filter, which keeps everything.
func targetFiltered([]string) error {
	l, err := listenTCP()
	if err != nil {
		return err
	}
	if err := keepAll(l); err != nil {
		return err
	}
	go echoAll(l)
	return untilStdinEnds(l.Addr().String())
}

func untilStdinEnds(address string) error {
	fmt.Println(address)
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func listenAndEcho(network, address string, multipath bool) error {
	var config net.ListenConfig
	config.SetMultipathTCP(multipath)
	l, err := config.Listen(context.Background(), network, address)
	if err != nil {
		return err
	}
	go echoAll(l)
	return untilStdinEnds(l.Addr().String())
}

// listenTCP listens without MPTCP, which Go would take by itself.
func listenTCP() (*net.TCPListener, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

func echoAll(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go echo(conn)
	}
}

// echo sends back what it reads, to the end. Not by io.Copy, which would splice.
func echo(conn net.Conn) {
	defer conn.Close()
	buf := make([]byte, 100_000)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return
		}
	}
}

// targetSink reads datagrams with room for so many bytes. For a line on stdin it
// closes the socket.
func targetSink(args []string) error {
	room, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room); err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	fmt.Println(addrPort(name))
	var ending atomic.Bool
	over := make(chan struct{})
	go func() {
		defer close(over)
		buf := make([]byte, 2000)
		for !ending.Load() {
			waiting := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if n, err := unix.Poll(waiting, 10); err == nil && n > 0 {
				_, _, _ = unix.Recvfrom(fd, buf, 0)
			}
		}
	}()
	if bufio.NewScanner(os.Stdin).Scan() {
		ending.Store(true)
		<-over
		if err := unix.Close(fd); err != nil {
			return err
		}
		fmt.Println("closed")
		_, err = io.Copy(io.Discard, os.Stdin)
		return err
	}
	return nil
}

func targetUDP(args []string) error {
	conn, err := net.ListenPacket("udp", args[0])
	if err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 70_000)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if _, err := conn.WriteTo(buf[:n], from); err != nil {
				return
			}
		}
	}()
	return untilStdinEnds(conn.LocalAddr().String())
}

// targetHeld accepts one connection and reads it only when it is told to, as
// many bytes as it is told.
func targetHeld([]string) error {
	l, err := listenTCP()
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	fmt.Println("accepted")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var n int
		if _, err := fmt.Sscan(lines.Text(), &n); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, make([]byte, n)); err != nil {
			return err
		}
		fmt.Println("read")
	}
	return nil
}

// targetPrefork leaves the work to a child that has inherited the listener.
func targetPrefork([]string) error {
	l, err := listenTCP()
	if err != nil {
		return err
	}
	file, err := l.File()
	if err != nil {
		return err
	}
	worker := &exec.Cmd{Path: "/proc/self/exe", Args: []string{targetName, "worker"}, Stdin: os.Stdin, ExtraFiles: []*os.File{file}}
	if err := worker.Start(); err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return worker.Wait()
}

// targetLeaver leaves everything to a child, which is a target itself.
func targetLeaver(args []string) error {
	child := &exec.Cmd{Path: "/proc/self/exe", Args: append([]string{targetName}, args...), Stdin: os.Stdin, Stdout: os.Stdout}
	if err := child.Start(); err != nil {
		return err
	}
	return child.Wait()
}

func targetWorker([]string) error {
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	go echoAll(l)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// targetFilter has a UDP socket with a filter of its own, which keeps everything.
func targetFilter(lock bool) error {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) {
		if lock {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1)
			return
		}
		err = restoreFilter(int(fd), []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff}})
	})
	if err := errors.Join(err, cerr); err != nil {
		return err
	}
	go func() { io.Copy(io.Discard, conn) }()
	return untilStdinEnds(conn.LocalAddr().String())
}

// targetSplice receives in ways that nobody can see.
func targetSplice([]string) error {
	l, err := listenTCP()
	if err != nil {
		return err
	}
	go func() {
		conn, err := l.AcceptTCP()
		if err != nil {
			return
		}
		r, w, err := os.Pipe()
		if err != nil {
			return
		}
		go io.Copy(io.Discard, r)
		io.Copy(w, conn) // which splices
	}()
	return untilStdinEnds(l.Addr().String())
}

// targetSeqpacket accepts a connection of a unix seqpacket socket, says so, and
// reads it to its end.
func targetSeqpacket(args []string) error {
	l, err := net.Listen("unixpacket", args[0])
	if err != nil {
		return err
	}
	fmt.Println(args[0])
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	fmt.Println("accepted")
	buf := make([]byte, 100)
	for {
		if n, err := conn.Read(buf); n == 0 || err != nil {
			return untilStdinEnds("end")
		}
	}
}

// targetHandover reads the beginning of a connection, and leaves the rest of it to
// a child.
func targetHandover([]string) error {
	l, err := listenTCP()
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	conn, err := l.AcceptTCP()
	if err != nil {
		return err
	}
	buf := make([]byte, 100)
	n, err := conn.Read(buf)
	if err != nil {
		return err
	}
	if _, err := conn.Write(buf[:n]); err != nil {
		return err
	}
	file, err := conn.File()
	if err != nil {
		return err
	}
	reader := &exec.Cmd{Path: "/proc/self/exe", Args: []string{targetName, "reader"}, Stdin: os.Stdin, ExtraFiles: []*os.File{file}}
	if err := reader.Start(); err != nil {
		return err
	}
	file.Close()
	conn.Close()
	return reader.Wait()
}

// targetReader echoes what comes from descriptor 3.
func targetReader([]string) error {
	conn, err := net.FileConn(os.NewFile(3, "connection"))
	if err != nil {
		return err
	}
	go echo(conn)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// targetPeek looks at what it receives before it takes it.
func targetPeek([]string) error {
	l, err := listenTCP()
	if err != nil {
		return err
	}
	go func() {
		conn, err := l.AcceptTCP()
		if err != nil {
			return
		}
		file, err := conn.File()
		if err != nil {
			return
		}
		buf := make([]byte, 100)
		for {
			if n, _, err := unix.Recvfrom(int(file.Fd()), buf, unix.MSG_PEEK); n == 0 || err != nil {
				return
			}
			n, _, err := unix.Recvfrom(int(file.Fd()), buf, 0)
			if err != nil {
				return
			}
			conn.Write(buf[:n])
		}
	}()
	return untilStdinEnds(l.Addr().String())
}

// ioURing makes a ring that is never used, to see whether there can be one.
func ioURing() (fd int, err error) {
	var params [120]byte
	r, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params[0])), 0)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}

// targetMapped has a packet socket with a ring in its memory, and says the
// socket's descriptor.
func targetMapped([]string) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	ring := unix.TpacketReq{Block_size: 4096, Block_nr: 1, Frame_size: 2048, Frame_nr: 2}
	if err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &ring); err != nil {
		return err
	}
	memory, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(memory)
	return untilStdinEnds(strconv.Itoa(fd))
}

// targetUnheld sends from a socket that has no address.
func targetUnheld(args []string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	to := netip.MustParseAddrPort(args[0])
	if err := unix.Sendmsg(fd, []byte(args[1]), nil, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}, 0); err != nil {
		return err
	}
	_, _, err = unix.Recvfrom(fd, make([]byte, 100), 0)
	return err
}

// targetClient sends a text to a server and waits for it to come back.
func targetClient(args []string) error {
	conn, err := net.Dial(args[0], args[1])
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, args[2]); err != nil {
		return err
	}
	back := make([]byte, len(args[2]))
	if _, err := io.ReadFull(conn, back); err != nil {
		return err
	}
	fmt.Printf("%s\n", back)
	return nil
}

// targetJoiner drops all that another process gets until it is killed.
func targetJoiner(args []string) error {
	var pid int
	if _, err := fmt.Sscan(args[0], &pid); err != nil {
		return err
	}
	config := JoinConfig{PIDs: []int{pid}, Options: Options{RingSize: smallRing}}
	if config.WrapFilter = len(args) > 1; !config.WrapFilter {
		config.Verdict = bpf.Keep(0)
	}
	l, err := Join(config)
	if err != nil {
		return err
	}
	fmt.Println("joined")
	return l.Run(context.Background(), new(memory))
}
