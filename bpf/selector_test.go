package bpf

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/capability"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

func requireSelectors(tb testing.TB) {
	tb.Helper()
	if !capability.Held(unix.CAP_BPF) || !capability.Held(unix.CAP_PERFMON) {
		testutil.Missing(tb, "needs CAP_BPF and CAP_PERFMON")
	}
}

// group opens sockets that are bound to one address, for one selector.
func group(tb testing.TB, size int) (sockets []int, to unix.Sockaddr) {
	tb.Helper()
	to = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	for range size {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { unix.Close(fd) })
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			tb.Fatal(err)
		}
		if err := unix.Bind(fd, to); err != nil {
			tb.Fatal(err)
		}
		if to, err = unix.Getsockname(fd); err != nil {
			tb.Fatal(err)
		}
		sockets = append(sockets, fd)
	}
	return sockets, to
}

// took finds which of the sockets got a message; -1 for none. On a busy machine it comes some time
// after the socket was chosen.
func took(tb testing.TB, sockets []int, message string, wait time.Duration) int {
	tb.Helper()
	got := make([]byte, 100)
	var all []unix.PollFd
	for _, fd := range sockets {
		all = append(all, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	if _, err := unix.Poll(all, int(wait.Milliseconds())); err != nil && !errors.Is(err, unix.EINTR) {
		tb.Fatal(err)
	}
	for i, fd := range sockets {
		n, _, err := unix.Recvfrom(fd, got, unix.MSG_DONTWAIT)
		if err == nil {
			if string(got[:n]) != message {
				tb.Fatalf("socket %d got %q", i, got[:n])
			}
			return i
		}
	}
	return -1
}

func mustReadSelection(tb testing.TB, path, program string) *Selection {
	tb.Helper()
	s, err := ReadSelection(path, program)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// The socket that gets a datagram is the one that the record says; and with or without the record the
// program chooses the same.
func TestSelector(t *testing.T) {
	t.Parallel()
	requireSelectors(t)
	choose := object(t, "choose", "-g")
	const size = 4
	for _, test := range []struct {
		program, message string
		takes            int // -1 for none, -2 for whichever
		verdict          int32
		chosen           Chosen
	}{
		{"digit", "2 two", 2, Passes, Chosen{Calls: 1, Index: 2}},
		{"digit", "0", 0, Passes, Chosen{Calls: 1}},
		{"digit", "x none", -1, ChoosesNobody, Chosen{}},
		{"digit", "h hash", -2, Passes, Chosen{}},
		{"digit", "7 there is not", -2, Passes, Chosen{Calls: 1, Index: 7, Errno: unix.ENOENT}},
		{"nothing", "any", -2, Passes, Chosen{}},
		{"migrating", "any", 1, Passes, Chosen{Calls: 1, Index: 1}},
		{"number", "3 three", 3, 3, Chosen{}},
		{"number", "9 nine", -2, 9, Chosen{}},
	} {
		selection := mustReadSelection(t, choose, test.program)
		for _, record := range []bool{true, false} {
			name := fmt.Sprintf("%s %q, record %t", test.program, test.message, record)
			tap, err := Open(Options{RingSize: MinRingSize})
			if err != nil {
				t.Fatal(err)
			}
			defer tap.Close()
			s, err := tap.OpenSelector(selection, size, record)
			if test.program == "migrating" && errors.Is(err, unix.EINVAL) {
				t.Logf("%s: %v", name, err) // before 5.14
				continue
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, strings.Join(VerifierLog(err), "\n"))
			}
			defer s.Close()
			sockets, to := group(t, size)
			if err := errors.Join(s.Attach(sockets[0]), s.Fill(sockets)); err != nil {
				t.Fatal(err)
			}
			sender, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(sender)
			if err := unix.Sendto(sender, []byte(test.message), 0, to); err != nil {
				t.Fatal(err)
			}
			wait := 10 * time.Second
			if test.takes == -1 {
				wait = 50 * time.Millisecond
			}
			var rec Record
			patience := 10 * time.Second
			if !record {
				patience = 100 * time.Millisecond // for what is not to come
			}
			tap.SetDeadline(time.Now().Add(patience))
			err = tap.Read(&rec)
			if got := took(t, sockets, test.message, wait); got != test.takes && (test.takes != -2 || got < 0) {
				t.Errorf("%s: socket %d got it, want %d", name, got, test.takes)
			}
			counters, cerr := s.Counters()
			if cerr != nil {
				t.Fatal(cerr)
			}
			if !record {
				if err == nil || counters.Seen != 0 {
					t.Errorf("%s: %v, %+v", name, rec, counters)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			seen := rec.Data[rec.Before:]
			if !selection.Filters() {
				seen = seen[8:]
			}
			chosen, _ := rec.Chosen()
			if rec.Hook != HookSelect || rec.Verdict != test.verdict || chosen != test.chosen || string(seen) != test.message {
				t.Errorf("%s: hook %d, returned %d, %+v, saw %q", name, rec.Hook, rec.Verdict, chosen, seen)
			}
			if net := rec.NetHeader(); len(net) < 20 || string(net[12:16]) != "\x7f\x00\x00\x01" {
				t.Errorf("%s: network header %x", name, net)
			}
			dropped := uint64(0)
			if test.takes == -1 {
				dropped = 1
			}
			if counters.Seen != 1 || counters.Recorded != 1 || counters.Dropped != dropped {
				t.Errorf("%s: %+v", name, counters)
			}
			if err := s.Stop(); err != nil {
				t.Fatal(err)
			}
			if err := unix.Sendto(sender, []byte(test.message), 0, to); err != nil {
				t.Fatal(err)
			}
			if got := took(t, sockets, test.message, wait); got != test.takes && (test.takes != -2 || got < 0) {
				t.Errorf("%s: after Stop socket %d got it, want %d", name, got, test.takes)
			}
			if counters, _ := s.Counters(); counters.Seen != 1 {
				t.Errorf("%s: after Stop %+v", name, counters)
			}
		}
	}
}

// What stands in the way of a program is said in its own words.
func TestSelectorRefuses(t *testing.T) {
	t.Parallel()
	requireSelectors(t)
	choose := object(t, "choose", "-g")
	for _, test := range []struct{ path, program, want string }{
		{choose, "", "has several programs that choose a socket, digit, migrating, nothing, number, writes: say which one"},
		{choose, "absent", "has no program absent, but "},
		{object(t, "xdp", "-g"), "", `put SEC("sk_reuseport") before the program's function`},
	} {
		_, err := ReadSelection(test.path, test.program)
		if choice := (*ChoiceError)(nil); !errors.As(err, &choice) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, want %s", err, test.want)
		}
	}
	tap, err := Open(Options{RingSize: MinRingSize})
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	for _, test := range []struct{ path, program, want string }{
		{object(t, "narrow", "-g"), "second", "its map sockets has room for 2 sockets, and the group has 3: give it more room"},
		{choose, "writes", "programs that choose a socket may not write hash of struct sk_reuseport_md"},
	} {
		for _, record := range []bool{true, false} {
			_, err := tap.OpenSelector(mustReadSelection(t, test.path, test.program), 3, record)
			if refused := (*RefusedError)(nil); !errors.As(err, &refused) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %s", err, test.want)
			}
		}
	}
}

// BenchmarkSelector reports what a program that chooses a socket costs in the kernel for each packet: as
// it is, and when what it sees and chooses is recorded.
func BenchmarkSelector(b *testing.B) {
	requireSelectors(b)
	choose := object(b, "choose", "-g")
	for _, program := range []string{"digit", "number"} {
		for _, record := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/record=%t", program, record), func(b *testing.B) {
				benchmarkSelector(b, mustReadSelection(b, choose, program), record)
			})
		}
	}
}

func benchmarkSelector(b *testing.B, selection *Selection, record bool) {
	tap := mustOpen(b, Options{RingSize: DefaultRingSize, Snaplen: MaxSnaplen, WakeupBytes: DefaultRingSize / 4})
	s, err := tap.OpenSelector(selection, 2, record)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	sockets, to := group(b, 2)
	if err := errors.Join(s.Attach(sockets[0]), s.Fill(sockets)); err != nil {
		b.Fatal(err)
	}
	sender, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(sender)
	drained := drain(b, tap)
	payload := []byte("1" + strings.Repeat("x", 63))
	for b.Loop() {
		if err := unix.Sendto(sender, payload, 0, to); err != nil {
			b.Fatal(err)
		}
	}
	ran, err := s.program.Stats()
	if err != nil {
		b.Fatal(err)
	}
	drained()
	counters, err := s.Counters()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(ran.Runtime.Nanoseconds())/float64(ran.RunCount), "kernel-ns/packet")
	b.ReportMetric(float64(counters.Lost()), "lost")
}
