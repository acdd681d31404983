package convert

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/gopacket/pcapgo"

	"github.com/ebpfdump/ebpfdump/capture"
)

// pcapFile is the header of a pcap file.
func pcapFile(order binary.AppendByteOrder, magic, link uint32) []byte {
	b := order.AppendUint32(nil, magic)
	b = order.AppendUint16(order.AppendUint16(b, 2), 4)
	return order.AppendUint32(order.AppendUint32(append(b, 0, 0, 0, 0, 0, 0, 0, 0), 65535), link)
}

func pcapPacket(order binary.AppendByteOrder, seconds, fraction, length uint32, data string) []byte {
	b := order.AppendUint32(order.AppendUint32(nil, seconds), fraction)
	return append(order.AppendUint32(order.AppendUint32(b, uint32(len(data))), length), data...)
}

func TestReadPcap(t *testing.T) {
	t.Parallel()
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		for magic, unit := range map[uint32]int64{pcapMicroseconds: 1000, pcapNanoseconds: 1} {
			f := pcapFile(order, magic, 0xf000_0071)
			f = append(f, pcapPacket(order, 1, 2, 9, "first")...)
			f = append(f, pcapPacket(order, 1<<32-1, 3, 0, "")...)
			packets := mustRead(t, bytes.NewReader(f), ReadOptions{})
			if len(packets) != 2 {
				t.Fatalf("%d packets", len(packets))
			}
			p := packets[0]
			if *p.Interface != (capture.Interface{Layer: capture.LayerForeign, LinkType: 0x71}) || p.Time != 1e9+2*unit || p.Len != 9 || string(p.Data) != "first" {
				t.Errorf("%+v of %+v", p, p.Interface)
			}
			for n := 4; n < len(f)-pcapRecord; n++ {
				got := read(t, bytes.NewReader(f[:n]), ReadOptions{})
				want, at := 0, 0
				if n >= pcapHeader {
					at = pcapHeader
				}
				if n >= pcapHeader+pcapRecord+5 {
					want, at = 1, pcapHeader+pcapRecord+5
				}
				if n == at {
					continue
				}
				if wanted := fmt.Sprintf("in: at byte %d: the file is cut off here", at); len(got.packets) != want || fmt.Sprint(got.err) != wanted {
					t.Errorf("cut at %d: %d packets, error %v, want %s", n, len(got.packets), got.err, wanted)
				}
			}
		}
	}
}

// writeAs writes packets in some format.
func writeAs(t testing.TB, name string, w io.Writer, packets ...*capture.Packet) error {
	t.Helper()
	format, ok := FormatByName(name)
	if !ok {
		t.Fatalf("no form %s", name)
	}
	writer, err := format.Create(w, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packets {
		if err := writer.WritePacket(p); err != nil {
			return err
		}
	}
	return writer.Flush()
}

func TestWritePcap(t *testing.T) {
	t.Parallel()
	packets := handshake(t, tcpKernel, client4, server4)
	packets[3].Len += 10
	var file bytes.Buffer
	if err := writeAs(t, "pcap", &file, packets...); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "out.pcap")
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	rows := fields(t, path, "frame.time_epoch", "frame.len", "frame.cap_len", "tcp.flags.str", "data.data")
	const at = "1793880000.123456789|"
	wantFields(t, rows, at+"40|40|··········S·|", at+"40|40|·······A··S·|", at+"40|40|·······A····|", at+"61|51|·······AP···|303132333435363738390a")
	if out := run(t, "tcpdump", "-nr", path); strings.Count(out, "Flags") != 4 {
		t.Errorf("tcpdump reads\n%s", out)
	}
	r, err := pcapgo.NewReader(&file)
	if err != nil {
		t.Fatal(err)
	}
	for n, p := range packets {
		data, info, err := r.ReadPacketData()
		if err != nil || !bytes.HasSuffix(data, p.Data) || info.Timestamp.UnixNano() != p.Time {
			t.Errorf("packet %d: %v at %v", n, err, info.Timestamp)
		}
	}
}

