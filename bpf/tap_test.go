package bpf

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/capability"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// requirePrivilege ends a test that needs to load programs.
func requirePrivilege(tb testing.TB) {
	tb.Helper()
	if !capability.Held(unix.CAP_BPF) {
		testutil.Missing(tb, "needs CAP_BPF")
	}
}

func mustOpen(tb testing.TB, opts Options) *Tap {
	tb.Helper()
	requirePrivilege(tb)
	tap, err := open(opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { tap.Close() })
	return tap
}

func udpPair(tb testing.TB) (receiver, sender int) {
	tb.Helper()
	return testutil.UDPPair(tb)
}

// readAll drains the ring.
func readAll(tb testing.TB, tap *Tap, each func(*Record)) int {
	tb.Helper()
	if err := tap.Flush(); err != nil {
		tb.Fatal(err)
	}
	var (
		rec Record
		n   int
	)
	for {
		err := tap.Read(&rec)
		if errors.Is(err, ErrFlushed) {
			return n
		}
		if err != nil {
			tb.Fatal(err)
		}
		n++
		if each != nil {
			each(&rec)
		}
	}
}

func TestTapSeesEverySize(t *testing.T) {
	t.Parallel()
	const snaplen = 40000
	tap := mustOpen(t, Options{RingSize: 4 << 20, Snaplen: snaplen, WakeupBytes: 1 << 20})
	receiver, sender := udpPair(t)
	if err := tap.Attach(receiver); err != nil {
		t.Fatal(err)
	}

	sizes := []int{0, 1, 7, 55, 56, 57, 119, 120, 121, 1400, 2039, 2040, 2041, 39991, 39992, 39993, 60000}
	barrier := testutil.NewBarrier(t)
	for _, size := range sizes {
		barrier.Send(t, sender, bytes.Repeat([]byte{byte(size)}, size))
	}
	var i int
	readAll(t, tap, func(rec *Record) {
		size := sizes[i]
		i++
		if int(rec.Len) != size+8 || int(rec.Caplen) != min(size+8, snaplen) || len(rec.Data) != int(rec.Caplen) {
			t.Errorf("datagram of %d bytes: len %d, caplen %d, %d bytes of data", size, rec.Len, rec.Caplen, len(rec.Data))
			return
		}
		if want := bytes.Repeat([]byte{byte(size)}, len(rec.Data)-8); !bytes.Equal(rec.Data[8:], want) {
			t.Errorf("datagram of %d bytes: wrong payload", size)
		}
		if rec.Verdict != -1 {
			t.Errorf("verdict %d, want -1", rec.Verdict)
		}
		if net := rec.NetHeader(); len(net) != 20 || net[0] != 0x45 || net[9] != unix.IPPROTO_UDP {
			t.Errorf("datagram of %d bytes: network header %x", size, net)
		}
		if link := rec.LinkHeader(); len(link) != 14 || !bytes.Equal(link[12:], []byte{8, 0}) {
			t.Errorf("datagram of %d bytes: link header %x", size, link)
		}
	})
	if i != len(sizes) {
		t.Fatalf("read %d records, want %d", i, len(sizes))
	}
	c, err := tap.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if want := (Counters{Seen: uint64(i), Recorded: uint64(i), Truncated: 2}); c != want {
		t.Errorf("counters %+v, want %+v", c, want)
	}
}

func TestTapCountsWhatTheRingLoses(t *testing.T) {
	t.Parallel()
	tap := mustOpen(t, Options{RingSize: MinRingSize, Snaplen: MaxSnaplen, WakeupBytes: MinRingSize})
	receiver, sender := udpPair(t)
	if err := tap.Attach(receiver); err != nil {
		t.Fatal(err)
	}
	const sent = 100
	barrier := testutil.NewBarrier(t)
	for range sent {
		barrier.Send(t, sender, make([]byte, 30000))
	}
	n := readAll(t, tap, nil)
	c, err := tap.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if c.Seen != sent || c.RingFull == 0 || c.Recorded != uint64(n) || c.Seen != c.Recorded+c.Lost() {
		t.Errorf("read %d records, counters %+v", n, c)
	}

	barrier.Send(t, sender, nil)
	readAll(t, tap, func(rec *Record) {
		if rec.Lost != c.RingFull {
			t.Logf("cpu %d has lost %d of %d", rec.Cpu, rec.Lost, c.RingFull)
		}
	})
}

