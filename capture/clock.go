package capture

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// clock turns the kernel's CLOCK_BOOTTIME, which the tap stamps packets with, into wall-clock
// time.
//
// The difference between the two changes only when the wall clock is set: NTP slews both alike,
// and both go on during suspend. So it is measured once, and times in one capture never jump.
type clock struct {
	offset int64 // wall clock minus boot time, nanoseconds
	bound  int64 // of offset's error, nanoseconds
}

// newClock reads the wall clock between two readings of the boot clock, several times, and
// keeps the pair with the smallest gap.
func newClock() (clock, error) {
	var best clock
	for range 64 {
		before, err := now(unix.CLOCK_BOOTTIME)
		if err != nil {
			return clock{}, err
		}
		wall, err := now(unix.CLOCK_REALTIME)
		if err != nil {
			return clock{}, err
		}
		after, err := now(unix.CLOCK_BOOTTIME)
		if err != nil {
			return clock{}, err
		}
		// Half the gap, rounded up, plus the clocks' resolution of a nanosecond.
		bound := (after-before+1)/2 + 1
		if best.bound == 0 || bound < best.bound {
			best = clock{offset: wall - before - (after-before)/2, bound: bound}
		}
	}
	return best, nil
}

// now reads a clock, in nanoseconds.
func now(id int32) (int64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0, fmt.Errorf("reading clock %d: %w", id, err)
	}
	return ts.Nano(), nil
}

// bootNow reads the boot clock, which cannot fail once newClock has read it.
func bootNow() int64 {
	t, _ := now(unix.CLOCK_BOOTTIME)
	return t
}

// wall converts a time on the boot clock to wall-clock time, in nanoseconds since the Unix
// epoch.
func (c clock) wall(boot int64) int64 { return boot + c.offset }

// stepped tells by how much the wall clock has been set since c was measured,
// or 0 if the difference is within the error of both measurements.
func (c clock) stepped() (time.Duration, error) {
	current, err := newClock()
	if err != nil {
		return 0, err
	}
	step := current.offset - c.offset
	if max(step, -step) <= c.bound+current.bound {
		return 0, nil
	}
	return time.Duration(step), nil
}
