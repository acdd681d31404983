package pair

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

var (
	client = netip.MustParseAddrPort("127.0.0.1:40000")
	server = netip.MustParseAddrPort("127.0.0.1:16962")
)

func udpPacket(id uint64, payload string) *Packet {
	data := append(make([]byte, 8), payload...)
	return &Packet{ID: id, Src: client, Dst: server, Data: data, Len: len(data), Verdict: -1}
}

func udpDelivery(payload string, drops uint64) *Delivery {
	return &Delivery{Data: []byte(payload), Full: len(payload), Drops: drops, From: client, To: server}
}

// Nobody knows on which of a process's sockets the tap lost packets.
func TestDatagramsUncountedNearLoss(t *testing.T) {
	t.Parallel()
	q := Datagrams{HeaderLen: 8, Uncounted: true}
	q.Saw(udpPacket(1, "alike"), 1000)
	q.Saw(udpPacket(2, "alike"), 0)
	q.Saw(udpPacket(3, "another"), 0)
	if m := q.Delivered(udpDelivery("alike", 0)); m.ID != 0 || m.Missing != Ambiguous {
		t.Errorf("one of two alike: %+v", m)
	}
	if m := q.Delivered(udpDelivery("another", 0)); m.ID != 3 {
		t.Errorf("the only one of its kind: %+v", m)
	}
}

// Each delivery is written as the payload, the queue's drops so far, and the
// id that it must get.
func TestDatagrams(t *testing.T) {
	t.Parallel()
	type got struct {
		payload string
		drops   uint64
		id      uint64
	}
	for _, test := range []struct {
		name       string
		packets    []string // in the order of the filter, ids from 1; "" is one that the tap lost
		deliveries []got
	}{
		{"in order", []string{"a", "b", "c"}, []got{{"a", 0, 1}, {"b", 0, 2}, {"c", 0, 3}}},
		{"all alike", []string{"a", "a", "a"}, []got{{"a", 0, 1}, {"a", 0, 2}, {"a", 0, 3}}},
		{"all alike, one dropped", []string{"a", "a", "a"}, []got{{"a", 0, 1}, {"a", 1, 3}}},
		{"two cpus changed places", []string{"a", "b", "c"}, []got{{"b", 0, 2}, {"a", 0, 1}, {"c", 0, 3}}},
		{"a drop before the filter", []string{"a", "b", "c"}, []got{{"a", 1, 1}, {"b", 1, 2}, {"c", 1, 3}}},
		{"the tap lost one", []string{"a", "", "c"}, []got{{"a", 0, 1}, {"b", 0, 0}, {"c", 0, 3}}},
		{"the tap lost one of many alike", []string{"a", "", "a"}, []got{{"a", 0, 0}, {"a", 0, 0}, {"a", 0, 0}}},
		{"unknown", []string{"a"}, []got{{"z", 0, 0}, {"a", 0, 1}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var q Datagrams
			q.HeaderLen = 8
			lost := 0
			for i, payload := range test.packets {
				if payload == "" {
					lost++
					continue
				}
				q.Saw(udpPacket(uint64(i+1), payload), lost)
				lost = 0
			}
			for i, d := range test.deliveries {
				if m := q.Delivered(udpDelivery(d.payload, d.drops)); m.ID != d.id {
					t.Errorf("delivery %d, %q: id %d, want %d", i, d.payload, m.ID, d.id)
				}
			}
		})
	}
}

// What the filter drops has a place in the order where it is counted as a drop,
// and none where it is not.
func TestDatagramsVerdict(t *testing.T) {
	t.Parallel()
	for _, counts := range []bool{true, false} {
		q := Datagrams{HeaderLen: 8, CountsFiltered: counts}
		for i, verdict := range []int{12, 0, 8, 1, -1} {
			p := udpPacket(uint64(i+1), "0123456789")
			p.Verdict = verdict
			q.Saw(p, 0)
		}
		drops := uint64(0)
		for _, want := range []struct {
			payload string
			id      uint64
		}{{"0123", 1}, {"", 3}, {"", 4}, {"0123456789", 5}} {
			if m := q.Delivered(udpDelivery(want.payload, drops)); m.ID != want.id {
				t.Errorf("%q: id %d, want %d", want.payload, m.ID, want.id)
			}
			if counts {
				drops = 1
			}
		}
	}
}

// Random traffic, drops, losses and a snaplen, with few different payloads:
// what has its own payload is always paired right.
func TestDatagramsRandom(t *testing.T) {
	t.Parallel()
	random := testutil.Random(t)
	q := Datagrams{HeaderLen: 8}
	var (
		queue []*Packet
		drops uint64
		lost  int
		known = make(map[uint64]bool)
	)
	for id := uint64(1); id < 20000; id++ {
		p := udpPacket(id, string(binary.BigEndian.AppendUint64(nil, id)))
		if random.IntN(50) == 0 {
			lost++
		} else {
			q.Saw(p, lost)
			known[id], lost = true, 0
		}
		if random.IntN(4) == 0 {
			drops++
		} else {
			p.Verdict = int(drops) // what the queue notes beside it
			queue = append(queue, p)
		}
		for len(queue) > 0 && random.IntN(3) > 0 {
			p := queue[0]
			queue = queue[1:]
			m := q.Delivered(&Delivery{Data: p.Data[8:], Full: 8, Drops: uint64(p.Verdict), From: client, To: server})
			if want := p.ID; known[want] && m.ID != want || !known[want] && m.ID != 0 {
				t.Fatalf("packet %d (recorded: %v): id %d", want, known[want], m.ID)
			}
		}
	}
	if q.waiting.len() > 2*(behind+len(queue))+1000 {
		t.Errorf("%d packets are kept for nothing", q.waiting.len())
	}
}

