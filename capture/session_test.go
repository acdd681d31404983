package capture

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// memory is a Sink that keeps copies.
type memory struct {
	mu      sync.Mutex
	packets []Packet
}

func (m *memory) WritePacket(p *Packet) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := *p
	kept.Data = bytes.Clone(p.Data)
	kept.Reception.Controls = slices.Clone(p.Reception.Controls)
	m.packets = append(m.packets, kept)
	return nil
}

func (m *memory) view(v View) []Packet {
	var in []Packet
	for _, p := range m.packets {
		if p.Interface.View == v {
			in = append(in, p)
		}
	}
	return in
}

// run runs a session in a namespace of its own, does what traffic says once
// the tap is in place, and returns what was captured when the socket is quiet.
func run(tb testing.TB, config Config, traffic func(s *Session)) (*memory, *Session) {
	tb.Helper()
	testutil.RequirePrivilege(tb)
	if config.RingSize == 0 {
		config.RingSize = 4 << 20 // many of these tests run at once, on small machines too
	}
	if config.Namespace == nil {
		config.Namespace = mustNamespace(tb)
	}
	s, err := Open(config)
	if err != nil {
		tb.Fatal(err)
	}
	return collect(tb, s, func() { traffic(s) }), s
}

// collect runs a session until the traffic is over, and returns what was captured.
// It closes the session when the test ends.
func collect(tb testing.TB, session interface {
	Run(context.Context, Sink) error
	Close() error
}, traffic func()) *memory {
	tb.Helper()
	tb.Cleanup(func() {
		if err := session.Close(); err != nil {
			tb.Error(err)
		}
	})
	var sink memory
	ctx, cancel := context.WithCancel(tb.Context())
	done := make(chan error)
	go func() { done <- session.Run(ctx, &sink) }()
	traffic()
	cancel()
	if err := <-done; err != nil {
		tb.Fatal(err)
	}
	return &sink
}

// probed sends the probe.
func probed(tb testing.TB) func(*Session) {
	return func(s *Session) {
		if err := s.Probe(tb.Context()); err != nil {
			tb.Error(err)
		}
	}
}

func mustNamespace(tb testing.TB) *Namespace {
	tb.Helper()
	testutil.RequirePrivilege(tb)
	ns, err := NewNamespace()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(ns.Close)
	return ns
}

func mustKind(tb testing.TB, name string) *Kind {
	tb.Helper()
	k, ok := KindByName(name)
	if !ok {
		tb.Fatalf("no kind %q", name)
	}
	return k
}

var allViews = []View{ViewKernel, ViewUser, ViewNet, ViewLink}

