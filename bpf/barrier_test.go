package bpf

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// barrier sends datagrams and waits until the kernel has brought them to their sockets, or
// dropped them. On a busy cpu it does that later than send returns, in ksoftirqd, but in the
// order in which they were sent on that cpu: so a datagram through sockets without a filter
// comes last.
type barrier struct{ receiver, sender int }

func newBarrier(tb testing.TB) barrier {
	tb.Helper()
	receiver, sender := udpPair(tb)
	return barrier{receiver, sender}
}

func (b barrier) send(tb testing.TB, fd int, payload []byte) {
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
	if err := unix.Send(fd, payload, 0); err != nil {
		tb.Fatal(err)
	}
	if err := unix.Send(b.sender, []byte{0}, 0); err != nil {
		tb.Fatal(err)
	}
	if _, err := unix.Read(b.receiver, make([]byte, 1)); err != nil {
		tb.Fatal(err)
	}
}
