package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var requestRate = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)

// BenchmarkLive prints the throughput of nginx under wrk without and with both views
// captured, in turns, and the median of the ratios, since another guest of the machine
// may spoil a turn.
func BenchmarkLive(b *testing.B) {
	requireTools(b, append(nginx.needs, "wrk")...)
	bench := newBench(b)
	nginx.setUp(bench)
	server := bench.start(bench.expand(nginx.server), bench.expand(nginx.ready))
	load := func() float64 {
		out := bench.must("wrk", "-t", "1", "-c", "16", "-d", "1s", "http://127.0.0.1:8080/")
		var perSecond float64
		if _, err := fmt.Sscan(requestRate.FindStringSubmatch(out)[1], &perSecond); err != nil {
			b.Fatal(err)
		}
		return perSecond
	}
	load()
	var off, on, ratios []float64
	for b.Loop() {
		without, with := load(), 0.0
		recording := bench.join(server)
		with = load()
		recording.finish(unix.SIGINT)
		recording.wait()
		if said := recording.stderr.String(); !strings.Contains(said, "\n0 packets dropped by kernel\n") {
			b.Log(said)
		}
		off, on, ratios = append(off, without), append(on, with), append(ratios, with/without)
	}
	b.ReportMetric(median(off), "req/s-off")
	b.ReportMetric(median(on), "req/s-on")
	b.ReportMetric(median(ratios), "on/off")
	b.ReportMetric(0, "ns/op")
}

// median is the upper of the two middle values if their number is even.
func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}
