package capture

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// departing makes packets that sockets send, and calls that have handed them over.
type departing struct {
	departures
	told uint64 // losses that the kernel has counted
	id   uint64
}

var (
	here  = netip.MustParseAddrPort("127.0.0.1:80")
	there = netip.MustParseAddrPort("127.0.0.1:4000")
)

func newDeparting() *departing {
	d := &departing{departures: *newDepartures(&Options{Views: []View{ViewSent, ViewCgroup}})}
	d.lost = func() uint64 { return d.told }
	return d
}

func (d *departing) segment(cookie uint64, seq uint32, flags byte, size int) {
	b := make([]byte, 20)
	binary.BigEndian.PutUint32(b[4:], seq)
	b[12], b[13] = 5<<4, flags
	d.id++
	rec := bpf.Record{RecordHeader: bpf.RecordHeader{Cookie: cookie, Len: uint32(20 + size)}, Data: b}
	d.saw(&Packet{ID: d.id, Src: here, Dst: there, Protocol: unix.IPPROTO_TCP}, &rec, &kindTCP)
}

func (d *departing) send(cookie uint64, seq uint32, size int) *Receipt {
	of := delivery{route: &route{kind: &kindTCP}}
	of.Cookie, of.Seq, of.Full = cookie, seq, size
	p := Packet{Src: here, Dst: there}
	d.name(&p, &of, true)
	return &p.Receipt
}

func (d *departing) datagram(cookie uint64, time int64, text string) {
	d.id++
	data := append(make([]byte, 8), text...)
	rec := bpf.Record{RecordHeader: bpf.RecordHeader{Cookie: cookie, Time: uint64(time), Len: uint32(len(data)), Caplen: uint32(len(data))}, Data: data}
	d.saw(&Packet{ID: d.id, Src: here, Dst: there, Protocol: unix.IPPROTO_UDP}, &rec, &kindUDP)
}

func (d *departing) sendTo(cookie uint64, began, ended int64, tid uint32, call, text string) *Receipt {
	of := delivery{route: &route{kind: &kindUDP}, began: began, tid: tid, call: call}
	of.Cookie, of.Time, of.Data, of.Full, of.To = cookie, ended, []byte(text), len(text), there
	p := Packet{}
	d.name(&p, &of, false)
	return &p.Receipt
}

var kindTCP, kindUDP = *kindOf(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP), *kindOf(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDP)

func saidOf(r *Receipt) string {
	return fmt.Sprintf("%v +%d %v %v", r.Packets.Ranges, r.Packets.More, r.Waiting, r.Partly)
}

// Sequence numbers tell what is in which segment, over their end and whatever is sent again; what is
// lost makes nobody say more than is known.
func TestDepartedSegments(t *testing.T) {
	t.Parallel()
	const syn, ack, begin = 0x02, 0x10, 1<<32 - 151 // the numbers wrap around
	at := func(n int) uint32 { return uint32(uint64(begin) + 1 + uint64(n)) }
	d := newDeparting()
	for _, step := range []struct {
		name string
		do   func()
		seq  int
		size int
		want string
	}{
		{"nothing is known of it", func() {}, 0, 10, "[] +0 0 false"},
		{"only the handshake has left", func() { d.segment(1, begin, syn, 0); d.segment(1, at(0), ack, 0) }, 0, 10, "[] +0 10 false"},
		{"all of it has", func() { d.segment(1, at(0), ack, 100) }, 0, 100, "[[3 3]] +0 0 false"},
		{"a part of a packet", func() {}, 40, 20, "[[3 3]] +0 0 false"},
		{"two packets, and not all", func() { d.segment(1, at(100), ack, 100); d.segment(1, at(200), ack, 50) }, 100, 200, "[[4 5]] +0 50 false"},
		{"the same again, and more", func() { d.segment(1, at(100), ack, 200) }, 200, 100, "[[5 6]] +0 0 false"},
		{"the probe of a window", func() { d.segment(1, at(299), ack, 1); d.segment(1, at(299), ack, 0) }, 299, 11, "[[6 6]] +0 10 false"},
		{"one was lost, and it is known", func() { d.noticed, d.told = 1, 1; d.segment(1, at(400), ack, 100) }, 300, 200, "[[9 9]] +0 0 true"},
		{"one was lost, nobody knows of what", func() { d.told = 2 }, 400, 200, "[[9 9]] +0 0 true"},
		{"and nothing is known of what had not left", func() {}, 500, 100, "[] +0 0 false"},
		{"another connection of the socket", func() { d.noticed = 2; d.segment(1, 5000, syn, 0) }, 400, 100, "[] +0 0 false"},
	} {
		step.do()
		if got := saidOf(d.send(1, at(step.seq), step.size)); got != step.want {
			t.Errorf("%s: %s, wanted %s", step.name, got, step.want)
		}
	}
}

