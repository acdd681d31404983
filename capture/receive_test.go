package capture

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// receiveRow is a way to receive, and what is known of its bytes.
type receiveRow struct {
	way   string
	call  string      // what it is called in the user view; empty if it changes
	since [2]int      // the version of Linux that does it
	bytes func() bool // whether the bytes are to be there; nil: yes
}

func never() bool { return false }

// listedSeen tells whether the kernel lets be seen which buffer of a list it took.
func listedSeen() bool { return kernelBetween([2]int{6, 0}, [2]int{6, 12}) }

// kernelBetween tells whether this is Linux of the first version or later, and before the second.
func kernelBetween(from, to [2]int) bool {
	var name unix.Utsname
	_ = unix.Uname(&name)
	var v [2]int
	_, _ = fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &v[0], &v[1])
	number := func(v [2]int) int { return v[0]*1000 + v[1] }
	return number(v) >= number(from) && number(v) < number(to)
}

var streamRows = []receiveRow{
	{way: "recv", call: "io_uring recv"},
	{way: "deferred recv", call: "io_uring recv", since: [2]int{6, 1}},
	{way: "polled by the kernel", call: "io_uring recv"},
	{way: "worker", call: "io_uring recv"},
	{way: "read", call: "io_uring read"},
	{way: "waitall", call: "io_uring recv"},
	{way: "registered file", call: "io_uring recv"},
	{way: "registered buffer", call: "io_uring read"},
	{way: "readv", call: "io_uring readv"},
	{way: "recvmsg", call: "io_uring recvmsg"},
	{way: "many parts", call: "io_uring readv"},
	{way: "batch", call: "io_uring recv"},
	{way: "peek", call: "io_uring recv"},
	{way: "trunc", call: "io_uring recv", bytes: never},
	{way: "mixed"},
	{way: "splice request", call: "io_uring splice", bytes: never},
	{way: "provided ring", call: "io_uring recv", since: [2]int{5, 19}},
	{way: "incremental", call: "io_uring recv", since: [2]int{6, 12}},
	{way: "multishot", call: "io_uring recv", since: [2]int{6, 0}},
	{way: "bundle", call: "io_uring recv", since: [2]int{6, 10}},
	{way: "overflow", call: "io_uring recv", since: [2]int{6, 0}},
	{way: "provided list", call: "io_uring recv", bytes: listedSeen},
	{way: "splice", call: "splice", bytes: never},
	{way: "recv MSG_TRUNC", call: "recvfrom", bytes: never},
	{way: "recv MSG_TRUNC without a buffer", call: "recvfrom", bytes: never},
	{way: "TCP_ZEROCOPY_RECEIVE"},
}

var datagramRows = []receiveRow{
	{way: "udp recv", call: "io_uring recv"},
	{way: "udp recvmsg", call: "io_uring recvmsg"},
	{way: "udp multishot", call: "io_uring recv", since: [2]int{6, 0}},
	{way: "udp multishot recvmsg", call: "io_uring recvmsg", since: [2]int{6, 0}},
}

// taking is a process that receives in a way, and what it is sent.
type taking struct {
	receiveRow
	target
	conn        net.Conn
	sent        [][]byte // at once
	unsupported bool     // the kernel has not what the way wants
}

// startTakers starts a process with a child for each row: they share a capture, since
// loading the programs takes long in a guest.
func startTakers(t *testing.T, rows []receiveRow) (parent *target, all []*taking) {
	t.Helper()
	fd, err := ioURing()
	if err == nil {
		unix.Close(fd)
	}
	var theirs []*os.File
	args := []string{"takers"}
	for _, row := range rows {
		if err != nil && receivings[row.way].ring {
			continue // nobody may have a ring here
		}
		stdin, ours := mustPipe(t)
		lines, stdout := mustPipe(t)
		theirs = append(theirs, stdin, stdout)
		args = append(args, row.way)
		all = append(all, &taking{receiveRow: row, target: target{stdin: ours, lines: bufio.NewScanner(lines)}})
	}
	parent = startTargetWith(t, theirs, args...)
	for _, f := range theirs {
		f.Close()
	}
	for _, one := range all {
		one.ns = parent.ns
		one.address = one.line(t)
	}
	return parent, all
}

func mustPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func (k *taking) dial(t *testing.T) {
	t.Helper()
	network := "tcp"
	if receivings[k.way].udp {
		network = "udp"
	}
	k.conn = k.target.dial(t, network, k.address)
}

