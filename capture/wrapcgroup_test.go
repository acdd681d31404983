package capture

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// While the filter of one socket runs inside the tap and another socket has none, the cgroup view has what was on
// the wire of both, with the ids of the kernel view, and both ledgers balance.
func TestWrapFilterBesideCgroup(t *testing.T) {
	testutil.BPFFileSystem(t)
	for _, c := range []struct {
		text      string
		expressed func([]byte) bool // of an IPv4 packet
	}{
		{"", func([]byte) bool { return true }},
		{"less 34", func(ip []byte) bool { return len(ip) <= 34 }},
	} {
		server, conn, _ := owned(t, "counts", false)
		before := ownFiltersOf(t, server)
		echo := startTarget(t, "udp", "127.0.0.1:0")
		var wanted *bpf.Expression
		if c.text != "" {
			wanted = mustExpression(t, c.text)
		}
		l := joinWith(t, JoinConfig{PIDs: []int{server.Process.Pid, echo.Process.Pid}, WrapFilter: true, Options: Options{
			Views: cgroupViews, RingSize: 8 << 20, Expression: wanted,
		}})
		wires := []*wireTap{tapWire(t, server.ns), tapWire(t, echo.ns)}
		messages := []string{"1", "2 that is long", "3", "4 that is long", "5", "6", "7"}
		var got []string
		sink := runLive(t, l, func() {
			got = server.sendAll(t, conn, messages...)
			other := echo.dial(t, "udp", echo.address)
			for _, m := range messages {
				exchange(t, other, m)
			}
		})
		var in, out [][]byte
		for i, of := range []*target{server, echo} {
			arrived, left := wires[i].packets(t, ofPort(netip.MustParseAddrPort(of.address).Port()))
			in, out = append(in, arrived...), append(out, left...)
		}
		unwanted := func(ip []byte) bool { return !c.expressed(ip) }
		all := len(in)
		checkCgroup(t, sink, slices.DeleteFunc(slices.Clone(in), unwanted), slices.DeleteFunc(out, unwanted))
		dropped := 0
		for _, p := range sink.view(ViewKernel) {
			if p.Verdict.Dropped {
				dropped++
			}
		}
		if c.text == "" && (dropped != len(messages)-len(got) || len(got) != 4) {
			t.Errorf("%d dropped, the process got %q", dropped, got)
		}
		checkPairs(t, sink)
		counts, err := l.Counts()
		if err != nil {
			t.Fatal(err)
		}
		for name, ledger := range map[string]bpf.Counters{"kernel": counts.Tap, "cgroup": counts.Ingress} {
			chosen := uint64(len(sink.view(ViewKernel)))
			if ledger.Seen != uint64(all) || ledger.Seen != ledger.Recorded+ledger.Unwanted+ledger.Lost() || ledger.Lost() != 0 || ledger.Unwanted != uint64(all)-chosen && name == "cgroup" {
				t.Errorf("%q: %s: %d of %d packets: %+v", c.text, name, chosen, all, ledger)
			}
		}
		if counts.Shared.Seen != uint64(len(messages)) || counts.Lost() != 0 {
			t.Errorf("%q: %+v", c.text, counts)
		}
		if c.text == "" {
			checkHookLedger(t, l, sink)
			checkLiveLedger(t, l)
		}
		if after := ownFiltersOf(t, server); !slices.Equal(after, before) {
			t.Errorf("filters before %v, after %v", before, after)
		}
		if _, state := server.says(t, "state"); state != "7" {
			t.Errorf("the filter has counted %s packets", state)
		}
	}
}
