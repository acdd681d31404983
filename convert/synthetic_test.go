package convert

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

func randomAddr(r *rand.Rand, size int) netip.Addr {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func TestIPv4HeaderAsGopacketMakesIt(t *testing.T) {
	t.Parallel()
	r := testutil.Random(t)
	for range 2000 {
		src, dst := randomAddr(r, 4), randomAddr(r, 4)
		protocol, payload := uint8(r.Uint32()), r.IntN(65516)
		want := gopacket.NewSerializeBuffer()
		err := (&layers.IPv4{
			Version: 4, IHL: 5, Length: uint16(20 + payload), TTL: 64, Flags: layers.IPv4DontFragment,
			Protocol: layers.IPProtocol(protocol), SrcIP: src.AsSlice(), DstIP: dst.AsSlice(),
		}).SerializeTo(want, gopacket.SerializeOptions{ComputeChecksums: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := appendIPv4Header(nil, src, dst, protocol, payload); !bytes.Equal(got, want.Bytes()) {
			t.Fatalf("%v > %v, protocol %d, %d bytes:\n got %x\nwant %x", src, dst, protocol, payload, got, want.Bytes())
		}
	}
}

func TestIPv4HeaderLimits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ payload, total int }{{0, 20}, {65515, 65535}, {65516, 0}, {70000, 0}} {
		b := appendIPv4Header(nil, client4.Addr(), server4.Addr(), protocolTCP, tt.payload)
		if got := int(b[2])<<8 | int(b[3]); got != tt.total {
			t.Errorf("payload %d: total length %d, want %d", tt.payload, got, tt.total)
		}
		sum := 0
		for i := 0; i < len(b); i += 2 {
			sum += int(b[i])<<8 | int(b[i+1])
		}
		if sum = sum&0xffff + sum>>16; sum&0xffff+sum>>16 != 0xffff {
			t.Errorf("payload %d: checksum is wrong: %x", tt.payload, b)
		}
	}
}

func TestIPv4HeaderAddresses(t *testing.T) {
	t.Parallel()
	b := appendIPv4Header(nil, netip.Addr{}, netip.MustParseAddr("::ffff:10.1.2.3"), 0, 0)
	if want := []byte{0, 0, 0, 0, 10, 1, 2, 3}; !bytes.Equal(b[12:], want) {
		t.Errorf("addresses %v, want %v", b[12:], want)
	}
}

func TestIPv6HeaderAsGopacketMakesIt(t *testing.T) {
	t.Parallel()
	r := testutil.Random(t)
	for range 2000 {
		src, dst := randomAddr(r, 16), randomAddr(r, 16)
		protocol, payload := uint8(r.Uint32()), r.IntN(65536)
		want := gopacket.NewSerializeBuffer()
		err := (&layers.IPv6{
			Version: 6, Length: uint16(payload), HopLimit: 64,
			NextHeader: layers.IPProtocol(protocol), SrcIP: src.AsSlice(), DstIP: dst.AsSlice(),
		}).SerializeTo(want, gopacket.SerializeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := appendIPv6Header(nil, src, dst, protocol, payload); !bytes.Equal(got, want.Bytes()) {
			t.Fatalf("%v > %v, protocol %d, %d bytes:\n got %x\nwant %x", src, dst, protocol, payload, got, want.Bytes())
		}
	}
}

func TestIPv6HeaderJumbo(t *testing.T) {
	t.Parallel()
	const payload = 65536
	b := appendIPv6Header(nil, client6.Addr(), server6.Addr(), protocolTCP, payload)
	p := gopacket.NewPacket(append(b, make([]byte, payload)...), layers.LayerTypeIPv6, gopacket.NoCopy)
	ip, ok := p.NetworkLayer().(*layers.IPv6)
	if !ok || ip.HopByHop == nil {
		t.Fatalf("no hop-by-hop header: %v", p.Layers())
	}
	if ip.Length != 0 || ip.NextHeader != layers.IPProtocolIPv6HopByHop || ip.HopByHop.NextHeader != layers.IPProtocolTCP {
		t.Errorf("length %d, next headers %v, %v", ip.Length, ip.NextHeader, ip.HopByHop.NextHeader)
	}
	want := []byte{protocolTCP, 0, 0xc2, 4, 0, 1, 0, 8}
	if got := b[40:48]; !bytes.Equal(got, want) {
		t.Errorf("hop-by-hop header %x, want %x", got, want)
	}
}

func TestIPv6HeaderAddresses(t *testing.T) {
	t.Parallel()
	b := appendIPv6Header(nil, netip.Addr{}, client4.Addr(), protocolTCP, 0)
	want := netip.MustParseAddr("::ffff:127.0.0.1").As16()
	if !bytes.Equal(b[8:24], make([]byte, 16)) || !bytes.Equal(b[24:40], want[:]) {
		t.Errorf("addresses %x", b[8:])
	}
}
