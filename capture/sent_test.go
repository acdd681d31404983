package capture

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// targetSender sends each connection the same in many ways, then waits until the peer is gone,
// and sends into that.
func targetSender([]string) error {
	l, err := listenTCP()
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := l.AcceptTCP()
			if err != nil {
				return
			}
			go func() {
				if err := sendAll(conn); err != nil {
					fmt.Fprintln(os.Stderr, "sender:", err)
				}
			}()
		}
	}()
	return untilStdinEnds(l.Addr().String())
}

// fromFile is what targetSender sends by sendfile.
const fromFile = "this comes from a file"

func sendAll(conn *net.TCPConn) error {
	file, err := conn.File() // a descriptor that blocks
	if err != nil {
		return err
	}
	defer file.Close()
	conn.Close()
	fd := int(file.Fd())
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<16); err != nil {
		return err
	}
	source, err := os.CreateTemp("", "sender")
	if err != nil {
		return err
	}
	defer source.Close()
	defer os.Remove(source.Name())
	if _, err := source.WriteString(fromFile); err != nil {
		return err
	}
	block := pattern(50_000)
	for err == nil { // until the socket takes no more, and only a part before that
		_, err = unix.SendmsgN(fd, block, nil, nil, unix.MSG_DONTWAIT)
	}
	if !errors.Is(err, unix.EAGAIN) {
		return err
	}
	fmt.Println("full")
	var offset int64
	if _, err := unix.Writev(fd, [][]byte{[]byte("several "), {}, []byte("parts")}); err != nil { // blocks
		return err
	}
	if n, err := unix.Sendfile(fd, int(source.Fd()), &offset, 100); n != len(fromFile) || err != nil {
		return fmt.Errorf("sendfile: %d, %w", n, err)
	}
	if _, err := unix.Write(fd, []byte("that's all")); err != nil {
		return err
	}
	for {
		if n, err := unix.Read(fd, make([]byte, 1)); n <= 0 || err != nil {
			break // the peer is gone
		}
	}
	if err := unix.Send(fd, []byte("x"), unix.MSG_NOSIGNAL); !errors.Is(err, unix.EPIPE) {
		return fmt.Errorf("sending to nobody: %w", err)
	}
	fmt.Println("gone")
	return nil
}

func pattern(n int) []byte {
	all := make([]byte, n)
	for i := range all {
		all[i] = byte(i) ^ byte(i>>8)
	}
	return all
}

// sentTo is what the sent view has of what went to an address.
func (m *memory) sentTo(to net.Addr) (all []Packet) {
	peer := unmapped(netip.MustParseAddrPort(to.String()))
	for _, p := range m.view(ViewSent) {
		if p.Dst == peer {
			all = append(all, p)
		}
	}
	return all
}

// checkSent holds that what was sent on a connection is what the other side has received, in
// order and without a gap.
func checkSent(t *testing.T, all []Packet, received []byte) {
	t.Helper()
	at, unseen := 0, 0
	for n, p := range all {
		if p.Direction != Outbound || p.Call == "" || p.PID == 0 {
			t.Errorf("packet %d: direction %v, %s by %d", n, p.Direction, p.Call, p.PID)
		}
		if p.Receipt.Errno != 0 {
			continue
		}
		if place := int(p.Segment.Seq - all[0].Segment.Seq); place != at || !p.Segment.Known {
			t.Fatalf("packet %d (%s) is at %d of the stream, and %d bytes were before it", n, p.Call, place, at)
		}
		if at+p.Len > len(received) || !bytes.HasPrefix(received[at:], p.Data) {
			t.Fatalf("packet %d (%s of %d bytes) is not what was received at %d", n, p.Call, p.Len, at)
		}
		if len(p.Data) < p.Len {
			unseen += p.Len
			if p.Call != "sendfile" || len(p.Data) > 0 {
				t.Errorf("packet %d: %d of %d bytes of a %s", n, len(p.Data), p.Len, p.Call)
			}
		}
		at += p.Len
	}
	if at != len(received) {
		t.Errorf("%d bytes were sent, %d of which were not to be seen, and %d received", at, unseen, len(received))
	}
}

