package offset_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
	"github.com/ebpfdump/ebpfdump/internal/offset"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

const port = 16962

// long is a payload with which no packet is so short that a replay has no protocol for it.
const long = "no packet of less than forty bytes has one"

// sum is the checksum of the internet (RFC 1071).
func sum(parts ...[]byte) uint16 {
	b := slices.Concat(parts...)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	n := uint32(0)
	for i := 0; i < len(b); i += 2 {
		n += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return ^uint16(n)
}

var (
	from4, to4 = []byte{10, 77, 0, 2}, []byte{10, 77, 0, 1}
	from6, to6 = net.ParseIP("fd77::2").To16(), net.ParseIP("fd77::1").To16()
)

// ip4 makes a packet of IPv4 with options, of which the third and fourth byte of the flags are given.
func ip4(protocol byte, options []byte, fragment uint16, payload []byte) []byte {
	be := binary.BigEndian
	b := []byte{0x45 + byte(len(options)/4), 0}
	b = be.AppendUint16(b, uint16(20+len(options)+len(payload)))
	b = be.AppendUint16(b, 7)
	b = be.AppendUint16(b, fragment)
	b = append(b, 64, protocol, 0, 0)
	b = slices.Concat(b, from4, to4, options)
	be.PutUint16(b[10:], sum(b))
	return append(b, payload...)
}

func ip6(next byte, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(payload)))
	return slices.Concat(append(b, next, 64), from6, to6, payload)
}

// transport makes a header with its checksum, which stands at some place of it.
func transport(protocol byte, src, dst []byte, at int, b []byte) []byte {
	pseudo := slices.Concat(src, dst, []byte{0, 0, 0, protocol}, binary.BigEndian.AppendUint32(nil, uint32(len(b))))
	b = slices.Clone(b)
	binary.BigEndian.PutUint16(b[at:], sum(pseudo, b))
	return b
}

func udp(src, dst []byte, payload string) []byte {
	be := binary.BigEndian
	b := be.AppendUint16(be.AppendUint16(nil, 50000), port)
	b = append(be.AppendUint16(b, uint16(8+len(payload))), 0, 0)
	return transport(unix.IPPROTO_UDP, src, dst, 6, append(b, payload...))
}

func syn(dataOffset byte) []byte {
	be := binary.BigEndian
	b := be.AppendUint16(be.AppendUint16(nil, 50000), port)
	b = append(b, 0, 0, 0, 1, 0, 0, 0, 0, dataOffset<<4, 2, 0xfa, 0xf0, 0, 0, 0, 0)
	return transport(unix.IPPROTO_TCP, from4, to4, 16, append(b, long...))
}

// frames are what is sent, each with the header of the link that is given.
func frames(link, broadcast []byte) [][]byte {
	v4 := func(b []byte) []byte { return slices.Concat(link, []byte{8, 0}, b) }
	v6 := func(b []byte) []byte { return slices.Concat(link, []byte{0x86, 0xdd}, b) }
	padded := func(b []byte) []byte { return append(b, bytes.Repeat([]byte{0xee}, max(12, 60-len(b)))...) }
	datagram := udp(from4, to4, long)
	arp, _ := hex.DecodeString("0806" + "0001080006040001" + "020000000002" + "0a4d0002" + "000000000000" + "0a4d0009")
	destination := []byte{unix.IPPROTO_UDP, 0, 1, 4, 0, 0, 0, 0}
	return [][]byte{
		v4(ip4(unix.IPPROTO_UDP, nil, 0, udp(from4, to4, strings.Repeat("long", 80)))),
		padded(v4(ip4(unix.IPPROTO_UDP, nil, 0, datagram))),
		v4(ip4(unix.IPPROTO_UDP, []byte{1, 1, 1, 0}, 0, datagram)),
		v4(ip4(unix.IPPROTO_UDP, nil, 0, append(slices.Clone(datagram), "behind the datagram"...))),
		slices.Concat(link, []byte{0x81, 0, 0x60, 100, 8, 0}, ip4(unix.IPPROTO_UDP, nil, 0, datagram)),
		slices.Concat(link, []byte{0x88, 0xa8, 0, 7, 0x81, 0, 0, 100, 8, 0}, ip4(unix.IPPROTO_UDP, nil, 0, datagram)),
		padded(slices.Concat(broadcast, arp)),
		padded(slices.Concat(link, []byte{0, 38, 0x42, 0x42, 3, 0, 0})),
		padded(slices.Concat(link, []byte{0, 30, 0xff, 0xff, 1, 2, 3})),
		padded(v4(ip4(unix.IPPROTO_TCP, nil, 0, syn(5)))),
		padded(v4(ip4(unix.IPPROTO_TCP, nil, 0, syn(4)))),
		v6(ip6(unix.IPPROTO_UDP, udp(from6, to6, long))),
		v6(ip6(60, append(destination, udp(from6, to6, long+" behind options")...))),
	}
}

// watched is a socket with the filter.
type watched struct {
	kind string
	fd   int
	tap  *bpf.Tap
	live []int32
}

