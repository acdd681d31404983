package capture

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture/internal/process"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// smallRing lets many sessions be open at once in a small guest.
const smallRing = 2 << 20

func mustJoin(tb testing.TB, config JoinConfig) *Live {
	tb.Helper()
	config.RingSize = smallRing
	l, err := Join(config)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// streamOf joins what the user view has of a connection.
func streamOf(sink *memory, client net.Addr) string {
	from := unmapped(netip.MustParseAddrPort(client.String()))
	var b strings.Builder
	for _, p := range sink.view(ViewUser) {
		if p.Src == from {
			b.Write(p.Data)
		}
	}
	return b.String()
}

// checkPairs holds that every delivery has a packet that holds its first byte.
func checkPairs(t *testing.T, sink *memory) {
	t.Helper()
	kernel := make(map[uint64]Packet)
	for _, p := range sink.view(ViewKernel) {
		kernel[p.ID] = p
	}
	for _, p := range sink.view(ViewUser) {
		k, ok := kernel[p.ID]
		if !ok {
			t.Errorf("%s of %d bytes from %v is not paired: %+v", p.Call, len(p.Data), p.Src, p.Receipt)
			continue
		}
		if k.Src != p.Src || k.Dst != p.Dst || k.Time > p.Time {
			t.Errorf("packet %d %v > %v, delivered as %v > %v", k.ID, k.Src, k.Dst, p.Src, p.Dst)
		}
		if n := min(len(p.Data), 8); !bytes.Contains(k.Data, p.Data[:n]) {
			t.Errorf("packet %d is %.60q, its delivery %.20q", k.ID, k.Data, p.Data)
		}
	}
}

// checkNoFilter holds that no socket of a process has a filter.
func checkNoFilter(t *testing.T, pid int) {
	t.Helper()
	for name, f := range filtersOf(t, pid) {
		if !f.none() {
			t.Errorf("%s has a filter: %+v", name, f)
		}
	}
}

func filtersOf(t *testing.T, pid int) map[string]filter {
	t.Helper()
	p, err := process.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	all := make(map[string]filter)
	err = p.EachSocket(func(fd int, inode uint64) (err error) {
		all[fmt.Sprint("socket ", inode)], err = getFilter(fd)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return all
}

func TestJoinStreams(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "echo", "tcp4", "127.0.0.1:0")
	before := server.dial(t, "tcp", server.address)
	exchange(t, before, "sent before anybody looked")

	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, Options: Options{Views: allViews}})
	var sent []string
	var conns []net.Conn
	sink := runLive(t, l, func() {
		conns = append(conns, before)
		for range 5 {
			conns = append(conns, server.dial(t, "tcp", server.address))
		}
		for i, conn := range conns {
			text := strings.Repeat(fmt.Sprintf("connection %d says something. ", i), 1+i*i*300)
			exchange(t, conn, text)
			sent = append(sent, text)
		}
		for _, conn := range conns[1:] {
			conn.Close()
		}
	})
	for i, conn := range conns {
		if got := streamOf(sink, conn.LocalAddr()); got != sent[i] {
			t.Errorf("connection %d: %d bytes in the user view, sent %d", i, len(got), len(sent[i]))
		}
	}
	checkPairs(t, sink)
	for _, p := range sink.view(ViewUser) {
		if p.Call != "read" || p.PID != uint32(server.Process.Pid) || p.TID == 0 {
			t.Errorf("%s by %d/%d", p.Call, p.PID, p.TID)
		}
	}
	i := sink.view(ViewKernel)[0].Interface
	for _, want := range []string{fmt.Sprintf("process %d (", server.Process.Pid), "descriptor ", "listening on " + server.address} {
		if whose := i.Process + ", " + i.Sockets; !strings.Contains(whose, want) {
			t.Errorf("%q is not in %q", want, whose)
		}
	}
	if i.Name() != "tcp:kernel" {
		t.Errorf("interface %s", i.Name())
	}
	checkNoFilter(t, server.Process.Pid)
	exchange(t, before, "and afterwards")
	checkLiveLedger(t, l)
}

func checkLiveLedger(t *testing.T, l *Live) {
	t.Helper()
	counts, err := l.Counts()
	if err != nil {
		t.Fatal(err)
	}
	if counts.Tap.Seen != counts.Tap.Recorded+counts.Tap.Lost() || counts.Tap.Lost() != 0 || counts.Captured != counts.Tap.Seen {
		t.Errorf("%+v", counts)
	}
	all, err := l.Statistics()
	if err != nil {
		t.Fatal(err)
	}
	var delivered uint64
	for _, st := range all {
		if st.Interface.View == ViewKernel {
			delivered += st.Delivered
		}
		if st.Received != st.Delivered+st.Dropped {
			t.Errorf("%+v", st)
		}
	}
	if delivered != counts.Captured {
		t.Errorf("%d packets on all interfaces, %d captured", delivered, counts.Captured)
	}
}

