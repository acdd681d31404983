package text

import (
	"bytes"
	"strconv"
	"time"
)

// clock finds the times of packets in the lines about them.
type clock struct {
	boot  int64
	time  int64 // of the next packet, if known is set
	known bool
	last  int64 // of the packet before
	days  int64 // how often midnight has passed, in nanoseconds
	clock int64 // the last time of day
	// undated says that there are times of day alone.
	undated bool
}

// read reads the time that a line begins with, also behind a number, if there is one: a date with a time,
// a time of day, or seconds since 1970.
func (c *clock) read(line []byte) bool {
	line = bytes.TrimLeft(line[:min(len(line), maxLogged)], " ")
	if c.readFirst(line) {
		return true
	}
	n := leadingDigits(line)
	return n > 0 && n < len(line) && line[n] == ' ' && c.readFirst(bytes.TrimLeft(line[n:], " "))
}

func (c *clock) readFirst(line []byte) bool {
	const date = len("2006-01-02")
	if len(line) > date && line[4] == '-' && (line[date] == ' ' || line[date] == 'T') {
		n := timeOfDay(line[date+1:])
		t, err := time.ParseInLocation("2006-01-02 15:04:05", string(line[:date])+" "+string(line[date+1:date+1+n]), time.Local)
		if n == 0 || err != nil || t.Year() < 1970 || t.Year() > 2200 {
			return false
		}
		c.set(t.UnixNano())
		return true
	}
	if n := timeOfDay(line); n > 0 && endsWord(line, n) {
		t, err := time.Parse("15:04:05", string(line[:n]))
		if err != nil {
			return false
		}
		c.setOfDay(int64(t.Sub(time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC))))
		return true
	}
	if seconds, fraction := decimal(line); (seconds == 9 || seconds == 10) && fraction > 0 && endsWord(line, seconds+1+fraction) {
		c.set(parts(line[:seconds], line[seconds+1:seconds+1+fraction]))
		return true
	}
	return false
}

// readLogged reads the time in a line of the kernel's log, "[   12.345678]", or any other.
func (c *clock) readLogged(line []byte) {
	line = line[:min(len(line), maxLogged)]
	for rest := line; ; {
		_, after, found := bytes.Cut(rest, []byte("["))
		if !found {
			break
		}
		rest = after
		stamp := bytes.TrimLeft(after, " ")
		seconds, fraction := decimal(stamp)
		if seconds > 0 && seconds <= 9 && fraction == 6 && bytes.HasPrefix(stamp[seconds+1+fraction:], []byte("]")) {
			c.since(parts(stamp[:seconds], stamp[seconds+1:seconds+1+fraction]))
			return
		}
	}
	c.read(line)
}

// timeOfDay returns the length of a time of day with a fraction of up to nine digits, "15:04:05.678", 0 if
// there is none.
func timeOfDay(b []byte) int {
	const whole = len("15:04:05.")
	if len(b) <= whole || b[2] != ':' || b[5] != ':' || b[8] != '.' {
		return 0
	}
	n := min(leadingDigits(b[whole:]), 9)
	if n == 0 || leadingDigits(b) != 2 || leadingDigits(b[3:]) != 2 || leadingDigits(b[6:]) != 2 {
		return 0
	}
	return whole + n
}

// decimal returns how many digits there are before and behind a point, of which up to nine count.
func decimal(b []byte) (whole, fraction int) {
	whole = leadingDigits(b)
	if whole < len(b) && b[whole] == '.' {
		fraction = min(leadingDigits(b[whole+1:]), 9)
	}
	return whole, fraction
}

func leadingDigits(b []byte) (n int) {
	for n < len(b) && '0' <= b[n] && b[n] <= '9' {
		n++
	}
	return n
}

// endsWord tells whether a word of n bytes ends there.
func endsWord(b []byte, n int) bool { return n == len(b) || b[n] == ' ' }

func parts(seconds, fraction []byte) int64 {
	s, _ := strconv.ParseInt(string(seconds), 10, 64)
	f, _ := strconv.ParseInt((string(fraction) + "000000000")[:9], 10, 64)
	return s*1e9 + f
}

// setOfDay is set for a time of day, which begins another day if it is far before the last one.
func (c *clock) setOfDay(t int64) {
	if t+int64(12*time.Hour) < c.clock {
		c.days += int64(24 * time.Hour)
	}
	c.clock, c.undated = t, true
	c.set(c.days + t)
}

func (c *clock) set(t int64) { c.time, c.known = t, true }

// since is set for a time since the machine was booted.
func (c *clock) since(t int64) { c.set(c.boot + t) }

// next is the time of the next packet. One without a time comes a microsecond after the one before.
func (c *clock) next() (t int64, known bool) {
	known = c.known
	if c.last += 1000; c.known {
		c.last, c.known = c.time, false
	}
	return c.last, known
}
