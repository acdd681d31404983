package pair

import (
	"fmt"
	"testing"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// simulation is a kernel of two cpus whose datagrams are all alike, whose ring loses some in
// bursts, and where a cpu tells of what it has lost with its next record only.
type simulation struct {
	q          Datagrams
	lost, told [2]uint64
	wrong, ids int
	missing    int
}

func (s *simulation) untold() bool { return s.lost != s.told }

func (s *simulation) saw(id uint64, cpu int, kept bool) {
	if !kept {
		s.lost[cpu]++
		return
	}
	p := alike(id, cpu)
	lost := s.lost[cpu] - s.told[cpu]
	s.told[cpu] = s.lost[cpu]
	s.q.Saw(p, int(lost))
}

func (s *simulation) delivered(id uint64, cpu int, drops uint64) {
	p := alike(id, cpu)
	m := s.q.Delivered(&Delivery{Data: p.Data[8:], Full: p.Len - 8, Drops: drops, From: p.Src, To: p.Dst, Untold: s.untold()})
	switch m.ID {
	case 0:
		s.missing++
	case id:
		s.ids++
	default:
		s.ids++
		s.wrong++
	}
}

func alike(id uint64, cpu int) *Packet {
	p := udpPacket(id, "alike")
	p.CPU = uint32(cpu)
	return p
}

// Where the ring has lost packets and the bytes are alike there is an id only where it is right, also
// where a cpu tells late that it has lost some; and where all is known again, there are ids again.
func TestAlikeNearLoss(t *testing.T) {
	t.Parallel()
	for _, uncounted := range []bool{false, true} {
		t.Run(fmt.Sprintf("uncounted=%v", uncounted), func(t *testing.T) {
			t.Parallel()
			random := testutil.Random(t)
			type message struct {
				id    uint64
				cpu   int
				drops uint64
			}
			for range 30 {
				s := simulation{q: Datagrams{HeaderLen: 8, CountsFiltered: true, Uncounted: uncounted}}
				var queue []message
				var drops uint64
				full := [2]int{} // how many packets of a cpu the ring has yet to lose
				for id := uint64(1); id <= 20_000; id++ {
					cpu := random.IntN(2)
					if id == 100 || id > 100 && random.IntN(4000) == 0 {
						full[random.IntN(2)] = 1 + random.IntN(600)
					}
					kept := full[cpu] == 0
					if !kept {
						full[cpu]--
					}
					s.saw(id, cpu, kept)
					switch {
					case !uncounted && (len(queue) > 300 || random.IntN(5) == 0):
						drops++
					default:
						queue = append(queue, message{id, cpu, drops})
					}
					for len(queue) > 0 && random.IntN(3) > 0 {
						one := queue[0]
						queue = queue[1:]
						s.delivered(one.id, one.cpu, one.drops)
					}
				}
				if s.wrong > 0 {
					t.Fatalf("%d of %d ids are wrong, %d have none", s.wrong, s.ids, s.missing)
				}
				if lost := s.lost[0] + s.lost[1]; !uncounted && s.ids < 4000 || s.ids < 50 || lost == 0 {
					t.Errorf("%d ids, %d without, %d lost", s.ids, s.missing, lost)
				}
			}
		})
	}
}

// What its bytes tell from all others has its id near a loss as well, and where a process's
// drops are not known, what follows it has its own again.
func TestUniqueEndsTheDoubt(t *testing.T) {
	t.Parallel()
	q := Datagrams{HeaderLen: 8, Uncounted: true}
	q.Saw(udpPacket(1, "alike"), 0)
	q.Delivered(udpDelivery("alike", 0))
	id := uint64(3) // 2 is lost
	for range nearLoss + 1 {
		q.Saw(udpPacket(id, "alike"), int(min(id, 3)-2)*int(3/id))
		if m := q.Delivered(udpDelivery("alike", 0)); m.ID != 0 || m.Missing != Ambiguous {
			t.Fatalf("after the loss: %+v", m)
		}
		id++
	}
	q.Saw(udpPacket(id, "unique"), 0)
	q.Saw(udpPacket(id+1, "alike"), 0)
	if m := q.Delivered(udpDelivery("unique", 0)); m.ID != id {
		t.Errorf("the only one of its kind: %+v", m)
	}
	if m := q.Delivered(udpDelivery("alike", 0)); m.ID != id+1 {
		t.Errorf("after that: %+v", m)
	}
}
