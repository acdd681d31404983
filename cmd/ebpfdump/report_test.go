package main

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// The first lines are as tcpdump's, and count what came in. Whatever else was lost is said beside
// them.
func TestClosingLinesOfCalls(t *testing.T) {
	t.Parallel()
	const besides = "0 packets captured\n0 packets received by filter\n0 packets dropped by kernel\n"
	lost := bpf.CallCounters{Seen: 100, Recorded: 30, RingFull: 70}
	for _, test := range []struct {
		views  []capture.View
		count  uint64
		counts capture.Counts
		want   string
	}{
		{[]capture.View{capture.ViewKernel, capture.ViewUser}, 1, capture.Counts{}, "kernel: "},
		{[]capture.View{capture.ViewUser}, 0, capture.Counts{Calls: lost}, "what calls returned is not among them: 70 pieces lost\nkernel: "},
		{[]capture.View{capture.ViewUser, capture.ViewSent}, 0, capture.Counts{Sent: 30, Sends: lost}, "what was sent is not among them: 30 calls captured, 70 pieces lost\nkernel: "},
		{
			[]capture.View{capture.ViewCgroup}, 0, capture.Counts{Hooked: 12, Departed: 5, Egress: bpf.Counters{Seen: 8, Recorded: 5, RingFull: 3}},
			"packets that were sent are not among them: 5 captured, 3 lost\n" +
				"kernel: 0 seen = 0 recorded + 0 ring full + 0 load failed\ncgroup, sent: 8 seen = 5 recorded + 3 ring full + 0 load failed\n",
		},
		{
			[]capture.View{capture.ViewCgroup}, 0, capture.Counts{Ingress: bpf.Counters{Seen: 2, Recorded: 1, LoadFailed: 1}},
			"packets that were sent are not among them: 0 captured, 0 lost\nkernel: 0 seen = 0 recorded + 0 ring full + 0 load failed\n" +
				"cgroup, received: 2 seen = 1 recorded + 0 ring full + 1 load failed\ncgroup, sent: 0 seen",
		},
		{
			[]capture.View{capture.ViewWire}, 0, capture.Counts{Framed: 3, FramedSent: 1, Wire: bpf.Counters{Seen: 5, Recorded: 3, RingFull: 2}},
			"frames on interfaces are not among them: 3 captured, 2 lost\nkernel: 0 seen = 0 recorded + 0 ring full + 0 load failed\n" +
				"wire: 5 seen = 3 recorded + 2 ring full + 0 load failed\n",
		},
		{[]capture.View{capture.ViewSent}, 1, capture.Counts{}, "what was sent is not among them: 0 calls captured, 0 pieces lost\nkernel: "},
		{
			[]capture.View{capture.ViewSent}, 1, capture.Counts{Captured: 1, Sent: 1},
			"what was sent is not among them: 1 call captured, 0 pieces lost\nthe capture has ended with 1 packet that came in (-c): what was sent does not count\nkernel: ",
		},
	} {
		var said bytes.Buffer
		r := reporter{app: &app{stderr: terminal.NewWriter(&said)}}
		r.plan.config.Views, r.plan.packets, r.plan.verbose = test.views, test.count, true
		r.closingLines(test.counts, nil)
		want := besides + test.want
		if !strings.HasPrefix(said.String(), want) {
			t.Errorf("views %v:\n%s\nbegins otherwise than\n%s", test.views, &said, want)
		}
	}
}