// What was in the receive queue before the tap came is in the user view, and
// what comes after it is paired.
func TestJoinInTheMiddleOfAStream(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "held")
	conn := server.dial(t, "tcp", server.address)
	server.line(t)
	early, late := "these 26 bytes came before", "and these came when the tap was there"
	if _, err := io.WriteString(conn, early); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}})
	sink := runLive(t, l, func() {
		if _, err := io.WriteString(conn, late); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{10, 26, len(late) - 10} {
			fmt.Fprintln(server.stdin, n)
			server.line(t)
		}
	})
	if got := streamOf(sink, conn.LocalAddr()); got != early+late {
		t.Errorf("user view: %q", got)
	}
	kernel, user := sink.view(ViewKernel), sink.view(ViewUser)
	if len(kernel) == 0 || len(user) != 3 {
		t.Fatalf("%d packets, %d reads", len(kernel), len(user))
	}
	if user[0].ID != 0 || user[1].ID != kernel[0].ID || user[2].ID != kernel[0].ID {
		t.Errorf("ids %d %d %d, want 0 and twice %d", user[0].ID, user[1].ID, user[2].ID, kernel[0].ID)
	}
	for i, want := range []Receipt{{Missing: MissingBeforeTap}, {BeforeTap: 16}, {}} {
		if fmt.Sprint(user[i].Receipt) != fmt.Sprint(want) {
			t.Errorf("read %d: %+v, want %+v", i, user[i].Receipt, want)
		}
	}
}

func TestJoinDatagrams(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "udp", "127.0.0.1:0")
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}})
	const datagrams = 200
	sink := runLive(t, l, func() {
		conn := server.dial(t, "udp", server.address)
		for i := range datagrams {
			exchange(t, conn, strings.Repeat(fmt.Sprint(i/2), 1+i*20))
		}
	})
	if user := sink.view(ViewUser); len(user) != datagrams || user[0].Call != "recvfrom" {
		t.Errorf("%d datagrams", len(user))
	}
	checkPairs(t, sink)
	checkNoFilter(t, server.Process.Pid)
	checkLiveLedger(t, l)
}

// IPv4 packets of an IPv6 socket go to an interface of their own.
func TestJoinDualStack(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "echo", "tcp", "[::]:0")
	_, port, _ := net.SplitHostPort(server.address)
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}})
	var conns []net.Conn
	sink := runLive(t, l, func() {
		for _, host := range []string{"127.0.0.1", "::1"} {
			conn := server.dial(t, "tcp", net.JoinHostPort(host, port))
			exchange(t, conn, "to "+host)
			conns = append(conns, conn)
		}
	})
	for i, want := range []string{"to 127.0.0.1", "to ::1"} {
		if got := streamOf(sink, conns[i].LocalAddr()); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	checkPairs(t, sink)
	for _, p := range sink.view(ViewKernel) {
		if p.Interface.Name() != "tcp6:kernel" || p.Interface.IPv6 != p.Src.Addr().Is6() {
			t.Errorf("%v on %s, IPv6 %v", p.Src, p.Interface.Name(), p.Interface.IPv6)
		}
	}
	checkLiveLedger(t, l)
}

// A child that inherited the listener does the work.
func TestJoinChildren(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "prefork")
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}})
	var conn net.Conn
	sink := runLive(t, l, func() {
		conn = server.dial(t, "tcp", server.address)
		exchange(t, conn, "to the child")
	})
	if got := streamOf(sink, conn.LocalAddr()); got != "to the child" {
		t.Errorf("user view: %q", got)
	}
	checkPairs(t, sink)
	for _, p := range sink.view(ViewUser) {
		if p.PID == uint32(server.Process.Pid) {
			t.Errorf("read by the parent")
		}
	}
}

func TestJoinChoosesSockets(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "echo", "tcp4", "127.0.0.1:0")
	port := netip.MustParseAddrPort(server.address).Port()
	for _, test := range []struct {
		ports []uint16
		want  int
	}{{[]uint16{port}, 1}, {[]uint16{port + 1}, 0}} {
		l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, Ports: test.ports})
		if got := len(l.Sockets()); got != test.want {
			t.Errorf("ports %v: %d sockets, want %d", test.ports, got, test.want)
		}
		runLive(t, l, func() {})
	}
	p, err := process.Open(server.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	files, err := p.Descriptors()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		l, err := Join(JoinConfig{PIDs: []int{server.Process.Pid}, Descriptors: []int{f.FD}, Options: Options{RingSize: smallRing}})
		if _, isSocket := f.Inode(); !isSocket {
			if err == nil || !strings.Contains(err.Error(), "is a socket that takes a filter") {
				t.Errorf("%s: %v", f.String(), err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", f.String(), err)
			continue
		}
		runLive(t, l, func() {})
	}
}

func TestJoinRefusals(t *testing.T) {
	t.Parallel()
	testutil.RequirePrivilege(t)
	if _, err := Join(JoinConfig{PIDs: []int{1 << 22}}); !errors.Is(err, unix.ESRCH) {
		t.Errorf("no such process: %v", err)
	}
	for _, test := range []struct{ target, notice string }{
		{"idle", "fits yet"},
		{"idle", "is in another network namespace"},
	} {
		t.Run(test.target, func(t *testing.T) {
			said := newNotices()
			server := startTarget(t, test.target)
			l, err := Join(JoinConfig{PIDs: []int{server.Process.Pid}, Options: Options{RingSize: smallRing, Notice: said.add}})
			if err != nil {
				t.Fatal(err)
			}
			runLive(t, l, func() {})
			if all := said.all(); !strings.Contains(all, test.notice) {
				t.Errorf("notices %q, want %q", all, test.notice)
			}
		})
	}
}

// A child goes on with a connection where its parent was.
func TestJoinHandover(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "handover")
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}})
	var conn net.Conn
	sink := runLive(t, l, func() {
		conn = server.dial(t, "tcp", server.address)
		for _, text := range []string{"by the parent. ", "by the child. ", "and again. "} {
			exchange(t, conn, text)
		}
		exchange(t, conn, "and later.")
	})
	if got := streamOf(sink, conn.LocalAddr()); got != "by the parent. by the child. and again. and later." {
		t.Errorf("user view: %q", got)
	}
	checkPairs(t, sink)
}

