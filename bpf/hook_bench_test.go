package bpf

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkHook reports what the cgroup hooks cost in the kernel for each packet, from the kernel's
// own BPF run-time statistics: of sockets that are not followed, and of others.
func BenchmarkHook(b *testing.B) {
	ingress, both := HookOptions{Record: true}, HookOptions{Record: true, FromNetwork: true, Egress: true}
	telling := HookOptions{Record: true, TellFilters: true}
	for _, row := range []struct {
		name, program string
		opts          HookOptions
		marked        bool
		filter        int // instructions of the classic filter that the socket has
	}{
		{"arrived/others", hookProgArrived, ingress, false, 0},
		{"arrived/followed", hookProgArrived, ingress, true, 0},
		{"arrived/followed and from the IP header", hookProgArrived, both, true, 0},
		{"arrived/followed and without a filter to tell of", hookProgArrived, telling, true, 0},
		{"arrived/followed and with a filter of 24 instructions", hookProgArrived, telling, true, 24},
		{"arrived/followed and with a filter of 512 instructions", hookProgArrived, telling, true, 512},
		{"departed/others", hookProgDeparted, both, false, 0},
		{"departed/followed", hookProgDeparted, both, true, 0},
	} {
		for _, size := range []int{64, 1400} {
			b.Run(fmt.Sprintf("%s/bytes=%d", row.name, size), func(b *testing.B) {
				benchmarkHook(b, row.program, row.opts, row.marked, row.filter, size)
			})
		}
	}
}

func benchmarkHook(b *testing.B, program string, opts HookOptions, marked bool, filter, size int) {
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
	if filter > 0 {
		classic := make([]unix.SockFilter, filter)
		for i := range classic {
			classic[i] = unix.SockFilter{Code: unix.BPF_LD | unix.BPF_IMM, K: uint32(i)}
		}
		classic[filter-1] = unix.SockFilter{Code: unix.BPF_RET, K: MaxSnaplen}
		if err := unix.SetsockoptSockFprog(receiver, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(filter), Filter: &classic[0]}); err != nil {
			b.Fatal(err)
		}
	}
	drained := drain(b, tap)
	spent := timed(b, hook.objects.programs[program])
	payload := make([]byte, size)
	for b.Loop() {
		if err := unix.Send(sender, payload, 0); err != nil {
			b.Fatal(err)
		}
	}
	runs, took := spent()
	drained()
	b.ReportMetric(took/float64(runs), "kernel-ns/packet")
}
