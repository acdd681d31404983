package explain

import (
	"encoding/json"
	"fmt"
	"strings"
)

// IDs is a set of packet ids as ranges: the first ones, and how many there are
// beyond them.
//
// In JSON it is an object: "ranges" is a list of pairs, first and last id,
// and "omitted" the number of ranges that are not in that list.
type IDs struct {
	ranges  [][2]uint64
	omitted uint64
	last    [2]uint64 // the last of those omitted
}

// shownRanges is how many ranges are kept: more than a person reads.
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

// proseRanges is how many ranges a sentence has room for.
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

// MarshalJSON is as the type says.
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

func (c *Count) add(id, bytes uint64) {
	c.Packets++
	c.Bytes += bytes
	c.IDs.add(id)
}
