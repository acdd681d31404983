package explain

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// The samples are re-recorded now and then, but the probe stays the same.
func TestSamples(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		begins, protocol string
		header           int64
		least            uint64 // packets
	}{
		"tcp": {"transport", "TCP", 32, 5},
		"udp": {"transport", "UDP", 8, 1},
		"raw": {"network", "TCP", 0, 2},
	}
	for kind, test := range tests {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			file, err := os.ReadFile(filepath.Join("..", "..", "samples", kind+".pcapng"))
			if err != nil {
				t.Fatal(err)
			}
			s := explained(t, file, Options{Packets: 10}).only(t)
			equal(t, "kind", s.Kind, kind)
			equal(t, "begins", s.Begins, test.begins)
			equal(t, "protocols", strings.Join(s.Protocols, " "), test.protocol)
			equal(t, "synthetic", s.Synthetic, test.begins == "transport")
			equal(t, "header", *s.Unseen.HeaderSize, Range{test.header, test.header})
			equal(t, "same", s.Comparison.Same, s.Comparison.Reads)
			equal(t, "compared", s.Comparison.Compared, s.Comparison.Bytes)
			if s.Packets < test.least || s.Latency == nil || s.Latency.Median <= 0 {
				t.Errorf("%d packets, latency %+v", s.Packets, s.Latency)
			}
			for _, f := range s.Findings {
				if f.Warning {
					t.Errorf("a warning: %s", f.Text)
				}
			}
		})
	}
}

func TestConversation(t *testing.T) {
	t.Parallel()
	s := conversation().explain(t).only(t)
	equal(t, "mapping", s.Mapping, Mapping{
		Reads: 5, OneToOne: 1, SeveralPackets: 1, Most: 2, PartOfPacket: 2, SplitPackets: 1, MostReads: 2, Ends: 1,
	})
	equal(t, "handshake", s.Unseen.Handshake.IDs.String(), "1-2")
	equal(t, "acks", s.Unseen.ACK.IDs.String(), "7, 9")
	equal(t, "fin", s.Unseen.FIN.IDs.String(), "8")
	equal(t, "headers", s.Unseen.Headers.IDs.String(), "3-6")
	equal(t, "delivered", s.Delivered.IDs.String(), "3-6, 8")
	equal(t, "same", s.Comparison.Same, 4)
	equal(t, "compared", s.Comparison.Compared, 18)
	equal(t, "latency", *s.Latency, Latency{Reads: 5, Least: 1000, Median: 1002, P99: 2000, Most: 2000})
	wants(t, s.finding("lost").Text, "All payload reached userspace.")
	wants(t, s.finding("tap").Text, "(9 packets)")
	wants(t, s.finding("unseen").Text, "the handshake (packets 1-2); ACKs without payload (packets 7, 9)")
}

// Only the ACK of a SYN-ACK is part of the handshake, and only without payload.
func TestHandshake(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][2]string{
		"conversation": {"1-2", "7, 9"}, "client": {"1", "2"}, "request at once": {"1", "3"},
	} {
		u := scenes[name](t).only(t).Unseen
		equal(t, name+" handshake", u.Handshake.IDs.String(), want[0])
		equal(t, name+" ACKs", u.ACK.IDs.String(), want[1])
	}
}

// Segments that are repeated, out of order, and across the wrap-around of sequence
// numbers.
func TestStreamOutOfOrder(t *testing.T) {
	t.Parallel()
	r := newRecording()
	first := uint32(math.MaxUint32 - 2)
	r.segment(first-1, header.SYN, "")
	r.segment(first-1, header.SYN, "")
	r.segment(first+4, header.ACK, "efgh")
	r.segment(first, header.ACK, "abcd")
	r.segment(first+4, header.ACK, "efgh")
	r.read(tcpUser, 4, "abcdefgh")
	r.segment(first, header.ACK, "abcd")
	r.segment(first+8, header.ACK, "unread")
	s := r.explain(t).only(t)
	equal(t, "repeated", s.Unseen.Repeated.IDs.String(), "5-6")
	equal(t, "handshake", s.Unseen.Handshake.IDs.String(), "1-2")
	equal(t, "same", s.Comparison.Same, 1)
	equal(t, "several", s.Mapping.SeveralPackets, 1)
	equal(t, "unread", s.Undelivered.AtEnd.IDs.String(), "7")
}

