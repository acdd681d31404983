package pair

import (
	"testing"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// Packets on one cpu or two, whose filter and whose queue drop some: at each
// delivery no more is told than the queue has dropped, whatever order the cpus
// count in; and with one cpu exactly that, in the end also with two.
func TestQueueLossIsNeverTooMuch(t *testing.T) {
	t.Parallel()
	random := testutil.Random(t)
	for cpus := 1; cpus <= 2; cpus++ {
		for range 200 {
			l := QueueLoss{Filters: true}
			var counted, dropped, all uint64 // drops in the socket's count; of the queue; told
			var held int                     // drops of the filter that a cpu has yet to count
			for clock := int64(1); clock < 2000; clock++ {
				p := Packet{Time: clock, CPU: uint32(random.IntN(cpus)), Verdict: -1}
				if random.IntN(2) == 0 {
					p.Verdict = 0
				}
				l.saw(&p)
				if p.Verdict == 0 {
					if cpus > 1 && random.IntN(3) == 0 {
						held++
					} else {
						counted++
					}
					continue
				}
				// The other cpu may go on while this one is on its way to the queue.
				received := clock
				for cpus > 1 && random.IntN(3) == 0 {
					clock++
					received = clock
					l.saw(&Packet{Time: clock, CPU: 1 - p.CPU, Verdict: 0})
					counted++
				}
				if held > 0 && random.IntN(2) == 0 {
					counted, held = counted+uint64(held), 0
				}
				if random.IntN(4) == 0 {
					counted, dropped = counted+1, dropped+1
					continue
				}
				told, exact := l.told(&Delivery{Time: received, Drops: counted}, p.Time)
				all += told
				if all > dropped || cpus == 1 && (all != dropped || !exact) {
					t.Fatalf("%d cpus: told %d of %d, exact: %v", cpus, all, dropped, exact)
				}
			}
			counted += uint64(held)
			told, _ := l.told(&Delivery{Time: 1 << 62, Drops: counted}, 0)
			if all += told; all != dropped {
				t.Fatalf("%d cpus: told %d of %d in the end", cpus, all, dropped)
			}
		}
	}
}

// While nothing is delivered, little is kept, and later not too much told.
func TestQueueLossBoundsMemory(t *testing.T) {
	t.Parallel()
	l := QueueLoss{Filters: true}
	const packets = 10 * decidedLimit
	for clock := range int64(packets) {
		l.saw(&Packet{Time: clock, Verdict: 0})
	}
	if len(l.decided) > 4*decidedLimit {
		t.Errorf("%d times are kept", len(l.decided))
	}
	if told, _ := l.told(&Delivery{Time: packets, Drops: packets + 3}, packets); told != 3 {
		t.Errorf("told %d of 3", told)
	}
}
