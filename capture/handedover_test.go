package capture

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Sockets that a followed process has, and that somebody else has made: the test
// itself, which nobody follows.

func init() {
	targets["getfd"] = targetGetfd
	targets["backlog"] = targetBacklog
}

// targetGetfd gets a socket of another process when it is told of which one, and serves
// it, with no other calls than it must make: to ask a socket for an option is to be
// found with it.
func targetGetfd([]string) error {
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var pid, fd int
		var network string
		if _, err := fmt.Sscan(lines.Text(), &pid, &fd, &network); err != nil {
			return err
		}
		owner, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return err
		}
		got, err := unix.PidfdGetfd(owner, fd, 0)
		if err != nil {
			return err
		}
		if err := unix.SetNonblock(got, false); err != nil {
			return err
		}
		switch network {
		case "listener":
			go acceptPlain(got)
		default:
			go echoPlain(got)
		}
		fmt.Println("got it")
	}
	return nil
}

// acceptPlain serves what a listener accepts, for ever.
func acceptPlain(listener int) {
	for {
		// unix.Accept4 asks for an option.
		fd, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(listener), 0, 0, unix.SOCK_CLOEXEC, 0, 0)
		if errno != 0 {
			return
		}
		go echoPlain(int(fd))
	}
}

// echoPlain sends back what comes by a connection, or by a socket of datagrams.
func echoPlain(fd int) {
	defer unix.Close(fd)
	buf := make([]byte, 2000)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err == nil && n > 0 {
			err = unix.Sendto(fd, buf[:n], 0, from)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "echoing:", err)
			return
		}
		if n == 0 {
			return
		}
	}
}

// targetBacklog listens, and accepts only when it is told to: as many connections as
// it is told, which it serves. It says its listener's descriptor.
func targetBacklog([]string) error {
	l, err := listenTCP()
	if err != nil {
		return err
	}
	file, err := l.File()
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	fmt.Println(file.Fd())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var n int
		if _, err := fmt.Sscan(lines.Text(), &n); err != nil {
			return err
		}
		for range n {
			conn, err := l.Accept()
			if err != nil {
				return err
			}
			go echo(conn)
		}
		fmt.Println("accepted")
	}
	return nil
}

// listenIn listens in a namespace.
func listenIn(tb testing.TB, ns *Namespace) *net.TCPListener {
	tb.Helper()
	var l *net.TCPListener
	err := ns.Do(func() (err error) {
		l, err = listenTCP()
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	return l
}

// descriptorOf is a descriptor of a socket that stays open until the test ends.
func descriptorOf(tb testing.TB, socket interface{ File() (*os.File, error) }) *os.File {
	tb.Helper()
	file, err := socket.File()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { file.Close() })
	return file
}

// tell gives the target a line, and waits for its answer.
func (t *target) tell(tb testing.TB, words ...any) {
	tb.Helper()
	fmt.Fprintln(t.stdin, words...)
	t.line(tb)
}

// checkWholeFrom holds that a connection, or the datagrams of a client, are in both
// views with all their bytes, each read with the id of a packet.
func checkWholeFrom(t *testing.T, sink *memory, client net.Addr, text string) {
	t.Helper()
	if got := streamOf(sink, client); got != text {
		t.Errorf("the user view has %.200q from %v, want %.200q", got, client, text)
	}
	from := unmapped(netip.MustParseAddrPort(client.String()))
	some := new(memory)
	for _, p := range sink.packets {
		if p.Src == from {
			some.packets = append(some.packets, p)
		}
	}
	checkPairs(t, some)
}

// checkHandshake holds that the kernel view of a client's connection begins with its SYN.
func checkHandshake(t *testing.T, sink *memory, client net.Addr) {
	t.Helper()
	from := unmapped(netip.MustParseAddrPort(client.String()))
	for _, p := range sink.view(ViewKernel) {
		if p.Src == from {
			if !isSYN(p.Data) {
				t.Errorf("the first packet from %v is no SYN", client)
			}
			return
		}
	}
	t.Errorf("no packet from %v", client)
}

// lateFrom is what the user view has from a client behind what has no packet of its own.
func lateFrom(sink *memory, client net.Addr) (late string) {
	from := unmapped(netip.MustParseAddrPort(client.String()))
	for _, p := range sink.view(ViewUser) {
		if p.Src == from && p.ID != 0 {
			late += string(p.Data)
		}
	}
	return late
}

// A connection and datagrams that come to a followed process by pidfd_getfd are
// in the user view from the first read on, and in the kernel view from there on.
func TestJoinGetsSockets(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			server := startTarget(t, "getfd")
			conn, owned := madeElsewhere(t, server, network)
			l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}})
			sink := runLive(t, l, func() {
				server.tell(t, os.Getpid(), owned.Fd(), network)
				exchange(t, conn, "first. ")
				quiet(t, l) // it is being looked at
				exchange(t, conn, "second. ")
				exchange(t, conn, "third.")
			})
			if got := streamOf(sink, conn.LocalAddr()); got != "first. second. third." {
				t.Errorf("the user view has %q", got)
			}
			if got := lateFrom(sink, conn.LocalAddr()); !strings.HasSuffix(got, "second. third.") {
				t.Errorf("with packets of their own: %q", got)
			}
		})
	}
}

