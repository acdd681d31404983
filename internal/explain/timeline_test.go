package explain

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// Whatever the order of events and the time between them, none is lost, each is where it was to within
// a part, and the parts stay few.
func TestTimeline(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 2))
	for range 300 {
		var line timeline
		var times []int64
		for range 1 + random.IntN(300) {
			at := int64(1e9) + int64(random.Uint64()>>(1+random.IntN(63)))%1e9
			times = append(times, at)
			line.add(laneRead, at)
		}
		slices.Sort(times)
		first, last := times[0], times[len(times)-1]
		equal(t, "start", line.start, first)
		equal(t, "end", line.end, last)
		if n := len(line.lanes[laneRead]); n > timelineCells {
			t.Errorf("%d cells", n)
		}
		if whole := last - first; whole >= timelineCells && whole>>line.shift < timelineCells/2-1 {
			t.Errorf("%d ns in cells of %d", whole, 1<<line.shift)
		}
		const parts = 64
		var got, want [parts]uint64
		var sum uint64
		for i, n := range line.columns(laneRead, parts) {
			got[i] = n
			sum += n
		}
		equal(t, "events", sum, uint64(len(times)))
		for _, at := range times {
			want[min(int(float64(at-first)/float64(last-first+1)*parts), parts-1)]++
		}
		var sofar, should uint64
		for i := range parts - 1 { // an event may be one part beside its own
			sofar += got[i]
			if should > sofar {
				t.Fatalf("%d events up to part %d, at least %d want to be there", sofar, i, should)
			}
			should += want[i]
			if sofar > should+want[i+1] {
				t.Fatalf("%d events up to part %d, at most %d may be there", sofar, i, should+want[i+1])
			}
		}
	}
}

func TestTimelineFolds(t *testing.T) {
	t.Parallel()
	var line timeline
	for at := range int64(1000) {
		line.add(laneArrived, 1000+at)
	}
	line.add(laneDropped, 1999)
	line.add(laneArrived, 976)
	equal(t, "cells", len(line.lanes[laneArrived]), 256)
	equal(t, "in a cell", line.lanes[laneArrived][100], 4)
	equal(t, "first", line.lanes[laneArrived][0], 1)
	equal(t, "dropped", line.columns(laneDropped, 8)[7], 1)
	// No time of a file is too much.
	for _, at := range []int64{math.MaxInt64, math.MinInt64, 0} {
		line.add(laneRead, at)
	}
	equal(t, "read", line.columns(laneRead, 8)[0], 2)
	equal(t, "read", line.columns(laneRead, 8)[7], 1)
}
