package expression

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// names are those of the tests.
type names struct{}

func (names) Host(name string) ([]netip.Addr, error) {
	switch name {
	case "localhost":
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}, nil
	case "four":
		return []netip.Addr{netip.MustParseAddr("10.0.0.4")}, nil
	}
	return nil, errors.New("nobody knows it")
}

func (names) Port(network, name string) int {
	if network == "udp" && name != "domain" {
		return 0
	}
	return map[string]int{"http": 80, "domain": 53, "ftp": 21, "ftp-data": 20}[name]
}

func (names) Protocol(name string) (uint8, bool) {
	number, ok := map[string]uint8{"gre": 47, "ospf": 89}[name]
	return number, ok
}

// packets are IP packets of all kinds that expressions tell apart, whole and damaged.
func packets() [][]byte {
	random := rand.New(rand.NewSource(1))
	pick := func(list ...string) string { return list[random.Intn(len(list))] }
	ports := []uint16{20, 21, 22, 53, 80, 443, 6000, 6005, 6008, 33000, 65535}
	var all [][]byte
	for range 3000 {
		payload := make([]byte, random.Intn(120))
		random.Read(payload)
		protocol := []byte{1, 2, 6, 6, 6, 17, 17, 17, 47, 50, 51, 58, 89, 103, 112, 132}[random.Intn(16)]
		transport := make([]byte, 20)
		random.Read(transport)
		binary.BigEndian.PutUint16(transport, ports[random.Intn(len(ports))])
		binary.BigEndian.PutUint16(transport[2:], ports[random.Intn(len(ports))])
		switch protocol {
		case 1:
			transport[0], transport[1] = []byte{0, 3, 5, 8, 11}[random.Intn(5)], byte(random.Intn(4))
		case 58:
			transport[0] = byte(126 + random.Intn(14))
		case 6:
			transport[12], transport[13] = byte(5+random.Intn(2))<<4, 1<<random.Intn(7)|byte(random.Intn(3))<<1
		}
		transport = append(transport, payload...)
		var packet []byte
		if random.Intn(2) == 0 {
			options := 4 * []int{0, 0, 0, 1, 10}[random.Intn(5)]
			packet = make([]byte, 20+options)
			packet[0] = 0x45 + byte(options/4)
			packet[1] = byte(random.Intn(4))
			binary.BigEndian.PutUint16(packet[6:], []uint16{0, 0, 0, 0x4000, 0x2000, 0x2010, 0x00b9}[random.Intn(7)])
			packet[8], packet[9] = byte(random.Intn(3)+62), protocol
			copy(packet[12:], netip.MustParseAddr(pick("10.0.0.1", "10.0.0.2", "10.0.0.4", "192.168.7.1", "127.0.0.1", "10.1.2.3")).AsSlice())
			copy(packet[16:], netip.MustParseAddr(pick("10.0.0.1", "10.0.0.2", "224.0.0.251", "192.168.0.1", "127.0.0.1", "255.255.255.255")).AsSlice())
		} else {
			packet = make([]byte, 40)
			packet[0], packet[6], packet[7] = 0x60, protocol, byte(random.Intn(3)+62)
			copy(packet[8:], netip.MustParseAddr(pick("::1", "2001:db8::1", "2001:db8:1::2", "fe80::1")).AsSlice())
			copy(packet[24:], netip.MustParseAddr(pick("::1", "2001:db8::1", "ff02::1", "fe80::2")).AsSlice())
			if extension := []byte{0, 44, 60}[random.Intn(3)]; random.Intn(4) == 0 {
				packet[6] = extension
				packet = append(packet, protocol, 0, 0, byte(random.Intn(2)), 0, 0, 0, 1)
			}
		}
		packet = append(packet, transport...)
		if packet[0]>>4 == 4 {
			binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
		} else {
			binary.BigEndian.PutUint16(packet[4:], uint16(len(packet)-40))
		}
		switch random.Intn(8) {
		case 0:
			packet = packet[:1+random.Intn(len(packet))]
		case 1:
			packet[random.Intn(len(packet))] = byte(random.Intn(256))
		}
		all = append(all, packet)
	}
	return all
}

