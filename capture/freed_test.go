package capture

import (
	"encoding/binary"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// seenPacket is a record of a UDP datagram with these bytes, and the whole of it.
func seenPacket(payload []byte, hook uint8) (rec *bpf.Record, whole []byte) {
	whole = make([]byte, 28, 28+len(payload))
	whole[0], whole[9] = 0x45, unix.IPPROTO_UDP
	whole = append(whole, payload...)
	binary.BigEndian.PutUint16(whole[2:], uint16(len(whole)))
	rec = &bpf.Record{Data: whole[20:]}
	rec.Hook, rec.Len = hook, uint32(len(whole)-20)
	return rec, whole
}

// benchmarkFreed is what a packet costs that arrives and is freed, among others that were not: all
// different, or all alike.
func benchmarkFreed(b *testing.B) {
	for _, name := range []string{"freed", "freed and alike"} {
		alike := name != "freed"
		for _, n := range []int{1, 100, 10_000} {
			b.Run(fmt.Sprintf("%s/waiting=%d", name, n), func(b *testing.B) {
				s := newSightings(&Options{Views: []View{ViewDrop}, Snaplen: bpf.MaxSnaplen})
				ids := uint64(0)
				fresh := func() uint64 { ids++; return ids }
				payload := make([]byte, 64)
				arrive := func(i int) (*bpf.Record, []byte) {
					if !alike {
						binary.BigEndian.PutUint64(payload, uint64(i))
					}
					rec, whole := seenPacket(payload, bpf.HookIngress)
					s.arrives(rec, whole, len(whole), LayerTransport, fresh)
					return rec, whole
				}
				for i := range n {
					arrive(i)
				}
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					rec, whole := arrive(n + i)
					if id, _ := s.freed(rec, whole, len(whole), LayerTransport); id != ids {
						b.Fatal("the packet was not found")
					}
				}
			})
		}
	}
}

// TestFreedAmongAlike holds that of packets that are alike the last one is the one that was freed,
// and that each is once.
func TestFreedAmongAlike(t *testing.T) {
	t.Parallel()
	s := newSightings(&Options{Views: []View{ViewDrop}, Snaplen: bpf.MaxSnaplen})
	ids := uint64(0)
	fresh := func() uint64 { ids++; return ids }
	arrive := func(text string) {
		rec, whole := seenPacket([]byte(text), bpf.HookIngress)
		s.arrives(rec, whole, len(whole), LayerTransport, fresh)
	}
	freed := func(text string) uint64 {
		rec, whole := seenPacket([]byte(text), bpf.HookDrop)
		binary.BigEndian.PutUint16(rec.Data[6:], 0x4242) // the checksum, which may have been completed
		id, reached := s.freed(rec, whole, len(whole), LayerTransport)
		if reached != (id != 0) {
			t.Errorf("packet %d reached a filter: %v", id, reached)
		}
		return id
	}
	arrive("a")
	arrive("a")
	arrive("b")
	if id := freed("a"); id != 2 {
		t.Errorf("freed was %d", id)
	}
	arrive("a")
	for _, want := range []uint64{4, 1, 0} {
		if id := freed("a"); id != want {
			t.Errorf("freed was %d, not %d", id, want)
		}
	}
	if id := freed("c"); id != 0 {
		t.Errorf("freed was %d", id)
	}
	for range sightingsKept {
		arrive("d")
	}
	if id := freed("b"); id != 0 {
		t.Errorf("a packet that is forgotten was freed: %d", id)
	}
	for want := ids; want > ids-10; want-- {
		if id := freed("d"); id != want {
			t.Errorf("freed was %d, not %d", id, want)
		}
	}
}

// TestRefusedIsCertain holds what takes a packet that was freed for the last one that arrived: the cpu, the socket,
// the headers, and that none was lost in between.
func TestRefusedIsCertain(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(rec *bpf.Record, whole []byte){
		"":                    func(*bpf.Record, []byte) {},
		"another cpu":         func(rec *bpf.Record, _ []byte) { rec.Cpu = 1 },
		"another socket":      func(rec *bpf.Record, _ []byte) { rec.Cookie++ },
		"one was lost":        func(rec *bpf.Record, _ []byte) { rec.Link[0]++ },
		"another length":      func(_ *bpf.Record, whole []byte) { whole[3]++ },
		"another IP id":       func(_ *bpf.Record, whole []byte) { whole[5]++ },
		"another sender":      func(_ *bpf.Record, whole []byte) { whole[15]++ },
		"another port":        func(_ *bpf.Record, whole []byte) { whole[21]++ },
		"too little recorded": func(rec *bpf.Record, _ []byte) { rec.Data = rec.Data[:4] },
	} {
		s := newSightings(&Options{Views: []View{ViewDrop}, Snaplen: bpf.MaxSnaplen})
		rec, whole := seenPacket([]byte("the same"), bpf.HookIngress)
		rec.Cookie = 5
		s.arrives(rec, whole, len(whole), LayerTransport, func() uint64 { return 7 })
		rec, whole = seenPacket([]byte("the same"), bpf.HookDrop)
		rec.Cookie = 5
		change(rec, whole)
		whole = whole[:20+len(rec.Data)]
		want := uint64(0)
		if name == "" {
			want = 7
		}
		for range 2 { // the second time it has been freed
			if got := s.refused(rec, whole, LayerTransport); got != want {
				t.Errorf("%s: id %d, not %d", name, got, want)
			}
			want = 0
		}
		if id, _ := s.freed(rec, whole, len(whole), LayerTransport); id != 0 && name == "" {
			t.Errorf("it is freed twice: %d", id)
		}
	}
}
