package convert_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net/netip"
	"os"

	"github.com/google/gopacket/pcapgo"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
)

// Two observers' bytes of one datagram, joined by the packet's ID.
func ExampleWriter() {
	kernel := &capture.Interface{
		Kind: "udp", View: capture.ViewKernel, Layer: capture.LayerTransport,
		Description: "UDP datagrams as the socket filter sees them; the IPv4 header is synthetic",
	}
	user := &capture.Interface{
		Kind: "udp", View: capture.ViewUser, Layer: capture.LayerMessage,
		Description: "what recv returned",
	}
	src, dst := netip.MustParseAddrPort("127.0.0.1:52638"), netip.MustParseAddrPort("127.0.0.1:16962")

	var file bytes.Buffer
	w, err := convert.NewWriter(&file, convert.Section{Application: "example"})
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range []*capture.Packet{
		{Interface: kernel, ID: 1, Data: []byte("\xcd\x9e\x42\x42\x00\x0a\x00\x00hi"), Src: src, Dst: dst, Protocol: 17},
		{Interface: user, ID: 1, Data: []byte("hi"), Src: src, Dst: dst, Protocol: 17, Call: "recvfrom"},
	} {
		if err := w.WritePacket(p); err != nil {
			log.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		log.Fatal(err)
	}

	r, err := pcapgo.NewNgReader(&file, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		data, info, err := r.ReadPacketData()
		if err != nil {
			log.Fatal(err)
		}
		i, err := r.Interface(info.InterfaceIndex)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s, link type %d, %d bytes that end with %q\n", i.Name, i.LinkType, len(data), data[len(data)-2:])
	}
	// Output:
	// udp:kernel, link type 228, 30 bytes that end with "hi"
	// udp:user, link type 252, 66 bytes that end with "hi"
}

// What each view of a capture got of each packet.
func ExampleOpen() {
	file, err := os.Open("../samples/udp.pcapng")
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	source, err := convert.Open(file, nil, convert.ReadOptions{Name: file.Name()})
	if err != nil {
		log.Fatal(err)
	}
	for {
		p, err := source.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			log.Fatal(err) // a *convert.InputError
		}
		payload := p.Data
		if p.Interface.Layer == capture.LayerTransport {
			payload = payload[8:] // behind the UDP header
		}
		fmt.Printf("packet %d, view %v: %d bytes, payload %q\n", p.ID, p.Interface.View, p.Len, payload)
	}
	// Output:
	// packet 1, view kernel: 19 bytes, payload "0123456789\n"
	// packet 1, view user: 11 bytes, payload "0123456789\n"
}
