package capture

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/process"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// owned starts an owner of a filter on UDP, or on a unix socket, and connects to it.
func owned(t *testing.T, kind string, overUnix bool) (*target, io.Writer, int) {
	t.Helper()
	if !overUnix {
		server := startTarget(t, "owner", kind)
		return server, server.dial(t, "udp", server.address), 8
	}
	server := startTarget(t, "owner", kind, filepath.Join(t.TempDir(), "socket"))
	conn, err := net.Dial("unixgram", server.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return server, conn, 0
}

// A filter that runs inside the tap decides what it would without: what the process gets, what is
// recorded and the state of the filter agree, and at the end it has its socket back.
func TestWrapFilter(t *testing.T) {
	testutil.BPFFileSystem(t)
	messages := []string{"keep it", "drop it", "trim it", "k", "drop it again", "trim", "last"}
	for _, overUnix := range []bool{false, true} {
		for _, kind := range []string{"classic", "bytes", "counts"} {
			if overUnix && kind == "bytes" || !overUnix && kind == "classic" {
				continue // the other one has it
			}
			t.Run(fmt.Sprintf("%s over unix %v", kind, overUnix), func(t *testing.T) {
				server, conn, header := owned(t, kind, overUnix)
				before := ownFiltersOf(t, server)
				l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, WrapFilter: true})
				if d := l.Interfaces()[0].Filter; !strings.HasSuffix(d, ", run inside the tap") {
					t.Errorf("the filter is described as %q", d)
				}
				var got []string
				sink := runLive(t, l, func() { got = server.sendAll(t, conn, messages...) })
				want := []string{"keep it", "trim", "k", "trim", "last"}
				if kind == "counts" {
					want = []string{"keep it", "trim it", "drop it again", "last"}
					if _, state := server.says(t, "state"); state != "7" {
						t.Errorf("the filter has counted %s packets", state)
					}
				}
				if recorded := byVerdict(sink, header); !slices.Equal(got, want) || !slices.Equal(recorded, want) {
					t.Errorf("the process got %q, by the verdicts it would be %q, want %q", got, recorded, want)
				}
				if n := len(sink.view(ViewKernel)); n != len(messages) {
					t.Errorf("%d packets", n)
				}
				for _, p := range sink.view(ViewKernel) {
					if p.Verdict.Asked || p.Verdict.Unasked {
						t.Errorf("%+v", p.Verdict)
					}
				}
				checkPairs(t, sink)
				checkLiveLedger(t, l)
				if all := l.OwnFilters(); len(all) != 1 || !all[0].Wrapped || all[0].Packets != 7 || int(all[0].Packets-all[0].Dropped) != len(want) {
					t.Errorf("%+v", all)
				}
				if after := ownFiltersOf(t, server); !slices.Equal(after, before) {
					t.Errorf("filters before %v, after %v", before, after)
				}
			})
		}
	}
}

// Any view will do, and a second capture leaves the tap of the first one where it is: whichever ends
// first, the socket has its filter back.
func TestWrapFilterTwice(t *testing.T) {
	testutil.BPFFileSystem(t)
	server, conn, _ := owned(t, "counts", false)
	before := ownFiltersOf(t, server)
	first := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, WrapFilter: true, Options: Options{Views: []View{ViewUser}}})
	said := newNotices()
	second := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, WrapFilter: true, Options: Options{Notice: said.add}})
	var got []string
	sink := runLive(t, first, func() {
		runLive(t, second, func() { got = server.sendAll(t, conn, "1", "2", "3") })
	})
	if want := []string{"1", "3"}; !slices.Equal(got, want) || len(sink.view(ViewUser)) != len(want) {
		t.Errorf("the process got %q, and %d packets of the user view", got, len(sink.view(ViewUser)))
	}
	if said := said.all(); !strings.Contains(said, "it is that of another capture") {
		t.Errorf("it says %q", said)
	}
	if after := ownFiltersOf(t, server); !slices.Equal(after, before) {
		t.Errorf("filters before %v, after %v", before, after)
	}
	if _, state := server.says(t, "state"); state != "3" {
		t.Errorf("the filter has counted %s packets", state)
	}
}