func segmentPacket(id uint64, seq uint32, flags byte, payload string) *Packet {
	data := make([]byte, 20, 20+len(payload))
	binary.BigEndian.PutUint32(data[4:], seq)
	data[12], data[13] = 5<<4, flags
	data = append(data, payload...)
	return &Packet{ID: id, Src: client, Dst: server, Data: data, Len: len(data), Verdict: -1}
}

func TestStreams(t *testing.T) {
	t.Parallel()
	const start = 1<<32 - 7 // sequence numbers wrap within the stream
	s := NewStreams()
	var seq uint32 = start
	s.Saw(segmentPacket(1, seq, tcpSYN, ""), 0)
	seq++
	s.Saw(segmentPacket(2, seq, 0, ""), 0)
	s.Saw(segmentPacket(3, seq, 0, "0123456789"), 0)
	s.Saw(segmentPacket(4, seq+10, 0, "abcdefghij"), 0)
	s.Saw(segmentPacket(5, seq, 0, "0123456789"), 0)    // sent again
	s.Saw(segmentPacket(6, seq+30, 0, "ABCDEFGHIJ"), 0) // overtakes
	s.Saw(segmentPacket(7, seq+20, 0, "KLMNOPQRST"), 0)
	s.Saw(segmentPacket(8, seq+40, tcpFIN, ""), 0)
	read := func(n int) Match {
		return s.Delivered(&Delivery{Data: make([]byte, n), Full: n, From: client, To: server})
	}
	for i, want := range []struct {
		n   int
		id  uint64
		fed string
	}{
		{4, 3, "[[3 3] [5 5]]"},
		{10, 3, "[[3 5]]"},
		{6, 4, "[]"},
		{20, 7, "[[6 7]]"},
	} {
		if m := read(want.n); m.ID != want.id || text(m.Fed) != want.fed {
			t.Errorf("read %d: %+v, want %+v", i, m, want)
		}
	}
	if m := s.Delivered(&Delivery{Over: true, From: client, To: server}); m.ID != 8 {
		t.Errorf("end: %+v", m)
	}
	s.Saw(segmentPacket(9, seq+41, 0, ""), 0)
	if len(s.open) != 0 {
		t.Error("the last ACK opened the stream again")
	}

	s.Saw(segmentPacket(10, 77, tcpSYN, ""), 0)
	s.Saw(segmentPacket(11, 78, tcpRST, ""), 0)
	if m := s.Delivered(&Delivery{Over: true, From: client, To: server}); m.ID != 11 {
		t.Errorf("reset: %+v", m)
	}
}

// The same addresses again and again: each connection's reads are its own, also
// when the packets of the next ones have been seen before they are paired.
func TestStreamsOfOneAddress(t *testing.T) {
	t.Parallel()
	s := NewStreams()
	const connections = 50
	for c := uint64(1); c <= connections; c++ {
		packets := []*Packet{
			segmentPacket(4*c, uint32(1000*c), tcpSYN, ""),
			segmentPacket(4*c+1, uint32(1000*c+1), 0, ""),
			segmentPacket(4*c+2, uint32(1000*c+1), 0, "payload"),
			segmentPacket(4*c+3, uint32(1000*c+8), tcpRST, ""),
		}
		for i, p := range packets {
			if i >= 2 {
				p.Cookie = c // accepted
			}
			s.Saw(p, 0)
		}
	}
	for c := uint64(1); c <= connections; c++ {
		if m := s.Delivered(&Delivery{Data: []byte("payload"), Full: 7, Cookie: c, From: client, To: server}); m.ID != 4*c+2 {
			t.Errorf("connection %d: %+v", c, m)
		}
		if m := s.Delivered(&Delivery{Over: true, Cookie: c, From: client, To: server}); m.ID != 4*c+3 {
			t.Errorf("connection %d, end: %+v", c, m)
		}
	}
	if len(s.open) != 0 {
		t.Errorf("%d streams are left", len(s.open))
	}
}