// Without -v there is a line for a view's ledger if something was lost, and one for all of which nothing was; every
// interface has its own.
func TestClosingLinesInShort(t *testing.T) {
	t.Parallel()
	views := []capture.View{capture.ViewKernel, capture.ViewNet, capture.ViewLink, capture.ViewSent, capture.ViewCgroup, capture.ViewWire, capture.ViewDrop}
	var statistics []capture.Statistics
	for i, v := range views {
		statistics = append(statistics, capture.Statistics{Interface: &capture.Interface{Kind: "tcp", View: v}, Delivered: 5})
		if v == capture.ViewLink {
			statistics[i].Delivered = 4
		}
	}
	whole := bpf.Counters{Seen: 5, Recorded: 5}
	counts := capture.Counts{Captured: 5, Tap: whole, Ingress: whole, Egress: whole, Wire: bpf.Counters{Seen: 7, Recorded: 5, RingFull: 2}, Drops: whole, Hooked: 10, Departed: 5, Framed: 5}
	for _, verbose := range []bool{false, true} {
		var said bytes.Buffer
		r := reporter{app: &app{stderr: terminal.NewWriter(&said)}}
		r.plan.config.Views, r.plan.verbose = views, verbose
		r.closingLines(counts, statistics)
		want := `5 packets captured
5 packets received by filter
0 packets dropped by kernel
frames on interfaces are not among them: 5 captured, 2 lost
what only the views cgroup, drop and sent have is not among them, and nothing of it is lost
kernel: 5 seen = 5 recorded + 0 ring full + 0 load failed
wire: 7 seen = 5 recorded + 2 ring full + 0 load failed
tcp:kernel: 5 packets, 0 cut off by the snaplen
tcp:net: 5 packets
tcp:link: 4 packets
tcp:sent: 5 packets, 0 bytes
tcp:cgroup: 5 packets, 5 received and 5 sent
tcp:wire: 5 frames, 5 received and 0 sent
tcp:drop: 5 packets
`
		if !verbose && said.String() != want {
			t.Errorf("got\n%s\nwant\n%s", &said, want)
		}
		for line := range strings.Lines(want) {
			if verbose && !strings.HasPrefix(line, "what only") && !strings.Contains(said.String(), line) {
				t.Errorf("with -v there is no line %q in\n%s", line, &said)
			}
		}
		if verbose && strings.Count(said.String(), "\n") <= strings.Count(want, "\n") {
			t.Errorf("-v says no more:\n%s", &said)
		}
	}
}

// One of anything is not said as several.
func TestClosingLinesOfOne(t *testing.T) {
	t.Parallel()
	lane := func(view capture.View) *capture.Interface { return &capture.Interface{Kind: "udp", View: view} }
	var said bytes.Buffer
	r := reporter{app: &app{stderr: terminal.NewWriter(&said)}}
	r.plan.config.Views = []capture.View{capture.ViewKernel, capture.ViewUser, capture.ViewSent, capture.ViewCgroup, capture.ViewNet}
	r.plan.config.Verdict = bpf.Keep(0)
	one := bpf.Counters{Seen: 1, Recorded: 1, RingFull: 1, Dropped: 1}
	counts := capture.Counts{
		Captured: 1, Delivered: 1, Unreached: 1, Peeked: 1, Empty: 1, Sent: 1, Failed: 1, Tap: one, Calls: bpf.CallCounters{Seen: 1, RingFull: 1}, Sends: bpf.CallCounters{Seen: 1, RingFull: 1},
	}
	var statistics []capture.Statistics
	for _, v := range r.plan.config.Views {
		statistics = append(statistics, capture.Statistics{Interface: lane(v), Delivered: 1, Bytes: 1})
	}
	statistics[1].Account = &capture.Account{Kind: "udp", Seen: 1, Delivered: 1, Queue: 1, Unseen: 1, Closed: 1, Before: 1}
	r.closingLines(counts, statistics)
	r.unwritten(1, statistics)
	r.uncounted(counts.Peeked, "call", "peeked (MSG_PEEK)", capture.ViewUser)
	r.printf("%s", ownFilterLine(&capture.OwnFilter{Filter: "classic filter of 1 instruction", Sockets: []string{"a", "b", "c", "d"}, Packets: 1, Unasked: 1, Belied: 1}, false))
	r.printf("%v", lossError{1})
	if wrong := regexp.MustCompile(`\b1 \w+s\b|\b1 \w+ (were|are|they)\b`).FindAllString(said.String(), -1); wrong != nil {
		t.Errorf("%q in\n%s", wrong, &said)
	}
}