func TestSentStreams(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "sender")
	// The ring has room for all of it, so that nothing is lost on a busy machine.
	l, err := Join(JoinConfig{PIDs: []int{server.Process.Pid}, Options: Options{Views: []View{ViewKernel, ViewUser, ViewSent}, RingSize: 32 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	const connections = 4
	conns, received := make([]net.Conn, connections), make([][]byte, connections)
	sink := runLive(t, l, func() {
		var workers sync.WaitGroup
		for i := range conns {
			conns[i] = server.dial(t, "tcp", server.address)
		}
		for range conns {
			server.line(t) // one of them can send no more
		}
		for i := range conns {
			workers.Go(func() {
				buf := make([]byte, 1<<16)
				for !bytes.HasSuffix(received[i], []byte("that's all")) {
					n, err := conns[i].Read(buf)
					if err != nil {
						t.Error(err)
						return
					}
					received[i] = append(received[i], buf[:n]...)
				}
				// What it sends from now on finds nobody.
				if err := conns[i].(*net.TCPConn).SetLinger(0); err != nil {
					t.Error(err)
				}
				conns[i].Close()
			})
		}
		workers.Wait()
		for range conns {
			server.line(t) // one of them has noticed that nobody is there
		}
	})
	failures := 0
	for i, conn := range conns {
		all := sink.sentTo(conn.LocalAddr())
		checkSent(t, all, received[i])
		parts := 0
		for _, p := range all {
			switch {
			case p.Receipt.Errno == syscall.EPIPE:
				failures++
			case p.Call == "sendmsg" && p.Len < 50_000:
				parts++
			}
		}
		if parts == 0 {
			t.Errorf("connection %d: no send was taken in part", i)
		}
	}
	counts, err := l.Counts()
	if err != nil {
		t.Fatal(err)
	}
	if failures != connections || counts.Failed != connections {
		t.Errorf("EPIPE %d times of %d, %d sends failed", failures, connections, counts.Failed)
	}
	if !strings.Contains(strings.Join(l.Remarks(), "\n"), fmt.Sprintf("%d bytes went out by sendfile", connections*len(fromFile))) {
		t.Errorf("remarks %q", l.Remarks())
	}
	checkSentLedger(t, l, sink)
	checkLiveLedger(t, l)
}

// checkSentLedger holds that the accounts of what was sent balance.
func checkSentLedger(t *testing.T, l *Live, sink *memory) {
	t.Helper()
	counts, err := l.Counts()
	if err != nil {
		t.Fatal(err)
	}
	if s := counts.Sends; s.Seen != s.Recorded+s.RingFull+s.Fault || s.Lost() > 0 {
		t.Errorf("counters of the sends: %+v", s)
	}
	if rows := len(sink.view(ViewSent)); counts.Sent+counts.Failed != uint64(rows) {
		t.Errorf("%d sent and %d failed, %d packets", counts.Sent, counts.Failed, rows)
	}
	all, err := l.Statistics()
	if err != nil {
		t.Fatal(err)
	}
	var delivered, size, want uint64
	for _, st := range all {
		if st.Interface.View == ViewSent {
			delivered += st.Delivered
			size += st.Bytes
		}
	}
	for _, p := range sink.view(ViewSent) {
		want += uint64(p.Len)
	}
	if delivered != counts.Sent || size != want {
		t.Errorf("statistics of %d packets and %d bytes, of %d and %d", delivered, size, counts.Sent, want)
	}
}

// Without the kernel view, what is read and what is sent are the two sides of one conversation,
// in which nobody acknowledges what is not there yet.
func TestSentConversation(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "echo", "tcp4", "127.0.0.1:0")
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, Options: Options{Views: []View{ViewUser, ViewSent}}})
	var conns []net.Conn
	text := strings.Repeat("to and fro ", 700) // all of it fits into the ring
	sink := runLive(t, l, func() {
		for range 4 {
			conns = append(conns, server.dial(t, "tcp", server.address))
		}
		for range 5 {
			for _, conn := range conns {
				exchange(t, conn, text)
			}
		}
		for _, conn := range conns {
			// The server reads the end before it closes its side.
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if rest, err := io.ReadAll(conn); len(rest) > 0 || err != nil {
				t.Fatalf("after all that was sent: %q, %v", rest, err)
			}
		}
	})
	for _, conn := range conns {
		client := unmapped(netip.MustParseAddrPort(conn.LocalAddr().String()))
		checkSent(t, sink.sentTo(conn.LocalAddr()), []byte(strings.Repeat(text, 5)))
		var next [2]uint32 // of what is read, and of what is sent
		ends := 0
		for n, p := range sink.packets {
			way := 0
			switch client {
			case p.Src:
			case p.Dst:
				way = 1
			default:
				continue
			}
			s := p.Segment
			if p.Interface.Header != HeaderSegment || !s.Known || !s.Acks {
				t.Fatalf("packet %d is %+v of %+v", n, s, p.Interface)
			}
			if next[way] != 0 && s.Seq != next[way] || next[1-way] != 0 && s.Ack != next[1-way] {
				t.Fatalf("packet %d (%s) has sequence number %d and acknowledges %d, after %v", n, p.Call, s.Seq, s.Ack, next)
			}
			next[way], next[1-way] = s.Seq+uint32(p.Len), s.Ack
			if s.Ends {
				ends++
			}
		}
		if ends != 1 {
			t.Errorf("%v ends %d times", client, ends)
		}
	}
	checkSentLedger(t, l, sink)
}

