package explain

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// scenes are captures, each with a property that makes a sentence untrue that holds for
// most captures.
var scenes = map[string]func(testing.TB) *Explanation{
	"conversation": func(t testing.TB) *Explanation { return conversation().explain(t) },
	"sends": func(t testing.TB) *Explanation {
		r := newRecording()
		r.send(tcpSent, "sendto", "GET / HTTP/1.0\r\n\r\n")
		r.send(tcpSent, "sendto", "more")
		r.send(tcpSent, "sendfile", "").Len = 100
		r.send(tcpSent, "sendto", "").Receipt.Errno = syscall.EPIPE
		r.statistics = []capture.Statistics{{Interface: tcpSent, Received: 5, Accepted: 5, Delivered: 3, Dropped: 2}}
		return explained(t, r.file(t), Options{Packets: 1})
	},
	"nothing sent": func(t testing.TB) *Explanation {
		r := newRecording()
		r.send(udpSent, "sendmsg", "").Receipt.Errno = syscall.ECONNREFUSED
		return r.explain(t)
	},
	"one send": func(t testing.TB) *Explanation {
		r := newRecording()
		r.send(udpSent, "sendto", "!")
		return explained(t, r.file(t), Options{})
	},
	"capture filter": func(t testing.TB) *Explanation {
		r := newRecording()
		r.datagram("one")
		r.read(udpUser, 1, "one")
		r.statistics = []capture.Statistics{
			{Interface: udpKernel, Received: 3, Accepted: 1, Delivered: 1, Unwanted: 2}, {Interface: udpUser, Received: 1, Accepted: 1, Delivered: 1},
		}
		return r.explain(t)
	},
	"both directions": func(t testing.TB) *Explanation {
		r := conversation()
		for _, p := range r.packets {
			if p.Interface == tcpKernel {
				r.hooked(capture.Inbound, p)
			}
		}
		r.departs(header.SYN|header.ACK, "")
		r.departs(header.ACK, "")
		r.departs(header.ACK|header.PSH, "answer")
		r.departs(header.ACK|header.FIN, "")
		r.departs(header.RST, "")
		missed := r.segment(1019, header.ACK, "again")
		r.packets = r.packets[:len(r.packets)-1]
		r.hooked(capture.Inbound, missed).Drops = 2
		return r.explain(t)
	},
	"dropped": func(t testing.TB) *Explanation {
		r := newRecording()
		r.datagram("one")
		r.read(udpUser, 1, "one")
		r.freed(capture.Inbound, r.datagram("two"), "SOCKET_RCVBUFF").Drop.Location = "udp_queue_rcv_one_skb"
		filtered := r.datagram("three")
		filtered.Verdict.Dropped = true
		r.freed(capture.Inbound, filtered, "SOCKET_FILTER")
		r.freed(capture.Inbound, r.unseen(r.datagram("four")), "NETFILTER_DROP").Drops = 2
		r.freed(capture.Inbound, r.unseen(r.datagram("five")), "")
		return r.explain(t)
	},
	"nothing dropped": func(t testing.TB) *Explanation {
		r := newRecording()
		r.interfaces = []*capture.Interface{udpDrop}
		r.datagram("one")
		r.read(udpUser, 1, "one")
		return r.explain(t)
	},
	"dropped on its way out": func(t testing.TB) *Explanation {
		r := newRecording()
		p := r.segment(1000, header.ACK, "question")
		r.packets = nil
		r.hooked(capture.Inbound, p)
		r.read(tcpUser, p.ID, "question")
		answer := r.segment(5000, header.ACK, "answer")
		r.packets = r.packets[:len(r.packets)-1]
		r.hooked(capture.Outbound, answer)
		r.freed(capture.Outbound, answer, "QDISC_DROP")
		r.freed(capture.Outbound, r.unseen(r.segment(5006, header.ACK, "more")), "NETFILTER_DROP")
		return r.explain(t)
	},
	"hooks only": func(t testing.TB) *Explanation {
		r := newRecording()
		p := r.segment(1000, header.ACK, "question")
		r.packets = nil
		r.hooked(capture.Inbound, p)
		r.read(tcpUser, p.ID, "question")
		r.departs(header.ACK, "")
		return r.explain(t)
	},
	// What a firewall drops, a message about it, a fragment, and what the device never saw; each frame
	// on two interfaces.
	"on the wire": func(t testing.TB) *Explanation {
		r := newRecording()
		r.interfaces = []*capture.Interface{tcpKernel, tcpUser, tcpCgroup}
		p := r.segment(1000, header.ACK, "question")
		r.packets = nil
		r.framed(capture.Inbound, p, tcpWire, otherWire)
		r.packets, p.Time = append(r.packets, p), noon+1500
		r.hooked(capture.Inbound, p)
		r.read(tcpUser, p.ID, "question")
		r.framed(capture.Outbound, r.departs(header.ACK, ""), tcpWire, otherWire)
		r.departs(header.ACK|header.PSH, "dropped behind the hook")
		for i, change := range []func(ip []byte){
			func([]byte) {},
			func(ip []byte) { ip[9] = header.ProtocolICMP },
			func(ip []byte) { ip[6] = 0x20 },
		} {
			stopped := r.segment(1008, header.ACK, strings.Repeat("again", i+1))
			r.packets = r.packets[:len(r.packets)-1]
			// A second before the others, so that the end of the capture is not why no filter has seen it.
			r.framed(capture.Inbound, stopped, tcpWire).Time -= int64(time.Second)
			change(r.packets[len(r.packets)-1].Data[14:])
		}
		late := r.segment(1009, header.ACK, "late")
		r.packets = r.packets[:len(r.packets)-1]
		r.framed(capture.Inbound, late, tcpWire)
		return r.explain(t)
	},
	"wire and losses": func(t testing.TB) *Explanation {
		r := newRecording()
		r.interfaces = []*capture.Interface{udpKernel, udpUser}
		p := r.datagram("0123456789\n")
		r.packets = nil
		r.framed(capture.Inbound, p, udpWire)
		r.packets, p.Time = append(r.packets, p), noon+500
		p.Drops = 1
		r.read(udpUser, p.ID, "0123456789\n")
		lost := r.datagram("lost")
		r.packets = r.packets[:len(r.packets)-1]
		lost = r.framed(capture.Inbound, lost, udpWire)
		lost.Drops, lost.Time = 3, lost.Time-int64(time.Second)
		return r.explain(t)
	},
	"wire alone": func(t testing.TB) *Explanation {
		r := newRecording()
		p := r.datagram("0123456789\n")
		r.packets = nil
		r.framed(capture.Inbound, p, udpWire)
		r.read(udpUser, p.ID, "0123456789\n")
		answer := r.datagram("answer")
		r.packets = r.packets[:len(r.packets)-1]
		r.framed(capture.Outbound, answer, udpWire)
		return r.explain(t)
	},
	"kernel only": func(t testing.TB) *Explanation {
		r := conversation()
		r.section.Comment = "ebpfdump capture\nebpfdump convert"
		r.packets = slices.DeleteFunc(r.packets, func(p *capture.Packet) bool { return p.Interface == tcpUser })
		r.statistics = r.statistics[:1]
		r.segment(1020, header.ACK|header.RST, "")
		r.datagram(strings.Repeat("x", 300)).Verdict.Dropped = true
		r.datagram(strings.Repeat("y", 300)).Drops = 1
		return r.explain(t)
	},
	"nothing read": func(t testing.TB) *Explanation {
		r := newRecording()
		r.interfaces = []*capture.Interface{udpKernel, udpUser}
		r.datagram("0123456789\n")
		return r.explain(t)
	},
	"no packets": func(t testing.TB) *Explanation {
		r := newRecording()
		r.interfaces = []*capture.Interface{udpKernel, udpUser}
		r.statistics = []capture.Statistics{{Interface: udpKernel}, {Interface: udpUser}}
		return r.explain(t)
	},
	// A client receives the answer to its SYN, and then an ACK of what it sent.
	"client": func(t testing.TB) *Explanation {
		r := newRecording()
		r.segment(999, header.SYN|header.ACK, "")
		r.segment(1000, header.ACK, "")
		r.segment(1000, header.ACK, "answer")
		r.read(tcpUser, 3, "answer")
		r.segment(1006, header.ACK|header.FIN, "")
		return r.explain(t)
	},
	// The ACK of the handshake carries the request; a later one is not part of the
	// handshake.
	"request at once": func(t testing.TB) *Explanation {
		r := newRecording()
		r.segment(999, header.SYN, "")
		r.segment(1000, header.ACK, "request")
		r.read(tcpUser, 2, "request")
		r.segment(1007, header.ACK, "")
		return r.explain(t)
	},
	"never filtered": func(t testing.TB) *Explanation {
		r := newRecording()
		user := messages("unix-stream", capture.ViewUser)
		r.interfaces = []*capture.Interface{messages("unix-stream", capture.ViewKernel), user}
		r.read(user, 0, "0123456789\n").Protocol = 0
		return r.explain(t)
	},
	"peeks": func(t testing.TB) *Explanation {
		r := newRecording()
		r.datagram("0123456789\n")
		r.read(udpUser, 1, "01").Receipt.Peeked = true
		return r.explain(t)
	},
	"copies dropped": func(t testing.TB) *Explanation {
		r := newRecording()
		kernel := &capture.Interface{Kind: "packet", View: capture.ViewKernel, Layer: capture.LayerLink}
		r.interfaces = []*capture.Interface{kernel, messages("packet", capture.ViewUser)}
		for _, d := range []capture.Direction{capture.Outbound, capture.Inbound, capture.DirectionUnknown} {
			r.ids++
			p := r.add(&capture.Packet{Interface: kernel, ID: r.ids, Data: make([]byte, 60), Verdict: capture.Verdict{Dropped: true}})
			p.Direction = d
		}
		return r.explain(t)
	},
	"verdicts": func(t testing.TB) *Explanation {
		r := newRecording()
		r.interfaces = []*capture.Interface{udpKernel, udpUser}
		r.datagram("0123456789\n").Verdict.Dropped = true
		r.datagram("0123456789\n").Verdict = capture.Verdict{Keep: 12, Of: 19}
		r.read(udpUser, 2, "0123")
		return r.explain(t)
	},
	"own filter": func(t testing.TB) *Explanation {
		r := newRecording()
		kernel := *udpKernel
		kernel.Description += "; the socket has a filter of its own: classic filter of 1 instruction, asked afterwards what it had decided"
		for i, verdict := range []capture.Verdict{{Dropped: true, Asked: true}, {Unasked: true}, {Dropped: true, Asked: true}} {
			p := r.datagram(fmt.Sprintf("datagram %d", i))
			p.Interface, p.Verdict = &kernel, verdict
		}
		r.read(udpUser, 2, "datagram 1")
		r.read(udpUser, 3, "datagram 2").Receipt = capture.Receipt{Belied: true, Denied: true}
		return r.explain(t)
	},
	"left filter": func(t testing.TB) *Explanation {
		r := newRecording()
		kernel := *udpKernel
		kernel.Description += "; the socket has a filter: eBPF filter 12, the tap of a capture that has ended, with a classic filter inside"
		p := r.datagram("datagram")
		p.Interface = &kernel
		r.read(udpUser, 1, "datagram")
		return r.explain(t)
	},
	"filters": func(t testing.TB) *Explanation {
		r := newRecording()
		kernel := *udpKernel
		kernel.Description += "; the socket has a filter of its own: classic filter of 1 instruction"
		for i := range ownFiltersShown + 4 {
			p := r.datagram(fmt.Sprintf("datagram %d", i))
			p.Interface = &kernel
			switch {
			case i == 1:
				p.Filter, p.Verdict.Dropped = capture.FilterChange{Changed: true, Now: "eBPF filter 1"}, true
			case i == 3:
				p.Filter = capture.FilterChange{Changed: true}
			case i > 3:
				p.Filter = capture.FilterChange{Changed: true, Now: fmt.Sprintf("eBPF filter %d", i)}
			}
			if i != 1 {
				r.read(udpUser, p.ID, string(p.Data[8:])).Receipt.Belied = i == 0
			}
		}
		return r.explain(t)
	},
	"queue": func(t testing.TB) *Explanation {
		r := newRecording()
		for i := range 5 {
			r.datagram(fmt.Sprintf("datagram %d", i+1))
		}
		p := r.read(udpUser, 4, "datagram 4")
		p.Receipt, p.Drops = capture.Receipt{QueueDropped: 2, DroppedIDs: capture.IDs{Ranges: [][2]uint64{{2, 2}}}}, 2
		return r.explain(t)
	},
	// What mergecap makes of two captures of the same packets.
	"same ids": func(t testing.TB) *Explanation {
		r := newRecording()
		for range 2 {
			r.ids = 0
			r.datagram("0123456789\n")
			r.read(udpUser, 1, "0123456789\n")
			r.datagram("lost")
		}
		return r.explain(t)
	},
	"same stream twice": func(t testing.TB) *Explanation {
		r := newRecording()
		for range 2 {
			r.ids = 0
			r.segment(1000, header.ACK, "0123456789\n")
		}
		for range 2 {
			r.read(tcpUser, 1, "0123456789\n")
		}
		return r.explain(t)
	},
	"ends": func(t testing.TB) *Explanation {
		r := newRecording()
		r.segment(1000, header.ACK, "abc")
		r.read(tcpUser, 1, "abc")
		r.segment(1003, header.ACK, "")
		r.segment(1003, header.ACK|header.RST, "")
		r.read(tcpUser, 3, "").Receipt.Errno = syscall.ECONNRESET
		r.segment(1003, header.ACK|header.RST, "")
		r.segment(1003, header.ACK|header.FIN, "")
		r.segment(1000, header.ACK, "abc")
		return r.explain(t)
	},
	"printed": func(t testing.TB) *Explanation {
		r := newRecording()
		kernel, user := *udpKernel, *udpUser
		kernel.Description = "packets of a udp socket as its filter printed them, from offset 0; the IPv4 header is synthetic, and so are its addresses"
		user.Description = "what a server got, as it printed it; times are those of the packets that brought it"
		r.datagram("0123456789\n").Interface = &kernel
		r.read(&user, 1, "0123456789\n")
		return r.explain(t)
	},
	"net only": func(t testing.TB) *Explanation {
		r := newRecording()
		net := &capture.Interface{Kind: "udp", View: capture.ViewNet, Layer: capture.LayerNetwork}
		p := r.datagram("0123456789\n")
		p.Interface, p.Data, p.Len = net, append(ipv4Header(39), p.Data...), 39
		r.read(udpUser, 1, "0123456789\n")
		return r.explain(t)
	},
	"user only": func(t testing.TB) *Explanation {
		r := newRecording()
		r.section = convertSection("")
		r.read(udpUser, 0, "0123456789\n")
		return r.explain(t)
	},
	"before the tap": func(t testing.TB) *Explanation {
		r := newRecording()
		r.segment(1000, header.ACK, "0123456789")
		r.read(tcpUser, 0, "early").Receipt.Missing = capture.MissingBeforeTap
		r.read(tcpUser, 1, "bird0123456789").Receipt.BeforeTap = 4
		return r.explain(t)
	},
	"splice": func(t testing.TB) *Explanation {
		r := newRecording()
		r.segment(1000, header.ACK, "0123456789")
		r.read(tcpUser, 1, "").Len = 10
		return r.explain(t)
	},
	"snaplen": func(t testing.TB) *Explanation {
		r := newRecording()
		p := r.datagram(strings.Repeat("0123456789", 40))
		p.Data = p.Data[:300]
		r.read(udpUser, 1, strings.Repeat("0123456789", 40))
		return r.explain(t)
	},
	"other bytes": func(t testing.TB) *Explanation {
		r := newRecording()
		r.datagram("0123456789\n")
		r.read(udpUser, 1, "other bytes")
		return r.explain(t)
	},
	"forgotten": func(t testing.TB) *Explanation {
		r := newRecording()
		for i := range 20 {
			r.datagram(fmt.Sprint(i))
		}
		r.read(udpUser, 1, "0")
		r.read(udpUser, 20, "19")
		return explained(t, r.file(t), Options{Packets: 2, forget: limits{packets: 10, bytes: 1 << 20}})
	},
	// As many come between a packet and its read, and it is known all the same what became of each.
	"afar": func(t testing.TB) *Explanation {
		r := newRecording()
		for i := range 20 {
			r.datagram(fmt.Sprint(i))
		}
		for i := range 4 {
			r.read(udpUser, uint64(i+1), fmt.Sprint(i))
		}
		return explained(t, r.file(t), Options{Packets: 2, forget: limits{packets: 10, bytes: 1 << 20, afar: 100}})
	},
	"all afar": func(t testing.TB) *Explanation {
		r := newRecording()
		for i := range 20 {
			r.datagram(fmt.Sprint(i))
		}
		r.read(udpUser, 1, "0")
		return explained(t, r.file(t), Options{Packets: 0, forget: limits{packets: 10, bytes: 1 << 20, afar: 100}})
	},
	"cut off": func(t testing.TB) *Explanation {
		file := conversation().file(t)
		return explained(t, file[:len(file)-300], Options{Packets: -1})
	},
	// A compressed file whose writer was killed, which had written whole blocks.
	"broken off": func(t testing.TB) *Explanation {
		file := conversation().file(t)
		cut := explained(t, file[:len(file)-300], Options{}).Report.CutOff.Offset
		return explained(t, brokenOff(t, file[:cut]), Options{Packets: -1})
	},
	"damaged": func(t testing.TB) *Explanation {
		file := conversation().file(t)
		e, err := explainedAnyway(append(file[:len(file):len(file)], "damage, and more of it"...), Options{Packets: -1})
		if e == nil || err == nil {
			t.Fatal(e, err)
		}
		return e
	},
	"selected": func(t testing.TB) *Explanation {
		r := conversation()
		r.packets = r.packets[:8] // what editcap may leave, beside the statistics
		return r.explain(t)
	},
	"half a ledger": func(t testing.TB) *Explanation {
		r := conversation()
		second := *tcpKernel
		second.Description += "; of IPv4 peers"
		r.segment(2000, header.ACK, "").Interface = &second
		return r.explain(t)
	},
	"lost": func(t testing.TB) *Explanation {
		r := newRecording()
		r.datagram("one").Drops = 1
		r.read(udpUser, 1, "one").Drops = 1
		r.read(udpUser, 0, "two").Drops = 3
		return r.explain(t)
	},
	"raw": func(t testing.TB) *Explanation {
		r := newRecording()
		kernel := &capture.Interface{Kind: "raw", View: capture.ViewKernel, Layer: capture.LayerNetwork}
		r.ids++
		data := append(ipv4Header(24), "data"...)
		r.add(&capture.Packet{Interface: kernel, ID: 1, Data: data})
		r.read(messages("raw", capture.ViewUser), 1, string(data))
		r.statistics = []capture.Statistics{{Interface: kernel, Received: 1, Accepted: 1, Delivered: 1}}
		return r.explain(t)
	},
	"messages": func(t testing.TB) *Explanation {
		r := newRecording()
		for i, text := range []string{"one", ""} {
			id := uint64(i + 1)
			r.add(&capture.Packet{Interface: messages("unix-dgram", capture.ViewKernel), ID: id, Data: []byte(text)}).Direction = capture.DirectionUnknown
			r.read(messages("unix-dgram", capture.ViewUser), id, text).Protocol = 0
		}
		return r.explain(t)
	},
	// A small buffer gets the beginning, even if the end has the same bytes.
	"small buffers": func(t testing.TB) *Explanation {
		r := newRecording()
		r.datagram("aaaaaaaaaa")
		r.read(udpUser, 1, "aaaa")
		r.segment(1000, header.ACK, "abcdef")
		r.read(tcpUser, 2, "ab")
		r.read(tcpUser, 2, "cdef")
		r.segment(1006, header.ACK, "ghijkl")
		r.read(tcpUser, 3, "gh")
		return r.explain(t)
	},
	// Calls say more than bytes: of a buffer that was too small, of several datagrams, of
	// what came with them, and of errors.
	"reception": func(t testing.TB) *Explanation {
		r := newRecording()
		r.datagram("aaaaaaaaaa")
		r.read(udpUser, 1, "aaaa").Reception = capture.Reception{
			Buffer: 4, HasBuffer: true, Cut: true, Whole: 10, Flags: unix.MSG_TRUNC | unix.MSG_CTRUNC | unix.MSG_EOR,
			Controls: []capture.Control{{Level: unix.SOL_SOCKET, Type: unix.SCM_RIGHTS, Len: 8}}, ControlRest: 9,
		}
		r.datagram("bbbbbbbb")
		r.read(udpUser, 2, "bbbbbbbb").Reception = capture.Reception{
			Segment: 3, Controls: []capture.Control{{Level: 17, Type: 104, Len: 4}, {Level: 99, Type: -1}},
		}
		r.read(udpUser, 0, "").Receipt.Errno = syscall.ECONNREFUSED
		return r.explain(t)
	},
	"mixed": func(t testing.TB) *Explanation {
		r := newRecording()
		r.datagram("0123456789\n")
		raw := &capture.Interface{Kind: "udp", View: capture.ViewKernel, Layer: capture.LayerNetwork}
		r.add(&capture.Packet{Interface: raw, Data: append(ipv4Header(20), 0)})
		return r.explain(t)
	},
	"not ours": func(t testing.TB) *Explanation {
		r := newRecording()
		r.datagram("0123456789\n")
		foreign := &capture.Interface{Label: "eth0", Layer: capture.LayerLink}
		r.add(&capture.Packet{Interface: foreign, Data: make([]byte, 60)})
		r.datagram("0123456789\n")
		file := r.file(t)
		// A TTL other than the one in headers of the Writer.
		at := bytes.LastIndex(file, []byte{0x40, 0x00, 0x40, 17})
		file[at+2]++
		return explained(t, file, Options{Packets: -1})
	},
	"before its packet": func(t testing.TB) *Explanation {
		r := newRecording()
		for i, text := range []string{"one", "two", "three"} {
			r.datagram(text)
			if r.read(udpUser, uint64(i+1), text); i == 1 {
				r.packets[3].Time = noon - 5
			}
		}
		return r.explain(t)
	},
	"not ours alone": func(t testing.TB) *Explanation {
		r := newRecording()
		r.datagram("0123456789\n")
		file := r.file(t)
		file[bytes.LastIndex(file, []byte{0x40, 0x00, 0x40, 17})+2]++
		return explained(t, file, Options{Packets: -1})
	},
	"frames": func(t testing.TB) *Explanation {
		r := newRecording()
		for _, view := range []capture.View{capture.ViewKernel, capture.ViewNet, capture.ViewLink} {
			i := &capture.Interface{Kind: "packet", View: view, Layer: capture.LayerLink}
			data := append(make([]byte, 12), 8, 0)
			data = append(append(data, ipv4Header(24)...), "data"...)
			if view == capture.ViewNet {
				i.Layer, data = capture.LayerNetwork, data[14:]
			}
			r.add(&capture.Packet{Interface: i, ID: 1, Data: data})
		}
		return explained(t, r.file(t), Options{})
	},
	// A short frame is padded, and a packet socket without link header does not get the
	// padding.
	"padding": func(t testing.TB) *Explanation {
		r := newRecording()
		kernel := &capture.Interface{Kind: "packet", View: capture.ViewKernel, Layer: capture.LayerLink}
		data := append(make([]byte, 12), 8, 0)
		data = append(append(data, ipv4Header(24)...), "data"...)
		r.add(&capture.Packet{Interface: kernel, ID: 1, Data: append(data, make([]byte, 22)...)})
		r.read(messages("packet", capture.ViewUser), 1, string(data[14:]))
		return r.explain(t)
	},
	"long": func(t testing.TB) *Explanation {
		r := newRecording()
		r.datagram(strings.Repeat("0123456789", 40)).Time = 0
		p := r.datagram(strings.Repeat("0123456789", 40))
		p.Data = p.Data[:200]
		r.read(udpUser, 1, strings.Repeat("0123456789", 30)).Time = noon
		return r.explain(t)
	},
	// A buffer of size 0 gets nothing of a non-empty message, and its reads come before
	// their packets.
	"no room": func(t testing.TB) *Explanation {
		r := newRecording()
		for i, text := range []string{"a", "b"} {
			r.datagram(text).Time = noon + 9000
			r.read(udpUser, uint64(i+1), text[:i]).Time = noon
		}
		r.datagram("c")
		r.read(udpUser, 3, "")
		return r.explain(t)
	},
	"views": func(t testing.TB) *Explanation {
		r := newRecording()
		below := func(headers int) {
			kernel := r.packets[len(r.packets)-1]
			r.add(&capture.Packet{Interface: tcpNet, ID: kernel.ID, Protocol: header.ProtocolTCP, Data: append(ipv4Header(headers+len(kernel.Data)), kernel.Data...)})
		}
		r.segment(1000, header.ACK, "abcd")
		below(20)
		r.read(tcpUser, 1, "abcd")
		r.segment(1004, header.ACK, "efgh")
		below(20)
		r.packets[len(r.packets)-1].Data[30] ^= 1
		return r.explain(t)
	},
}

// messages is an interface of messages, the same for the same names.
func messages(kind string, view capture.View) *capture.Interface {
	i, _ := messageInterfaces.LoadOrStore(kind+view.String(), &capture.Interface{Kind: kind, View: view, Layer: capture.LayerMessage})
	return i.(*capture.Interface)
}

var messageInterfaces sync.Map

// ipv4Header is one for a UDP datagram.
func ipv4Header(length int) []byte {
	return []byte{0x45, 0, 0, byte(length), 0, 0, 0x40, 0, 0x40, header.ProtocolUDP, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1}
}
