package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// dropViews are the views with that of drops.
var dropViews = []View{ViewKernel, ViewUser, ViewCgroup, ViewDrop}

// requireReceivers skips a test on kernels that do not tell which socket was to receive what they
// drop, as before Linux 6.11: the packet alone does not tell once TCP has it.
func requireReceivers(tb testing.TB) {
	tb.Helper()
	if !requireDrops(tb) {
		tb.Skip("this kernel does not tell the receiver")
	}
}

// requireDrops skips a test on kernels that do not tell why they drop packets.
func requireDrops(tb testing.TB) (tellsReceiver bool) {
	tb.Helper()
	testutil.RequirePrivilege(tb)
	tap, err := bpf.Open(bpf.Options{RingSize: bpf.MinRingSize})
	if err != nil {
		tb.Fatal(err)
	}
	defer tap.Close()
	drops, err := bpf.OpenDrops(tap, nil, bpf.DropOptions{})
	if missing := (*bpf.MissingError)(nil); errors.As(err, &missing) && missing.Capability == "" && strings.Contains(missing.What, "Linux 5.17") {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	defer drops.Close()
	return drops.TellsReceiver()
}

// idsOf are the ids of packets, each once.
func idsOf(tb testing.TB, packets []Packet) map[uint64]Packet {
	tb.Helper()
	all := make(map[uint64]Packet)
	for _, p := range packets {
		if _, twice := all[p.ID]; twice {
			tb.Errorf("the id %d is that of two packets", p.ID)
		}
		all[p.ID] = p
	}
	return all
}

// reasonsOf counts packets by reason.
func reasonsOf(packets []Packet) map[string]uint64 {
	all := make(map[string]uint64)
	for _, p := range packets {
		all[p.Drop.Reason]++
	}
	return all
}

// TestDropsOfJoined floods a process whose receive queue is small, while half of what comes is turned
// away by a filter or not: each packet is delivered or has a reason, under its id, and there are as
// many as the kernel counts.
func TestDropsOfJoined(t *testing.T) {
	t.Parallel()
	requireDrops(t)
	for _, test := range []struct {
		name   string
		half   bool
		closed bool // by the end
	}{
		{"all", false, false}, {"half", true, false}, {"closed", false, true},
	} {
		t.Run(test.name, func(t *testing.T) { dropJoined(t, test.half, test.closed) })
	}
}

func dropJoined(t *testing.T, half, closed bool) {
	process, other := startTarget(t, "sink", fmt.Sprint(smallBuffer)), startTarget(t, "sink", fmt.Sprint(smallBuffer))
	config := JoinConfig{PIDs: []int{process.Process.Pid}, Options: Options{RingSize: 16 << 20, Views: dropViews}}
	if half {
		// Without the hook's records, sockets with the tap are marked all the same.
		config.Verdict, config.Views = oddOnes(t, 8), []View{ViewKernel, ViewUser, ViewDrop}
	}
	l, err := Join(config)
	if err != nil {
		t.Fatal(err)
	}
	var sent uint64
	sink := runLive(t, l, func() {
		const each = 3000
		sent = flood(t, process.ns, sockaddr(netip.MustParseAddrPort(process.address)), each, 8)
		flood(t, other.ns, sockaddr(netip.MustParseAddrPort(other.address)), each, 8)
		quiet(t, l)
		if closed {
			fmt.Fprintln(process.stdin)
			if line := process.line(t); line != "closed" {
				t.Errorf("the process says %q", line)
			}
		}
	})
	all, err := l.Statistics()
	a := accountOf(t, all, err)
	counts, err := l.Counts()
	if err != nil {
		t.Fatal(err)
	}
	if counts.Lost() > 0 {
		t.Fatalf("%d lost: the test needs larger rings", counts.Lost())
	}
	full := fullDrops(t, process.ns)
	if full == 0 || fullDrops(t, other.ns) == 0 {
		t.Fatalf("the kernel dropped %d and %d", full, fullDrops(t, other.ns))
	}
	drops, want := sink.view(ViewDrop), map[string]uint64{"SOCKET_RCVBUFF": full}
	if half {
		want[reasonFilter] = sent / 2
	}
	if got := reasonsOf(drops); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the reasons are %v, not %v", got, want)
	}
	if a.Queue != full || a.Unread+a.Closed != 0 {
		t.Errorf("the kernel counts %d drops for want of room: %s", full, a)
	}
	if n := uint64(len(drops)); counts.Freed != n || counts.Drops.Recorded != n || counts.Drops.Seen != n {
		t.Errorf("%d drops: %+v", n, counts)
	}
	checkFates(t, sink, half)
}

