package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
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
// drop, as before Linux 6.11, nor ask the sender's mark.
func requireReceivers(tb testing.TB) {
	tb.Helper()
	if !requireDrops(tb) {
		if kernelBetween([2]int{6, 11}, [2]int{99, 0}) {
			tb.Fatal("Linux 6.11 and newer tell the receiver")
		}
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
		if kernelBetween([2]int{5, 17}, [2]int{99, 0}) {
			tb.Fatal(err)
		}
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
	requireDrops(t)
	process := startTarget(t, "echo", "tcp4", "127.0.0.1:0")
	wire := tapWire(t, process.ns)
	const again = 3
	l := mustJoin(t, JoinConfig{PIDs: []int{process.Process.Pid}, Options: Options{Views: dropViews}})
	sink := runLive(t, l, func() {
		conn := process.dial(t, "tcp", process.address)
		for i := range again {
			exchange(t, conn, fmt.Sprintf("segment %d", i))
		}
		port := netip.MustParseAddrPort(process.address).Port()
		in, _ := wire.packets(t, func(out bool, ip []byte) bool {
			return !out && ip[0]>>4 == 4 && binary.BigEndian.Uint16(transport(ip)[2:]) == port && hasData(transport(ip))
		})
		if len(in) != again {
			t.Fatalf("%d segments with data", len(in))
		}
		for _, ip := range in {
			completeTCP(ip)
		}
		sendRaw(t, process.ns, in)
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
