package explain

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// IDs is a set of packet ids as ranges: the first ones, and the number of further ones.
//
// In JSON it is an object: "ranges" is a list of pairs, first and last id,
// and "omitted" the number of ranges that are not in that list.
type IDs struct {
	ranges  [][2]uint64
	omitted uint64
	last    [2]uint64 // the last of those omitted
}

// shownRanges limits the ranges that are kept.
const shownRanges = 16

func (s *IDs) add(id uint64) {
	if id == 0 {
		return
	}
	if s.omitted > 0 {
		if s.last[1]+1 == id {
			s.last[1] = id
		} else if id < s.last[0] || id > s.last[1] {
			s.omitted++
			s.last = [2]uint64{id, id}
		}
		return
	}
	for i := range s.ranges {
		r := &s.ranges[i]
		if id >= r[0] && id <= r[1] {
			return
		}
		if r[1]+1 == id && (i+1 == len(s.ranges) || s.ranges[i+1][0] != id) {
			r[1] = id
			return
		}
	}
	if len(s.ranges) < shownRanges {
		s.ranges = append(s.ranges, [2]uint64{id, id})
		return
	}
	s.omitted, s.last = 1, [2]uint64{id, id}
}

// proseRanges limits the ranges in a sentence.
const proseRanges = 4

// String is such as "1-3, 7".
func (s IDs) String() string {
	var b strings.Builder
	omitted := s.omitted
	for i, r := range s.ranges {
		if i == proseRanges {
			omitted += uint64(len(s.ranges) - i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		if r[0] == r[1] {
			fmt.Fprint(&b, r[0])
		} else {
			fmt.Fprintf(&b, "%d-%d", r[0], r[1])
		}
	}
	if omitted > 0 {
		fmt.Fprintf(&b, " and %s", quantity(omitted, "range more", "ranges more"))
	}
	return b.String()
}

// MarshalJSON implements json.Marshaler in the form that the type documents.
func (s IDs) MarshalJSON() ([]byte, error) {
	ranges := s.ranges
	if ranges == nil {
		ranges = [][2]uint64{}
	}
	return json.Marshal(struct {
		Ranges  [][2]uint64 `json:"ranges"`
		Omitted uint64      `json:"omitted"`
	}{ranges, s.omitted})
}

// idSet is a set of ids that come in ascending order, or nearly so. It holds at most
// idSetLimit ranges, and does not remember ids beyond those.
type idSet struct{ ranges [][2]uint64 }

const idSetLimit = 1 << 12

// add adds an id, and tells whether it is new.
func (s *idSet) add(id uint64) bool {
	at, found := slices.BinarySearchFunc(s.ranges, id, func(r [2]uint64, id uint64) int {
		switch {
		case id < r[0]:
			return 1
		case id > r[1]:
			return -1
		}
		return 0
	})
	if found {
		return false
	}
	before, after := at > 0 && s.ranges[at-1][1]+1 == id, at < len(s.ranges) && s.ranges[at][0] == id+1
	switch {
	case before && after:
		s.ranges[at-1][1] = s.ranges[at][1]
		s.ranges = slices.Delete(s.ranges, at, at+1)
	case before:
		s.ranges[at-1][1] = id
	case after:
		s.ranges[at][0] = id
	case len(s.ranges) < idSetLimit:
		s.ranges = slices.Insert(s.ranges, at, [2]uint64{id, id})
	}
	return true
}

// moveTo counts all of c as other's, and not as c's any more.
func (c *Count) moveTo(other *Count) {
	other.Packets += c.Packets
	other.Bytes += c.Bytes
	for _, r := range c.IDs.ranges {
		for id := r[0]; id <= r[1]; id++ {
			other.IDs.add(id)
		}
	}
	if c.IDs.omitted > 0 {
		other.IDs.add(c.IDs.last[1])
		other.IDs.omitted += c.IDs.omitted - 1
	}
	*c = Count{}
}

func (c *Count) add(id, bytes uint64) {
	c.Packets++
	c.Bytes += bytes
	c.IDs.add(id)
}
