package explain

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// peers is a capture of datagrams that come from several peers by turns. Every third one is dropped by
// the filter, the others are read.
func peers(packets, peers int, payload string) *recording {
	r := newRecording()
	for i := range packets {
		src := netip.AddrPortFrom(client.Addr(), uint16(4000+i%peers))
		p := r.datagram(payload)
		p.Src = src
		binary.BigEndian.PutUint16(p.Data, src.Port())
		if p.Verdict.Dropped = i%3 == 2; !p.Verdict.Dropped {
			r.read(udpUser, p.ID, payload).Src = src
		}
	}
	return r
}

// Packets stand with their connection, and what is counted of a connection is what its packets are.
func TestConnections(t *testing.T) {
	t.Parallel()
	e := explained(t, peers(40, 4, "0123456789\n").file(t), Options{Packets: -1})
	all := e.only(t).Connections
	equal(t, "connections", len(all), 4)
	equal(t, "groups", len(e.groups), 4)
	for i, c := range all {
		equal(t, "remote", c.Remote, fmt.Sprint("127.0.0.1:", 4000+i))
		equal(t, "local", c.Local, server.String())
		equal(t, "arrived", c.Arrived.Packets, 10)
		equal(t, "read or dropped", c.Reads+c.Dropped.Packets, 10)
		equal(t, "bytes", c.BytesRead, 11*c.Reads)
		var shown, drawn uint64
		for _, g := range e.groups[i].packets {
			equal(t, "whose packet it is", g.src.String(), c.Remote)
			shown++
		}
		equal(t, "shown", shown, 10)
		for l, want := range [laneCount]uint64{laneArrived: 10, laneRead: c.Reads, laneDropped: c.Dropped.Packets} {
			drawn = 0
			for _, n := range e.groups[i].line.columns(lane(l), (&printer{columns: Columns}).cells()) {
				drawn += n
			}
			equal(t, lane(l).String(), drawn, want)
		}
	}
	equal(t, "first", all[1].First, 2000)
	// Both directions are of one connection.
	both := scenes["both directions"](t)
	equal(t, "connections", len(both.only(t).Connections), 1)
	equal(t, "sent", both.only(t).Connections[0].Sent.Packets, 5)
}

// Of many connections some are shown: those in which most was lost before others.
func TestManyConnections(t *testing.T) {
	t.Parallel()
	r := peers(2*talksLimit, 2*talksLimit, "0123456789\n")
	file := r.file(t)
	for _, tt := range []struct{ most, want int }{{0, DefaultConnections}, {3, 3}, {-1, talksLimit + 1}} {
		e := explained(t, file, Options{Connections: tt.most})
		equal(t, "connections", len(e.only(t).Connections), talksLimit)
		equal(t, "further", e.only(t).Further.Arrived.Packets, talksLimit)
		equal(t, "groups", len(e.groups), tt.want)
		for _, g := range e.groups {
			if tt.most >= 0 && g.lost() == 0 {
				t.Errorf("%s lost nothing, and others have", g.name())
			}
		}
		checkText(t, text(t, e, false))
	}
	e := explained(t, file, Options{Packets: 50, Choice: Choice{IDs: [][2]uint64{{5, 5}}}})
	equal(t, "groups", len(e.groups), 1)
	equal(t, "left", e.left, "")
}

// A page of 10,000 packets names all of them, has the bytes of those that were lost before others, and is
// shorter than two million bytes.
func TestLargePage(t *testing.T) {
	t.Parallel()
	e := explained(t, peers(10000, 300, strings.Repeat("0123456789", 20)).file(t), Options{Packets: -1})
	page := pageOf(t, e)
	checkPage(t, page)
	if len(page) > 2_000_000 {
		t.Errorf("%d bytes", len(page))
	}
	_, page, _ = strings.Cut(page, "Connection by connection")
	equal(t, "packets", strings.Count(page, "<li><details ")+strings.Count(page, "<li><b>")+strings.Count(page, `<li class="warn"><b>`), 10000)
	whole := regexp.MustCompile(`<details class="packet"><summary><b( class="warn")?>packet`).FindAllStringSubmatch(page, -1)
	if len(whole) < 100 {
		t.Errorf("the bytes of %d packets", len(whole))
	}
	for _, w := range whole {
		if w[1] == "" {
			t.Fatal("there are the bytes of a packet that arrived, and not of all that did not")
		}
	}
	wants(t, page, fmt.Sprintf("There is room for the bytes of %d of 10,000 packets", len(whole)))
	// So it is with many connections.
	if page := pageOf(t, explained(t, peers(10000, 5000, "0123456789\n").file(t), Options{Packets: -1, Connections: -1})); len(page) > 2_000_000 {
		t.Errorf("%d bytes", len(page))
	}
	// A small one has all of them, opened.
	small := pageOf(t, explained(t, peers(50, 3, "0123456789\n").file(t), Options{Packets: -1}))
	equal(t, "opened", strings.Count(small, `<details class="packet" open="open">`), 50)
}

