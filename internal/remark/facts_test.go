package remark

import (
	"reflect"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
)

var (
	kernelView = &capture.Interface{Kind: "udp", View: capture.ViewKernel}
	userView   = &capture.Interface{Kind: "udp", View: capture.ViewUser}
	dropView   = &capture.Interface{Kind: "udp", View: capture.ViewDrop}
	selectView = &capture.Interface{Kind: "udp", View: capture.ViewSelect, Members: 4}
)

// fromKernel is a packet of 19 bytes, of which 10 were captured.
func fromKernel(v capture.Verdict, truncated bool) capture.Packet {
	return capture.Packet{Interface: kernelView, Data: make([]byte, 10), Len: 19, Verdict: v, Truncated: truncated}
}

func withFilter(p capture.Packet, now string) capture.Packet {
	p.Filter = capture.FilterChange{Changed: true, Now: now}
	return p
}

// freed is a packet of the drop view.
func freed(reason, location string, truncated bool) capture.Packet {
	p := fromKernel(capture.Verdict{}, truncated)
	p.Interface, p.Drop = dropView, capture.Drop{Reason: reason, Location: location}
	return p
}

func selection(s capture.Selection, truncated bool) capture.Packet {
	return capture.Packet{Interface: selectView, Data: make([]byte, 10), Len: 19, Selection: s, Truncated: truncated}
}

func toUser(r capture.Receipt) capture.Packet {
	return capture.Packet{Interface: userView, Call: "recvmsg", Receipt: r}
}

func withReception(r capture.Reception, length int) capture.Packet {
	p := toUser(capture.Receipt{})
	p.Reception, p.Data, p.Len = r, make([]byte, length), length
	return p
}

func peekedAt(p capture.Packet) capture.Packet {
	p.Receipt.Peeked = true
	return p
}

func ids(ranges ...[2]uint64) capture.IDs { return capture.IDs{Ranges: ranges} }

