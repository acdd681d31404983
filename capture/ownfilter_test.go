package capture

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// sendAll sends messages to an owner of a filter, the last of which every filter lets through, and
// waits until that has come. It returns what the owner got.
func (t *target) sendAll(tb testing.TB, w io.Writer, messages ...string) (got []string) {
	tb.Helper()
	for _, m := range messages {
		if _, err := io.WriteString(w, m); err != nil {
			tb.Fatal(err)
		}
	}
	for len(got) == 0 || got[len(got)-1] != messages[len(messages)-1] {
		message, ok := strings.CutPrefix(t.line(tb), "got ")
		if !ok {
			tb.Fatalf("the owner says %q", t.lines.Text())
		}
		got = append(got, message)
	}
	return got
}

// byVerdict is what the socket gets of the packets of a kernel view, if their verdicts are right.
func byVerdict(sink *memory, header int) (got []string) {
	for _, p := range sink.view(ViewKernel) {
		keep := len(p.Data)
		if p.Verdict.Of > 0 {
			keep = int(p.Verdict.Keep)
		}
		if !p.Verdict.Dropped {
			got = append(got, string(p.Data[header:keep]))
		}
	}
	return got
}

// A filter of the process's own is asked what it decided, and that is what the process got.
func TestOwnFilterAsked(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ kind, described string }{
		{"bytes", "eBPF filter "},
		{"reads", "eBPF filter "},
		{"classic", "classic filter of 6 instructions (6,48 0 0 8,21 0 1 100,6 0 0 0,21 0 1 116,6 0 0 12,6 0 0 65535), asked afterwards what it had decided"},
	} {
		server := startTarget(t, "owner", c.kind)
		before := fmt.Sprint(filtersOf(t, server.Process.Pid))
		l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}})
		description := l.Interfaces()[0].Filter
		if !strings.HasPrefix(description, c.described) || c.kind != "classic" && !strings.Contains(description, " (own_"+c.kind+"), loaded ") ||
			!strings.HasSuffix(description, ", asked afterwards what it had decided") {
			t.Errorf("%s: the filter is described as %q", c.kind, description)
		}
		var got []string
		sink := runLive(t, l, func() {
			conn := server.dial(t, "udp", server.address)
			got = server.sendAll(t, conn, "keep it", "drop it", "trim it", "k", "done", "drop it again", "trim", "last")
		})
		if want := byVerdict(sink, 8); !slices.Equal(got, want) {
			t.Errorf("%s: the process got %q, by the verdicts it would be %q", c.kind, got, want)
		}
		checkPairs(t, sink)
		checkLiveLedger(t, l)
		for _, p := range sink.view(ViewKernel) {
			if p.Verdict.Dropped != p.Verdict.Asked && p.Verdict.Of == 0 || p.Verdict.Unasked {
				t.Errorf("%s: %+v", c.kind, p.Verdict)
			}
		}
		all := l.OwnFilters()
		if len(all) != 1 || !all[0].Asked || all[0].Packets != 8 || all[0].Belied+all[0].Unasked != 0 || int(all[0].Packets-all[0].Dropped) != len(got) {
			t.Errorf("%s: %+v", c.kind, all)
		}
		if on := all[0].Sockets; len(on) != 1 || !strings.HasPrefix(on[0], "udp, "+l.Process()+", descriptor ") || !strings.HasSuffix(on[0], ", on "+server.address) {
			t.Errorf("%s: it was on %q", c.kind, on)
		}
		statistics, err := l.Statistics()
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range statistics {
			if a := st.Account; a != nil && (int(a.Filtered) != 8-len(got) || int(a.Delivered) != len(got) || a.Queue+a.Unread+a.Unknown != 0) {
				t.Errorf("%s: %v", c.kind, a)
			}
		}
		if after := fmt.Sprint(filtersOf(t, server.Process.Pid)); after != before {
			t.Errorf("%s: filters before %v, after %v", c.kind, before, after)
		}
	}
}