func TestSentDatagrams(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "udp", "0.0.0.0:0")
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, Options: Options{Views: []View{ViewUser, ViewSent}}})
	_, port, err := net.SplitHostPort(server.address)
	if err != nil {
		t.Fatal(err)
	}
	address := netip.MustParseAddrPort(net.JoinHostPort("127.0.0.1", port))
	var client net.Conn
	sink := runLive(t, l, func() {
		client = server.dial(t, "udp4", address.String())
		for n := range 50 {
			exchange(t, client, strings.Repeat("d", n*20)+"!")
		}
	})
	all := sink.sentTo(client.LocalAddr())
	if len(all) != 50 {
		t.Fatalf("%d datagrams", len(all))
	}
	for n, p := range all {
		if want := strings.Repeat("d", n*20) + "!"; string(p.Data) != want || p.Src != address || !p.Segment.Known {
			t.Errorf("datagram %d from %v is %q", n, p.Src, p.Data)
		}
	}
	checkSentLedger(t, l, sink)
}

// targetRedialer uses two sockets before they are connected, and connects one of them twice. It
// says of each connection at which port it is, and where its two directions begin.
func targetRedialer([]string) error {
	fmt.Println("ready")
	var port int
	if _, err := fmt.Scan(&port); err != nil {
		return err
	}
	to := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}
	buf := make([]byte, 16)
	for _, times := range []int{2, 1} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if _, _, err := unix.Recvfrom(fd, buf, 0); !errors.Is(err, unix.ENOTCONN) {
			return fmt.Errorf("receiving from nobody: %w", err)
		}
		if err := unix.Send(fd, buf, unix.MSG_NOSIGNAL); !errors.Is(err, unix.EPIPE) {
			return fmt.Errorf("sending to nobody: %w", err)
		}
		for range times {
			if err := unix.Connect(fd, to); err != nil {
				return err
			}
			at, err := unix.Getsockname(fd)
			if err != nil {
				return err
			}
			out, in, err := placesOf(fd)
			if err != nil {
				return err
			}
			fmt.Println(at.(*unix.SockaddrInet4).Port, out, in)
			if times > 1 {
				if _, err := unix.Write(fd, []byte("to and fro")); err != nil {
					return err
				}
			}
			if _, err := unix.Read(fd, buf); err != nil {
				return err
			}
			nobody := unix.RawSockaddr{Family: unix.AF_UNSPEC}
			if _, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&nobody)), unsafe.Sizeof(nobody)); errno != 0 {
				return fmt.Errorf("disconnecting: %w", errno)
			}
		}
	}
	return untilStdinEnds("over")
}

// placesOf asks the kernel where the next byte of each direction is.
func placesOf(fd int) (out, in uint32, err error) {
	set := func(option, value int) {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, option, value))
	}
	get := func(queue int) uint32 {
		set(unix.TCP_REPAIR_QUEUE, queue)
		seq, failed := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
		err = errors.Join(err, failed)
		return uint32(seq)
	}
	const receive, send = 1, 2 // TCP_RECV_QUEUE, TCP_SEND_QUEUE
	set(unix.TCP_REPAIR, unix.TCP_REPAIR_ON)
	out, in = get(send), get(receive)
	set(unix.TCP_REPAIR, unix.TCP_REPAIR_OFF_NO_WP)
	return out, in, err
}