// said are the sentences in existing files: a reworded sentence must still be read in its
// old wording.
var said = map[string]capture.Packet{
	"":                                  fromKernel(capture.Verdict{}, false),
	"verdict=0 (dropped by the filter)": fromKernel(capture.Verdict{Dropped: true}, false),
	"verdict=12 of 19 (truncated by the filter)":                                       fromKernel(capture.Verdict{Keep: 12, Of: 19}, false),
	"cut to 10 of 19 bytes by the snaplen":                                             fromKernel(capture.Verdict{}, true),
	"verdict=12 of 19 (truncated by the filter); cut to 10 of 19 bytes by the snaplen": fromKernel(capture.Verdict{Keep: 12, Of: 19}, true),
	"verdict=0 (dropped by the filter); cut to 10 of 19 bytes by the snaplen":          fromKernel(capture.Verdict{Dropped: true}, true),

	"from here on the socket has no filter of its own": withFilter(fromKernel(capture.Verdict{}, false), ""),
	"from here on the socket has a filter of its own: classic filter of 1 instruction (1,6 0 0 0), asked afterwards what it had decided; verdict=0 (dropped by the filter, asked afterwards)": withFilter(fromKernel(capture.Verdict{Dropped: true, Asked: true}, false), "classic filter of 1 instruction (1,6 0 0 0), asked afterwards what it had decided"),
	"from here on the socket has a filter: eBPF filter 12, the tap of a capture that has ended, with a classic filter inside":                                                                 withFilter(fromKernel(capture.Verdict{}, false), "eBPF filter 12, the tap of a capture that has ended, with a classic filter inside"),
	"dropped by the kernel: SOCKET_RCVBUFF (in udp_queue_rcv_one_skb)":                                                                                                                        freed("SOCKET_RCVBUFF", "udp_queue_rcv_one_skb", false),
	"dropped by the kernel: 0x10003": freed("0x10003", "", false),
	"dropped by the kernel: NO_SOCKET (in f.isra.0); cut to 10 of 19 bytes by the snaplen": freed("NO_SOCKET", "f.isra.0", true),

	"the filter could not be asked about this packet":                                       fromKernel(capture.Verdict{Unasked: true}, false),
	"the filter could not be asked about this packet; cut to 10 of 19 bytes by the snaplen": fromKernel(capture.Verdict{Unasked: true}, true),
	"verdict=0 (dropped by the filter, asked afterwards)":                                   fromKernel(capture.Verdict{Dropped: true, Asked: true}, false),
	"verdict=12 of 19 (truncated by the filter, asked afterwards)":                          fromKernel(capture.Verdict{Keep: 12, Of: 19, Asked: true}, false),
	"its filter, asked afterwards, would have dropped this":                                 toUser(capture.Receipt{Belied: true, Denied: true}),
	"its filter, asked afterwards, would have let another part of this through":             toUser(capture.Receipt{Belied: true}),

	"peeked at (MSG_PEEK), and left in the queue":                                                      toUser(capture.Receipt{Peeked: true}),
	"peeked at (MSG_PEEK), and left in the queue; recvmsg: connection refused":                         toUser(capture.Receipt{Peeked: true, Errno: syscall.ECONNREFUSED}),
	"peeked at (MSG_PEEK), and left in the queue; end of stream":                                       toUser(capture.Receipt{Peeked: true, End: true}),
	"the tap has no record of the packet that brought this":                                            toUser(capture.Receipt{Missing: capture.MissingPacket}),
	"the tap lost packets about here, and several have these bytes":                                    toUser(capture.Receipt{Missing: capture.MissingAmbiguous}),
	"the tap has no record of this stream":                                                             toUser(capture.Receipt{Missing: capture.MissingStream}),
	"more packets waited to be read than are kept, and what brought this may be among those forgotten": toUser(capture.Receipt{Missing: capture.MissingForgotten}),
	"the tap has no record of the segments that brought this":                                          toUser(capture.Receipt{Missing: capture.MissingSegments}),
	"the tap came after the packets that brought this":                                                 toUser(capture.Receipt{Missing: capture.MissingBeforeTap}),
	"the trace has no packet that brought this":                                                        toUser(capture.Receipt{Missing: capture.MissingInTrace}),
	"the tap came after the packets of its first 16 bytes":                                             toUser(capture.Receipt{BeforeTap: 16}),
	"the tap came after the packets of its first 16 bytes; read from packets 1-2":                      toUser(capture.Receipt{BeforeTap: 16, Fed: ids([2]uint64{1, 2})}),
	"read from packets 3, 5":                                                                           toUser(capture.Receipt{Fed: ids([2]uint64{3, 3}, [2]uint64{5, 5})}),
	"read from packets 3-4, 6 and later ones":                                                          toUser(capture.Receipt{Fed: ids([2]uint64{3, 4}, [2]uint64{6, 6}), Later: true}),
	"read from packets  and later ones":                                                                toUser(capture.Receipt{Later: true}),
	"read from packets 1, 3 and 7 ranges more, to 99 and later ones":                                   toUser(capture.Receipt{Fed: capture.IDs{Ranges: [][2]uint64{{1, 1}, {3, 3}}, More: 7, Last: 99}, Later: true}),
	"the receive queue dropped 3 before this one":                                                      toUser(capture.Receipt{QueueDropped: 3}),
	"the receive queue dropped 3 before this one: packets 4-5, 18446744073709551615":                   toUser(capture.Receipt{QueueDropped: 3, DroppedIDs: ids([2]uint64{4, 5}, [2]uint64{1<<64 - 1, 1<<64 - 1})}),
	"the receive queue dropped 90 before this one: packets 4 and 1 ranges more, to 17":                 toUser(capture.Receipt{QueueDropped: 90, DroppedIDs: capture.IDs{Ranges: [][2]uint64{{4, 4}}, More: 1, Last: 17}}),
	"cut to 4 of 1200 by the buffer":                                                                   withReception(capture.Reception{Buffer: 4, HasBuffer: true, Cut: true, Whole: 1200}, 4),
	"cut to 4 by the buffer":                                                                           withReception(capture.Reception{Buffer: 4, HasBuffer: true, Cut: true}, 4),
	"cut to 0 of 1 by the buffer":                                                                      withReception(capture.Reception{HasBuffer: true, Cut: true, Whole: 1}, 0),
	"4 datagrams of 100 bytes, the last of 50 (UDP_GRO)":                                               withReception(capture.Reception{Segment: 100}, 350),
	"2 datagrams of 100 bytes (UDP_GRO)":                                                               withReception(capture.Reception{Segment: 100}, 200),
	"peeked at (MSG_PEEK), and left in the queue; cut to 150 of 200 by the buffer; 2 datagrams of 100 bytes, the last of 50 (UDP_GRO)": peekedAt(withReception(capture.Reception{Buffer: 150, HasBuffer: true, Cut: true, Whole: 200, Segment: 100}, 150)),
	"1 descriptor came with it (SCM_RIGHTS)":                                             withReception(capture.Reception{Controls: []capture.Control{{Level: 1, Type: 1, Len: 4}}}, 4),
	"253 descriptors came with it (SCM_RIGHTS); its ancillary data was cut (MSG_CTRUNC)": withReception(capture.Reception{Flags: unix.MSG_CTRUNC, Controls: []capture.Control{{Level: 1, Type: 1, Len: 4 * 253}}}, 4),
	"sent in packets 7-9":     toUser(capture.Receipt{Packets: ids([2]uint64{7, 9})}),
	"sent in packets 7-9, 11": toUser(capture.Receipt{Packets: ids([2]uint64{7, 9}, [2]uint64{11, 11})}),
	"sent in packets 7 and 3 ranges more, to 99, as far as is known":                 toUser(capture.Receipt{Packets: capture.IDs{Ranges: [][2]uint64{{7, 7}}, More: 3, Last: 99}, Partly: true}),
	"sent in packet 7; of its bytes 1200 had not left when the call returned":        toUser(capture.Receipt{Packets: ids([2]uint64{7, 7}), Waiting: 1200}),
	"of its bytes 11 had not left when the call returned":                            toUser(capture.Receipt{Waiting: 11}),
	"chose socket 2 of 4 (cookie 330910)":                                            selection(capture.Selection{Sockets: 4, How: capture.SelectorProgram, Socket: 2, Cookie: 330910}, false),
	"chose socket 0 of 1 (cookie 0); cut to 10 of 19 bytes by the snaplen":           selection(capture.Selection{Sockets: 1, How: capture.SelectorProgram}, true),
	"SK_DROP: none of the 4 sockets gets this":                                       selection(capture.Selection{Sockets: 4, How: capture.SelectorDrop}, false),
	"left to the kernel's hash, which takes one of 4 sockets":                        selection(capture.Selection{Sockets: 4, How: capture.SelectorHash}, false),
	"asked for socket 7 of 4 in vain (ENOENT), so the kernel's hash takes one":       selection(capture.Selection{Sockets: 4, How: capture.SelectorHash, Refused: true, Asked: 7, Errno: syscall.ENOENT}, false),
	"asked for socket 4294967295 of 4 in vain (524), so the kernel's hash takes one": selection(capture.Selection{Sockets: 4, How: capture.SelectorHash, Refused: true, Asked: 1<<32 - 1, Errno: 524}, false),
	"asked for socket 9 of 4 in vain, so the kernel's hash takes one":                selection(capture.Selection{Sockets: 4, How: capture.SelectorHash, Refused: true, Asked: 9}, false),
	"chose one of 4 sockets, and it is not known which one":                          selection(capture.Selection{Sockets: 4}, false),
	"end of stream":                             toUser(capture.Receipt{End: true}),
	"the peer reset the connection":             toUser(capture.Receipt{Errno: syscall.ECONNRESET}),
	"recvmsg: connection refused":               toUser(capture.Receipt{Errno: syscall.ECONNREFUSED}),
	"recvmsg: resource temporarily unavailable": toUser(capture.Receipt{Errno: syscall.EAGAIN}),
	"recvmsg: errno 41":                         toUser(capture.Receipt{Errno: 41}),
	"recvmsg: errno 530":                        toUser(capture.Receipt{Errno: 530}),
}

