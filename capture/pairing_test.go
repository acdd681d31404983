package capture

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

var (
	writtenClient = netip.MustParseAddrPort("127.0.0.1:52638")
	writtenServer = netip.MustParseAddrPort("127.0.0.1:16962")
)

// writtenPairer saw datagrams with these payloads, whose ids count from 1.
func writtenPairer(t *testing.T, payloads ...string) *Pairer {
	t.Helper()
	udp, ok := KindByName("udp")
	if !ok {
		t.Fatal("no kind udp")
	}
	r := NewPairer(udp)
	for i, payload := range payloads {
		r.Saw(&Packet{ID: uint64(i + 1), Src: writtenClient, Dst: writtenServer, Data: []byte("8 bytes." + payload)})
	}
	return r
}

func TestPairerOfDatagrams(t *testing.T) {
	t.Parallel()
	r := writtenPairer(t, "a", "b", "b", "c")
	for i, want := range []struct {
		payload string
		final   bool
		id      uint64
	}{
		{"b", false, 2},
		{"x", false, 0}, // may come later,
		{"x", true, 0},  // but never does
		{"c", false, 4}, // passes over the second b
		{"b", false, 0}, // which is not looked at before the end
		{"b", true, 3},
		{"b", true, 0},
	} {
		m, ok := r.Brought(&Packet{Data: []byte(want.payload)}, want.final)
		if ok != (want.id != 0) || m.ID != want.id || m.Last != want.id || ok && (m.Src != writtenClient || m.Dst != writtenServer) {
			t.Errorf("question %d, %q: %+v, %v", i, want.payload, m, ok)
		}
	}
}

// TestPairerOfCutBytes pairs what was not written down to its end.
func TestPairerOfCutBytes(t *testing.T) {
	t.Parallel()
	udp, _ := KindByName("udp")
	r := NewPairer(udp)
	r.Saw(&Packet{ID: 1, Data: []byte("8 bytes.start"), Len: 500})
	r.Saw(&Packet{ID: 2, Data: []byte("8 bytes.start"), Len: 600})
	if m, ok := r.Brought(&Packet{Data: []byte("start of it"), Len: 592}, false); !ok || m.ID != 2 {
		t.Errorf("%+v, %v", m, ok)
	}
}

// TestPairerAsksLittle has many packets that never reached userspace, and as much
// that no packet brought: questions must not be about the same packets again.
func TestPairerAsksLittle(t *testing.T) {
	t.Parallel()
	payloads := make([]string, 20000)
	for i := range payloads {
		payloads[i] = "same"
	}
	r := writtenPairer(t)
	for i, payload := range payloads {
		r.Saw(&Packet{ID: uint64(i + 1), Data: []byte("8 bytes." + payload)})
		if m, ok := r.Brought(&Packet{Data: []byte("else")}, false); ok {
			t.Fatalf("%+v", m)
		}
	}
}

func writtenSegment(id uint64, src netip.AddrPort, sequence uint32, flags byte, payload string) *Packet {
	data := make([]byte, 20, 20+len(payload))
	binary.BigEndian.PutUint32(data[4:], sequence)
	data[12], data[13] = 5<<4, flags
	return &Packet{ID: id, Src: src, Dst: writtenServer, Data: append(data, payload...)}
}

func TestPairerOfStreams(t *testing.T) {
	t.Parallel()
	other := netip.MustParseAddrPort("127.0.0.1:52639")
	tcp, _ := KindByName("tcp")
	r := NewPairer(tcp)
	ask := func(payload string, length int, final bool, want Match) {
		t.Helper()
		m, ok := r.Brought(&Packet{Data: []byte(payload), Len: length}, final)
		if ok != (want.ID != 0) || m.ID != want.ID || m.Last != want.Last || m.Src != want.Src || fmt.Sprint(m.Receipt) != fmt.Sprint(want.Receipt) {
			t.Errorf("%q: %+v, %v, want %+v", payload, m, ok, want)
		}
	}
	r.Saw(writtenSegment(1, writtenClient, 100, 2, ""))
	r.Saw(writtenSegment(2, other, 900, 2, ""))
	r.Saw(writtenSegment(3, writtenClient, 101, 16, "hel"))
	ask("hello", 5, false, Match{})
	r.Saw(writtenSegment(4, other, 901, 16, "hallo"))
	ask("hello", 5, false, Match{})
	r.Saw(writtenSegment(5, writtenClient, 104, 16, "lo, world"))
	ask("hello", 5, false, Match{ID: 3, Last: 5, Src: writtenClient, Receipt: Receipt{Fed: IDs{Ranges: [][2]uint64{{3, 3}, {5, 5}}}}})
	ask("ha", 2, false, Match{ID: 4, Last: 4, Src: other})
	ask(", w", 7, false, Match{ID: 5, Last: 5, Src: writtenClient})
	ask("", 0, false, Match{})
	r.Saw(writtenSegment(6, writtenClient, 113, 1|16, ""))
	ask("", 0, false, Match{ID: 6, Last: 6, Src: writtenClient})
	ask("nobody sent this", 16, true, Match{})
	ask("llo", 3, true, Match{ID: 4, Last: 4, Src: other})
	long := strings.Repeat("x", 50)
	cut := writtenSegment(7, other, 906, 16, long)
	cut.Len = 20 + 1000
	r.Saw(cut)
	ask(long, 1000, false, Match{ID: 7, Last: 7, Src: other})
}