// The tap lost a segment, or was attached late: the file says which packet a read begins
// with.
func TestStreamWithGap(t *testing.T) {
	t.Parallel()
	r := newRecording()
	r.segment(1000, header.ACK, "abcd")
	r.read(tcpUser, 1, "abcd")
	r.segment(1008, header.ACK, "ijkl").Drops = 1
	r.read(tcpUser, 2, "ijkl")
	r.segment(1020, header.ACK, "uvwx")
	r.read(tcpUser, 0, "qrst")
	s := r.explain(t).only(t)
	equal(t, "same", s.Comparison.Same, 2)
	equal(t, "differ", s.Comparison.Differ.Packets, 0)
	equal(t, "unknown", s.Comparison.Unknown, 1)
	equal(t, "tap", s.Losses.Tap, 1)
	if f := s.finding("tap"); !f.Warning {
		t.Errorf("no warning: %s", f.Text)
	}
}

// What the queue dropped before a message whose packet the file lacks is not among what is said of that message: it is no
// loss of the capture, whose statistics say what that is.
func TestQueueOverflowBeforeUnknown(t *testing.T) {
	t.Parallel()
	r := newRecording()
	r.datagram("datagram 1")
	r.read(udpUser, 0, "datagram 2").Drops = 5
	s := r.explain(t).only(t)
	equal(t, "losses without statistics", s.Losses, Losses{QueueOrCalls: 5})
	wants(t, s.finding("lost").Text, "The receive queue dropped, or the capture lost of what calls returned: 5 messages.")
	for _, lost := range []uint64{0, 2} {
		r.statistics = []capture.Statistics{{Interface: udpUser, Received: 6 + lost, Delivered: 1, Dropped: lost, OSDropped: 5}}
		s = r.explain(t).only(t)
		equal(t, "losses", s.Losses, Losses{Queue: 5, Calls: lost})
		equal(t, "lost calls are told of", strings.Contains(s.finding("lost").Text, "The capture lost"), lost > 0)
	}
}

func TestQueueOverflow(t *testing.T) {
	t.Parallel()
	r := newRecording()
	for i := range 10 {
		r.datagram(fmt.Sprintf("datagram %d", i+1))
	}
	r.read(udpUser, 1, "datagram 1")
	p := r.read(udpUser, 6, "datagram 6")
	p.Receipt, p.Drops = capture.Receipt{QueueDropped: 3, DroppedIDs: capture.IDs{Ranges: [][2]uint64{{2, 3}, {5, 5}}}}, 3
	s := r.explain(t).only(t)
	equal(t, "by queue", s.Undelivered.ByQueue.IDs.String(), "2-3, 5")
	equal(t, "passed over", s.Undelivered.PassedOver.IDs.String(), "4")
	equal(t, "at end", s.Undelivered.AtEnd.IDs.String(), "7-10")
	equal(t, "queue", s.Losses.Queue, 3)
	f := s.finding("lost")
	wants(t, f.Text, "3 packets (2-3, 5) dropped by the receive queue")
	if !f.Warning {
		t.Error("no warning")
	}
}

// A packet that another one overtook was not lost.
func TestOvertaken(t *testing.T) {
	t.Parallel()
	r := newRecording()
	r.datagram("one")
	r.datagram("two")
	r.read(udpUser, 2, "two")
	r.read(udpUser, 1, "one")
	s := r.explain(t).only(t)
	equal(t, "delivered", s.Delivered.IDs.String(), "1-2")
	equal(t, "passed over", s.Undelivered.PassedOver.Packets, 0)
}

