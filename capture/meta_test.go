package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// sendFrames sends frames to an interface of a namespace, with a mark.
func sendFrames(tb testing.TB, ns *Namespace, device string, mark int, frames ...[]byte) {
	tb.Helper()
	err := ns.Do(func() error {
		i, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark); err != nil {
			return err
		}
		for _, frame := range frames {
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: i.Index}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// taggedFrame is a datagram in a frame to lo, with what stands between its
// addresses and its type.
func taggedFrame(tag string) []byte {
	b := append(make([]byte, 12), tag+"\x08\x00"...)
	b = append(b, "\x45\x00\x00\x27\x00\x01\x40\x00\x40\x11\x3c\xc3\x7f\x00\x00\x01\x7f\x00\x00\x01\xc3\x50\x42\x42\x00\x13\x00\x00"...)
	return append(b, ProbePayload...)
}

// The kernel takes the tag out of a frame that comes in: the filter and
// userspace see none in the bytes, and a packet of all frames says which one it was.
func TestTag(t *testing.T) {
	t.Parallel()
	ns := mustNamespace(t)
	without := taggedFrame("")
	for kind, offset := range map[string]int{"packet": 0, "packet-dgram": 14} {
		sink, _ := run(t, Config{Kind: mustKind(t, kind), Namespace: ns, Options: Options{Views: allViews}}, func(s *Session) {
			sendFrames(t, ns, "lo", 42, taggedFrame("\x81\x00\x60\x64"), taggedFrame("\x81\x00\x00\x00"), without, taggedFrame("\x88\xa8\x00\xc8\x81\x00\x00\x07"))
			if err := s.settle(t.Context(), Counts{}); err != nil {
				t.Error(err)
			}
		})
		for _, view := range []View{ViewKernel, ViewLink, ViewNet} {
			var in []Packet
			for _, p := range sink.view(view) {
				if p.Direction == Inbound && bytes.HasSuffix(p.Data, []byte(ProbePayload)) {
					in = append(in, p)
				}
			}
			want := []Meta{{VLANProto: 0x8100, VLANTCI: 0x6064}, {VLANProto: 0x8100}, {}, {VLANProto: 0x88a8, VLANTCI: 200}}
			switch {
			case kind == "packet-dgram":
				want = make([]Meta, 3) // bound to IPv4: by then the kernel has forgotten the tag
			case view == ViewNet:
				want = want[:3] // behind the inner tag is no IPv4 packet for the tap
			}
			if len(in) != len(want) {
				t.Fatalf("%s:%s has %d packets, want %d", kind, view, len(in), len(want))
			}
			for n, p := range in {
				m := p.Meta
				if m.VLANProto != want[n].VLANProto || m.VLANTCI != want[n].VLANTCI || m.Mark != 42 {
					t.Errorf("%s:%s: packet %d has %+v, want %+v", kind, view, n, m, want[n])
				}
				if !p.Interface.HasMeta {
					t.Errorf("%s:%s does not say that it knows", kind, view)
				}
				if n == 3 {
					continue
				}
				begin := map[View]int{ViewKernel: offset, ViewNet: 14}[view]
				if !bytes.Equal(p.Data, without[begin:]) || p.Len != len(without)-begin {
					t.Errorf("%s:%s: packet %d is %x", kind, view, n, p.Data)
				}
			}
		}
		for _, p := range sink.view(ViewUser) {
			if p.Direction == Inbound && len(p.Data) == len(without)-offset && !bytes.Equal(p.Data, without[offset:]) {
				t.Errorf("%s: userspace got %x", kind, p.Data)
			}
		}
	}
}

// What a socket on this machine writes has its tag in the bytes on the way out,
// and the network header behind it.
func TestTagInBytes(t *testing.T) {
	t.Parallel()
	ns := mustNamespace(t)
	sink, _ := run(t, Config{Kind: mustKind(t, "packet"), Namespace: ns, Options: Options{Views: allViews}}, func(s *Session) {
		sendFrames(t, ns, "lo", 0, taggedFrame("\x81\x00\x00\x64"))
		if err := s.settle(t.Context(), Counts{}); err != nil {
			t.Error(err)
		}
	})
	kernel := sink.view(ViewKernel)
	if len(kernel) != 2 || kernel[0].Direction != Outbound || !bytes.Equal(kernel[0].Data, taggedFrame("\x81\x00\x00\x64")) || kernel[0].Meta.Tagged() {
		t.Fatalf("%+v", kernel)
	}
	for _, p := range sink.view(ViewNet) {
		if p.Data[0] != 0x45 {
			t.Errorf("net view %x", p.Data)
		}
	}
}

// Bulk over loopback travels in packets that stand for many segments.
func TestGSO(t *testing.T) {
	t.Parallel()
	ns := mustNamespace(t)
	if err := ns.SetMTU(1500); err != nil {
		t.Fatal(err)
	}
	const size = 1 << 20
	sink, _ := run(t, Config{Kind: mustKind(t, "tcp"), Namespace: ns}, func(s *Session) {
		conn := dialIn(t, s, "tcp")
		defer conn.Close()
		if _, err := io.Copy(conn, io.LimitReader(zeros{}, size)); err != nil {
			t.Error(err)
		}
		if err := s.settle(t.Context(), Counts{}); err != nil {
			t.Error(err)
		}
	})
	large := 0
	for _, p := range sink.view(ViewKernel) {
		m, payload := p.Meta, p.Len-32
		if payload > 1448 {
			large++
			if want := uint32((payload + 1447) / 1448); m.GSOSize != 1448 || m.GSOSegs != want {
				t.Errorf("%d bytes in %d segments of %d, want %d of 1448", payload, m.GSOSegs, m.GSOSize, want)
			}
		} else if m.GSOSize == 0 && m.GSOSegs != 0 {
			t.Errorf("%+v", m)
		}
		if m.Tagged() || m.Mark != 0 {
			t.Errorf("%+v", m)
		}
	}
	if large == 0 {
		t.Error("no packet is larger than a segment")
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// A packet socket's auxiliary data says of which packets the checksum is not there yet.
func TestChecksumPartial(t *testing.T) {
	t.Parallel()
	ns := mustNamespace(t)
	wire := tapWire(t, ns)
	if err := unix.SetsockoptInt(wire.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		t.Fatal(err)
	}
	partial := 0
	for _, name := range []string{"tcp", "tcp6", "udp", "udp6"} {
		var port uint16
		kind := mustKind(t, name)
		sink, _ := run(t, Config{Kind: kind, Namespace: ns, Options: Options{Views: []View{ViewKernel, ViewNet, ViewWire}}}, func(s *Session) {
			port = s.main.local.Port()
			conn := dialIn(t, s, strings.TrimSuffix(name, "6"))
			for n := range 8 {
				if _, err := conn.Write(pattern(n * n * 300)); err != nil {
					t.Error(err)
				}
			}
			conn.Close()
			if name == "udp" {
				sendWithChecksum(t, ns, port, "of a raw socket")
			}
			if err := s.settle(t.Context(), Counts{}); err != nil {
				t.Error(err)
			}
		})
		var want []bool
		for {
			ip, oob := make([]byte, 1<<16), make([]byte, 64)
			n, oobn, _, from, err := unix.Recvmsg(wire.fd, ip, oob, 0)
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if from.(*unix.SockaddrLinklayer).Pkttype == unix.PACKET_OUTGOING || n < 24 ||
				binary.BigEndian.Uint16(transport(ip)[2:]) != port {
				continue
			}
			messages, err := unix.ParseSocketControlMessage(oob[:oobn])
			if err != nil || len(messages) != 1 {
				t.Fatal(messages, err)
			}
			want = append(want, binary.NativeEndian.Uint32(messages[0].Data)&unix.TP_STATUS_CSUMNOTREADY != 0)
		}
		for _, view := range []View{ViewKernel, ViewNet, ViewWire} {
			var got []bool
			for _, p := range sink.view(view) {
				if view == ViewWire && p.Dst.Port() != port {
					continue // what the socket has sent
				}
				got = append(got, p.Meta.ChecksumPartial)
				if p.Meta.ChecksumPartial {
					partial++
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: checksums are partial: %v in the %s view, %v for a packet socket", name, got, view, want)
			}
		}
	}
	if partial == 0 {
		t.Error("all checksums were there")
	}
}

// sendWithChecksum sends a datagram to a port of 127.0.0.1 that has its checksum already.
func sendWithChecksum(t *testing.T, ns *Namespace, port uint16, payload string) {
	t.Helper()
	datagram := binary.BigEndian.AppendUint16([]byte{0x30, 0x39}, port)
	datagram = append(binary.BigEndian.AppendUint16(datagram, uint16(8+len(payload))), 0, 0)
	datagram = append(datagram, payload...)
	sum := uint32(0x7f00+1)*2 + unix.IPPROTO_UDP + uint32(len(datagram))
	for i, b := range datagram {
		sum += uint32(b) << (8 * (1 - i&1))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(datagram[6:], ^uint16(sum))
	err := ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, datagram, 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What sendfile sends are pages of the file, beside the headers. A small datagram is in one piece.
func TestNonLinear(t *testing.T) {
	t.Parallel()
	ns := mustNamespace(t)
	file, err := os.Create(filepath.Join(t.TempDir(), "page"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write(pattern(3000)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]uint32{"tcp": 3000, "udp": 0} {
		sink, _ := run(t, Config{Kind: mustKind(t, name), Namespace: ns, Options: Options{Views: []View{ViewKernel, ViewCgroup}}}, func(s *Session) {
			conn := dialIn(t, s, name)
			defer conn.Close()
			if _, err := file.Seek(0, io.SeekStart); err != nil {
				t.Error(err)
			}
			if name == "udp" {
				_, err = conn.Write(pattern(3000))
			} else {
				_, err = io.Copy(conn, file) // sendfile
			}
			if err != nil {
				t.Error(err)
			}
			if err := s.settle(t.Context(), Counts{}); err != nil {
				t.Error(err)
			}
		})
		brought := 0
		for _, p := range sink.view(ViewCgroup) {
			if p.Direction != Inbound || p.Len < 3000 {
				if p.Meta.NonLinear != 0 {
					t.Errorf("%s: of %d bytes %d are not linear", name, p.Len, p.Meta.NonLinear)
				}
				continue
			}
			if brought++; p.Meta.NonLinear != want {
				t.Errorf("%s: of %d bytes %d are not linear, want %d", name, p.Len, p.Meta.NonLinear, want)
			}
		}
		if brought != 1 {
			t.Errorf("%s: %d packets brought the bytes", name, brought)
		}
	}
}

func TestMetaOfRecord(t *testing.T) {
	t.Parallel()
	var rec bpf.Record
	rec.VlanTci, rec.VlanProto, rec.GsoSegs = 7, 0x81, 1 // no tag, and none of several segments
	rec.Hash, rec.QueueMapping, rec.Priority = 1, 2, 3
	if m := metaOf(&rec); m != (Meta{Hash: 1, Queue: 2, Priority: 3}) {
		t.Errorf("%+v", m)
	}
}