// checkFates holds that each packet of the kernel view was either delivered or dropped.
func checkFates(t *testing.T, sink *memory, half bool) {
	t.Helper()
	drops := idsOf(t, sink.view(ViewDrop))
	delivered := idsOf(t, sink.view(ViewUser))
	for _, p := range sink.view(ViewKernel) {
		d, dropped := drops[p.ID]
		if _, read := delivered[p.ID]; read == dropped {
			t.Fatalf("packet %d: delivered %v, dropped %v", p.ID, read, dropped)
		}
		if !dropped {
			continue
		}
		delete(drops, p.ID)
		if half && (d.Drop.Reason == reasonFilter) != p.Verdict.Dropped {
			t.Errorf("packet %d: %+v, and its verdict is %+v", p.ID, d.Drop, p.Verdict)
		}
		if string(transport(d.Data)) != string(p.Data) || d.Src != p.Src || d.Dst != p.Dst || d.Direction != Inbound {
			t.Fatalf("packet %d: % x\nis not % x: %+v", p.ID, transport(d.Data), p.Data, d)
		}
	}
	if len(drops) > 0 {
		t.Errorf("%d drops are of packets that no view has", len(drops))
	}
}

// TestDropsOfOwnVerdict holds the reasons of an own socket's drops against the verdicts.
func TestDropsOfOwnVerdict(t *testing.T) {
	t.Parallel()
	requireDrops(t)
	for _, kind := range []string{"udp6", "tcp", "icmp", "raw"} {
		t.Run(kind, func(t *testing.T) {
			config := Config{Kind: mustKind(t, kind), Options: Options{Views: []View{ViewKernel, ViewDrop}, Verdict: bpf.Keep(0)}}
			sink, _ := run(t, config, probed(t))
			drops := idsOf(t, sink.view(ViewDrop))
			kernel := sink.view(ViewKernel)
			if len(kernel) == 0 || len(kernel) != len(drops) {
				t.Errorf("%d packets, %d drops", len(kernel), len(drops))
			}
			for _, p := range kernel {
				if d, ok := drops[p.ID]; !ok || d.Drop.Reason != reasonFilter || d.Src != p.Src || d.Dst != p.Dst || d.Protocol != p.Protocol {
					t.Errorf("packet %d, %v > %v: %+v, %v > %v", p.ID, p.Src, p.Dst, d.Drop, d.Src, d.Dst)
				}
			}
		})
	}
}

// TestDropsAreNotOfObservers has packet sockets beside whose queues are full: what they drop are
// copies, and nothing of a conversation that goes well is dropped.
func TestDropsAreNotOfObservers(t *testing.T) {
	t.Parallel()
	requireDrops(t)
	for _, kind := range []string{"tcp", "udp6"} {
		t.Run(kind, func(t *testing.T) {
			ns := mustNamespace(t)
			observers := []int{fullObserver(t, ns, 0), fullObserver(t, ns, 1<<16)}
			config := Config{Kind: mustKind(t, kind), Echo: true, Namespace: ns, Options: Options{Views: dropViews}}
			sink, _ := run(t, config, func(s *Session) {
				for range 3 {
					conn := dialIn(t, s, strings.TrimSuffix(kind, "6"))
					for range 50 {
						exchange(t, conn, string(pattern(1000)))
					}
					conn.Close()
				}
				quietSession(t, s)
			})
			for _, fd := range observers {
				if st, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err != nil || st.Drops == 0 {
					t.Errorf("a packet socket dropped nothing: %+v, %v", st, err)
				}
			}
			if n := len(sink.view(ViewKernel)); n < 100 {
				t.Errorf("%d packets", n)
			}
			for _, d := range sink.view(ViewDrop) {
				t.Fatalf("%d drops, the first of which is %+v", len(sink.view(ViewDrop)), d.Drop)
			}
		})
	}
}

