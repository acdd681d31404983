package explain

import (
	"bytes"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
)

// Metadata that is not zero is reported, once for all views.
func TestMetadata(t *testing.T) {
	t.Parallel()
	known := *udpKernel
	known.HasMeta = true
	r := newRecording()
	for n, m := range []capture.Meta{
		{VLANProto: 0x8100, VLANTCI: 0x2064, Mark: 42},
		{},
		{VLANProto: 0x8100, VLANTCI: 0x64},
		{VLANProto: 0x88a8, VLANTCI: 200, Priority: 7, GSOSize: 1448, GSOSegs: 45, Hash: 0xbeef, Queue: 1},
	} {
		p := r.datagram("0123456789\n")
		p.Interface, p.Meta = &known, m
		if n == 0 {
			net := *p
			net.Interface = &capture.Interface{Kind: "udp", View: capture.ViewNet, Layer: capture.LayerNetwork, HasMeta: true}
			net.Data = append([]byte("\x45\x00\x00\x27\x00\x01\x40\x00\x40\x11\x3c\xc3\x7f\x00\x00\x01\x7f\x00\x00\x01"), p.Data...)
			r.add(&net)
		}
	}
	e := r.explain(t)
	b := e.Report.Sockets[0].Metadata
	if b == nil || b.VLANs == nil || len(b.VLANs.Values) != 2 || b.Marks == nil || b.Priorities == nil || b.Queues == nil {
		t.Fatalf("%+v", b)
	}
	equal(t, "VLAN 100", b.VLANs.Values[0].Packets, 2)
	equal(t, "VLAN 200", b.VLANs.Values[1].Value, 200)
	equal(t, "marked", b.Marks.Values[0].IDs.String(), "1")
	equal(t, "hashed", b.Hashed, 1)
	equal(t, "segmented", b.Segmented.Packets, 1)
	equal(t, "segments", b.MostSegments, 45)
	for form, write := range map[string]func(*bytes.Buffer) error{
		"text": func(b *bytes.Buffer) error { return e.WriteText(b, false, Columns) },
		"page": func(b *bytes.Buffer) error { return e.WriteHTML(b) },
	} {
		var out bytes.Buffer
		if err := write(&out); err != nil {
			t.Fatal(err)
		}
		text := strings.Join(strings.Fields(out.String()), " ")
		for _, want := range []string{
			"The kernel keeps beside the bytes the tag of VLAN 100 (packets 1, 3), the tag of VLAN 200 (packet 4), mark 0x2a (packet 1) and priority 7 (packet 4).",
			"1 packet stands for up to 45 segments each.",
			"beside the bytes: VLAN 100 (tag 8100 2064), mark 0x2a",
			"beside the bytes: VLAN 200 (tag 88a8 00c8), priority 7, 45 segments of 1448 bytes, hash 0xbeef, queue_mapping 1",
		} {
			if strings.Count(text, want) != 1 {
				t.Errorf("the %s has not once %q:\n%s", form, want, text)
			}
		}
		equal(t, "packets told of", strings.Count(text, "beside the bytes:"), 3)
	}
}

// A file may have any number of values, but only some are kept.
func TestMetadataIsBounded(t *testing.T) {
	t.Parallel()
	r := newRecording()
	known := *udpKernel
	known.HasMeta = true
	for n := range 100 {
		p := r.datagram("x")
		p.Interface, p.Meta.Mark = &known, uint32(n+1)
	}
	e := r.explain(t)
	marks := e.Report.Sockets[0].Metadata.Marks
	if len(marks.Values) != shownValues || marks.Omitted != 100-shownValues {
		t.Errorf("%d values, %d omitted", len(marks.Values), marks.Omitted)
	}
}

// Without metadata nothing is said about it.
func TestNoMetadata(t *testing.T) {
	t.Parallel()
	r := newRecording()
	r.datagram("x")
	e := r.explain(t)
	var out bytes.Buffer
	if err := e.WriteText(&out, false, Columns); err != nil {
		t.Fatal(err)
	}
	if e.Report.Sockets[0].Metadata != nil || strings.Contains(out.String(), "beside") {
		t.Errorf("%+v\n%s", e.Report.Sockets[0].Metadata, &out)
	}
}
