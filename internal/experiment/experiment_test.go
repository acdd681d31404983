package experiment

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/capability"
	"github.com/ebpfdump/ebpfdump/internal/skb"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

func requirePrivilege(tb testing.TB) {
	tb.Helper()
	if !capability.Held(unix.CAP_BPF) {
		testutil.Missing(tb, "needs CAP_BPF")
	}
}

// Both bases reach the headers below a UDP socket's offset 0.
func TestLegacyLoads(t *testing.T) {
	t.Parallel()
	requirePrivilege(t)
	for _, test := range []struct {
		name string
		open func() (*LegacyLoad, error)
		at   int
		want []byte
	}{
		{"net", OpenLegacyNet, 12, []byte{127, 0, 0, 1}},
		{"link", OpenLegacyLink, 12, []byte{8, 0, 0x45, 0}},
	} {
		load, err := test.open()
		if err != nil {
			t.Fatal(err)
		}
		defer load.Close()
		receiver, sender := testutil.UDPPair(t)
		if err := load.Attach(receiver); err != nil {
			t.Fatal(err)
		}
		barrier := testutil.NewBarrier(t)
		for range 3 {
			barrier.Send(t, sender, []byte("x"))
		}
		reach, err := load.Reach()
		if err != nil {
			t.Fatal(err)
		}
		if reach.Runs != 3 || reach.Reached != 3 || !bytes.Equal(reach.Data[test.at:], test.want) {
			t.Errorf("%s: %+v", test.name, reach)
		}
	}
}

func TestFields(t *testing.T) {
	t.Parallel()
	requirePrivilege(t)
	var readable []skb.Field
	index := make(map[string]int)
	for _, f := range skb.Fields() {
		ok, err := Readable(f)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			index[f.Name] = len(readable)
			readable = append(readable, f)
		}
	}
	for _, name := range []string{"data", "data_end", "tstamp", "family", "sk.protocol"} {
		if _, ok := index[name]; ok {
			t.Errorf("%s is readable", name)
		}
	}
	reader, err := OpenFields(readable)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	receiver, sender := testutil.UDPPair(t)
	if err := reader.Attach(receiver); err != nil {
		t.Fatal(err)
	}
	barrier := testutil.NewBarrier(t)
	for i := range fieldRuns + 3 {
		barrier.Send(t, sender, make([]byte, i))
	}
	values, err := reader.Values()
	if err != nil {
		t.Fatal(err)
	}
	if len(values) != fieldRuns {
		t.Fatalf("%d packets", len(values))
	}
	for i, held := range values {
		for name, want := range map[string]uint64{"len": uint64(8 + i), "pkt_type": 0, "sk": 1, "sk.family": unix.AF_INET} {
			at, ok := index[name]
			if !ok {
				t.Fatalf("%s is not readable", name)
			}
			if held[at] != want {
				t.Errorf("packet %d: %s is %d, want %d", i, name, held[at], want)
			}
		}
	}
}