func TestFilterVerdicts(t *testing.T) {
	t.Parallel()
	r := newRecording()
	r.datagram("0123456789\n").Verdict.Dropped = true
	r.datagram("00000000000").Verdict = capture.Verdict{Keep: 12, Of: 19}
	r.read(udpUser, 2, "0000")
	r.datagram("0123456789\n").Verdict = capture.Verdict{Keep: 8, Of: 19}
	r.read(udpUser, 3, "")
	e := r.explain(t)
	s := e.only(t)
	equal(t, "dropped", s.Undelivered.ByFilter.IDs.String(), "1")
	equal(t, "truncated", s.Undelivered.Trimmed.IDs.String(), "2-3")
	equal(t, "truncated bytes", s.Undelivered.Trimmed.Bytes, 18)
	equal(t, "same", s.Comparison.Same, 2)
	equal(t, "reads", s.Comparison.Reads, 2)
	equal(t, "of a part", s.Mapping.PartOfPacket, 2)
	equal(t, "delivered", s.Delivered.IDs.String(), "2-3")
	// The filter keeps the first bytes of the payload, not the last.
	equal(t, "place", e.packets[1].parts[0].from, 8)
	wants(t, e.packets[0].fate, "verdict was 0")
	wants(t, e.packets[1].fate, "the filter keeps 12 of 19 bytes")
}

// What a filter trims from a segment, the peer sends again.
func TestStreamTruncatedByFilter(t *testing.T) {
	t.Parallel()
	r := newRecording()
	r.segment(1000, header.ACK, "dropped").Verdict.Dropped = true
	r.segment(1000, header.ACK, "abcdef").Verdict = capture.Verdict{Keep: 23, Of: 26}
	r.read(tcpUser, 2, "abc")
	r.segment(1003, header.ACK, "def")
	r.read(tcpUser, 3, "def")
	s := r.explain(t).only(t)
	equal(t, "dropped", s.Undelivered.ByFilter.IDs.String(), "1")
	equal(t, "truncated", s.Undelivered.Trimmed.Bytes, 3)
	equal(t, "same", s.Comparison.Same, 2)
}

func TestCutBySnaplen(t *testing.T) {
	t.Parallel()
	r := newRecording()
	p := r.datagram("0123456789\n")
	p.Data = p.Data[:12]
	r.read(udpUser, 1, "0123456789\n")
	e := r.explain(t)
	s := e.only(t)
	equal(t, "partial", s.Comparison.Partial, 1)
	equal(t, "compared", s.Comparison.Compared, 4)
	equal(t, "cut", s.Views[0].Cut, 1)
	wants(t, text(t, e, false), "... 7 bytes more, not in the file; read")
}

func TestDifferentBytes(t *testing.T) {
	t.Parallel()
	r := newRecording()
	r.datagram("0123456789\n")
	r.read(udpUser, 1, "other bytes")
	r.segment(1000, header.ACK, "0123456789\n")
	r.read(tcpUser, 2, "0123456x89\n")
	e := r.explain(t)
	equal(t, "sockets", len(e.Report.Sockets), 2)
	for _, s := range e.Report.Sockets {
		equal(t, s.Kind+" differ", s.Comparison.Differ.Packets, 1)
		if f := s.finding("bytes"); !f.Warning || !strings.Contains(f.Text, "differ") {
			t.Errorf("%s: %q", s.Kind, f.Text)
		}
	}
}

