package capture

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// What a verdict does to the probe: what the kernel view says of each packet,
// and what is delivered with whose id.
func TestProbeThroughVerdict(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		config  Config
		verdict Verdict  // of each packet in the kernel view; Of is not looked at where it is 0
		user    []string // payloads
		refused bool     // the probe does not get through
	}{
		{"udp keep", Config{Kind: mustKind(t, "udp"), Options: Options{Verdict: bpf.Keep(-1)}}, Verdict{}, []string{ProbePayload}, false},
		{"udp exact", Config{Kind: mustKind(t, "udp"), Options: Options{Verdict: bpf.Keep(19)}}, Verdict{}, []string{ProbePayload}, false},
		{"udp trim", Config{Kind: mustKind(t, "udp"), Options: Options{Verdict: bpf.Keep(12)}}, Verdict{Keep: 12, Of: 19}, []string{"0123"}, false},
		{"udp6 header", Config{Kind: mustKind(t, "udp6"), Options: Options{Verdict: bpf.Keep(1)}}, Verdict{Keep: 1, Of: 19}, []string{""}, false},
		{"udp drop", Config{Kind: mustKind(t, "udp"), Options: Options{Verdict: bpf.Keep(0)}}, Verdict{Dropped: true}, nil, false},
		{"udp trim, snaplen", Config{Kind: mustKind(t, "udp"), Options: Options{Verdict: bpf.Keep(12), Snaplen: 10}}, Verdict{Keep: 12, Of: 19}, []string{"0123"}, false},
		{"udp trim, echo", Config{Kind: mustKind(t, "udp"), Echo: true, Options: Options{Verdict: bpf.Keep(12)}}, Verdict{Keep: 12, Of: 19}, []string{"0123"}, true},
		{"raw trim", Config{Kind: mustKind(t, "raw"), Options: Options{Verdict: bpf.Keep(30)}}, Verdict{Keep: 30}, []string{"", ""}, false},
		{"tcp drop", Config{Kind: mustKind(t, "tcp"), Options: Options{Verdict: bpf.Keep(0)}}, Verdict{Dropped: true}, nil, true},
		{"tcp trim", Config{Kind: mustKind(t, "tcp"), Options: Options{Verdict: bpf.Keep(36)}}, Verdict{}, []string{"0123", "4567", "89\n", ""}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var notices []string
			test.config.RingSize = bpf.MinRingSize
			test.config.Notice = func(text string) { notices = append(notices, text) }
			sink, s := run(t, test.config, probed(t))
			known := make(map[uint64]bool)
			trimmed := uint64(0)
			for _, p := range sink.view(ViewKernel) {
				known[p.ID] = true
				if p.Verdict.Of > 0 {
					trimmed++
				}
				if want := test.config.Snaplen > 0; p.Truncated != want || p.Truncated != (len(p.Data) < p.Len) {
					t.Errorf("%d of %d bytes, truncated %v", len(p.Data), p.Len, p.Truncated)
				}
				if test.config.Kind.stream && trimmed > 0 {
					continue // only the segments with payload are
				}
				want := test.verdict
				if want.Keep > 0 && want.Of == 0 {
					want.Of = uint32(p.Len)
				}
				if p.Verdict != want {
					t.Errorf("%+v, want %+v", p.Verdict, want)
				}
			}
			var user []string
			for _, p := range sink.view(ViewUser) {
				user = append(user, string(p.Data))
				if !known[p.ID] || p.Receipt.Missing != NotMissing {
					t.Errorf("delivery of %q has id %d, %+v", p.Data, p.ID, p.Receipt)
				}
			}
			if test.config.Kind.Name == "raw" {
				for i := range user {
					if len(user[i]) != 30 {
						t.Errorf("received %d bytes", len(user[i]))
					}
					user[i] = ""
				}
			}
			// A read of a stream may bring the rest of several segments.
			if !slices.Equal(user, test.user) && !(test.config.Kind.stream && strings.Join(user, "") == strings.Join(test.user, "")) {
				t.Errorf("received %q, want %q", user, test.user)
			}
			if refused := len(notices) > 0; refused != test.refused {
				t.Errorf("notices %q", notices)
			}
			counts, err := s.Counts()
			if err != nil {
				t.Fatal(err)
			}
			if counts.Trimmed != trimmed {
				t.Errorf("counted %d trimmed packets of %d", counts.Trimmed, trimmed)
			}
			if len(test.user) > 0 {
				checkLedger(t, s)
			}
			st, err := s.Statistics()
			if err != nil {
				t.Fatal(err)
			}
			if st[0].Accepted+counts.Tap.Dropped != st[0].Received {
				t.Errorf("%+v, and %d dropped", st[0], counts.Tap.Dropped)
			}
		})
	}
}

// The datagrams that the filter drops count as drops of the receive queue with
// the kernel, and are none.
func TestFilteredAreNotLost(t *testing.T) {
	t.Parallel()
	// ldb [8], jeq '-' drops, and all else is kept.
	path := filepath.Join(t.TempDir(), "filter.bpf")
	if err := os.WriteFile(path, []byte("48 0 0 8\n21 0 1 45\n6 0 0 0\n6 0 0 65535\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	verdict, err := bpf.ReadClassic(path)
	if err != nil {
		t.Fatal(err)
	}
	sink, s := run(t, Config{Kind: mustKind(t, "udp"), Options: Options{Verdict: verdict, RingSize: bpf.MinRingSize}}, func(s *Session) {
		conn := dialIn(t, s, "udp")
		defer conn.Close()
		for _, payload := range []string{"a", "-", "a", "-", "-", "b", "a", "-"} {
			if _, err := conn.Write([]byte(payload)); err != nil {
				t.Error(err)
			}
		}
		if err := s.settle(t.Context(), Counts{}); err != nil {
			t.Error(err)
		}
	})
	var ids []uint64
	for _, p := range sink.view(ViewUser) {
		ids = append(ids, p.ID)
		if p.Drops != 0 || p.Receipt.QueueDropped != 0 || p.Receipt.Missing != NotMissing {
			t.Errorf("packet %d: %d drops, %+v", p.ID, p.Drops, p.Receipt)
		}
	}
	if !slices.Equal(ids, []uint64{1, 3, 6, 7}) {
		t.Errorf("received packets %v", ids)
	}
	counts, err := s.Counts()
	if err != nil {
		t.Fatal(err)
	}
	if counts.QueueDropped != 0 || counts.Tap.Dropped != 4 || counts.Trimmed != 0 {
		t.Errorf("%+v", counts)
	}
}
