package capture

import (
	"encoding/binary"
	"hash/maphash"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// sightings gives the records of a packet one id, wherever it is seen: as its socket sends it, on each
// interface that it passes, and at the filter of the socket that receives it. It is known by its
// addresses and its bytes from the transport header on, but for the checksum, which a device may
// complete. Of packets that are alike, the first that was seen at one place is the first at the next.
//
// What a packet costs does not depend on how many are remembered.
type sightings struct {
	seed maphash.Seed
	// joins says that what leaves a socket is looked for on interfaces and at other sockets.
	joins bool
	drops bool // what arrives may be dropped
	least int  // bytes of the transport header and what follows, by which packets are compared at most
	ring  []sighting
	last  uint64 // number of the newest one, counted from 1
	alike map[sightingKey]*alike
	spare []*alike
	// arrivals are the last packets at a filter, by cpu.
	arrivals []lastArrival
}

// lastArrival is what a packet at the filter of its socket shares with the record of its being freed,
// whatever the filter keeps of it and of how many pieces it is.
type lastArrival struct {
	head         sightingKey // with bytes of the transport header alone
	cookie, lost uint64
	id, number   uint64 // id is 0 if it was freed; number is 0 if it is no sighting
}

const (
	// sightingsKept is how many packets are remembered, and sightingAge for how many nanoseconds of
	// the boot clock.
	sightingsKept = 1 << 13
	sightingAge   = int64(250 * time.Millisecond)
	// stagesKept is at how many places packets that are alike are followed.
	stagesKept = 6
	// freedTried bounds how many packets that are alike are looked at for one that was freed.
	freedTried = 64
)

// sightingKey is what all records of a packet agree in.
type sightingKey struct {
	src, dst [16]byte
	length   uint32 // from the transport header on
	id       uint16 // of IPv4
	protocol uint8
	bytes    uint64 // a hash
}

// sighting is a packet.
type sighting struct {
	key  sightingKey
	id   uint64
	time int64
	// next and previous are the numbers of those that are alike, 0 if there is none; the previous one
	// may be forgotten.
	next, previous uint64
	arrived        bool // when it was entered: it is on no interface any more
	reached        bool // the filter of a socket
	freed          bool // by the kernel, without having used it
}

// alike are the packets with one key, in their order.
type alike struct {
	first, last uint64 // numbers
	stages      [stagesKept]stage
	used        int
}

// stage is a place where packets are seen, and the number of the last one that was.
type stage struct{ place, seen uint64 }

// placeIngress is the place before the filter of the socket that receives, and placeSelect where the
// socket is chosen. All others are interfaces.
const (
	placeIngress = 0
	placeSelect  = 1<<64 - 1
)

// newSightings returns nil if nobody wants to see the interfaces, or what the kernel drops.
func newSightings(o *Options) *sightings {
	if !o.wants(ViewWire) && !o.wants(ViewDrop) {
		return nil
	}
	const headers = 128 // that a frame may have before the transport header
	return &sightings{
		joins: o.wants(ViewWire), drops: o.wants(ViewDrop),
		seed: maphash.MakeSeed(), least: max(header.TCPSize, o.Snaplen-headers), ring: make([]sighting, sightingsKept),
		alike: make(map[sightingKey]*alike),
	}
}

// arrives is the id of a packet at the filter of its socket; fresh makes one if it was not seen before.
func (s *sightings) arrives(rec *bpf.Record, whole []byte, length int, layer Layer, fresh func() uint64) uint64 {
	if s == nil {
		return fresh()
	}
	id, number := s.arrival(rec, whole, length, layer, fresh)
	if s.drops {
		at := s.lastArrival(rec.Cpu)
		*at = lastArrival{cookie: rec.Cookie, lost: rec.Lost, number: number}
		var ok bool
		if at.head, ok = s.headOf(rec, whole, layer); ok {
			at.id = id
		}
	}
	return id
}

// arrival is what arrives does, and the number of the sighting, 0 if there is none.
func (s *sightings) arrival(rec *bpf.Record, whole []byte, length int, layer Layer, fresh func() uint64) (id, number uint64) {
	key, ok := s.keyOf(rec, whole, length, layer)
	if !ok {
		return fresh(), 0
	}
	if s.joins {
		if n := s.find(key, placeIngress, int64(rec.Time)); n != nil {
			n.reached = true
			return n.id, s.alike[key].at(placeIngress).seen
		}
	}
	id = fresh()
	if !s.drops {
		return id, 0
	}
	s.enter(key, id, int64(rec.Time)).pass(placeIngress, s.last)
	n := s.of(s.last)
	n.arrived, n.reached = true, true
	return id, s.last
}

func (s *sightings) lastArrival(cpu uint32) *lastArrival {
	for int(cpu) >= len(s.arrivals) {
		s.arrivals = append(s.arrivals, lastArrival{})
	}
	return &s.arrivals[cpu]
}

// refused is the id of a packet that the kernel has freed as soon as the filter of its socket had seen it, 0
// if that is not certain. The kernel does both on one cpu, one immediately after the other: so it is the last
// one that arrived there, unless that was not recorded. What the filter cuts off is gone by then, and what lies
// in fragments is in no record of what is freed.
func (s *sightings) refused(rec *bpf.Record, whole []byte, layer Layer) (id uint64) {
	at := s.lastArrival(rec.Cpu)
	head, ok := s.headOf(rec, whole, layer)
	if !ok || at.id == 0 || at.head != head || at.cookie != rec.Cookie || at.lost != rec.ArrivalsLost() {
		return 0
	}
	if n := s.of(at.number); at.number != 0 && n.id == at.id {
		n.freed = true
	}
	id, at.id = at.id, 0
	return id
}

// freed is the id of a packet that the kernel has freed, 0 if it was not seen before, and whether the
// filter of a socket has seen it. Of those that are alike it is the last one that was not freed before:
// what becomes of a packet follows at once in most cases, and where it has waited in a queue that is
// emptied, those that are left are the last.
func (s *sightings) freed(rec *bpf.Record, whole []byte, length int, layer Layer) (id uint64, reached bool) {
	key, ok := s.keyOf(rec, whole, length, layer)
	same := s.alike[key]
	if !ok || same == nil {
		return 0, false
	}
	for number, tried := same.last, 0; number >= same.first && tried < freedTried; tried++ {
		n := s.of(number)
		if !n.freed {
			n.freed = true
			return n.id, n.reached
		}
		number = n.previous
	}
	return 0, false
}

// chosen is the id of a packet for which a socket is chosen; fresh makes one if it was not seen before.
func (s *sightings) chosen(rec *bpf.Record, fresh func() uint64) uint64 {
	if s != nil && s.joins {
		if key, ok := s.keyOf(rec, rec.Data, int(rec.Len), LayerTransport); ok {
			if n := s.find(key, placeSelect, int64(rec.Time)); n != nil {
				return n.id
			}
		}
	}
	return fresh()
}

// leaves takes a packet that its socket sends.
func (s *sightings) leaves(rec *bpf.Record, whole []byte, length int, layer Layer, id uint64) {
	if s == nil {
		return
	}
	if key, ok := s.keyOf(rec, whole, length, layer); ok {
		s.enter(key, id, int64(rec.Time))
	}
}

// passes is the id of a packet on an interface; fresh makes one if it was not seen before.
func (s *sightings) passes(rec *bpf.Record, fresh func() uint64) uint64 {
	key, ok := s.keyOf(rec, rec.Data, int(rec.Len), LayerNetwork)
	if !ok {
		return fresh()
	}
	place := rec.Filter<<32 | uint64(rec.Ifindex)<<1
	if rec.Hook == bpf.HookWireOut {
		place |= 1
	}
	if n := s.find(key, place, int64(rec.Time)); n != nil {
		return n.id
	}
	id := fresh()
	s.enter(key, id, int64(rec.Time)).pass(place, s.last)
	return id
}

// find finds the first of the packets that are alike which was not seen at a place, and notes that
// it is now. It returns nil if there is none.
func (s *sightings) find(key sightingKey, place uint64, now int64) *sighting {
	same := s.alike[key]
	if same == nil {
		return nil
	}
	at := same.at(place)
	if at == nil {
		return nil
	}
	next := same.first
	if at.seen >= same.first {
		next = s.of(at.seen).next
	}
	for next != 0 {
		n := s.of(next)
		at.seen = next
		if n.time >= now-sightingAge && (!n.arrived || place == placeIngress) {
			return n
		}
		next = n.next
	}
	return nil
}

func (s *sightings) of(number uint64) *sighting { return &s.ring[number%sightingsKept] }

// enter remembers a packet, in the place of the oldest one.
func (s *sightings) enter(key sightingKey, id uint64, now int64) *alike {
	s.last++
	n := s.of(s.last)
	if n.id != 0 {
		s.forget(n)
	}
	*n = sighting{key: key, id: id, time: now}
	same := s.alike[key]
	if same == nil {
		if last := len(s.spare) - 1; last >= 0 {
			same, s.spare = s.spare[last], s.spare[:last]
		} else {
			same = new(alike)
		}
		*same = alike{first: s.last}
		s.alike[key] = same
	} else {
		s.of(same.last).next, n.previous = s.last, same.last
	}
	same.last = s.last
	return same
}

// forget forgets the oldest packet, which is the first of those that are alike.
func (s *sightings) forget(n *sighting) {
	same := s.alike[n.key]
	if same.first = n.next; same.first == 0 {
		delete(s.alike, n.key)
		s.spare = append(s.spare, same)
	}
}

// at finds or makes the stage of a place, nil if there is no room.
func (a *alike) at(place uint64) *stage {
	for i := range a.used {
		if a.stages[i].place == place {
			return &a.stages[i]
		}
	}
	if a.used == stagesKept {
		return nil
	}
	a.used++
	a.stages[a.used-1] = stage{place: place}
	return &a.stages[a.used-1]
}

// pass notes that a packet, and all before it, were seen at a place.
func (a *alike) pass(place, number uint64) {
	if at := a.at(place); at != nil {
		at.seen = number
	}
}

// keyOf is the key of a record's packet. whole are its bytes, with those before offset 0, and layer
// is what offset 0 is the beginning of. ok is false for a part of a packet, and for one of which too
// little was recorded.
func (s *sightings) keyOf(rec *bpf.Record, whole []byte, length int, layer Layer) (key sightingKey, ok bool) {
	ip, transport, below := headersOf(rec, whole, layer)
	size := int(rec.Len)
	h, ok := header.ParseIP(ip)
	if !ok || h.Fragment {
		return key, false
	}
	if !below {
		if h.Total > 0 {
			length = min(length, h.Total) // behind that is the padding of a frame
		}
		size = length - h.Size
		transport = ip[min(h.Size, len(ip)):min(max(length, 0), len(ip))]
	}
	compared := min(size, s.least)
	if h.Protocol == unix.IPPROTO_TCP {
		compared = min(compared, header.TCPSize) // it has the place in the stream, and what is freed may have no more in one piece
	}
	if compared < 0 || len(transport) < compared {
		return key, false
	}
	return s.key(&h, ip, transport[:compared], size), true
}

// headOf is the key of a record's packet by its headers alone, which say how long it was. TCP's have none: a segment
// may be freed later, and keyOf compares no more than their headers either.
func (s *sightings) headOf(rec *bpf.Record, whole []byte, layer Layer) (key sightingKey, ok bool) {
	ip, transport, below := headersOf(rec, whole, layer)
	h, ok := header.ParseIP(ip)
	if !ok || h.Fragment || h.Protocol == unix.IPPROTO_TCP || h.Total < h.Size {
		return key, false
	}
	if !below {
		transport = ip[min(h.Size, len(ip)):]
	}
	const ports = 8 // UDP's header, which every record has in one piece
	compared := min(h.Total-h.Size, ports)
	if len(transport) < compared {
		return key, false
	}
	return s.key(&h, ip, transport[:compared], h.Total-h.Size), true
}

// headersOf are the bytes of a record from the network header on, and of one that is below, from the transport header on.
func headersOf(rec *bpf.Record, whole []byte, layer Layer) (ip, transport []byte, below bool) {
	if layer == LayerTransport && len(whole) == len(rec.Data) {
		return rec.NetHeader(), rec.Data, true
	}
	return whole, nil, false
}

// key makes one, of the bytes from the transport header on that are compared.
func (s *sightings) key(h *header.IP, ip, compared []byte, length int) sightingKey {
	key := sightingKey{src: h.Src.As16(), dst: h.Dst.As16(), protocol: h.Protocol, length: uint32(length)}
	if h.Version == 4 {
		key.id = binary.BigEndian.Uint16(ip[4:])
	}
	key.bytes = s.hash(compared, h.Protocol)
	return key
}

// hash is one of what follows an IP header, without the checksum of the protocol.
func (s *sightings) hash(b []byte, protocol uint8) uint64 {
	at, size := checksumOf(protocol)
	if size == 0 || len(b) < at+size {
		return maphash.Bytes(s.seed, b)
	}
	const odd = 0x9e3779b97f4a7c15
	return maphash.Bytes(s.seed, b[:at])*odd ^ maphash.Bytes(s.seed, b[at+size:])
}

// checksumOf is where in the header of a protocol its checksum is; size is 0 if it has none.
func checksumOf(protocol uint8) (at, size int) {
	switch protocol {
	case unix.IPPROTO_TCP:
		return 16, 2
	case unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE:
		return 6, 2
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		return 2, 2
	case unix.IPPROTO_SCTP:
		return 8, 4
	}
	return 0, 0
}
