package capture

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
	"golang.org/x/sys/unix"
)

func TestClock(t *testing.T) {
	t.Parallel()
	c, err := newClock()
	if err != nil {
		t.Fatal(err)
	}
	if step, err := c.stepped(); step != 0 || err != nil {
		t.Errorf("a clock that nobody set was set by %v, %v", step, err)
	}
	c.offset -= int64(time.Hour)
	if step, err := c.stepped(); step.Round(time.Millisecond) != time.Hour || err != nil {
		t.Errorf("set by %v, %v, want an hour", step, err)
	}
	before := time.Now().UnixNano()
	c.offset += int64(time.Hour)
	at := c.wall(bootNow())
	after := time.Now().UnixNano()
	if at < before-c.bound || at > after+c.bound {
		t.Errorf("%d is not between %d and %d", at, before, after)
	}
}

// The kernel's own time of a packet, SO_TIMESTAMPNS, is taken before the filter
// runs; the wall clock after the receive call is later. Between the two, give
// or take the stated error, must be what the tap and the clock say.
func TestTimesAgainstTimestampNS(t *testing.T) {
	t.Parallel()
	testutil.RequirePrivilege(t)
	tap, err := bpf.Open(bpf.Options{RingSize: bpf.MinRingSize})
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	clock, err := newClock()
	if err != nil {
		t.Fatal(err)
	}
	receiver, sender := stampedPair(t)
	awaitStamps(t, receiver, sender)
	if err := tap.Attach(receiver); err != nil {
		t.Fatal(err)
	}
	const datagrams = 200
	var (
		rec  bpf.Record
		late []int64
	)
	for range datagrams {
		if err := unix.Send(sender, []byte(ProbePayload), 0); err != nil {
			t.Fatal(err)
		}
		stamp := receiveStamp(t, receiver)
		received, err := now(unix.CLOCK_REALTIME)
		if err != nil {
			t.Fatal(err)
		}
		if err := tap.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := tap.Read(&rec); err != nil {
			t.Fatal(err)
		}
		at := clock.wall(int64(rec.Time))
		if at < stamp-clock.bound || at > received+clock.bound {
			t.Errorf("captured %d ns after the stamp and %d ns before the return, bound %d ns", at-stamp, received-at, clock.bound)
		}
		late = append(late, at-stamp)
		if err := tap.Read(&rec); !errors.Is(err, bpf.ErrFlushed) {
			t.Fatalf("a second record: %v", err)
		}
	}
	slices.Sort(late)
	t.Logf("bound %d ns; the filter ran %d ns after the stamp (median)", clock.bound, late[len(late)/2])
}

// stampedPair makes a UDP socket with SO_TIMESTAMPNS and one connected to it.
func stampedPair(tb testing.TB) (receiver, sender int) {
	tb.Helper()
	receiver, sender = testutil.UDPPair(tb)
	if err := unix.SetsockoptInt(receiver, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		tb.Fatal(err)
	}
	return receiver, sender
}

// awaitStamps waits until the kernel stamps packets as they arrive. It begins to
// do so some time after the first socket asked, and gives the time of the
// receive call instead until then.
func awaitStamps(tb testing.TB, receiver, sender int) {
	tb.Helper()
	for range 1000 {
		if err := unix.Send(sender, []byte("awaiting"), 0); err != nil {
			tb.Fatal(err)
		}
		time.Sleep(time.Millisecond)
		called, err := now(unix.CLOCK_REALTIME)
		if err != nil {
			tb.Fatal(err)
		}
		if receiveStamp(tb, receiver) < called {
			return
		}
	}
	tb.Fatal("the kernel does not stamp packets as they arrive")
}

// receiveStamp receives a datagram and returns the kernel's time of it.
func receiveStamp(tb testing.TB, fd int) int64 {
	tb.Helper()
	oob := make([]byte, 128)
	_, n, _, _, err := unix.Recvmsg(fd, make([]byte, 64), oob, 0)
	if err != nil {
		tb.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		tb.Fatal(err)
	}
	for _, m := range messages {
		if m.Header.Type == unix.SO_TIMESTAMPNS {
			return int64(binary.NativeEndian.Uint64(m.Data))*1e9 + int64(binary.NativeEndian.Uint64(m.Data[8:]))
		}
	}
	tb.Fatal("no time stamp")
	return 0
}
