package explain

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// noon is 2026-11-05 12:00:00 UTC.
const noon = 1793880000000000000

const synthetic = "as the socket filter sees them; the IPv4 header is synthetic"

var (
	tcpKernel = &capture.Interface{Kind: "tcp", View: capture.ViewKernel, Layer: capture.LayerTransport, Description: synthetic}
	tcpUser   = &capture.Interface{Kind: "tcp", View: capture.ViewUser, Layer: capture.LayerMessage, Description: "what recvmsg returned"}
	tcpNet    = &capture.Interface{Kind: "tcp", View: capture.ViewNet, Layer: capture.LayerNetwork}
	tcpLink   = &capture.Interface{Kind: "tcp", View: capture.ViewLink, Layer: capture.LayerLink}
	udpKernel = &capture.Interface{Kind: "udp", View: capture.ViewKernel, Layer: capture.LayerTransport, Description: synthetic}
	udpUser   = &capture.Interface{Kind: "udp", View: capture.ViewUser, Layer: capture.LayerMessage, Description: "what recvmsg returned"}
	tcpSent   = &capture.Interface{Kind: "tcp", View: capture.ViewSent, Layer: capture.LayerMessage}
	udpSent   = &capture.Interface{Kind: "udp", View: capture.ViewSent, Layer: capture.LayerMessage}
	tcpCgroup = &capture.Interface{Kind: "tcp", View: capture.ViewCgroup, Layer: capture.LayerNetwork}
	tcpWire   = onInterface("tcp", "eth0")
	otherWire = onInterface("tcp", "br0")
	udpWire   = onInterface("udp", "eth0")
	udpDrop   = &capture.Interface{Kind: "udp", View: capture.ViewDrop, Layer: capture.LayerNetwork}
	tcpDrop   = &capture.Interface{Kind: "tcp", View: capture.ViewDrop, Layer: capture.LayerNetwork}
	client    = netip.MustParseAddrPort("127.0.0.1:52638")
	server    = netip.MustParseAddrPort("127.0.0.1:16962")
)

func onInterface(kind, device string) *capture.Interface {
	return &capture.Interface{
		Kind: kind, View: capture.ViewWire, Layer: capture.LayerLink,
		Description: "as packet sockets get them on the interface " + device + "; what arrives before a firewall, what leaves behind it",
	}
}

// recording builds a capture in which each packet comes a microsecond after the one
// before.
type recording struct {
	section    convert.Section
	interfaces []*capture.Interface // those that come first, with packets or without
	packets    []*capture.Packet
	statistics []capture.Statistics
	ids        uint64
}

func newRecording() *recording {
	return &recording{section: convert.Section{Application: "ebpfdump test", OS: "Linux 6.1", Comment: "ebpfdump capture"}}
}

func (r *recording) add(p *capture.Packet) *capture.Packet {
	p.Time = noon + int64(len(r.packets))*1000
	p.Len = max(p.Len, len(p.Data))
	p.Src, p.Dst = client, server
	p.Direction = capture.Inbound
	r.packets = append(r.packets, p)
	return p
}

// segment adds a TCP segment with the next id.
func (r *recording) segment(seq uint32, flags uint8, payload string) *capture.Packet {
	r.ids++
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, client.Port())
	binary.BigEndian.PutUint16(b[2:], server.Port())
	binary.BigEndian.PutUint32(b[4:], seq)
	b[12], b[13] = 5<<4, flags
	return r.add(&capture.Packet{Interface: tcpKernel, ID: r.ids, Data: append(b, payload...), Protocol: header.ProtocolTCP})
}

// datagram adds a UDP datagram with the next id.
func (r *recording) datagram(payload string) *capture.Packet {
	r.ids++
	b := make([]byte, 8)
	binary.BigEndian.PutUint16(b, client.Port())
	binary.BigEndian.PutUint16(b[2:], server.Port())
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(payload)))
	return r.add(&capture.Packet{Interface: udpKernel, ID: r.ids, Data: append(b, payload...), Protocol: header.ProtocolUDP})
}

// read adds what a call returned, with the id of a packet.
func (r *recording) read(i *capture.Interface, id uint64, payload string) *capture.Packet {
	protocol := uint8(header.ProtocolTCP)
	if i.Kind == "udp" {
		protocol = header.ProtocolUDP
	}
	return r.add(&capture.Packet{Interface: i, ID: id, Data: []byte(payload), Protocol: protocol, Call: "recvmsg"})
}

// send adds what a call took.
func (r *recording) send(i *capture.Interface, call, payload string) *capture.Packet {
	p := r.read(i, 0, payload)
	p.Src, p.Dst, p.Direction, p.Call = server, client, capture.Outbound, call
	return p
}

// hooked adds what a cgroup hook saw of a segment: of one that came in with the id and the bytes of a
// packet of the kernel view, or of one that was sent.
func (r *recording) hooked(d capture.Direction, of *capture.Packet) *capture.Packet {
	head := ipv4Header(20 + len(of.Data))
	head[9] = header.ProtocolTCP
	p := r.add(&capture.Packet{Interface: tcpCgroup, ID: of.ID, Data: append(head, of.Data...), Protocol: header.ProtocolTCP})
	if p.Direction = d; d == capture.Outbound {
		p.Src, p.Dst = server, client
	}
	return p
}

