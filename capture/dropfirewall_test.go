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

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

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
