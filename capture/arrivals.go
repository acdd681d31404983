package capture

import (
	"runtime"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// arrivals are the records in the tap's ring that were found and not taken yet, ordered by
// time. They stay in the ring until they are taken.
//
// The ring has them in the order in which the filters reserved room, and each filter reads the
// clock after that. So once all records before a position in the ring were seen, all others
// have a later time than the moment when that position was read.
type arrivals struct {
	waiting []arrival
	next    int                     // index into waiting: those before it were taken
	end     bpf.Place               // end of the last record in the ring that was scanned
	done    bpf.Place               // all records before this position were taken
	early   map[bpf.Place]bpf.Place // begin and end of records that were taken while earlier ones in the ring were not
	aim     bpf.Place               // position in the ring to scan up to
	aimed   int64                   // boot time when it was read
	aiming  bool                    // it has not been reached yet
	horizon int64                   // boot time up to which all records were seen
	busy    bool                    // the last scan ended at a record that was still being written
	more    bool                    // the last scan has left records for the next one
}

// arrival is a record in the ring.
type arrival struct {
	time int64 // on the boot clock
	// The record begins at a position, and ends at another. from is where the record before it
	// in the ring ended: discarded records may be between them.
	from, at, end bpf.Place
}

// waits tells whether the next scan should follow at once.
func (a *arrivals) waits() bool { return a.busy || a.more }

// empty tells whether all records in the ring have been taken.
func (a *arrivals) empty() bool { return a.next == len(a.waiting) && !a.aiming }

// free is the position before which the ring can be released, including discarded records at
// its end.
func (a *arrivals) free(tap *bpf.Tap) bpf.Place {
	if a.next == len(a.waiting) {
		return tap.At()
	}
	return a.done
}

// scan reads the records up to the current end of the ring, or all of them the last time, and
// returns the time up to which everything has been seen.
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
		case tap.At() >= a.aim: // the last records were discarded
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

// push inserts a record by time: at the end, or before as few records as there are cpus.
func (a *arrivals) push(new arrival) {
	// Compacting only when half is gone makes its cost constant per record.
	if a.next > len(a.waiting)/2 {
		a.waiting = append(a.waiting[:0], a.waiting[a.next:]...)
		a.next = 0
	}
	a.waiting = append(a.waiting, new)
	for i := len(a.waiting) - 1; i > a.next && a.waiting[i-1].time > new.time; i-- {
		a.waiting[i-1], a.waiting[i] = new, a.waiting[i-1]
	}
}

// first returns the earliest record.
func (a *arrivals) first() (arrival, bool) {
	if a.next == len(a.waiting) {
		return arrival{}, false
	}
	return a.waiting[a.next], true
}

// pop notes that the earliest record was taken. Its room is released when all before it in the
// ring were taken, too.
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