// unsaid is a packet without its facts.
func unsaid(p capture.Packet, comment string) *capture.Packet {
	p.Drop, p.Verdict, p.Truncated, p.Receipt, p.Reception, p.Comment = capture.Drop{}, capture.Verdict{}, false, capture.Receipt{}, capture.Reception{}, comment
	p.Filter = capture.FilterChange{}
	p.Selection = capture.Selection{}
	return &p
}

// The sentences are read back, whatever text of others precedes or follows them.
func TestFactsComeBack(t *testing.T) {
	t.Parallel()
	for text, p := range said {
		if got := Facts(&p); got != text || HasFacts(&p) != (text != "") {
			t.Errorf("%+v is %q, want %q", p, got, text)
		}
		if text == "" {
			continue
		}
		for _, others := range []string{"", "; note", "\nnote", "\na note\nand more", "note", "task nc-1, cpu 0", "a; b", "a note\n", "a\nb\n", "\n", "; ", "a; ", "a\n\nb", "a; ; b", "a; \nb", "a\n; "} {
			want := p
			want.Comment = others
			written := Facts(&want)
			read := unsaid(p, written)
			if CutFacts(read); !reflect.DeepEqual(read, &want) {
				t.Errorf("%q is read as %+v, want %+v", written, read, want)
			}
		}
	}
}