// quietSession waits until nothing has come for a while.
func quietSession(tb testing.TB, s *Session) {
	tb.Helper()
	var last Counts
	for since := time.Now(); time.Since(since) < 100*time.Millisecond; time.Sleep(10 * time.Millisecond) {
		counts, err := s.Counts()
		if err != nil {
			tb.Fatal(err)
		}
		if counts != last {
			last, since = counts, time.Now()
		}
	}
}

// fullObserver makes a packet socket for all frames that nobody reads: with little room in its
// queue, or in a ring of so many bytes.
func fullObserver(t *testing.T, ns *Namespace, ring uint32) (fd int) {
	t.Helper()
	err := ns.Do(func() (err error) {
		all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all)); err != nil {
			return err
		}
		if ring == 0 {
			return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 2048)
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2); err != nil {
			return err
		}
		request := unix.TpacketReq{Block_size: ring, Block_nr: 1, Frame_size: 2048, Frame_nr: ring / 2048}
		return unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &request)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// TestDropsOfOldSegments sends segments of a connection again, as somebody does who lost an
// acknowledgement: the kernel drops them for a reason of TCP's, under the ids of the repetitions.
func TestDropsOfOldSegments(t *testing.T) {
	t.Parallel()
	requireReceivers(t)
	ns := mustNamespace(t)
	wire := tapWire(t, ns)
	const again = 3
	config := Config{Kind: mustKind(t, "tcp"), Echo: true, Namespace: ns, Options: Options{Views: dropViews}}
	sink, _ := run(t, config, func(s *Session) {
		conn := dialIn(t, s, "tcp")
		defer conn.Close()
		for i := range again {
			exchange(t, conn, fmt.Sprintf("segment %d", i))
		}
		in, _ := wire.packets(t, func(out bool, ip []byte) bool {
			return !out && ip[0]>>4 == 4 && binary.BigEndian.Uint16(transport(ip)[2:]) == s.Addr().Port() && hasData(transport(ip))
		})
		if len(in) != again {
			t.Fatalf("%d segments with data", len(in))
		}
		for _, ip := range in {
			completeTCP(ip)
		}
		sendRaw(t, ns, in)
		quietSession(t, s)
	})
	drops := sink.view(ViewDrop)
	kernel := idsOf(t, sink.view(ViewKernel))
	for _, d := range drops {
		p, known := kernel[d.ID]
		if !known || string(p.Data) != string(transport(d.Data)) || !strings.HasPrefix(d.Drop.Reason, "TCP_") || !strings.HasPrefix(d.Drop.Location, "tcp_") {
			t.Errorf("%+v, known %v", d.Drop, known)
		}
	}
	if len(drops) != again {
		t.Errorf("%d drops of %d: %v", len(drops), again, reasonsOf(drops))
	}
	// The ids are those of the last packets with these bytes.
	var last []uint64
	for _, p := range sink.view(ViewKernel) {
		if hasData(p.Data) {
			last = append(last, p.ID)
		}
	}
	var ids []uint64
	for _, d := range drops {
		ids = append(ids, d.ID)
	}
	if len(last) != 2*again || !slices.Equal(ids, last[again:]) {
		t.Errorf("dropped were %v, and with data came %v", ids, last)
	}
}

// TestDropsOfBadChecksum sends a datagram with a wrong checksum: no filter sees it, and the reason is
// there. It is what the account says was dropped before.
func TestDropsOfBadChecksum(t *testing.T) {
	t.Parallel()
	requireDrops(t)
	// The kernel looks at short ones before it has found the socket, which counts the other.
	wrong := []string{"wrong", strings.Repeat("wrong", 30)}
	config := Config{Kind: mustKind(t, "udp"), Namespace: mustNamespace(t), Options: Options{Views: dropViews}}
	sink, s := run(t, config, func(s *Session) {
		conn := dialIn(t, s, "udp")
		defer conn.Close()
		if _, err := conn.Write([]byte("right")); err != nil {
			t.Fatal(err)
		}
		for _, text := range wrong {
			packet := []byte{0x45, 0, 0, 0, 0, 1, 0, 0, 64, unix.IPPROTO_UDP, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1}
			packet[3] = byte(28 + len(text))
			packet = binary.BigEndian.AppendUint16(packet, 9)
			packet = binary.BigEndian.AppendUint16(packet, s.Addr().Port())
			packet = append(packet, 0, byte(8+len(text)), 0x42, 0x42)
			sendRaw(t, s.config.Namespace, [][]byte{append(packet, text...)})
		}
		quietSession(t, s)
	})
	drops, kernel := sink.view(ViewDrop), sink.view(ViewKernel)
	for i, d := range drops {
		if d.Drop.Reason != "UDP_CSUM" || string(d.Data[28:]) != wrong[i] || d.ID == kernel[0].ID {
			t.Errorf("%+v: %q", d.Drop, d.Data)
		}
	}
	if len(drops) != len(wrong) || len(kernel) != 1 {
		t.Errorf("%d drops, %d packets", len(drops), len(kernel))
	}
	all, err := s.Statistics()
	if a := accountOf(t, all, err); a.Unseen != 1 || a.Seen != 1 || a.Delivered != 1 {
		t.Errorf("%s", a)
	}
}