// turn sends, and has it taken, as so many bytes or datagrams. With early the request
// comes first, and waits.
func (k *taking) turn(t *testing.T, early bool, n int, parts ...[]byte) {
	t.Helper()
	if k.unsupported {
		return
	}
	if early {
		fmt.Fprintln(k.stdin, n)
		time.Sleep(30 * time.Millisecond)
	}
	for _, part := range parts {
		k.sent = append(k.sent, part)
		if _, err := k.conn.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	if !early {
		time.Sleep(10 * time.Millisecond)
		fmt.Fprintln(k.stdin, n)
	}
	k.await(t)
}

func (k *taking) await(t *testing.T) {
	t.Helper()
	switch line := k.line(t); line {
	case "taken":
	case "unsupported":
		k.unsupported = true
	default:
		t.Fatalf("%s: the process says %q", k.way, line)
	}
}

// end closes the connection, of which the process is to learn.
func (k *taking) end(t *testing.T) {
	t.Helper()
	k.conn.Close()
	k.turn(t, false, 0)
}

// of is a part of the capture: that of a connection.
func (m *memory) of(client net.Conn, v View) (all []Packet) {
	from := unmapped(netip.MustParseAddrPort(client.LocalAddr().String()))
	to := unmapped(netip.MustParseAddrPort(client.RemoteAddr().String()))
	for _, p := range m.view(v) {
		if p.Src == from && p.Dst == to {
			all = append(all, p)
		}
	}
	return all
}

// runTakers is runLive, but that check decides of each row what missed calls mean for it.
func runTakers(t *testing.T, l *Live, traffic func()) *memory {
	t.Helper()
	return collect(t, l, func() {
		traffic()
		quiet(t, l)
	})
}

// check does so with what is known of a row, unless this kernel has it not and need not.
// System calls that the kernel missed are nothing to those who make none.
func (k *taking) check(t *testing.T, l *Live, sink *memory, check func(t *testing.T, k *taking, sink *memory)) {
	t.Run(k.way, func(t *testing.T) {
		if !strings.HasPrefix(k.call, "io_uring ") {
			skipMissed(t, l)
		}
		switch old := !kernelBetween(k.since, [2]int{99, 0}); {
		case k.unsupported && old:
			t.Skipf("Linux has it from %d.%d on", k.since[0], k.since[1])
		case k.unsupported:
			t.Fatal("this kernel does not do that")
		}
		check(t, k, sink)
	})
}

// What the other side sends in a turn, in three segments.
const turnBytes = 3000

func threeSegments() [][]byte {
	b := randomBytes(turnBytes)
	return [][]byte{b[:turnBytes/3], b[turnBytes/3 : 2*turnBytes/3], b[2*turnBytes/3:]}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// Every byte of a stream is in the user view once and in order, at the place where the
// packet has it that is named, in whatever way it was received.
func TestReceiveStreams(t *testing.T) {
	t.Parallel()
	parent, all := startTakers(t, streamRows)
	l := mustJoin(t, JoinConfig{PIDs: []int{parent.Process.Pid}})
	sink := runTakers(t, l, func() {
		for _, k := range all {
			k.dial(t)
			for turn := range 4 {
				k.turn(t, turn%2 > 0, turnBytes, threeSegments()...)
			}
			k.end(t)
		}
	})
	for _, k := range all {
		k.check(t, l, sink, checkStream)
	}
	if remarks := strings.Join(l.Remarks(), "\n"); strings.Contains(remarks, "is not in the user view") {
		t.Error(remarks)
	}
	checkLiveLedger(t, l)
}

// A request that waits already when the capture begins is seen when it is done.
func TestReceiveInProgress(t *testing.T) {
	t.Parallel()
	if !kernelBetween([2]int{5, 19}, [2]int{99, 0}) {
		t.Skip("before Linux 5.19 the kernel does not tell which request is woken")
	}
	parent, all := startTakers(t, []receiveRow{
		{way: "recv", call: "io_uring recv"},
		{way: "multishot", call: "io_uring recv", since: [2]int{6, 0}},
		{way: "provided ring", call: "io_uring recv", since: [2]int{5, 19}},
	})
	for _, k := range all {
		k.dial(t)
		fmt.Fprintln(k.stdin, turnBytes)
	}
	time.Sleep(100 * time.Millisecond)
	l := mustJoin(t, JoinConfig{PIDs: []int{parent.Process.Pid}})
	sink := runTakers(t, l, func() {
		for _, k := range all {
			for _, part := range threeSegments() {
				k.sent = append(k.sent, part)
				if _, err := k.conn.Write(part); err != nil {
					t.Fatal(err)
				}
			}
			k.await(t)
			k.end(t)
		}
	})
	for _, k := range all {
		k.check(t, l, sink, checkStream)
	}
}

// checkStream compares the views of a connection with what was sent.
func checkStream(t *testing.T, k *taking, sink *memory) {
	sent := bytes.Join(k.sent, nil)
	places := make(map[uint64][2]int) // of packets in the stream, by id
	for _, p := range sink.of(k.conn, ViewKernel) {
		payload := p.Data[p.Data[12]>>4*4:]
		if len(payload) == 0 {
			continue
		}
		at := bytes.Index(sent, payload)
		if at < 0 {
			t.Fatalf("packet %d is none that was sent: %x", p.ID, payload)
		}
		places[p.ID] = [2]int{at, at + len(payload)}
	}
	at, ends, unseen := 0, 0, 0
	for _, p := range sink.of(k.conn, ViewUser) {
		if k.call != "" && p.Call != k.call {
			t.Errorf("the call is %q, want %q", p.Call, k.call)
		}
		if p.Len == 0 {
			ends++
			continue
		}
		if at+p.Len > len(sent) {
			t.Fatalf("%d bytes behind %d of %d", p.Len, at, len(sent))
		}
		if !bytes.HasPrefix(sent[at:at+p.Len], p.Data) {
			t.Errorf("%s at byte %d of %d: other bytes, those of %d", p.Call, at, p.Len, bytes.Index(sent, p.Data))
		}
		if len(p.Data) < p.Len {
			unseen++
		}
		if place, ok := places[p.ID]; !ok || at < place[0] || at >= place[1] {
			t.Errorf("%s of bytes %d to %d has id %d of a packet with bytes %v: %+v", p.Call, at, at+p.Len, p.ID, place, p.Receipt)
		}
		if !p.Receipt.Peeked {
			at += p.Len
		}
	}
	if at != len(sent) || ends == 0 {
		t.Errorf("%d bytes and %d ends, want %d bytes and an end", at, ends, len(sent))
	}
	switch wanted := k.bytes == nil || k.bytes(); {
	case k.way == "many parts" || k.way == "TCP_ZEROCOPY_RECEIVE": // in part
	case wanted && unseen > 0:
		t.Errorf("%d deliveries without their bytes", unseen)
	case !wanted && unseen == 0:
		t.Error("the bytes are there, and should not be")
	}
}

// Datagrams have their bytes, their sender and the id of their packet.
func TestReceiveDatagrams(t *testing.T) {
	t.Parallel()
	parent, all := startTakers(t, datagramRows)
	l := mustJoin(t, JoinConfig{PIDs: []int{parent.Process.Pid}})
	sink := runTakers(t, l, func() {
		for _, k := range all {
			k.dial(t)
			for turn := range 4 {
				k.turn(t, turn%2 > 0, 3, randomBytes(100), randomBytes(400), randomBytes(1300))
			}
		}
	})
	for _, k := range all {
		k.check(t, l, sink, checkDatagrams)
	}
	checkLiveLedger(t, l)
}

func checkDatagrams(t *testing.T, k *taking, sink *memory) {
	kernel := sink.of(k.conn, ViewKernel)
	var user []Packet
	for _, p := range sink.view(ViewUser) {
		if p.Dst.Port() == kernel[0].Dst.Port() {
			user = append(user, p)
		}
	}
	if len(kernel) != len(k.sent) || len(user) != len(k.sent) {
		t.Fatalf("%d packets, %d deliveries of %d datagrams", len(kernel), len(user), len(k.sent))
	}
	for i, p := range user {
		if !bytes.Equal(p.Data, k.sent[i]) || p.Call != k.call || p.ID != kernel[i].ID || p.Src != kernel[i].Src && strings.Contains(k.call, "recvmsg") {
			t.Errorf("%s of %d bytes from %v, packet %d; want %d bytes from %v, packet %d", p.Call, len(p.Data), p.Src, p.ID, len(k.sent[i]), kernel[i].Src, kernel[i].ID)
		}
	}
}
