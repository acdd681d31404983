package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// oddOnes is a filter that drops what has an odd byte at an offset.
func oddOnes(tb testing.TB, offset int) *bpf.Verdict {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "odd.bpf")
	program := fmt.Sprintf("48 0 0 %d\n84 0 0 1\n21 0 1 0\n6 0 0 65535\n6 0 0 0\n", offset)
	if err := os.WriteFile(path, []byte(program), 0o600); err != nil {
		tb.Fatal(err)
	}
	verdict, err := bpf.ReadClassic(path)
	if err != nil {
		tb.Fatal(err)
	}
	return verdict
}

// flood sends datagrams to an address from two cpus at once, each from a socket
// of its own. Their first bytes are odd and even in turn. It returns how many were sent.
func flood(tb testing.TB, ns *Namespace, to unix.Sockaddr, each, size int) (sent uint64) {
	tb.Helper()
	return floodUntil(tb, ns, to, size, onTheWay, func(sent int) bool { return sent == each })
}

// onTheWay is how many datagrams of a sender may be on their way. A cpu's queue behind the
// loopback interface has room for a thousand, and what it has none for is sent all the same.
const onTheWay = 256

// newFollowup makes a socket that is connected to itself, -1 for unix sockets, which
// need none.
func newFollowup(domain int) (fd int, err error) {
	var to unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	switch domain {
	case unix.AF_UNIX:
		return -1, nil
	case unix.AF_INET6:
		to = &unix.SockaddrInet6{Addr: [16]byte{15: 1}}
	}
	fd, err = unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err = unix.Bind(fd, to); err == nil {
		if to, err = unix.Getsockname(fd); err == nil {
			err = unix.Connect(fd, to)
		}
	}
	return fd, err
}

// follow sends a datagram behind all others of this cpu, and waits until it is there.
func follow(fd int) error {
	if fd < 0 {
		return nil
	}
	if err := unix.Send(fd, []byte("x"), 0); err != nil {
		return err
	}
	_, err := unix.Read(fd, make([]byte, 1))
	return err
}

// floodUntil is flood that asks each sender's number whether that is enough, and how many
// datagrams of a sender may be on their way.
func floodUntil(tb testing.TB, ns *Namespace, to unix.Sockaddr, size, onTheWay int, enough func(sent int) bool) (sent uint64) {
	tb.Helper()
	domain := unix.AF_INET
	switch to.(type) {
	case *unix.SockaddrInet6:
		domain = unix.AF_INET6
	case *unix.SockaddrUnix:
		domain = unix.AF_UNIX
	}
	var (
		senders sync.WaitGroup
		errs    [2]error
		counts  [2]uint64
	)
	for n := range errs {
		senders.Go(func() {
			errs[n] = ns.Do(func() error {
				// The namespace has locked the thread.
				if err := pin(n); err != nil {
					return err
				}
				fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				behind, err := newFollowup(domain)
				if err != nil {
					return err
				}
				defer unix.Close(behind) // also of -1, which is none
				payload := make([]byte, size)
				for i := 0; !enough(i); i++ {
					if i%onTheWay == onTheWay-1 {
						if err := follow(behind); err != nil {
							return err
						}
					}
					payload[0], payload[1], payload[2], payload[3] = byte(i), byte(i>>8), byte(i>>16), byte(n)
					if err := unix.Sendto(fd, payload, 0, to); err != nil {
						return err
					}
					counts[n]++
				}
				return nil
			})
		})
	}
	senders.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		tb.Error(err)
	}
	return counts[0] + counts[1]
}

// pin keeps the thread on a cpu, if there are so many.
func pin(cpu int) error {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	at := cpu % all.Count()
	for n := range 1024 {
		if all.IsSet(n) {
			if at == 0 {
				one.Set(n)
			}
			at--
		}
	}
	return unix.SchedSetaffinity(0, &one)
}