// Segments that TCP throws away run the filter all the same.
func TestStreamsIgnoreWhatTCPIgnores(t *testing.T) {
	t.Parallel()
	s := NewStreams()
	see := func(id uint64, seq uint32, flags byte, payload string, cookie uint64) {
		p := segmentPacket(id, seq, flags, payload)
		p.Cookie = cookie
		s.Saw(p, 0)
	}
	see(1, 100, tcpSYN, "", 0)
	see(2, 101, 0, "abc", 7)
	see(3, 101+3e9, 0, "far", 7)
	see(4, 101+15e8, 0, "away", 7)
	see(5, 5000, tcpSYN, "", 7)
	see(6, 101+1000, tcpRST, "", 7)
	see(7, 104, 0, "def", 7)
	see(8, 107, tcpFIN, "", 7)
	m := s.Delivered(&Delivery{Data: []byte("abcdef"), Full: 6, Cookie: 7, From: client, To: server})
	if m.ID != 2 || text(m.Fed) != "[[2 2] [7 7]]" {
		t.Errorf("%+v", m)
	}
	if m := s.Delivered(&Delivery{Over: true, Cookie: 7, From: client, To: server}); m.ID != 8 {
		t.Errorf("end: %+v", m)
	}
}

// A request, its read, the next request: in the long run that takes no memory.
func TestStreamsAllocateNothing(t *testing.T) {
	s := NewStreams()
	s.Saw(segmentPacket(1, 0, tcpSYN, ""), 0)
	request := segmentPacket(1, 0, 0, "GET / HTTP/1.1")
	d := Delivery{Data: request.Data[20:], Full: request.Len - 20, From: client, To: server}
	seq := uint32(1)
	turn := func() {
		request.ID++
		binary.BigEndian.PutUint32(request.Data[4:], seq)
		seq += uint32(d.Full)
		s.Saw(request, 0)
		if m := s.Delivered(&d); m.ID != request.ID {
			t.Errorf("%+v, want %d", m, request.ID)
		}
	}
	for range 10 {
		turn()
	}
	if n := testing.AllocsPerRun(1000, turn); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}

func TestStreamsBoundMemory(t *testing.T) {
	t.Parallel()
	s := NewStreams()
	for i := range streamsLimit + 10 {
		p := segmentPacket(1, uint32(i), tcpSYN, "")
		p.Src = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 1)
		s.Saw(p, 0)
	}
	if len(s.open) > streamsLimit {
		t.Errorf("%d streams", len(s.open))
	}
}

// The kernel says where a read stands in its stream: what was lost before it, read
// before anybody looked, or taken by another thread at the same time does no harm.
func TestStreamsGoByTheKernelsPlace(t *testing.T) {
	t.Parallel()
	s := NewStreams()
	s.Saw(segmentPacket(1, 100, tcpSYN, ""), 0)
	for i, payload := range []string{"abc", "def", "ghi"} {
		s.Saw(segmentPacket(uint64(2+i), 101+uint32(3*i), tcpACK, payload), 0)
	}
	for _, read := range []struct {
		seq  uint32
		data string
		id   uint64
	}{{101, "abc", 2}, {107, "g", 4}, {107, "h", 4}, {109, "i", 4}} { // def is lost, and h was begun before g was taken
		d := &Delivery{Data: []byte(read.data), Full: len(read.data), From: client, To: server, Seq: read.seq, Sequenced: true}
		if m := s.Delivered(d); m.ID != read.id {
			t.Errorf("%q: %+v, want packet %d", read.data, m, read.id)
		}
	}
}

func TestStreamReadBeyondTheLimit(t *testing.T) {
	t.Parallel()
	s := NewStreams()
	s.Saw(segmentPacket(1, 100, tcpSYN, ""), 0)
	s.Saw(segmentPacket(2, 101, 0, "abc"), 0)
	s.Saw(segmentPacket(0, 104, 0, "def"), 0) // after the last packet of -c
	m := s.Delivered(&Delivery{Data: []byte("abcdef"), Full: 6, From: client, To: server})
	if m.ID != 2 || text(m.Fed) != "[[2 2]]" || !m.Later {
		t.Errorf("%+v", m)
	}
}

func TestStreamJoinedLate(t *testing.T) {
	t.Parallel()
	s := NewStreams()
	s.Saw(segmentPacket(1, 5000, 0, "abc"), 0)
	if m := s.Delivered(&Delivery{Data: []byte("abc"), Full: 3, From: client, To: server}); m.ID != 1 {
		t.Errorf("%+v", m)
	}
	if m := s.Delivered(&Delivery{Data: []byte("abc"), Full: 3, From: server, To: client}); m.ID != 0 || m.Missing != NoStream {
		t.Errorf("a stream never seen: %+v", m)
	}
}

func TestIDRanges(t *testing.T) {
	t.Parallel()
	var r Ranges
	for _, id := range []uint64{1, 2, 3, 5, 7, 8} {
		r.Add(id)
	}
	if got := text(r); got != "[[1 3] [5 5] [7 8]]" || r.More != 0 || r.Last != 0 {
		t.Errorf("%+v", r)
	}
	for id := uint64(10); id < 100; id += 2 {
		r.Add(id)
	}
	r.Add(99)
	if len(r.Ranges) != shownRanges || r.More != 3+45-shownRanges || r.Last != 99 {
		t.Errorf("%+v", r)
	}
}

// text is the ranges that are kept.
func text(r Ranges) string { return fmt.Sprint(r.Ranges) }
