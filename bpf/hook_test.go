package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

func mustHook(tb testing.TB, tap *Tap, opts HookOptions) *Hook {
	tb.Helper()
	h, err := OpenHook(tap, opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := h.Close(); err != nil {
			tb.Error(err)
		}
	})
	return h
}

// records takes what is in the ring.
func records(tb testing.TB, tap *Tap) []Record {
	tb.Helper()
	var all []Record
	if err := tap.Flush(); err != nil {
		tb.Fatal(err)
	}
	for {
		var rec Record
		err := tap.Read(&rec)
		if errors.Is(err, ErrFlushed) {
			return all
		}
		if err != nil {
			tb.Fatal(err)
		}
		rec.Data = bytes.Clone(rec.Data)
		all = append(all, rec)
	}
}

// hookCase is a kind of socket that packets are sent to.
type hookCase struct {
	name                   string
	domain, typ, protocol  int
	from                   int                                     // domain of the sender, if it is another one
	set                    func(receiver, sender int) error        // options, before anything is sent
	sizes                  []int                                   // of the messages
	message                func(size int) []byte                   // of the sender; default: bytes
	connect                bool                                    // a stream
	to                     func(local unix.Sockaddr) unix.Sockaddr // where to send; default: where the receiver is
	senderType, senderProt int                                     // default: as the receiver's
}

var plainSizes = []int{0, 1, 11, 100, 1400, 8000, 60000}

func hookCases() []hookCase {
	echo := func(kind byte) func(int) []byte {
		return func(size int) []byte { return append([]byte{kind, 0, 0, 0, 0, 0, 0, 1}, make([]byte, size)...) }
	}
	v4 := func(sa unix.Sockaddr) unix.Sockaddr {
		return &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: sa.(*unix.SockaddrInet6).Port}
	}
	dual := func(receiver, _ int) error {
		return unix.SetsockoptInt(receiver, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	}
	options := func(_, sender int) error { // a destination header of 16 bytes, with an option to be skipped
		return unix.SetsockoptString(sender, unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, "\x00\x01\x1e\x0c"+string(make([]byte, 12)))
	}
	routed := func(_, sender int) error { // three NOPs and the end of the list
		return unix.SetsockoptString(sender, unix.IPPROTO_IP, unix.IP_OPTIONS, "\x01\x01\x01\x00")
	}
	return []hookCase{
		{name: "udp", domain: unix.AF_INET, typ: unix.SOCK_DGRAM, sizes: plainSizes},
		{name: "udp with IP options", domain: unix.AF_INET, typ: unix.SOCK_DGRAM, sizes: []int{11}, set: routed},
		{name: "udp6", domain: unix.AF_INET6, typ: unix.SOCK_DGRAM, sizes: plainSizes},
		{name: "udp6 with extension headers", domain: unix.AF_INET6, typ: unix.SOCK_DGRAM, sizes: []int{0, 11, 1400}, set: options},
		{name: "udp6 from IPv4", domain: unix.AF_INET6, typ: unix.SOCK_DGRAM, from: unix.AF_INET, to: v4, set: dual, sizes: []int{0, 11, 1400}},
		{name: "udplite", domain: unix.AF_INET, typ: unix.SOCK_DGRAM, protocol: unix.IPPROTO_UDPLITE, sizes: []int{0, 11, 1400}},
		{name: "raw udp", domain: unix.AF_INET, typ: unix.SOCK_RAW, protocol: unix.IPPROTO_UDP, senderType: unix.SOCK_DGRAM, sizes: plainSizes,
			to: func(unix.Sockaddr) unix.Sockaddr {
				return &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9}
			}},
		{name: "raw6 udp", domain: unix.AF_INET6, typ: unix.SOCK_RAW, protocol: unix.IPPROTO_UDP, senderType: unix.SOCK_DGRAM, sizes: plainSizes, set: options,
			to: func(unix.Sockaddr) unix.Sockaddr {
				return &unix.SockaddrInet6{Addr: [16]byte{15: 1}, Port: 9}
			}},
		{name: "raw of another protocol", domain: unix.AF_INET, typ: unix.SOCK_RAW, protocol: 253, sizes: []int{1, 1400}},
		{name: "raw6 of another protocol", domain: unix.AF_INET6, typ: unix.SOCK_RAW, protocol: 253, sizes: []int{1, 1400}},
		{name: "tcp", domain: unix.AF_INET, typ: unix.SOCK_STREAM, sizes: plainSizes, connect: true},
		{name: "tcp6", domain: unix.AF_INET6, typ: unix.SOCK_STREAM, sizes: plainSizes, connect: true},
		{name: "tcp6 from IPv4", domain: unix.AF_INET6, typ: unix.SOCK_STREAM, from: unix.AF_INET, to: v4, set: dual, sizes: []int{11, 1400}, connect: true},
		{name: "icmp", domain: unix.AF_INET, typ: unix.SOCK_DGRAM, protocol: unix.IPPROTO_ICMP, sizes: []int{0, 11, 1400}, message: echo(8)},
		{name: "icmp6", domain: unix.AF_INET6, typ: unix.SOCK_DGRAM, protocol: unix.IPPROTO_ICMPV6, sizes: []int{0, 11, 1400}, message: echo(128)},
	}
}