// What the probe shows in each kind: the packets by id, the payload that each
// brings to userspace, and what stands before offset 0.
func TestProbe(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		kind     string
		protocol int
		packets  int
		user     []string // by delivery; "=" is the kernel view's bytes
		netLen   int      // bytes of network header below offset 0
	}{
		{kind: "tcp", packets: 5, user: []string{ProbePayload, ""}, netLen: 20},
		{kind: "tcp6", packets: 5, user: []string{ProbePayload, ""}, netLen: 40},
		{kind: "udp", packets: 1, user: []string{ProbePayload}, netLen: 20},
		{kind: "udp6", packets: 1, user: []string{ProbePayload}, netLen: 40},
		{kind: "raw", packets: 2, user: []string{"=", "="}},
		{kind: "raw", protocol: unix.IPPROTO_UDP, packets: 1, user: []string{"="}},
		{kind: "raw", protocol: unix.IPPROTO_ICMP, packets: 2, user: []string{"=", "="}},
		{kind: "raw", protocol: 200, packets: 1, user: []string{"="}},
		{kind: "raw6", packets: 2, user: []string{"=", "="}, netLen: 40},
		{kind: "raw6", protocol: unix.IPPROTO_UDP, packets: 1, user: []string{"="}, netLen: 40},
		{kind: "raw6", protocol: unix.IPPROTO_ICMPV6, packets: 2, user: []string{"=", "="}, netLen: 40},
	} {
		t.Run(fmt.Sprintf("%s/%d", test.kind, test.protocol), func(t *testing.T) {
			t.Parallel()
			sink, s := run(t, Config{Kind: mustKind(t, test.kind), Protocol: test.protocol, Options: Options{Views: allViews}}, probed(t))
			kernel, user := sink.view(ViewKernel), sink.view(ViewUser)
			if len(kernel) != test.packets || len(user) != len(test.user) {
				t.Fatalf("%d packets in the kernel view and %d in the user view, want %d and %d",
					len(kernel), len(user), test.packets, len(test.user))
			}
			byID := make(map[uint64]Packet)
			for _, p := range kernel {
				byID[p.ID] = p
				if !p.Src.Addr().IsLoopback() || !p.Dst.Addr().IsLoopback() || p.Direction != Inbound || p.Len != len(p.Data) {
					t.Errorf("packet %+v", p)
				}
			}
			for i, p := range user {
				k, ok := byID[p.ID]
				if !ok {
					t.Errorf("delivery %d has id %d, which no packet has: %+v", i, p.ID, p.Receipt)
				}
				want := test.user[i]
				if want == "=" {
					want = string(k.Data)
				}
				if string(p.Data) != want || p.Src != k.Src || p.Dst != k.Dst || p.Call != "recvmsg" || p.Time < k.Time {
					t.Errorf("delivery %d of packet %+v is %+v, want %q", i, k, p, want)
				}
			}
			for _, p := range append(sink.view(ViewNet), sink.view(ViewLink)...) {
				below := test.netLen
				if p.Interface.View == ViewLink {
					below += 14
				}
				if !bytes.Equal(p.Data[below:], byID[p.ID].Data) || p.Len != len(p.Data) {
					t.Errorf("%s: packet %d is %x, does not end in the kernel view's bytes", p.Interface.Name(), p.ID, p.Data)
				}
			}
			if i := kernel[0].Interface; time.Duration(i.ClockError) != s.ClockError() {
				t.Errorf("%+v, want the clock error %d", i, s.ClockError())
			}
			checkLedger(t, s)
		})
	}
}

// checkLedger holds that nothing is unaccounted for.
func checkLedger(t *testing.T, s *Session) {
	t.Helper()
	counts, err := s.Counts()
	if err != nil {
		t.Fatal(err)
	}
	if counts.Tap.Seen != counts.Tap.Recorded+counts.Tap.RingFull+counts.Tap.LoadFailed {
		t.Errorf("tap: %+v", counts.Tap)
	}
	all, err := s.Statistics()
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range all {
		if st.Received != st.Delivered+st.Dropped || st.Received == 0 || st.Start >= st.End {
			t.Errorf("%s: %+v", st.Interface.Name(), st)
		}
	}
}

// checkDelivered holds that the statistics of a view's interfaces are about so many packets, none of which was lost.
func checkDelivered(t *testing.T, c Capture, view View, packets int) {
	t.Helper()
	all, err := c.Statistics()
	if err != nil {
		t.Fatal(err)
	}
	var delivered uint64
	for _, st := range all {
		if st.Interface.View == view {
			delivered += st.Delivered
			if st.Received != st.Delivered {
				t.Errorf("%+v", st)
			}
		}
	}
	if delivered != uint64(packets) {
		t.Errorf("statistics of %d packets of the view %v, of %d", delivered, view, packets)
	}
}

// dialIn connects to the session from within its namespace.
func dialIn(tb testing.TB, s *Session, network string) net.Conn {
	tb.Helper()
	return dialFrom(tb, s.config.Namespace, network, s.main.local.String())
}

func dialFrom(tb testing.TB, ns *Namespace, network, address string) net.Conn {
	tb.Helper()
	var conn net.Conn
	err := ns.Do(func() (err error) {
		conn, err = net.Dial(network, address)
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return conn
}

func TestEcho(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"tcp", "udp", "tcp6", "udp6"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			run(t, Config{Kind: mustKind(t, kind), Echo: true}, probed(t))
		})
	}
}

