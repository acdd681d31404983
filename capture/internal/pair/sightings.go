package pair

import (
	"hash/maphash"
	"net/netip"
)

// Sightings are packets that were seen at one place, to be found again by their bytes when they
// are seen at another, later one. The zero value has none.
//
// Where several have the same bytes, it is the last one that was not found before: what is seen of
// a packet elsewhere follows at once in most cases, and where it waits in a queue that is emptied,
// the packets that are left are the last ones.
type Sightings struct {
	ring  []sighting        // number modulo its length
	end   uint64            // number after the last one
	lists map[uint64]uint64 // by key: the number of the last one, plus one
}

type sighting struct {
	id       uint64
	keys     [sightingKeys]uint64
	previous [sightingKeys]uint64 // number of the one before with the same key, plus one
	found    bool
}

// Keys of a sighting.
const (
	byWhole = iota // of all bytes
	byStart        // of the first ones
	sightingKeys
)

const (
	// sightingsLimit bounds the packets that are remembered.
	sightingsLimit = 1 << 13
	// sightingsTried bounds how many of the same key are looked at.
	sightingsTried = 64
	// startLen is how many first bytes are enough to look for a packet: a header of TCP.
	startLen = 20
)

// Sighting is what is seen of a packet.
type Sighting struct {
	// Src and Dst are the packet's addresses.
	Src, Dst netip.AddrPort
	// Protocol is the IP protocol.
	Protocol uint8
	// Data is what is known of the packet from the transport header on. It is not kept.
	Data []byte
	// Len is the packet's length from there, in bytes.
	Len int
}

// checksumAt is the offset of the checksum in a transport header, which a packet may get on its way.
var checksumAt = [256]uint8{6: 16, 17: 6, 136: 6}

// key is the key of the first n bytes.
func (s *Sighting) key(n int) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	at := int(checksumAt[s.Protocol])
	if at > 0 && n >= at+2 {
		h.Write(s.Data[:at])
		h.Write(s.Data[at+2 : n])
	} else {
		h.Write(s.Data[:n])
	}
	maphash.WriteComparable(&h, s.Src)
	maphash.WriteComparable(&h, s.Dst)
	return mix(h.Sum64() ^ mix(uint64(n)<<32|uint64(uint32(s.Len))))
}

// Saw adds a packet with an id.
func (x *Sightings) Saw(s *Sighting, id uint64) {
	if x.ring == nil {
		x.ring, x.lists = make([]sighting, sightingsLimit), make(map[uint64]uint64)
	}
	at := &x.ring[x.end%sightingsLimit]
	if x.end >= sightingsLimit {
		for _, key := range at.keys {
			if x.lists[key] == x.end-sightingsLimit+1 {
				delete(x.lists, key)
			}
		}
	}
	*at = sighting{id: id, keys: [sightingKeys]uint64{byWhole: s.key(len(s.Data)), byStart: ^s.key(min(startLen, len(s.Data)))}}
	for which, key := range at.keys {
		at.previous[which] = x.lists[key]
		x.lists[key] = x.end + 1
	}
	x.end++
}

// Find returns the id of a packet that was seen before, 0 if it was not. Each is found once.
func (x *Sightings) Find(s *Sighting) (id uint64) {
	which, key := byWhole, uint64(0)
	switch {
	case x.ring == nil:
		return 0
	case len(s.Data) == s.Len:
		key = s.key(len(s.Data))
	case len(s.Data) >= startLen:
		which, key = byStart, ^s.key(startLen)
	default:
		return 0
	}
	for number, tried := x.lists[key], 0; number > 0 && tried < sightingsTried; tried++ {
		if number-1+sightingsLimit < x.end {
			break // it is forgotten
		}
		at := &x.ring[(number-1)%sightingsLimit]
		if !at.found {
			at.found = true
			return at.id
		}
		number = at.previous[which]
	}
	return 0
}