// A filter with state is not asked: that would be one packet more for it. It is said why.
func TestOwnFilterWithState(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "owner", "counts")
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}})
	var got []string
	sink := runLive(t, l, func() {
		got = server.sendAll(t, server.dial(t, "udp", server.address), "1", "2", "3", "4", "5")
	})
	if _, state := server.says(t, "state"); state != "5" || !slices.Equal(got, []string{"1", "3", "5"}) {
		t.Errorf("the filter has counted %s packets, the process got %q", state, got)
	}
	if n := len(sink.view(ViewKernel)); n != 5 {
		t.Errorf("%d packets", n)
	}
	for _, p := range sink.view(ViewKernel) {
		if p.Verdict != (Verdict{}) {
			t.Errorf("packet %d has the verdict %+v", p.ID, p.Verdict)
		}
	}
	const why = "it may write to its map state"
	if all := l.OwnFilters(); len(all) != 1 || all[0].Asked || all[0].Reason != why || all[0].Packets != 5 {
		t.Errorf("%+v", all)
	}
	if d := l.Interfaces()[0].Filter; !strings.HasSuffix(d, ", which is not asked what it decides: "+why) {
		t.Errorf("described as %q", d)
	}
}

// Each packet has the verdict of the filter that the socket had when it came.
func TestOwnFilterChanges(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "owner", "none")
	said := newNotices()
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}, Options: Options{Notice: said.add}})
	var got []string
	sink := runLive(t, l, func() {
		conn := server.dial(t, "udp", server.address)
		for _, kind := range []string{"none", "classic", "none", "bytes", "counts", "classic"} {
			server.says(t, "filter "+kind)
			got = append(got, server.sendAll(t, conn, "keep "+kind, "drop "+kind, "trim "+kind, "keep", "last "+kind)...)
		}
	})
	var want []string
	has := l.Interfaces()[0].Filter
	for _, p := range sink.view(ViewKernel) {
		text := string(p.Data[8:])
		by := strings.Fields(text + " none")[1]
		if p.Filter.Changed {
			has = p.Filter.Now
		}
		if is := map[string]string{"none": "", "classic": "classic filter of 6 instructions (6,", "bytes": " (own_bytes), ", "counts": " (own_counts), "}[by]; text != "keep" && (!strings.Contains(has, is) || is == "" && has != "") {
			t.Errorf("%q came while the socket had %q", text, has)
		}
		if asked := by == "classic" || by == "bytes"; p.Verdict.Asked != (asked && (text[0] == 'd' || text[0] == 't')) {
			t.Errorf("%q: %+v", text, p.Verdict)
		}
		want = append(want, text)
	}
	if len(want) != 6*5 || len(got) >= len(want) {
		t.Errorf("%d packets, %d received", len(want), len(got))
	}
	all := said.all()
	for _, words := range []string{"has got a filter of its own: classic filter of 6 instructions", "(own_bytes)", "has no filter of its own any more", "(own_counts)"} {
		if !strings.Contains(all, words) {
			t.Errorf("nobody said %q: %s", words, all)
		}
	}
	if n := len(l.OwnFilters()); n != 3 {
		t.Errorf("%d filters, want 3", n)
	}
}

// gate holds a sink's first packet until it is opened.
type gate struct {
	memory
	once  sync.Once
	ahead func()
}

func (g *gate) WritePacket(p *Packet) error {
	g.once.Do(g.ahead)
	return g.memory.WritePacket(p)
}

// Where the answer is not what the socket got, because something has changed in between, that is
// said and counted.
func TestOwnFilterBelied(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "owner", "reads")
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}})
	conn := server.dial(t, "udp", server.address)
	received := make(chan struct{})
	sink := &gate{ahead: func() {
		<-received
		server.sendAll(t, conn, "denied afterwards")
		server.says(t, "set 0")
	}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx, sink) }()
	server.sendAll(t, conn, "first")
	close(received)
	for counts := (Counts{}); counts.Delivered < 2; time.Sleep(time.Millisecond) {
		var err error
		if counts, err = l.Counts(); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	kernel, user := sink.view(ViewKernel), sink.view(ViewUser)
	if len(kernel) != 2 || len(user) != 2 || kernel[0].Verdict != (Verdict{}) || kernel[1].Verdict != (Verdict{Dropped: true, Asked: true}) {
		t.Fatalf("kernel %+v, user %+v", kernel, user)
	}
	if u := user[1]; u.ID != kernel[1].ID || !u.Receipt.Belied || !u.Receipt.Denied || string(u.Data) != "denied afterwards" || user[0].Receipt.Belied {
		t.Errorf("user %+v", user)
	}
	if all := l.OwnFilters(); len(all) != 1 || all[0].Belied != 1 || all[0].Dropped != 1 {
		t.Errorf("%+v", all)
	}
	statistics, err := l.Statistics()
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range statistics {
		if a := st.Account; a != nil && a.Seen > 0 && (a.Filtered != 0 || a.Delivered != 2 || a.Queue+a.Unread+a.Unknown != 0) {
			t.Errorf("%v", a)
		}
	}
}
