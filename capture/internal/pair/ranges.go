package pair

// shownRanges is how many ranges are kept: more than anybody reads.
const shownRanges = 16

// Ranges are packet ids, of which the first ranges are kept and the rest is counted, so that
// the size is bounded.
type Ranges struct {
	Ranges [][2]uint64 // first and last id of each; at most shownRanges
	More   int         // ranges beyond those
	Last   uint64      // last id of those, 0 if there are none
}

// Add adds an id, which is greater than those before.
func (r *Ranges) Add(id uint64) {
	n := len(r.Ranges)
	switch {
	case r.More > 0:
		if r.Last+1 != id {
			r.More++
		}
		r.Last = id
	case n > 0 && r.Ranges[n-1][1]+1 == id:
		r.Ranges[n-1][1] = id
	case n < shownRanges:
		r.Ranges = append(r.Ranges, [2]uint64{id, id})
	default:
		r.More, r.Last = 1, id
	}
}

// Empty tells whether there are none.
func (r *Ranges) Empty() bool { return len(r.Ranges) == 0 }
