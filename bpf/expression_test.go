package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// frames are Ethernet frames whose IP headers tell their lengths.
func frames() [][]byte {
	random := rand.New(rand.NewSource(2))
	var all [][]byte
	for range 200 {
		payload := make([]byte, 20+random.Intn(100))
		random.Read(payload)
		cut := len(payload)
		if random.Intn(4) == 0 {
			cut = random.Intn(6)
		}
		binary.BigEndian.PutUint16(payload, []uint16{22, 53, 80, 443}[random.Intn(4)])
		binary.BigEndian.PutUint16(payload[2:], []uint16{22, 53, 80, 443}[random.Intn(4)])
		payload[12], payload[13] = 0x50, 1<<random.Intn(6)
		protocol := []byte{1, 6, 6, 17, 17, 58}[random.Intn(6)]
		payload = payload[:cut]
		frame := append(make([]byte, 12), 0x08, 0x00)
		if random.Intn(2) == 0 {
			options := 4 * random.Intn(3)
			ip := make([]byte, 20+options)
			ip[0], ip[8], ip[9] = 0x45+byte(options/4), byte(62+random.Intn(3)), protocol
			binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(payload)))
			binary.BigEndian.PutUint16(ip[6:], []uint16{0, 0, 0x4000, 0x2010}[random.Intn(4)])
			copy(ip[12:], []byte{10, 0, 0, byte(random.Intn(3)), 10, 0, 1, byte(random.Intn(3))})
			frame = append(frame, ip...)
		} else {
			frame[12], frame[13] = 0x86, 0xdd
			ip := make([]byte, 40)
			ip[0], ip[6], ip[7] = 0x60, protocol, byte(62+random.Intn(3))
			binary.BigEndian.PutUint16(ip[4:], uint16(len(payload)))
			ip[8], ip[23], ip[24], ip[39] = 0xfe, byte(random.Intn(3)), 0x20, byte(random.Intn(3))
			frame = append(frame, ip...)
		}
		all = append(all, append(frame, payload...))
	}
	return all
}

// TestExpressionInKernel holds what the kernel's program chooses against what the same instructions choose here,
// which internal/expression compares with tcpdump.
func TestExpressionInKernel(t *testing.T) {
	testutil.RequireRoot(t)
	all := frames()
	for _, text := range []string{
		"", "ip", "ip6", "tcp", "port 80", "src port 53 or 443", "udp dst portrange 50-100", "host 10.0.0.1", "net 10.0.1.0/31", "host fe00::1 or 2000::2",
		"port 80 and host 10.0.0.1", "not (tcp or icmp)", "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "len > 90", "less 80", "ip[2:2] = len", "ip[3:2] > 20000 or ip6[5:4] > 0x48115040",
		"tcp[(tcp[12]>>4)*4] > 127", "udp[8:4] > 0x80000000", "ip[8] / (ip[8] - 63) = 64", "udp[9] % (udp[8] & 3) = 1", "icmp6[0] < 100", "ip6[40:2] = ip6[42:2]",
		"tcp[4000:4] = 0 or udp", "ip[(ip[0]&15)*4:2] = 80", "-ip[8] < 0xffffffc2", "tcp and not (port 1" + strings.Repeat(" or portrange 50-60", 60) + ")",
	} {
		e, err := ParseExpression(text)
		if err != nil {
			t.Fatal(err)
		}
		tap, err := Open(Options{RingSize: MinRingSize, Expression: e})
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		chosen := 0
		for _, frame := range all {
			before, err := tap.Counters()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tap.objects.Tap.Run(&ebpf.RunOptions{Data: frame}); err != nil {
				t.Fatal(err)
			}
			after, err := tap.Counters()
			if err != nil {
				t.Fatal(err)
			}
			want := e.Wants(frame[14:], len(frame)-14)
			if got := after.Unwanted == before.Unwanted; got != want {
				t.Errorf("%q: % x: %v, should be %v", text, frame[14:min(64, len(frame))], got, want)
			}
			if want {
				chosen++
			}
			if after.Seen != after.Recorded+after.Unwanted+after.RingFull+after.LoadFailed || after.Seen != before.Seen+1 {
				t.Fatalf("%q: %+v", text, after)
			}
		}
		if text != "" && (chosen == 0 || chosen == len(all)) {
			t.Errorf("%q does not tell the packets apart", text)
		}
		if err := tap.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestExpressionNotes checks that a note has the first bytes of its packet, of whatever length that is.
func TestExpressionNotes(t *testing.T) {
	testutil.RequireRoot(t)
	e, err := ParseExpression("less 20")
	if err != nil {
		t.Fatal(err)
	}
	tap := mustOpen(t, Options{RingSize: 1 << 20, Expression: e, Notes: true})
	receiver, sender := udpPair(t)
	if err := tap.Attach(receiver); err != nil {
		t.Fatal(err)
	}
	payload := make([]byte, 300)
	rand.New(rand.NewSource(3)).Read(payload)
	barrier := testutil.NewBarrier(t)
	for size := range payload {
		barrier.Send(t, sender, payload[:size])
	}
	from, err := unix.Getsockname(sender)
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(from.(*unix.SockaddrInet4).Port)
	size := 0
	readAll(t, tap, func(rec *Record) {
		known := min(8+size, 128)
		net := rec.NetHeader()
		switch {
		case !rec.Unwanted || rec.Hook != HookFilter || rec.Time == 0 || rec.Cookie == 0 || rec.Verdict != -1:
			t.Errorf("%d bytes: %+v", size, rec)
		case int(rec.Before) != 20 || int(rec.Len) != 28+size || len(rec.Data) != 20+known || len(net) != 20:
			t.Errorf("%d bytes: %d of %d, %d before", size, len(rec.Data), rec.Len, rec.Before)
		case !bytes.Equal(net, rec.Data[:20]) || net[9] != unix.IPPROTO_UDP || binary.BigEndian.Uint16(rec.Data[20:]) != port || !bytes.Equal(rec.Data[28:], payload[:known-8]):
			t.Errorf("%d bytes: % x", size, rec.Data)
		}
		size++
	})
	if counters, err := tap.Counters(); err != nil || size != len(payload) || counters.Unwanted != uint64(size) || counters.Seen != uint64(size) {
		t.Errorf("%d notes: %+v, %v", size, counters, err)
	}
}

// TestExpressionPlaces checks that the error of a wrong expression has its place.
func TestExpressionPlaces(t *testing.T) {
	_, err := ParseExpression("port 80 and vlan 3")
	var wrong *ExpressionError
	if !errors.As(err, &wrong) || wrong.Text[wrong.At:wrong.End] != "vlan" {
		t.Errorf("%#v", err)
	}
}