// Several connections at once, each with its own bytes: every read has the id
// of the segment that its first byte came in.
func TestStreamsPair(t *testing.T) {
	t.Parallel()
	const connections, messages = 8, 50
	sink, _ := run(t, Config{Kind: mustKind(t, "tcp"), Echo: true}, func(s *Session) {
		var clients sync.WaitGroup
		for c := range connections {
			conn := dialIn(t, s, "tcp")
			clients.Go(func() {
				defer conn.Close()
				for m := range messages {
					text := fmt.Sprintf("connection %d message %d %s\n", c, m, strings.Repeat("x", m*100))
					if _, err := io.WriteString(conn, text); err != nil {
						t.Error(err)
					}
					if m%2 == 0 {
						if _, err := io.ReadFull(conn, make([]byte, len(text))); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		clients.Wait()
		if err := s.settle(t.Context(), Counts{}); err != nil {
			t.Error(err)
		}
	})
	segments := make(map[uint64]Packet)
	for _, p := range sink.view(ViewKernel) {
		segments[p.ID] = p
	}
	reads := 0
	for _, p := range sink.view(ViewUser) {
		k, ok := segments[p.ID]
		if !ok || k.Src != p.Src || k.Dst != p.Dst {
			t.Errorf("read of %d bytes: id %d, %+v", len(p.Data), p.ID, p.Receipt)
			continue
		}
		if len(p.Data) == 0 {
			continue
		}
		reads++
		payload := k.Data[k.Data[12]>>4*4:]
		if n := min(len(payload), len(p.Data)); !bytes.Contains(payload, p.Data[:min(n, 20)]) {
			t.Errorf("packet %d holds %.30q, its read %.30q", p.ID, payload, p.Data)
		}
	}
	if reads < connections {
		t.Errorf("%d reads", reads)
	}
}

// drained waits until the receiver has taken all that is in the queue, which may
// take it some time to begin with.
func drained(tb testing.TB, s *Session) {
	tb.Helper()
	for waiting := 1; waiting > 0; time.Sleep(time.Millisecond) {
		var err error
		cerr := s.main.conn.Control(func(fd uintptr) { waiting, err = unix.IoctlGetInt(int(fd), unix.SIOCINQ) })
		if err := errors.Join(cerr, err); err != nil {
			tb.Fatal(err)
		}
	}
}

// A queue that overflows: every datagram that was received has the id of its
// own packet, and the dropped ones are named.
func TestDatagramsPairAcrossOverflow(t *testing.T) {
	t.Parallel()
	const sent = 4000
	var dropped atomic.Uint64
	sink, s := run(t, Config{Kind: mustKind(t, "udp")}, func(s *Session) {
		conn := dialIn(t, s, "udp")
		defer conn.Close()
		// A full mailbox stops the receiver, and so the queue overflows for certain.
		s.own.mailbox.mu.Lock()
		var b [8]byte
		for i := range sent {
			if i == sent-10 {
				s.own.mailbox.mu.Unlock()
				drained(t, s)
				if err := s.settle(t.Context(), Counts{}); err != nil {
					t.Error(err)
				}
			}
			// Half of them are alike, so that bytes alone could not tell them apart.
			binary.BigEndian.PutUint64(b[:], uint64(i/2*2))
			if _, err := conn.Write(b[:]); err != nil {
				t.Error(err)
			}
		}
		if err := s.settle(t.Context(), Counts{}); err != nil {
			t.Error(err)
		}
	})
	kernel := make(map[uint64]Packet)
	for _, p := range sink.view(ViewKernel) {
		kernel[p.ID] = p
	}
	if len(kernel) != sent {
		t.Fatalf("the filter saw %d of %d", len(kernel), sent)
	}
	var (
		last  uint64
		named int
	)
	for _, p := range sink.view(ViewUser) {
		if !bytes.Equal(kernel[p.ID].Data[8:], p.Data) || p.ID <= last {
			t.Fatalf("datagram %x after %d got id %d, whose packet holds %x", p.Data, last, p.ID, kernel[p.ID].Data)
		}
		// The gap in the ids is what the queue says that it dropped.
		if p.Drops != p.ID-last-1 {
			t.Fatalf("packet %d follows %d, and the queue dropped %d in between", p.ID, last, p.Drops)
		}
		if p.Drops > 0 {
			named++
			want := Receipt{QueueDropped: p.Drops, DroppedIDs: IDs{Ranges: [][2]uint64{{last + 1, p.ID - 1}}}}
			if fmt.Sprint(p.Receipt) != fmt.Sprint(want) {
				t.Errorf("%+v, want %+v", p.Receipt, want)
			}
		}
		dropped.Add(p.Drops)
		last = p.ID
	}
	if named == 0 || dropped.Load() == 0 {
		t.Error("the queue did not overflow: the test shows nothing")
	}
	checkLedger(t, s)
}

func TestPacketLimit(t *testing.T) {
	t.Parallel()
	ns := mustNamespace(t)
	s, err := Open(Config{Kind: mustKind(t, "udp"), Namespace: ns, Options: Options{Packets: 3}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	conn := dialIn(t, s, "udp")
	for i := range 10 {
		fmt.Fprintf(conn, "datagram %d", i)
	}
	var sink memory
	if err := s.Run(t.Context(), &sink); err != nil {
		t.Fatal(err)
	}
	for _, v := range []View{ViewKernel, ViewUser} {
		if got := sink.view(v); len(got) != 3 || got[2].ID != 3 {
			t.Errorf("%s: %d packets", v, len(got))
		}
	}
	checkLedger(t, s)
}

// What waits to be accepted when the capture ends is read all the same.
func TestPacketLimitOfStream(t *testing.T) {
	t.Parallel()
	for range 20 {
		sink, _ := run(t, Config{Kind: mustKind(t, "tcp"), Echo: true, Options: Options{Packets: 3, Immediate: true}}, probed(t))
		if k, u := sink.view(ViewKernel), sink.view(ViewUser); len(k) != 3 || len(u) != 1 || string(u[0].Data) != ProbePayload {
			t.Fatalf("%d packets and %d reads", len(k), len(u))
		}
	}
}

func TestSnaplen(t *testing.T) {
	t.Parallel()
	sink, _ := run(t, Config{Kind: mustKind(t, "udp"), Options: Options{Snaplen: 10}}, probed(t))
	for _, p := range sink.packets {
		full := map[View]int{ViewKernel: 8 + len(ProbePayload), ViewUser: len(ProbePayload)}[p.Interface.View]
		if len(p.Data) != 10 || p.Len != full {
			t.Errorf("%s: %d of %d bytes", p.Interface.Name(), len(p.Data), p.Len)
		}
		if p.ID != 1 {
			t.Errorf("%s: id %d", p.Interface.Name(), p.ID)
		}
	}
}

func TestOpenRefusals(t *testing.T) {
	t.Parallel()
	testutil.RequirePrivilege(t)
	var missing *bpf.MissingError

	_, err := Open(Config{Kind: mustKind(t, "mptcp"), Listen: netip.MustParseAddrPort("127.0.0.1:0")})
	if !errors.As(err, &missing) || !strings.Contains(strings.ToUpper(err.Error()), "MPTCP") {
		t.Errorf("mptcp: %v", err)
	}

	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, err = Open(Config{Kind: mustKind(t, "tcp"), Listen: netip.MustParseAddrPort(taken.Addr().String())})
	if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("port in use: %v", err)
	}

	_, err = Open(Config{Kind: mustKind(t, "udp"), Listen: netip.MustParseAddrPort("192.0.2.1:0")})
	if !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("an address of somebody else: %v", err)
	}
}

// failing is a sink whose device is full.
type failing struct{ after int }

func (f *failing) WritePacket(*Packet) error {
	if f.after--; f.after < 0 {
		return unix.ENOSPC
	}
	return nil
}

func TestSinkFails(t *testing.T) {
	t.Parallel()
	ns := mustNamespace(t)
	s, err := Open(Config{Kind: mustKind(t, "udp"), Namespace: ns})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	conn := dialIn(t, s, "udp")
	for i := range 10 {
		fmt.Fprintf(conn, "datagram %d", i)
	}
	if err := s.Run(t.Context(), &failing{after: 4}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Run returned %v", err)
	}
}