// departs adds a segment that was sent.
func (r *recording) departs(flags uint8, payload string) *capture.Packet {
	p := r.segment(5000, flags, payload)
	r.packets = r.packets[:len(r.packets)-1]
	return r.hooked(capture.Outbound, p)
}

// framed adds the frames of a packet of the kernel view, or of the cgroup view, on interfaces.
func (r *recording) framed(d capture.Direction, of *capture.Packet, on ...*capture.Interface) (last *capture.Packet) {
	ip := of.Data
	if of.Interface.View == capture.ViewKernel {
		ip = append(ipv4Header(20+len(of.Data)), of.Data...)
		ip[9] = of.Protocol
	}
	for _, i := range on {
		frame := append(append(make([]byte, 12), 8, 0), ip...)
		if len(frame) < 60 && d == capture.Inbound {
			frame = append(frame, make([]byte, 60-len(frame))...) // the least that Ethernet has
		}
		last = r.add(&capture.Packet{Interface: i, ID: of.ID, Data: frame, Protocol: of.Protocol})
		if last.Direction = d; d == capture.Outbound {
			last.Src, last.Dst = server, client
		}
	}
	return last
}

// freed adds a packet that the kernel has freed, with the id and the bytes of one from the transport
// header on.
func (r *recording) freed(d capture.Direction, of *capture.Packet, reason string) *capture.Packet {
	head := ipv4Header(20 + len(of.Data))
	head[9] = of.Protocol
	p := r.add(&capture.Packet{Interface: udpDrop, ID: of.ID, Data: append(head, of.Data...), Protocol: of.Protocol})
	if of.Interface.Kind == "tcp" {
		p.Interface = tcpDrop
	}
	p.Drop = capture.Drop{Reason: reason}
	if p.Direction = d; d == capture.Outbound {
		p.Src, p.Dst = server, client
	}
	return p
}

// unseen takes back the packet that was added last.
func (r *recording) unseen(p *capture.Packet) *capture.Packet {
	r.packets = r.packets[:len(r.packets)-1]
	return p
}

// file is the recording as pcapng.
func (r *recording) file(t testing.TB) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := convert.NewWriter(&file, r.section)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range r.interfaces {
		if err := w.AddInterface(i); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range r.packets {
		if err := w.WritePacket(p); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range r.statistics {
		if err := w.WriteStatistics(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// explained explains a complete file.
func explained(t testing.TB, file []byte, o Options) *Explanation {
	t.Helper()
	e, err := explainedAnyway(file, o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func explainedAnyway(file []byte, o Options) (*Explanation, error) {
	if o.Name == "" {
		o.Name = "test.pcapng"
	}
	source, err := convert.Open(bytes.NewReader(file), nil, convert.ReadOptions{Name: o.Name, CutOff: true})
	if err != nil {
		return nil, err
	}
	return Read(source, o)
}

// brokenOff is a file as gzip has it before it is told that it ends.
func brokenOff(t testing.TB, file []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(file); err != nil {
		t.Fatal(err)
	}
	if err := z.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (r *recording) explain(t testing.TB) *Explanation {
	t.Helper()
	return explained(t, r.file(t), Options{Packets: -1})
}

// only is the report's only socket.
func (e *Explanation) only(t testing.TB) *Socket {
	t.Helper()
	if len(e.Report.Sockets) != 1 {
		t.Fatalf("%d sockets, want 1", len(e.Report.Sockets))
	}
	return e.Report.Sockets[0]
}

func (o *Socket) finding(topic string) Finding {
	for _, f := range o.Findings {
		if f.Topic == topic {
			return f
		}
	}
	return Finding{}
}

func text(t testing.TB, e *Explanation, colour bool) string {
	t.Helper()
	var b strings.Builder
	if err := e.WriteText(&b, colour, Columns); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func pageOf(t testing.TB, e *Explanation) string {
	t.Helper()
	var b strings.Builder
	if err := e.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// equal compares a value with the expected one.
func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// wants fails if a text does not contain another.
func wants(t *testing.T, in, part string) {
	t.Helper()
	if !strings.Contains(in, part) {
		t.Errorf("%q is not in:\n%s", part, in)
	}
}

// conversation is a connection from handshake to end: one read gets two segments, two
// reads get parts of one, and one read gets exactly one.
func conversation() *recording {
	r := newRecording()
	r.segment(999, header.SYN, "")
	r.segment(1000, header.ACK, "")
	r.segment(1000, header.ACK, "0123")
	r.segment(1004, header.ACK, "456789")
	r.read(tcpUser, 3, "0123456789").Receipt.Fed.Ranges = [][2]uint64{{3, 4}}
	r.segment(1010, header.ACK|header.PSH, "abcdef")
	r.read(tcpUser, 5, "ab")
	r.read(tcpUser, 5, "cdef")
	r.segment(1016, header.ACK|header.PSH, "!\n")
	r.read(tcpUser, 6, "!\n")
	r.segment(1018, header.ACK, "")
	r.segment(1018, header.ACK|header.FIN, "")
	r.read(tcpUser, 8, "").Receipt.End = true
	r.segment(1019, header.ACK, "")
	r.statistics = []capture.Statistics{
		{Interface: tcpKernel, Received: 9, Accepted: 9, Delivered: 9},
		{Interface: tcpUser, Received: 5, Accepted: 5, Delivered: 5},
	}
	return r
}

var errBroken = errors.New("broken")

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }
