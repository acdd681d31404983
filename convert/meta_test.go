package convert

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

var (
	packetKernel = &capture.Interface{Kind: "packet", View: capture.ViewKernel, Layer: capture.LayerLink, HasMeta: true, Description: "frames"}
	udpLink      = &capture.Interface{Kind: "udp", View: capture.ViewLink, Layer: capture.LayerLink, HasMeta: true, Description: "frames"}
	udpMeta      = &capture.Interface{Kind: "udp", View: capture.ViewKernel, Layer: capture.LayerTransport, HasMeta: true, Description: "the header is synthetic", Header: capture.HeaderSynthetic}
)

// frame is a datagram in an Ethernet frame as a packet socket's filter sees it:
// without the tag.
func taggedFrame(t testing.TB, i *capture.Interface, m capture.Meta) *capture.Packet {
	p := datagram(t, i, client4, server4, probe)
	p.Data = append([]byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x08\x00"), ipv4(p.Data)...)
	p.Len, p.Meta = len(p.Data), m
	return p
}

func tagged(id uint16) capture.Meta {
	return capture.Meta{VLANProto: header.EtherTypeVLAN, VLANTCI: id}
}

// Other readers see the tags where libpcap puts them.
func TestTagIsPutBack(t *testing.T) {
	t.Parallel()
	testutil.RequireTool(t, "tcpdump")
	for _, i := range []*capture.Interface{packetKernel, udpLink} {
		first, plain := taggedFrame(t, i, tagged(3<<13|100)), taggedFrame(t, i, capture.Meta{Mark: 42})
		outer := taggedFrame(t, i, capture.Meta{VLANProto: header.EtherTypeQinQ, VLANTCI: 200})
		outer.Data = bytes.Join([][]byte{outer.Data[:12], []byte("\x81\x00\x00\x07"), outer.Data[12:]}, nil)
		outer.Len = len(outer.Data)
		cutOff := taggedFrame(t, i, tagged(100))
		cutOff.Data = cutOff.Data[:14]
		path := writeFile(t, first, plain, outer, cutOff)
		rows := fields(t, path, "frame.len", "frame.cap_len", "vlan.id", "vlan.priority", "ieee8021ad.id", "udp.dstport", "frame.comment")
		wantFields(t, rows,
			"57|57|100|3||16962|vlan=100 (tag 8100 6064 beside the bytes)",
			"53|53||||16962|mark=0x2a",
			"61|61|7|0|200|16962|vlan=200 (tag 88a8 00c8 beside the bytes)",
			"57|18|100|0|||vlan=100 (tag 8100 0064 beside the bytes)",
		)
		text := run(t, "tcpdump", "-n", "-e", "-r", path)
		for _, want := range []string{"length 57: vlan 100, p 3, ethertype IPv4 (0x0800), 127.0.0.1.52638 > 127.0.0.1.16962", "length 53: 127.0.0.1.52638"} {
			if !strings.Contains(text, want) {
				t.Errorf("tcpdump says no %q in\n%s", want, text)
			}
		}
		if d := fields(t, path, "frame.interface_description")[0][0]; !strings.HasPrefix(d, "frames; ") || !strings.Contains(d, "put back") {
			t.Errorf("description %q", d)
		}
		readBack(t, path, first, plain, outer, cutOff)
	}
}

// packetsOf reads the packets of a file.
func packetsOf(t *testing.T, path string) []*capture.Packet {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	source, err := Open(bytes.NewReader(file), nil, ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	packets, err := drain(source)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return packets
}

// readBack compares the packets of a file.
func readBack(t *testing.T, path string, want ...*capture.Packet) {
	t.Helper()
	packets := packetsOf(t, path)
	if len(packets) != len(want) {
		t.Fatalf("%d packets", len(packets))
	}
	for n, p := range packets {
		w := want[n]
		if !bytes.Equal(p.Data, w.Data) || p.Len != w.Len || p.Meta != w.Meta || p.Comment != w.Comment ||
			p.Verdict != w.Verdict || p.Truncated != w.Truncated || !reflect.DeepEqual(p.Receipt, w.Receipt) || !reflect.DeepEqual(p.Reception, w.Reception) || *p.Interface != *w.Interface {
			t.Errorf("packet %d: %+v of %+v, want %+v", n, p, p.Interface, w)
		}
	}
}

// What other readers make of the flags: Wireshark 4.0 has no names for the bits from 9 on.
func TestMetaInFlags(t *testing.T) {
	t.Parallel()
	large := segment(t, tcpKernel, client4, server4, layers.TCP{ACK: true}, "many segments")
	large.Meta = capture.Meta{GSOSize: 6, GSOSegs: 3, ChecksumPartial: true}
	small := segment(t, tcpKernel, client4, server4, layers.TCP{ACK: true}, "one")
	small.Direction = capture.Outbound
	merged := datagram(t, udpMeta, client4, server4, probe)
	merged.Meta = capture.Meta{GSOSize: 6, GSOSegs: 3} // of UDP: the bit is for TCP
	path := writeFile(t, large, small, merged)
	wantFields(t, fields(t, path, "frame.packet_flags"), "0x00000a01", "0x00000002", "0x00000001")
}

// Metadata with options, with a comment, and with one that also has other text.
func TestMetaComesBack(t *testing.T) {
	t.Parallel()
	all := capture.Meta{Mark: 1 << 31, Priority: 7, GSOSize: 1448, GSOSegs: 45, NonLinear: 60_000, ChecksumPartial: true, Hash: 0xdeadbeef, Queue: 4}
	received := datagram(t, udpMeta, client4, server4, probe)
	received.Meta = all
	sent := datagram(t, udpMeta, client4, server4, probe)
	sent.Meta, sent.Direction, sent.Verdict = all, capture.Outbound, capture.Verdict{Keep: 12, Of: 19}
	first := datagram(t, udpMeta, client4, server4, probe)
	first.Meta.Queue = 1
	long := datagram(t, udpMeta, client4, server4, probe)
	long.Meta, long.Comment = all, strings.Repeat("x", 70000)
	path := writeFile(t, received, sent, first, long)
	rows := fields(t, path, "frame.interface_queue", "frame.comment")
	const said = "mark=0x80000000, priority=7, gso=45 segments of 1448 bytes"
	wantFields(t, rows[:3], "3|"+said, "4|verdict=12 of 19 (truncated by the filter); "+said, "0|")
	if !strings.HasSuffix(rows[3][1], "x; "+said) {
		t.Errorf("of a long comment nothing is left of %q", said)
	}
	long.Comment = rows[3][1][:len(rows[3][1])-len("; "+said)]
	readBack(t, path, received, sent, first, long)
}

// Tags that are part of the frame, and comments of others, are not changed.
func TestForeignTags(t *testing.T) {
	t.Parallel()
	wire := *packetKernel
	wire.HasMeta = false
	own := taggedFrame(t, packetKernel, capture.Meta{})
	own.Data = bytes.Join([][]byte{own.Data[:12], []byte("\x81\x00\x00\x64"), own.Data[12:]}, nil)
	own.Len = len(own.Data)
	foreign := taggedFrame(t, &wire, capture.Meta{})
	foreign.Comment = "vlan=100 (tag 8100 0064 beside the bytes)"
	// Somebody has removed the tag, or has written the comment.
	without := taggedFrame(t, packetKernel, capture.Meta{})
	without.Comment = foreign.Comment
	readBack(t, writeFile(t, own, foreign, without), own, foreign, without)
}

// The longest packet stays within what readers accept.
func TestTagOfLongestFrame(t *testing.T) {
	t.Parallel()
	p := taggedFrame(t, packetKernel, tagged(100))
	p.Data = append(p.Data, make([]byte, snaplen)...)[:snaplen]
	p.Len = snaplen
	path := writeFile(t, p)
	wantFields(t, fields(t, path, "frame.cap_len", "frame.len", "vlan.id"), "262144|262148|100")
	p.Data = p.Data[:snaplen-tagSize]
	readBack(t, path, p)
}

func TestMetaInJSONAndLines(t *testing.T) {
	t.Parallel()
	p := taggedFrame(t, packetKernel, capture.Meta{VLANProto: header.EtherTypeVLAN, Mark: 42, Priority: 6, GSOSize: 1448, GSOSegs: 2, NonLinear: 3, ChecksumPartial: true, Hash: 5, Queue: 1})
	p.Comment = "a note"
	var lines bytes.Buffer
	w, err := createJSON(&lines, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*capture.Packet{p, taggedFrame(t, packetKernel, capture.Meta{})} {
		if err := w.WritePacket(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(&lines)
	var got, plain map[string]any
	if err := decoder.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if err := decoder.Decode(&plain); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"vlan": 0., "vlan_tci": 0., "vlan_proto": 33024., "mark": 42., "priority": 6., "gso_size": 1448., "gso_segs": 2., "nonlinear": 3., "checksum_partial": true, "hash": 5., "queue": 1.,
		"length": 53., "captured": 53., "comment": "a note",
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
		if _, there := plain[name]; there && name != "length" && name != "captured" {
			t.Errorf("a packet without it has %s", name)
		}
	}
	var text bytes.Buffer
	if err := NewLineWriter(&text, LineOptions{}).WritePacket(p); err != nil {
		t.Fatal(err)
	}
	if want := " ; a note; vlan=0 (tag 8100 0000 beside the bytes), mark=0x2a, priority=6, gso=2 segments of 1448 bytes\n"; !strings.HasSuffix(text.String(), want) {
		t.Errorf("line %q", &text)
	}
}

// pcap has no comments, but keeps the tag.
func TestTagInPcap(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tag.pcap")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w, err := createPcap(file, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WritePacket(taggedFrame(t, packetKernel, tagged(100))); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	wantFields(t, fields(t, path, "frame.len", "vlan.id", "udp.dstport"), "57|100|16962")
}

// TestMetaLeftOut copies what the kernel kept beside the bytes: what is neither in the
// bytes nor in the copy's own words is counted.
func TestMetaLeftOut(t *testing.T) {
	t.Parallel()
	all := capture.Meta{VLANProto: header.EtherTypeVLAN, VLANTCI: 100, Mark: 42, Priority: 6, GSOSize: 1448, GSOSegs: 2, NonLinear: 3, ChecksumPartial: true, Hash: 5, Queue: 1}
	frame := taggedFrame(t, packetKernel, all)
	short := taggedFrame(t, packetKernel, tagged(100))
	short.Data = short.Data[:tagPlace-1]
	short.Len = len(short.Data)
	network := *packetKernel
	network.View, network.Layer = capture.ViewNet, capture.LayerNetwork
	inner := taggedFrame(t, &network, all)
	inner.Data = inner.Data[14:]
	inner.Len = len(inner.Data)
	plain := taggedFrame(t, packetKernel, capture.Meta{})
	for _, tt := range []struct {
		name, form string
		packets    []*capture.Packet
		want       []string
	}{
		{"none", "pcap", []*capture.Packet{plain}, nil},
		{"frames", "pcap", []*capture.Packet{frame, short, plain}, []string{
			"1 VLAN tag beside the bytes left out: pcap has no room for it",
			"3 packet marks, priorities and sizes of segments left out: pcap has no room for them",
			"2 flow hashes and queue numbers left out: pcap has no room for them",
			"2 marks of partial checksums and of bytes that are not linear left out: pcap has no room for them"}},
		{"IP", "pcap", []*capture.Packet{inner, inner}, []string{
			"2 VLAN tags beside the bytes left out: pcap has no room for them",
			"6 packet marks, priorities and sizes of segments left out: pcap has no room for them",
			"4 flow hashes and queue numbers left out: pcap has no room for them",
			"4 marks of partial checksums and of bytes that are not linear left out: pcap has no room for them"}},
		{"frames", "text", []*capture.Packet{frame}, []string{
			"1 VLAN tag beside the bytes left out: text has no room for it",
			"3 packet marks, priorities and sizes of segments left out: text has no room for them",
			"2 flow hashes and queue numbers left out: text has no room for them",
			"2 marks of partial checksums and of bytes that are not linear left out: text has no room for them"}},
		{"frames", "json", []*capture.Packet{frame, inner}, nil},
		{"frames", "pcapng", []*capture.Packet{frame, inner}, nil},
	} {
		t.Run(tt.name+", "+tt.form, func(t *testing.T) {
			t.Parallel()
			file, err := os.ReadFile(writeFile(t, tt.packets...))
			if err != nil {
				t.Fatal(err)
			}
			_, leftOut := copyOf(t, tt.form, Section{}, file)
			leftOut = slices.DeleteFunc(leftOut, func(s string) bool {
				return strings.Contains(s, "interface description") || strings.Contains(s, "section header") || strings.Contains(s, "packet id") || strings.Contains(s, "rounded")
			})
			if !slices.Equal(leftOut, tt.want) {
				t.Errorf("left out\n got %q\nwant %q", leftOut, tt.want)
			}
		})
	}
}
