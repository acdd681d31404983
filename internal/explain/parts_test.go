package explain

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
	"github.com/ebpfdump/ebpfdump/internal/header"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

func TestIDs(t *testing.T) {
	t.Parallel()
	tests := map[string][]uint64{
		"":                              {0},
		"1-3, 7":                        {1, 2, 3, 2, 7},
		"5-6, 3-4":                      {5, 3, 4, 6, 4},
		"1, 3, 5, 7 and 1 range more":   {1, 3, 5, 7, 9, 10},
		"1, 3, 5, 7 and 15 ranges more": {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33, 34, 34, 36, 38},
	}
	for want, ids := range tests {
		var s IDs
		for _, id := range ids {
			s.add(id)
		}
		equal(t, fmt.Sprint(ids), s.String(), want)
		if len(s.ranges) > shownRanges {
			t.Errorf("%d ranges are kept", len(s.ranges))
		}
	}
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	random := testutil.Random(t)
	var h histogram
	var all []int64
	for range 5000 {
		v := 1 + int64(random.Uint64()>>(1+random.IntN(60)))
		h.add(v)
		all = append(all, v)
	}
	slices.Sort(all)
	l := h.latency()
	equal(t, "least", l.Least, all[0])
	equal(t, "most", l.Most, all[len(all)-1])
	for part, got := range map[float64]int64{0.5: l.Median, 0.99: l.P99} {
		want := all[int(part*float64(len(all)))-1]
		if off := max(got-want, want-got); off > want/128+1 {
			t.Errorf("quantile %v is %d, want %d", part, got, want)
		}
	}
	h.add(-1)
	h.add(0)
	equal(t, "negative", h.latency().Negative, 1)
	equal(t, "reads", h.latency().Reads, 5000)
}

func TestDroppedIDs(t *testing.T) {
	t.Parallel()
	ids := capture.IDs{Ranges: [][2]uint64{{4, 6}, {9, 9}}, More: 3, Last: 17}
	var got []uint64
	for id := range uint64(20) {
		if has(&ids, id) {
			got = append(got, id)
		}
	}
	equal(t, "ids", fmt.Sprint(got), "[4 5 6 9 10 11 12 13 14 15 16 17]")
}

func TestDigits(t *testing.T) {
	t.Parallel()
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		equal(t, want, digits(n), want)
	}
}

func TestDissect(t *testing.T) {
	t.Parallel()
	ip4 := "\x45\x00\x00\x1e\x00\x00\x40\x00\x40\x11\x00\x00\x7f\x00\x00\x01\x7f\x00\x00\x01"
	udp := "\xcd\x9e\x42\x42\x00\x0a\x00\x00"
	ip6 := "\x60\x00\x00\x00\x00\x12\x00\x40" + strings.Repeat("\x00", 32) + "\x11\x00\x00\x00\x00\x00\x00\x00"
	tests := []struct {
		layer capture.Layer
		data  string
		want  string
	}{
		{capture.LayerLink, strings.Repeat("\x00", 12) + "\x81\x00\x00\x01\x08\x00" + ip4 + udp + "hi" + "\x00\x00", "Ethernet 0-18 IPv4 18-38 UDP 38-46 payload 46-48 padding 48-50"},
		{capture.LayerLink, strings.Repeat("\x00", 12) + "\x08\x06arp", "Ethernet 0-14 payload 14-17"},
		{capture.LayerLink, "short", "message 0-5"},
		{capture.LayerNetwork, ip4 + udp + "hi", "IPv4 0-20 UDP 20-28 payload 28-30"},
		{capture.LayerNetwork, ip6 + udp + "hi", "IPv6 0-48 UDP 48-56 payload 56-58"},
		{capture.LayerTransport, udp + "hi", "UDP 0-8 payload 8-10"},
		{capture.LayerTransport, "cut", "message 0-3"},
		{capture.LayerMessage, "hi", "message 0-2"},
		{capture.LayerMessage, "", ""},
	}
	for _, test := range tests {
		var got []string
		for _, s := range dissect(test.layer, header.ProtocolUDP, []byte(test.data), 0).spans {
			got = append(got, fmt.Sprintf("%s %d-%d", s.name, s.from, s.to))
		}
		equal(t, fmt.Sprintf("%q", test.data), strings.Join(got, " "), test.want)
	}
}

// For any bytes, the layers cover the packet from beginning to end without gaps.
func FuzzDissect(f *testing.F) {
	f.Add(uint8(1), uint8(6), []byte("\x45\x00\x00\x1e\x00\x00\x40\x00\x40\x11\x00\x00\x7f\x00\x00\x01\x7f\x00\x00\x01"), 0)
	f.Add(uint8(3), uint8(6), make([]byte, 40), 1500)
	f.Fuzz(func(t *testing.T, layer, protocol uint8, data []byte, length int) {
		length = min(max(length, 0), 1<<30)
		d := dissect(capture.Layer(layer), protocol, data, length)
		at := 0
		for _, s := range d.spans {
			if s.from != at || s.to <= s.from {
				t.Fatalf("a span %+v at %d", s, at)
			}
			at = s.to
		}
		if whole := max(length, len(data)); at != whole {
			t.Fatalf("the spans end at %d of %d", at, whole)
		}
		if _, ok := d.tcp(data); ok && d.transport+20 > len(data) {
			t.Fatal("a TCP header that is not there")
		}
	})
}

// Any file is explained or refused, in text without control characters and as a
// well-formed page.
func FuzzRead(f *testing.F) {
	for _, r := range []*recording{conversation(), hostile(), newRecording()} {
		f.Add(r.file(f))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		source, err := convert.Open(bytes.NewReader(file), nil, convert.ReadOptions{Name: "fuzz", CutOff: true})
		if err != nil || source.Format.Name != "pcapng" {
			return
		}
		e, err := Read(source, Options{Name: "fuzz", Packets: 20, forget: limits{packets: 16, bytes: 4096}})
		if e == nil {
			if err == nil {
				t.Fatal("neither an explanation nor an error")
			}
			return
		}
		checkText(t, text(t, e, false))
		checkPage(t, pageOf(t, e))
	})
}