// fullDrops is how many datagrams found no room in the receive queues of the
// namespace's UDP sockets, as the kernel counts it there.
func fullDrops(tb testing.TB, ns *Namespace) (n uint64) {
	tb.Helper()
	err := ns.Do(func() error {
		four, err := os.ReadFile("/proc/thread-self/net/snmp")
		six, err6 := os.ReadFile("/proc/thread-self/net/snmp6")
		if err := errors.Join(err, err6); err != nil {
			return err
		}
		var udp [][]string // the names, and what they count
		for line := range strings.Lines(string(four)) {
			if fields := strings.Fields(line); fields[0] == "Udp:" {
				udp = append(udp, fields)
			}
		}
		var texts []string
		if len(udp) == 2 {
			texts = append(texts, udp[1][slices.Index(udp[0], "RcvbufErrors")])
		}
		for line := range strings.Lines(string(six)) {
			if fields := strings.Fields(line); fields[0] == "Udp6RcvbufErrors" {
				texts = append(texts, fields[1])
			}
		}
		if len(texts) != 2 {
			return fmt.Errorf("no two RcvbufErrors in %q", four)
		}
		for _, text := range texts {
			count, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				return err
			}
			n += count
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// setReceiveBuffer gives a session's socket room for so many bytes.
func setReceiveBuffer(tb testing.TB, s *Session, bytes int) {
	tb.Helper()
	var err error
	cerr := s.main.conn.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes)
	})
	if err := errors.Join(cerr, err); err != nil {
		tb.Fatal(err)
	}
}

// accountOf finds the account among the statistics of the user view.
func accountOf(tb testing.TB, all []Statistics, err error) *Account {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
	sum := new(Account)
	for _, st := range all {
		if st.Account != nil {
			sum.Add(st.Account)
			if st.Account.Queue+st.Account.Unseen != st.OSDropped || st.Account.String() != st.Comment {
				tb.Errorf("%s: %+v", st.Account, st)
			}
		}
	}
	if sum.Kind == "" {
		tb.Fatal("no account")
	}
	if sum.Seen+sum.Before+sum.Unknown != sum.Delivered+sum.Queue+sum.Filtered+sum.After+sum.Unread {
		tb.Errorf("does not balance: %s", sum)
	}
	return sum
}

// checkViews holds that the ledgers of the kernel and the user view go together.
func checkViews(tb testing.TB, all []Statistics) {
	tb.Helper()
	var kernel, user Statistics
	for _, st := range all {
		if st.Received != st.Delivered+st.Dropped || st.Written < st.Delivered {
			tb.Errorf("%s: %+v", st.Interface.Name(), st)
		}
		switch st.Interface.View {
		case ViewKernel:
			kernel.Accepted += st.Accepted
			kernel.OSDropped += st.OSDropped
		case ViewUser:
			user.Delivered += st.Delivered
			user.OSDropped += st.OSDropped
		}
	}
	if kernel.Accepted+kernel.OSDropped != user.Delivered+user.OSDropped {
		tb.Errorf("the filter accepted %d, userspace got %d, the queue dropped %d", kernel.Accepted, user.Delivered, user.OSDropped)
	}
}

// told adds up what the packets of the user view say of drops.
func told(sink *memory) (drops uint64) {
	for _, p := range sink.view(ViewUser) {
		drops += p.Drops
	}
	return drops
}

const (
	smallBuffer = 4 << 10
	largeBuffer = 64 << 20 // for more than flooded datagrams
	flooded     = 10_000   // from each sender
)

// Two senders on two cpus, with and without a filter that drops half of it, with
// and without room: what was sent is what the account says, to the packet, and
// what the queue dropped is what the kernel counts in the namespace.
func TestAccountOfTwoSenders(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		config Config
		buffer int
		half   bool
		size   int
	}{
		{"all, much room", Config{Kind: mustKind(t, "udp")}, largeBuffer, false, 8},
		{"all, little room", Config{Kind: mustKind(t, "udp")}, smallBuffer, false, 8},
		{"half, much room", Config{Kind: mustKind(t, "udp")}, largeBuffer, true, 8},
		{"half, little room", Config{Kind: mustKind(t, "udp"), Options: Options{Snaplen: 12}}, smallBuffer, true, 8},
		{"half of udp6, little room", Config{Kind: mustKind(t, "udp6")}, smallBuffer, true, 8},
		{"half, little room, and a small ring", Config{Kind: mustKind(t, "udp"), Options: Options{RingSize: bpf.MinRingSize}}, smallBuffer, true, 1400},
		{"half, much room, and a small ring", Config{Kind: mustKind(t, "udp"), Options: Options{RingSize: bpf.MinRingSize}}, largeBuffer, true, 1400},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.half {
				test.config.Verdict = oddOnes(t, 8)
			}
			for range 3 {
				floodSession(t, test.config, test.buffer, test.half, test.size)
			}
		})
	}
}