func open(t *testing.T, v *bpf.Verdict, device *net.Interface, kind string) (*watched, error) {
	wide := func(protocol uint16) int { return int(protocol>>8 | protocol<<8) }
	domain, typ, protocol := unix.AF_INET, unix.SOCK_DGRAM, 0
	var at unix.Sockaddr = &unix.SockaddrInet4{Port: port}
	switch kind {
	case "packet", "packet-dgram":
		domain, protocol, at = unix.AF_PACKET, 0, &unix.SockaddrLinklayer{Ifindex: device.Index, Protocol: uint16(wide(unix.ETH_P_ALL))}
		if kind == "packet" {
			typ = unix.SOCK_RAW
		}
	case "raw":
		typ, protocol = unix.SOCK_RAW, unix.IPPROTO_UDP
	case "raw6":
		domain, typ, protocol, at = unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_UDP, &unix.SockaddrInet6{}
	case "udp6":
		domain, at = unix.AF_INET6, &unix.SockaddrInet6{Port: port, Addr: [16]byte(to6)}
	case "tcp":
		typ = unix.SOCK_STREAM
	}
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	tap, err := bpf.Open(bpf.Options{RingSize: bpf.MinRingSize, Verdict: v})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	t.Cleanup(func() { tap.Close() })
	w := &watched{kind: kind, fd: fd, tap: tap}
	if err := tap.Attach(fd); err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	if err := unix.Bind(fd, at); err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	if kind == "tcp" {
		if err := unix.Listen(fd, 8); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// decisions are the filter's verdicts on what has come in.
func (w *watched) decisions(t *testing.T) []int32 {
	t.Helper()
	if err := w.tap.Flush(); err != nil {
		t.Fatal(err)
	}
	var rec bpf.Record
	var all []int32
	for {
		err := w.tap.Read(&rec)
		if errors.Is(err, bpf.ErrFlushed) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if rec.PktType != unix.PACKET_OUTGOING {
			all = append(all, rec.Verdict)
		}
	}
}

// TestKernel sends frames to sockets of many kinds, with a filter whose verdict depends on all that
// it sees, while tcpdump records them with each link type that it can. The verdicts of a replay
// must be those of the kernel.
func TestKernel(t *testing.T) {
	t.Parallel()
	testutil.RequirePrivilege(t)
	tcpdump := testutil.RequireTool(t, "tcpdump")
	verdict := digest(t)
	ns, err := capture.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	folder := t.TempDir()
	links := map[string][]string{
		"EN10MB": {"-i", "in0"}, "LINUX_SLL": {"-i", "any", "-y", "LINUX_SLL"}, "LINUX_SLL2": {"-i", "any", "-y", "LINUX_SLL2"},
	}
	var (
		sockets []*watched
		sent    [][]byte
	)
	if err := ns.Do(func() error {
		for _, line := range []string{
			"ip link add out0 type veth peer name in0", "ip link set out0 addrgenmode none up", "ip link set in0 addrgenmode none up",
			"ip addr add 10.77.0.1/24 dev in0", "ip -6 addr add fd77::1/64 dev in0 nodad",
			"ip neigh add 10.77.0.2 lladdr 02:00:00:00:00:02 dev in0", "ip -6 neigh add fd77::2 lladdr 02:00:00:00:00:02 dev in0",
		} {
			if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", line, err, out)
			}
		}
		out, err := net.InterfaceByName("out0")
		if err != nil {
			return err
		}
		in, err := net.InterfaceByName("in0")
		if err != nil {
			return err
		}
		for _, kind := range []string{"packet", "packet-dgram", "raw", "raw6", "udp", "udp6", "tcp"} {
			w, err := open(t, verdict, in, kind)
			if err != nil {
				return err
			}
			sockets = append(sockets, w)
		}
		var recorders []*recorder
		for name, args := range links {
			r, err := record(tcpdump, filepath.Join(folder, name+".pcap"), args)
			if err != nil {
				return err
			}
			recorders = append(recorders, r)
		}
		from := []byte{2, 0, 0, 0, 0, 2}
		sent = frames(append(slices.Clone(in.HardwareAddr), from...), append(bytes.Repeat([]byte{0xff}, 6), from...))
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, frame := range sent {
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: out.Index}); err != nil {
				return err
			}
		}
		for _, r := range recorders {
			if err := r.end(len(sent)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"packet": len(sent), "packet-dgram": len(sent), "raw": 4, "raw6": 2, "udp": 4, "udp6": 2, "tcp": 1}
	for _, w := range sockets {
		w.live = w.decisions(t)
		if len(w.live) != want[w.kind] {
			t.Fatalf("%s: the kernel has run the filter %d times, want %d", w.kind, len(w.live), want[w.kind])
		}
		for link := range links {
			if w.kind == "packet" && link != "EN10MB" {
				continue
			}
			asked := replay(t, verdict, filepath.Join(folder, link+".pcap"), w.kind)
			live := slices.Clone(w.live)
			leaveOut := func(from, to int) {
				asked, live = slices.Delete(asked, from, to), slices.Delete(live, from, to)
			}
			switch {
			case link == "LINUX_SLL" && w.kind == "packet-dgram": // which has not the protocol of what has two tags
				leaveOut(5, 6)
			case link == "LINUX_SLL2" && w.kind == "packet-dgram": // which has no tags, and that is known
				leaveOut(4, 6)
			case link == "LINUX_SLL2" && (w.kind == "raw" || w.kind == "udp"):
				asked = slices.Delete(asked, 4, 5) // it is for a VLAN, and nothing there says so
			case link == "EN10MB" && w.kind == "packet": // whose protocol a replay cannot give, and says so
				leaveOut(8, 9)
			}
			if !slices.Equal(asked, live) {
				t.Errorf("%s from %s:\n%x\nthe kernel's:\n%x", w.kind, link, asked, live)
			}
		}
	}
}

// recorder is a tcpdump.
type recorder struct {
	cmd  *exec.Cmd
	file string
}

func record(tcpdump, file string, args []string) (*recorder, error) {
	// What the machine answers comes in at the other end. A smaller snaplen leaves room for more
	// packets in the socket's ring.
	args = append([]string{"-Q", "in", "-n", "-U", "-s", "2000", "--immediate-mode", "-w", file}, args...)
	args = append(args, "not (ip src 10.77.0.1 or ip6 src fd77::1 or ip6 multicast)")
	r := &recorder{cmd: exec.Command(tcpdump, args...), file: file}
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	// The header is in the file when the socket is open.
	return r, eventually(func() bool {
		info, err := os.Stat(file)
		return err == nil && info.Size() >= 24
	})
}

// end waits until all packets are in the file.
func (r *recorder) end(packets int) error {
	err := eventually(func() bool {
		content, err := os.ReadFile(r.file)
		return err == nil && count(content) >= packets
	})
	if err != nil {
		content, _ := os.ReadFile(r.file)
		err = fmt.Errorf("%s has %d of %d packets: %w", r.file, count(content), packets, err)
	}
	return errors.Join(err, r.cmd.Process.Signal(unix.SIGTERM), r.cmd.Wait())
}

// count counts the packets of a pcap file.
func count(content []byte) (n int) {
	source, err := convert.Open(bytes.NewReader(content), nil, convert.ReadOptions{CutOff: true})
	if err != nil {
		return 0
	}
	for {
		if _, err := source.Next(); err != nil {
			return n
		}
		n++
	}
}

func eventually(done func() bool) error {
	for begin := time.Now(); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > 2*time.Minute {
			return errors.New("waited in vain for two minutes")
		}
	}
	return nil
}

// replay asks the filter about the packets of a capture.
func replay(t *testing.T, v *bpf.Verdict, file, name string) (verdicts []int32) {
	t.Helper()
	kind, _ := capture.KindByName(name)
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	source, err := convert.Open(bytes.NewReader(content), nil, convert.ReadOptions{Name: file})
	if err != nil {
		t.Fatal(err)
	}
	runner, err := bpf.OpenRunner(v)
	if err != nil {
		t.Fatal(err)
	}
	defer runner.Close()
	for {
		p, err := source.Next()
		if err != nil {
			return verdicts
		}
		// A packet socket without link headers gets those that are tagged for a device that there is
		// not as well; other sockets do not.
		seen, reason := offset.Of(p, kind)
		if reason != 0 || seen.VLANProto != 0 && kind.Family() != unix.AF_PACKET {
			continue
		}
		if kind.TakesProtocol() && kind.Layer() == capture.LayerNetwork && seen.Data[9] != unix.IPPROTO_UDP {
			continue
		}
		verdict, missing, err := runner.Run(seen.Data, bpf.Context{Protocol: seen.Protocol, KnownTag: seen.TagKnown, VLANProto: seen.VLANProto, VLANTCI: seen.VLANTCI})
		if err != nil {
			t.Fatal(err)
		}
		// The one that begins like a broadcast behind its length, and those whose tag was left out.
		if unknown := len(missing) > 0; unknown != (!seen.TagKnown || seen.Protocol == unix.ETH_P_802_3 && kind.Layer() == capture.LayerLink) {
			t.Errorf("%s from %s: %x: not known: %q", name, filepath.Base(file), seen.Data, missing)
		}
		verdicts = append(verdicts, verdict)
	}
}

// digest is the filter of bpf/testdata/filters.
func digest(t *testing.T) *bpf.Verdict {
	t.Helper()
	clang := testutil.RequireTool(t, "clang")
	machine, err := exec.Command("uname", "-m").Output()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "digest.o")
	compile := exec.Command(clang, "-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v2",
		"-idirafter", "/usr/include/"+strings.TrimSpace(string(machine))+"-linux-gnu",
		"-c", filepath.Join("..", "..", "bpf", "testdata", "filters", "digest.c"), "-o", path)
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	v, err := bpf.ReadVerdict(path, "")
	if err != nil {
		t.Fatal(err)
	}
	return v
}