// The heading says who talks to whom. On lo both ends are here: a packet goes out there before it comes in. Where packets
// only go out, its addresses are those of what would come.
func TestHeadings(t *testing.T) {
	t.Parallel()
	frames, sends := &capture.Interface{Kind: "packet", View: capture.ViewKernel, Layer: capture.LayerLink}, *udpSent
	in, out := capture.Inbound, capture.Outbound
	type step struct {
		on        *capture.Interface
		direction capture.Direction
		answers   bool
	}
	const asks, answers = "127.0.0.1:52638 > 127.0.0.1:16962", "127.0.0.1:16962 > 127.0.0.1:52638"
	for name, tt := range map[string]struct {
		steps  []step
		want   string
		remote netip.AddrPort
	}{
		"on lo":                    {[]step{{frames, out, false}, {frames, in, false}, {frames, out, true}, {frames, in, true}}, "packet " + asks, client},
		"of a client on eth0":      {[]step{{frames, out, false}, {frames, in, true}}, "packet " + asks, server},
		"of a server on eth0":      {[]step{{frames, in, false}, {frames, out, true}}, "packet " + asks, client},
		"what goes out":            {[]step{{frames, out, false}}, "packet " + asks, server},
		"both ends":                {[]step{{&sends, out, false}, {udpKernel, in, false}, {&sends, out, true}, {udpKernel, in, true}}, "udp " + asks, client},
		"a client that sends":      {[]step{{&sends, out, false}, {udpKernel, in, true}}, "udp " + answers, server},
		"a client without answers": {[]step{{&sends, out, false}}, "udp " + answers, server},
	} {
		r := newRecording()
		for _, at := range tt.steps {
			p := r.datagram("0123456789\n")
			p.Interface, p.Direction = at.on, at.direction
			if at.answers {
				p.Src, p.Dst = server, client
				binary.BigEndian.PutUint16(p.Data, server.Port())
				binary.BigEndian.PutUint16(p.Data[2:], client.Port())
			}
			if at.on == frames {
				p.Data = append(append(append(make([]byte, 12), 8, 0), ipv4Header(20+len(p.Data))...), p.Data...)
				p.Len = len(p.Data)
			}
			if at.on == &sends {
				p.ID, p.Call, p.Data, p.Len = 0, "sendto", p.Data[8:], p.Len-8
			}
		}
		e := r.explain(t)
		equal(t, name+": connections", len(e.groups), 1)
		equal(t, name, e.groups[0].name(), tt.want)
		equal(t, name+": remote", e.only(t).Connections[0].Remote, tt.remote.String())
		wants(t, text(t, e, false), tt.want+"\n")
	}
}

// A file with one id for all packets costs no more than another.
func TestSameIDs(t *testing.T) {
	t.Parallel()
	r := peers(3*sameIDs, 3*sameIDs, "0123456789\n")
	for _, p := range r.packets {
		p.ID = 1
	}
	for _, s := range r.explain(t).Report.Sockets {
		equal(t, "packets", s.Packets, 3*sameIDs)
	}
	s := &socket{open: make(map[uint64]*entry)}
	for range 3 * sameIDs {
		s.opens(&entry{id: 1, first: udpKernel})
	}
	n := 0
	for e := s.open[1]; e != nil; e = e.older {
		n++
	}
	equal(t, "remembered", n, sameIDs)
	for s.open[1] != nil {
		s.closes(s.open[1])
		n--
	}
	equal(t, "forgotten at once", n, sameIDs-1)
}