// A filter is told by its program: ours, another one, or none.
func TestHasTap(t *testing.T) {
	requirePrivilege(t)
	tap, other := mustOpen(t, Options{RingSize: MinRingSize, Snaplen: MaxSnaplen}), mustOpen(t, Options{RingSize: MinRingSize, Snaplen: MaxSnaplen})
	hook := mustHook(t, tap, HookOptions{})
	if !hook.canAsk {
		t.Fatal("this kernel does not say which program is a socket's filter")
	}
	fd, _ := udpPair(t)
	has := func() bool {
		t.Helper()
		has, err := hook.HasTap(fd)
		if err != nil {
			t.Fatal(err)
		}
		return has
	}
	if has() {
		t.Error("a socket without filter has the tap")
	}
	if err := other.Attach(fd); err != nil {
		t.Fatal(err)
	}
	if has() {
		t.Error("another tap is taken for ours")
	}
	if err := tap.Attach(fd); err != nil {
		t.Fatal(err)
	}
	if !has() {
		t.Error("the tap is not known")
	}
}

// TestHookSeesWhatTheFilterSees has the tap on a socket and the mark as well: both
// must record the same packets, bytes and metadata, in the same order.
func TestHookSeesWhatTheFilterSees(t *testing.T) {
	requirePrivilege(t)
	barrier := testutil.NewBarrier(t)
	for _, c := range hookCases() {
		t.Run(c.name, func(t *testing.T) {
			pingForAll(t)
			filter, marked := mustOpen(t, Options{RingSize: 4 << 20, Snaplen: MaxSnaplen}), mustOpen(t, Options{RingSize: 4 << 20, Snaplen: MaxSnaplen})
			hook := mustHook(t, marked, HookOptions{Record: true})
			receiver, sent := c.open(t)
			if err := filter.Attach(receiver); err != nil {
				t.Fatal(err)
			}
			origin, err := hook.Mark(receiver)
			if err != nil {
				t.Fatal(err)
			}
			barrier.Do(t, sent)
			want, got := records(t, filter), records(t, marked)
			if len(want) != len(got) || len(want) == 0 {
				t.Fatalf("the filter saw %d packets, the hook %d", len(want), len(got))
			}
			for i := range want {
				if got[i].Origin != origin || int(got[i].Family) != c.domain || int(got[i].Type) != c.typ {
					t.Errorf("packet %d: origin %d family %d type %d, wanted %d, %d, %d", i, got[i].Origin, got[i].Family, got[i].Type, origin, c.domain, c.typ)
				}
				compareRecords(t, i, &want[i], &got[i])
			}
		})
	}
}