// A child that goes on when the process that was named has ended, and with it the capture, has its
// filter back.
func TestWrapFilterOfChild(t *testing.T) {
	testutil.BPFFileSystem(t)
	server := startTarget(t, "leaver", "owner", "counts")
	parent, err := process.Open(server.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer parent.Close()
	children := parent.Children()
	if len(children) != 1 {
		t.Fatalf("%d children", len(children))
	}
	before := filtersOn(t, children[0])
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, WrapFilter: true})
	if during := filtersOn(t, children[0]); slices.Equal(during, before) {
		t.Errorf("filters before and during %v", before)
	}
	runLive(t, l, func() {
		if err := server.Process.Kill(); err != nil {
			t.Error(err)
		}
		for !parent.Exited() {
			time.Sleep(time.Millisecond)
		}
	})
	if after := filtersOn(t, children[0]); !slices.Equal(after, before) {
		t.Errorf("filters before %v, after %v", before, after)
	}
}

// ownFiltersOf says which filters the sockets of a process have, eBPF ones by their ids.
func ownFiltersOf(t *testing.T, server *target) (all []string) {
	t.Helper()
	return filtersOn(t, server.Process.Pid)
}

func filtersOn(t *testing.T, pid int) (all []string) {
	t.Helper()
	looked, err := TakeInventory(InventoryConfig{PIDs: []int{pid}})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range looked.Sockets {
		program := "none"
		if s.Extended {
			program = fmt.Sprint(s.Filter.ID, s.Filter.Name)
		}
		all = append(all, fmt.Sprint(s.Classic, program))
	}
	return all
}

// A filter that the socket gets during the capture comes into the tap, too.
func TestWrapFilterLater(t *testing.T) {
	testutil.BPFFileSystem(t)
	server, conn, _ := owned(t, "none", false)
	said := newNotices()
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, WrapFilter: true, Options: Options{Notice: said.add}})
	round := func() {
		t.Helper()
		if got := server.sendAll(t, conn, "1", "2", "3"); !slices.Equal(got, []string{"1", "3"}) {
			t.Errorf("the process got %q", got)
		}
		if _, state := server.says(t, "state"); state != "3" {
			t.Errorf("the filter has counted %s packets of 3", state)
		}
		server.says(t, "set 0")
	}
	sink := runLive(t, l, func() {
		server.says(t, "filter counts")
		for wrapped := false; !wrapped; time.Sleep(time.Millisecond) {
			round()
			wrapped = slices.ContainsFunc(l.OwnFilters(), func(f OwnFilter) bool { return f.Wrapped })
		}
		round()
		round()
	})
	kernel := sink.view(ViewKernel)
	for i, p := range kernel {
		if i >= len(kernel)-6 && p.Verdict != (Verdict{Dropped: i%3 == 1}) {
			t.Errorf("packet %d of %d: %+v", i, len(kernel), p.Verdict)
		}
	}
	checkPairs(t, sink)
	round()
	if said := said.all(); strings.Contains(said, "cannot") {
		t.Error(said)
	}
}

// A filter that is locked stays where it is, which is said.
func TestWrapFilterLocked(t *testing.T) {
	testutil.BPFFileSystem(t)
	server, conn, _ := owned(t, "counts", false)
	server.says(t, "lock")
	before := ownFiltersOf(t, server)
	said := newNotices()
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, WrapFilter: true, Options: Options{Notice: said.add}})
	sink := runLive(t, l, func() { server.sendAll(t, conn, "1", "2", "3") })
	if said := said.all(); !strings.Contains(said, "cannot run inside the tap: attaching the tap: the socket's owner has locked its filter (SO_LOCK_FILTER)") {
		t.Errorf("it says %q", said)
	}
	if len(sink.view(ViewKernel)) != 3 || !slices.Equal(ownFiltersOf(t, server), before) {
		t.Errorf("%d packets; filters before %v, after %v", len(sink.view(ViewKernel)), before, ownFiltersOf(t, server))
	}
	if _, state := server.says(t, "state"); state != "3" {
		t.Errorf("the filter has counted %s packets", state)
	}
}

