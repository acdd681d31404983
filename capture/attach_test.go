package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// mustListen listens as most programs do, for plain TCP.
func mustListen(tb testing.TB, ns *Namespace, network string) *net.TCPListener {
	tb.Helper()
	var l net.Listener
	err := ns.Do(func() (err error) {
		var config net.ListenConfig
		config.SetMultipathTCP(false)
		l, err = config.Listen(context.Background(), network, "127.0.0.1:0")
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

func mustListenUDP(tb testing.TB, ns *Namespace, network, address string) *net.UDPConn {
	tb.Helper()
	var c *net.UDPConn
	err := ns.Do(func() (err error) {
		c, err = net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

func mustAttach(tb testing.TB, conn syscall.Conn, views ...View) *Session {
	tb.Helper()
	s, err := Attach(conn, Options{RingSize: smallRing, Views: views})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

// filterOn is what a socket has for a filter.
func filterOn(tb testing.TB, conn syscall.Conn) (f filter) {
	tb.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		tb.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) { f, err = getFilter(int(fd)) }); err != nil || cerr != nil {
		tb.Fatal(err, cerr)
	}
	return f
}

// sendAndRead sends a datagram, which the owner of the socket reads himself.
func sendAndRead(tb testing.TB, from net.Conn, to *net.UDPConn, text string) {
	tb.Helper()
	if _, err := io.WriteString(from, text); err != nil {
		tb.Fatal(err)
	}
	buffer := make([]byte, 100)
	n, _, err := to.ReadFromUDPAddrPort(buffer)
	if err != nil || string(buffer[:n]) != text {
		tb.Fatalf("the owner read %q, %v, and %q was sent", buffer[:n], err, text)
	}
}

// The owner of a UDP socket reads all of it, and the session sees what the filter and
// the headers below it show, until it is closed.
func TestAttachUDP(t *testing.T) {
	t.Parallel()
	ns := mustNamespace(t)
	conn := mustListenUDP(t, ns, "udp4", "127.0.0.1:0")
	s := mustAttach(t, conn, ViewKernel, ViewNet, ViewLink)
	if s.Address() != conn.LocalAddr().String() {
		t.Errorf("address %s, and the socket has %s", s.Address(), conn.LocalAddr())
	}
	client := dialFrom(t, ns, "udp", conn.LocalAddr().String())
	sink := collect(t, s, func() {
		for i := range 3 {
			sendAndRead(t, client, conn, fmt.Sprint("datagram ", i))
		}
	})
	for _, view := range []View{ViewKernel, ViewNet, ViewLink} {
		packets := sink.view(view)
		if len(packets) != 3 {
			t.Errorf("%v: %d packets", view, len(packets))
			continue
		}
		headers := map[View]int{ViewKernel: 8, ViewNet: 20 + 8, ViewLink: 14 + 20 + 8}[view]
		for i, p := range packets {
			if string(p.Data[headers:]) != fmt.Sprint("datagram ", i) || p.ID != uint64(i+1) ||
				p.Src.String() != client.LocalAddr().String() || p.Dst.String() != conn.LocalAddr().String() {
				t.Errorf("%v: packet %d is %+v", view, i, p)
			}
		}
	}
	if len(sink.view(ViewUser)) > 0 {
		t.Error("there is a user view")
	}
	all, err := s.Statistics()
	if err != nil || len(all) != 3 || all[0].Received != 3 || all[0].Delivered != 3 || all[0].Accepted != 3 || all[0].Account != nil {
		t.Errorf("statistics %+v, %v", all, err)
	}

	if f := filterOn(t, conn); !f.none() {
		t.Errorf("a filter is left: %+v", f)
	}
	sendAndRead(t, client, conn, "after Run")
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	sendAndRead(t, client, conn, "after Close")
	if len(sink.packets) != 9 {
		t.Errorf("%d packets in all", len(sink.packets))
	}
}

// The connections of a listener are the caller's: he accepts and reads them.
func TestAttachListener(t *testing.T) {
	t.Parallel()
	ns := mustNamespace(t)
	listener := mustListen(t, ns, "tcp4")
	s := mustAttach(t, listener)
	address := listener.Addr().String()
	accept := func() (client, server net.Conn) {
		client = dialFrom(t, ns, "tcp", address)
		server, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close(); server.Close() })
		return client, server
	}
	say := func(from, to net.Conn, text string) {
		t.Helper()
		if _, err := io.WriteString(from, text); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(text))
		if _, err := io.ReadFull(to, got); err != nil || string(got) != text {
			t.Fatalf("%q came as %q, %v", text, got, err)
		}
	}
	var client, server net.Conn
	sink := collect(t, s, func() {
		client, server = accept()
		say(client, server, "a question")
		say(server, client, "an answer")
	})
	var stream bytes.Buffer
	for _, p := range sink.view(ViewKernel) {
		if p.Interface.Name() != "tcp:kernel" || p.Dst.String() != address || p.Src.String() != client.LocalAddr().String() {
			t.Errorf("packet %+v", p)
		}
		stream.Write(p.Data[int(p.Data[12]>>4)*4:])
	}
	if stream.String() != "a question" {
		t.Errorf("the filter saw %q", stream.String())
	}
	if first := sink.view(ViewKernel)[0]; first.Data[13] != 2 {
		t.Errorf("the first segment has the flags %#x, and no SYN", first.Data[13])
	}
	if f := filterOn(t, listener); !f.none() {
		t.Errorf("the listener still has %+v", f)
	}
	captured := len(sink.packets)
	say(client, server, "it goes on")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	say(client, server, "and on")
	client, server = accept()
	say(client, server, "and others come")
	if f := filterOn(t, server.(*net.TCPConn)); !f.none() || len(sink.packets) != captured {
		t.Errorf("a connection after that has %+v; %d packets more", f, len(sink.packets)-captured)
	}
}

// IPv4 peers of a socket for both have an interface of their own.
func TestAttachDualStack(t *testing.T) {
	t.Parallel()
	ns := mustNamespace(t)
	conn := mustListenUDP(t, ns, "udp", "[::]:0")
	port := conn.LocalAddr().(*net.UDPAddr).Port
	s := mustAttach(t, conn)
	sink := collect(t, s, func() {
		for _, host := range []string{"127.0.0.1", "[::1]"} {
			sendAndRead(t, dialFrom(t, ns, "udp", fmt.Sprint(host, ":", port)), conn, host)
		}
	})
	packets := sink.view(ViewKernel)
	if len(packets) != 2 || packets[0].Interface.IPv6 || !packets[1].Interface.IPv6 || !packets[0].Src.Addr().Is4() {
		t.Errorf("%+v", packets)
	}
}

// A session that never ran takes its tap off as well, and one whose socket is closed
// has nothing to do.
func TestAttachWithoutRun(t *testing.T) {
	t.Parallel()
	ns := mustNamespace(t)
	conn := mustListenUDP(t, ns, "udp4", "127.0.0.1:0")
	s := mustAttach(t, conn)
	if !filterOn(t, conn).extended {
		t.Error("there is no tap on the socket")
	}
	err := s.Close()
	if left := filterOn(t, conn); err != nil || !left.none() {
		t.Errorf("Close: %v, %+v is left", err, left)
	}
	s = mustAttach(t, conn)
	client := dialFrom(t, ns, "udp", conn.LocalAddr().String())
	sink := collect(t, s, func() {
		sendAndRead(t, client, conn, "one")
		conn.Close()
	})
	if len(sink.packets) != 1 {
		t.Errorf("%d packets", len(sink.packets))
	}
}

// A filter that the owner puts there meanwhile stays.
func TestAttachLeavesANewFilter(t *testing.T) {
	t.Parallel()
	conn := mustListenUDP(t, mustNamespace(t), "udp4", "127.0.0.1:0")
	said := newNotices()
	s, err := Attach(conn, Options{RingSize: smallRing, Notice: said.add})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	keep := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff}}
	if cerr := raw.Control(func(fd uintptr) { err = restoreFilter(int(fd), keep) }); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if f := filterOn(t, conn); len(f.classic) != 1 {
		t.Errorf("the owner's filter is %+v", f)
	}
	if text := said.all(); !strings.Contains(text, "has taken the tap off the socket") {
		t.Errorf("it says %q", text)
	}
	if _, err := Attach(conn, Options{RingSize: smallRing}); err == nil || !strings.Contains(err.Error(), "has a filter already") {
		t.Errorf("on a socket with a filter: %v", err)
	}
}

