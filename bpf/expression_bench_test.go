package bpf

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkExpression reports what a packet costs in the kernel, from its own BPF run-time statistics: recorded
// without an expression, recorded because one chooses it, and left out by one, without and with a note.
func BenchmarkExpression(b *testing.B) {
	const others = "port 1 and host 10.0.0.1"
	for _, row := range []struct {
		name, text string
		notes      bool
	}{
		{"without", "", false},
		{"chosen", "udp and not port 1", false},
		{"left out", others, false},
		{"left out by host", "host 10.0.0.1", false},
		{"left out by many", "tcp port 80 or 443 or host 10.0.0.1 or net 192.168.0.0/16 or udp port 53 and greater 1000 or icmp", false},
		{"left out with a note", others, true},
	} {
		for _, size := range []int{64, 1400} {
			b.Run(fmt.Sprintf("%s/bytes=%d", row.name, size), func(b *testing.B) { benchmarkExpression(b, row.text, row.notes, size) })
		}
	}
}

func benchmarkExpression(b *testing.B, text string, notes bool, size int) {
	opts := Options{RingSize: DefaultRingSize, Snaplen: MaxSnaplen, WakeupBytes: DefaultRingSize / 4, Notes: notes}
	if text != "" {
		var err error
		if opts.Expression, err = ParseExpression(text); err != nil {
			b.Fatal(err)
		}
	}
	tap := mustOpen(b, opts)
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
	b.ReportMetric(float64(total.Nanoseconds())/float64(runs), "kernel-ns/packet")
}