// The other views of a packet end with the kernel view's bytes, or the report says that
// they do not.
func TestViewsBelow(t *testing.T) {
	t.Parallel()
	r := newRecording()
	ip := []byte("\x45\x00\x00\x2c\x00\x00\x40\x00\x40\x06\x00\x00\x7f\x00\x00\x01\x7f\x00\x00\x01")
	ethernet := []byte("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x08\x00")
	below := func(i *capture.Interface, headers ...[]byte) {
		kernel := r.packets[len(r.packets)-1]
		if i == tcpLink {
			kernel = r.packets[len(r.packets)-2]
		}
		r.add(&capture.Packet{Interface: i, ID: kernel.ID, Protocol: header.ProtocolTCP, Data: append(bytes.Join(headers, nil), kernel.Data...)})
	}
	r.segment(1000, header.ACK, "abcd")
	below(tcpNet, ip)
	below(tcpLink, ethernet, ip)
	r.read(tcpUser, 1, "abcd")
	r.segment(1004, header.ACK, "efgh")
	below(tcpNet, ip)
	r.packets[len(r.packets)-1].Data[30] ^= 1
	e := r.explain(t)
	s := e.only(t)
	byName := make(map[string]*View)
	for _, v := range s.Views {
		byName[v.Name] = v
	}
	equal(t, "kernel", *byName["kernel"].Before, Range{})
	equal(t, "net", *byName["net"].Before, Range{20, 20})
	equal(t, "link", *byName["link"].Before, Range{34, 34})
	equal(t, "disagree", byName["net"].Disagree, 1)
	g := e.packets[0]
	equal(t, "offset 0", g.offset0, 34)
	equal(t, "user", g.parts[0].from, 54)
	var names []string
	for _, span := range g.spans {
		names = append(names, span.name)
	}
	equal(t, "layers", strings.Join(names, " "), "Ethernet IPv4 TCP payload")
	wants(t, text(t, e, false), "Ethernet  -34 00 00")
}

// Packets that have no id, and no user view at all.
func TestKernelViewOnly(t *testing.T) {
	t.Parallel()
	r := newRecording()
	r.datagram("0123456789\n").ID = 0
	s := r.explain(t).only(t)
	wants(t, s.finding("bytes").Text, "has no user view")
	equal(t, "lost", s.finding("lost").Text, "")
	equal(t, "latency", s.Latency, nil)
}

func TestUserViewOnly(t *testing.T) {
	t.Parallel()
	r := newRecording()
	r.read(udpUser, 0, "0123456789\n")
	e := r.explain(t)
	wants(t, e.only(t).finding("begins").Text, "no kernel view")
	wants(t, text(t, e, false), "read 1      0 30 31 32")
}

// Files that were made of text have no times of reads.
func TestNoRealTimes(t *testing.T) {
	t.Parallel()
	for _, note := range []string{"there are no times, only an order", "times are those of the packets that brought it"} {
		user := *udpUser
		user.Description = "what a server got, as it printed it; " + note
		r := newRecording()
		r.datagram("0123456789\n").Time = 5
		r.read(&user, 1, "0123456789\n").Time = 7
		r.packets[0].Time = 5
		e := r.explain(t)
		s := e.only(t)
		equal(t, "latency", s.Latency, nil)
		equal(t, "start", e.Report.Start, nil)
		wants(t, s.finding("latency").Text, "no latency to tell")
		if strings.Contains(text(t, e, false), "later") {
			t.Error("a read is said to be later")
		}
	}
}

// A read that came in the same nanosecond as its packet, or before it.
func TestImpossibleTimes(t *testing.T) {
	t.Parallel()
	r := newRecording()
	r.datagram("a")
	r.read(udpUser, 1, "a").Time = r.packets[0].Time
	r.datagram("b")
	r.read(udpUser, 2, "b").Time = noon - 5
	equal(t, "latency", r.explain(t).only(t).Latency, nil)
}

