package capture

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// isSYN tells whether a TCP header is that of a connection's first packet.
func isSYN(header []byte) bool { return len(header) > 13 && header[13]&2 != 0 }

type nothing struct{}

func (nothing) WritePacket(*Packet) error { return nil }

// Records whose cpus have changed places come in the order of their times, and no room
// is given back before all that is in it was taken.
func TestArrivals(t *testing.T) {
	t.Parallel()
	random := testutil.Random(t)
	const window = 100
	var (
		a       arrivals
		pushed  = make(map[bpf.Place]bool)
		taken   int
		end     bpf.Place
		highest = int64(-window)
	)
	take := func(until int64) {
		for {
			next, ok := a.first()
			if !ok || next.time > until {
				return
			}
			if next.time < highest {
				t.Fatalf("%d after %d", next.time, highest)
			}
			highest = next.time
			a.pop()
			taken++
			delete(pushed, next.at)
		}
	}
	for clock := int64(0); clock < 20000; clock += 10 {
		for range random.IntN(20) {
			at := end + bpf.Place(random.IntN(3)*64) // what was given up
			a.push(arrival{time: clock - random.Int64N(window), from: end, at: at, end: at + 32})
			end = at + 32
			pushed[at] = true
		}
		take(clock - window)
		for at := range pushed {
			if at < a.done {
				t.Fatalf("%d was given back up to %d", at, a.done)
			}
		}
	}
	take(1 << 62)
	if len(pushed) > 0 || a.done != end || len(a.early) > 0 {
		t.Errorf("%d are left, %d of %d were given back, %d out of turn", len(pushed), a.done, end, len(a.early))
	}
	if cap(a.waiting) > 4096 {
		t.Errorf("room for %d of %d", cap(a.waiting), taken)
	}
}

// In the long run nothing is allocated for a packet, from its record and its
// delivery to the sink.
func TestNothingIsAllocated(t *testing.T) {
	config := Config{Kind: mustKind(t, "udp")}.withDefaults()
	c := newCollector(config.Options, nil, clock{})
	o := newOwn(&config, nil, 0)
	c.sink, c.origin = nothing{}, o
	c.untold = newUntold(func(to []uint64) ([]uint64, error) { return append(to, 0), nil }) // of a tap that loses nothing
	rec := &c.record
	rec.Data = make([]byte, 72)
	rec.Len, rec.Caplen, rec.Verdict = 72, 72, -1
	copy(rec.Net[:], []byte{0x45, 9: unix.IPPROTO_UDP, 12: 127, 15: 1, 16: 127, 19: 1})
	rec.NetLen = 20
	binary.BigEndian.PutUint16(rec.Data, 40000)
	d := delivery{route: o.home}
	d.Data, d.Full = rec.Data[8:], 64
	d.From, d.To = netip.MustParseAddrPort("127.0.0.1:40000"), netip.MustParseAddrPort("127.0.0.1:0")
	put := func(b *batch, now int64) {
		d.Time = now
		b.put(&d, rec.Data[8:])
	}
	packet := func() {
		rec.Time++
		c.kernel()
		o.mailbox.put(put)
		c.take(false)
		for d := c.waiting.first(); d != nil; d = c.waiting.first() {
			c.user(d)
			c.waiting.pop()
		}
	}
	for range 1000 {
		packet()
	}
	if n := testing.AllocsPerRun(1000, packet); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
	if c.counts[ViewUser].Load() != c.counts[ViewKernel].Load() {
		t.Error("the deliveries were not paired")
	}
}