// compareRecords holds everything that both hooks say against each other.
func compareRecords(t *testing.T, i int, want, got *Record) {
	t.Helper()
	if !bytes.Equal(want.Data, got.Data) || want.Len != got.Len {
		t.Errorf("packet %d: the filter saw %d bytes %.40x, the hook %d bytes %.40x", i, want.Len, want.Data, got.Len, got.Data)
	}
	w, g := *want, *got
	for _, r := range []*Record{&w, &g} {
		r.Data, r.raw = nil, nil
		r.Time, r.Cpu, r.Lost = 0, 0, 0
		// Of the socket, which the filter is not shown.
		r.Origin, r.Family, r.Type, r.SocketProtocol, r.LocalPort, r.PeerPort, r.State, r.Hook, r.Nonlinear = 0, 0, 0, 0, 0, 0, 0, 0, 0
	}
	if a, b := fmt.Sprintf("%+v", w.RecordHeader), fmt.Sprintf("%+v", g.RecordHeader); a != b {
		t.Errorf("packet %d:\nfilter %s\nhook   %s", i, a, b)
	}
}

// open makes the receiver, and a function that sends to it all there is to send.
func (c hookCase) open(t *testing.T) (receiver int, send func()) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	socket := func(domain, typ, protocol int) int {
		fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, protocol)
		if errors.Is(err, unix.EPROTONOSUPPORT) {
			t.Skipf("this kernel has no such socket: %v", err)
		}
		must(err)
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	loopback := func(domain int) unix.Sockaddr {
		if domain == unix.AF_INET6 {
			return &unix.SockaddrInet6{Addr: [16]byte{15: 1}}
		}
		return &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	}
	receiver = socket(c.domain, c.typ, c.protocol)
	at := loopback(c.domain)
	if c.from != 0 {
		at = &unix.SockaddrInet6{}
	}
	sender := receiver
	if c.message == nil {
		domain, typ, protocol := c.domain, c.typ, c.protocol
		if c.from != 0 {
			domain = c.from
		}
		if c.senderType != 0 {
			typ, protocol = c.senderType, c.senderProt
		}
		sender = socket(domain, typ, protocol)
	}
	if c.set != nil {
		must(c.set(receiver, sender))
	}
	must(unix.Bind(receiver, at))
	to, err := unix.Getsockname(receiver)
	must(err)
	if c.to != nil {
		to = c.to(to)
	}
	return receiver, func() {
		t.Helper()
		if c.connect {
			must(unix.Listen(receiver, 4))
			must(unix.Connect(sender, to))
			conn, _, err := unix.Accept(receiver)
			must(err)
			defer unix.Close(conn)
			for _, size := range c.sizes {
				message := bytes.Repeat([]byte{byte(size)}, size)
				for len(message) > 0 {
					n, err := unix.Write(sender, message)
					must(err)
					message = message[n:]
					got, left := make([]byte, n), n
					for left > 0 {
						m, err := unix.Read(conn, got[:left])
						must(err)
						left -= m
					}
				}
			}
			must(unix.Shutdown(sender, unix.SHUT_WR))
			_, err = unix.Read(conn, make([]byte, 1))
			must(err)
			return
		}
		for _, size := range c.sizes {
			message := bytes.Repeat([]byte{byte(size)}, size)
			if c.message != nil {
				message = c.message(size)
			}
			must(unix.Sendto(sender, message, 0, to))
		}
	}
}

// pingForAll lets the test open ping sockets, in a network namespace of its own.
func pingForAll(t *testing.T) {
	t.Helper()
	ownNetwork(t)
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0); err != nil {
		t.Fatal(err)
	}
}

