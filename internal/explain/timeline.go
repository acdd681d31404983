package explain

// lane is what a time line shows besides others.
type lane uint8

const (
	laneArrived lane = iota
	laneStopped
	laneRead
	laneSent
	laneDropped
	laneCount
)

// String is the lane's name, in at most 8 columns.
func (l lane) String() string {
	return [...]string{"arrived", "stopped", "read", "sent", "dropped"}[l]
}

// timelineCells is into how many parts of equal length a time line is divided at most, and at least
// into half of them, unless it is shorter than that in nanoseconds.
const timelineCells = 256

// timeline counts events of each lane in parts of equal length, of a time that is not known before.
type timeline struct {
	// start and end are the earliest and the latest event, origin is where the first cell begins, all in
	// nanoseconds, and a cell has 1<<shift of them.
	start, end, origin int64
	shift              uint
	begun              bool
	lanes              [laneCount][]uint32
}

// latest is after all times that a time line has: no file makes one longer than can be computed with.
const latest = 1 << 62

// add counts an event. Times before the epoch are taken for it.
func (t *timeline) add(l lane, at int64) {
	at = min(max(at, 0), latest)
	if !t.begun {
		t.begun, t.start, t.end, t.origin = true, at, at, at
	}
	t.start, t.end = min(t.start, at), max(t.end, at)
	for t.start < t.origin {
		if cells := (t.origin-t.start-1)>>t.shift + 1; (t.end-t.origin)>>t.shift+cells < timelineCells {
			t.before(int(cells))
		} else {
			t.fold()
		}
	}
	for (t.end-t.origin)>>t.shift >= timelineCells {
		t.fold()
	}
	cell := int((at - t.origin) >> t.shift)
	for len(t.lanes[l]) <= cell {
		t.lanes[l] = append(t.lanes[l], 0)
	}
	t.lanes[l][cell]++
}

// before begins that many cells earlier.
func (t *timeline) before(cells int) {
	t.origin -= int64(cells) << t.shift
	for l, counts := range t.lanes {
		if len(counts) > 0 {
			t.lanes[l] = append(make([]uint32, cells, timelineCells), counts...)
		}
	}
}

// fold doubles the length of the cells.
func (t *timeline) fold() {
	for l, counts := range t.lanes {
		for i, n := range counts {
			if i%2 == 0 {
				counts[i/2] = n
			} else {
				counts[i/2] += n
			}
		}
		t.lanes[l] = counts[:(len(counts)+1)/2]
	}
	t.shift++
}

// columns divides the time from the first to the last event into that many parts, and returns how many
// events of a lane are in each.
func (t *timeline) columns(l lane, parts int) []uint64 {
	all := make([]uint64, parts)
	whole := float64(t.end - t.origin + 1)
	for i, n := range t.lanes[l] {
		at := int(float64(int64(i)<<t.shift) / whole * float64(parts))
		all[min(at, parts-1)] += uint64(n)
	}
	return all
}