func TestTapReadEnds(t *testing.T) {
	t.Parallel()
	tap := mustOpen(t, Options{RingSize: MinRingSize, WakeupBytes: 1})

	tap.SetDeadline(time.Now())
	if err := tap.Read(new(Record)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}

	tap.SetDeadline(time.Time{})
	done := make(chan error)
	go func() { done <- tap.Read(new(Record)) }()
	if err := tap.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read during Close: %v", err)
	}
	if err := tap.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// Who waits without a deadline is woken when the threshold is crossed, and not before.
func TestTapWakesOnTheCrossing(t *testing.T) {
	t.Parallel()
	tap := mustOpen(t, Options{RingSize: MinRingSize, WakeupBytes: 10 * (headerSize + 64 + 8)})
	receiver, sender := udpPair(t)
	if err := tap.Attach(receiver); err != nil {
		t.Fatal(err)
	}
	unread := make(chan int)
	go func() {
		if err := tap.Wait(time.Time{}); err != nil {
			t.Error(err)
		}
		unread <- int(tap.Reserved()) / (headerSize + 64 + 8)
	}()
	for range 10 {
		if err := unix.Send(sender, []byte("x"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if n := <-unread; n != 10 {
		t.Errorf("woken at %d records, want 10", n)
	}
}

// Who sleeps is woken for each record that finds him asleep, however close that is to
// his falling asleep. A Nudge is for him alone, a Flush not.
func TestTapSleep(t *testing.T) {
	t.Parallel()
	const packets = 20_000
	tap := mustOpen(t, Options{RingSize: 16 << 20, WakeupBytes: 16 << 20, WakeFirst: true})
	var senders sync.WaitGroup
	for range 2 {
		receiver, sender := udpPair(t)
		if err := tap.Attach(receiver); err != nil {
			t.Fatal(err)
		}
		senders.Go(func() {
			for i := range packets / 2 {
				if err := unix.Send(sender, []byte("x"), 0); err != nil {
					t.Error(err)
				}
				for range i % 7 * 100 { // so that the reader falls asleep now and then
					runtime.Gosched()
				}
			}
		})
	}
	defer senders.Wait()
	slept := 0
	for taken := 0; taken < packets; slept++ {
		if err := tap.Sleep(time.Now().Add(time.Minute)); err != nil {
			t.Fatalf("after %d packets of %d: %v", taken, packets, err)
		}
		taken += takeAll(t, tap)
	}
	t.Logf("slept %d times for %d packets", slept, packets)
	if err := tap.Sleep(time.Now().Add(time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("with nothing to do: %v", err)
	}
	if err := tap.Nudge(); err != nil {
		t.Error(err)
	}
	if err := tap.Wait(time.Now().Add(time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nudged, Wait: %v", err)
	}
	if err := tap.Sleep(time.Time{}); err != nil {
		t.Errorf("nudged: %v", err)
	}
	if err := tap.Flush(); err != nil {
		t.Error(err)
	}
	if err := tap.Sleep(time.Time{}); !errors.Is(err, ErrFlushed) {
		t.Errorf("flushed: %v", err)
	}
}

// takeAll takes the records that are there, and gives their room back.
func takeAll(t *testing.T, tap *Tap) (taken int) {
	t.Helper()
	if err := tap.Begin(); err != nil {
		t.Fatal(err)
	}
	for {
		if _, _, ok := tap.Next(); !ok {
			tap.End(tap.At())
			return taken
		}
		taken++
	}
}

// A Wait does not end with the first record, whoever else is woken by it.
func TestTapWaitIsNoSleep(t *testing.T) {
	t.Parallel()
	for _, first := range []bool{false, true} {
		tap := mustOpen(t, Options{RingSize: MinRingSize, WakeupBytes: MinRingSize, WakeFirst: first})
		receiver, sender := udpPair(t)
		if err := tap.Attach(receiver); err != nil {
			t.Fatal(err)
		}
		if err := unix.Send(sender, []byte("x"), 0); err != nil {
			t.Fatal(err)
		}
		if err := tap.Wait(time.Now().Add(20 * time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wakes first %t: %v", first, err)
		}
	}
}

func TestTapStop(t *testing.T) {
	t.Parallel()
	tap := mustOpen(t, Options{RingSize: MinRingSize})
	receiver, sender := udpPair(t)
	if err := tap.Attach(receiver); err != nil {
		t.Fatal(err)
	}
	if err := tap.Stop(); err != nil {
		t.Fatal(err)
	}
	checkOff(t, tap, receiver, sender)
}

// checkOff holds that a tap on the receiver keeps everything and records nothing.
func checkOff(t *testing.T, tap *Tap, receiver, sender int) {
	t.Helper()
	testutil.NewBarrier(t).Send(t, sender, []byte("kept"))
	if n := readAll(t, tap, nil); n != 0 {
		t.Errorf("recorded %d packets after Stop", n)
	}
	buf := make([]byte, 16)
	if n, _, err := unix.Recvfrom(receiver, buf, unix.MSG_DONTWAIT); err != nil || string(buf[:n]) != "kept" {
		t.Errorf("received %q, %v after Stop", buf[:max(n, 0)], err)
	}
}

// A lease that nobody renews ends the tap, and with it the verdict.
func TestLease(t *testing.T) {
	t.Parallel()
	tap := mustOpen(t, Options{RingSize: MinRingSize, Snaplen: MaxSnaplen, Verdict: Keep(0), Leased: true})
	receiver, sender := udpPair(t)
	if err := tap.Attach(receiver); err != nil {
		t.Fatal(err)
	}
	testutil.NewBarrier(t).Send(t, sender, []byte("dropped"))
	if n := readAll(t, tap, nil); n != 1 {
		t.Errorf("recorded %d packets", n)
	}
	time.Sleep(Lease + Lease/4)
	checkOff(t, tap, receiver, sender)
}

func TestReject(t *testing.T) {
	t.Parallel()
	receiver, sender := udpPair(t)
	tap := mustOpen(t, Options{RingSize: MinRingSize})
	if err := tap.Rejection().Attach(receiver); err != nil {
		t.Fatal(err)
	}
	testutil.NewBarrier(t).Send(t, sender, []byte("dropped"))
	if n, _, err := unix.Recvfrom(receiver, make([]byte, 16), unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("received %d bytes, %v through a filter that rejects all", n, err)
	}
}

func TestAttachRefusals(t *testing.T) {
	t.Parallel()
	tap := mustOpen(t, Options{RingSize: MinRingSize})

	mptcp, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
	if err == nil {
		defer unix.Close(mptcp)
		var missing *MissingError
		if err := tap.Attach(mptcp); !errors.As(err, &missing) || !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("MPTCP socket: %v", err)
		}
	} else {
		t.Logf("no MPTCP on this kernel: %v", err)
	}

	locked, _ := udpPair(t)
	if err := unix.SetsockoptInt(locked, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1); err != nil {
		t.Fatal(err)
	}
	if err := tap.Attach(locked); !errors.Is(err, unix.EPERM) {
		t.Errorf("locked socket: %v", err)
	}

	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := tap.Attach(int(file.Fd())); !errors.Is(err, unix.ENOTSOCK) {
		t.Errorf("no socket: %v", err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, opts := range []Options{{RingSize: -1}, {RingSize: 4096}, {RingSize: 2 << 30}, {Snaplen: -1}, {Snaplen: MaxSnaplen + 1}} {
		if _, err := opts.withDefaults(); err == nil {
			t.Errorf("%+v is taken", opts)
		}
	}
	if opts, err := (Options{RingSize: 3 << 20}).withDefaults(); err != nil || opts.RingSize != 4<<20 {
		t.Errorf("3 MiB become %d, %v", opts.RingSize, err)
	}
}
