package capture

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// Whatever packets come, and whatever processes do with their connections, a
// read is not longer than what it is paired with is known to be, and nothing panics.
func FuzzStreams(f *testing.F) {
	f.Add([]byte{0, 0, 2, 0, 0, 1, 16, 5, 3, 0, 0, 0, 4, 0, 0, 5}, true)
	f.Add([]byte{0, 0, 2, 9, 0, 9, 1, 9, 4, 9, 9, 9}, false)
	f.Fuzz(func(t *testing.T, script []byte, foreign bool) {
		s := newStreams()
		next := func() (b byte) {
			if len(script) > 0 {
				b, script = script[0], script[1:]
			}
			return b
		}
		for id := uint64(1); len(script) > 0; id++ {
			what, who, n := next(), next(), next()
			from := netip.AddrPortFrom(client.Addr(), uint16(who%4))
			d := delivery{data: make([]byte, n), full: int(n), from: from, to: server, peek: n%3 == 0}
			if foreign {
				d.seq, d.sequenced = uint32(who)<<24|uint32(n), true
			}
			switch what % 6 {
			case 0, 1:
				p := segmentPacket(id, uint32(who)<<24|uint32(n), what>>3, string(make([]byte, n)))
				p.src = from
				p.data[12] = n
				s.saw(p, 0)
			case 2:
				if m := s.delivered(&d); m.id >= id {
					t.Errorf("paired with packet %d, before it came", m.id)
				}
			case 3:
				d.end = true
				s.delivered(&d)
			case 4, 5:
				d.err = unix.ECONNRESET
				s.delivered(&d)
			}
		}
	})
}
