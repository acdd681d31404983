package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// reference is a packet socket of the test's own.
type reference struct{ fd int }

func openReference(tb testing.TB) *reference {
	tb.Helper()
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(all))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20); err != nil {
		tb.Fatal(err)
	}
	return &reference{fd}
}

// sighting is a frame as a packet socket gets it.
type sighting struct {
	device int
	out    bool
	bytes  []byte
}

// frames returns what has come by now and is wanted; of lo, what arrives.
func (r *reference) frames(tb testing.TB, wanted func(sighting) bool) (all []sighting) {
	tb.Helper()
	buf := make([]byte, 1<<17)
	for {
		n, from, err := unix.Recvfrom(r.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			return all
		}
		if err != nil {
			tb.Fatal(err)
		}
		at := from.(*unix.SockaddrLinklayer)
		s := sighting{at.Ifindex, at.Pkttype == unix.PACKET_OUTGOING, bytes.Clone(buf[:n])}
		if !(s.out && s.device == 1) && wanted(s) {
			all = append(all, s)
		}
	}
}

func mustNetwork(tb testing.TB) uint32 {
	tb.Helper()
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		tb.Fatal(err)
	}
	return uint32(st.Ino)
}

func mustFlows(tb testing.TB) *Flows {
	tb.Helper()
	f, err := NewFlows()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := f.Close(); err != nil {
			tb.Error(err)
		}
	})
	return f
}

func mustWire(tb testing.TB, tap *Tap, f *Flows) *Wire {
	tb.Helper()
	w, err := OpenWire(tap, f, WireOptions{})
	if err == nil {
		err = w.Watch(mustNetwork(tb))
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := w.Close(); err != nil {
			tb.Error(err)
		}
	})
	return w
}

// checkWire holds the records of a Wire against what a packet socket saw.
func checkWire(t *testing.T, w *Wire, got []Record, want []sighting) {
	t.Helper()
	if len(got) != len(want) || len(want) == 0 {
		t.Errorf("%d frames recorded, %d were there", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		r, s := &got[i], &want[i]
		if !bytes.Equal(r.Data, s.bytes) || int(r.Ifindex) != s.device || int(r.Len) != len(s.bytes) {
			t.Errorf("frame %d of device %d:\n%.60x, and the socket saw of device %d\n%.60x", i, r.Ifindex, r.Data, s.device, s.bytes)
		}
		if s.device != 1 && (r.Hook == HookWireOut) != s.out || r.Filter != uint64(w.places[0].network) {
			t.Errorf("frame %d: hook %d, network %d, outgoing %v", i, r.Hook, r.Filter, s.out)
		}
	}
	counts, err := w.Counters()
	if err != nil || counts.Seen != uint64(len(want)) || counts.Seen != counts.Recorded {
		t.Errorf("%+v %v", counts, err)
	}
}

// Each kind of socket is found by what it is bound to and by what it sends, and what others send is not
// taken for its.
func TestWireSeesWhatPacketSocketsSee(t *testing.T) {
	requirePrivilege(t)
	for _, c := range hookCases() {
		t.Run(c.name, func(t *testing.T) {
			pingForAll(t)
			tap := mustOpen(t, Options{RingSize: 4 << 20, Snaplen: MaxSnaplen})
			hook, f := mustHook(t, tap, HookOptions{MarkNew: true}), mustFlows(t)
			if err := f.Follow(hook, nil); err != nil {
				t.Fatal(err)
			}
			w := mustWire(t, tap, f)
			if err := hook.Follow(uint32(unix.Getpid()), nil); err != nil {
				t.Fatal(err)
			}
			_, sent := c.open(t)
			ref := openReference(t)
			sent()
			// All that there is in this namespace, but for what sockets of the kernel send.
			want := ref.frames(t, func(s sighting) bool { return !isNeighbour(s.bytes) })
			checkWire(t, w, records(t, tap), want)
			if err := hook.Stop(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// isNeighbour tells whether a frame is the kernel's own: of IPv6's multicast and neighbour discovery.
func isNeighbour(frame []byte) bool {
	return len(frame) > 54 && frame[12] == 0x86 && (frame[20] == 0 || frame[20] == unix.IPPROTO_ICMPV6 && frame[54] >= 130)
}