// A packet leaves the window before its read.
func TestForgotten(t *testing.T) {
	t.Parallel()
	r := newRecording()
	for i := range 100 {
		r.datagram(fmt.Sprint(i))
		r.segment(uint32(1000+4*i), header.ACK, "abcd")
	}
	r.read(udpUser, 1, "0")
	r.read(udpUser, 199, "99")
	r.read(tcpUser, 2, "abcd")
	for _, forget := range []limits{{packets: 10, bytes: 1 << 20}, {packets: 1000, bytes: 200}} {
		e := explained(t, r.file(t), Options{Packets: 3, forget: forget})
		udp, tcp := e.Report.Sockets[0], e.Report.Sockets[1]
		equal(t, "late", udp.Losses.Late, 1)
		equal(t, "late", tcp.Losses.Late, 1)
		// Of those that the window still has at the end it is known that no read names them.
		equal(t, "without a read", udp.Undelivered.AtEnd.Packets+udp.Undelivered.PassedOver.Packets+udp.Undelivered.NotKnown.Packets, 99)
		equal(t, "not known", udp.Undelivered.NotKnown.Packets >= 90 && tcp.Undelivered.NotKnown.Packets >= 90, true)
		equal(t, "delivered", udp.Delivered.Packets, 1)
		equal(t, "shown", len(e.packets), 3)
		equal(t, "omitted", e.omitted.total(), 199)
	}
}

// Reads come when their packets have left the window, and are joined to them all the same.
func TestAfar(t *testing.T) {
	t.Parallel()
	const n = 100
	r := newRecording()
	for i := range n {
		r.datagram(fmt.Sprintf("%02d", i))
		r.segment(uint32(1000+4*i), header.ACK, "abcd")
	}
	for i := range n {
		p := r.read(udpUser, uint64(2*i+1), fmt.Sprintf("%02d", i))
		if i == 50 {
			p.Drops, p.Receipt.QueueDropped = 2, 2
			p.Receipt.DroppedIDs = capture.IDs{Ranges: [][2]uint64{{97, 99}}}
		}
		if i == 48 || i == 49 {
			r.packets = r.packets[:len(r.packets)-1]
		}
		if i%2 == 0 {
			r.read(tcpUser, uint64(2*i+2), "abcdabcd").Receipt.Fed = capture.IDs{Ranges: [][2]uint64{{uint64(2*i + 2), uint64(2*i + 2)}, {uint64(2*i + 4), uint64(2*i + 4)}}}
		}
	}
	file := r.file(t)
	for _, test := range []struct {
		choice  Choice
		shown   int
		omitted uint64
	}{{Choice{}, 5, 2*n - 5}, {Choice{Lost: true}, 0, 2}} {
		e := explained(t, file, Options{Packets: 5, Choice: test.choice, forget: limits{packets: 10, bytes: 1 << 20, afar: 1000}})
		udp, tcp := e.Report.Sockets[0], e.Report.Sockets[1]
		equal(t, "late", udp.Losses.Late+tcp.Losses.Late, 0)
		equal(t, "delivered", udp.Delivered.Packets, n-2)
		equal(t, "dropped by the queue", udp.Undelivered.ByQueue.IDs.String(), "97, 99")
		equal(t, "unread", udp.Connections[0].Unread.Packets+udp.Undelivered.AtEnd.Packets+udp.Undelivered.PassedOver.Packets, 0)
		equal(t, "latency", udp.Latency.Reads, n-2)
		equal(t, "delivered", tcp.Delivered.Packets, n)
		equal(t, "unread", tcp.Connections[0].Unread.Packets, 0)
		equal(t, "shown", len(e.packets), test.shown)
		equal(t, "omitted", e.omitted.total(), test.omitted)
		if test.shown > 0 {
			wants(t, text(t, e, false), "All payload reached userspace.")
			wants(t, text(t, e, false), "userspace gets the last 2")
		}
	}
	// Nobody reads them, and more come than are remembered.
	r = newRecording()
	for range n {
		r.datagram("unread")
	}
	r.read(udpUser, n, "unread")
	udp := explained(t, r.file(t), Options{forget: limits{packets: 10, bytes: 1 << 20, afar: 10}}).Report.Sockets[0]
	equal(t, "unread", udp.Undelivered.AtEnd.Packets+udp.Undelivered.PassedOver.Packets, n-1)
	equal(t, "unread", udp.Connections[0].Unread.Packets, n-1)
	equal(t, "not known", udp.Undelivered.NotKnown.Packets, 0)
}

