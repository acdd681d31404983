package pair

import (
	"net/netip"
	"testing"
)

// More connections than anybody reads.
func TestFoundForgets(t *testing.T) {
	t.Parallel()
	f := NewFound()
	for i := range 3 * connectionsLimit {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 16), byte(i >> 8)}), uint16(i))
		for n, flags := range []byte{tcpACK, tcpACK | tcpFIN} {
			p := segmentPacket(uint64(2*i+n+1), uint32(n+1), flags, "x"[n:])
			p.Src = from
			f.Saw(p)
		}
	}
	if unread, ended := len(f.unread), len(f.ended); unread > connectionsLimit || ended > connectionsLimit {
		t.Errorf("%d and %d connections are kept", unread, ended)
	}
	if _, _, ok := f.Brought(Delivery{Data: []byte("x"), Full: 1}, false); !ok {
		t.Error("the newest connections are forgotten")
	}
}
