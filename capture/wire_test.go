package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// frameTap sees what passes the interfaces of a namespace, with its link header; of lo, what arrives.
type frameTap struct{ fd int }

// frame is what it sees.
type frame struct {
	device int
	out    bool
	bytes  []byte
}

func tapFrames(t testing.TB, ns *Namespace) *frameTap {
	t.Helper()
	return &frameTap{packetTap(t, ns, unix.SOCK_RAW)}
}

// frames returns what has come and is of a packet that is accepted.
func (w *frameTap) frames(t testing.TB, accept func(ip []byte) bool) (all []frame) {
	t.Helper()
	buf := make([]byte, 1<<17)
	for {
		n, from, err := unix.Recvfrom(w.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		at := from.(*unix.SockaddrLinklayer)
		f := frame{at.Ifindex, at.Pkttype == unix.PACKET_OUTGOING, bytes.Clone(buf[:n])}
		if !(f.out && f.device == 1) && n > linkHeaderLen && accept(f.bytes[linkHeaderLen:]) {
			all = append(all, f)
		}
	}
}

// atPort accepts what comes to a port, goes out from it, or is about either.
func atPort(port uint16) func([]byte) bool {
	return func(ip []byte) bool {
		at := transport(ip)
		return binary.BigEndian.Uint16(at) == port || binary.BigEndian.Uint16(at[2:]) == port
	}
}

// checkFrames holds that the wire view is what was on the interfaces, and that ids join it with the
// views of the socket's end. Two processors may have frames at the same time, so the order does not count.
func checkFrames(t *testing.T, sink *memory, want []frame) {
	t.Helper()
	got := sink.view(ViewWire)
	slices.SortFunc(got, func(a, b Packet) int { return bytes.Compare(a.Data, b.Data) })
	slices.SortFunc(want, func(a, b frame) int { return bytes.Compare(a.bytes, b.bytes) })
	if len(got) != len(want) || len(want) == 0 {
		t.Errorf("%d frames in the wire view, %d on the wire", len(got), len(want))
	}
	byID := make(map[uint64]Packet)
	for i, p := range got {
		if other, known := byID[p.ID]; known || p.ID == 0 {
			t.Errorf("id %d is of %v and %v", p.ID, p, other)
		}
		byID[p.ID] = p
		if i < len(want) && !bytes.Equal(p.Data, want[i].bytes) {
			t.Errorf("frame %d is\n%.80x, on the wire\n%.80x", i, p.Data, want[i].bytes)
		}
		if p.Len != len(p.Data) || p.Interface.Layer != LayerLink || p.Interface.Device != "lo" {
			t.Errorf("frame %d: %d bytes of %d, of %+v", i, len(p.Data), p.Len, p.Interface)
		}
	}
	for _, view := range []View{ViewKernel, ViewCgroup} {
		for _, p := range sink.view(view) {
			framed, ok := byID[p.ID]
			itself := p.Src == p.Dst // it arrives where it was sent
			if !ok || framed.Direction != p.Direction && !itself || !bytes.HasSuffix(framed.Data, p.Data) || framed.Src != p.Src || framed.Dst != p.Dst {
				t.Errorf("packet %d of the view %v is another one on the wire: %v %v, %v", p.ID, view, p.Src, p.Dst, framed)
			}
		}
	}
}

// checkFrameLedger holds that the account of the wire view balances.
func checkFrameLedger(t *testing.T, c Capture, sink *memory) {
	t.Helper()
	counts, err := c.Counts()
	if err != nil {
		t.Fatal(err)
	}
	view, sent := sink.view(ViewWire), uint64(0)
	for _, p := range view {
		if p.Direction == Outbound {
			sent++
		}
	}
	w := counts.Wire
	if w.Seen != w.Recorded+w.Lost() || w.Seen != uint64(len(view)) || counts.Framed != w.Seen || counts.FramedSent != sent {
		t.Errorf("%d frames, %d sent: %+v", len(view), sent, counts)
	}
	checkDelivered(t, c, ViewWire, len(view))
}

func TestWireOwn(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"tcp", "udp6", "raw", "icmp6"} {
		for _, views := range [][]View{{ViewWire, ViewKernel, ViewUser}, {ViewWire, ViewCgroup, ViewKernel, ViewUser}} {
			if len(views) > 3 && name != "tcp" && name != "udp6" {
				continue // it costs another hook
			}
			t.Run(fmt.Sprint(name, " ", len(views)), func(t *testing.T) {
				t.Parallel()
				kind := mustKind(t, name)
				config := Config{Kind: kind, Echo: kind.CanEcho(), Options: Options{Views: views, RingSize: 16 << 20}, Namespace: mustNamespace(t)}
				tap := tapFrames(t, config.Namespace)
				accept := atPort(ProbePort)
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
				if kind.anyProtocol || strings.HasPrefix(name, "icmp") {
					accept = func(ip []byte) bool { return sameProtocol(ip, s.own.home.protocol) }
				}
				checkFrames(t, sink, tap.frames(t, accept))
				checkFrameLedger(t, s, sink)
				checkLedger(t, s)
			})
		}
	}
}

// sameProtocol accepts packets of a protocol, of ICMP only pings.
func sameProtocol(ip []byte, protocol uint8) bool {
	if ip[0]>>4 == 4 {
		return ip[9] == protocol
	}
	return ip[6] == protocol && (protocol != unix.IPPROTO_ICMPV6 || ip[40] == 128 || ip[40] == 129)
}

func TestWireJoined(t *testing.T) {
	t.Parallel()
	message := func(domain, typ, protocol int) []string {
		return []string{"messages", fmt.Sprint(domain), fmt.Sprint(typ), fmt.Sprint(protocol)}
	}
	for name, test := range map[string]struct {
		target  []string
		network string // of a client; none for targets that talk to themselves
		to      string
		accept  func([]byte) bool
	}{
		"tcp6 from IPv4": {[]string{"echo", "tcp", "[::]:0"}, "tcp", "127.0.0.1", nil},
		"mptcp":          {[]string{"mptcp", "before"}, "tcp", "127.0.0.1", nil},
		"udp":            {[]string{"udp", "127.0.0.1:0"}, "udp", "127.0.0.1", nil},
		"icmp":           {message(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP), "", "", func(ip []byte) bool { return sameProtocol(ip, unix.IPPROTO_ICMP) }},
		"raw6":           {message(unix.AF_INET6, unix.SOCK_RAW, 253), "", "", func(ip []byte) bool { return sameProtocol(ip, 253) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := startTarget(t, test.target...)
			l := joinWith(t, JoinConfig{PIDs: []int{target.Process.Pid}, Options: Options{Views: []View{ViewKernel, ViewUser, ViewCgroup, ViewWire}, RingSize: 8 << 20}})
			tap, accept := tapFrames(t, target.ns), test.accept
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
				accept = atPort(address.Port())
				for range 3 {
					talk(t, target.dial(t, test.network, address.String()))
				}
			})
			checkFrames(t, sink, tap.frames(t, accept))
			checkFrameLedger(t, l, sink)
			checkLiveLedger(t, l)
		})
	}
}

// The owner of a socket, which is in another network namespace, goes on using it.
func TestWireAttached(t *testing.T) {
	t.Parallel()
	ns := mustNamespace(t)
	conn := mustListenUDP(t, ns, "udp4", "127.0.0.1:0")
	s := mustAttach(t, conn, ViewKernel, ViewWire)
	tap := tapFrames(t, ns)
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
	checkFrames(t, sink, tap.frames(t, atPort(uint16(conn.LocalAddr().(*net.UDPAddr).Port))))
	checkFrameLedger(t, s, sink)
}