// Comments of others keep their position.
func TestFactsAmongOthers(t *testing.T) {
	t.Parallel()
	const said = "verdict=0 (dropped by the filter)"
	for _, test := range []struct{ comment, rest string }{
		{said + "\nnote", "\nnote"},
		{"note\n" + said, "note\n"},
		{"note; " + said, "note"},
		{said + "; note", "; note"},
		{"a\n" + said + "\nb", "a\n\nb"},
		{"a; " + said + "\nb", "a; \nb"},
		{"a; " + said + "; b", "a; ; b"},
		{"a\n" + said + "; b", "a\n; b"},
	} {
		p := unsaid(fromKernel(capture.Verdict{}, false), test.comment)
		CutFacts(p)
		if again := Facts(p); !p.Verdict.Dropped || p.Comment != test.rest || again != test.comment {
			t.Errorf("%q is read as %q, and written as %q", test.comment, p.Comment, again)
		}
	}
}

// A sentence that differs in any way from ours is somebody else's.
func TestForeignSentences(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"verdict=", "verdict=1", "verdict=0", "verdict=-1 of 19 (truncated by the filter)", "verdict=012 of 19 (truncated by the filter)",
		"verdict=12 of 0 (truncated by the filter)", "verdict=4294967296 of 19 (truncated by the filter)", "verdict=0 (dropped by the filter) ",
		"cut to 10 of 20 bytes by the snaplen", "cut to 11 of 19 bytes by the snaplen", "cut to 10 of 19 bytes", "end of stream", "\n\n; ; \n",
		"from here on the socket has a filter of its own: ", "from here on the socket has no filter",
		"from here on the socket has a filter: classic filter of 1 instruction", "from here on the socket has a filter of its own: eBPF filter 12, the tap of another ebpfdump",
		"from here on the socket has a filter: eBPF filter 12 (x), loaded by uid 0, the tap of another ebpfdump",
	} {
		p := unsaid(fromKernel(capture.Verdict{}, false), text)
		if CutFacts(p); HasFacts(p) || p.Comment != text {
			t.Errorf("%q is read as %+v", text, p)
		}
	}
	for _, text := range []string{
		"dropped by the kernel: ", "dropped by the kernel", "dropped by the kernel: A B", "dropped by the kernel: A (in )", "dropped by the kernel: A (in b",
		"dropped by the kernel: A (in b c)", "dropped by the kernel: (in b)", "dropped by the kernel: A) (in b)", "dropped by the kernel: A (in b) (in c)", "dropped by the kernel: ä", "dropped by the kernel: " + strings.Repeat("A", kernelName+1),
	} {
		p := unsaid(freed("", "", false), text)
		if CutFacts(p); HasFacts(p) || p.Comment != text {
			t.Errorf("%q is read as %+v", text, p)
		}
	}
	for _, text := range []string{
		"dropped by the kernel: A", // in another view
		"verdict=0 (dropped by the filter)", "peeked at", "read from packets ", "read from packets 1-1", "read from packets 2-1", "read from packets 1,2",
		"read from packets 1 and 0 ranges more, to 3", "read from packets 1 and x ranges more, to 3", "read from packets x", "read from packets 01",
		"read from packets 18446744073709551616", "sent in packets ", "sent in packets 7", "sent in packet 7-9", "sent in packet 7, as far as", "sent in packets 9-7",
		"of its bytes 0 had not left when the call returned", "of its bytes 9223372036854775808 had not left when the call returned",
		"read from packets " + strings.Repeat("1, ", parsedRanges) + "1",
		"the receive queue dropped 0 before this one", "the receive queue dropped 3 before this one: packets ", "the receive queue dropped 3: packets 7",
		"the tap came after the packets of its first 0 bytes", "the tap came after the packets of its first 9223372036854775808 bytes",
		"recvmsg: ", "recvmsg: errno 111", "recvmsg: errno 0", "recvmsg: errno 0530", "recvmsg: no such error", "recvmsg: connection reset by peer",
		"recvfrom: connection refused", ": connection refused",
	} {
		p := unsaid(toUser(capture.Receipt{}), text)
		if CutFacts(p); HasFacts(p) || p.Comment != text {
			t.Errorf("%q is read as %+v", text, p)
		}
	}
	// Packets that belong to no view of a socket have no facts.
	p := &capture.Packet{Interface: &capture.Interface{Label: "eth0"}, Comment: "end of stream"}
	if CutFacts(p); HasFacts(p) {
		t.Errorf("%+v", p)
	}
}

