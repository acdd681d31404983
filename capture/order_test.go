package capture

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestOrder(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var sink memory
	o := order{sink: &sink}
	const window = 100
	added := 0
	for now := int64(0); now < 20000; now += 10 {
		for range random.IntN(20) {
			at := now - random.Int64N(window)
			data := bytes.Repeat([]byte{byte(at)}, random.IntN(3000))
			o.add(&Packet{Time: at, Data: data, Len: len(data)}, new(lane))
			added++
			clear(data) // the copy must be its own
		}
		if err := o.release(now - window); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.release(1 << 62); err != nil {
		t.Fatal(err)
	}
	if len(sink.packets) != added {
		t.Fatalf("%d packets out of %d", len(sink.packets), added)
	}
	last := int64(-window)
	for _, p := range sink.packets {
		if p.Time < last || !bytes.Equal(p.Data, bytes.Repeat([]byte{byte(p.Time)}, p.Len)) {
			t.Fatalf("after %d comes %d with %d bytes", last, p.Time, p.Len)
		}
		last = p.Time
	}
	if n := len(o.arena.empty); n > 64 {
		t.Errorf("%d chunks lie about", n)
	}
}

type nothing struct{}

func (nothing) WritePacket(*Packet) error { return nil }

func BenchmarkOrder(b *testing.B) {
	o := order{sink: nothing{}}
	p, at := Packet{Data: make([]byte, 72), Len: 72}, lane{}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p.Time = int64(i)
		o.add(&p, &at)
		if i%1000 == 999 {
			if err := o.release(int64(i - 5000)); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// In the long run nothing is allocated for a packet, from its record and its
// delivery to the sink.
func TestNothingIsAllocated(t *testing.T) {
	c := newCollector(Config{Kind: mustKind(t, "udp")}.withDefaults(), nil, clock{})
	c.order.sink = nothing{}
	rec := &c.record
	rec.Data = make([]byte, 72)
	rec.Len, rec.Caplen, rec.Verdict = 72, 72, -1
	copy(rec.Net[:], []byte{0x45, 9: unix.IPPROTO_UDP, 12: 127, 15: 1, 16: 127, 19: 1})
	rec.NetLen = 20
	d := delivery{
		data: rec.Data[8:], full: 64,
		from: netip.MustParseAddrPort("127.0.0.1:0"), to: netip.MustParseAddrPort("127.0.0.1:0"),
	}
	packet := func() {
		rec.Time++
		d.time++
		c.kernel()
		c.mailbox.put(d)
		c.pair(1 << 62)
		if err := c.order.release(int64(rec.Time) - 100); err != nil {
			t.Fatal(err)
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

func TestClock(t *testing.T) {
	t.Parallel()
	c, err := newClock()
	if err != nil {
		t.Fatal(err)
	}
	if step, err := c.stepped(); step != 0 || err != nil {
		t.Errorf("a clock that nobody set was set by %v, %v", step, err)
	}
	c.offset -= int64(time.Hour)
	if step, err := c.stepped(); step.Round(time.Millisecond) != time.Hour || err != nil {
		t.Errorf("set by %v, %v, want an hour", step, err)
	}
	before := time.Now().UnixNano()
	c.offset += int64(time.Hour)
	at := c.wall(bootNow())
	after := time.Now().UnixNano()
	if at < before-c.bound || at > after+c.bound {
		t.Errorf("%d is not between %d and %d", at, before, after)
	}
}
