package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

func init() {
	targets["messages"] = targetMessages
	targets["datagrams"] = targetDatagrams
}

// targetMessages opens a socket of a domain, type and protocol. When it is told to, it sends ten
// messages to an address of its own and reads as many.
func targetMessages(args []string) error {
	var domain, typ, protocol int
	if _, err := fmt.Sscan(strings.Join(args, " "), &domain, &typ, &protocol); err != nil {
		return err
	}
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return err
	}
	var to unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	echo := byte(8)
	if domain == unix.AF_INET6 {
		to, echo = &unix.SockaddrInet6{Addr: [16]byte{15: 1}}, 128
	}
	fmt.Println("ready")
	if _, err := os.Stdin.Read(make([]byte, 16)); err != nil {
		return err
	}
	buf := make([]byte, 10_000)
	for i := range 10 {
		message := append([]byte{echo, 0, 0, 0, 0, 0, 0, byte(i)}, pattern(i*i*50)...)
		if err := unix.Sendto(fd, message, 0, to); err != nil {
			return err
		}
		if _, _, err := unix.Recvfrom(fd, buf, 0); err != nil {
			return err
		}
	}
	return untilStdinEnds("done")
}

// wireTap sees what passes the loopback interface of a namespace, from the IP header on.
type wireTap struct{ fd int }

func tapWire(t *testing.T, ns *Namespace) *wireTap {
	t.Helper()
	return &wireTap{packetTap(t, ns, unix.SOCK_DGRAM)}
}

// packetTap is a packet socket that gets everything on the interfaces of a namespace.
func packetTap(t testing.TB, ns *Namespace, typ int) (fd int) {
	t.Helper()
	err := ns.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(networkOrder(unix.ETH_P_ALL))); err != nil {
			return err
		}
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// packets returns what has come in, or gone out, and was accepted.
func (w *wireTap) packets(t *testing.T, accept func(out bool, ip []byte) bool) (in, out [][]byte) {
	t.Helper()
	buf := make([]byte, 1<<17)
	for {
		n, from, err := unix.Recvfrom(w.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			return in, out
		}
		if err != nil {
			t.Fatal(err)
		}
		sent := from.(*unix.SockaddrLinklayer).Pkttype == unix.PACKET_OUTGOING
		if ip := bytes.Clone(buf[:n]); accept(sent, ip) && !(sent && isHidden(ip)) {
			if sent {
				out = append(out, ip)
			} else {
				in = append(in, ip)
			}
		}
	}
}

// isHidden tells whether the kernel does not show a packet to the hook: a SYN-ACK over IPv6.
func isHidden(ip []byte) bool {
	return bpf.HidesSYNACKs() && ip[0]>>4 == 6 && ip[6] == unix.IPPROTO_TCP && ip[40+13]&0x12 == 0x12
}

// transport is what follows an IP header without extensions.
func transport(ip []byte) []byte {
	if ip[0]>>4 == 4 {
		return ip[int(ip[0]&0xf)*4:]
	}
	return ip[40:]
}

// ofPort accepts what comes to a port, and goes out from it.
func ofPort(port uint16) func(bool, []byte) bool {
	return func(out bool, ip []byte) bool {
		at := transport(ip)[2:]
		if out {
			at = transport(ip)
		}
		return binary.BigEndian.Uint16(at) == port
	}
}

// ofPings accepts the requests that go out, and the answers that come in.
func ofPings(out bool, ip []byte) bool {
	kind := transport(ip)[0]
	if out {
		return kind == 8 || kind == 128
	}
	return kind == 0 || kind == 129
}

func ofAll(bool, []byte) bool { return true }

// isTCP tells of what both ends send at once: an acknowledgement and data on two cpus may be handled
// in another order by each observer.
func isTCP(ip []byte) bool {
	if ip[0]>>4 == 4 {
		return ip[9] == unix.IPPROTO_TCP
	}
	return ip[6] == unix.IPPROTO_TCP
}