// So does an eBPF one, where the kernel says that it is another one than the tap.
func TestAttachLeavesANewProgram(t *testing.T) {
	t.Parallel()
	conn := mustListenUDP(t, mustNamespace(t), "udp4", "127.0.0.1:0")
	s := mustAttach(t, conn)
	other, err := bpf.Open(bpf.Options{RingSize: bpf.MinRingSize})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) { err = other.Attach(int(fd)) }); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if f := filterOn(t, conn); !f.extended {
		t.Errorf("the owner's filter is %+v", f)
	}
}

func TestAttachVerdict(t *testing.T) {
	t.Parallel()
	ns := mustNamespace(t)
	conn := mustListenUDP(t, ns, "udp4", "127.0.0.1:0")
	s, err := Attach(conn, Options{RingSize: smallRing, Verdict: bpf.Keep(8 + 4)})
	if err != nil {
		t.Fatal(err)
	}
	client := dialFrom(t, ns, "udp", conn.LocalAddr().String())
	sink := collect(t, s, func() {
		if _, err := io.WriteString(client, "truncated"); err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 100)
		if n, err := conn.Read(buffer); err != nil || string(buffer[:n]) != "trun" {
			t.Errorf("the owner read %q, %v", buffer[:n], err)
		}
	})
	if packets := sink.view(ViewKernel); len(packets) != 1 || string(packets[0].Data[8:]) != "truncated" {
		t.Errorf("%+v", packets)
	}
	sendAndRead(t, client, conn, "all of it again")
}

