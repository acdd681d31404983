package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// tcpdumped are the packets that tcpdump takes of a file of them. A guest with another kernel has no tcpdump: there the
// expression is asked here, which internal/expression compares with tcpdump.
func tcpdumped(t *testing.T, packets [][]byte, expression string) (taken [][]byte) {
	t.Helper()
	tcpdump, err := exec.LookPath("tcpdump")
	if err != nil {
		e := mustExpression(t, expression)
		return slices.DeleteFunc(slices.Clone(packets), func(ip []byte) bool { return !e.Wants(ip, len(ip)) })
	}
	file := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	file = append(file, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 101, 0, 0, 0)
	for _, packet := range packets {
		for _, n := range []int{0, 0, len(packet), len(packet)} {
			file = binary.LittleEndian.AppendUint32(file, uint32(n))
		}
		file = append(file, packet...)
	}
	name := filepath.Join(t.TempDir(), "raw.pcap")
	if err := os.WriteFile(name, file, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tcpdump, "-r", name, "-w", "-", expression).Output()
	if err != nil {
		var exit *exec.ExitError
		errors.As(err, &exit)
		t.Fatalf("tcpdump %q: %s", expression, exit.Stderr)
	}
	for out = out[24:]; len(out) >= 16; {
		n := binary.LittleEndian.Uint32(out[8:])
		taken = append(taken, out[16:16+n])
		out = out[16+n:]
	}
	return taken
}

func mustExpression(tb testing.TB, text string) *bpf.Expression {
	tb.Helper()
	e, err := bpf.ParseExpression(text)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// checkChosen holds that the ledgers and statistics of a capture with an expression balance, and that what userspace got
// of packets that are not wanted is in no view, and is not thought to be without a packet.
func checkChosen(t *testing.T, c Capture, sink *memory) {
	t.Helper()
	counts, err := c.Counts()
	if err != nil {
		t.Fatal(err)
	}
	for _, side := range []bpf.Counters{counts.Tap, counts.Ingress, counts.Egress, counts.Wire, counts.Drops} {
		if side.Seen != side.Recorded+side.Unwanted+side.Lost() || side.Lost() > 0 {
			t.Errorf("%+v", side)
		}
	}
	if counts.Captured != counts.Tap.Recorded {
		t.Errorf("%d captured: %+v", counts.Captured, counts.Tap)
	}
	all, err := c.Statistics()
	if err != nil {
		t.Fatal(err)
	}
	sums := make(map[View]Statistics)
	for _, st := range all {
		sum := sums[st.Interface.View]
		sum.Unwanted += st.Unwanted
		sum.Accepted += st.Accepted
		sum.Delivered += st.Delivered
		sums[st.Interface.View] = sum
		if st.Received != st.Delivered+st.Unwanted+st.Dropped || st.Interface.Expression == "" {
			t.Errorf("%s: %+v", st.Interface.Name(), st)
		}
		if a := st.Account; a != nil && a.Seen+a.Before+a.Unknown != a.Delivered+a.Queue+a.Filtered+a.After+a.Unwanted+a.Unread {
			t.Errorf("%+v", a)
		} else if a != nil && (a.Unknown > 0 || a.Queue > 0) {
			t.Errorf("%v", a)
		}
	}
	if kernel := sums[ViewKernel]; kernel.Unwanted != counts.Tap.Unwanted || kernel.Accepted != kernel.Delivered {
		t.Errorf("%+v and %+v", kernel, counts.Tap)
	}
	ids := make(map[uint64]bool)
	for _, p := range sink.view(ViewKernel) {
		ids[p.ID] = true
	}
	for _, p := range sink.view(ViewUser) {
		if !ids[p.ID] || p.Receipt.Missing != (Receipt{}).Missing {
			t.Errorf("the user view has packet %d, of %v: %+v", p.ID, p.Src, p.Receipt)
		}
	}
}

// chosenExpressions tell the packets of a target at a port apart.
func chosenExpressions(port uint16, stream, ports bool) []string {
	switch {
	case stream:
		return []string{
			fmt.Sprintf("dst port %d and greater 100", port), "tcp[600:4] = 0x66726f20 or ip6[640:4] = 0x66726f20", "not portrange 1-65535",
		}
	case ports:
		return []string{fmt.Sprintf("udp dst port %d", port), "udp[3000:2] = 0x746f or ip6[3040:2] = 0x746f or len < 200"}
	}
	return []string{"ip[27] & 1 = 1 and len > 700 or ip6[47] & 1 = 1"}
}

// TestExpressionJoined compares what is recorded of a process with what tcpdump takes of all that
// was on the wire.
func TestExpressionJoined(t *testing.T) {
	t.Parallel()
	message := func(domain, typ, protocol int) []string {
		return []string{"messages", fmt.Sprint(domain), fmt.Sprint(typ), fmt.Sprint(protocol)}
	}
	for name, test := range map[string]struct {
		target  []string
		network string
		to      string
		accept  func(bool, []byte) bool
	}{
		"tcp":            {[]string{"echo", "tcp4", "127.0.0.1:0"}, "tcp", "127.0.0.1", nil},
		"tcp6":           {[]string{"echo", "tcp6", "[::1]:0"}, "tcp", "::1", nil},
		"udp":            {[]string{"udp", "127.0.0.1:0"}, "udp", "127.0.0.1", nil},
		"udp6 from IPv4": {[]string{"udp", "[::]:0"}, "udp", "127.0.0.1", nil},
		"udp6":           {[]string{"udp", "[::1]:0"}, "udp", "::1", nil},
		"icmp":           {message(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP), "", "", ofPings},
		"raw":            {message(unix.AF_INET, unix.SOCK_RAW, 253), "", "", ofAll},
		"raw6":           {message(unix.AF_INET6, unix.SOCK_RAW, 253), "", "", ofAll},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i := 0; ; i++ {
				target := startTarget(t, test.target...)
				var port uint16
				if test.network != "" {
					_, text, err := net.SplitHostPort(target.address)
					if err != nil {
						t.Fatal(err)
					}
					port = netip.MustParseAddrPort(net.JoinHostPort("::1", text)).Port()
				}
				list := chosenExpressions(port, test.network == "tcp", test.network == "udp")
				if i == len(list) {
					return
				}
				l := joinWith(t, JoinConfig{PIDs: []int{target.Process.Pid}, Options: Options{
					Views: []View{ViewKernel, ViewUser, ViewCgroup}, RingSize: 8 << 20, Expression: mustExpression(t, list[i]),
				}})
				wire := tapWire(t, target.ns)
				accept := test.accept
				sink := runLive(t, l, func() {
					if test.network == "" {
						fmt.Fprintln(target.stdin, "go")
						target.line(t)
						return
					}
					accept = ofPort(port)
					talk(t, target.dial(t, test.network, netip.AddrPortFrom(netip.MustParseAddr(test.to), port).String()))
				})
				in, out := wire.packets(t, accept)
				wantIn, wantOut := tcpdumped(t, in, list[i]), tcpdumped(t, out, list[i])
				t.Logf("%s: %d of %d in, %d of %d out", list[i], len(wantIn), len(in), len(wantOut), len(out))
				checkCgroup(t, sink, wantIn, wantOut)
				checkChosen(t, l, sink)
				if t.Failed() {
					t.Fatal(list[i])
				}
			}
		})
	}
}

