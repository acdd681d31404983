package pair

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// roomOfTest is smaller than the usual one, so that it is soon full.
const roomOfTest = 1 << 15

// numbered is a datagram with its number as its payload.
func numbered(p *Packet, i int) *Packet {
	p.ID = uint64(i + 1)
	binary.BigEndian.PutUint64(p.Data[8:], p.ID)
	return p
}

// What waits has its packets when it is read, as long as there is room. What had to be forgotten is not
// said to have had no packet, and what came later is found again.
func TestDeepQueue(t *testing.T) {
	t.Parallel()
	const most = waitingAlone + roomOfTest
	for _, test := range []struct {
		name      string
		uncounted bool
		wait      int
		forgotten int
	}{
		{"as many as there is room for", false, most, 0},
		{"and more", false, most + 1, chunkLen},
		{"of a process's socket", true, most + 1, chunkLen},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			q := Datagrams{HeaderLen: 8, Uncounted: test.uncounted, Room: &Room{most: roomOfTest}}
			p, d := udpPacket(0, "8 bytes."), udpDelivery("8 bytes.", 0)
			for i := range test.wait {
				q.Saw(numbered(p, i), 0)
			}
			for i := range test.wait {
				binary.BigEndian.PutUint64(d.Data, uint64(i+1))
				want, why := uint64(i+1), NotMissing
				if i < test.forgotten {
					want, why = 0, Forgotten
				}
				if m := q.Delivered(d); m.ID != want || m.Missing != why || m.Before {
					t.Fatalf("read %d: %+v", i+1, m)
				}
				if i >= test.forgotten+chunkLen { // as many come as go, since a chunk is free
					q.Saw(numbered(p, test.wait+i), 0)
				}
			}
			copy(d.Data, "nobody's")
			if m := q.Delivered(d); m.Missing != NoPacket {
				t.Errorf("a read of no packet: %+v", m)
			}
			if n := q.waiting.held(); n > most/chunkLen {
				t.Errorf("%d chunks are kept", n)
			}
		})
	}
}

// Where several sockets have no room together, it is taken from the one in which nothing moves any more.
func TestRoomIsShared(t *testing.T) {
	t.Parallel()
	room := Room{most: roomOfTest}
	closed, busy := Datagrams{HeaderLen: 8, Uncounted: true, Room: &room}, Datagrams{HeaderLen: 8, Uncounted: true, Room: &room}
	p := udpPacket(0, "8 bytes.")
	const deep = waitingAlone + 3*roomOfTest/4
	for i := range deep {
		closed.Saw(numbered(p, i), 0)
	}
	for i := range deep {
		busy.Saw(numbered(p, i), 0)
	}
	if room.chunks != roomOfTest/chunkLen || busy.waiting.forgotten != 0 || closed.waiting.forgotten != roomOfTest/2 {
		t.Errorf("%d chunks; %d and %d forgotten", room.chunks, closed.waiting.forgotten, busy.waiting.forgotten)
	}
	d := udpDelivery("8 bytes.", 0)
	for i := range deep {
		binary.BigEndian.PutUint64(d.Data, uint64(i+1))
		if m := busy.Delivered(d); m.ID != uint64(i+1) {
			t.Fatalf("read %d: %+v", i+1, m)
		}
	}
	if len(room.holders) != 1 || busy.waiting.taken != 0 {
		t.Errorf("%d hold room, the empty one %d chunks", len(room.holders), busy.waiting.taken)
	}
}

// The addresses of datagrams are theirs, from however many peers they come.
func TestPeersOfMany(t *testing.T) {
	t.Parallel()
	q := Datagrams{HeaderLen: 8}
	from := func(i int) netip.AddrPort { return netip.AddrPortFrom(client.Addr(), uint16(1+i%1000)) }
	p, d := udpPacket(0, "8 bytes."), udpDelivery("8 bytes.", 0)
	for i := range 5000 {
		p.Src = from(i)
		q.Saw(numbered(p, i), 0)
	}
	for i := range 5000 {
		binary.BigEndian.PutUint64(d.Data, uint64(i+1))
		d.From = from(i)
		if m := q.Delivered(d); m.ID != uint64(i+1) || m.Src != from(i) || m.Dst != server {
			t.Fatalf("read %d: %+v", i+1, m)
		}
	}
}

// A segment that there was no room for is not said to have had no record.
func TestStreamOfTooMany(t *testing.T) {
	t.Parallel()
	s := NewStreams()
	s.Saw(segmentPacket(1, 0, tcpSYN, ""), 0)
	for i := range segmentsLimit + 1 {
		s.Saw(segmentPacket(uint64(2+i), uint32(1+8*i), 0, "8 bytes."), 0)
	}
	d := &Delivery{Data: []byte("8 bytes."), Full: 8, From: client, To: server}
	for i := range segmentsLimit {
		if m := s.Delivered(d); m.ID != uint64(2+i) {
			t.Fatalf("read %d: %+v", i, m)
		}
	}
	if m := s.Delivered(d); m.Missing != Forgotten {
		t.Errorf("what there was no room for: %+v", m)
	}
	if m := s.Delivered(d); m.Missing != NoSegments {
		t.Errorf("what never came: %+v", m)
	}
}

// Nor are connections that had to be forgotten said to have had none.
func TestForgottenStreams(t *testing.T) {
	t.Parallel()
	s := NewStreams()
	open := func(i int) *Packet {
		p := segmentPacket(1, 0, tcpSYN, "")
		p.Src = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 1)
		return p
	}
	unknown := &Delivery{Data: []byte("8 bytes."), Full: 8, From: client, To: server}
	if m := s.Delivered(unknown); m.Missing != NoStream {
		t.Errorf("a stream that never was: %+v", m)
	}
	for i := range streamsLimit + 1 {
		s.Saw(open(i), 0)
	}
	if m := s.Delivered(unknown); m.Missing != Forgotten {
		t.Errorf("a stream that may have been: %+v", m)
	}
}
