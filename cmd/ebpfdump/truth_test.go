package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// packet is a packet, or a read of one, as a tap or a view has it.
type packet struct {
	network  string // "tcp", "udp", or another protocol's number
	src, dst netip.AddrPort
	seq      uint32
	flags    byte
	data     []byte

	// Only for packets in a capture.
	id, frame     int
	user          bool
	iface, remark string
}

const (
	synFlag = 2
	rstFlag = 4
)

func (p *packet) String() string {
	return fmt.Sprintf("%s %v > %v, flags %#x, seq %d, %d bytes %.40q", p.network, p.src, p.dst, p.flags, p.seq, len(p.data), p.data)
}

// wire is the test's own packet socket on the loopback interface of a namespace, with a
// queue that never overflows: it has what the other side sent.
type wire struct {
	testing.TB
	fd       int
	stopping atomic.Bool
	stopped  chan error
	packets  []packet
}

// wireQueue is in bytes. Only what is queued takes memory.
const wireQueue = 512 << 20

func (b *bench) tapWire() *wire {
	b.Helper()
	b.awaitClosed()
	w := &wire{TB: b, stopped: make(chan error, 1)}
	err := b.ns.Do(func() (err error) {
		// No protocol, so that it receives nothing until its queue is large.
		w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		if err := unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, wireQueue); err != nil {
			return err
		}
		return unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL}), Ifindex: 1})
	})
	if err != nil {
		b.Fatalf("tapping the wire: %v", err)
	}
	go func() { w.stopped <- w.receive() }()
	return w
}

// receive reads packets until stop was called and the queue is empty.
func (w *wire) receive() error {
	buf := make([]byte, 1<<17)
	for {
		last := w.stopping.Load()
		for {
			n, from, err := unix.Recvfrom(w.fd, buf, 0)
			if err == unix.EAGAIN {
				break
			}
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return err
			}
			// What leaves through the loopback interface comes in again.
			if at, ok := from.(*unix.SockaddrLinklayer); ok && at.Pkttype == unix.PACKET_OUTGOING {
				continue
			}
			if p, ok := parsePacket(bytes.Clone(buf[:n])); ok {
				w.packets = append(w.packets, p)
			}
		}
		if last {
			return nil
		}
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, 20); err != nil && err != unix.EINTR {
			return err
		}
	}
}

// stop returns everything on the wire that a socket could receive.
func (w *wire) stop() []packet {
	w.Helper()
	w.stopping.Store(true)
	if err := <-w.stopped; err != nil {
		w.Fatalf("tapping the wire: %v", err)
	}
	defer unix.Close(w.fd)
	stats, err := unix.GetsockoptTpacketStats(w.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil || stats.Drops != 0 {
		w.Fatalf("the test's own tap has lost %+v: %v", stats, err)
	}
	return delivered(w.packets)
}

// parsePacket parses an IP packet.
func parsePacket(b []byte) (p packet, ok bool) {
	var src, dst netip.Addr
	var protocol byte
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		src, _ = netip.AddrFromSlice(b[12:16])
		dst, _ = netip.AddrFromSlice(b[16:20])
		protocol = b[9]
		// The packet quoted in an ICMP message may be truncated.
		b = b[int(b[0]&15)*4 : min(int(binary.BigEndian.Uint16(b[2:])), len(b))]
	case len(b) >= 40 && b[0]>>4 == 6:
		src, _ = netip.AddrFromSlice(b[8:24])
		dst, _ = netip.AddrFromSlice(b[24:40])
		protocol = b[6]
		b = b[40:]
	default:
		return p, false
	}
	p.network = strconv.Itoa(int(protocol))
	var from, to uint16
	switch {
	case protocol == unix.IPPROTO_TCP && len(b) >= 20:
		p.network, p.seq, p.flags = "tcp", binary.BigEndian.Uint32(b[4:]), b[13]
		from, to = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		p.data = b[b[12]>>4*4:]
	case protocol == unix.IPPROTO_UDP && len(b) >= 8:
		p.network = "udp"
		from, to = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		p.data = b[8:]
	default:
		p.data = b
	}
	p.src, p.dst = netip.AddrPortFrom(src, from), netip.AddrPortFrom(dst, to)
	return p, true
}

