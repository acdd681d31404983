package convert

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/remark"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// segments is an interface whose packets become segments.
func segments(kind string, view capture.View) *capture.Interface {
	i := &capture.Interface{Kind: kind, View: view, Layer: capture.LayerMessage, Header: capture.HeaderSegment, Source: capture.SourceTap, Process: "process 12 (x)", Sockets: "descriptor 3"}
	i.Description = remark.Description(i)
	i.Source, i.Sockets = capture.SourceUnknown, ""
	return i
}

// talk is one conversation in the views user and sent: what the client sends, which is read,
// and what is sent back.
type talk struct {
	user, sent     *capture.Interface
	client, server netip.AddrPort
	protocol       uint8
	in, out        uint32 // sequence numbers
	all            []*capture.Packet
}

func newTalk(kind string, client, server netip.AddrPort, protocol uint8) *talk {
	return &talk{
		user: segments(kind, capture.ViewUser), sent: segments(kind, capture.ViewSent), client: client, server: server,
		protocol: protocol, in: 4000000000, out: 1000,
	}
}

func (k *talk) read(text string) *capture.Packet {
	p := message(k.user, k.client, k.server, k.protocol, text)
	p.Segment.Known = true
	if k.protocol == protocolTCP {
		p.Segment = capture.Segment{Known: true, Seq: k.in, Ack: k.out, Acks: true}
	}
	k.in += uint32(len(text))
	k.all = append(k.all, p)
	return p
}

func (k *talk) send(text string, more int) *capture.Packet {
	p := message(k.sent, k.server, k.client, k.protocol, text)
	p.Direction, p.Call, p.Len = capture.Outbound, "sendmsg", len(text)+more
	p.Segment.Known = true
	if k.protocol == protocolTCP {
		p.Segment = capture.Segment{Known: true, Seq: k.out, Ack: k.in, Acks: true}
	}
	k.out += uint32(p.Len)
	k.all = append(k.all, p)
	return p
}

// http is a talk of two requests, with all that may come in a connection.
func (k *talk) http() *talk {
	k.read("GET /a HTTP/1.1\r\nHost: x\r\n")
	k.read("\r\n")
	k.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100011\r\n\r\n", 0)
	k.send(strings.Repeat("0123456789", 10000), 0)
	k.send("behind that", 0)
	k.read("GET /b HTTP/1.1\r\nHost: x\r\n\r\n")
	k.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 300\r\n\r\n", 0)
	k.send("", 300) // sendfile
	end := k.read("")
	end.Segment.Ends, end.Receipt.End = true, true
	failed := k.send("", 0)
	failed.Segment, failed.Receipt.Errno = capture.Segment{}, syscall.EPIPE
	return k
}

const query, answer = "\x00\x64\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01x\x00\x00\x01\x00\x01",
	"\x00\x64\x84\x00\x00\x01\x00\x01\x00\x00\x00\x00\x01x\x00\x00\x01\x00\x01\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x01\x02\x03\x04"

// Both directions are one conversation to tshark, of which it complains in nothing: checksums,
// sequence numbers, the dissection of what is in it.
func TestSegmentsInTshark(t *testing.T) {
	t.Parallel()
	var all []*capture.Packet
	for _, ends := range [][2]netip.Addr{{client4.Addr(), server4.Addr()}, {client6.Addr(), server6.Addr()}} {
		end := func(n int, port uint16) netip.AddrPort { return netip.AddrPortFrom(ends[n], port) }
		all = append(all, newTalk("tcp", end(0, 40000), end(1, 80), protocolTCP).http().all...)
		dns := newTalk("udp", end(0, 40000), end(1, 53), protocolUDP)
		dns.read(query)
		dns.send(answer, 0)
		all = append(all, dns.all...)
	}
	path := writeFile(t, all...)
	checked := []string{"-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-n", "-r", path}
	if out := run(t, "tshark", append(checked, "-Y", "_ws.malformed || tcp.analysis.flags || _ws.expert.severity >= 0x600000", "-V")...); out != "" {
		t.Errorf("tshark complains:\n%s", out)
	}
	rows := run(t, "tshark", append(checked, "-T", "fields", "-E", "separator=|", "-e", "frame.interface_name", "-e", "http.request.uri",
		"-e", "http.response.code", "-e", "dns.flags.response", "-e", "dns.response_to", "-e", "tcp.checksum.status", "-e", "udp.checksum.status")...)
	// Of bytes that are not there, no checksum is verified, and no message is put together.
	want := []string{
		"tcp:user|||||1|", "tcp:user|/a||||1|", "tcp:sent|||||1|", "tcp:sent|||||1|", "tcp:sent||200|||1|", "tcp:user|/b||||1|",
		"tcp:sent|||||1|", "tcp:sent|||||2|", "tcp:user|||||1|", "tcp:sent||||||", "udp:user|||0|||1", "udp:sent|||1|11||1",
	}
	again := strings.ReplaceAll(strings.Join(want, "\n"), "|11|", "|23|")
	if got := strings.TrimSpace(rows); got != strings.Join(want, "\n")+"\n"+again {
		t.Errorf("tshark reads\n%s", got)
	}
	stream := run(t, "tshark", "-n", "-r", path, "-q", "-z", "follow,tcp,ascii,1")
	for _, part := range []string{"GET /a HTTP/1.1", "behind that", "GET /b HTTP/1.1", "[fe80::1]:40000"} {
		if !strings.Contains(stream, part) {
			t.Errorf("%q is not in the stream:\n%.3000s", part, stream)
		}
	}
}

