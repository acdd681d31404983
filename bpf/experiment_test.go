package bpf

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// What a verdict keeps of a datagram of 8 + 11 bytes, and what the tap says of it.
func TestVerdict(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		keep int32
		user string
	}{
		{-1, "0123456789\n"}, {100, "0123456789\n"}, {12, "0123"}, {8, ""}, {1, ""},
	} {
		tap := mustOpen(t, Options{RingSize: MinRingSize, Verdict: Keep(test.keep)})
		receiver, sender := udpPair(t)
		if err := tap.Attach(receiver); err != nil {
			t.Fatal(err)
		}
		if err := unix.Send(sender, []byte("0123456789\n"), 0); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64)
		n, _, err := unix.Recvfrom(receiver, buf, unix.MSG_DONTWAIT)
		if err != nil || string(buf[:n]) != test.user {
			t.Errorf("keep %d: received %q, %v, want %q", test.keep, buf[:max(n, 0)], err, test.user)
		}
		readAll(t, tap, func(rec *Record) {
			if rec.Verdict != test.keep || rec.Len != 19 {
				t.Errorf("keep %d: recorded verdict %d of %d bytes", test.keep, rec.Verdict, rec.Len)
			}
		})
	}
}

func TestVerdictDrops(t *testing.T) {
	t.Parallel()
	tap := mustOpen(t, Options{RingSize: MinRingSize, Verdict: Keep(0)})
	receiver, sender := udpPair(t)
	if err := tap.Attach(receiver); err != nil {
		t.Fatal(err)
	}
	if err := unix.Send(sender, []byte("dropped"), 0); err != nil {
		t.Fatal(err)
	}
	if n, _, err := unix.Recvfrom(receiver, make([]byte, 16), unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("received %d bytes, %v through a verdict that drops all", n, err)
	}
	c, err := tap.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if c.Seen != 1 || c.Recorded != 1 || c.Dropped != 1 {
		t.Errorf("counters %+v", c)
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
		receiver, sender := udpPair(t)
		if err := load.Attach(receiver); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := unix.Send(sender, []byte("x"), 0); err != nil {
				t.Fatal(err)
			}
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
	var readable []Field
	index := make(map[string]int)
	for _, f := range Fields() {
		ok, err := f.Readable()
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
	receiver, sender := udpPair(t)
	if err := reader.Attach(receiver); err != nil {
		t.Fatal(err)
	}
	for i := range fieldRuns + 3 {
		if err := unix.Send(sender, make([]byte, i), 0); err != nil {
			t.Fatal(err)
		}
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