func TestPcapHasOneLinkType(t *testing.T) {
	t.Parallel()
	var file bytes.Buffer
	udp := datagram(t, udpKernel, client4, server4, probe)
	err := writeAs(t, "pcap", &file, udp, &capture.Packet{Interface: udpUser})
	if err == nil || !strings.Contains(err.Error(), "udp:user: its link type is 252, and pcap has room for one, which is 101") {
		t.Errorf("error %v", err)
	}
	file.Reset()
	if err := writeAs(t, "pcap", &file); err != nil || file.Len() != pcapHeader {
		t.Errorf("empty file of %d bytes, error %v", file.Len(), err)
	}
	for form, want := range map[string]int{"pcap": 4, "text": 3} {
		f, _ := FormatByName(form)
		s := Selection{Format: f}
		taken := 0
		for _, p := range append(fewPackets(t), udp) {
			if s.Takes(p) {
				taken++
			}
		}
		left := s.LeftOut()
		if taken != want || len(left) != 5-want || left[0] != (LeftOut{udpUser, 2, ReasonView}) {
			t.Errorf("%s: %d taken, %v left out", form, taken, left)
		}
		// A text does not say which version of IP it has.
		if form == "text" && left[1] != (LeftOut{udp6Kernel, 1, ReasonLinkType}) {
			t.Errorf("%v left out", left)
		}
	}
}

// In pcap both versions of IP are RAW. Read again, packets have their version, and what
// is neither keeps its type. pcapng never has RAW for a view.
func TestPcapRaw(t *testing.T) {
	t.Parallel()
	raw := plainInterface("", "", linkRaw)
	packets := []*capture.Packet{
		datagram(t, udpKernel, client4, server4, probe), datagram(t, udp6Kernel, client6, server6, probe),
		{Interface: &raw, Data: []byte("\x00neither")}, {Interface: &raw},
	}
	var file bytes.Buffer
	if err := writeAs(t, "pcap", &file, packets...); err != nil {
		t.Fatal(err)
	}
	if link := order.Uint32(file.Bytes()[20:]); link != 101 {
		t.Errorf("link type %d", link)
	}
	path := filepath.Join(t.TempDir(), "raw.pcap")
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	wantFields(t, fields(t, path, "ip.src", "ipv6.src", "udp.length", "data.data")[:2],
		"127.0.0.1||19|303132333435363738390a", "|fe80::1|19|303132333435363738390a")
	if out := run(t, "tcpdump", "-nr", path); strings.Count(out, "16962: UDP, length 11") != 2 {
		t.Errorf("tcpdump reads\n%s", out)
	}

	again := mustRead(t, bytes.NewReader(file.Bytes()), ReadOptions{})
	for i, want := range []capture.Interface{
		{Layer: capture.LayerNetwork}, {Layer: capture.LayerNetwork, IPv6: true}, raw, raw,
	} {
		if got := *again[i].Interface; got != want {
			t.Errorf("packet %d is of %+v, want %+v", i+1, got, want)
		}
	}
	var ng, twice bytes.Buffer
	if err := writeAs(t, "pcapng", &ng, again...); err != nil {
		t.Fatal(err)
	}
	var links []uint16
	for _, p := range mustRead(t, &ng, ReadOptions{}) {
		link, err := linkType(p.Interface)
		if err != nil {
			t.Fatal(err)
		}
		links = append(links, link)
	}
	if fmt.Sprint(links) != "[228 229 101 101]" {
		t.Errorf("pcapng has the link types %v", links)
	}
	if err := writeAs(t, "pcap", &twice, again...); err != nil || !bytes.Equal(twice.Bytes(), file.Bytes()) {
		t.Errorf("written again it differs: %v", err)
	}
}

// TestFullDiskLeavesWholePackets makes the disk full at every byte of every format.
func TestFullDiskLeavesWholePackets(t *testing.T) {
	t.Parallel()
	p := datagram(t, udpKernel, client4, server4, probe)
	p.Comment = "task nc-1, cpu 0"
	for form, size := range map[string]func(file []byte) bool{
		"pcap": func(f []byte) bool { return len(f) == 0 || (len(f)-pcapHeader)%(pcapRecord+20+19) == 0 },
		"json": func(f []byte) bool { return len(f) == 0 || bytes.HasSuffix(f, []byte("}\n")) },
		"text": func(f []byte) bool { return len(f) == 0 || bytes.HasSuffix(f, []byte("printk: \n")) },
	} {
		var whole bytes.Buffer
		if err := writeAs(t, form, &whole, p, p, p); err != nil {
			t.Fatal(err)
		}
		for limit := range whole.Len() {
			f := &limitedFile{limited: limited{limit: limit}}
			if err := writeAs(t, form, f, p, p, p); err == nil {
				t.Fatalf("%s, limit %d: no error", form, limit)
			}
			if !size(f.Bytes()) || !bytes.HasPrefix(whole.Bytes(), f.Bytes()) {
				t.Fatalf("%s, limit %d: %d bytes are left: %q", form, limit, f.Len(), f.Bytes())
			}
		}
	}
}