// madeElsewhere makes a socket of the test's own, and a client of it.
func madeElsewhere(t *testing.T, server *target, network string) (client net.Conn, owned *os.File) {
	t.Helper()
	if network == "tcp" {
		l := listenIn(t, server.ns)
		client = server.dial(t, "tcp", l.Addr().String())
		accepted, err := l.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		defer accepted.Close()
		return client, descriptorOf(t, accepted)
	}
	var conn net.PacketConn
	err := server.ns.Do(func() (err error) {
		conn, err = net.ListenPacket("udp4", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return server.dial(t, "udp", conn.LocalAddr().String()), descriptorOf(t, conn.(*net.UDPConn))
}

// A listener that comes by pidfd_getfd is followed from the first connection on that
// the process accepts from it: the later ones from their SYN on.
func TestJoinGetsAListener(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "getfd")
	owned := listenIn(t, server.ns)
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}})
	var conns []net.Conn
	sink := runLive(t, l, func() {
		server.tell(t, os.Getpid(), descriptorOf(t, owned).Fd(), "listener")
		for range 4 {
			conn := server.dial(t, "tcp", owned.Addr().String())
			exchange(t, conn, "first. ")
			quiet(t, l)
			exchange(t, conn, "second.")
			conns = append(conns, conn)
		}
	})
	for i, conn := range conns {
		if got := streamOf(sink, conn.LocalAddr()); got != "first. second." {
			t.Errorf("connection %d: the user view has %q", i, got)
		}
		if got := lateFrom(sink, conn.LocalAddr()); !strings.HasSuffix(got, "second.") {
			t.Errorf("connection %d: with packets of their own: %q", i, got)
		}
		if i > 0 {
			checkWholeFrom(t, sink, conn.LocalAddr(), "first. second.")
			checkHandshake(t, sink, conn.LocalAddr())
		}
	}
}

// A server that is started by the socket that it listens on, as systemd does: the one
// that has opened it is followed by nobody, and a client is there before anybody serves.
func TestJoinActivated(t *testing.T) {
	t.Parallel()
	ns := mustNamespace(t)
	owned := listenIn(t, ns)
	early := dialFrom(t, ns, "tcp", owned.Addr().String())
	defer early.Close()
	listener := descriptorOf(t, owned)
	server := startActivated(t, ns, listener)
	awaitAccepted(t, listener)
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}})
	var later net.Conn
	sink := runLive(t, l, func() {
		exchange(t, early, "who woke it")
		later = server.dial(t, "tcp", owned.Addr().String())
		exchange(t, later, "who came later")
	})
	checkWholeFrom(t, sink, early.LocalAddr(), "who woke it")
	checkWholeFrom(t, sink, later.LocalAddr(), "who came later")
	checkHandshake(t, sink, later.LocalAddr())
}