// expressions are those of pcap-filter(7) that can be asked of IP packets, and what else the language has.
var expressions = []string{
	"", "ip", "ip6", "tcp", "udp", "icmp", "icmp6", "sctp", "igmp", "igrp", "pim", "vrrp", "carp", "ah", "esp",
	"host 10.0.0.1", "src 10.0.0.1", "dst 10.0.0.1", "src or dst 10.0.0.1", "src and dst 10.0.0.1", "dst and src host 127.0.0.1", "dst or src host 127.0.0.1",
	"ip host 10.0.0.1", "ip6 host ::1", "host ::1", "src host 2001:db8::1", "dst fe80::2", "ip dst host 10.0.0.2",
	"host 10.0.0", "host 10.1", "host 167772161",
	"net 10", "net 192.168", "net 10.0.0.0/8", "net 10.0.0.0/30", "src net 192.168.0.0/21", "dst net 192.168.0.0 mask 255.255.255.0",
	"ip net 10.0.0.0/8", "net 0.0.0.0/0", "net 10.0.0.4/32", "net 2001:db8::/32", "ip6 net 2001:db8:1::/48", "src net fe80::/10", "dst net ::/0", "net ::1/128",
	"port 80", "src port 80", "dst port http", "src and dst port 443", "src or dst port 53", "tcp port 80", "udp port 53", "sctp port 22", "tcp src port 443",
	"tcp dst port ftp or ftp-data or domain", "tcp dst port ftp or tcp dst port ftp-data or tcp dst port domain", "port 80 or 443", "port (80 or 443)", "port not 80", "port 0x50", "port 024",
	"portrange 6000-6008", "src portrange 20-80", "udp dst portrange 6000-7000", "portrange 443-22", "portrange 80", "tcp portrange 20-ftp or portrange 1-20",
	"ip proto 6", "ip6 proto 17", "proto 6", "proto 47", "proto gre", "ip proto \\tcp", "ip6 proto \\tcp", "ip proto \\icmp", "proto 0x2c", "ip proto (6 or 17)", "ip6 proto 0", "ip proto 255",
	"ip multicast", "ip6 multicast", "less 60", "greater 100", "len > 90", "len <= 64", "length = 60", "not len > 90", "len != 40", "100 > len",
	"tcp or udp", "tcp and port 80", "not tcp", "! tcp", "tcp && port 80", "tcp || udp", "not port 80 and not port 22", "not host 10.0.0.1 and 10.0.0.2", "not (tcp or udp)",
	"tcp or udp and port 53", "tcp or (udp and port 53)", "host 10.0.0.1 and (10.0.0.2 or 10.0.0.4)", "port 80 and host 10.0.0.1", "host (10.0.0.1 or 127.0.0.1) and port (80 or 53)",
	"host 10.0.0.1 and not 10.0.0.2", "host 10.0.0.1 and port 80 or 443", "ip host 10.0.0.1 and not 10.0.0.2", "not not tcp",
	"tcp[tcpflags] & (tcp-syn|tcp-fin) != 0 and not src and dst net 192.168", "tcp[tcpflags] & (tcp-rst|tcp-ack) == (tcp-rst|tcp-ack)", "tcp[13] & 2 != 0", "tcp[tcpflags] == tcp-syn",
	"tcp port 80 and (((ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2)) != 0)", "ip[2:2] > 76", "ip[0] & 0xf != 5", "ip[6:2] & 0x1fff = 0", "ip[8] < 64", "ip6[7] = 63", "ip6[6] == 6",
	"icmp[icmptype] != icmp-echo and icmp[icmptype] != icmp-echoreply", "icmp[0] = 8", "icmp[icmpcode] = 1", "icmp6[icmp6type] = icmp6-echo", "icmp6[0] >= 129", "icmp6[icmp6type] == icmp6-neighborsolicit",
	"udp[8:4] > 0x80000000", "udp[4:2] < 30", "tcp[20:4] != 0", "ip[16] >= 224", "ip[ip[0] & 15] > 100", "tcp[(tcp[12]>>4)*4] > 127", "ip[9] = 6 and ip[(ip[0]&15)*4:2] = 80", "ip6[40 + 2:2] = 80",
	"icmp6[ip6[7] - 62] < 5", "udp[udp[4] & 7:1] > 3", "sctp[0:2] = 80", "igmp[0] & 1 = 1", "pim[0] > 5", "vrrp[1:2] > 9",
	"ip[12:4] = 0x0a000001", "ip[2:2] = len", "ip[2:2] + 4 > ip[8] * 2", "ip[1] / ip[1] = 1", "ip[2:2] % 4 = 0", "ip[2:2] / 3 > 20", "ip and -ip[1] = 0", "ip[0] ^ 0x45 = 0", "(ip[0] & 0xf) << 2 = 24",
	"ip[8] - 63 = 0 or tcp", "1 = 1", "1 > 2", "2 > 1 and tcp", "ip[100000] = 1 or tcp", "tcp[0:2] = tcp[2:2]", "ip[9] & 4 | 1 = 5", "1 << 3 = 8", "0x40 <= ip[8]",
	"(tcp)", "((tcp or udp) and (port 53))", "(ip[0] & 15) = 5", "((ip[0]) & 15) = 5", "(len > 50)", "((len) > 50 and tcp)", "not (ip[8] > 62)", "(tcp[0] | 1) = 1 or (udp)",
}

