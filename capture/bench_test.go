package capture

import (
	"context"
	"encoding/binary"
	"testing"
)

// BenchmarkFlood sends 64-byte datagrams as fast as one process can into a whole
// session, and reports what the ring lost, out of b.N, and how many reached
// userspace in spite of it being busy.
func BenchmarkFlood(b *testing.B) {
	ns := mustNamespace(b)
	s, err := Open(Config{Kind: mustKind(b, "udp"), Namespace: ns})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	conn := dialIn(b, s, "udp")
	defer conn.Close()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	done := make(chan error)
	go func() { done <- s.Run(ctx, nothing{}) }()

	payload := make([]byte, 64)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		binary.BigEndian.PutUint64(payload, uint64(i))
		if _, err := conn.Write(payload); err != nil {
			b.Fatal(err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	counts, err := s.Counts()
	if err != nil {
		b.Fatal(err)
	}
	if counts.Tap.Seen != uint64(b.N) || counts.Captured != counts.Tap.Recorded {
		b.Errorf("sent %d: %+v", b.N, counts)
	}
	b.ReportMetric(float64(counts.Tap.Lost()), "lost")
	b.ReportMetric(float64(counts.Delivered)/float64(b.N), "delivered/packet")
}