// awaitAccepted waits until nothing waits to be accepted from a listener.
func awaitAccepted(t *testing.T, listener *os.File) {
	t.Helper()
	for {
		info, err := unix.GetsockoptTCPInfo(int(listener.Fd()), unix.SOL_TCP, unix.TCP_INFO)
		if err != nil {
			t.Fatal(err)
		}
		if info.Unacked == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// startActivated starts a worker, whose descriptor 3 is the listener.
func startActivated(t *testing.T, ns *Namespace, listener *os.File) *target {
	t.Helper()
	server := &target{ns: ns, Cmd: &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{targetName, "worker"}, Stderr: os.Stderr, ExtraFiles: []*os.File{listener},
	}}
	var err error
	if server.stdin, err = server.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := ns.Do(server.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.stdin.Close()
		server.Wait()
	})
	return server
}

// Connections that wait to be accepted when the capture begins are followed from then
// on, whichever way their listener was chosen, and also if somebody (another capture,
// ss) has asked the kernel for their numbers before.
func TestJoinBacklog(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name          string
		chosen, asked bool
	}{{"all", false, false}, {"descriptor", true, false}, {"all asked", false, true}, {"descriptor asked", true, true}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			checkBacklog(t, test.chosen, test.asked)
		})
	}
}

func checkBacklog(t *testing.T, chosen, asked bool) {
	const waiting = 5
	server := startTarget(t, "backlog")
	config := JoinConfig{PIDs: []int{server.Process.Pid}}
	var descriptor int
	if _, err := fmt.Sscan(server.line(t), &descriptor); err != nil {
		t.Fatal(err)
	}
	if chosen {
		config.Descriptors = []int{descriptor}
	}
	var conns []net.Conn
	for range waiting {
		conns = append(conns, server.dial(t, "tcp", server.address))
	}
	if asked {
		dumpSockets(t, server.ns)
	}
	l := mustJoin(t, config)
	sink := runLive(t, l, func() {
		server.tell(t, waiting)
		quiet(t, l)
		for i, conn := range conns {
			exchange(t, conn, fmt.Sprintf("connection %d waited. ", i))
			exchange(t, conn, "and goes on")
		}
		for range 3 {
			conns = append(conns, server.dial(t, "tcp", server.address))
			server.tell(t, 1)
			exchange(t, conns[len(conns)-1], "later")
		}
	})
	for i, conn := range conns {
		if i >= waiting {
			checkWholeFrom(t, sink, conn.LocalAddr(), "later")
			checkHandshake(t, sink, conn.LocalAddr())
			continue
		}
		checkWholeFrom(t, sink, conn.LocalAddr(), fmt.Sprintf("connection %d waited. and goes on", i))
	}
}

// dumpSockets lists the TCP sockets of a namespace as ss does, by inet_diag: that gives
// each of them a number (cookie) in the kernel.
func dumpSockets(t *testing.T, ns *Namespace) {
	t.Helper()
	err := ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		request := make([]byte, 72) // struct nlmsghdr, struct inet_diag_req_v2
		binary.NativeEndian.PutUint32(request, uint32(len(request)))
		request[4] = 20 // SOCK_DIAG_BY_FAMILY
		binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
		request[16], request[17] = unix.AF_INET, unix.IPPROTO_TCP
		for i := range 4 {
			request[20+i] = 0xff // all states
		}
		if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		n, _, err := unix.Recvfrom(fd, make([]byte, 1<<16), 0)
		if err == nil && n <= len(request) {
			err = fmt.Errorf("an answer of %d bytes", n)
		}
		return err
	})
	if err != nil {
		t.Fatalf("listing sockets: %v", err)
	}
}