// TestSameAsTcpdump holds what is wanted of many packets against what tcpdump takes of a file with them.
func TestSameAsTcpdump(t *testing.T) {
	tcpdump, err := exec.LookPath("tcpdump")
	if err != nil {
		testutil.Missing(t, "tcpdump is not installed")
	}
	all := packets()
	input := filepath.Join(t.TempDir(), "raw.pcap")
	file := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	file = append(file, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 101, 0, 0, 0)
	for i, packet := range all {
		for _, n := range []int{i, 0, len(packet), len(packet)} {
			file = binary.LittleEndian.AppendUint32(file, uint32(n))
		}
		file = append(file, packet...)
	}
	if err := os.WriteFile(input, file, 0o644); err != nil {
		t.Fatal(err)
	}
	list := append(slices.Clone(expressions), long())
	some := 0
	for _, text := range list {
		program, err := Compile(text, names{})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		out, err := exec.Command(tcpdump, "-r", input, "-w", "-", text).Output()
		if err != nil {
			var exit *exec.ExitError
			errors.As(err, &exit)
			if bytes.Contains(exit.Stderr, []byte("rejects all")) {
				out = file[:24]
			} else {
				t.Errorf("tcpdump %q: %s", text, exit.Stderr)
				continue
			}
		}
		wanted := make(map[int]bool)
		for out = out[24:]; len(out) >= 16; {
			wanted[int(binary.LittleEndian.Uint32(out))] = true
			out = out[16+binary.LittleEndian.Uint32(out[8:]):]
		}
		if len(wanted) > 0 && len(wanted) < len(all) {
			some++
		}
		wrong := 0
		for i, packet := range all {
			if got := program.Wants(packet, len(packet)); got != wanted[i] {
				if wrong++; wrong == 1 {
					t.Errorf("%q: packet %d, % x: %v, and tcpdump says %v", text, i, packet[:min(len(packet), 64)], got, wanted[i])
				}
			}
		}
		if wrong > 1 {
			t.Errorf("%q: and %d more", text, wrong-1)
		}
	}
	if some < len(list)*8/10 {
		t.Errorf("only %d of %d expressions tell the packets apart", some, len(list))
	}
}

// long is an expression whose jumps are longer than 255 instructions.
func long() string {
	var b strings.Builder
	b.WriteString("tcp and not (port 1")
	for port := 6000; port < 6040; port++ {
		b.WriteString(" or ")
		b.WriteString(strings.Repeat(" ", port%2) + "portrange " + "600" + string(rune('0'+port%10)) + "-6005")
	}
	return b.String() + ")"
}