// A unix seqpacket connection does not inherit the tap: it gets one of its own.
func TestJoinSeqpacket(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/socket"
	server := startTarget(t, "seqpacket", path)
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}})
	sink := runLive(t, l, func() {
		conn, err := net.Dial("unixpacket", path)
		if err != nil {
			t.Fatal(err)
		}
		server.line(t)
		quiet(t, l) // until the tap is on
		for _, text := range []string{"one", "two"} {
			if _, err := io.WriteString(conn, text); err != nil {
				t.Fatal(err)
			}
		}
		conn.Close()
		server.line(t)
	})
	kernel, user := sink.view(ViewKernel), sink.view(ViewUser)
	if len(kernel) != 2 || len(user) != 3 {
		t.Fatalf("kernel %+v, user %+v", kernel, user)
	}
	for i, p := range user[:2] {
		if p.ID != kernel[i].ID || !bytes.Equal(p.Data, kernel[i].Data) {
			t.Errorf("delivery %d: %+v", i, p)
		}
	}
	if !user[2].Receipt.End || user[2].ID != 0 {
		t.Errorf("the end: %+v", user[2])
	}
	if d := kernel[0].Interface.Sockets; !strings.Contains(d, "on "+path) {
		t.Error(d)
	}
}

// Peeks are marked, and are not counted.
func TestJoinPeek(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "peek")
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}})
	sink := runLive(t, l, func() {
		conn := server.dial(t, "tcp", server.address)
		exchange(t, conn, "first")
		exchange(t, conn, "second")
	})
	var peeked, taken string
	for _, p := range sink.view(ViewUser) {
		if p.Receipt.Peeked {
			peeked += string(p.Data)
		} else {
			taken += string(p.Data)
		}
	}
	if peeked != "firstsecond" || taken != peeked {
		t.Errorf("peeked at %q, took %q", peeked, taken)
	}
	checkPairs(t, sink)
	counts, err := l.Counts()
	if err != nil || counts.Peeked != 2 || counts.Delivered != 2 {
		t.Errorf("%+v, %v", counts, err)
	}
}

func TestJoinSaysWhatIsUnseen(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "splice")
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}})
	sink := runLive(t, l, func() {
		conn := server.dial(t, "tcp", server.address)
		if _, err := io.WriteString(conn, "nobody reads this"); err != nil {
			t.Fatal(err)
		}
	})
	remarks := strings.Join(l.Remarks(), "\n")
	if !strings.Contains(remarks, "17 bytes went by splice") {
		t.Errorf("remarks %q", remarks)
	}
	if user := sink.view(ViewUser); len(user) != 1 || user[0].Call != "splice" || user[0].Len != 17 || len(user[0].Data) != 0 || user[0].ID == 0 {
		t.Errorf("user view: %+v", user)
	}
}

func TestJoinSaysMappedRing(t *testing.T) {
	t.Parallel()
	target := startTarget(t, "mapped")
	fd, err := strconv.Atoi(target.address)
	if err != nil {
		t.Fatal(err)
	}
	l := mustJoin(t, JoinConfig{PIDs: []int{target.Process.Pid}, Descriptors: []int{fd}})
	runLive(t, l, func() {})
	if remarks := strings.Join(l.Remarks(), "\n"); !strings.Contains(remarks, "mapped a socket into its memory") {
		t.Errorf("remarks %q", remarks)
	}
}

func TestJoinEndsWithTheProcess(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "echo", "tcp4", "127.0.0.1:0")
	said := newNotices()
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, Options: Options{Notice: said.add}})
	defer l.Close()
	conn := server.dial(t, "tcp", server.address)
	exchange(t, conn, "the last words")
	server.stdin.Close()
	var sink memory
	if err := l.Run(t.Context(), &sink); err != nil {
		t.Fatal(err)
	}
	if all := said.all(); !strings.Contains(all, "has ended") {
		t.Errorf("notices %q", all)
	}
	skipMissed(t, l)
	if got := streamOf(&sink, conn.LocalAddr()); got != "the last words" {
		t.Errorf("user view: %q", got)
	}
}
