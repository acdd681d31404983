package explain

import (
	"strings"
	"syscall"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// A peek consumes nothing: the next read has the same bytes.
func TestPeek(t *testing.T) {
	t.Parallel()
	r := newRecording()
	r.segment(1000, header.ACK, "0123456789")
	r.read(tcpUser, 1, "0123").Receipt.Peeked = true
	r.read(tcpUser, 1, "0123456789")
	e := r.explain(t)
	s := e.only(t)
	equal(t, "peeks", s.Mapping.Peeks, 1)
	equal(t, "same", s.Comparison.Same, 1)
	equal(t, "reads", s.Comparison.Reads, 1)
	equal(t, "differ", s.Comparison.Differ.Packets, 0)
	wants(t, text(t, e, false), "1 call looked at bytes")
	wants(t, text(t, e, false), `
  peek 1: recvmsg returned 4 bytes, 1µs later; peeked at (MSG_PEEK), and left in
  the queue
  read 1: recvmsg returned 10 bytes, 2µs later
`)
	wants(t, text(t, e, false), `
payload    20 30 31 32 33 34 35 36 37 38 39                    0123456789
peek 1        30 31 32 33                                      0123
read 1        30 31 32 33 34 35 36 37 38 39                    0123456789
`)
}

// A peek is shown as one, with the bytes that it returned, and nothing of it is said of the reads beside it.
func TestPeeksShown(t *testing.T) {
	t.Parallel()
	peek := func(r *recording, i *capture.Interface, id uint64, payload string) *capture.Packet {
		p := r.read(i, id, payload)
		p.Receipt.Peeked = true
		return p
	}
	said := func(r *recording) string {
		e := r.explain(t)
		checkPage(t, pageOf(t, e))
		return text(t, e, false)
	}
	r := newRecording()
	r.segment(1000, header.ACK, "01234")
	r.segment(1005, header.ACK, "56789")
	r.read(tcpUser, 1, "01")
	peek(r, tcpUser, 1, "23456")
	r.read(tcpUser, 1, "23456")
	peek(r, tcpUser, 2, "789")
	peek(r, tcpUser, 2, "other")
	r.segment(1010, header.ACK|header.FIN, "")
	peek(r, tcpUser, 3, "").Receipt.End = true
	all := said(r)
	for _, part := range []string{
		"\nread 1        30 31                                            01\npeek 1              32 33 34                                     234\nread 2              32 33 34 ",
		"\npeek 1        35 36                                            56\nread 2        35 36                                            56\npeek 2              37 38 39                                     789\n\n",
		"peek 1: recvmsg returned 5 bytes, 3 of them from here, 3µs later;",
		"peek 3: recvmsg returned 5 bytes, 5µs later;", // bytes of which nobody knows where they are
		"the end of the stream: userspace peeked at it, and no read of the file is\n  joined to it\n",
		"peek 4: recvmsg returned 0 bytes,",
	} {
		wants(t, all, part)
	}
	equal(t, "reads", strings.Count(all, "\n  read 1:")+strings.Count(all, "\n  read 2:"), 3)

	// A peek with an offset (SO_PEEK_OFF), as many as are shown and more, and one that belongs to no packet.
	r = newRecording()
	r.datagram("0123456789")
	peek(r, udpUser, 1, "456789")
	for range shownPeeks + 2 {
		peek(r, udpUser, 1, "0")
	}
	r.read(udpUser, 1, "0123456789")
	peek(r, udpUser, 0, "nobody's")
	e := r.explain(t)
	all = text(t, e, false)
	wants(t, all, "\npeek 1                    34 35 36 37 38 39                        456789\n")
	wants(t, all, "  and 3 peeks more\n")
	wants(t, all, "\n  read 1: recvmsg returned 10 bytes, 8µs later\n")
	wants(t, all, "\na peek: udp, received, ")
	wants(t, all, "\npeek 8      0 6e 6f 62 6f 64 79 27 73                          nobody's\n")
	equal(t, "peeks", e.only(t).Mapping.Peeks, shownPeeks+4)
	equal(t, "whole", e.only(t).Mapping.OneToOne, 1)
	wants(t, pageOf(t, e), `<rect class="bar peek" `)
	wants(t, pageOf(t, e), `<div class="user peek"><i>peek 1</i>`)
	wants(t, pageOf(t, e), "what it only looks at (MSG_PEEK)")
	equal(t, "drawn", strings.Count(pageOf(t, e), `<rect class="bar `), 1+shownPeeks+1+1)
	equal(t, "left out", explained(t, r.file(t), Options{}).leftOut(), "Not shown one by one: 1 packet and 1 unjoined peek.")
	// What was peeked at is in the user view.
	r = newRecording()
	r.datagram("0123456789")
	peek(r, udpUser, 1, "0")
	r.datagram("0123456789")
	e = explained(t, r.file(t), Options{Packets: -1, Choice: Choice{Views: []capture.View{capture.ViewUser}}})
	equal(t, "in the user view", len(e.packets), 1)
	wants(t, text(t, e, false), "\n  userspace peeked at it, and no read of the file is joined to it\n")
}

// A stream joined in the middle begins with bytes without a packet.
func TestBeforeTap(t *testing.T) {
	t.Parallel()
	r := newRecording()
	r.segment(1000, header.ACK, "0123456789")
	r.read(tcpUser, 0, "early").Receipt.Missing = capture.MissingBeforeTap
	r.read(tcpUser, 1, "bird0123").Receipt.BeforeTap = 4
	r.read(tcpUser, 1, "456789")
	e := r.explain(t)
	s := e.only(t)
	equal(t, "before", s.Mapping.Before, 1)
	equal(t, "reads", s.Comparison.Reads, 3)
	equal(t, "same", s.Comparison.Same, 1)
	equal(t, "partial", s.Comparison.Partial, 1)
	equal(t, "unknown", s.Comparison.Unknown, 1)
	equal(t, "differ", s.Comparison.Differ.Packets, 0)
	equal(t, "late", s.Losses.Late, 0)
	wants(t, text(t, e, false), "recvmsg returned 8 bytes, 4 of them from here")
	wants(t, text(t, e, false), "1 read got bytes")
}

// Spliced bytes count as delivered, although they were not seen.
func TestSplice(t *testing.T) {
	t.Parallel()
	r := newRecording()
	r.segment(1000, header.ACK, "0123456789")
	p := r.read(tcpUser, 1, "")
	p.Len, p.Call = 10, "splice"
	r.segment(1010, header.ACK, "abc")
	r.read(tcpUser, 2, "abc")
	s := r.explain(t).only(t)
	equal(t, "undelivered", s.Undelivered.AtEnd.Packets+s.Undelivered.PassedOver.Packets+s.Undelivered.InPart.Packets, 0)
	equal(t, "same", s.Comparison.Same, 1)
	equal(t, "unknown", s.Comparison.Unknown, 1)
}

// The sockets of a process have interfaces with one name, whose statistics are added.
func TestSocketsOfProcess(t *testing.T) {
	t.Parallel()
	r := newRecording()
	first, second := *tcpKernel, *tcpKernel
	first.Description += "; process 12 (nginx), its other sockets"
	second.Description += "; process 12 (nginx), descriptor 7, listening on [::]:80"
	r.segment(1000, header.ACK, "one").Interface = &second
	r.segment(1003, header.ACK, "two").Interface = &first
	r.statistics = []capture.Statistics{
		{Interface: &second, Received: 2, Accepted: 2, Delivered: 2},
		{Interface: &first, Received: 3, Accepted: 3, Delivered: 2, Dropped: 1},
	}
	e := r.explain(t)
	s := e.only(t)
	equal(t, "received", s.Views[0].Statistics.Received, 5)
	equal(t, "dropped", s.Views[0].Statistics.Dropped, 1)
	wants(t, text(t, e, false), "tcp: sockets of process 12 (nginx)\n")
	// It has run another program, of a name that a terminal must not get.
	renamed := *tcpKernel
	renamed.Description += "; process 12 (\x1b[31m), descriptor 8, listening on [::]:81"
	r.segment(1006, header.ACK, "again").Interface = &renamed
	e = r.explain(t)
	wants(t, text(t, e, false), `tcp: sockets of process 12 (nginx, \x1b[31m)`+"\n")
	equal(t, "summary", e.only(t).Summary, "sockets of process 12 (nginx, \x1b[31m)")
	third := *tcpKernel
	third.Description += "; process 13 (nginx), its other sockets"
	r.segment(1011, header.ACK, "three").Interface = &third
	wants(t, text(t, r.explain(t), false), "tcp: sockets of several processes\n")
}

// What was sent is told in both directions' account alone, and what the hook saw and the kernel view
// lacks is none of what userspace did not read.
func TestCgroupView(t *testing.T) {
	t.Parallel()
	both, alone := scenes["both directions"](t).only(t), conversation().explain(t).only(t)
	c := both.Cgroup
	equal(t, "received", c.Received, 10)
	equal(t, "sent", c.Sent, 5)
	for _, row := range []struct {
		name string
		got  Count
		ids  string
	}{
		{"handshake", c.Handshake, "10"}, {"ack", c.ACK, "11"}, {"payload", c.Payload, "12"}, {"fin", c.FIN, "13"}, {"rst", c.RST, "14"},
		{"alone", c.Alone, "15"},
	} {
		equal(t, row.name, row.got.IDs.String(), row.ids)
	}
	equal(t, "bytes sent", c.Payload.Bytes, 6)
	equal(t, "lost", c.Lost, 2)
	equal(t, "not read", both.Undelivered.AtEnd.Packets, alone.Undelivered.AtEnd.Packets)
	equal(t, "comparison", both.Comparison.Same, alone.Comparison.Same)
	equal(t, "acknowledgements", both.Unseen.ACK.Packets, alone.Unseen.ACK.Packets)
	wants(t, both.finding("cgroup").Text, "The cgroup hooks saw 10 packets come in and 5 go out.")
}

// What a program chose is told by socket, and its packets are none beside those of the kernel view.
func TestSelectView(t *testing.T) {
	t.Parallel()
	group := &capture.Interface{Kind: "udp", View: capture.ViewSelect, Layer: capture.LayerTransport, Description: synthetic, Members: 4}
	r := &recording{}
	add := func(id uint64, s capture.Selection) {
		s.Sockets = 4
		r.add(&capture.Packet{Interface: group, ID: id, Data: make([]byte, 12), Protocol: header.ProtocolUDP, Selection: s})
	}
	add(1, capture.Selection{How: capture.SelectorProgram, Socket: 2, Cookie: 22})
	add(2, capture.Selection{How: capture.SelectorProgram, Socket: 0, Cookie: 20})
	add(3, capture.Selection{How: capture.SelectorDrop})
	add(4, capture.Selection{How: capture.SelectorHash})
	add(5, capture.Selection{How: capture.SelectorHash, Refused: true, Asked: 7})
	add(6, capture.Selection{How: capture.SelectorProgram, Socket: 2, Cookie: 22})
	add(7, capture.Selection{})
	s := r.explain(t).only(t)
	equal(t, "packets", s.Packets, 0)
	equal(t, "sockets", len(s.Selections.Chosen), 2)
	equal(t, "cookie", s.Selections.Chosen[1].Cookie, 22)
	equal(t, "bytes", s.Selections.Chosen[1].Bytes, 24)
	equal(t, "text", s.finding("select").Text, "A program chose among 4 sockets: socket 0 for packet 2 and socket 2 for packets 1, 6. "+
		"It left to the kernel's hash: packet 4. It asked for a socket that there is not, so that the kernel's hash took one: packet 5. "+
		"It had the kernel drop: packet 3. Which socket it chose is not known: packet 7.")
}

// An empty datagram is a packet that was read like others: it is in all sums.
func TestEmptyDatagrams(t *testing.T) {
	t.Parallel()
	message := messages("unix-dgram", capture.ViewUser)
	ping := &capture.Interface{Kind: "icmp", View: capture.ViewKernel, Layer: capture.LayerTransport, Description: synthetic}
	pinged := messages("icmp", capture.ViewUser)
	for name, tt := range map[string]struct {
		record            func(r *recording)
		reads, ends, lone uint64
		headers           Range
	}{
		"all empty": {func(r *recording) {
			for id := range uint64(3) {
				r.datagram("")
				r.read(udpUser, id+1, "")
			}
		}, 3, 0, 0, Range{8, 8}},
		"one of three": {func(r *recording) {
			for id, text := range []string{"question", "", "last"} {
				r.datagram(text)
				r.read(udpUser, uint64(id+1), text)
			}
		}, 3, 0, 0, Range{8, 8}},
		"behind many": {func(r *recording) {
			for range 20 {
				r.datagram("")
			}
			for id := range uint64(20) {
				r.read(udpUser, id+1, "")
			}
		}, 20, 0, 0, Range{8, 8}},
		"of a unix socket": {func(r *recording) {
			r.add(&capture.Packet{Interface: messages("unix-dgram", capture.ViewKernel), ID: 1})
			r.read(message, 1, "").Protocol = 0
		}, 1, 0, 0, Range{0, 0}},
		"without packets, an end and an error": {func(r *recording) {
			r.read(udpUser, 0, "")
			r.read(udpUser, 0, "").Receipt.End = true
			r.read(udpUser, 0, "").Receipt.Errno = syscall.ECONNREFUSED
		}, 1, 1, 1, Range{-1, -1}},
		"into no room": {func(r *recording) {
			r.add(&capture.Packet{Interface: ping, ID: 1, Data: make([]byte, 16), Protocol: header.ProtocolICMP})
			r.read(pinged, 1, "").Protocol = header.ProtocolICMP
		}, 1, 0, 0, Range{0, 0}},
	} {
		r := newRecording()
		tt.record(r)
		e := explained(t, r.file(t), Options{Packets: -1, forget: limits{packets: 10, bytes: 1 << 20, afar: 1000}})
		s := e.only(t)
		c, m := &s.Comparison, &s.Mapping
		equal(t, name+": compared reads", c.Reads, tt.reads)
		equal(t, name+": and what became of them", c.Same+c.Partial+c.Differ.Packets+c.Unknown, c.Reads)
		equal(t, name+": reads", m.OneToOne+m.PartOfPacket+m.Ends+m.Errors+tt.lone, m.Reads)
		equal(t, name+": ends", m.Ends, tt.ends)
		equal(t, name+": headers", s.Unseen.Headers.Packets, s.Delivered.Packets)
		if size := s.Unseen.HeaderSize; size != nil {
			equal(t, name+": header size", *size, tt.headers)
		}
		if all := text(t, e, false); name == "one of three" {
			wants(t, all, "All that userspace got is in the kernel view: 12 bytes in 3 reads,")
			wants(t, all, "3 reads got one whole packet each.")
			wants(t, all, "3 reads got 12 bytes;")
			wants(t, all, "(packets 1-3)")
		}
		checkPage(t, pageOf(t, e))
	}
}

// What a ping or raw socket takes and gives has headers in it, and the figures of one thing are of the same bytes.
func TestHeadersOfProcess(t *testing.T) {
	t.Parallel()
	e := scenes["ping"](t)
	s := e.only(t)
	equal(t, "taken", s.Sent.Bytes, 19)
	equal(t, "payload", s.Cgroup.Payload.Bytes, 11)
	wants(t, s.finding("sent").Text, "19 bytes in 1 call (sendto), with the headers that the process made itself.")
	wants(t, s.finding("cgroup").Text, "Sent were 11 bytes of payload behind all headers (packet 1).")
	// In or beyond the window: read whole, in part, and not.
	for _, window := range []int{100, 1} {
		r := newRecording()
		kernel := &capture.Interface{Kind: "icmp", View: capture.ViewKernel, Layer: capture.LayerTransport, Description: synthetic}
		for id := range uint64(3) {
			r.add(&capture.Packet{Interface: kernel, ID: id + 1, Data: make([]byte, 19), Protocol: header.ProtocolICMP})
		}
		r.read(messages("icmp", capture.ViewUser), 1, string(make([]byte, 19))).Protocol = header.ProtocolICMP
		r.read(messages("icmp", capture.ViewUser), 2, string(make([]byte, 15))).Protocol = header.ProtocolICMP
		s := explained(t, r.file(t), Options{forget: limits{packets: window, bytes: 1 << 20, afar: 100}}).only(t)
		equal(t, "read", s.Delivered.Bytes, 34)
		equal(t, "not read", s.Undelivered.AtEnd.Bytes, 19)
		equal(t, "in part", s.Undelivered.InPart.Bytes, 4)
		equal(t, "whole", s.Mapping.OneToOne, 1)
		equal(t, "a part", s.Mapping.PartOfPacket, 1)
	}
}

// Of packets of which nobody knows whether they were read nothing is said to be unread, and none is lost unless
// something before the reader has dropped or truncated it.
func TestNotFollowed(t *testing.T) {
	t.Parallel()
	for _, beside := range []bool{true, false} {
		for _, window := range []int{100, 1} {
			o := Options{Packets: -1, forget: limits{packets: window, bytes: 1 << 20, afar: 100}}
			file := wrapped(beside).file(t)
			e := explained(t, file, o)
			s, u := e.only(t), &e.only(t).Undelivered
			equal(t, "unread", u.AtEnd.Packets+u.PassedOver.Packets+s.Connections[0].Unread.Packets, 0)
			equal(t, "not known", u.NotKnown.Packets, map[bool]uint64{true: 3}[beside])
			equal(t, "dropped", u.ByFilter.IDs.String(), "2")
			if all := text(t, e, false); strings.Contains(all, "joined") || strings.Contains(all, "All payload") {
				t.Errorf("reads that nobody followed:\n%s", all)
			}
			// Of the one that the filter has dropped it is known that no read got it.
			equal(t, "bars of no reads", strings.Count(pageOf(t, e), ">reads<"), map[bool]int{true: 1}[beside])
			o.Choice.Lost = true
			var lost IDs
			e = explained(t, file, o)
			for _, g := range e.packets {
				lost.add(g.id)
			}
			equal(t, "lost", lost.String(), "2-3")
			equal(t, "and more", e.omitted.total(), 0)
			o.Packets = 0
			equal(t, "left out", explained(t, file, o).leftOut(), "Not shown one by one: 2 packets.")
		}
	}
	// So it is without a user view at all.
	r := newRecording()
	r.datagram("whole")
	r.datagram("truncated").Verdict = capture.Verdict{Keep: 12, Of: 17}
	r.segment(1000, header.ACK, "")
	r.packets[2].Verdict = capture.Verdict{Keep: 19, Of: 20} // a part of the header, which nobody gets anyway
	for range 10 {
		r.datagram("whole")
	}
	e := explained(t, r.file(t), Options{Packets: -1, Choice: Choice{Lost: true}})
	equal(t, "lost", len(e.packets), 1)
	equal(t, "which", e.packets[0].id, 2)
	wants(t, text(t, e, false), "\n  the file does not tell what userspace got of it\n")
	e = explained(t, r.file(t), Options{Packets: -1, Choice: Choice{Lost: true}, forget: limits{packets: 1, bytes: 1 << 20, afar: 100}})
	equal(t, "lost of many", uint64(len(e.packets))+e.omitted.total(), 1)
}
