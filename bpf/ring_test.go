package bpf

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// Records that go over the end of the ring are as whole as all others, also while others
// from before and after them are in use.
func TestRingOverItsEnd(t *testing.T) {
	t.Parallel()
	tap := mustOpen(t, Options{RingSize: MinRingSize, Snaplen: MaxSnaplen, WakeupBytes: MinRingSize})
	receiver, sender := udpPair(t)
	if err := tap.Attach(receiver); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	payload := func(n uint32) []byte {
		p := bytes.Repeat(binary.NativeEndian.AppendUint32(nil, n), 1+int(n*2654435761>>18)) // up to 64 KB
		return p[:min(len(p), 60_000)]
	}
	barrier, over := testutil.NewBarrier(t), 0
	for sent, taken := uint32(0), uint32(0); over < 20; {
		for range 1 + random.IntN(4) {
			barrier.Send(t, sender, payload(sent))
			sent++
		}
		if err := tap.Begin(); err != nil {
			t.Fatal(err)
		}
		var places []Place
		for {
			at, _, ok := tap.Next()
			if !ok {
				break
			}
			if uint64(at)&(MinRingSize-1)+uint64(tap.At()-at) > MinRingSize {
				over++
			}
			places = append(places, at)
		}
		records := make([]Record, len(places))
		for i, at := range places {
			if err := tap.Load(at, &records[i]); err != nil {
				t.Fatal(err)
			}
		}
		for _, rec := range records {
			if want := payload(taken); !bytes.Equal(rec.Data[8:], want) {
				t.Fatalf("packet %d has other bytes: %d of %d", taken, len(rec.Data)-8, len(want))
			}
			taken++
		}
		tap.End(tap.At())
		if taken != sent {
			t.Fatalf("%d of %d packets", taken, sent)
		}
	}
}