// Every reason for a missing packet id, a constant of capture, has its sentence here.
func TestEveryReasonHasASentence(t *testing.T) {
	t.Parallel()
	seen := make(map[string]capture.Missing)
	for reason := capture.NotMissing + 1; reason < capture.MissingReasons; reason++ {
		text := missing[reason]
		if other, known := seen[text]; known || text == "" || strings.Contains(text, between) {
			t.Errorf("reason %d is %q, as is %d", reason, text, other)
		}
		seen[text] = reason
	}
}

func TestErrorsComeBack(t *testing.T) {
	t.Parallel()
	for errno := syscall.Errno(1); errno < 600; errno++ {
		p := toUser(capture.Receipt{Errno: errno})
		read := unsaid(p, Facts(&p))
		if CutFacts(read); !reflect.DeepEqual(read, &p) {
			t.Errorf("%q is read as %+v", Facts(&p), read)
		}
	}
}

// The longest lists fit into what the writer reserves.
func TestFactsSize(t *testing.T) {
	t.Parallel()
	long := capture.IDs{More: 1<<31 - 1, Last: 1<<64 - 1}
	for range parsedRanges {
		long.Ranges = append(long.Ranges, [2]uint64{1<<64 - 2, 1<<64 - 1})
	}
	p := toUser(capture.Receipt{
		Peeked: true, BeforeTap: 1<<63 - 1, Missing: capture.MissingAmbiguous, Fed: long, Later: true, QueueDropped: 1<<64 - 1, DroppedIDs: long, Packets: long, Partly: true, Waiting: 1<<63 - 1, End: true, Errno: syscall.EILSEQ,
	})
	p.Len = 1<<32 - 2
	p.Reception = capture.Reception{
		Buffer: 1<<32 - 2, HasBuffer: true, Cut: true, Whole: 1<<32 - 1, Segment: 1<<31 + 1, Flags: unix.MSG_CTRUNC,
		Controls: []capture.Control{{Level: unix.SOL_SOCKET, Type: unix.SCM_RIGHTS, Len: 4 << 16}},
	}
	if n := len(Facts(&p)); n >= FactsSize {
		t.Errorf("%d bytes", n)
	}
	read := unsaid(p, Facts(&p))
	if CutFacts(read); !reflect.DeepEqual(read, &p) {
		t.Errorf("%q is read as %+v", Facts(&p), read)
	}
}

