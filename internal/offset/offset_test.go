package offset

import (
	"bytes"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
)

const (
	// a datagram from 10.0.0.1:1111 to 10.0.0.2:23001, four bytes
	datagram = "\x04\x57\x59\xd9\x00\x0c\x00\x00abcd"
	ipv4     = "\x45\x00\x00\x20\x00\x01\x00\x00\x40\x11\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02"
	fragment = "\x45\x00\x00\x20\x00\x01\x20\x00\x40\x11\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02"
	later    = "\x45\x00\x00\x20\x00\x01\x00\x02\x40\x11\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02"
	ipv6     = "\x60\x00\x00\x00\x00\x0c\x11\x40" + "0123456789abcdef" + "fedcba9876543210"
	frame    = "\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x08\x00"
	tagged   = "\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x81\x00\x60\x64\x08\x00"
	cooked   = "\x00\x00\x00\x01\x00\x06\x02\x00\x00\x00\x00\x01\x00\x00"
	cooked2  = "\x86\xdd\x00\x00\x00\x00\x00\x02\x00\x01\x00\x06\x02\x00\x00\x00\x00\x01\x00\x00"
	echo     = "\x45\x00\x00\x1c\x00\x01\x00\x00\x40\x01\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02\x08\x00\x00\x00\x00\x00\x00\x00"
	reply    = "\x45\x00\x00\x1c\x00\x01\x00\x00\x40\x01\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00"
)

func of(link uint16) *capture.Interface {
	return &capture.Interface{Layer: capture.LayerForeign, LinkType: link}
}

var ethernet = &capture.Interface{Layer: capture.LayerLink}