// checkCgroup holds that the cgroup view is what was on the wire, in the order of its times, and that ids
// join it with the kernel view.
func checkCgroup(t *testing.T, sink *memory, in, out [][]byte) {
	t.Helper()
	var got [DirectionCount][][]byte
	byID := make(map[uint64]Packet)
	var before int64
	for _, p := range sink.view(ViewCgroup) {
		if p.Time < before {
			t.Errorf("packet %d is of %d, the one before of %d", p.ID, p.Time, before)
		}
		before = p.Time
		got[p.Direction] = append(got[p.Direction], p.Data)
		if other, known := byID[p.ID]; known || p.ID == 0 {
			t.Errorf("id %d is of %v and %v", p.ID, p, other)
		}
		byID[p.ID] = p
		if p.Len != len(p.Data) || p.Interface.Layer != LayerNetwork || p.Interface.IPv6 != (p.Data[0]>>4 == 6) {
			t.Errorf("packet %d: %d bytes of %d, of %+v", p.ID, len(p.Data), p.Len, p.Interface)
		}
	}
	for _, way := range []struct {
		name      string
		got, want [][]byte
	}{{"received", got[Inbound], in}, {"sent", got[Outbound], out}} {
		if slices.EqualFunc(way.got, way.want, bytes.Equal) || sameBytes(way.got, way.want) && slices.ContainsFunc(way.want, isTCP) {
			continue
		}
		t.Errorf("%d packets %s, %d on the wire, or other bytes, or another order", len(way.got), way.name, len(way.want))
		for i := range min(len(way.got), len(way.want)) {
			if !bytes.Equal(way.got[i], way.want[i]) {
				t.Logf("%d: %.80x and %.80x", i, way.got[i], way.want[i])
			}
		}
	}
	kernel := sink.view(ViewKernel)
	for _, p := range kernel {
		hooked, ok := byID[p.ID]
		if !ok || hooked.Direction != Inbound || !bytes.HasSuffix(hooked.Data, p.Data) || hooked.Src != p.Src || hooked.Dst != p.Dst {
			t.Errorf("packet %d of the kernel view is another one in the cgroup view: %v", p.ID, hooked)
		}
	}
	if len(kernel) != len(got[Inbound]) {
		t.Errorf("%d packets in the kernel view, %d received in the cgroup view", len(kernel), len(got[Inbound]))
	}
}

// DirectionCount is for arrays.
const DirectionCount = Outbound + 1

// checkHookLedger holds that the account of the cgroup view balances.
func checkHookLedger(t *testing.T, c Capture, sink *memory) {
	t.Helper()
	counts, err := c.Counts()
	if err != nil {
		t.Fatal(err)
	}
	for _, side := range []bpf.Counters{counts.Ingress, counts.Egress} {
		if side.Seen != side.Recorded+side.Lost() || side.Lost() > 0 {
			t.Errorf("%+v", counts)
		}
	}
	view := sink.view(ViewCgroup)
	sent := 0
	for _, p := range view {
		if p.Direction == Outbound {
			sent++
		}
	}
	if counts.Hooked != uint64(len(view)) || counts.Departed != uint64(sent) || counts.Egress.Seen != uint64(sent) {
		t.Errorf("%d packets, %d sent: %+v", len(view), sent, counts)
	}
	checkDelivered(t, c, ViewCgroup, len(view))
}

// talk has a conversation with an echo, and closes it.
func talk(t *testing.T, conn net.Conn) {
	t.Helper()
	for n := range 20 {
		exchange(t, conn, strings.Repeat("to and fro ", n*n*10)+"!")
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		if err := tcp.CloseWrite(); err != nil {
			t.Error(err)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Error(err)
		}
	}
	conn.Close()
}