// Where several datagrams may be that of a call, none is named.
func TestDepartedDatagrams(t *testing.T) {
	t.Parallel()
	d := newDeparting()
	for _, step := range []struct {
		name  string
		do    func()
		began int64
		ended int64
		tid   uint32
		call  string
		text  string
		want  string
	}{
		{"its own", func() { d.datagram(1, 11, "one") }, 10, 12, 1, "sendto", "one", "[[1 1]] +0 0 false"},
		{"that was another call's", func() {}, 10, 12, 1, "sendto", "one", "[] +0 0 false"},
		{"one from before it", func() { d.datagram(1, 13, "two") }, 14, 16, 1, "sendto", "two", "[] +0 0 false"},
		{"another one's bytes", func() { d.datagram(1, 21, "abc") }, 20, 22, 1, "sendto", "abd", "[] +0 0 false"},
		{"two that are the same", func() { d.datagram(1, 31, "same"); d.datagram(1, 32, "same") }, 30, 33, 1, "sendto", "same", "[] +0 0 false"},
		{"in order", func() { d.datagram(1, 41, "same"); d.datagram(1, 42, "same") }, 40, 43, 1, "sendmmsg", "same", "[[6 6]] +0 0 false"},
		{"and the next", func() {}, 40, 43, 1, "sendmmsg", "same", "[[7 7]] +0 0 false"},
		{"of two threads at once", func() { d.datagram(1, 44, "same"); d.datagram(1, 45, "same") }, 42, 46, 2, "sendmmsg", "same", "[] +0 0 false"},
		{"left for later", func() {}, 50, 51, 2, "sendto", "in two ", "[] +0 0 false"},
		{"and sent with more", func() { d.datagram(1, 53, "in two parts") }, 52, 54, 2, "sendto", "parts", "[[10 10]] +0 0 false"},
	} {
		step.do()
		if got := saidOf(d.sendTo(1, step.began, step.ended, step.tid, step.call, step.text)); got != step.want {
			t.Errorf("%s: %s, wanted %s", step.name, got, step.want)
		}
	}
}

// What is remembered is bounded, of one socket and of all.
func TestDeparturesAreBounded(t *testing.T) {
	t.Parallel()
	d := newDeparting()
	kept := func() (n int) {
		for _, all := range []map[uint64]*departed{d.recent, d.earlier} {
			for _, at := range all {
				n += len(at.parts) + len(at.datagrams)
			}
		}
		return n
	}
	for n := range 3 * departedParts {
		d.segment(1, uint32(n), 0x10, 1)
		d.datagram(2, int64(n), "x")
	}
	if n := kept(); n > 2*departedParts {
		t.Errorf("of two sockets %d are kept", n)
	}
	if got := saidOf(d.send(1, 3*departedParts-10, 10)); got == saidOf(&Receipt{}) {
		t.Error("the newest are forgotten")
	}
	for cookie := range uint64(3 * flowsLimit) {
		d.segment(cookie, 1, 0x10, 1)
		d.datagram(cookie, 1, "x")
		d.datagram(cookie, 1, "y")
	}
	if n := kept(); n > 2*(departedKept+departedParts) || len(d.recent)+len(d.earlier) > flowsLimit+2 {
		t.Errorf("of all sockets %d are kept, of %d", n, len(d.recent)+len(d.earlier))
	}
}

// The records of the hook and of the tap are joined only where it is certain that they are of one
// packet.
func TestBeside(t *testing.T) {
	t.Parallel()
	b := newBeside()
	record := func(cpu uint32, cookie uint64, text string) *bpf.Record {
		return &bpf.Record{RecordHeader: bpf.RecordHeader{Cpu: cpu, Cookie: cookie, Len: uint32(len(text))}, Data: []byte(text)}
	}
	for n, step := range []struct {
		hook uint64 // the id of a record of the hook, 0 for one of the tap
		rec  *bpf.Record
		lost bool
		want uint64
	}{
		{1, record(0, 7, "one"), false, 0},
		{2, record(1, 7, "one"), false, 0},
		{0, record(1, 7, "one"), false, 2},
		{0, record(0, 7, "one"), false, 1},
		{0, record(0, 7, "one"), false, 0}, // it has had its own
		{3, record(0, 7, "two"), false, 0},
		{0, record(0, 7, "six"), false, 0},
		{0, record(0, 7, "two"), false, 0}, // what comes between is another packet's
		{4, record(0, 7, "two"), false, 0},
		{0, record(0, 8, "two"), false, 0},
		{5, record(0, 7, "two"), false, 0},
		{0, record(0, 7, "two"), true, 0}, // the one before may have been lost
		{6, record(0, 7, "two"), false, 0},
		{0, record(0, 7, "two"), false, 6},
	} {
		if step.hook != 0 {
			b.saw(step.rec, step.hook)
			continue
		}
		if got := b.claim(step.rec, step.lost); got != step.want {
			t.Errorf("step %d: the id is %d, wanted %d", n, got, step.want)
		}
	}
}

func benchmarkDepartures(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprintf("departures/sockets=%d", n), func(b *testing.B) {
			d := newDeparting()
			b.ReportAllocs()
			for i := range b.N {
				cookie := uint64(i % n)
				d.segment(cookie, uint32(i/n*10), 0x10, 10)
				d.send(cookie, uint32(i/n*10), 10)
			}
		})
	}
	for _, n := range []int64{1, 100, 10_000} {
		b.Run(fmt.Sprintf("departures/datagrams=%d", n), func(b *testing.B) {
			d := newDeparting()
			for i := range n {
				d.datagram(1, i, "x") // that no call names
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range int64(b.N) {
				d.datagram(1, n+i, "x")
				d.sendTo(1, 0, n+i, 1, "sendto", "y") // it may be any of them
			}
		})
	}
}