// TestWrong checks where an expression is said to be wrong, and how.
func TestWrong(t *testing.T) {
	for _, c := range []struct{ text, place, what string }{
		{"port", "", "port needs a value, not the end"},
		{"port 80 and", "", "a condition is missing at the end"},
		{"port 70000", "70000", "from 0 to 65535"},
		{"port 80 host 10.0.0.1", "host", "join conditions by and, or"},
		{"10.0.0.1", "10.0.0.1", "Say host, net, port or proto"},
		{"nginx", "nginx", "no word of the language"},
		{"host nobody", "nobody", "there is no host"},
		{"host 10.0.0.256", "10.0.0.256", "each part is from 0 to 255"},
		{"host 10.0.0.0/8", "/", "say net 10.0.0.0/8"},
		{"net 10.0.0.1/8", "10.0.0.1/8", "bits beyond the length"},
		{"net 10.0.0.0/33", "33", "from 0 to 32"},
		{"net fe80::1/10", "fe80::1/10", "bits beyond the length"},
		{"(port 80", "", "a closing bracket is missing"},
		{"port 80)", ")", "cannot stand here"},
		{"tcp[13", "", "a closing ] is missing"},
		{"tcp[13:3] = 1", "3", "1, 2 or 4 bytes"},
		{"tcp[13]", "", "is compared with another one"},
		{"tcp[13] & 2", "", "is compared with another one"},
		{"tcp[13] & = 2", "=", "a number is missing"},
		{"ip[0] / 0 = 1", "/", "division by zero"},
		{"ether host 1:2:3:4:5:6", "ether", "about the link layer"},
		{"vlan 3 and tcp", "vlan", "about the link layer"},
		{"tcp and ether[0] & 1 = 0", "ether", "about the link layer"},
		{"arp", "arp", "about the link layer"},
		{"multicast", "multicast", "say ip multicast"},
		{"ip broadcast", "broadcast", "netmask"},
		{"inbound", "inbound", "src and dst"},
		{"ip6 protochain 6", "protochain", "a loop"},
		{"tcp host 10.0.0.1", "tcp host", "tcp has no host"},
		{"ip port 80", "ip port", "ip has no ports"},
		{"host 1:2:3:4:5:6", "1:2:3:4:5:6", "the link layer"},
		{"port 80 and §", "§", "no meaning"},
		{"port http3", "http3", "no service"},
		{"proto 256", "256", "from 0 to 255"},
		{"net localnet", "localnet", "an address with a length"},
		{"less host", "host", "a number of bytes"},
		{strings.Repeat("(", 300) + "tcp", "(", "nested"},
		{strings.Repeat("not ", 9) + "proto 300", "300", "from 0 to 255"},
		{"tcp" + strings.Repeat(" or port 1", 400), "tcp" + strings.Repeat(" or port 1", 400), "too long"},
	} {
		_, err := Compile(c.text, names{})
		var wrong *Error
		if !errors.As(err, &wrong) {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		if place := wrong.Text[wrong.At:wrong.End]; place != c.place || !strings.Contains(wrong.What, c.what) {
			t.Errorf("%q: %q at %q (%d), and should be %q at %q", c.text, wrong.What, place, wrong.At, c.what, c.place)
		}
	}
}

// TestNames checks what names mean.
func TestNames(t *testing.T) {
	for _, c := range [][2]string{
		{"host localhost", "host 127.0.0.1 or host ::1"},
		{"ip6 src host localhost", "src host ::1"},
		{"host four", "host 10.0.0.4"},
		{"port domain", "port 53"},
		{"port http", "tcp port 80"},
		{"proto gre", "proto 47"},
		{"ip proto tcp", "ip proto 6"},
	} {
		got, err := Compile(c[0], names{})
		want, wantErr := Compile(c[1], names{})
		if err != nil || wantErr != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v and %v", c[0], err, got, want)
		}
	}
}

// FuzzCompile checks that an expression is compiled, or refused with a place in it, and that what was
// compiled stands any packet.
func FuzzCompile(f *testing.F) {
	for _, text := range expressions {
		f.Add(text, []byte{0x45, 0, 0, 20})
	}
	f.Fuzz(func(t *testing.T, text string, packet []byte) {
		program, err := Compile(text, names{})
		var wrong *Error
		switch {
		case err == nil:
			program.Wants(packet, len(packet))
		case !errors.As(err, &wrong) || wrong.At < 0 || wrong.At > wrong.End || wrong.End > len(wrong.Text):
			t.Errorf("%q: %#v", text, err)
		}
	})
}