// All facts of either side together are read back, with the comment of others.
func FuzzFacts(f *testing.F) {
	f.Add(true, "note", "recvmsg", uint16(0xffff), uint64(12), uint64(19), uint8(3), uint16(111), uint64(4), uint64(2), uint64(9))
	f.Add(false, "\nnote", "", uint16(0), uint64(0), uint64(0), uint8(0), uint16(0), uint64(0), uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, kernel bool, comment, call string, flags uint16, a, b uint64, reason uint8, errno uint16, first, length, last uint64) {
		p := toUser(capture.Receipt{})
		p.Call = call
		flag := func(n int) bool { return flags>>n&1 != 0 }
		list := capture.IDs{Ranges: [][2]uint64{{first, max(first, first+length)}, {last, last}}, More: int(length >> 40), Last: last}
		if list.More == 0 {
			list.Last = 0
		}
		if kernel {
			p = fromKernel(capture.Verdict{Dropped: flag(0), Keep: uint32(a), Of: uint32(b)}, flag(1))
			if p.Verdict.Of == 0 {
				p.Verdict.Keep = 0
			}
			if flag(2) {
				p = withFilter(p, strings.Trim(call, ";\n"))
				if strings.ContainsAny(call, ";\n") {
					p.Filter.Now = ""
				}
			}
		} else {
			p.Receipt = capture.Receipt{
				Peeked: flag(0), End: flag(1), Later: flag(2), Missing: capture.Missing(reason) % capture.MissingReasons, BeforeTap: int64(a >> 1), QueueDropped: b,
			}
			if flag(3) {
				p.Receipt.Fed = list
			}
			if flag(9) {
				p.Receipt.Packets, p.Receipt.Partly = list, flag(10)
			}
			if flag(11) {
				p.Receipt.Waiting = int64(b >> 1)
			}
			if flag(4) && b > 0 {
				p.Receipt.DroppedIDs = list
			}
			p.Reception = receptionOf(flag, a, b)
			if call != "" && !strings.ContainsAny(call, ";\n") {
				p.Receipt.Errno = syscall.Errno(errno)
			}
		}
		p.Comment = comment
		alone := unsaid(p, comment)
		if CutFacts(alone); HasFacts(alone) {
			return // others have said such a sentence
		}
		read := unsaid(p, Facts(&p))
		if CutFacts(read); !reflect.DeepEqual(read, &p) {
			t.Errorf("%q is read as %+v, want %+v", Facts(&p), read, p)
		}
	})
}

// receptionOf has what sentences say of a Reception, for a packet without bytes.
func receptionOf(flag func(int) bool, a, b uint64) (r capture.Reception) {
	if flag(5) {
		r = capture.Reception{Buffer: uint32(a), HasBuffer: true, Cut: true}
		if whole := uint32(b); whole > r.Buffer {
			r.Whole = whole
		}
	}
	if n := uint32(a % 255); flag(6) && n > 0 {
		r.Controls = []capture.Control{{Level: unix.SOL_SOCKET, Type: unix.SCM_RIGHTS, Len: 4 * n}}
	}
	if flag(7) {
		r.Flags = unix.MSG_CTRUNC
	}
	return r
}

// For any comment, writing the facts again restores what was cut out, and nothing else is
// lost.
func FuzzCutFacts(f *testing.F) {
	for text, p := range said {
		f.Add(text, p.Interface == userView)
		f.Add("a; "+text+"\nb", p.Interface == userView)
	}
	f.Fuzz(func(t *testing.T, comment string, user bool) {
		p := fromKernel(capture.Verdict{}, false)
		if user {
			p = toUser(capture.Receipt{})
		}
		p.Comment = comment
		CutFacts(&p)
		if !HasFacts(&p) {
			if p.Comment != comment {
				t.Errorf("%q became %q", comment, p.Comment)
			}
			return
		}
		said := string(appendSentences(nil, &p))
		if !strings.Contains(comment, said) || len(comment)-len(said)-len(p.Comment) > len(between) {
			t.Errorf("%q is read as %q and %q", comment, p.Comment, said)
		}
		for _, behind := range []string{between, "\n"} {
			if strings.HasPrefix(comment, said+behind) && Facts(&p) != comment {
				t.Errorf("%q is written as %q", comment, Facts(&p))
			}
		}
	})
}