func floodSession(t *testing.T, config Config, buffer int, half bool, size int) {
	t.Helper()
	var sent uint64
	sink, s := run(t, config, func(s *Session) {
		setReceiveBuffer(t, s, buffer)
		sent = flood(t, s.config.Namespace, s.main.name, flooded, size)
	})
	all, err := s.Statistics()
	a := accountOf(t, all, err)
	filtered := uint64(0)
	if half {
		filtered = sent / 2
	}
	rest := a.Before + a.Unknown + a.After + a.Unread + a.Unseen + a.Closed
	if a.Seen != sent || a.Filtered != filtered || rest != 0 {
		t.Errorf("sent %d: %s", sent, a)
	}
	if full := fullDrops(t, s.config.Namespace); a.Queue != full {
		t.Errorf("the kernel counts %d drops for want of room: %s", full, a)
	}
	if buffer == smallBuffer == (a.Queue == 0) {
		t.Errorf("with room for %d bytes: %s", buffer, a)
	}
	if drops := told(sink); drops > a.Queue || !half && a.Queue > 0 && drops == 0 {
		t.Errorf("packets tell of %d drops: %s", drops, a)
	}
	if user := uint64(len(sink.view(ViewUser))); user != a.Delivered {
		t.Errorf("%d packets in the user view: %s", user, a)
	}
	counts, err := s.Counts()
	if err != nil {
		t.Fatal(err)
	}
	if counts.QueueDropped != a.Queue || counts.Written != uint64(len(sink.packets)) {
		t.Errorf("%+v: %s", counts, a)
	}
	checkViews(t, all)
	t.Logf("told %d; lost %d; %s", told(sink), counts.Tap.Lost(), a)
}

// The capture ends in the middle of the flood: what the filter saw by then is
// accounted for, and nothing else. Where the reader keeps up with the senders, as on an
// emulated machine that runs one of them at a time, it may happen that nothing comes between the
// last packet that was asked for and the end: such a run is not one of the three.
func TestAccountEndsUnderLoad(t *testing.T) {
	t.Parallel()
	for _, limit := range []uint64{0, 3000} {
		for _, ring := range []int{4 << 20, bpf.MinRingSize} {
			runs := 0
			for tries := 0; runs < 3 && tries < 20; tries++ {
				if endUnderLoad(t, Config{Kind: mustKind(t, "udp"), Options: Options{Verdict: oddOnes(t, 8), Packets: limit, RingSize: ring}}) {
					runs++
				}
			}
			if runs < 3 {
				t.Errorf("limit %d, ring %d: in %d runs only, packets came after the last one that was asked for", limit, ring, runs)
			}
		}
	}
}

// endUnderLoad tells whether the capture had no limit, or more came than that.
func endUnderLoad(t *testing.T, config Config) bool {
	t.Helper()
	config.Namespace = mustNamespace(t)
	s, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	setReceiveBuffer(t, s, smallBuffer)
	var (
		sink memory
		sent uint64
		over sync.WaitGroup
	)
	ctx, cancel := context.WithCancel(t.Context())
	var ended atomic.Bool
	over.Go(func() {
		sent = floodUntil(t, config.Namespace, s.main.name, 8, onTheWay, func(int) bool { return ended.Load() })
	})
	if config.Packets == 0 {
		over.Go(func() {
			for counts, err := s.Counts(); err == nil && counts.Tap.Seen < flooded; counts, err = s.Counts() {
				runtime.Gosched()
			}
			cancel() // somewhere in the middle
		})
	}
	err = s.Run(ctx, &sink)
	cancel()
	ended.Store(true)
	over.Wait()
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.Statistics()
	a := accountOf(t, all, err)
	if a.Before+a.Unknown+a.Unread+a.Unseen != 0 || a.Seen == 0 || a.Seen > sent {
		t.Errorf("of %d: %s", sent, a)
	}
	full := fullDrops(t, config.Namespace)
	if a.Queue > full || config.Packets == 0 && a.Queue != full {
		t.Errorf("the kernel counts %d drops for want of room: %s", full, a)
	}
	counts, err := s.Counts()
	if err != nil {
		t.Fatal(err)
	}
	if most := config.Packets + counts.Tap.Lost(); config.Packets > 0 && (a.Seen-a.After < config.Packets || a.Seen-a.After > most) {
		t.Errorf("%d packets were asked for: %s", config.Packets, a)
	}
	if drops := told(&sink); config.Packets == 0 && drops > a.Queue {
		t.Errorf("packets tell of %d drops: %s", drops, a)
	}
	checkViews(t, all)
	t.Logf("told %d, lost %d, %s", told(&sink), counts.Tap.Lost(), a)
	return config.Packets == 0 || a.After > 0
}

