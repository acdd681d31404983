package capture

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// seen is a datagram as a record has it, of one IP id and one payload.
type seen struct {
	sightings
	id uint64
}

func newSeen(snaplen int) *seen {
	return &seen{sightings: *newSightings(&Options{Views: []View{ViewWire}, Snaplen: snaplen})}
}

func (s *seen) fresh() uint64 { s.id++; return s.id }

// packet is a record from the network header on.
func (s *seen) packet(hook uint8, device uint32, time int64, ipID uint16, checksum byte, payload string) *bpf.Record {
	ip := make([]byte, 28, 28+len(payload))
	ip[0], ip[9], ip[12], ip[16], ip[26] = 0x45, unix.IPPROTO_UDP, 10, 10, checksum
	ip = append(ip, payload...)
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[4:], ipID)
	rec := &bpf.Record{RecordHeader: bpf.RecordHeader{Time: uint64(time), Hook: hook, Ifindex: device, Len: uint32(len(ip)), Caplen: uint32(len(ip))}, Data: ip}
	return rec
}

// none is for a packet that was not seen before.
func none() uint64 { return 0 }

// at is the id that a packet gets: at "egress", "ingress", or an interface.
func (s *seen) at(place string, time int64, ipID uint16, payload string) uint64 {
	switch place {
	case "egress":
		rec := s.packet(bpf.HookEgress, 0, time, ipID, 1, payload)
		id := s.fresh()
		s.leaves(rec, rec.Data, int(rec.Len), LayerNetwork, id)
		return id
	case "ingress":
		rec := s.packet(bpf.HookIngress, 0, time, ipID, 2, payload)
		return s.arrives(rec, rec.Data, int(rec.Len), LayerNetwork, none)
	}
	var device uint32
	hook := uint8(bpf.HookWireIn)
	if place[0] == 'o' {
		hook = bpf.HookWireOut
	}
	fmt.Sscanf(place[len("in "):], "%d", &device)
	return s.passes(s.packet(hook, device, time, ipID, 3, payload), s.fresh)
}

// A packet keeps its id from place to place, whatever becomes of the checksum; of packets that are alike
// the first comes first everywhere; and what was dropped is not taken for a later one.
func TestSightings(t *testing.T) {
	t.Parallel()
	s := newSeen(bpf.MaxSnaplen)
	for i, step := range []struct {
		place   string
		time    int64
		ipID    uint16
		payload string
		want    uint64
	}{
		{"in 2", 1, 1, "a", 1}, {"ingress", 2, 1, "a", 1}, {"ingress", 3, 1, "a", 0},
		{"in 2", 4, 2, "a", 2}, {"in 3", 5, 2, "a", 2}, {"ingress", 6, 2, "a", 2}, // on a port of a bridge, and on the bridge
		{"in 2", 7, 0, "b", 3}, {"in 2", 8, 0, "b", 4}, {"in 3", 9, 0, "b", 3}, {"ingress", 10, 0, "b", 3}, {"in 3", 11, 0, "b", 4}, {"ingress", 12, 0, "b", 4},
		{"egress", 13, 3, "c", 5}, {"on 2", 14, 3, "c", 5}, {"on 3", 15, 3, "c", 5}, {"on 3", 16, 3, "c", 6},
		{"egress", 17, 4, "d", 7}, {"in 1", 18, 4, "d", 7}, {"ingress", 19, 4, "d", 7}, // by lo
		{"in 2", 20, 0, "e", 8}, {"in 2", 21 + sightingAge, 0, "e", 9}, {"ingress", 22 + sightingAge, 0, "e", 9}, // the first was dropped
		{"ingress", 23 + sightingAge, 0, "f", 0},
	} {
		if got := s.at(step.place, step.time, step.ipID, step.payload); got != step.want {
			t.Errorf("step %d, %s of %q: id %d, wanted %d", i, step.place, step.payload, got, step.want)
		}
	}
	for _, places := range []int{stagesKept, stagesKept + 3} {
		var ids []uint64
		for device := range places {
			ids = append(ids, s.at(fmt.Sprintf("in %d", device+2), 30+sightingAge, uint16(places), "g"))
		}
		if first := ids[:stagesKept]; slices.Max(first) != slices.Min(first) || slices.Contains(ids[stagesKept:], ids[0]) {
			t.Errorf("%d places: %v", places, ids)
		}
	}
}

// What is remembered is bounded, and the oldest is forgotten first.
func TestSightingsForget(t *testing.T) {
	t.Parallel()
	s := newSeen(bpf.MaxSnaplen)
	const n = sightingsKept * 2
	for i := range n {
		s.at("in 2", 1, uint16(i), fmt.Sprint(i%3))
	}
	if len(s.alike) > sightingsKept || int(s.last) != n {
		t.Errorf("%d are remembered", len(s.alike))
	}
	for _, row := range []struct {
		i    int
		want uint64
	}{{n - sightingsKept, n - sightingsKept + 1}, {n - sightingsKept - 1, 0}, {n - 1, n}} {
		if got := s.at("ingress", 2, uint16(row.i), fmt.Sprint(row.i%3)); got != row.want {
			t.Errorf("packet %d has the id %d, wanted %d", row.i, got, row.want)
		}
	}
}

// A snaplen cuts frames earlier than what the filter's record has; as far as both go they are compared.
func TestSightingsCut(t *testing.T) {
	t.Parallel()
	for _, snaplen := range []int{96, 200, 1000} {
		s := newSeen(snaplen)
		cut := func(rec *bpf.Record, n int) *bpf.Record {
			rec.Data = rec.Data[:min(n, len(rec.Data))]
			rec.Caplen = uint32(len(rec.Data))
			return rec
		}
		payload := string(pattern(5000))
		id := s.passes(cut(s.packet(bpf.HookWireIn, 2, 1, 7, 0, payload), snaplen-linkHeaderLen), s.fresh)
		rec := cut(s.packet(bpf.HookIngress, 0, 2, 7, 0, payload), snaplen+20)
		if got := s.arrives(rec, rec.Data, int(rec.Len), LayerNetwork, none); got != id {
			t.Errorf("snaplen %d: id %d, wanted %d", snaplen, got, id)
		}
	}
}

func benchmarkSightings(b *testing.B) {
	for _, n := range []int{1, 100, sightingsKept} {
		b.Run(fmt.Sprintf("sightings/alike=%d", n), func(b *testing.B) {
			s := newSeen(bpf.MaxSnaplen)
			frame, arrival := s.packet(bpf.HookWireIn, 2, 1, 0, 0, "the same"), s.packet(bpf.HookIngress, 0, 1, 0, 0, "the same")
			for range n {
				s.passes(frame, s.fresh)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				s.passes(frame, s.fresh)
				s.arrives(arrival, arrival.Data, int(arrival.Len), LayerNetwork, none)
			}
		})
	}
}
