package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
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

// Each kind of socket is found by what it is bound to and by what it sends, with all its bytes.
func TestWireSeesWhatPacketSocketsSee(t *testing.T) {
	barrier := testutil.NewBarrier(t) // in another namespace: the wire does not see it
	pingForAll(t)
	tap := mustOpen(t, Options{RingSize: 4 << 20, Snaplen: MaxSnaplen})
	hook, f := mustHook(t, tap, HookOptions{MarkNew: true}), mustFlows(t)
	if err := f.Follow(hook, nil); err != nil {
		t.Fatal(err)
	}
	w := mustWire(t, tap, f)
	if err := hook.Follow(uint32(os.Getpid()), nil); err != nil {
		t.Fatal(err)
	}
	var before uint64
	for _, c := range hookCases() {
		ref := openReference(t)
		_, sent := c.open(t)
		barrier.Do(t, sent)
		// All that there is in this namespace, but for what the kernel sends of its own.
		want := ref.frames(t, func(s sighting) bool { return !isNeighbour(s.bytes) })
		got := records(t, tap)
		if len(got) != len(want) || len(want) == 0 {
			t.Errorf("%s: %d frames recorded, %d were there", c.name, len(got), len(want))
			continue
		}
		for i := range got {
			r, s := &got[i], &want[i]
			if !bytes.Equal(r.Data, s.bytes) || int(r.Ifindex) != s.device || int(r.Len) != len(s.bytes) || r.Filter != uint64(w.places[0].network) {
				t.Errorf("%s: frame %d of device %d:\n%.60x, and the socket saw of device %d\n%.60x", c.name, i, r.Ifindex, r.Data, s.device, s.bytes)
			}
		}
		counts, err := w.Counters()
		if err != nil || counts.Seen != before+uint64(len(want)) || counts.Seen != counts.Recorded {
			t.Errorf("%s: %+v %v", c.name, counts, err)
		}
		before = counts.Seen
	}
}

// isNeighbour tells whether a frame is the kernel's own: of IPv6's multicast and neighbour discovery.
func isNeighbour(frame []byte) bool {
	return len(frame) > 54 && frame[12] == 0x86 && (frame[20] == 0 || frame[20] == unix.IPPROTO_ICMPV6 && frame[54] >= 130)
}