// joinWith is mustJoin with the ring that the config says.
func joinWith(t *testing.T, config JoinConfig) *Live {
	t.Helper()
	l, err := Join(config)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

var cgroupViews = []View{ViewKernel, ViewUser, ViewSent, ViewCgroup}

func TestCgroupJoined(t *testing.T) {
	t.Parallel()
	message := func(domain, typ, protocol int) []string {
		return []string{"messages", fmt.Sprint(domain), fmt.Sprint(typ), fmt.Sprint(protocol)}
	}
	for name, test := range map[string]struct {
		target  []string
		network string // of a client; none for targets that talk to themselves
		to      string
		accept  func(bool, []byte) bool
	}{
		"tcp":            {[]string{"echo", "tcp4", "127.0.0.1:0"}, "tcp", "127.0.0.1", nil},
		"tcp6":           {[]string{"echo", "tcp6", "[::1]:0"}, "tcp", "::1", nil},
		"tcp6 from IPv4": {[]string{"echo", "tcp", "[::]:0"}, "tcp", "127.0.0.1", nil},
		"udp":            {[]string{"udp", "127.0.0.1:0"}, "udp", "127.0.0.1", nil},
		"udp6":           {[]string{"udp", "[::1]:0"}, "udp", "::1", nil},
		"udp6 from IPv4": {[]string{"udp", "[::]:0"}, "udp", "127.0.0.1", nil},
		"icmp":           {message(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP), "", "", ofPings},
		"icmp6":          {message(unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_ICMPV6), "", "", ofPings},
		"raw":            {message(unix.AF_INET, unix.SOCK_RAW, 253), "", "", ofAll},
		"raw6":           {message(unix.AF_INET6, unix.SOCK_RAW, 253), "", "", ofAll},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := startTarget(t, test.target...)
			l := joinWith(t, JoinConfig{PIDs: []int{target.Process.Pid}, Options: Options{Views: cgroupViews, RingSize: 8 << 20}})
			wire := tapWire(t, target.ns)
			accept := test.accept
			sink := runLive(t, l, func() {
				if test.network == "" {
					fmt.Fprintln(target.stdin, "go")
					target.line(t)
					return
				}
				_, port, err := net.SplitHostPort(target.address)
				if err != nil {
					t.Fatal(err)
				}
				address := netip.MustParseAddrPort(net.JoinHostPort(test.to, port))
				accept = ofPort(address.Port())
				for range 3 {
					talk(t, target.dial(t, test.network, address.String()))
				}
			})
			in, out := wire.packets(t, accept)
			checkCgroup(t, sink, in, out)
			checkHookLedger(t, l, sink)
			checkLiveLedger(t, l)
			checkNamed(t, sink, true)
		})
	}
}

func TestCgroupOwn(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"tcp", "tcp6", "udp", "udp6", "raw", "raw6", "icmp", "icmp6"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kind := mustKind(t, name)
			views := []View{ViewCgroup, ViewKernel, ViewUser}
			if kind.CanEcho() {
				views = append(views, ViewSent)
			}
			config := Config{Kind: kind, Echo: kind.CanEcho(), Options: Options{Views: views}, Namespace: mustNamespace(t)}
			wire := tapWire(t, config.Namespace)
			accept := ofPort(ProbePort)
			sink, s := run(t, config, func(s *Session) {
				switch network := strings.TrimSuffix(name, "6"); {
				case network == "tcp" || network == "udp":
					for range 3 {
						talk(t, dialIn(t, s, network))
					}
				default:
					probed(t)(s)
				}
				if err := s.settle(t.Context(), Counts{}); err != nil {
					t.Error(err)
				}
			})
			switch {
			case kind.anyProtocol:
				accept = func(out bool, _ []byte) bool { return !out }
			case strings.HasPrefix(name, "icmp"):
				accept = ofPings
			}
			in, out := wire.packets(t, accept)
			checkCgroup(t, sink, in, out)
			checkHookLedger(t, s, sink)
			checkLedger(t, s)
			checkNamed(t, sink, true)
		})
	}
}

// checkNamed holds that what a call has sent is in the packets that it names, and, if all have left
// at once, that every call names some.
func checkNamed(t *testing.T, sink *memory, all bool) {
	t.Helper()
	byID := make(map[uint64]Packet)
	for _, p := range sink.packets {
		switch {
		case p.Interface.View == ViewCgroup && p.Direction == Outbound:
			byID[p.ID] = p
		case p.Interface.View == ViewSent && p.Receipt.Errno == 0:
			checkNames(t, byID, &p, all)
		}
	}
}

