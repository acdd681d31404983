package bpf

import "fmt"

// CallCounters is the ledger of Calls: Seen = Recorded + RingFull + Fault.
type CallCounters struct {
	// Seen counts the events that were to be recorded.
	Seen uint64
	// Recorded counts the events that went into the ring.
	Recorded uint64
	// RingFull counts the events that found no room in the ring.
	RingFull uint64
	// Fault counts the events whose bytes could not be read from the process's memory.
	Fault uint64
	// Truncated counts the messages whose bytes were more than the snaplen or in too many pieces.
	Truncated uint64
	// Missed counts the calls, of all processes, for which the kernel skipped the programs,
	// and those whose arguments could not be stored. Most are calls that would not have
	// been recorded.
	Missed uint64
}

// Lost is the number of events that should be in the capture and are not. Some of those missed
// may add to it.
func (c CallCounters) Lost() uint64 { return c.RingFull + c.Fault }

// Counters reads the ledger as it stands, summed over all cpus.
func (c *Calls) Counters() (CallCounters, error) {
	sum, err := sumCallCounters(c.counts)
	if err != nil {
		return sum, err
	}
	missed := c.objects.recursionMisses
	switch {
	case c.way == atFunctions:
		// What the raw tracepoint misses, of all calls of the machine, is of no interest but for
		// those that were in progress when they began to be followed: they are too few to tell.
		sum.Missed += missed(callsProgCalled) + c.probes.missed()
	case c.way == atTracepoints:
		sum.Missed += missed(callsProgBegins) + missed(callsProgEnds)
	case Preemptible():
		// A call is missed if both copies miss it.
		sum.Missed += min(missed(callsProgReturned), missed(callsProgReturnedAgain))
	default:
		sum.Missed += missed(callsProgReturned)
	}
	if c.uring != nil {
		sum.Missed += c.uring.missed()
	}
	return sum, nil
}

// SendCounters reads the ledger of the calls that send, which is one of its own; zero without
// CallsOptions.Sends.
func (c *Calls) SendCounters() (CallCounters, error) {
	if c.sends == nil {
		return CallCounters{}, nil
	}
	return c.sends.counters()
}

// sumCallCounters sums the counters of a ledger over all cpus.
func sumCallCounters(counts *counts[callsEventCounters]) (sum CallCounters, err error) {
	all, err := counts.read()
	if err != nil {
		return sum, fmt.Errorf("the system calls: %w", err)
	}
	for _, n := range all {
		sum.Seen += n.Seen
		sum.Recorded += n.Recorded
		sum.RingFull += n.RingFull
		sum.Fault += n.Fault
		sum.Truncated += n.Truncated
		sum.Missed += n.Missed
	}
	return sum, nil
}

// recursionMisses counts how often the kernel skipped a program. Before Linux 5.12 it does not
// count that.
func (l *loaded) recursionMisses(program string) uint64 {
	p := l.programs[program]
	if p == nil {
		return 0
	}
	stats, err := p.Stats()
	if err != nil {
		return 0
	}
	return stats.RecursionMisses
}
