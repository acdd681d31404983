package capture

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// Whoever has begun to bear the bytes of a direction goes on, unless the file has the segments
// themselves or a new connection begins.
func TestCourses(t *testing.T) {
	t.Parallel()
	there := course{netip.MustParseAddrPort("127.0.0.1:4000"), netip.MustParseAddrPort("127.0.0.1:80")}
	segment := func(seq uint32, flags byte) []byte {
		b := make([]byte, 20)
		binary.BigEndian.PutUint32(b[4:], seq)
		b[13] = flags
		return b
	}
	const syn, ack = 0x02, 0x10
	// Each step says who bears the bytes then.
	type step struct {
		call string
		seq  uint32
		want bool
	}
	for _, test := range []struct {
		name  string
		views []View
		found bool // the receiver was there before
		steps []step
	}{
		{"one end", []View{ViewUser, ViewSent}, false, []step{{"send", 11, true}, {"send", 12, true}}},
		{"a new connection", []View{ViewUser, ViewSent}, false, []step{{"syn", 10, false}, {"send", 11, false}, {"read", 11, true}, {"send", 12, false}}},
		{"an old one", []View{ViewUser, ViewSent}, true, []step{{"send", 11, false}, {"ack", 11, false}, {"read", 11, true}}},
		{"found too late", []View{ViewUser, ViewSent}, false, []step{{"send", 11, true}, {"ack", 11, false}, {"read", 11, false}, {"send", 12, true}}},
		{"sent with the first segment", []View{ViewUser, ViewSent}, false, []step{{"send", 11, true}, {"syn", 10, false}, {"read", 11, false}, {"send", 12, true}}},
		{"the same addresses again", []View{ViewUser, ViewSent}, false, []step{{"send", 11, true}, {"syn", 500, false}, {"send", 501, false}, {"read", 501, true}}},
		{"the kernel has it", []View{ViewKernel, ViewSent}, false, []step{{"syn", 10, false}, {"send", 11, false}}},
		{"the kernel has it from some time on", []View{ViewKernel, ViewUser, ViewSent}, false, []step{{"send", 11, true}, {"ack", 12, false}, {"send", 12, false}}},
		{"nothing else", []View{ViewSent}, true, []step{{"syn", 10, false}, {"send", 11, true}, {"send", 12, true}}},
	} {
		c := newCourses(test.views)
		c.receives = func(key course) bool { return test.found && key == there }
		for n, s := range test.steps {
			got := false
			switch s.call {
			case "send":
				got = c.sent(there, &Segment{Known: true, Seq: s.seq}, 1)
			case "read":
				got = c.read(there, &Segment{Known: true, Seq: s.seq}, 1)
			case "syn":
				c.arrived(there, segment(s.seq, syn))
			case "ack":
				c.arrived(there, segment(s.seq, ack))
			}
			if got != s.want {
				t.Errorf("%s: step %d (%s) is borne: %v", test.name, n, s.call, got)
			}
		}
	}
}

// What is forgotten is what was idle for longest.
func TestCoursesBounded(t *testing.T) {
	t.Parallel()
	c := newCourses([]View{ViewUser, ViewSent})
	end := func(n int) course {
		return course{netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 1), netip.MustParseAddrPort("127.0.0.1:80")}
	}
	for n := range 4 * flowsLimit {
		c.of(end(n)).by = bearerReceiver
		c.of(end(0))
		if len(c.recent)+len(c.earlier) > flowsLimit {
			t.Fatalf("%d are remembered", len(c.recent)+len(c.earlier))
		}
	}
	if c.of(end(0)).by != bearerReceiver {
		t.Error("one that is in use is forgotten")
	}
	if c.of(end(flowsLimit)).by != bearerOpen {
		t.Error("one that was idle for long is not")
	}
}