// TestOf looks at what no kernel here records by itself, and at what is left out.
func TestOf(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, kind string
		iface      *capture.Interface
		packet     string
		want       string
		reason     Reason
	}{
		{"a frame", "packet", ethernet, frame + ipv4 + datagram, frame + ipv4 + datagram, 0},
		{"a frame's datagram", "udp", ethernet, frame + ipv4 + datagram + "padding", datagram, 0},
		{"a frame's packet", "raw", ethernet, frame + ipv4 + datagram + "padding", ipv4 + datagram, 0},
		{"with its padding", "packet-dgram", ethernet, frame + ipv4 + datagram + "padding", ipv4 + datagram + "padding", 0},
		{"a tag is beside the bytes", "packet", ethernet, tagged + ipv4 + datagram, frame + ipv4 + datagram, 0},
		{"half a tag", "packet", ethernet, tagged[:16], tagged[:16], 0},
		{"half a frame", "packet", ethernet, frame[:13], "", Damaged},
		{"not TCP", "tcp", ethernet, frame + ipv4 + datagram, "", OtherProtocol},
		{"not IPv6", "udp6", ethernet, frame + ipv4 + datagram, "", OtherProtocol},
		{"a first fragment", "udp", ethernet, frame + fragment + datagram, "", Fragment},
		{"a later one", "raw", ethernet, frame + later + datagram, "", Fragment},
		{"which packet sockets get", "packet-dgram", ethernet, frame + later + datagram, later + datagram, 0},
		{"half a header of IP", "udp", ethernet, frame + ipv4[:19], "", Damaged},
		{"less than the header says", "udp", ethernet, frame + ipv4 + datagram[:11], "", Damaged},
		{"RAW", "udp", of(linkRaw), ipv4 + datagram, datagram, 0},
		{"RAW with IPv6", "udp6", of(linkRaw), ipv6 + datagram, datagram, 0},
		{"RAW with neither", "raw", of(linkRaw), "x", "", OtherLayer},
		{"RAW with nothing", "raw", of(linkRaw), "", "", Damaged},
		{"no link header", "packet", of(linkRaw), ipv4 + datagram, "", OtherLayer},
		{"IPv4", "packet-dgram", of(linkIPv4), ipv4 + datagram, ipv4 + datagram, 0},
		{"NULL, little endian", "packet-dgram", of(linkNull), "\x02\x00\x00\x00" + ipv4 + datagram, ipv4 + datagram, 0},
		{"NULL, big endian", "udp", of(linkNull), "\x00\x00\x00\x02" + ipv4 + datagram, datagram, 0},
		{"NULL, Darwin's IPv6", "udp6", of(linkNull), "\x1e\x00\x00\x00" + ipv6 + datagram, datagram, 0},
		{"LOOP", "raw6", of(linkLoop), "\x00\x00\x00\x18" + ipv6 + datagram, datagram, 0},
		{"NULL, another family", "packet-dgram", of(linkNull), "\x07\x00\x00\x00" + ipv4, "", OtherLayer},
		{"half of NULL", "packet-dgram", of(linkNull), "\x02\x00", "", Damaged},
		{"cooked", "udp", of(linkCooked), cooked + "\x08\x00" + ipv4 + datagram, datagram, 0},
		{"cooked with a tag", "packet-dgram", of(linkCooked), cooked + "\x81\x00\x60\x64\x08\x00" + ipv4 + datagram, ipv4 + datagram, 0},
		{"half of cooked", "udp", of(linkCooked), cooked, "", Damaged},
		{"cooked netlink", "packet-dgram", of(linkCooked), "\x00\x00\x03\x38" + cooked[4:] + "\x08\x00" + ipv4, "", OtherLayer},
		{"cooked v2", "udp6", of(linkSLL2), cooked2 + ipv6 + datagram, datagram, 0},
		{"half of cooked v2", "udp6", of(linkSLL2), cooked2[:19], "", Damaged},
		{"unknown", "packet", of(127), ipv4, "", OtherLink},
		{"a ping, which no ping socket gets", "icmp", of(linkRaw), echo, "", OtherProtocol},
		{"its answer, which it gets", "icmp", of(linkRaw), reply, reply[20:], 0},
	} {
		kind, ok := capture.KindByName(test.kind)
		if !ok {
			t.Fatal(test.kind)
		}
		data := []byte(test.packet)
		got, reason := Of(&capture.Packet{Interface: test.iface, Data: data, Len: len(data)}, kind)
		if reason != test.reason || string(got.Data) != test.want || got.Len != len(test.want) {
			t.Errorf("%s: reason %d, %d bytes: %q\nwant reason %d: %q", test.name, reason, got.Len, got.Data, test.reason, test.want)
		}
	}
	udp, _ := capture.KindByName("udp")
	cut, reason := Of(&capture.Packet{Interface: ethernet, Data: []byte(frame + ipv4 + datagram[:9]), Len: 60}, udp)
	if reason != 0 || cut.Len != len(datagram) || string(cut.Data) != datagram[:9] {
		t.Errorf("a packet that the snaplen has cut: reason %d, %d of %d bytes", reason, len(cut.Data), cut.Len)
	}
	tag, _ := Of(&capture.Packet{Interface: of(linkCooked), Data: []byte(cooked + "\x81\x00\x60\x64\x08\x00" + ipv4)}, udp)
	if tag.TagKnown {
		t.Error("a packet that is left out has a tag")
	}
	packet, _ := capture.KindByName("packet")
	if tag, _ = Of(&capture.Packet{Interface: ethernet, Data: []byte(tagged + ipv4)}, packet); tag.VLANProto != 0x8100 || tag.VLANTCI != 0x6064 || tag.Protocol != 0x800 {
		t.Errorf("%+v", tag)
	}
}

// FuzzOf holds that no packet gives a socket more than there is.
func FuzzOf(f *testing.F) {
	for _, link := range []uint16{1, linkNull, linkRaw, linkCooked, linkSLL2} {
		for _, packet := range []string{frame + ipv4 + datagram, tagged + ipv4, cooked + "\x08\x00" + ipv4 + datagram, cooked2 + ipv6 + datagram, "\x02\x00\x00\x00" + ipv4 + datagram, reply} {
			f.Add(link, []byte(packet), uint16(0))
		}
	}
	kinds := capture.Kinds()
	f.Fuzz(func(t *testing.T, link uint16, data []byte, more uint16) {
		i := of(link)
		if link == 1 {
			i = ethernet
		}
		before := bytes.Clone(data)
		for _, kind := range kinds {
			if !Has(&kind) {
				continue
			}
			p := capture.Packet{Interface: i, Data: data, Len: len(data) + int(more)}
			s, reason := Of(&p, &kind)
			if len(s.Data) > s.Len || s.Len > p.Len || reason != 0 && (s.Len != 0 || s.Data != nil) || int(reason) >= Reasons {
				t.Fatalf("%s: reason %d, %d of %d bytes from %d", kind.Name, reason, len(s.Data), s.Len, p.Len)
			}
		}
		if !bytes.Equal(before, data) {
			t.Fatal("the packet is changed")
		}
	})
}