// Captures that mergecap has put together have the same ids: each packet has its own reads, by addresses.
func TestMergedCaptures(t *testing.T) {
	t.Parallel()
	for _, captures := range []int{2, 3} {
		r := newRecording()
		for round := range 3 { // by turns, as by their times
			for i := range captures {
				r.ids = uint64(round)
				p := r.datagram(fmt.Sprintf("%d of %d", round, i))
				p.Src = netip.AddrPortFrom(client.Addr(), uint16(4000+i))
				binary.BigEndian.PutUint16(p.Data, p.Src.Port())
			}
			for i := range captures {
				r.read(udpUser, uint64(round+1), fmt.Sprintf("%d of %d", round, i)).Src = netip.AddrPortFrom(client.Addr(), uint16(4000+i))
			}
		}
		r.datagram("dropped").Src = netip.AddrPortFrom(client.Addr(), 4000)
		r.datagram("of another").Src = netip.AddrPortFrom(client.Addr(), 4001)
		r.packets[len(r.packets)-1].ID = r.ids - 1
		p := r.freed(capture.Inbound, r.packets[len(r.packets)-2], "SOCKET_RCVBUFF")
		p.Src = netip.AddrPortFrom(client.Addr(), 4000)
		for i := range r.packets {
			if d := r.packets[i]; d.Interface == udpKernel {
				binary.BigEndian.PutUint16(d.Data, d.Src.Port())
			}
		}
		copy(p.Data[20:], r.packets[len(r.packets)-3].Data)
		e := r.explain(t)
		s := e.only(t)
		equal(t, "not sure", s.Ambiguous.Packets, 0)
		equal(t, "same", s.Comparison.Same, uint64(3*captures))
		equal(t, "connections", len(s.Connections), captures)
		equal(t, "dropped", s.Connections[0].Dropped.Packets, 1)
		equal(t, "dropped of another", s.Connections[1].Dropped.Packets, 0)
		for _, c := range s.Connections {
			equal(t, "reads", c.Reads, 3)
		}
	}
}

// The second of two captures has no kernel view: what it has of packets is none of those of the first, whatever ids they have.
func TestMergedWithoutKernelView(t *testing.T) {
	t.Parallel()
	for name, segments := range map[string]int{"of the first": 1, "of both": 2} {
		r := newRecording()
		for range segments {
			r.segment(uint32(1000+r.ids), header.ACK, "0")
		}
		r.read(tcpUser, 1, strings.Repeat("0", segments))
		r.ids = 0
		other := netip.AddrPortFrom(client.Addr(), 4001)
		for range 2 {
			p := r.unseen(r.segment(uint32(5000+r.ids), header.ACK, "1"))
			p.Src = other
			binary.BigEndian.PutUint16(p.Data, other.Port())
			r.hooked(capture.Inbound, p).Src = other
			r.read(tcpUser, p.ID, "1").Src = other
		}
		s := r.explain(t).only(t)
		equal(t, name+": disagree", s.view("cgroup").Disagree, 0)
		equal(t, name+": same", s.Comparison.Same, 3)
		equal(t, name+": late", s.Losses.Late, 0)
		equal(t, name+": not in the kernel view", s.Cgroup.Alone.Packets, 0)
		equal(t, name+": connections", len(s.Connections), 2)
		equal(t, name+": arrived", s.Connections[0].Arrived.Packets, uint64(segments))
		equal(t, name+": arrived at the second", s.Connections[1].Arrived.Packets, 2)
		for i, c := range s.Connections {
			equal(t, name+": reads", c.Reads, uint64(1+i))
			equal(t, name+": bytes read", c.BytesRead, []uint64{uint64(segments), 2}[i])
		}
	}
}

// Of a capture that mergecap has put together with itself, it is not certain what the reads belong to: nothing
// is said to be left unread.
func TestMergedWithItself(t *testing.T) {
	t.Parallel()
	merged := func(copies int) *Explanation {
		r := newRecording()
		for range copies {
			r.ids = 0
			r.datagram("read")
			r.datagram("left")
		}
		for range copies {
			r.read(udpUser, 1, "read")
		}
		return r.explain(t)
	}
	for copies, unread := range []uint64{1: 1, 2: 0} {
		if copies == 0 {
			continue
		}
		e := merged(copies)
		s := e.only(t)
		equal(t, "connections", len(s.Connections), 1)
		equal(t, "not sure", s.Ambiguous.Packets > 0, copies > 1)
		equal(t, "left unread", s.Connections[0].Unread.Packets, unread)
		equal(t, "at the end", s.Undelivered.AtEnd.Packets, unread)
		equal(t, "passed over", s.Undelivered.PassedOver.Packets, 0)
		equal(t, "not known", s.Undelivered.NotKnown.Packets > 0, copies > 1)
		equal(t, "said", strings.Contains(text(t, e, false), "joined to no read: "), unread > 0)
		for _, f := range s.Findings {
			if f.Topic == "lost" && copies > 1 {
				t.Errorf("losses of which nothing is known: %s", f.Text)
			}
		}
	}
}