// TestSegmentsReadBack compares every field of what was written, and the bytes of what is then
// written again.
func TestSegmentsReadBack(t *testing.T) {
	t.Parallel()
	all := slices.Concat(
		newTalk("tcp", client4, server4, protocolTCP).http().all,
		newTalk("tcp6", client6, server6, protocolTCP).http().all,
	)
	k := newTalk("udp6", client6, server6, protocolUDP)
	k.read(query)
	k.send("", 0)
	all = append(all, k.all...)
	// What another view has as a segment keeps its place.
	k = newTalk("tcp6", client6, server6, protocolTCP).http()
	for _, p := range k.all {
		p.Segment.Elsewhere = p.Segment.Known
	}
	all = append(all, k.all...)
	path := writeFile(t, all...)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n, p := range mustRead(t, bytes.NewReader(file), ReadOptions{}) {
		want := all[n]
		if p.Segment != want.Segment || p.Src != want.Src || p.Dst != want.Dst || p.Protocol != want.Protocol || p.Call != want.Call ||
			!bytes.Equal(p.Data, want.Data) || p.Len != want.Len || p.Receipt.Errno != want.Receipt.Errno || p.Receipt.End != want.Receipt.End {
			t.Errorf("packet %d:\n got %+v\nwant %+v", n, *p, *want)
		}
		if p.Interface.Header != capture.HeaderSegment || p.Interface.View != want.Interface.View || p.Interface.Process != "process 12 (x)" {
			t.Errorf("packet %d is of %+v", n, *p.Interface)
		}
	}
	if again := rewrite(t, file); !bytes.Equal(again, file) {
		t.Error("written again it differs")
	}
}

// Another program may cut segments, after which their checksums are of more than is there: what
// is left is read as before.
func TestSegmentsCut(t *testing.T) {
	t.Parallel()
	const kept = 150
	all := slices.Concat(newTalk("tcp", client4, server4, protocolTCP).http().all, newTalk("tcp6", client6, server6, protocolTCP).http().all)
	for _, kind := range []string{"udp", "udp6"} {
		client, server := client4, server4
		if kind == "udp6" {
			client, server = client6, server6
		}
		k := newTalk(kind, client, server, protocolUDP)
		k.send(strings.Repeat("0123456789", 30), 0)
		all = append(all, k.all...)
	}
	testutil.RequireTool(t, "editcap")
	path := filepath.Join(t.TempDir(), "cut.pcapng")
	run(t, "editcap", "-s", strconv.Itoa(kept), writeFile(t, all...), path)
	cut := 0
	for n, p := range packetsOf(t, path) {
		want := all[n]
		if p.Segment != want.Segment || p.Src != want.Src || p.Dst != want.Dst || p.Protocol != want.Protocol || p.Call != want.Call ||
			p.Len != want.Len || p.Interface.View != want.Interface.View || !bytes.HasPrefix(want.Data, p.Data) {
			t.Errorf("packet %d:\n got %+v of %s\nwant %+v", n, *p, p.Interface.Name(), *want)
		}
		if len(p.Data) < len(want.Data) {
			cut++
		}
	}
	if want := strings.Count(run(t, "tshark", "-r", path, "-Y", "frame.cap_len == "+strconv.Itoa(kept)), "\n"); cut != want || cut < 4 {
		t.Errorf("%d packets are cut, tshark finds %d", cut, want)
	}
}