// TestExpressionOwn does so for the sockets of a session, which have the tap, and on the interfaces.
func TestExpressionOwn(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"tcp", "tcp6", "udp", "udp6", "raw", "raw6", "icmp", "packet", "packet-dgram"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kind := mustKind(t, name)
			network := strings.TrimSuffix(name, "6")
			list := []string{"len < 50", "ip6 or icmp"}
			if network == "tcp" || network == "udp" {
				list = chosenExpressions(ProbePort, network == "tcp", true)
			}
			for _, text := range list {
				views := []View{ViewKernel, ViewUser}
				if kind.HasCgroupHooks() {
					views = append(views, ViewWire)
				}
				config := Config{Kind: kind, Echo: kind.CanEcho(), Options: Options{Views: views, Expression: mustExpression(t, text)}, Namespace: mustNamespace(t)}
				wire := tapWire(t, config.Namespace)
				sink, s := run(t, config, func(s *Session) {
					if network == "tcp" || network == "udp" {
						talk(t, dialIn(t, s, network))
					} else {
						probed(t)(s)
					}
					if err := s.settle(t.Context(), Counts{}); err != nil {
						t.Error(err)
					}
				})
				arrived, _ := wire.packets(t, func(out bool, ip []byte) bool { return !out })
				want := tcpdumped(t, arrived, text)
				var got [][]byte
				for _, p := range sink.view(ViewWire) {
					got = append(got, p.Data[linkHeaderLen:])
				}
				if kind.HasCgroupHooks() && !sameBytes(got, want) {
					t.Errorf("%s: %d packets in the wire view, tcpdump takes %d of %d", text, len(got), len(want), len(arrived))
				}
				checkSuffixes(t, s, sink, want, text)
				checkChosen(t, s, sink)
			}
		})
	}
}

