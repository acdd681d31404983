package capture

import (
	"bytes"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/capability"
)

// openable skips kinds that this kernel lacks.
func openable(tb testing.TB, kind *Kind) {
	tb.Helper()
	fd, err := unix.Socket(kind.domain, kind.typ|unix.SOCK_CLOEXEC, kind.protocol)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EPROTONOSUPPORT) {
		tb.Skip(err)
	}
	if err == nil {
		unix.Close(fd)
	}
}

// What the probe shows in the kinds beyond raw, TCP and UDP sockets.
func TestProbeOfOtherKinds(t *testing.T) {
	t.Parallel()
	const reply, reply6 = "\x00\x00", "\x81\x00"
	for _, test := range []struct {
		kind    string
		packets []string // what each begins with, from offset 0 on
		user    []string // "=" is the packet's bytes
		lower   int      // packets of the net view; the link view has as many
		ip      bool
	}{
		{kind: "udplite", packets: []string{""}, user: []string{ProbePayload}, lower: 1, ip: true},
		{kind: "udplite6", packets: []string{""}, user: []string{ProbePayload}, lower: 1, ip: true},
		{kind: "icmp", packets: []string{reply}, user: []string{"="}, lower: 1, ip: true},
		{kind: "icmp6", packets: []string{reply6}, user: []string{"="}, lower: 1, ip: true},
		{kind: "packet", packets: []string{strings.Repeat("\x00", 12) + "\x08\x00\x45", strings.Repeat("\x00", 12) + "\x08\x00\x45"}, user: []string{"=", "="}, lower: 2, ip: true},
		{kind: "packet-dgram", packets: []string{"\x45"}, user: []string{"="}, lower: 1, ip: true},
		{kind: "unix-dgram", packets: []string{ProbePayload}, user: []string{"="}},
		{kind: "unix-seqpacket", packets: []string{ProbePayload}, user: []string{"=", ""}},
		{kind: "unix-stream", user: []string{ProbePayload, ""}},
		{kind: "netlink", packets: []string{""}, user: []string{"="}},
	} {
		t.Run(test.kind, func(t *testing.T) {
			t.Parallel()
			kind := mustKind(t, test.kind)
			openable(t, kind)
			sink, _ := run(t, Config{Kind: kind, Options: Options{Views: allViews}}, probed(t))
			kernel, user := sink.view(ViewKernel), sink.view(ViewUser)
			if len(kernel) != len(test.packets) || len(user) != len(test.user) {
				t.Fatalf("%d packets in the kernel view and %d in the user view, want %d and %d",
					len(kernel), len(user), len(test.packets), len(test.user))
			}
			for i, p := range kernel {
				if !bytes.HasPrefix(p.Data, []byte(test.packets[i])) || !bytes.HasSuffix(p.Data, []byte(ProbePayload)) {
					t.Errorf("packet %x", p.Data)
				}
				if p.Dst.IsValid() != test.ip {
					t.Errorf("packet from %v to %v", p.Src, p.Dst)
				}
			}
			for i, p := range user {
				want := test.user[i]
				if want == "=" {
					want = string(kernel[i].Data)
				}
				if string(p.Data) != want {
					t.Errorf("delivery %q, want %q", p.Data, want)
				}
				if len(kernel) > 0 && len(p.Data) > 0 && (p.ID != kernel[i].ID || p.Direction != kernel[i].Direction) {
					t.Errorf("delivery of packet %d, direction %d, %+v", p.ID, p.Direction, p.Receipt)
				}
			}
			net, link := sink.view(ViewNet), sink.view(ViewLink)
			if len(net) != test.lower || len(link) != test.lower {
				t.Errorf("%d packets in the net view, %d in the link view", len(net), len(link))
			}
			for i := range net {
				if !bytes.Equal(link[i].Data[14:], net[i].Data) || net[i].Data[0]>>4 != 4 && net[i].Data[0]>>4 != 6 {
					t.Errorf("net view %x, link view %x", net[i].Data, link[i].Data)
				}
			}
		})
	}
}