// refuses tells whether a packet says that the port of another one is unreachable.
func (p *packet) refuses(sent *packet) bool {
	if p.network == "tcp" { // answers what acknowledges nothing: a SYN
		return sent.network == "tcp" && sent.flags&synFlag != 0 && sent.src == p.dst && sent.dst == p.src
	}
	if len(p.data) < 8 || sent.network != "udp" {
		return false
	}
	unreachable := p.network == "1" && p.data[0] == 3 && p.data[1] == 3 || p.network == "58" && p.data[0] == 1 && p.data[1] == 4
	quoted, ok := parsePacket(p.data[8:])
	return unreachable && ok && quoted.network == "udp" && quoted.src == sent.src && quoted.dst == sent.dst && bytes.HasPrefix(sent.data, quoted.data)
}

// mayRefuse tells whether a packet may be such a refusal.
func (p *packet) mayRefuse() bool {
	return p.network == "1" || p.network == "58" || p.network == "tcp" && p.flags&rstFlag != 0 && p.seq == 0
}

// delivered leaves out what no socket could receive.
func delivered(all []packet) []packet {
	refused := make(map[int]bool)
	for i := range all {
		if !all[i].mayRefuse() {
			continue
		}
		for n := range all[:i] {
			if !refused[n] && all[i].refuses(&all[n]) {
				refused[n] = true
				break
			}
		}
	}
	var some []packet
	for i := range all {
		if !refused[i] {
			some = append(some, all[i])
		}
	}
	return some
}

// captureFields are the fields of a capture that tshark prints.
var captureFields = []string{
	"frame.number", "frame.interface_name", "frame.packet_id", "frame.comment",
	"ip.src", "ipv6.src", "exported_pdu.ipv4_src", "exported_pdu.ipv6_src",
	"ip.dst", "ipv6.dst", "exported_pdu.ipv4_dst", "exported_pdu.ipv6_dst",
	"tcp.srcport", "udp.srcport", "exported_pdu.src_port",
	"tcp.dstport", "udp.dstport", "exported_pdu.dst_port",
	"tcp.seq_raw", "tcp.flags", "tcp.payload", "udp.payload", "data.data", "ip.proto", "ipv6.nxt", "ip.checksum.status",
}

// packets reads a capture.
func (b *bench) packets(file string) []packet {
	b.Helper()
	args := []string{"tshark", "-r", file, "-n", "-o", "tcp.desegment_tcp_streams:FALSE", "-o", "ip.check_checksum:TRUE", "-T", "fields", "-E", "occurrence=f"}
	for _, name := range captureFields {
		args = append(args, "-e", name)
	}
	var all []packet
	for line := range strings.Lines(b.must(args...)) {
		row := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		fields := make(map[string]string)
		for i, name := range captureFields {
			fields[name] = row[i]
		}
		all = append(all, b.capturedPacket(fields))
	}
	return all
}

// capturedPacket makes a packet from tshark's fields.
func (b *bench) capturedPacket(fields map[string]string) packet {
	b.Helper()
	first := func(names ...string) string {
		for _, name := range names {
			if fields[name] != "" {
				return fields[name]
			}
		}
		return ""
	}
	number := func(names ...string) int {
		n, err := strconv.ParseUint(first(names...), 0, 64)
		if err != nil && first(names...) != "" {
			b.Fatal(err)
		}
		return int(n)
	}
	address := func(which, port string) netip.AddrPort {
		a, err := netip.ParseAddr(first("ip."+which, "ipv6."+which, "exported_pdu.ipv4_"+which, "exported_pdu.ipv6_"+which))
		if err != nil {
			b.Fatalf("frame %s: %v", fields["frame.number"], err)
		}
		return netip.AddrPortFrom(a, uint16(number("tcp."+port, "udp."+port, "exported_pdu."+strings.Replace(port, "port", "_port", 1))))
	}
	p := packet{
		frame: number("frame.number"), id: number("frame.packet_id"), iface: fields["frame.interface_name"], remark: fields["frame.comment"],
		src: address("src", "srcport"), dst: address("dst", "dstport"),
		seq: uint32(number("tcp.seq_raw")), flags: byte(number("tcp.flags")),
	}
	kind, view, _ := strings.Cut(p.iface, ":")
	p.network, p.user = strings.TrimSuffix(kind, "6"), view == "user"
	data := first("tcp.payload", "udp.payload")
	switch protocol := first("ip.proto", "ipv6.nxt"); {
	case p.user:
		data = fields["data.data"]
	case protocol != "6" && protocol != "17":
		data = ""
	}
	if fields["ip.checksum.status"] == "0" {
		b.Errorf("frame %d has a wrong checksum in its IP header", p.frame)
	}
	var err error
	if p.data, err = hex.DecodeString(data); err != nil {
		b.Fatalf("frame %d: %v", p.frame, err)
	}
	return p
}
