package pair

import (
	"fmt"
	"strings"
)

// shownRanges keeps a text of ranges readable: the first ones, and then how many more.
const shownRanges = 16

// Ranges are packet ids, of which the first ranges are kept and the rest is
// counted, so that they are small whatever they stand for.
type Ranges struct {
	shown [][2]uint64 // at most shownRanges
	n     int         // ranges, also those that are not shown
	last  uint64
}

// Add takes an id, which is greater than those before.
func (r *Ranges) Add(id uint64) {
	switch {
	case r.n == 0 || r.last+1 != id:
		if r.n++; r.n <= shownRanges {
			r.shown = append(r.shown, [2]uint64{id, id})
		}
	case r.n <= shownRanges:
		r.shown[r.n-1][1] = id
	}
	r.last = id
}

// Empty tells whether there are none.
func (r *Ranges) Empty() bool { return r.n == 0 }

// String is the ids such as "4-6, 9".
func (r *Ranges) String() string {
	var b strings.Builder
	for i, span := range r.shown {
		if i > 0 {
			b.WriteString(", ")
		}
		if span[0] == span[1] {
			fmt.Fprint(&b, span[0])
		} else {
			fmt.Fprintf(&b, "%d-%d", span[0], span[1])
		}
	}
	if r.n > shownRanges {
		fmt.Fprintf(&b, " and %d ranges more, to %d", r.n-shownRanges, r.last)
	}
	return b.String()
}
