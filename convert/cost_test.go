package convert

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
)

func TestNoAllocations(t *testing.T) {
	w, err := NewWriter(io.Discard, Section{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*capture.Packet{
		datagram(t, udpKernel, client4, server4, probe),
		datagram(t, udp6Kernel, client6, server6, probe),
		message(udpUser, client6, server6, protocolUDP, probe),
	} {
		p.ID, p.Drops, p.Comment = 1, 2, "truncated"
		if n := testing.AllocsPerRun(20000, func() {
			if err := w.WritePacket(p); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations a packet", p.Interface.Name(), n)
		}
	}
}

func BenchmarkWriter(b *testing.B) {
	for _, size := range []int{64, 1400} {
		payload := strings.Repeat("x", size-8)
		for _, p := range []*capture.Packet{
			{Interface: rawKernel, Data: ipv4([]byte(payload))[:size]},
			datagram(b, udpKernel, client4, server4, payload),
			datagram(b, udp6Kernel, client6, server6, payload),
			message(udpUser, client4, server4, protocolUDP, payload+"12345678"),
		} {
			p.ID, p.Len = 1, len(p.Data)
			b.Run(fmt.Sprintf("%s/%d", p.Interface.Name(), size), func(b *testing.B) {
				w, err := NewWriter(io.Discard, Section{})
				if err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				b.SetBytes(int64(len(p.Data)))
				for b.Loop() {
					if err := w.WritePacket(p); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkCopy copies a packet with four options from pcapng to pcapng.
func BenchmarkCopy(b *testing.B) {
	f := newFile(binary.LittleEndian)
	f.section()
	f.iface(linkEthernet)
	const packets = 10000
	for range packets {
		f.packet(0, 1700000000123456, frame(b, probe), numbersOption(packetFlags, 1), numberOption(packetID, 1), stringOption(optionComment, "a comment"), endOfOptions)
	}
	b.SetBytes(int64(f.Len()))
	for b.Loop() {
		source, err := Open(bytes.NewReader(f.Bytes()), nil, ReadOptions{})
		if err != nil {
			b.Fatal(err)
		}
		items := itemsOf(source.Reader)
		file := NewStream(io.Discard, Pcapng())
		if err := file.Begin(WriteOptions{From: []*Source{source}}); err != nil {
			b.Fatal(err)
		}
		for {
			item, err := items.NextItem()
			if err != nil {
				break
			}
			if err := file.WriteItem(item); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/packets, "ns/packet")
}