// hasData tells whether a segment of TCP brings bytes.
func hasData(segment []byte) bool { return len(segment) > int(segment[12]>>4)*4 }

// completeTCP computes the checksum that a device would.
func completeTCP(ip []byte) {
	segment := transport(ip)
	segment[16], segment[17] = 0, 0
	sum := uint32(unix.IPPROTO_TCP + len(segment))
	for _, part := range [][]byte{ip[12:20], segment} {
		for i, b := range part {
			sum += uint32(b) << (8 * (1 - i%2))
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(segment[16:], ^uint16(sum))
}

// sendRaw sends IPv4 packets as they are.
func sendRaw(t *testing.T, ns *Namespace, packets [][]byte) {
	t.Helper()
	err := ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, p := range packets {
			if err := unix.Sendto(fd, p, 0, &unix.SockaddrInet4{Addr: [4]byte(p[16:20])}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Hooks of the firewall.
const (
	localIn  = 1 // NF_INET_LOCAL_IN
	localOut = 3 // NF_INET_LOCAL_OUT
)

// dropAt makes the firewall of a namespace drop everything at a hook: a table with a chain whose
// policy that is, by messages of nfnetlink.
func dropAt(t *testing.T, ns *Namespace, at uint32) {
	t.Helper()
	const (
		tables = unix.NFNL_SUBSYS_NFTABLES << 8
		inet   = unix.NFPROTO_INET
		nested = unix.NLA_F_NESTED
		drop   = 0 // NF_DROP
	)
	word := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	attribute := func(kind uint16, value []byte) []byte {
		b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
		b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
		return append(b, make([]byte, (4-len(b)%4)%4)...)
	}
	var sequence uint32
	message := func(kind, flags uint16, family byte, resource uint16, attributes ...[]byte) []byte {
		body := binary.BigEndian.AppendUint16([]byte{family, 0}, resource)
		for _, a := range attributes {
			body = append(body, a...)
		}
		sequence++
		b := binary.NativeEndian.AppendUint32(nil, uint32(16+len(body)))
		b = binary.NativeEndian.AppendUint16(b, kind)
		b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
		b = binary.NativeEndian.AppendUint32(b, sequence)
		return append(binary.NativeEndian.AppendUint32(b, 0), body...)
	}
	hook := slices.Concat(attribute(unix.NFTA_HOOK_HOOKNUM, word(at)), attribute(unix.NFTA_HOOK_PRIORITY, word(0)))
	all := slices.Concat(
		message(unix.NFNL_MSG_BATCH_BEGIN, 0, 0, unix.NFNL_SUBSYS_NFTABLES),
		message(tables|unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, inet, 0, attribute(unix.NFTA_TABLE_NAME, []byte("test\x00"))),
		message(tables|unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE|unix.NLM_F_ACK, inet, 0,
			attribute(unix.NFTA_CHAIN_TABLE, []byte("test\x00")), attribute(unix.NFTA_CHAIN_NAME, []byte("in\x00")),
			attribute(unix.NFTA_CHAIN_HOOK|nested, hook), attribute(unix.NFTA_CHAIN_POLICY, word(drop)),
			attribute(unix.NFTA_CHAIN_TYPE, []byte("filter\x00"))),
		message(unix.NFNL_MSG_BATCH_END, 0, 0, unix.NFNL_SUBSYS_NFTABLES),
	)
	err := ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Sendto(fd, all, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		answer := make([]byte, 4096)
		n, err := unix.Read(fd, answer)
		if err != nil {
			return err
		}
		if kind := binary.NativeEndian.Uint16(answer[4:]); n < 20 || kind != unix.NLMSG_ERROR {
			return fmt.Errorf("answer % x", answer[:n])
		}
		if errno := -int32(binary.NativeEndian.Uint32(answer[16:])); errno != 0 {
			return unix.Errno(errno)
		}
		return nil
	})
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		t.Skip("this kernel has no nf_tables: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestDropsOfFirewall has a firewall that drops what comes in, before any socket is known: it is
// found by address, of own sockets and of joined ones, and nothing of others is.
func TestDropsOfFirewall(t *testing.T) {
	t.Parallel()
	requireDrops(t)
	for _, kind := range []string{"udp", "tcp", "raw"} {
		t.Run(kind, func(t *testing.T) {
			config := Config{Kind: mustKind(t, kind), Namespace: mustNamespace(t), Options: Options{Views: []View{ViewKernel, ViewCgroup, ViewDrop}}}
			sink, s := run(t, config, func(s *Session) {
				dropAt(t, s.config.Namespace, localIn)
				to := s.Addr()
				if kind == "raw" {
					to = netip.AddrPortFrom(to.Addr(), ProbePort)
				}
				sendOnce(t, s.config.Namespace, kind, to)
				sendOnce(t, s.config.Namespace, kind, netip.AddrPortFrom(to.Addr(), to.Port()+1)) // somebody else's
				quietSession(t, s)
			})
			drops := sink.view(ViewDrop)
			for _, d := range drops {
				if d.Drop.Reason != "NETFILTER_DROP" || d.Drop.Location == "" || d.Direction != Inbound || kind != "raw" && d.Dst.Port() != s.Addr().Port() {
					t.Errorf("%+v, %v > %v", d.Drop, d.Src, d.Dst)
				}
			}
			want := 1
			if kind == "raw" {
				want = 2 // it has no port
			}
			if len(drops) != want || len(sink.view(ViewKernel)) > 0 {
				t.Errorf("%d drops, %d packets", len(drops), len(sink.view(ViewKernel)))
			}
		})
	}
	t.Run("joined", func(t *testing.T) {
		process := startTarget(t, "udp", "127.0.0.1:0")
		dropAt(t, process.ns, localIn)
		l := mustJoin(t, JoinConfig{PIDs: []int{process.Process.Pid}, Options: Options{Views: []View{ViewKernel, ViewUser, ViewDrop}}})
		to := netip.MustParseAddrPort(process.address)
		sink := runLive(t, l, func() {
			sendOnce(t, process.ns, "udp", to)
			sendOnce(t, process.ns, "udp", netip.AddrPortFrom(to.Addr(), to.Port()+1))
		})
		drops := sink.view(ViewDrop)
		if len(drops) != 1 || drops[0].Drop.Reason != "NETFILTER_DROP" || drops[0].Dst != to || drops[0].Interface.Process != l.Process() {
			t.Errorf("%+v", drops)
		}
	})
}

// TestDropsOnTheWayOut has a firewall that drops what a socket sends, before any hook sees it.
func TestDropsOnTheWayOut(t *testing.T) {
	t.Parallel()
	requireReceivers(t)
	ns := mustNamespace(t)
	conn := dialFrom(t, ns, "udp", "127.0.0.1:9")
	defer conn.Close()
	other := dialFrom(t, ns, "udp", "127.0.0.1:9")
	defer other.Close()
	s, err := Attach(conn.(*net.UDPConn), Options{RingSize: bpf.MinRingSize, Views: []View{ViewCgroup, ViewDrop}})
	if err != nil {
		t.Fatal(err)
	}
	dropAt(t, ns, localOut)
	sink := collect(t, s, func() {
		for _, c := range []net.Conn{conn, other, conn} {
			if _, err := c.Write([]byte(ProbePayload)); !errors.Is(err, unix.EPERM) {
				t.Errorf("sending what the firewall drops: %v", err)
			}
		}
		quietSession(t, s)
	})
	drops := idsOf(t, sink.view(ViewDrop))
	for _, d := range drops {
		if d.Drop.Reason != "NETFILTER_DROP" || d.Direction != Outbound || d.Src.String() != conn.LocalAddr().String() || !strings.HasSuffix(string(d.Data), ProbePayload) {
			t.Errorf("%+v, %v > %v: %q", d.Drop, d.Src, d.Dst, d.Data)
		}
	}
	if len(drops) != 2 || len(sink.view(ViewCgroup)) > 0 {
		t.Errorf("%d drops, %d packets", len(drops), len(sink.view(ViewCgroup)))
	}
}

// sendOnce sends a datagram to an address, or begins a connection.
func sendOnce(t *testing.T, ns *Namespace, kind string, to netip.AddrPort) {
	t.Helper()
	err := ns.Do(func() error {
		domain, typ := unix.AF_INET, unix.SOCK_DGRAM
		if to.Addr().Is6() {
			domain = unix.AF_INET6
		}
		if kind == "tcp" || kind == "raw" {
			typ = unix.SOCK_STREAM
		}
		fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, sockaddr(to)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			return err
		}
		if typ == unix.SOCK_DGRAM {
			return unix.Send(fd, []byte(ProbePayload), 0)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// seenPacket is a record of a UDP datagram with these bytes, and the whole of it.
func seenPacket(payload []byte, hook uint8) (rec *bpf.Record, whole []byte) {
	whole = make([]byte, 28, 28+len(payload))
	whole[0], whole[9] = 0x45, unix.IPPROTO_UDP
	whole = append(whole, payload...)
	binary.BigEndian.PutUint16(whole[2:], uint16(len(whole)))
	rec = &bpf.Record{Data: whole[20:]}
	rec.Hook, rec.Len = hook, uint32(len(whole)-20)
	return rec, whole
}

// benchmarkFreed is what a packet costs that arrives and is freed, among others that were not: all
// different, or all alike.
func benchmarkFreed(b *testing.B) {
	for _, name := range []string{"freed", "freed and alike"} {
		alike := name != "freed"
		for _, n := range []int{1, 100, 10_000} {
			b.Run(fmt.Sprintf("%s/waiting=%d", name, n), func(b *testing.B) {
				s := newSightings(&Options{Views: []View{ViewDrop}, Snaplen: bpf.MaxSnaplen})
				ids := uint64(0)
				fresh := func() uint64 { ids++; return ids }
				payload := make([]byte, 64)
				arrive := func(i int) (*bpf.Record, []byte) {
					if !alike {
						binary.BigEndian.PutUint64(payload, uint64(i))
					}
					rec, whole := seenPacket(payload, bpf.HookIngress)
					s.arrives(rec, whole, len(whole), LayerTransport, fresh)
					return rec, whole
				}
				for i := range n {
					arrive(i)
				}
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					rec, whole := arrive(n + i)
					if id, _ := s.freed(rec, whole, len(whole), LayerTransport); id != ids {
						b.Fatal("the packet was not found")
					}
				}
			})
		}
	}
}

// TestFreedAmongAlike holds that of packets that are alike the last one is the one that was freed,
// and that each is once.
func TestFreedAmongAlike(t *testing.T) {
	t.Parallel()
	s := newSightings(&Options{Views: []View{ViewDrop}, Snaplen: bpf.MaxSnaplen})
	ids := uint64(0)
	fresh := func() uint64 { ids++; return ids }
	arrive := func(text string) {
		rec, whole := seenPacket([]byte(text), bpf.HookIngress)
		s.arrives(rec, whole, len(whole), LayerTransport, fresh)
	}
	freed := func(text string) uint64 {
		rec, whole := seenPacket([]byte(text), bpf.HookDrop)
		binary.BigEndian.PutUint16(rec.Data[6:], 0x4242) // the checksum, which may have been completed
		id, reached := s.freed(rec, whole, len(whole), LayerTransport)
		if reached != (id != 0) {
			t.Errorf("packet %d reached a filter: %v", id, reached)
		}
		return id
	}
	arrive("a")
	arrive("a")
	arrive("b")
	if id := freed("a"); id != 2 {
		t.Errorf("freed was %d", id)
	}
	arrive("a")
	for _, want := range []uint64{4, 1, 0} {
		if id := freed("a"); id != want {
			t.Errorf("freed was %d, not %d", id, want)
		}
	}
	if id := freed("c"); id != 0 {
		t.Errorf("freed was %d", id)
	}
	for range sightingsKept {
		arrive("d")
	}
	if id := freed("b"); id != 0 {
		t.Errorf("a packet that is forgotten was freed: %d", id)
	}
	for want := ids; want > ids-10; want-- {
		if id := freed("d"); id != want {
			t.Errorf("freed was %d, not %d", id, want)
		}
	}
}