// After kill -9 the socket goes on with its filter, and the next capture tidies what was left.
func TestWrapFilterKilled(t *testing.T) {
	testutil.BPFFileSystem(t)
	for _, kind := range []string{"classic", "counts"} {
		server, conn, _ := owned(t, kind, false)
		before := ownFiltersOf(t, server)
		joiner := startTarget(t, "joiner", fmt.Sprint(server.Process.Pid), "wrap")
		expect := func(n int) {
			t.Helper()
			want := []string{"keep", "k", "trim", "last"}
			if kind == "counts" {
				want = []string{"keep", "k", "last"}
			}
			if got := server.sendAll(t, conn, "keep", "drop", "k", "trim it", "last"); !slices.Equal(got, want) {
				t.Fatalf("%s: round %d: the process got %q, want %q", kind, n, got, want)
			}
			if kind == "counts" {
				if _, state := server.says(t, "state"); state != "5" {
					t.Errorf("round %d: the filter has counted %s packets", n, state)
				}
				server.says(t, "set 0")
			}
		}
		expect(1)
		saysWhose(t, server, kind, joiner.Process.Pid, "the tap of another ebpfdump")
		if err := joiner.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		joiner.Wait()
		saysWhose(t, server, kind, 0, "the tap of a capture that has ended") // long before the lease is over
		expect(2)
		time.Sleep(bpf.Lease + bpf.Lease/10)
		expect(3)
		if after := fmt.Sprint(ownFiltersOf(t, server)); !strings.Contains(after, "tap_wrapper") {
			t.Errorf("%s: the wrapper is not there: %s", kind, after)
		}
		leftFilter(t, server, conn, kind, before)
		server.stdin.Close()
		server.Wait()
	}
}

// saysWhose checks that the list of sockets, the description of the interface and the reason why the filter stays
// all say the same of a tap. pid is 0 for one that was killed.
func saysWhose(t *testing.T, server *target, kind string, pid int, words string) {
	t.Helper()
	listed, err := TakeInventory(InventoryConfig{PIDs: []int{server.Process.Pid}})
	if err != nil || len(listed.Sockets) != 1 || listed.Sockets[0].Tap == nil {
		t.Fatalf("%s: %+v, %v", kind, listed, err)
	}
	if tap := listed.Sockets[0].Tap; tap.PID != pid || tap.Ended != (pid == 0) {
		t.Errorf("%s: the list has %+v, want process %d", kind, tap, pid)
	}
	said := newNotices()
	// A classic filter stays inside of a tap in any case, an eBPF one of a capture that goes on.
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, WrapFilter: kind == "classic" || pid != 0, Options: Options{Notice: said.add}})
	if d := l.Interfaces()[0].Filter; !strings.Contains(d, words+",") {
		t.Errorf("%s: the filter is described as %q, want %q", kind, d, words)
	}
	if text := said.all(); l.config.WrapFilter && !strings.Contains(text, words) {
		t.Errorf("%s: it says %q, want %q", kind, text, words)
	}
	runLive(t, l, func() {})
}

