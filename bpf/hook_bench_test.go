package bpf

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// BenchmarkHook reports what the cgroup hooks cost in the kernel for each packet, from the kernel's
// own BPF run-time statistics: of sockets that are not followed, and of others.
func BenchmarkHook(b *testing.B) {
	ingress, both := HookOptions{Record: true}, HookOptions{Record: true, FromNetwork: true, Egress: true}
	for _, row := range []struct {
		name, program string
		opts          HookOptions
		marked        bool
	}{
		{"arrived/others", hookProgArrived, ingress, false},
		{"arrived/followed", hookProgArrived, ingress, true},
		{"arrived/followed and from the IP header", hookProgArrived, both, true},
		{"departed/others", hookProgDeparted, both, false},
		{"departed/followed", hookProgDeparted, both, true},
	} {
		for _, size := range []int{64, 1400} {
			b.Run(fmt.Sprintf("%s/bytes=%d", row.name, size), func(b *testing.B) {
				benchmarkHook(b, row.program, row.opts, row.marked, size)
			})
		}
	}
}

func benchmarkHook(b *testing.B, program string, opts HookOptions, marked bool, size int) {
	tap := mustOpen(b, Options{RingSize: DefaultRingSize, Snaplen: MaxSnaplen, WakeupBytes: DefaultRingSize / 4})
	hook := mustHook(b, tap, opts)
	receiver, sender := udpPair(b)
	if marked {
		for _, fd := range []int{receiver, sender} {
			if _, err := hook.Mark(fd); err != nil {
				b.Fatal(err)
			}
		}
	}
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
	defer stats.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := hook.objects.programs[program].Stats()
	if err != nil {
		b.Fatal(err)
	}
	payload := make([]byte, size)
	for b.Loop() {
		if err := unix.Send(sender, payload, 0); err != nil {
			b.Fatal(err)
		}
	}
	after, err := hook.objects.programs[program].Stats()
	if err != nil {
		b.Fatal(err)
	}
	tap.Flush()
	<-drained
	runs := after.RunCount - before.RunCount
	b.ReportMetric(float64((after.Runtime-before.Runtime).Nanoseconds())/float64(runs), "kernel-ns/packet")
}