func TestAttachRefusals(t *testing.T) {
	t.Parallel()
	ns := mustNamespace(t)
	conn := mustListenUDP(t, ns, "udp4", "127.0.0.1:0")
	file, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, test := range []struct {
		name, want string
		conn       syscall.Conn
		options    Options
	}{
		{"nothing", "conn is nil", nil, Options{}},
		{"a connection that was never opened", "invalid argument", new(net.UDPConn), Options{}},
		{"a file", "no socket", file, Options{}},
		{"the user view", "user", conn, Options{Views: []View{ViewKernel, ViewUser}}},
		{"a view twice", "twice", conn, Options{Views: []View{ViewNet, ViewNet}}},
	} {
		if s, err := Attach(test.conn, test.options); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, %v", test.name, s, err)
		}
	}
	s := mustAttach(t, conn)
	if err := errors.Join(s.Probe(t.Context()), s.MayProbe()); err == nil || !strings.Contains(err.Error(), "its owner's business") {
		t.Errorf("a probe: %v", err)
	}
	conn.Close()
	if _, err := Attach(conn, Options{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed socket: %v", err)
	}

	// Where the kernel has no MPTCP, Go listens for plain TCP.
	var missing *bpf.MissingError
	var l net.Listener
	err = ns.Do(func() (err error) {
		var config net.ListenConfig
		config.SetMultipathTCP(true)
		l, err = config.Listen(context.Background(), "tcp4", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	mptcp := false
	if raw, err := l.(*net.TCPListener).SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			protocol, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL)
			mptcp = err == nil && protocol == unix.IPPROTO_MPTCP
		})
	}
	s, err = Attach(l.(*net.TCPListener), Options{RingSize: smallRing})
	if mptcp != errors.As(err, &missing) || !mptcp && err != nil {
		t.Errorf("MPTCP %v: %v", mptcp, err)
	}
	if err == nil {
		s.Close()
	}
}
