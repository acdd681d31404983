package testutil

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Barrier sends datagrams and waits until the kernel has brought them to their sockets, or
// dropped them. On a busy cpu it does that later than send returns, in ksoftirqd, but in the
// order in which they were sent on that cpu: so a datagram through sockets without a filter
// comes last.
type Barrier struct{ receiver, sender int }

// NewBarrier makes the sockets without a filter.
func NewBarrier(tb testing.TB) Barrier {
	tb.Helper()
	receiver, sender := UDPPair(tb)
	return Barrier{receiver, sender}
}

// Send sends a datagram over a connected socket, and waits.
func (b Barrier) Send(tb testing.TB, fd int, payload []byte) {
	tb.Helper()
	b.Do(tb, func() {
		if err := unix.Send(fd, payload, 0); err != nil {
			tb.Fatal(err)
		}
	})
}

// Do waits for all that send sends, which stays on one cpu, and for what the kernel answers to
// that by itself: each round of the barrier comes after what the one before has set off.
func (b Barrier) Do(tb testing.TB, send func()) {
	tb.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var allowed, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		tb.Fatal(err)
	}
	cpu := 0
	for !allowed.IsSet(cpu) {
		cpu++
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		tb.Fatal(err)
	}
	defer func() {
		if err := unix.SchedSetaffinity(0, &allowed); err != nil {
			tb.Error(err)
		}
	}()
	send()
	for range 3 {
		if err := unix.Send(b.sender, []byte{0}, 0); err != nil {
			tb.Fatal(err)
		}
		if _, err := unix.Read(b.receiver, make([]byte, 1)); err != nil {
			tb.Fatal(err)
		}
	}
}