// The other kinds that are read as messages. A raw socket whose queue is full does
// not even run its filter on newer kernels; on older ones a unix socket may run it
// again for a message whose sender had to wait.
func TestAccountOfOtherKinds(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		kind   string
		offset int // of the first byte of the payload in what the filter sees
		copies uint64
	}{
		{"raw", "raw", 20 + 8, 1},
		{"packet", "packet", 14 + 20 + 8, 2}, // on its way out and in
		{"packet-dgram", "packet-dgram", 20 + 8, 1},
		{"unix-dgram", "unix-dgram", 0, 1},
	} {
		for _, buffer := range []int{smallBuffer, largeBuffer} {
			t.Run(fmt.Sprintf("%s, %d bytes", test.name, buffer), func(t *testing.T) {
				config := Config{Kind: mustKind(t, test.kind), Protocol: unix.IPPROTO_UDP, Options: Options{Verdict: oddOnes(t, test.offset)}}
				if test.kind == "unix-dgram" {
					config.Address = filepath.Join(t.TempDir(), "socket")
				}
				var sent uint64
				_, s := run(t, config, func(s *Session) {
					setReceiveBuffer(t, s, buffer)
					to := s.main.name
					if test.kind != "unix-dgram" {
						// Somebody must get it, or else ICMP says that nobody does.
						to = discard(t, s.config.Namespace)
					}
					// Without what follows: a packet socket would see that, too.
					sent = floodUntil(t, s.config.Namespace, to, 8, flooded+1, func(sent int) bool { return sent == flooded })
				})
				all, err := s.Statistics()
				a := accountOf(t, all, err)
				if a.Seen+a.Unseen != sent*test.copies+a.Unread || a.Unseen == 0 && a.Filtered != sent/2*test.copies {
					t.Errorf("sent %d: %s", sent, a)
				}
				if a.Before+a.Unknown+a.After != 0 || a.Unread > 0 && !a.again || a.Unseen > 0 && test.kind != "raw" {
					t.Errorf("sent %d: %s", sent, a)
				}
				// A full unix socket makes its sender wait.
				if full := buffer == smallBuffer && test.kind != "unix-dgram"; full != (a.Queue+a.Unseen > 0) {
					t.Errorf("with room for %d bytes: %s", buffer, a)
				}
				if a.Unread == 0 {
					checkViews(t, all)
				}
				t.Log(a)
			})
		}
	}
}

// discard opens a socket that nobody reads, in a namespace.
func discard(tb testing.TB, ns *Namespace) (name unix.Sockaddr) {
	tb.Helper()
	err := ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		tb.Cleanup(func() { unix.Close(fd) })
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return err
		}
		name, err = unix.Getsockname(fd)
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return name
}

// What was read by calls whose records were lost is not called unread.
func TestAccountOfLostCalls(t *testing.T) {
	t.Parallel()
	a := Account{Kind: "udp", Seen: 5, Delivered: 2, Unread: 3}
	for lost, want := range map[uint64]string{
		0: "udp: 5 seen = 2 delivered + 0 dropped by the receive queue + 0 dropped by the filter + 3 not read",
		4: "udp: 5 seen = 2 delivered + 0 dropped by the receive queue + 0 dropped by the filter + 3 not read, or by calls whose records were lost",
	} {
		a.CallsLost = lost
		if got := a.String(); got != want {
			t.Errorf("%d calls lost: %s", lost, got)
		}
	}
}
