package pair

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
)

// A round is what is done over and over while much else waits: its cost is to be the
// same whatever waits.
type round struct {
	name string
	// prepare makes a backlog of n, and returns what one round does.
	prepare func(n int) func(i int) error
}

func payload(i int) string {
	return fmt.Sprintf("%064d", i)
}

func wants(m Match, id uint64) error {
	if m.ID != id {
		return fmt.Errorf("paired with packet %d, want %d: %+v", m.ID, id, m)
	}
	return nil
}

// rounds are the operations that a packet or a delivery goes through.
var rounds = []round{
	{"lost", func(n int) func(int) error {
		// The ring has lost n packets, and then every other one.
		q := Datagrams{HeaderLen: 8}
		q.Saw(udpPacket(1, "first"), 0)
		q.Saw(udpPacket(2, "second"), n)
		return func(i int) error {
			id := uint64(3 + i)
			q.Saw(udpPacket(id, payload(i)), 1)
			if m := q.Delivered(udpDelivery("unknown", 0)); m.ID != 0 {
				return wants(m, 0)
			}
			return wants(q.Delivered(udpDelivery(payload(i), 0)), id)
		}
	}},
	{"dropped", func(n int) func(int) error {
		// The queue has dropped n, of which nobody knows.
		q := Datagrams{HeaderLen: 8}
		for i := range n {
			q.Saw(udpPacket(uint64(i+1), payload(i)), 0)
		}
		return func(i int) error {
			id := uint64(n + i + 1)
			q.Saw(udpPacket(id, payload(n+i)), 0)
			return wants(q.Delivered(udpDelivery(payload(n+i), 0)), id)
		}
	}},
	{"alike", func(n int) func(int) error {
		// n alike wait, and as many come as go.
		q := Datagrams{HeaderLen: 8}
		n = min(n, waitingAlone+waitingLimit-chunkLen)
		for i := range n {
			q.Saw(udpPacket(uint64(i+1), "alike"), 0)
		}
		return func(i int) error {
			q.Saw(udpPacket(uint64(n+i+1), "alike"), 0)
			return wants(q.Delivered(udpDelivery("alike", 1)), uint64(i+2))
		}
	}},
	{"unknown", func(n int) func(int) error {
		// n wait, and something else is delivered.
		q := Datagrams{HeaderLen: 8}
		for i := range n {
			q.Saw(udpPacket(uint64(i+1), payload(i)), 0)
		}
		d := udpDelivery("nobody sent this", 0)
		return func(int) error {
			q.received = 0
			return wants(q.Delivered(d), 0)
		}
	}},
	{"written", func(n int) func(int) error {
		// n wait, and the first and the last are asked for in turn, as if there were no others.
		r := NewWritten(8)
		for i := range n {
			r.Saw(udpPacket(uint64(i+1), payload(i)))
		}
		last := *udpDelivery(payload(n+1), 0)
		last.From = netip.AddrPort{}
		return func(int) error {
			if _, _, ok := r.Brought(last, false); ok {
				return fmt.Errorf("a packet that was not there")
			}
			r.checked = 0
			return nil
		}
	}},
	{"segments", func(n int) func(int) error {
		// n segments wait that came the wrong way round; each round reads one and gets one.
		s := NewStreams()
		s.Saw(segmentPacket(1, 0, tcpSYN, ""), 0)
		n = min(n, segmentsLimit-2)
		for i := n - 1; i >= 0; i-- {
			s.Saw(segmentPacket(uint64(2+i), uint32(1+8*i), 0, "8 bytes."), 0)
		}
		return func(i int) error {
			s.Saw(segmentPacket(uint64(2+n+i), uint32(1+8*(n+i)), 0, "8 bytes."), 0)
			d := &Delivery{Data: []byte("8 bytes."), Full: 8, From: client, To: server, Peek: true}
			if err := wants(s.Delivered(d), uint64(2+i)); err != nil {
				return err
			}
			d.Peek = false
			return wants(s.Delivered(d), uint64(2+i))
		}
	}},
	{"found", func(n int) func(int) error {
		// n connections have something to read that begins alike, and a read is none of it.
		f := NewFound()
		for i := range n {
			var a [4]byte
			binary.BigEndian.PutUint32(a[:], uint32(i))
			p := segmentPacket(uint64(i+1), 1, 0, "GET / "+payload(i))
			p.Src = netip.AddrPortFrom(netip.AddrFrom4(a), 1)
			f.Saw(p)
		}
		d := Delivery{Data: []byte("GET / nobody sent this"), Full: 22}
		return func(int) error {
			f.asked = false
			if m, _, ok := f.Brought(d, true); ok {
				return wants(m, 0)
			}
			return nil
		}
	}},
	{"connections", func(n int) func(int) error {
		// n connections wait; each round another one comes, is read and ends.
		s := NewStreams()
		open := func(i int) netip.AddrPort {
			var a [4]byte
			binary.BigEndian.PutUint32(a[:], uint32(i))
			from := netip.AddrPortFrom(netip.AddrFrom4(a), 1)
			for _, p := range []*Packet{segmentPacket(1, 0, tcpSYN, ""), segmentPacket(uint64(i), 1, 0, "request")} {
				p.Src = from
				s.Saw(p, 0)
			}
			return from
		}
		for i := range n {
			open(i + 1)
		}
		return func(i int) error {
			from := open(n + i + 1)
			if err := wants(s.Delivered(&Delivery{Data: []byte("request"), Full: 7, From: from, To: server}), uint64(n+i+1)); err != nil {
				return err
			}
			s.Delivered(&Delivery{Over: true, From: from, To: server})
			return nil
		}
	}},
}

// What is done with backlogs of all sizes is right as well.
func TestBacklog(t *testing.T) {
	t.Parallel()
	for _, r := range rounds {
		for _, n := range []int{10, 3000, 300_000} {
			t.Run(fmt.Sprintf("%s/%d", r.name, n), func(t *testing.T) {
				t.Parallel()
				do := r.prepare(n)
				for i := range 2000 {
					if err := do(i); err != nil {
						t.Fatalf("round %d: %v", i, err)
					}
				}
			})
		}
	}
}

// BenchmarkBacklog shows that a round costs the same whatever waits.
func BenchmarkBacklog(b *testing.B) {
	for _, r := range rounds {
		for n := 1000; n <= 1_024_000; n *= 2 {
			b.Run(fmt.Sprintf("%s/waiting=%d", r.name, n), func(b *testing.B) {
				do := r.prepare(n)
				b.ResetTimer()
				for i := range b.N {
					if err := do(i); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
