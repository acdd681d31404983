package pair

import (
	"net/netip"
	"testing"
)

// Whatever packets come, and whatever processes do with their connections, a
// read is not longer than what it is paired with is known to be, and nothing panics.
func FuzzStreams(f *testing.F) {
	f.Add([]byte{0, 0, 2, 0, 0, 1, 16, 5, 3, 0, 0, 0, 4, 0, 0, 5}, true)
	f.Add([]byte{0, 0, 2, 9, 0, 9, 1, 9, 4, 9, 9, 9}, false)
	f.Fuzz(func(t *testing.T, script []byte, foreign bool) {
		s := NewStreams()
		next := func() (b byte) {
			if len(script) > 0 {
				b, script = script[0], script[1:]
			}
			return b
		}
		for id := uint64(1); len(script) > 0; id++ {
			what, who, n := next(), next(), next()
			from := netip.AddrPortFrom(client.Addr(), uint16(who%4))
			d := Delivery{Data: make([]byte, n), Full: int(n), From: from, To: server, Peek: n%3 == 0}
			if foreign {
				d.Seq, d.Sequenced = uint32(who)<<24|uint32(n), true
			}
			switch what % 6 {
			case 0, 1:
				p := segmentPacket(id, uint32(who)<<24|uint32(n), what>>3, string(make([]byte, n)))
				p.Src = from
				p.Data[12] = n
				s.Saw(p, 0)
			case 2:
				if m := s.Delivered(&d); m.ID >= id {
					t.Errorf("paired with packet %d, before it came", m.ID)
				}
			case 3:
				d.Over = true
				s.Delivered(&d)
			case 4, 5:
				d.Over = true
				s.Delivered(&d)
			}
		}
	})
}
