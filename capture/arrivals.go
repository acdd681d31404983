package capture

import (
	"runtime"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// arrivals are the records in the tap's ring that were looked at and not taken yet, in
// the order of their times. They lie in the ring all the while.
//
// In the ring they have the order in which the filters asked for room, and each filter
// took the time after that. So whoever has seen all records up to a place in the ring
// knows that all others have a later time than the moment when he chose that place.
type arrivals struct {
	waiting []arrival
	next    int                     // of waiting: those before it were taken
	end     bpf.Place               // of the last record in the ring that was looked at
	done    bpf.Place               // all records before this place were taken
	early   map[bpf.Place]bpf.Place // where those that were taken before their turn in the ring begin and end
	aim     bpf.Place               // place that was chosen last
	aimed   int64                   // boot time when it was chosen
	aiming  bool                    // it has not been reached
	horizon int64                   // boot time up to which everything has been seen
	busy    bool                    // the next record was still being written at the last look
	more    bool                    // the last look has left something for the next one
}

// arrival is a record in the ring.
type arrival struct {
	time int64 // on the boot clock
	// The record is at a place, and ends at another. from is where the one before it in
	// the ring ended: what was given up may lie between them.
	from, at, end bpf.Place
}

// waits tells whether there is something to do at once.
func (a *arrivals) waits() bool { return a.busy || a.more }

// empty tells whether all records that were there have been taken.
func (a *arrivals) empty() bool { return a.next == len(a.waiting) && !a.aiming }

// free is the place before which nothing is needed any more: behind what was given up as
// well, if that came last.
func (a *arrivals) free(tap *bpf.Tap) bpf.Place {
	if a.next == len(a.waiting) {
		return tap.At()
	}
	return a.done
}

// scan looks at the records up to a place that it chooses, all of them in a last look, and
// returns up to when everything has been seen.
func (a *arrivals) scan(tap *bpf.Tap, last bool) (horizon int64) {
	a.busy, a.more = false, false
	if !a.aiming || last {
		a.aimed, a.aim, a.aiming = bootNow(), tap.Reserved(), true
	}
	for tap.At() < a.aim {
		at, time, ok := tap.Next()
		switch {
		case ok:
			a.push(arrival{time, a.end, at, tap.At()})
			a.end = tap.At()
		case tap.At() >= a.aim: // what came last was given up
		case last:
			runtime.Gosched() // its cpu is about to complete it
		default:
			a.busy = true
			return a.horizon
		}
	}
	a.horizon, a.aiming = a.aimed, false
	return a.horizon
}

// push puts a record in its place, which is the last one or few before it: as many as
// there are cpus.
func (a *arrivals) push(new arrival) {
	// Moving what remains costs as much as it saves until half is gone.
	if a.next > len(a.waiting)/2 {
		a.waiting = append(a.waiting[:0], a.waiting[a.next:]...)
		a.next = 0
	}
	a.waiting = append(a.waiting, new)
	for i := len(a.waiting) - 1; i > a.next && a.waiting[i-1].time > new.time; i-- {
		a.waiting[i-1], a.waiting[i] = new, a.waiting[i-1]
	}
}

// first is the earliest record.
func (a *arrivals) first() (arrival, bool) {
	if a.next == len(a.waiting) {
		return arrival{}, false
	}
	return a.waiting[a.next], true
}

// pop notes that the earliest record was taken. Its room is given back when all before
// it in the ring were taken, too.
func (a *arrivals) pop() {
	taken := a.waiting[a.next]
	a.next++
	if taken.from != a.done {
		if a.early == nil {
			a.early = make(map[bpf.Place]bpf.Place)
		}
		a.early[taken.from] = taken.end
		return
	}
	a.done = taken.end
	for len(a.early) > 0 {
		end, ok := a.early[a.done]
		if !ok {
			return
		}
		delete(a.early, a.done)
		a.done = end
	}
}