func checkNames(t *testing.T, byID map[uint64]Packet, p *Packet, all bool) {
	t.Helper()
	ids := &p.Receipt.Packets
	if p.Receipt.Partly && (all || ids.Empty()) || all && ids.Empty() {
		t.Errorf("a send of %d bytes: %+v", p.Len, p.Receipt)
	}
	left := 0
	for _, span := range ids.Ranges {
		for id := span[0]; id <= span[1]; id++ {
			packet, ok := byID[id]
			if !ok {
				t.Errorf("a send of %d bytes names packet %d, which was not sent before", p.Len, id)
				continue
			}
			body := transport(packet.Data)
			switch p.Protocol {
			case unix.IPPROTO_TCP:
				from := int(int32(binary.BigEndian.Uint32(body[4:]) - p.Segment.Seq))
				body = body[int(body[12]>>4)*4:]
				if from < 0 {
					body, from = body[min(-from, len(body)):], 0
				}
				body = body[:min(len(body), max(0, p.Len-from))]
				if from > len(p.Data) || !bytes.HasPrefix(p.Data[from:], body) && len(p.Data) == p.Len {
					t.Errorf("packet %d has other bytes than a send that names it", id)
				}
			case unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE:
				if body = body[8:]; !bytes.Equal(body, p.Data) {
					t.Errorf("packet %d has other bytes than a send that names it", id)
				}
			default:
				if !bytes.HasSuffix(body, p.Data[min(8, len(p.Data)):]) || len(body) != p.Len {
					t.Errorf("packet %d has other bytes than a send that names it", id)
				}
			}
			left += len(body)
		}
	}
	if ids.More == 0 && !p.Receipt.Partly && !ids.Empty() && left+int(p.Receipt.Waiting) != p.Len {
		t.Errorf("of %d bytes %d are in packets, %d had not left", p.Len, left, p.Receipt.Waiting)
	}
}

// Where the tap is on the sockets of a process, because it changes what they get, packets have two
// records.
func TestCgroupFiltered(t *testing.T) {
	t.Parallel()
	for name, target := range map[string][]string{"tcp": {"echo", "tcp4", "127.0.0.1:0"}, "udp": {"udp", "127.0.0.1:0"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := startTarget(t, target...)
			l := joinWith(t, JoinConfig{
				PIDs: []int{server.Process.Pid}, Options: Options{Views: cgroupViews, RingSize: 8 << 20, Verdict: bpf.Keep(-1)},
			})
			wire := tapWire(t, server.ns)
			sink := runLive(t, l, func() { talk(t, server.dial(t, name, server.address)) })
			in, out := wire.packets(t, ofPort(netip.MustParseAddrPort(server.address).Port()))
			checkCgroup(t, sink, in, out)
			checkHookLedger(t, l, sink)
			checkLiveLedger(t, l)
			checkNamed(t, sink, true)
		})
	}
}

// The owner of a socket goes on using it.
func TestCgroupAttached(t *testing.T) {
	t.Parallel()
	ns := mustNamespace(t)
	conn := mustListenUDP(t, ns, "udp4", "127.0.0.1:0")
	s := mustAttach(t, conn, ViewKernel, ViewCgroup)
	wire := tapWire(t, ns)
	client := dialFrom(t, ns, "udp", conn.LocalAddr().String())
	defer client.Close()
	sink := collect(t, s, func() {
		for i := range 3 {
			sendAndRead(t, client, conn, fmt.Sprint("datagram ", i))
			if _, err := conn.WriteTo([]byte("answer"), client.LocalAddr()); err != nil {
				t.Fatal(err)
			}
		}
	})
	in, out := wire.packets(t, ofPort(uint16(conn.LocalAddr().(*net.UDPAddr).Port)))
	checkCgroup(t, sink, in, out)
	checkHookLedger(t, s, sink)
}

