package explain

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
)

// Of ten datagrams the first and the sixth were read, and three dropped by the queue: which of them
// are shown, and how many that were asked for are not.
func TestChoice(t *testing.T) {
	t.Parallel()
	r := newRecording()
	for i := range 10 {
		p := r.datagram(fmt.Sprintf("datagram %d", i+1))
		p.Src = netip.AddrPortFrom(p.Src.Addr(), uint16(4000+i%2))
		binary.BigEndian.PutUint16(p.Data, p.Src.Port())
	}
	r.read(udpUser, 1, "datagram 1").Src = r.packets[0].Src
	p := r.read(udpUser, 6, "datagram 6")
	p.Src = r.packets[5].Src
	p.Receipt, p.Drops = capture.Receipt{QueueDropped: 3, DroppedIDs: capture.IDs{Ranges: [][2]uint64{{2, 3}, {5, 5}}}}, 3
	file := r.file(t)
	from := r.packets[0].Src
	whole := explained(t, file, Options{Packets: 50})
	for _, tt := range []struct {
		choice Choice
		most   int
		want   string
		more   uint64
	}{
		{Choice{}, 3, "1-3", 7},
		{Choice{IDs: [][2]uint64{{5, 6}, {9, 9}}}, 50, "5-6, 9", 0},
		{Choice{IDs: [][2]uint64{{5, 8}}}, 2, "5-6", 2},
		{Choice{Peers: []netip.AddrPort{from}}, 50, "1, 3, 5, 7 and 1 range more", 0},
		{Choice{Peers: []netip.AddrPort{netip.AddrPortFrom(from.Addr(), 0)}}, 50, "1-10", 0},
		{Choice{Peers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1")}}, 50, "", 0},
		{Choice{Lost: true}, 50, "2-5, 7-10", 0},
		{Choice{Lost: true}, 3, "2-4", 5},
		{Choice{Lost: true, Peers: []netip.AddrPort{from}}, 50, "3, 5, 7, 9", 0},
		{Choice{Views: []capture.View{capture.ViewUser}}, 50, "1, 6", 0},
		{Choice{Views: []capture.View{capture.ViewNet}}, 50, "", 0},
	} {
		e := explained(t, file, Options{Packets: tt.most, Choice: tt.choice})
		var shown IDs
		for _, g := range e.packets {
			shown.add(g.id)
		}
		if shown.String() != tt.want || e.omitted.total() != tt.more {
			t.Errorf("%+v, at most %d: packets %s and %d more, want %s and %d", tt.choice, tt.most, shown, e.omitted, tt.want, tt.more)
		}
		// The findings are about all.
		equal(t, "lost", e.Report.Sockets[0].Undelivered.lost(true), whole.Report.Sockets[0].Undelivered.lost(true))
	}
}

// What is not shown is counted as what it is: two packets, two reads that no packet of the file is joined to, and a send.
func TestLeftOut(t *testing.T) {
	t.Parallel()
	r := newRecording()
	r.datagram("shown")
	r.datagram("read")
	r.read(udpUser, 2, "read")
	r.read(udpUser, 0, "unjoined")
	r.datagram("left")
	r.send(udpSent, "sendto", "sent")
	r.read(udpUser, 0, "unjoined")
	file := r.file(t)
	for _, tt := range []struct {
		options Options
		want    string
	}{
		{Options{}, "Not shown one by one: 3 packets, 2 unjoined reads and 1 send."},
		{Options{Packets: 1}, "Left out here: 2 packets, 2 unjoined reads and 1 send more."},
		{Options{Packets: 5}, "Left out here: 1 unjoined read more."},
		{Options{Packets: 6}, ""},
		{Options{Choice: Choice{Views: []capture.View{capture.ViewUser}}}, "Not shown one by one: 1 packet and 2 unjoined reads."},
		{Options{Choice: Choice{Lost: true}}, "Not shown one by one: 2 packets."},
	} {
		e := explained(t, file, tt.options)
		equal(t, fmt.Sprintf("%+v", tt.options), e.leftOut(), tt.want)
		wants(t, strings.Join(strings.Fields(text(t, e, false)), " "), tt.want)
		wants(t, pageOf(t, e), tt.want)
	}
}
