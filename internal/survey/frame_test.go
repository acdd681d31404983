package survey

import (
	"encoding/hex"
	"strings"
	"testing"
)

func TestParseFrame(t *testing.T) {
	t.Parallel()
	const (
		link4 = "000000000000 000000000000 0800"
		link6 = "000000000000 000000000000 86dd"
		addr6 = "00000000000000000000000000000001"
	)
	for _, test := range []struct {
		name, frame, headers, label, to string
		at                              int // of the last header
	}{
		{"udp", link4 + "4500 0027 0000 4000 40 11 0000 7f000001 7f000001 ce9e 4242 0013 0000 3031", "Ethernet IPv4 UDP payload", "datagram", "socket", 42},
		{"empty udp", link4 + "4500 001c 0000 4000 40 11 0000 7f000001 7f000001 4242 ce9e 0008 0000", "Ethernet IPv4 UDP", "datagram", "peer", 34},
		{"options", link4 + "4600 0020 0000 4000 40 11 0000 7f000001 7f000001 01010100 4242 ce9e 0008 0000", "Ethernet IPv4 UDP", "datagram", "peer", 38},
		{"syn", link4 + "4500 0028 0000 4000 40 06 0000 7f000001 7f000001 ce9e 4242 00000000 00000000 5002 0000 0000 0000", "Ethernet IPv4 TCP", "SYN", "socket", 34},
		{"fin with data", link4 + "4500 0029 0000 4000 40 06 0000 7f000001 7f000001 ce9e 4242 00000000 00000000 5011 0000 0000 0000 78", "Ethernet IPv4 TCP payload", "data", "socket", 54},
		{"first fragment", link4 + "4500 05dc 0001 2000 40 11 0000 7f000001 7f000001 ce9e 4242 0fa8 0000 78", "Ethernet IPv4 UDP payload", "fragment", "socket", 42},
		{"last fragment", link4 + "4500 05dc 0001 00b9 40 11 0000 7f000001 7f000001 78787878 78787878 78", "Ethernet IPv4 payload", "fragment", "", 34},
		{"echo6", link6 + "60000000 0008 3a 40" + addr6 + addr6 + "80000000 42420001", "Ethernet IPv6 ICMPv6", "echo request", "", 54},
		{"fragment6", link6 + "60000000 0010 2c 40" + addr6 + addr6 + "11000001 00000001 ce9e 4242 0008 0000", "Ethernet IPv6 UDP", "fragment", "socket", 62},
		{"arp", "000000000000 000000000000 0806 0001", "Ethernet payload", "frame", "", 14},
		{"short", "0000", "", "frame", "", 0},
		{"cut", link4 + "4500", "Ethernet IPv4", "frame", "", 14},
	} {
		data, err := hex.DecodeString(strings.ReplaceAll(test.frame, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		f := parseFrame(data)
		if got := strings.Join(f.headers(), " "); got != test.headers || f.label != test.label || f.to != test.to {
			t.Errorf("%s: %s, %q to %q", test.name, got, f.label, f.to)
			continue
		}
		if n := len(f.layers); n > 0 && f.layers[n-1].at != test.at {
			t.Errorf("%s: %s at %d, want %d", test.name, f.layers[n-1].name, f.layers[n-1].at, test.at)
		}
	}
}

func TestDescribeValues(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		held []uint64
		want string
	}{
		{"len", []uint64{40, 32, 40}, "32, 40"},
		{"len", []uint64{1, 2, 3, 4, 5, 6, 7, 8}, "1, 2, 3, 4, 5, 6 and 2 more"},
		{"hash", []uint64{77, 0, 78}, "0, set"},
		{"protocol", []uint64{0x0008}, "0x0800"},
		{"gso_segs", []uint64{1, 0, 3}, "0 or 1, 3"},
		{"sk.src_ip4", []uint64{0x0100007f}, "127.0.0.1"},
	} {
		if got := describeValues(test.name, test.held); got != test.want {
			t.Errorf("%s %v: %q, want %q", test.name, test.held, got, test.want)
		}
	}
}