func TestForeignFiles(t *testing.T) {
	t.Parallel()
	foreign := &capture.Interface{Label: "eth0\x1b[31m", Layer: capture.LayerLink}
	r := newRecording()
	r.section = convertSection("dumpcap")
	r.add(&capture.Packet{Interface: foreign, Data: make([]byte, 60)})
	if _, err := explainedAnyway(r.file(t), Options{}); !errors.Is(err, ErrForeign) {
		t.Errorf("got error %v", err)
	}
	r.datagram("mixed")
	e := r.explain(t)
	equal(t, "foreign", len(e.Report.Foreign), 1)
	wants(t, text(t, e, false), "left out: eth0\\x1b[31m (1 packet).")
}

func TestEmptyCapture(t *testing.T) {
	t.Parallel()
	e := newRecording().explain(t)
	wants(t, text(t, e, false), "no packet in it")
	pageOf(t, e)
	if _, err := explainedAnyway(nil, Options{}); err == nil {
		t.Error("an empty file has no error")
	}
}

func TestDamagedFile(t *testing.T) {
	t.Parallel()
	file := conversation().file(t)
	whole := explained(t, file, Options{}).Report.Packets
	// The two lengths of a block in the middle differ.
	damaged := bytes.Clone(file)
	at := 0
	for at < len(file)/2 {
		at += int(binary.LittleEndian.Uint32(file[at+4:]))
	}
	damaged[at-4] ^= 4
	e, err := explainedAnyway(damaged, Options{Packets: 10})
	if err == nil || e == nil {
		t.Fatalf("%v, %v", e, err)
	}
	if e.Report.Packets == 0 || e.Report.Packets >= whole || e.Report.CutOff != nil {
		t.Errorf("%+v", e.Report)
	}
	wants(t, text(t, e, false), "The file is damaged")
	wants(t, pageOf(t, e), "The file is damaged")
}

// TestCutOffFile has files that end in the middle of a block, as after a crash.
func TestCutOffFile(t *testing.T) {
	t.Parallel()
	file := conversation().file(t)
	whole := explained(t, file, Options{}).Report
	if whole.CutOff != nil {
		t.Errorf("the whole file: %+v", whole.CutOff)
	}
	end := 0
	for at := 0; at < len(file); at += int(binary.LittleEndian.Uint32(file[at+4:])) {
		end = at // of the last block
	}
	for _, n := range []int{1, 8, len(file) - end - 1} {
		e := explained(t, file[:end+n], Options{Packets: 10})
		if e.Report.Damage != "" || e.Report.CutOff == nil || *e.Report.CutOff != (CutOff{Offset: int64(end), Rest: int64(n)}) {
			t.Errorf("%d bytes of the last block: %+v", n, e.Report)
		}
		wants(t, text(t, e, false), "The file ends in the middle of a block")
		wants(t, pageOf(t, e), "The file ends in the middle of a block")
	}
	e := explained(t, brokenOff(t, file[:end]), Options{})
	if e.Report.Damage != "" || e.Report.CutOff == nil || *e.Report.CutOff != (CutOff{Offset: int64(end)}) {
		t.Errorf("a compressed file that breaks off: %+v", e.Report)
	}
	for _, said := range []string{text(t, e, false), pageOf(t, e)} {
		wants(t, said, "The compressed stream of the file breaks off.")
		if strings.Contains(said, "middle of a block") {
			t.Error(said)
		}
	}
}

// A packet that only passed the interface does not belong to the socket.
func TestWireView(t *testing.T) {
	t.Parallel()
	wire := &capture.Interface{Kind: "udp", View: capture.ViewWire, Layer: capture.LayerLink}
	r := newRecording()
	r.add(&capture.Packet{Interface: wire, Data: make([]byte, 60)})
	r.datagram("0123456789\n")
	r.add(&capture.Packet{Interface: wire, ID: 1, Data: append(make([]byte, 34), r.packets[1].Data...)})
	s := r.explain(t).only(t)
	equal(t, "packets", s.Packets, 1)
	equal(t, "wire", *s.Views[0].Before, Range{34, 34})
}