// A packet socket on lo gets both directions of the same datagram.
func TestPacketDirections(t *testing.T) {
	t.Parallel()
	sink, _ := run(t, Config{Kind: mustKind(t, "packet")}, probed(t))
	for _, view := range []View{ViewKernel, ViewUser} {
		p := sink.view(view)
		if len(p) != 2 || p[0].Direction != Outbound || p[1].Direction != Inbound {
			t.Errorf("%s: %+v", view, p)
		}
	}
	if p := sink.view(ViewKernel)[0]; p.Protocol != unix.IPPROTO_UDP || p.Dst != netip.MustParseAddrPort("127.0.0.1:16962") {
		t.Errorf("%+v", p)
	}
}

// A kind that does not do what one would think says so when it is opened.
func TestNote(t *testing.T) {
	t.Parallel()
	var notices []string
	config := Config{Kind: mustKind(t, "unix-stream"), Options: Options{Notice: func(s string) { notices = append(notices, s) }}}
	run(t, config, probed(t))
	if len(notices) != 1 || !strings.Contains(notices[0], "never runs it") {
		t.Errorf("notices %q", notices)
	}
}

// A socket file comes with the session and goes with it.
func TestUnixPath(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "socket")
	config := Config{Kind: mustKind(t, "unix-dgram"), Address: path}
	sink, s := run(t, config, func(s *Session) {
		probed(t)(s)
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
		if s.Address() != path {
			t.Errorf("bound to %s", s.Address())
		}
		_, err := Open(config)
		if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), path+" is in use") {
			t.Errorf("the same path again: %v", err)
		}
	})
	if len(sink.view(ViewKernel)) != 1 {
		t.Error("the probe did not come")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}
}

// Without its own filter an accepted seqpacket socket is unseen: a listener's is not inherited.
func TestListenerOnly(t *testing.T) {
	t.Parallel()
	for kind, packets := range map[string]int{"unix-seqpacket": 0, "tcp": 5} {
		sink, _ := run(t, Config{Kind: mustKind(t, kind), ListenerOnly: true}, probed(t))
		if got := len(sink.view(ViewKernel)); got != packets {
			t.Errorf("%s: the filter saw %d packets, want %d", kind, got, packets)
		}
		if p := sink.view(ViewUser)[0]; string(p.Data) != ProbePayload {
			t.Errorf("%s: userspace got %q", kind, p.Data)
		}
	}
}

// A verdict is applied and recorded, and pairing knows what it leaves.
func TestVerdict(t *testing.T) {
	t.Parallel()
	var decided []int32
	sink, _ := run(t, Config{
		Kind: mustKind(t, "udp"), Options: Options{Verdict: bpf.Keep(12)},
		Observe: func(r *bpf.Record) { decided = append(decided, r.Verdict) },
	}, probed(t))
	user := sink.view(ViewUser)
	if len(decided) != 1 || decided[0] != 12 || len(user) != 1 || string(user[0].Data) != ProbePayload[:4] || user[0].ID != 1 {
		t.Errorf("decided %v, userspace got %+v", decided, user)
	}
}

func TestSetMTU(t *testing.T) {
	t.Parallel()
	ns := mustNamespace(t)
	if err := ns.SetMTU(1500); err != nil {
		t.Fatal(err)
	}
	sink, _ := run(t, Config{Kind: mustKind(t, "packet-dgram"), Namespace: ns}, func(s *Session) {
		if err := s.ProbeWith(t.Context(), make([]byte, 4000)); err != nil {
			t.Error(err)
		}
	})
	if got := sink.view(ViewKernel); len(got) != 3 || got[0].Len != 1500 {
		t.Errorf("%d packets", len(got))
	}
	if err := ns.SetMTU(-1); err == nil {
		t.Error("a negative MTU is taken")
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for kind, address := range map[string]string{"packet": "nowhere0", "netlink": "all", "vsock": "tcp"} {
		if _, err := Open(Config{Kind: mustKind(t, kind), Address: address}); err == nil || !strings.Contains(err.Error(), address) {
			if capability.Held(unix.CAP_BPF) {
				t.Errorf("%s on %s: %v", kind, address, err)
			}
		}
	}
}
