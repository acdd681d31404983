package capture

import (
	"fmt"
	"slices"
	"testing"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// Deliveries come in the order of their times, and of two with the same one, that which came
// first; and the memory of a batch is not used again before all of it was taken.
func TestPending(t *testing.T) {
	t.Parallel()
	random := testutil.Random(t)
	const span = 200 // how much earlier than the newest one a delivery may be
	var (
		w          pending
		added      uint32
		want       []delivery
		most, runs int
	)
	take := func(until int64) {
		for d := w.first(); d != nil && d.Time <= until; d = w.first() {
			if text := fmt.Sprint(d.tid); len(want) == 0 || d.Time != want[0].Time || d.tid != want[0].tid || string(d.Data) != text {
				t.Fatalf("%d at %d with %q, want %+v", d.tid, d.Time, d.Data, want[:min(1, len(want))])
			}
			want = want[1:]
			w.pop()
		}
	}
	for clock := int64(0); clock < 20_000; clock += 10 {
		next := w.spare()
		for range random.IntN(30) {
			added++
			d := delivery{tid: added}
			d.Time = clock - random.Int64N(span)
			next.put(&d, []byte(fmt.Sprint(added)))
			want = append(want, d)
		}
		slices.SortStableFunc(next.deliveries, byTime)
		slices.SortStableFunc(want, byTime)
		w.add(next)
		most, runs = max(most, len(w.batches)), runs+1
		take(clock - span)
	}
	take(1 << 62)
	if len(want) > 0 || w.first() != nil || len(w.batches) > 0 {
		t.Errorf("%d are left, and %d batches", len(want), len(w.batches))
	}
	if most < 2 || most > runs/10 {
		t.Errorf("up to %d batches waited of %d", most, runs)
	}
}

// steady is an origin of deliveries, so many at a time. A tenth of them began to be sent earlier
// than others that came before.
type steady struct {
	origin
	each, from int64
	early      int64
}

func (o *steady) take(b batch, _, _ bool) (batch, int64) {
	b.deliveries = slices.Grow(b.deliveries, int(o.each))[:o.each]
	for i := range o.each {
		d := &b.deliveries[i]
		if d.Time = o.from + i; i < o.each/10 {
			d.Time -= o.early
		}
	}
	o.from += o.each
	return b, o.from
}

// BenchmarkBacklog is what a delivery costs while others wait, which come in twenty batches; and
// what a packet and a call cost that are joined by it, among what is remembered of others.
func BenchmarkBacklog(b *testing.B) {
	benchmarkDepartures(b)
	benchmarkFreed(b)
	benchmarkSightings(b)
	for _, n := range []int64{100, 1000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("deliveries/waiting=%d", n), func(b *testing.B) {
			const batches = 20
			o := &steady{each: n / batches, early: n / 2}
			c := &collector{origin: o}
			for range batches {
				c.take(false)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if int64(i)%o.each == 0 {
					c.take(false)
				}
				c.waiting.pop()
			}
		})
	}
}

// Ancillary data is shown for its own message only, and what nobody takes is forgotten in the order
// in which it came.
func TestWaitingControls(t *testing.T) {
	t.Parallel()
	var f follower
	for tid := range uint32(3 * controlsKept) {
		f.controls.put(tid, waitingControls{cpu: 1, number: tid + 1})
	}
	if n := len(f.controls.recent) + len(f.controls.earlier); n > controlsKept {
		t.Errorf("%d wait", n)
	}
	const newest = 3*controlsKept - 1
	for _, row := range []struct {
		tid, cpu, number uint32
		found            bool
	}{
		{newest, 1, newest + 1, true},
		{newest, 1, newest + 1, false},     // it was taken
		{newest - 1, 1, newest + 1, false}, // that of an earlier message
		{newest - 2, 1, 0, false},          // the ring had no room for its own
		{newest - 3, 0, newest - 2, false}, // another cpu counts for itself
		{newest - controlsKept/4, 1, newest + 1 - controlsKept/4, true},
		{0, 1, 1, false},
	} {
		var r Reception
		e := bpf.Event{EventHeader: bpf.EventHeader{Tid: row.tid, Cpu: row.cpu, Control: row.number}}
		if f.takeControls(&e, &r); (r.ControlRest == 0) != row.found {
			t.Errorf("%+v: %+v", row, r)
		}
	}
}