// TestHookFollows looks at marks: of the connections that a listener accepts, of
// what a process makes and its children, and of nobody else's.
func TestHookFollows(t *testing.T) {
	barrier := testutil.NewBarrier(t)
	ownNetwork(t)
	tap := mustOpen(t, Options{RingSize: 4 << 20, Snaplen: MaxSnaplen})
	hook := mustHook(t, tap, HookOptions{Record: true, MarkNew: true})
	before, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(before)
	if err := hook.Follow(uint32(os.Getpid()), nil); err != nil {
		t.Fatal(err)
	}
	receiver, sender := udpPair(t)
	if _, ok := hook.Origin(before); ok {
		t.Error("a socket that was there before has a mark")
	}
	cookie, err := unix.GetsockoptUint64(receiver, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		t.Fatal(err)
	}
	if origin, ok := hook.Origin(receiver); !ok || origin != cookie {
		t.Errorf("a new socket has the mark %d %v, and the cookie %d", origin, ok, cookie)
	}
	barrier.Send(t, sender, []byte("x"))
	if n := len(records(t, tap)); n != 1 {
		t.Errorf("%d packets, wanted 1", n)
	}
	children := func() int {
		if err := exec.Command("/proc/self/exe", "-test.run", "^TestHookChild$").Run(); err != nil {
			t.Fatal(err)
		}
		return len(records(t, tap))
	}
	// Forked from a thread that is in the test's own network namespace.
	if n := children(); n != 1 {
		t.Errorf("%d packets of a child, wanted 1", n)
	}
	if err := hook.Stop(); err != nil {
		t.Fatal(err)
	}
	if n := children(); n != 0 {
		t.Errorf("%d packets after the end", n)
	}
}

// TestHookChild sends itself a datagram.
func TestHookChild(t *testing.T) {
	receiver, sender := udpPair(t)
	if _, err := unix.Write(sender, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Read(receiver, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
}

// TestHookForgetsProcesses looks whether a number is forgotten with its process.
func TestHookForgetsProcesses(t *testing.T) {
	requirePrivilege(t)
	tap := mustOpen(t, Options{RingSize: 1 << 20, Snaplen: MaxSnaplen})
	hook := mustHook(t, tap, HookOptions{MarkNew: true})
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestHookWaits$")
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), waitsName+"=1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := hook.Follow(uint32(cmd.Process.Pid), nil); err != nil {
		t.Fatal(err)
	}
	if !follows(t, hook, cmd.Process.Pid) {
		t.Fatal("a process that is to be followed is not")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if follows(t, hook, cmd.Process.Pid) {
		t.Error("a process that has ended is still followed")
	}
}

func follows(t *testing.T, hook *Hook, pid int) bool {
	t.Helper()
	var followed [1]byte
	if _, err := hook.processes.ReadAt(followed[:], int64(pid)); err != nil {
		t.Fatal(err)
	}
	return followed[0] != 0
}

// waitsName asks TestHookWaits to wait until it is killed.
const waitsName = "EBPFDUMP_TEST_WAITS"

func TestHookWaits(t *testing.T) {
	if os.Getenv(waitsName) != "" {
		_, _ = os.Stdin.Read(make([]byte, 1))
	}
}

func TestCgroup2Mount(t *testing.T) {
	for line, want := range map[string]string{
		`35 26 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw`: "/sys/fs/cgroup/unified",
		`35 26 0:30 / /mnt/a\040b rw,relatime shared:9 - cgroup2 none rw`:      "/mnt/a b",
		`35 26 0:30 /system.slice /mnt rw,relatime - cgroup2 none rw`:          "",
		`36 26 0:31 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu`:   "",
		`36 26 0:31`: "",
		``:           "",
	} {
		if got, ok := cgroup2Mount(line); got != want || ok != (want != "") {
			t.Errorf("%q: %q %v", line, got, ok)
		}
	}
}

// ownNetwork gives the test a network namespace of its own, with loopback up.
func ownNetwork(t *testing.T) {
	t.Helper()
	requirePrivilege(t)
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		t.Fatal(err)
	}
}
