package pair

import (
	"net/netip"
	"strings"
	"testing"
)

// More connections than anybody reads, and connections of the same addresses one after another:
// nothing is kept of those that are forgotten.
func TestFoundForgets(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		peers int
		read  bool // all but the end
	}{
		{"nobody reads", 3 * streamsLimit / 2, false},
		{"nobody reads the end", 3 * streamsLimit / 2, true},
		{"one peer", 1, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			f, payload := NewFound(), strings.Repeat("x", 300)
			for i := range 3 * streamsLimit / 2 {
				who := i % row.peers
				from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(who >> 16), byte(who >> 8)}), uint16(who))
				for n, p := range []*Packet{
					segmentPacket(0, uint32(i), tcpSYN, ""),
					segmentPacket(0, uint32(i+1), tcpACK, payload),
					segmentPacket(0, uint32(i+1+len(payload)), tcpACK|tcpFIN, ""),
				} {
					p.ID, p.Src = uint64(3*i+n+1), from
					f.Saw(p)
				}
				if row.read {
					f.Brought(Delivery{Data: []byte(payload), Full: len(payload)}, true)
				}
				open := len(f.streams.open)
				if open > streamsLimit || f.fronts.entries > frontsRoom*(open+frontsTried) || len(f.ready) > 2*(open+endedRoom) {
					t.Fatalf("after %d connections %d are kept, %d entries are listed, and %d are ready", i, open, f.fronts.entries, len(f.ready))
				}
			}
			next := Delivery{Data: []byte(payload), Full: len(payload)}
			if row.read {
				next = Delivery{}
			}
			if _, _, ok := f.Brought(next, true); !ok {
				t.Error("the newest connections are forgotten")
			}
		})
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
