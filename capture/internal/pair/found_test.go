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

// Whatever is written down, what is found was seen before, and nothing panics.
func FuzzFound(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 1, 0, 4, 2, 0, 1, 5, 9})
	f.Fuzz(func(t *testing.T, script []byte) {
		found, datagrams := NewFound(), NewWritten(8)
		for id := uint64(1); len(script) > 2; id++ {
			what, who, n := script[0], script[1], script[2]
			script = script[3:]
			payload := string(make([]byte, n%20)) + string(rune(who%3))
			p := segmentPacket(id, uint32(n), what>>4, payload)
			p.Src = netip.AddrPortFrom(client.Addr(), uint16(who%4))
			d := Delivery{Data: []byte(payload), Full: len(payload) + int(what&1)}
			switch what % 4 {
			case 0, 1:
				found.Saw(p)
				datagrams.Saw(p)
			default:
				final := what%4 == 3
				if m, last, ok := found.Brought(d, final); ok && (m.ID >= id || last >= id) {
					t.Errorf("brought by %d to %d, before packet %d", m.ID, last, id)
				}
				if m, _, ok := datagrams.Brought(d, final); ok && m.ID >= id {
					t.Errorf("brought by %d, before packet %d", m.ID, id)
				}
			}
		}
	})
}
