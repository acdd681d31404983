package capture

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// The net view of a packet socket has the IP packets of both versions, each behind the header that the
// interface in the file is made for, as another packet socket gets them; and nothing else.
func TestNetOfPacketSockets(t *testing.T) {
	t.Parallel()
	ip4, ip6 := taggedFrame("")[14:], append([]byte{0x60, 0, 0, 0, 0, 19, 17, 64, 39: 1}, taggedFrame("")[34:]...)
	ip6[23] = 1
	extended := append(append(bytes.Clone(ip6[:40]), append([]byte{17, 4, 1, 36}, make([]byte, 36)...)...), ip6[40:]...)
	extended[5], extended[6] = 19+40, 0 // a hop-by-hop header of more than 24 bytes
	frame := func(kind string, packet []byte) []byte {
		return append(append(make([]byte, 12), kind...), packet...)
	}
	frames := [][]byte{
		frame("\x08\x00", ip4), frame("\x86\xdd", ip6), frame("\x86\xdd", extended), frame("\x81\x00\x00\x64\x86\xdd", ip6),
		frame("\x08\x06", make([]byte, 28)), frame("\x00\x26", append([]byte("BB\x03"), make([]byte, 35)...)), // ARP and STP
	}
	for _, kind := range []string{"packet", "packet-dgram"} {
		ns := mustNamespace(t)
		wire := tapWire(t, ns)
		traffic := func(s *Session) {
			sendFrames(t, ns, "lo", 0, frames...)
			if err := s.settle(t.Context(), Counts{}); err != nil {
				t.Error(err)
			}
		}
		views := Options{Views: []View{ViewKernel, ViewNet}, RingSize: smallRing}
		var sink *memory
		var s *Session
		if kind == "packet" {
			sink, s = run(t, Config{Kind: mustKind(t, kind), Namespace: ns, Options: views}, traffic)
		} else {
			// Ours takes IPv4 alone; its owner has bound this one to everything.
			var file *os.File
			err := ns.Do(func() error {
				fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(networkOrder(unix.ETH_P_ALL)))
				file = os.NewFile(uintptr(fd), kind)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			if s, err = Attach(file, views); err != nil {
				t.Fatal(err)
			}
			sink = collect(t, s, func() { traffic(s) })
		}
		in, out := wire.packets(t, func(_ bool, ip []byte) bool { return bytes.HasSuffix(ip, []byte(ProbePayload)) })
		var received [][]byte
		sent := 0
		for _, p := range sink.view(ViewNet) {
			if (p.Data[0]>>4 == 6) != p.Interface.IPv6 || p.Interface.Layer != LayerNetwork {
				t.Errorf("%s: %x in %+v", kind, p.Data, p.Interface)
			}
			if p.Direction == Outbound {
				sent++
				continue
			}
			received = append(received, p.Data)
		}
		if len(in) != 4 || len(received) != len(in) {
			t.Fatalf("%s: %d packets, another packet socket got %d and %d", kind, len(received), len(in), len(out))
		}
		for n := range in {
			if !bytes.Equal(in[n], received[n]) {
				t.Errorf("%s: packet %d is %x, and %x for another packet socket", kind, n, received[n], in[n])
			}
		}
		for _, p := range sink.view(ViewKernel) {
			if p.Src.IsValid() && p.Interface.Layer == LayerNetwork && p.Src.Addr().Is4() == p.Interface.IPv6 {
				t.Errorf("%s: %x in %+v", kind, p.Data, p.Interface)
			}
		}
		c, err := s.Counts()
		if err != nil || c.NotIP < 4 || uint64(len(received)+sent)+c.NotIP+c.Unreached != c.Captured {
			t.Errorf("%s: %d received and %d sent in the net view, %+v, %v", kind, len(received), sent, c, err)
		}
		all, err := s.Statistics()
		for _, st := range all {
			if st.Interface.View == ViewNet && st.Received != st.Delivered+st.Dropped || err != nil {
				t.Errorf("%s: %+v, %v", kind, st, err)
			}
		}
	}
}
