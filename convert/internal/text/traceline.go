package text

import (
	"bytes"
	"math"
)

// tracePrefix is the prefix of a line in the kernel's trace:
//
//	<...>-2834    [001] ..s31  1234.567890: bpf_trace_printk:
//
// These are task and pid (with the option record-tgid also the thread group in
// parentheses), cpu, flags, seconds since boot, and the function, which is only a colon
// up to Linux 5.8. There are four flags up to Linux 5.12, five since then, and none with
// the option noirq-info.
type tracePrefix struct {
	place    int // size of task, pid and cpu
	task     []byte
	pid, cpu int
	context  byte  // the interrupt flag, 0 if there are no flags
	time     int64 // in nanoseconds
	timeEnd  int   // offset of the end of the time's digits
	micros   bool  // the time has six decimals
	text     int   // offset of the text
}

// parsePrefix parses the prefix of a line. A task's name may contain anything, including
// what looks like a cpu.
func parsePrefix(line []byte) (tracePrefix, bool) {
	for at := 0; ; at++ {
		n := bytes.IndexByte(line[at:], '[')
		if n < 0 {
			return tracePrefix{}, false
		}
		at += n
		if p, ok := prefixAround(line, at); ok {
			return p, true
		}
	}
}

// prefixAround parses the prefix whose cpu is in the bracket at an offset.
func prefixAround(line []byte, bracket int) (p tracePrefix, ok bool) {
	if !p.parseTask(line[:bracket]) {
		return p, false
	}
	cpu, rest, ok := cutNumber(line[bracket+1:], 10)
	if !ok || cpu > math.MaxInt32 || len(rest) < 2 || rest[0] != ']' || rest[1] != ' ' {
		return p, false
	}
	p.cpu = int(cpu)
	p.place = len(line) - len(rest) + 1
	rest = bytes.TrimLeft(rest[1:], " ")
	if !p.parseTime(line, rest) {
		flags := bytes.IndexByte(rest, ' ')
		if flags < 3 || flags > 8 {
			return p, false
		}
		p.context = rest[2]
		if !p.parseTime(line, bytes.TrimLeft(rest[flags:], " ")) {
			return p, false
		}
	}
	p.text += functionSize(line[p.text:])
	return p, true
}

// parseTask parses what precedes the cpu.
func (p *tracePrefix) parseTask(b []byte) bool {
	trimmed := bytes.TrimRight(b, " ")
	if len(trimmed) == len(b) {
		return false
	}
	if bytes.HasSuffix(trimmed, []byte{')'}) {
		group := bytes.LastIndexByte(trimmed, '(')
		if group < 0 {
			return false
		}
		trimmed = bytes.TrimRight(trimmed[:group], " ")
	}
	dash := bytes.LastIndexByte(trimmed, '-')
	if dash < 0 {
		return false
	}
	pid, rest, ok := cutNumber(trimmed[dash+1:], 10)
	p.task, p.pid = bytes.TrimLeft(trimmed[:dash], " "), int(min(pid, math.MaxInt32))
	return ok && len(rest) == 0 && pid <= math.MaxInt32
}

// parseTime parses a time in seconds that ends with a colon, at the start of rest, which
// is the tail of line.
func (p *tracePrefix) parseTime(line, rest []byte) bool {
	seconds, rest, ok := cutNumber(rest, 10)
	const longest = 1 << 32 // seconds, which leaves room to add the boot time
	if !ok || seconds >= longest || len(rest) == 0 || rest[0] != '.' {
		return false
	}
	point := len(rest)
	fraction, rest, ok := cutNumber(rest[1:], 10)
	digits := point - 1 - len(rest)
	if !ok || digits > 9 || len(rest) == 0 || rest[0] != ':' {
		return false
	}
	p.micros = digits == 6
	for ; digits < 9; digits++ {
		fraction *= 10
	}
	p.time = int64(seconds)*1e9 + int64(fraction)
	p.timeEnd = len(line) - len(rest)
	rest = rest[1:]
	if len(rest) > 0 {
		if rest[0] != ' ' {
			return false
		}
		rest = rest[1:]
	}
	p.text = len(line) - len(rest)
	return true
}

// functionSize is the size of the function's name with the colon and the space after it,
// 0 if there is none.
func functionSize(b []byte) int {
	if len(b) == 0 || b[0] == '\t' || bytes.HasPrefix(b, []byte(KernelHead)) {
		return 0
	}
	end := bytes.IndexAny(b, ": \t")
	if end < 0 || b[end] != ':' {
		return 0
	}
	if end+1 < len(b) && b[end+1] == ' ' {
		return end + 2
	}
	return end + 1
}

// parseLost parses the line that stands for events that did not fit into the trace: CPU:1
// [LOST 123 EVENTS]. The number is 0 if the kernel does not know it.
func parseLost(line []byte) (cpu int, events uint64, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte("CPU:"))
	if !ok {
		return 0, 0, false
	}
	n, rest, ok := cutNumber(rest, 10)
	if !ok || n > math.MaxInt32 {
		return 0, 0, false
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(" [LOST ")); !ok {
		return 0, 0, false
	}
	if string(rest) == "EVENTS]" {
		return int(n), 0, true
	}
	events, rest, ok = cutNumber(rest, 10)
	return int(n), events, ok && string(rest) == " EVENTS]"
}
