package bpf

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// BenchmarkTap reports what the tap costs in the kernel for each packet, from
// the kernel's own BPF run-time statistics: as it is, and when it wakes the
// reader for every packet.
func BenchmarkTap(b *testing.B) {
	for _, size := range []int{64, 1400} {
		for _, wake := range []struct {
			name  string
			bytes int
		}{{"wake=crossing", DefaultRingSize / 4}, {"wake=each", 0}} {
			b.Run(fmt.Sprintf("bytes=%d/%s", size, wake.name), func(b *testing.B) {
				benchmarkTap(b, size, wake.bytes)
			})
		}
	}
}

// drain reads what is recorded while a benchmark runs, and has the kernel time its programs. What it
// returns ends both the tap and the reading.
func drain(b *testing.B, tap *Tap) (end func()) {
	b.Helper()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		var rec Record
		for tap.Read(&rec) == nil {
		}
	}()
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { stats.Close() })
	runtime.LockOSThread()
	b.Cleanup(runtime.UnlockOSThread)
	return func() {
		tap.Flush()
		<-drained
	}
}

// timed returns how often a program has run since, and the nanoseconds that this took.
func timed(b *testing.B, program *ebpf.Program) func() (runs uint64, took float64) {
	b.Helper()
	stats := func() *ebpf.ProgramStats {
		s, err := program.Stats()
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	before := stats()
	return func() (uint64, float64) {
		after := stats()
		return after.RunCount - before.RunCount, float64((after.Runtime - before.Runtime).Nanoseconds())
	}
}

func benchmarkTap(b *testing.B, size, wakeupBytes int) {
	tap := mustOpen(b, Options{RingSize: DefaultRingSize, Snaplen: MaxSnaplen, WakeupBytes: wakeupBytes})
	receiver, sender := udpPair(b)
	if err := tap.Attach(receiver); err != nil {
		b.Fatal(err)
	}
	drained := drain(b, tap)
	payload := make([]byte, size)
	for b.Loop() {
		if err := unix.Send(sender, payload, 0); err != nil {
			b.Fatal(err)
		}
	}
	runs, total, err := tap.RunStats()
	if err != nil {
		b.Fatal(err)
	}
	drained()
	c, err := tap.Counters()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(total.Nanoseconds())/float64(runs), "kernel-ns/packet")
	b.ReportMetric(float64(c.Lost()), "lost")
}