// leftFilter captures a socket whose filter is inside the tap of a capture that was killed: it is called
// what it is, and an eBPF filter is the socket's own again afterwards.
func leftFilter(t *testing.T, server *target, conn io.Writer, kind string, before []string) {
	t.Helper()
	inside := "classic filter inside"
	if kind == "counts" {
		inside = "(own_counts), loaded "
	}
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}})
	if d := l.Interfaces()[0].Filter; !strings.Contains(d, ", the tap of a capture that has ended, with ") || !strings.Contains(d, inside) {
		t.Errorf("%s: the filter is described as %q", kind, d)
	}
	runLive(t, l, func() { server.sendAll(t, conn, "last") })
	said := newNotices()
	l = mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, WrapFilter: true, Options: Options{Notice: said.add}})
	var sent, got int
	sink := runLive(t, l, func() {
		messages := []string{"1", "last"} // a filter that counts has had one packet
		sent, got = len(messages), len(server.sendAll(t, conn, messages...))
	})
	if n := len(sink.view(ViewKernel)); n != sent {
		t.Errorf("%s: %d packets", kind, n)
	}
	after := ownFiltersOf(t, server)
	if kind == "classic" {
		said := said.all()
		if !strings.Contains(said, "cannot run inside the tap: it is eBPF filter ") || !strings.Contains(said, "that has ended") {
			t.Errorf("it says %q", said)
		}
		if strings.Contains(said, "of its own") || strings.Count(said, "cannot run inside the tap") != 1 {
			t.Errorf("it calls what a capture has left the socket's own, or says it twice: %q", said)
		}
		if all := l.OwnFilters(); len(all) != 1 || !all[0].OtherTap || !IsOtherTap(l.Interfaces()[0].Filter) || strings.Count(l.Interfaces()[0].Filter, "the tap of") != 1 {
			t.Errorf("%+v, described as %q", all, l.Interfaces()[0].Filter)
		}
		return
	}
	if !slices.Equal(after, before) {
		t.Errorf("filters before the kill %v, after another capture %v", before, after)
	}
	if all := l.OwnFilters(); len(all) != 1 || !all[0].Wrapped || int(all[0].Packets-all[0].Dropped) != got || !strings.Contains(all[0].Filter, "(own_counts)") {
		t.Errorf("%+v", all)
	}
}

// The tap stays on a socket whose filter its owner locks meanwhile, which is said, and the socket goes
// on with its filter.
func TestLockedMeanwhile(t *testing.T) {
	testutil.BPFFileSystem(t)
	for _, c := range []struct {
		kind     string
		overUnix bool
		stays    string
	}{
		{"classic", false, "goes on to run the socket's own filter"},
		{"counts", false, "goes on to run the socket's own filter"},
		{"none", true, "lets everything through"},
	} {
		server, conn, _ := owned(t, c.kind, c.overUnix)
		said := newNotices()
		l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, WrapFilter: c.kind != "none", Options: Options{Notice: said.add}})
		runLive(t, l, func() {
			server.sendAll(t, conn, "k", "drop it", "last")
			server.says(t, "lock")
		})
		const words = "its owner has locked its filter meanwhile (SO_LOCK_FILTER), so the tap stays on it until it is closed: it records nothing any more, and "
		if said := said.all(); strings.Count(said, words) != 1 || !strings.Contains(said, l.Process()) || !strings.Contains(said, words+c.stays) {
			t.Errorf("%s: it says %q", c.kind, said)
		}
		want := []string{"k", "last"}
		if c.kind == "counts" {
			want = []string{"drop it"} // the fourth and sixth are dropped
		}
		if c.kind == "none" {
			want = []string{"k", "drop it", "last"}
		}
		messages := []string{"k", "drop it", "last"}
		if c.kind == "counts" {
			messages = messages[:2]
		}
		if got := server.sendAll(t, conn, messages...); !slices.Equal(got, want) {
			t.Errorf("%s: afterwards the process got %q, want %q", c.kind, got, want)
		}
		server.stdin.Close()
		server.Wait()
	}
}

