package pair

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// A datagram that came although its filter's answer drops it, or in another length, is found, and
// the answer is belied; what fits to its answer is not.
func TestDatagramsBelied(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		verdict, got   int
		belied, denied bool
	}{
		{verdict: -1, got: 10}, {verdict: 12, got: 4},
		{verdict: 0, got: 10, belied: true, denied: true}, {verdict: 12, got: 10, belied: true}, {verdict: -1, got: 4, belied: true},
	} {
		for _, counts := range []bool{true, false} {
			q := &Datagrams{HeaderLen: 8, Uncounted: true, CountsFiltered: counts}
			for id := range uint64(3 * answersRoom) {
				p := udpPacket(id+1, fmt.Sprintf("%010d", id))
				p.Verdict, p.Answered, p.Filter = c.verdict, true, 7
				q.Saw(p, 0)
				d := &Delivery{Data: p.Data[8 : 8+c.got], Full: c.got, From: client, To: server}
				m := q.Delivered(d)
				want := Match{ID: id + 1, Src: client, Dst: server}
				if c.belied {
					want.Belied, want.Denied, want.Filter = true, c.denied, 7
				}
				if fmt.Sprint(m) != fmt.Sprint(want) {
					t.Fatalf("verdict %d, %d bytes delivered: %+v, want %+v", c.verdict, c.got, m, want)
				}
				if c.belied && q.Delivered(d).ID != 0 {
					t.Fatalf("verdict %d: one datagram was delivered twice", c.verdict)
				}
			}
		}
	}
}

// The same of a stream.
func TestStreamsBelied(t *testing.T) {
	t.Parallel()
	s := NewStreams()
	send := func(id uint64, seq uint32, flags byte, payload string, verdict int) {
		header := make([]byte, 20)
		binary.BigEndian.PutUint32(header[4:], seq)
		header[12], header[13] = 5<<4, flags
		data := append(header, payload...)
		p := &Packet{ID: id, Src: client, Dst: server, Data: data, Len: len(data)}
		p.Verdict, p.Answered, p.Filter = verdict, true, 7
		s.Saw(p, 0)
	}
	send(1, 99, tcpSYN, "", -1)
	send(2, 100, tcpACK, "first", -1)
	send(3, 105, tcpACK, "second", 0)
	if m := s.Delivered(&Delivery{Data: []byte("first"), Full: 5, From: client, To: server}); m.ID != 2 || m.Belied {
		t.Errorf("%+v", m)
	}
	if m := s.Delivered(&Delivery{Data: []byte("second"), Full: 6, From: client, To: server}); m.ID != 3 || !m.Belied || !m.Denied || m.Filter != 7 {
		t.Errorf("%+v", m)
	}
}
