package survey

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// kept has the arguments of Captured.
type kept struct {
	packets map[string][]capture.Packet
	done    []string
}

// surveyed is a survey of all rows, made once for all tests.
var surveyed = sync.OnceValues(func() (*Report, error) {
	return Run(context.Background(), Options{
		Program: "test",
		Done:    func(name string) { captured.done = append(captured.done, name) },
		Captured: func(row Row, packets []capture.Packet, _ []capture.Statistics) error {
			captured.packets[row.Name] = packets
			return nil
		},
	})
})

var captured = kept{packets: make(map[string][]capture.Packet)}

func mustSurvey(tb testing.TB) *Report {
	tb.Helper()
	testutil.RequirePrivilege(tb)
	r, err := surveyed()
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// Known results for every kernel since 5.10, which the survey must find by itself.
func TestSurvey(t *testing.T) {
	t.Parallel()
	r := mustSurvey(t)
	for _, want := range []struct {
		names, offset0, userspace, below string
		same                             bool
		dropped                          string
	}{
		{"raw/tcp raw/udp raw/icmp packet-dgram", "IPv4", "IPv4", ReachedBytes, true, "ok"},
		{"raw6/tcp", "TCP", "TCP", ReachedBytes, true, "ok"},
		{"raw6/udp", "UDP", "UDP", ReachedBytes, true, "ok"},
		{"raw6/icmp icmp6", "ICMPv6", "ICMPv6", ReachedBytes, true, "ok"},
		{"tcp tcp6", "TCP", payload, ReachedBytes, false, "ETIMEDOUT"},
		{"udp udp6", "UDP", payload, ReachedBytes, false, "ok"},
		{"icmp", "ICMP", "ICMP", ReachedBytes, true, "ok"},
		{"packet", "Ethernet", "Ethernet", ReachedBytes, true, "ok"},
		{"unix-dgram unix-seqpacket", payload, payload, ReachedSelf, true, "ok"},
		{"netlink", nlmsghdr, nlmsghdr, ReachedSelf, true, "ok"},
	} {
		for name := range strings.FieldsSeq(want.names) {
			s, ok := r.Socket(name)
			if !ok || s.Status != Filtered || s.Userspace == nil || s.Below == nil || len(s.Verdicts) != 3 {
				t.Errorf("%s: %+v", name, s)
				continue
			}
			if s.Offset0 != want.offset0 || s.Userspace.From != want.userspace || s.Userspace.Same != want.same ||
				s.Below.RelativeNet != want.below || s.Below.LegacyNet != want.below {
				t.Errorf("%s: offset 0 %s, userspace %+v, below %+v", name, s.Offset0, s.Userspace, s.Below)
			}
			dropped, _ := s.outcome(0)
			whole, _ := s.outcome(-1)
			if dropped.Messages != 0 || dropped.Probe != want.dropped || whole.Messages == 0 || whole.Probe != "ok" {
				t.Errorf("%s: verdicts %+v", name, s.Verdicts)
			}
			if s.Held["len"] == "" || len(s.Held) < 20 {
				t.Errorf("%s: held %v", name, s.Held)
			}
		}
	}
	if s, _ := r.Socket("unix-stream"); s.Status != Unfiltered || s.Userspace.From != payload {
		t.Errorf("unix-stream: %+v", s)
	}
	if s, _ := r.Socket("mptcp"); s.Status != Refused && s.Status != Absent {
		t.Errorf("mptcp: %+v", s)
	}
	if len(captured.done) != len(r.Sockets) {
		t.Errorf("heard of %v", captured.done)
	}
}

func TestSurveyTCP(t *testing.T) {
	t.Parallel()
	r := mustSurvey(t)
	s, _ := r.Socket("tcp")
	for _, want := range []Exchanged{
		{"SYN", toSocket, "all"}, {"SYN-ACK", toPeer, "none"}, {"handshake ACK", toSocket, "all"},
		{"data", toSocket, "all"}, {"FIN", toSocket, "all"}, {"FIN", toPeer, "none"},
	} {
		if !slices.Contains(s.Exchange, want) {
			t.Errorf("%+v is not in the exchange: %+v", want, s.Exchange)
		}
	}
	if s.Inherits != "yes" || s.Large == nil || !s.Large.Longer || s.Large.Bytes != 40000 || !slices.Equal(s.Userspace.Missing, []string{"TCP"}) {
		t.Errorf("%+v, large %+v, userspace %+v", s, s.Large, s.Userspace)
	}
	if cut, _ := s.outcome(8); cut.Bytes != 0 {
		t.Errorf("a filter that returns 8 leaves %+v", cut)
	}
	if s, _ := r.Socket("unix-seqpacket"); s.Inherits != "no" {
		t.Errorf("unix-seqpacket inherits: %s", s.Inherits)
	}
}

func TestSurveySizes(t *testing.T) {
	t.Parallel()
	r := mustSurvey(t)
	udp, _ := r.Socket("udp")
	if want := (Empty{Filter: 8, Messages: 1}); udp.Empty == nil || *udp.Empty != want {
		t.Errorf("udp, empty: %+v", udp.Empty)
	}
	if want := (Fragments{MTU: 1500, Payload: 4000, Wire: 3, Filter: 1, Longest: 4008, User: 4000}); udp.Fragments == nil || *udp.Fragments != want {
		t.Errorf("udp, fragments: %+v", udp.Fragments)
	}
	packet, _ := r.Socket("packet")
	if packet.Fragments == nil || packet.Fragments.Longest != 1514 || packet.Fragments.Filter != 6 {
		t.Errorf("packet, fragments: %+v", packet.Fragments)
	}
	if cut, _ := udp.outcome(8); cut.Messages != 1 || cut.Bytes != 0 {
		t.Errorf("udp, a filter that returns 8 leaves %+v", cut)
	}
	if !slices.Equal(packet.Directions, []string{"in", "out"}) || !slices.Equal(udp.Directions, []string{"in"}) {
		t.Errorf("directions %v and %v", packet.Directions, udp.Directions)
	}
}

// What is known of a packet besides its bytes.
func TestSurveyBeside(t *testing.T) {
	t.Parallel()
	r := mustSurvey(t)
	for name, want := range map[string][]Tagged{
		"udp":  {{Name: "id 0", Filter: 1, User: 1}, {Name: "id 5"}},
		"udp6": nil,
		// It gets each frame as it is sent and as it comes, and the answer that nobody listens.
		"packet": {{Name: "id 0", Filter: 4, Beside: 1, Tag: "0x8100 0x6000", User: 4}, {Name: "id 5", Filter: 2, Beside: 1, Tag: "0x8100 0x6005", User: 2}},
	} {
		if s, _ := r.Socket(name); !slices.Equal(s.VLAN, want) {
			t.Errorf("%s, tags: %+v, want %+v", name, s.VLAN, want)
		}
	}
	want := Merged{Sent: 4, Size: 100, Single: Arrived{4, 4}, Together: Arrived{1, 1}, GSOSize: 100}
	for _, name := range []string{"udp", "udp6"} {
		if s, _ := r.Socket(name); s.Merged == nil || *s.Merged != want {
			t.Errorf("%s, together: %+v", name, s.Merged)
		}
	}
}

// The second survey of a kernel finds what the first one found.
func TestSurveyTwice(t *testing.T) {
	t.Parallel()
	first := mustSurvey(t)
	second, err := Run(t.Context(), Options{Program: "another", Parallel: 3})
	if err != nil {
		t.Fatal(err)
	}
	differences, err := Compare(first, second)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range differences {
		t.Error(d)
	}
}

// The captured packets of a row are those on the wire and in all views, in order of time,
// and the wire sees a packet first.
func TestCaptured(t *testing.T) {
	t.Parallel()
	mustSurvey(t)
	var views []string
	for _, p := range captured.packets["udp"] {
		views = append(views, p.Interface.View.String())
	}
	slices.Sort(views[1:])
	if !slices.Equal(views, []string{"wire", "kernel", "link", "net", "user"}) {
		t.Errorf("udp has the views %v", views)
	}
	for name, packets := range captured.packets {
		if !slices.IsSortedFunc(packets, func(a, b capture.Packet) int { return int(a.Time - b.Time) }) {
			t.Errorf("%s is not in the order of time", name)
		}
	}
}

func TestFindings2017(t *testing.T) {
	t.Parallel()
	findings := mustSurvey(t).Findings2017()
	var verdicts []string
	for _, f := range findings {
		verdicts = append(verdicts, f.Verdict)
		if f.Evidence == "" || len(f.Rows) == 0 {
			t.Errorf("%+v", f)
		}
	}
	want := []string{Confirmed, Confirmed, Confirmed, Confirmed, Confirmed, Confirmed, Changed, Refuted}
	if !slices.Equal(verdicts, want) {
		t.Errorf("verdicts %v, want %v", verdicts, want)
	}
	for _, f := range (&Report{}).Findings2017() {
		if f.Verdict != NotTried {
			t.Errorf("without a survey: %+v", f)
		}
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	r := mustSurvey(t)
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	again, err := ReadJSON(&b)
	if err != nil {
		t.Fatal(err)
	}
	if differences, err := Compare(r, again); err != nil || len(differences) != 0 {
		t.Errorf("read back: %v, %v", differences, err)
	}
	if again.System != r.System {
		t.Errorf("system %+v", again.System)
	}
	for _, broken := range []string{"", "{}", "[]", `{"schema": 2}`, text[:len(text)/2]} {
		if _, err := ReadJSON(strings.NewReader(broken)); err == nil {
			t.Errorf("%.20q is taken for a survey", broken)
		}
	}
	if !json.Valid([]byte(text)) {
		t.Error("no valid JSON")
	}
}
