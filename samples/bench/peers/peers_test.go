package main

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
)

func TestBusy(t *testing.T) {
	t.Parallel()
	const stat = "cpu  100 20 3 4000 500 6 70 8000 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n"
	got, err := busyOf(stat)
	// user, nice, system, irq, softirq
	if want := (100 + 20 + 3 + 6 + 70) * 10 * time.Millisecond; err != nil || got != want {
		t.Errorf("%v, %v: want %v", got, err, want)
	}
	for _, bad := range []string{"", "intr 1", "cpu  1 2 3", "cpu  1 2 x 4 5 6 7 8"} {
		if _, err := busyOf(bad); err == nil {
			t.Errorf("%q is believed", bad)
		}
	}
	// The kernel's own one, while this process works.
	before, err := busy()
	if err != nil {
		t.Fatal(err)
	}
	for after := before; after == before; {
		if after, err = busy(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOwnProcess(t *testing.T) {
	t.Parallel()
	if n, err := peak(os.Getpid()); err != nil || n < 1<<20 {
		t.Errorf("peak: %d bytes, %v", n, err)
	}
	for n := 0; n == 0; {
		var err error
		if n, err = used(os.Getpid()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := kilobytes("/proc/self/status", "Vm:"); err == nil {
		t.Error("a line that is not there was found")
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, bad := range [][]string{{"-rounds", "0"}, {"-only", "("}, {"-only", "nothing like it"}, {"more"}, {"-sending", "0s"}} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	s, err := parse([]string{"-only", "^udp-64$"})
	if err != nil || s.limits.rounds < 5 {
		t.Errorf("%+v, %v: medians want five rounds", s, err)
	}
}

func TestVersionOf(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]string{
		"tcpdump version 4.99.3\nlibpcap version 1.10.3 (with TPACKET_V3)\n":    "x 4.99.3",
		"Dumpcap (Wireshark) 4.0.17 (Git v4.0.17 packaged as 4.0.17-0).\n\n(C)": "x 4.0.17",
		"a program": "x",
	} {
		if got := versionOf("x", said); got != want {
			t.Errorf("%q: %q, want %q", said, got, want)
		}
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 60000: "60,000", 1234567: "1,234,567"} {
		if got := grouped(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	for x, want := range map[float64]int{0: 0, 7.9: 7, 99.5: 99, 123.9: 120, 176_543: 170_000} {
		if got := roundedDown(x); got != want {
			t.Errorf("%v: %d, want %d", x, got, want)
		}
	}
	for share, want := range map[float64]string{1: "100.0", 0.999999: "99.999", 0.99999999: "99.999", 0.4567: "45.6", 0: "0.0"} {
		if got := percent(share); got != want {
			t.Errorf("%v: %s, want %s", share, got, want)
		}
	}
	if m := median([]float64{9, 1, 5}); m != 5 {
		t.Errorf("the median of 9, 1, 5 is %v", m)
	}
	if m := median([]float64{1, 2, 4, 9}); m != 3 {
		t.Errorf("the median of 1, 2, 4, 9 is %v", m)
	}
}

const benchmarked = `goos: linux
cpu: something
BenchmarkBacklog/alike/waiting=1000-2         	   50000	       200.5 ns/op
BenchmarkBacklog/alike/waiting=1000-2         	   50000	       100 ns/op
BenchmarkBacklog/alike/waiting=1000-2         	   50000	       300 ns/op	  5 B/op
BenchmarkBacklog/alike/waiting=2000-2         	   50000	       210 ns/op
BenchmarkBacklog/lost and found/waiting=1000  	   50000	      1.5 ns/op
BenchmarkOther/waiting=1000-2                 	   50000	       1 ns/op
PASS
`

func TestParseBacklog(t *testing.T) {
	t.Parallel()
	rows, err := parseBacklog(strings.ReplaceAll(benchmarked, "lost and found", "lost_and_found"))
	want := []backlogRow{
		{"alike", []point{{1000, 200.5}, {2000, 210}}},
		{"lost_and_found", []point{{1000, 1.5}}},
	}
	if err != nil || !slices.EqualFunc(rows, want, func(a, b backlogRow) bool { return a.Name == b.Name && slices.Equal(a.Points, b.Points) }) {
		t.Errorf("%v, %v: want %v", rows, err, want)
	}
	for _, bad := range []string{"", "PASS\n", "BenchmarkBacklog/alike/waiting=x-2 1 2 ns/op", "BenchmarkBacklog/alike 1 2 ns/op",
		"BenchmarkBacklog/alike/waiting=1-2 1 x ns/op", "BenchmarkBacklog/alike/waiting=1-2"} {
		if rows, err := parseBacklog(bad); err == nil {
			t.Errorf("%q: %v", bad, rows)
		}
	}
}

func TestReplaceBetweenMarks(t *testing.T) {
	t.Parallel()
	text := "before\n" + beginMark + "\nold\n" + endMark + "\nafter\n"
	for range 2 { // the second time the first result is replaced
		var err error
		if text, err = replaceBetweenMarks(text, "\nnew\n"); err != nil {
			t.Fatal(err)
		}
	}
	if want := "before\n" + beginMark + "\n\nnew\n\n" + endMark + "\nafter\n"; text != want {
		t.Errorf("%q, want %q", text, want)
	}
	for _, bad := range []string{"", beginMark, endMark + beginMark} {
		if text, err := replaceBetweenMarks(bad, "new"); err == nil {
			t.Errorf("%q became %q", bad, text)
		}
	}
	if text, err := os.ReadFile("../README.md"); err != nil {
		t.Error(err)
	} else if _, err := replaceBetweenMarks(string(text), "new"); err != nil {
		t.Error(err)
	}
}

// measured is a result with all that an aim can miss.
func measured() *report {
	runs := func(cost float64, recorded, mebibytes int) []run {
		m := run{Cost: cost, Rate: 1e9 / cost, Sent: 1000, Arrived: 1000, Recorded: recorded, Memory: mebibytes << 20}
		slower := m
		slower.Cost *= 2
		return []run{slower, m, m}
	}
	few := runs(100_000, 500, 8)
	for i := range few {
		few[i].Sent = 25
	}
	one := result{
		Name: "udp-64", Title: "Datagrams", Unit: "datagram", Count: 1000, Size: 64, Whole: true,
		Costs: map[string]float64{sockKernel: 1, sockBoth: 1.15, pidKernel: 1.05, pidBoth: 1.25},
		Runs: map[string][]run{
			nobody: runs(1000, 0, 0), tcpdump: runs(2000, 1000, 38), printed: few,
			sockKernel: runs(1900, 1000, 100), sockBoth: runs(2600, 1000, 100), pidKernel: runs(2000, 999, 100), pidBoth: runs(2000, 1000, 200),
		},
	}
	two := one
	two.Size, two.Sockets, two.Whole, two.Costs = 512, 10, false, nil
	return &report{Machine: machine{CPU: "A & B", Cores: 2, Kernel: "6.18"}, Rounds: 3, Results: []result{one, two}, Notes: []string{"10,000 sockets: not measured."}}
}

func TestTable(t *testing.T) {
	t.Parallel()
	r := measured()
	text := r.markdown()
	for _, want := range []string{
		"A & B, 2 cores, Linux 6.18",
		"10,000 sockets: not measured.",
		"1,000 of them in each turn, 25 for 2017.",
		"| nobody | 1,000 | 1,000..2,000 | 0.50 | 1.00 | | | 1 | |",
		"| tcpdump | 2,000 | 2,000..4,000 | 1.00 | 2.00 | all | 38 | 0.50 |  |",
		"| 2017 | 100,000 | 100,000..200,000 | 50.00 | 100.00 | 50.0 % (50.0..50.0) | 8 | 0.01 |  |",
		"| sock, kernel | 1,900 | 1,900..3,800 | 0.95 | 1.90 | all | 100 | 0.53 | met |",
		"| **not met**: cost 1.30, not 1.15 |",
		"| 99.9 % (99.9..99.9) | 100 | 0.50 | **not met**: 1 lost, not 0 |",
		"| **not met**: 200 MiB, not 128 |",
		"![What each datagram costs, sent as fast as one process can](cost.svg)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "not quiet") {
		t.Error("a quiet machine is called noisy")
	}
	r.Backlog = []backlogRow{{"alike", []point{{1000, 200}, {2000, 350.2}, {4000, 210}}}}
	if text := r.markdown(); !strings.Contains(text, "| alike | 1,000 | 4,000 | 200 | 210 | 350 |") {
		t.Errorf("no row of a backlog in\n%s", text)
	}
	r.Machine.Background = 0.5
	if text := r.markdown(); !strings.Contains(text, "**The machine was not quiet**: 0.50 of its 2 cores") {
		t.Errorf("a noisy machine is not told of:\n%s", text)
	}
	// Where no cost is asked for, none is missed.
	if aim := r.Results[1].aim(&tools[len(tools)-3]); aim != "met" {
		t.Errorf("without an aim: %s", aim)
	}
}

// What is saved comes back.
func TestReportFile(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "report.json")
	r := measured()
	if err := r.save(name); err != nil {
		t.Fatal(err)
	}
	again, err := loadReport(name)
	if err != nil || again.markdown() != r.markdown() {
		t.Errorf("%v\n%s", err, again.markdown())
	}
}

// The plots are XML, and what they draw lies inside of their axes.
func TestPlots(t *testing.T) {
	t.Parallel()
	r := measured()
	r.Backlog = []backlogRow{{"alike", []point{{1000, 200}, {1_024_000, 210}}}, {"a<b", []point{{1000, 0}, {2000, 30}}}}
	plots := r.plots()
	for _, name := range []string{plotCost, plotRecorded, plotSockets, plotBacklog} {
		p := plots[name]
		if p == nil {
			t.Fatalf("%s is missing", name)
		}
		text := p.svg()
		marks := 0
		for d := xml.NewDecoder(strings.NewReader(text)); ; {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if e, ok := token.(xml.StartElement); ok && (e.Name.Local == "circle" || e.Name.Local == "rect") {
				marks++
			}
		}
		for _, s := range p.series {
			if !strings.Contains(text, ">"+strings.ReplaceAll(s.name, "<", "&lt;")+"</text>") {
				t.Errorf("%s has no legend for %s", name, s.name)
			}
			marks -= len(s.points) + 1 // and one in the legend
		}
		// A point at zero has no place on a logarithmic axis; the page is a mark too.
		if want := map[string]int{plotBacklog: 0}; name != plotBacklog && marks != 1 || name == plotBacklog && marks != want[name] {
			t.Errorf("%s: %d marks too many", name, marks)
		}
		d := &drawing{plot: p}
		d.scale()
		for _, s := range p.series {
			for _, pt := range s.points {
				if x := d.atX(pt.X); x < left || x > width-right {
					t.Errorf("%s: %v is drawn at x=%v", name, pt, x)
				}
				if y := d.atY(pt.Y); pt.Y > 0 && (y < top-1e-6 || y > height-bottom+1e-6 || math.IsNaN(y)) {
					t.Errorf("%s: %v is drawn at y=%v", name, pt, y)
				}
			}
		}
	}
	if empty := (&report{}).plots(); len(empty) != 0 {
		t.Errorf("plots of nothing: %v", empty)
	}
}

func TestTicks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		low, high float64
		want      []float64
	}{
		{2500, 4000, []float64{2000, 5000}},
		{1000, 1000, []float64{1000, 2000}},
		{30, 700, []float64{20, 50, 100, 200, 500, 1000}},
		{30, 700_000, []float64{10, 100, 1000, 10_000, 100_000, 1_000_000}},
	} {
		if got := logTicks(c.low, c.high); !slices.EqualFunc(got, c.want, func(a, b float64) bool { return math.Abs(a-b) < 1e-6*b }) {
			t.Errorf("from %v to %v: %v, want %v", c.low, c.high, got, c.want)
		}
	}
	for high, want := range map[float64]int{100: 10, 3400: 7, 9: 9, 0: 1} {
		if got := linearTicks(high); len(got) != want+1 || got[want] < high {
			t.Errorf("to %v: %v", high, got)
		}
	}
}

// Packets are counted by views, and of printed ones those that are whole.
func TestCountPackets(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][2]int{
		"../../tcp.pcapng":                 {5, 2},
		"../../text/udp-kernelspace.txt":   {1, 0},
		"../../text/raw-kernelspace.txt":   {2, 0},
		filepath.Join(t.TempDir(), "none"): {0, 0},
	} {
		if strings.HasSuffix(name, "none") {
			if err := os.WriteFile(name, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		packets, reads, err := countPackets(name)
		if err != nil || packets != want[0] || reads != want[1] {
			t.Errorf("%s: %d packets, %d reads, %v: want %v", name, packets, reads, err, want)
		}
	}
	text, err := os.ReadFile("../../text/udp-kernelspace.txt")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "torn")
	lines := strings.SplitAfter(string(text), "\n")
	if err := os.WriteFile(name, []byte(strings.Join(slices.Delete(lines, 5, 6), "")), 0o600); err != nil {
		t.Fatal(err)
	}
	if packets, _, err := countPackets(name); err != nil || packets != 0 {
		t.Errorf("a packet without one of its bytes: %d packets, %v", packets, err)
	}
	pcap, _ := convert.FormatByName("pcap")
	name = filepath.Join(t.TempDir(), "plain")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	w, err := pcap.Create(f, convert.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	iface := &capture.Interface{Kind: "raw", View: capture.ViewKernel, Layer: capture.LayerNetwork}
	for range 3 {
		if err := w.WritePacket(&capture.Packet{Interface: iface, Data: make([]byte, 20), Len: 20}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if packets, reads, err := countPackets(name); err != nil || packets != 3 || reads != 0 {
		t.Errorf("pcap: %d packets, %d reads, %v", packets, reads, err)
	}
}
