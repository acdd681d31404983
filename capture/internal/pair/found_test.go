package pair

import (
	"net/netip"
	"testing"
)

// More connections than anybody reads.
func TestFoundForgets(t *testing.T) {
	t.Parallel()
	f := NewFound()
	for i := range 3 * streamsLimit / 2 {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 16), byte(i >> 8)}), uint16(i))
		for n, flags := range []byte{tcpACK, tcpACK | tcpFIN} {
			p := segmentPacket(uint64(2*i+n+1), uint32(n+1), flags, "x"[n:])
			p.Src = from
			f.Saw(p)
		}
	}
	if open := len(f.streams.open); open > streamsLimit || len(f.fronts.versions) > 3*streamsLimit/2-1 {
		t.Errorf("%d connections are kept, and %d listed", open, len(f.fronts.versions))
	}
	if _, _, ok := f.Brought(Delivery{Data: []byte("x"), Full: 1}, false); !ok {
		t.Error("the newest connections are forgotten")
	}
}