// A connection begins where the kernel says, whatever its socket was used for before.
func TestSentPlaces(t *testing.T) {
	t.Parallel()
	client := startTarget(t, "redialer")
	peer := listenIn(t, client.ns)
	l := mustJoin(t, JoinConfig{PIDs: []int{client.Process.Pid}, Options: Options{Views: []View{ViewUser, ViewSent}}})
	type beginning struct {
		port    uint16
		out, in uint32
	}
	var begins [3]beginning
	sink := runLive(t, l, func() {
		fmt.Fprintln(client.stdin, peer.Addr().(*net.TCPAddr).Port)
		for n := range begins {
			conn, err := peer.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			at := &begins[n]
			if _, err := fmt.Sscan(client.line(t), &at.port, &at.out, &at.in); err != nil {
				t.Fatal(err)
			}
			if n < 2 { // at the last one, it is the peer who speaks first
				if _, err := io.ReadFull(conn, make([]byte, len("to and fro"))); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := io.WriteString(conn, "an answer"); err != nil {
				t.Fatal(err)
			}
		}
		client.line(t)
	})
	failed := 0
	for _, p := range sink.packets {
		if p.Receipt.Errno != 0 {
			failed++
			if p.Segment != (Segment{}) {
				t.Errorf("%s of nobody is %+v", p.Call, p.Segment)
			}
		}
	}
	if failed != 4 {
		t.Errorf("%d calls failed", failed)
	}
	for n, at := range begins {
		want := []Segment{{Known: true, Seq: at.out, Ack: at.in, Acks: true}, {Known: true, Seq: at.in, Ack: at.out + uint32(len("to and fro")), Acks: true}}
		if n == 2 {
			want = []Segment{{Known: true, Seq: at.in, Ack: at.out, Acks: true}}
		}
		var got []Segment
		for _, p := range sink.packets {
			if p.Receipt.Errno == 0 && (p.Src.Port() == at.port || p.Dst.Port() == at.port) {
				got = append(got, p.Segment)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("connection %d: %+v, want %+v", n, got, want)
		}
	}
}

// Only what somebody asked for is there, and nothing else is copied.
func TestSentOnDemand(t *testing.T) {
	t.Parallel()
	for _, views := range [][]View{{ViewKernel, ViewUser}, {ViewKernel, ViewSent}} {
		t.Run(views[1].String(), func(t *testing.T) {
			t.Parallel()
			server := startTarget(t, "echo", "tcp4", "127.0.0.1:0")
			l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, Options: Options{Views: views}})
			const times = 100
			sink := runLive(t, l, func() {
				conn := server.dial(t, "tcp", server.address)
				for range times {
					exchange(t, conn, "echo")
				}
			})
			counts, err := l.Counts()
			if err != nil {
				t.Fatal(err)
			}
			if len(sink.view(ViewKernel)) < times {
				t.Errorf("%d packets of the kernel view", len(sink.view(ViewKernel)))
			}
			read, sent := len(sink.view(ViewUser)), len(sink.view(ViewSent))
			wantRead, wantSent := times, 0
			if views[1] == ViewSent {
				wantRead, wantSent = 0, times
			}
			if read != wantRead || sent != wantSent || counts.Delivered != uint64(wantRead) || counts.Sent != uint64(wantSent) || counts.Sends.Seen != uint64(wantSent) {
				t.Errorf("%d read and %d sent, %+v", read, sent, counts)
			}
			if news := counts.Calls.Seen - uint64(wantRead); news > times/2 {
				t.Errorf("%d events of what is received, of %d", counts.Calls.Seen, wantRead)
			}
		})
	}
}

// A socket of our own has what Echo sends, at the place in the stream that packets tell.
func TestSentByEcho(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"tcp", "tcp6", "udp", "udp6"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			ns := mustNamespace(t)
			s, err := Open(Config{Kind: mustKind(t, kind), Echo: true, Namespace: ns, Options: Options{Views: []View{ViewKernel, ViewSent}, RingSize: smallRing}})
			if err != nil {
				t.Fatal(err)
			}
			var client net.Conn
			text := strings.Repeat("echo ", 200)
			sink := collect(t, s, func() {
				client = dialFrom(t, ns, strings.TrimSuffix(kind, "6"), s.Addr().String())
				for range 3 {
					exchange(t, client, text)
				}
				client.Close()
			})
			var got []byte
			for _, p := range sink.sentTo(client.LocalAddr()) {
				got = append(got, p.Data...)
				if p.Direction != Outbound || !p.Segment.Known || p.Src != s.Addr() {
					t.Errorf("%s: %v, %+v from %v", p.Call, p.Direction, p.Segment, p.Src)
				}
			}
			if want := strings.Repeat(text, 3); string(got) != want {
				t.Errorf("%d bytes, want %d", len(got), len(want))
			}
			if strings.HasPrefix(kind, "tcp") {
				checkAcknowledged(t, sink)
			}
		})
	}
}

// checkAcknowledged holds that the peer's last acknowledgement is that of the last byte sent, or
// of the end behind it.
func checkAcknowledged(t *testing.T, sink *memory) {
	t.Helper()
	kernel, sent := sink.view(ViewKernel), sink.view(ViewSent)
	last := sent[len(sent)-1]
	end := last.Segment.Seq + uint32(last.Len)
	const reset = 0x04
	for n := len(kernel) - 1; n >= 0; n-- {
		b := kernel[n].Data
		if b[13]&reset != 0 {
			continue
		}
		ack := uint32(b[8])<<24 | uint32(b[9])<<16 | uint32(b[10])<<8 | uint32(b[11])
		if ack != end && ack != end+1 {
			t.Errorf("the peer acknowledges up to %d, and %d was sent", ack, end)
		}
		return
	}
}
