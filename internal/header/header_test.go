package header

import (
	"net/netip"
	"strings"
	"testing"
)

// packet6 is IPv6 with a hop-by-hop header of 16 bytes, a destination header and a
// fragment header before UDP, as RFC 8200 has them.
func packet6(length byte, offset string) string {
	return "\x60\x00\x00\x00\x00" + string(length) + "\x00\x40" + strings.Repeat("\x00", 15) + "\x01" + strings.Repeat("\x00", 15) + "\x02" +
		"\x3c\x01" + strings.Repeat("\x00", 14) + "\x2c\x00" + strings.Repeat("\x00", 6) + "\x11\x00" + offset + "\x00\x00\x00\x07" + "\xc3\x50\x42\x42"
}

func TestParseIP(t *testing.T) {
	t.Parallel()
	ip4 := "\x46\x00\x00\x1e\x00\x00\x40\x00\x40\x06\x00\x00\x7f\x00\x00\x01\x7f\x00\x00\x02\x01\x01\x01\x00"
	src4, dst4 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	src6, dst6 := netip.MustParseAddr("::1"), netip.MustParseAddr("::2")
	for name, test := range map[string]struct {
		data string
		want IP
	}{
		"with options":               {ip4 + "payload", IP{4, src4, dst4, 6, 24, 30, false, false}},
		"a first fragment":           {ip4[:6] + "\x20\x00" + ip4[8:], IP{4, src4, dst4, 6, 24, 30, true, false}},
		"a later fragment":           {ip4[:6] + "\x00\x01" + ip4[8:], IP{4, src4, dst4, 6, 24, 30, true, true}},
		"without a length":           {ip4[:2] + "\x00\x00" + ip4[4:], IP{4, src4, dst4, 6, 24, 0, false, false}},
		"a length that is too short": {ip4[:2] + "\x00\x17" + ip4[4:], IP{4, src4, dst4, 6, 24, 0, false, false}},
		"options cut off":            {ip4[:23], IP{}},
		"a header too short":         {"\x44" + ip4[1:], IP{}},
		"another version":            {"\x56" + ip4[1:], IP{}},
		"extension headers":          {packet6(36, "\x00\x01"), IP{6, src6, dst6, 17, 72, 76, true, false}},
		"a later one of IPv6":        {packet6(36, "\x00\x08"), IP{6, src6, dst6, 17, 72, 76, true, true}},
		"a jumbogram":                {packet6(0, "\x00\x01"), IP{6, src6, dst6, 17, 72, 0, true, false}},
		"one is cut off":             {packet6(36, "\x00\x08")[:71], IP{6, src6, dst6, 44, 64, 76, false, false}},
		"one is behind the end":      {packet6(31, "\x00\x08"), IP{6, src6, dst6, 44, 64, 71, false, false}},
		"the first one is cut off":   {packet6(36, "\x00\x08")[:55], IP{6, src6, dst6, 0, 40, 76, false, false}},
		"IPv6 cut off":               {packet6(36, "\x00\x08")[:39], IP{}},
		"nothing":                    {"", IP{}},
	} {
		if got, ok := ParseIP([]byte(test.data)); got != test.want || ok != (test.want.Version != 0) {
			t.Errorf("%s: %+v, %t, want %+v", name, got, ok, test.want)
		}
	}
}

func TestEthernet(t *testing.T) {
	t.Parallel()
	addresses := strings.Repeat("\x02", 12)
	for _, test := range []struct {
		data      string
		etherType uint16
		size      int
	}{
		{addresses + "\x08\x00", EtherTypeIPv4, 14},
		{addresses + "\x88\xa8\x00\x01\x81\x00\x00\x02\x86\xdd", EtherTypeIPv6, 22},
		{addresses + "\x81\x00\x00\x01\x08", EtherTypeVLAN, 14},
		{addresses + "\x08", 0, 0},
	} {
		if etherType, size := Ethernet([]byte(test.data)); etherType != test.etherType || size != test.size {
			t.Errorf("%q: type %#x, %d bytes", test.data, etherType, size)
		}
	}
}

func TestParseTCP(t *testing.T) {
	t.Parallel()
	segment := "\xce\x9e\x42\x42\x00\x00\x03\xe8\x00\x00\x00\x00\x60\x12" + strings.Repeat("\x00", 6)
	if h, ok := ParseTCP([]byte(segment)); !ok || h != (TCP{Seq: 1000, Flags: SYN | ACK, Size: 24}) {
		t.Errorf("%+v, %t", h, ok)
	}
	if h, ok := ParseTCP([]byte(segment[:19])); ok {
		t.Errorf("%+v of a header that is cut off", h)
	}
}

// FuzzParseIP checks that no header ends after the bytes or the packet.
func FuzzParseIP(f *testing.F) {
	f.Add([]byte(packet6(36, "\x00\x01")))
	f.Add([]byte("\x45\x00\x00\x14"))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, ok := ParseIP(data)
		if ok && (h.Size < IPv4Size || h.Size > len(data) || h.Total > 0 && h.Size > h.Total) {
			t.Errorf("%+v of %d bytes", h, len(data))
		}
	})
}