// A view that had nothing of a socket is in the file if another view had something, with its
// statistics.
func TestViewsWithoutPackets(t *testing.T) {
	t.Parallel()
	lane := func(view capture.View, sockets string) *capture.Interface {
		return &capture.Interface{Kind: "udp", View: view, Layer: capture.LayerMessage, Source: capture.SourceTap, Process: "process 12 (x)", Sockets: sockets}
	}
	user, sent, other := lane(capture.ViewUser, "descriptor 3"), lane(capture.ViewSent, "descriptor 3"), lane(capture.ViewUser, "descriptor 4")
	var file bytes.Buffer
	out := captureOutput{recordedFile: convert.NewStream(&file, convert.Pcapng())}
	if err := out.Begin(convert.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := out.WritePacket(&capture.Packet{Interface: sent, Data: []byte("x"), Len: 1}); err != nil {
		t.Fatal(err)
	}
	if err := out.End(nil, capture.Statistics{Interface: user}, capture.Statistics{Interface: other}, capture.Statistics{Interface: sent, Written: 1, Delivered: 1}); err != nil {
		t.Fatal(err)
	}
	source, err := convert.Open(&file, nil, convert.ReadOptions{})
	for err == nil {
		_, err = source.Next()
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	var names []string
	for _, s := range source.Statistics() {
		names = append(names, s.Interface.Name())
	}
	if !slices.Equal(names, []string{"udp:user", "udp:sent"}) || len(source.Interfaces()) != 2 {
		t.Errorf("%d interfaces, statistics of %v", len(source.Interfaces()), names)
	}
}

// What is captured and recorded is what is in the output, and whatever else the filter saw has a term of its own.
func TestClosingLinesBalance(t *testing.T) {
	t.Parallel()
	seen := bpf.Counters{Seen: 22, Recorded: 20, RingFull: 2}
	for _, test := range []struct {
		views  []capture.View
		counts capture.Counts
		want   string
	}{
		{
			[]capture.View{capture.ViewKernel, capture.ViewUser},
			capture.Counts{Captured: 5, Delivered: 4, Tap: seen, After: capture.After{Tap: 15}},
			"5 packets captured\n22 packets received by filter\n2 packets dropped by kernel\n" +
				"kernel: 22 seen = 5 recorded + 15 after the last packet that was asked for + 2 ring full + 0 load failed\n",
		},
		{
			[]capture.View{capture.ViewUser}, capture.Counts{Captured: 5, Delivered: 4, Tap: seen, After: capture.After{Tap: 15}},
			"4 packets captured\n22 packets received by filter\n2 packets dropped by kernel\n" +
				"kernel: 22 seen = 0 recorded + 5 for the other views, without a view of the kernel + 15 after the last packet that was asked for + 2 ring full + 0 load failed\n",
		},
		{
			[]capture.View{capture.ViewUser}, capture.Counts{Delivered: 4},
			"4 packets captured\n0 packets received by filter\n0 packets dropped by kernel\n" +
				"kernel: 0 seen = 0 recorded + 0 ring full + 0 load failed\n",
		},
		{
			[]capture.View{capture.ViewKernel, capture.ViewWire},
			capture.Counts{Captured: 20, Framed: 3, Tap: seen, Wire: bpf.Counters{Seen: 9, Recorded: 8, RingFull: 1}, After: capture.After{Wire: 5}},
			"20 packets captured\n22 packets received by filter\n2 packets dropped by kernel\nframes on interfaces are not among them: 3 captured, 1 lost\n" +
				"kernel: 22 seen = 20 recorded + 2 ring full + 0 load failed\n" +
				"wire: 9 seen = 3 recorded + 5 after the last packet that was asked for + 1 ring full + 0 load failed\n",
		},
	} {
		var said bytes.Buffer
		r := reporter{app: &app{stderr: terminal.NewWriter(&said)}}
		r.plan.config.Views = test.views
		r.closingLines(test.counts, nil)
		if !strings.HasPrefix(said.String(), test.want) {
			t.Errorf("views %v:\n%s\nbegins otherwise than\n%s", test.views, &said, test.want)
		}
	}
}