// What does not leave at once, because nobody reads it, is said; and what is sent in parts, with
// retransmissions or later, is never in packets that do not have it.
func TestCgroupNamesOfStreams(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "sender")
	l := joinWith(t, JoinConfig{PIDs: []int{server.Process.Pid}, Options: Options{Views: []View{ViewSent, ViewCgroup}, RingSize: 32 << 20}})
	const connections = 2
	sink := runLive(t, l, func() {
		var conns []net.Conn
		for range connections {
			conns = append(conns, server.dial(t, "tcp", server.address))
			server.line(t) // it can send no more
		}
		for _, conn := range conns {
			buf := make([]byte, 1<<16)
			for end := ""; !strings.HasSuffix(end, "that's all"); {
				n, err := conn.Read(buf)
				if err != nil {
					t.Fatal(err)
				}
				end = string(append([]byte(end), buf[:n]...)[max(0, len(end)+n-100):])
			}
			conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
			server.line(t) // it has noticed that nobody is there
		}
	})
	checkNamed(t, sink, false)
	checkHookLedger(t, l, sink)
	waiting, named := 0, 0
	for _, p := range sink.view(ViewSent) {
		if p.Receipt.Waiting > 0 {
			waiting++
		}
		if !p.Receipt.Packets.Empty() {
			named++
		}
		if p.Receipt.Partly {
			t.Errorf("%+v", p.Receipt)
		}
	}
	if waiting < connections || named < connections {
		t.Errorf("%d sends name packets, of %d something had not left", named, waiting)
	}
}

// targetDatagrams sends what its standard input says, each in a way of its own, to one address.
func targetDatagrams(args []string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	var port int
	fmt.Println("ready")
	if _, err := fmt.Scan(&port); err != nil {
		return err
	}
	to := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}
	send := func(text string, flags int) {
		err = errors.Join(err, unix.Sendto(fd, []byte(text), flags, to))
	}
	send("", 0)
	send("as it is", 0)
	send("the same", 0)
	send("the same", 0)
	send("in two ", unix.MSG_MORE)
	send("parts", 0)
	send(strings.Repeat("long ", 10_000), 0)
	same := []byte("one of three that are the same")
	err = errors.Join(err, sendSeveral(fd, to, same, same, same))
	err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT, 100))
	send(strings.Repeat("in pieces ", 45), 0)
	if err != nil {
		return err
	}
	return untilStdinEnds("done")
}

// Datagrams are found by their order and bytes, whatever call has sent them.
func TestCgroupNamesOfDatagrams(t *testing.T) {
	t.Parallel()
	client := startTarget(t, "datagrams")
	var receiver *net.UDPConn
	if err := client.ns.Do(func() (err error) {
		receiver, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	l := mustJoin(t, JoinConfig{PIDs: []int{client.Process.Pid}, Options: Options{Views: []View{ViewSent, ViewCgroup}}})
	sink := runLive(t, l, func() {
		fmt.Fprintln(client.stdin, receiver.LocalAddr().(*net.UDPAddr).Port)
		client.line(t)
	})
	var packets []Packet
	var got, want []string
	packets = append(packets, sink.view(ViewCgroup)...)
	for _, p := range sink.view(ViewSent) {
		said := "-"
		for _, span := range p.Receipt.Packets.Ranges {
			said = fmt.Sprint(span[0] - packets[0].ID)
		}
		got = append(got, fmt.Sprintf("%s %d %s", p.Call, p.Len, said))
	}
	for _, row := range []struct {
		call   string
		length int
		packet string
	}{
		{"sendto", 0, "0"}, {"sendto", 8, "1"}, {"sendto", 8, "2"}, {"sendto", 8, "3"}, {"sendto", 7, "-"}, {"sendto", 5, "4"},
		{"sendto", 50_000, "5"}, {"sendmmsg", 30, "6"}, {"sendmmsg", 30, "7"}, {"sendmmsg", 30, "8"}, {"sendto", 450, "9"},
	} {
		want = append(want, fmt.Sprintf("%s %d %s", row.call, row.length, row.packet))
	}
	if !slices.Equal(got, want) {
		t.Errorf("sends and their packets:\n%s\nwanted:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	checkHookLedger(t, l, sink)
}

// sendSeveral sends messages with one call, of a socket that is connected.
func sendSeveral(fd int, to unix.Sockaddr, messages ...[]byte) error {
	if err := unix.Connect(fd, to); err != nil {
		return err
	}
	all := make([]message, len(messages))
	vectors := make([]unix.Iovec, len(messages))
	for i, text := range messages {
		vectors[i].Base = &text[0]
		vectors[i].SetLen(len(text))
		all[i].header.Iov = &vectors[i]
		all[i].header.SetIovlen(1)
	}
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&all[0])), uintptr(len(all)), 0, 0, 0)
	if errno != 0 || int(n) != len(messages) {
		return fmt.Errorf("sendmmsg: %d, %w", n, errno)
	}
	return nil
}