// Which view goes into an output with room for one does not depend on which packet comes first.
func TestOneViewOfSeveral(t *testing.T) {
	t.Parallel()
	k := newTalk("udp", client4, server4, protocolUDP)
	unix := segments("unix-dgram", capture.ViewSent)
	unix.Header = capture.HeaderRecorded
	unix.Description = remark.Description(&capture.Interface{Kind: "unix-dgram", View: capture.ViewSent, Source: capture.SourceTap})
	local := &capture.Packet{Interface: unix, Data: []byte("local"), Len: 5, Call: "sendto"}
	sent, failed, read := k.send(answer, 0), k.send("", 0), k.read(query)
	failed.Segment, failed.Receipt.Errno = capture.Segment{}, syscall.EPIPE
	kernel := datagram(t, udpKernel, client4, server4, probe)
	left := func(i *capture.Interface, reason Reason) LeftOut { return LeftOut{i, 1, reason} }
	for _, test := range []struct {
		name, form string
		views      []capture.View
		all        []*capture.Packet
		want       *capture.Packet
		left       []LeftOut
	}{
		{"all", "pcap", nil, []*capture.Packet{failed, sent, read, kernel}, kernel, []LeftOut{{k.sent, 2, ReasonView}, left(k.user, ReasonView)}},
		{"without the kernel", "pcap", nil, []*capture.Packet{sent, read}, read, []LeftOut{left(k.sent, ReasonView)}},
		{"only sent", "pcap", nil, []*capture.Packet{local, sent}, sent, []LeftOut{left(unix, ReasonLinkType)}},
		{"asked for", "pcap", []capture.View{capture.ViewSent}, []*capture.Packet{local, failed, read, sent, kernel}, sent, []LeftOut{left(unix, ReasonLinkType), left(k.sent, ReasonNoBytes)}},
		{"local only", "pcap", []capture.View{capture.ViewSent}, []*capture.Packet{local, kernel}, local, nil},
		{"text", "text", nil, []*capture.Packet{sent, read, kernel}, kernel, []LeftOut{left(k.sent, ReasonNotReceived), left(k.user, ReasonView)}},
		{"text without the kernel", "text", nil, []*capture.Packet{sent, read}, read, []LeftOut{left(k.sent, ReasonNotReceived)}},
		{"text of nothing", "text", nil, []*capture.Packet{sent}, nil, []LeftOut{left(k.sent, ReasonNotReceived)}},
	} {
		file, err := os.ReadFile(writeFile(t, test.all...))
		if err != nil {
			t.Fatal(err)
		}
		form, _ := FormatByName(test.form)
		s := Selection{Format: form, Views: test.views}
		if !s.Considers() {
			t.Errorf("%s: the input is not looked at", test.name)
		}
		s.Consider(bytes.NewReader(file), nil, ReadOptions{})
		var taken []*capture.Packet
		for _, p := range mustRead(t, bytes.NewReader(file), ReadOptions{}) {
			if s.Takes(p) {
				taken = append(taken, p)
			}
		}
		if test.want == nil && len(taken) > 0 || test.want != nil && (len(taken) != 1 || taken[0].Interface.Name() != test.want.Interface.Name()) {
			t.Errorf("%s: taken are %d", test.name, len(taken))
		}
		got := s.LeftOut()
		if len(got) != len(test.left) {
			t.Errorf("%s: left out: %v", test.name, got)
			continue
		}
		for n, want := range test.left {
			if got[n].Interface.Name() != want.Interface.Name() || got[n].Packets != want.Packets || got[n].Reason != want.Reason {
				t.Errorf("%s: left out: %v of %s", test.name, got[n], got[n].Interface.Name())
			}
		}
	}
}

// In pcap, segments are IP packets for all who read with libpcap, and what moved no bytes is
// left out and counted. Text is for what was received.
func TestSegmentsInOtherForms(t *testing.T) {
	t.Parallel()
	k := newTalk("tcp", client4, server4, protocolTCP).http()
	pcap, _ := FormatByName("pcap")
	s := Selection{Format: pcap, Views: []capture.View{capture.ViewSent}}
	var taken []*capture.Packet
	for _, p := range k.all {
		if s.Takes(p) && p.Len < 1<<16 { // above that, tcpdump wants a length that IPv4 has not
			taken = append(taken, p)
		}
	}
	if left := s.LeftOut(); len(left) != 1 || left[0] != (LeftOut{k.sent, 1, ReasonNoBytes}) {
		t.Errorf("left out: %v", left)
	}
	var file bytes.Buffer
	if err := writeAs(t, "pcap", &file, taken...); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "sent.pcap")
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	out := run(t, "tcpdump", "-nvvr", path)
	if strings.Count(out, "(correct)") != 3 || strings.Count(out, "length 300") != 1 || strings.Contains(out, "incorrect") {
		t.Errorf("tcpdump reads\n%s", out)
	}
	if err := writeAs(t, "pcap", new(bytes.Buffer), k.all[len(k.all)-1]); err == nil {
		t.Error("a call that failed is in pcap")
	}
	if err := writeAs(t, "text", new(bytes.Buffer), taken...); err == nil || !strings.Contains(err.Error(), "text is for what was received") {
		t.Errorf("as text: %v", err)
	}
	var json bytes.Buffer
	if err := writeAs(t, "json", &json, taken[0]); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"interface":"tcp:sent"`, `"view":"sent"`, `"direction":"out"`, `"seq":1000,"ack":4000000028`, `"call":"sendmsg"`} {
		if !strings.Contains(json.String(), want) {
			t.Errorf("%s is not in %s", want, json.String())
		}
	}
}