// checkSuffixes holds that the kernel view has the ends of those of some packets that come to its socket.
func checkSuffixes(t *testing.T, s *Session, sink *memory, want [][]byte, text string) {
	t.Helper()
	ours := slices.DeleteFunc(slices.Clone(want), func(ip []byte) bool {
		if s.main.local.Port() == 0 || s.config.Kind.anyProtocol {
			return false
		}
		return binary.BigEndian.Uint16(transport(ip)[2:]) != s.main.local.Port()
	})
	got := sink.view(ViewKernel)
	if network := s.config.Kind.Name; network != "icmp" && len(got) != len(ours) && !strings.HasPrefix(network, "packet") && !strings.HasPrefix(network, "raw") {
		t.Errorf("%s: %d packets in the kernel view, tcpdump takes %d", text, len(got), len(ours))
	}
	for _, p := range got {
		data := p.Data
		if s.config.Kind.layer == LayerLink {
			data = data[linkHeaderLen:]
		}
		if !slices.ContainsFunc(want, func(ip []byte) bool { return bytes.HasSuffix(ip, data) }) {
			t.Errorf("%s: the kernel view has %.60x, which tcpdump does not take", text, data)
		}
	}
}

func sameBytes(a, b [][]byte) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, bytes.Compare)
	slices.SortFunc(b, bytes.Compare)
	return slices.EqualFunc(a, b, bytes.Equal)
}

// TestExpressionOwnFilter checks that a socket's own filter is asked about long packets that are not wanted as well:
// what it drops is not laid at the receive queue's door.
func TestExpressionOwnFilter(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "owner", "classic")
	l := joinWith(t, JoinConfig{PIDs: []int{server.Process.Pid}, Options: Options{Views: []View{ViewKernel, ViewUser}, Expression: mustExpression(t, "less 100")}})
	long := strings.Repeat(" and on", 60)
	var got []string
	sink := runLive(t, l, func() {
		got = server.sendAll(t, server.dial(t, "udp", server.address), "keep"+long, "drop"+long, "keep", "drop", "trim"+long, "drop it again"+long, "last")
	})
	if n := len(sink.view(ViewKernel)); n != 3 || len(got) != 4 {
		t.Errorf("%d packets in the kernel view, the process got %.40q", n, got)
	}
	all, err := l.Statistics()
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range all {
		if a := st.Account; a != nil && (a.Seen != 7 || a.Filtered != 3 || a.Delivered != 2 || a.Unwanted != 2) {
			t.Errorf("%v", a)
		}
	}
	if filters := l.OwnFilters(); len(filters) != 1 || filters[0].Unasked > 0 || filters[0].Dropped != 3 || filters[0].Trimmed != 1 {
		t.Errorf("%+v", filters)
	}
}

// TestExpressionRefused checks where an expression is refused.
func TestExpressionRefused(t *testing.T) {
	testutil.RequirePrivilege(t)
	for _, name := range []string{"unix-dgram", "netlink"} {
		_, err := Open(Config{Kind: mustKind(t, name), Options: Options{Expression: mustExpression(t, "udp")}})
		if err == nil || !strings.Contains(err.Error(), "IP packets") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestExpressionSent checks that what a process sends is chosen by its addresses and bytes.
func TestExpressionSent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		network, address, listen string
		text                     string // %d is the port
		user, sent               bool
	}{
		{"udp", "127.0.0.1:0", "udp", "dst port %d", true, false},
		{"udp", "[::1]:0", "udp", "ip6 and udp src port %d and ip6[48] = 0x74", false, true},
		{"tcp", "127.0.0.1:0", "tcp4", "src port %d and tcp", false, true},
	} {
		target := startTarget(t, map[string][]string{"udp": {"udp", c.address}, "tcp": {"echo", c.listen, c.address}}[c.network]...)
		port := netip.MustParseAddrPort(target.address).Port()
		l := joinWith(t, JoinConfig{PIDs: []int{target.Process.Pid}, Options: Options{
			Views: []View{ViewUser, ViewSent}, RingSize: 8 << 20, Expression: mustExpression(t, fmt.Sprintf(c.text, port)),
		}})
		sink := runLive(t, l, func() {
			conn := target.dial(t, c.network, target.address)
			for range 5 {
				exchange(t, conn, "to and fro")
			}
			conn.Close()
		})
		for _, view := range []struct {
			view   View
			wanted bool
		}{{ViewUser, c.user}, {ViewSent, c.sent}} {
			got := 0
			for _, p := range sink.view(view.view) {
				if string(p.Data) == "to and fro" {
					got++
				}
			}
			if view.wanted && got != 5 || !view.wanted && len(sink.view(view.view)) > 0 {
				t.Errorf("%s: %d messages in the %v view, %d packets", c.text, got, view.view, len(sink.view(view.view)))
			}
		}
		counts, err := l.Counts()
		if err != nil {
			t.Fatal(err)
		}
		if uint64(len(sink.view(ViewSent))) != counts.Sent || uint64(len(sink.view(ViewUser))) != counts.Delivered {
			t.Errorf("%s: %+v", c.text, counts)
		}
	}
}