// Without a BPF file system it is said, once, why the filter does not run inside the tap, and what
// mends that.
func TestWrapFilterWithoutFileSystem(t *testing.T) {
	testutil.RequireRoot(t)
	server, conn, _ := owned(t, "counts", false)
	said := newNotices()
	joined := make(chan *Live)
	go func() {
		defer close(joined)
		if err := testutil.WithoutBPFFileSystem(); err != nil { // this thread, which ends with the goroutine
			t.Error(err)
			return
		}
		l, err := Join(JoinConfig{PIDs: []int{server.Process.Pid}, WrapFilter: true, Options: Options{Notice: said.add}})
		if err != nil {
			t.Error(err)
			return
		}
		joined <- l
	}()
	l := <-joined
	if l == nil {
		return
	}
	const why = "keeping hold of an eBPF filter needs a BPF file system, and none is mounted: mount -t bpf bpf /sys/fs/bpf"
	if d := l.Interfaces()[0].Filter; !strings.Contains(d, "(own_counts)") || !strings.Contains(d, "cannot run inside the tap: "+why) {
		t.Errorf("the filter is described as %q", d)
	}
	sink := runLive(t, l, func() {
		for range 3 {
			server.sendAll(t, conn, "1", "2", "3")
			server.says(t, "set 0")
		}
	})
	if said := said.all(); strings.Count(said, "cannot run inside the tap: "+why) != 1 || strings.Count(said, "cannot run") != 1 {
		t.Errorf("it says %q", said)
	}
	if all := l.OwnFilters(); len(all) != 1 || all[0].Wrapped || all[0].Unwrapped != why || len(sink.view(ViewKernel)) != 9 {
		t.Errorf("%d packets, %+v", len(sink.view(ViewKernel)), all)
	}
}

// Where a filter stays, there is no interface for which nothing can come: only the hook has packets without the
// tap, and only internet and unix sockets have reads that are followed. It is said why.
func TestWrapFilterLeavesNoInterface(t *testing.T) {
	testutil.RequireRoot(t)
	for _, c := range []struct {
		over   []string
		locked bool
		want   []string
	}{
		{[]string{"packet"}, true, nil},
		{[]string{"packet"}, false, []string{"packet-dgram:kernel"}},
		{[]string{filepath.Join(t.TempDir(), "socket")}, true, []string{"unix-dgram:user"}},
		{nil, true, []string{"udp:kernel", "udp:user"}},
	} {
		server := startTarget(t, append([]string{"owner", "classic"}, c.over...)...)
		if c.locked {
			server.says(t, "lock")
		}
		said := newNotices()
		l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, WrapFilter: true, Options: Options{Notice: said.add}})
		var names []string
		for _, i := range l.Interfaces() {
			names = append(names, i.Name())
		}
		if !slices.Equal(names, c.want) {
			t.Errorf("%v: interfaces %q, want %q", c.over, names, c.want)
		}
		runLive(t, l, func() {})
		statistics, err := l.Statistics()
		if err != nil {
			t.Fatal(err)
		}
		names = nil
		for _, st := range statistics {
			names = append(names, st.Interface.Name())
		}
		if !slices.Equal(names, c.want) {
			t.Errorf("%v: statistics of %q, want %q", c.over, names, c.want)
		}
		if text := said.all(); strings.Contains(text, "locked its filter") != c.locked {
			t.Errorf("%v: it says %q", c.over, text)
		}
	}
}

// Packet and netlink sockets with filters are told of where only WrapFilter captures them.
func TestLeftOut(t *testing.T) {
	testutil.RequireRoot(t)
	server := startTarget(t, "owner", "classic", "packet")
	var left []string
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, LeftOut: func(sockets []string) { left = append(left, sockets...) }})
	runLive(t, l, func() {})
	if len(left) != 1 || !strings.HasPrefix(left[0], "packet-dgram without an address (descriptor ") || !strings.Contains(left[0], l.Process()) {
		t.Errorf("left out: %q", left)
	}
	left = nil
	l = mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, WrapFilter: true, LeftOut: func(sockets []string) { left = append(left, sockets...) }})
	runLive(t, l, func() {})
	if len(left) != 0 {
		t.Errorf("left out: %q", left)
	}
}
