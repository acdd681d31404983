package convert

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/remark"
)

// streamTalk is a conversation through a unix stream, of which the description says what it is decoded
// as.
func streamTalk(decodeAs string) *talk {
	k := newTalk("unix-stream", netip.AddrPort{}, netip.AddrPort{}, protocolTCP)
	for _, i := range []*capture.Interface{k.user, k.sent} {
		i.DecodeAs, i.Description, i.Source, i.Sockets = decodeAs, "", capture.SourceTap, "descriptor 3"
		i.Description = remark.Description(i)
		i.Source, i.Sockets = capture.SourceUnknown, ""
	}
	k.http()
	for _, p := range k.all {
		p.Protocol = 0
		if p.Segment.Known {
			p.Segment.Connection = 7
		}
	}
	return k
}

// Both directions of a unix stream are one conversation for tshark, with the protocol that it finds
// by itself or is told.
func TestUnixStreamInTshark(t *testing.T) {
	t.Parallel()
	for name, port := range map[string]string{"": "61002", "http": "80"} {
		path := writeFile(t, streamTalk(name).all...)
		wantClean(t, path)
		var got []string
		for _, row := range fields(t, path, "http.request.uri", "http.response.code", "tcp.stream", "ipv6.src", "tcp.srcport") {
			if row[0]+row[1] != "" {
				got = append(got, strings.Join(row, "|"))
			}
		}
		const socket, peer = "fd75:6e69:7800::7", "fd75:6e69:7800:1::7"
		want := []string{"/a||0|" + peer + "|" + port, "|200|0|" + socket + "|61001", "/b||0|" + peer + "|" + port}
		if !slices.Equal(got, want) {
			t.Errorf("as %q, tshark reads %q", name, got)
		}
		stream := run(t, "tshark", "-n", "-r", path, "-q", "-z", "follow,tcp,ascii,0")
		if !strings.Contains(stream, "GET /a HTTP/1.1") || !strings.Contains(stream, "behind that") {
			t.Errorf("as %q, the stream is\n%.2000s", name, stream)
		}
	}
}

// wantClean fails if tshark finds a fault in a conversation, other than that it ends.
func wantClean(t *testing.T, path string) {
	t.Helper()
	if out := run(t, "tshark", "-n", "-r", path, "-Y", "_ws.malformed || tcp.analysis.flags || _ws.expert.severity >= 0x600000", "-V"); out != "" {
		t.Errorf("tshark complains:\n%.3000s", out)
	}
}

// dbusCall is a message of D-Bus: a call of a method.
func dbusCall(member string) string {
	var fields []byte
	for _, f := range []struct {
		code      byte
		signature string
		value     string
	}{{1, "o", "/org/example"}, {3, "s", member}, {6, "s", "org.example"}} {
		for len(fields)%8 != 0 {
			fields = append(fields, 0)
		}
		fields = append(fields, f.code, 1, f.signature[0], 0)
		fields = append(binary.LittleEndian.AppendUint32(fields, uint32(len(f.value))), f.value+"\x00"...)
	}
	b := []byte{'l', 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0}
	b = append(binary.LittleEndian.AppendUint32(b, uint32(len(fields))), fields...)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	return string(b)
}

// A protocol without a port is decoded call by call. What is no whole message of D-Bus stays data.
func TestDecodedAlone(t *testing.T) {
	t.Parallel()
	k := streamTalk("dbus")
	k.all = nil
	call := dbusCall("Ping")
	k.send("\x00AUTH EXTERNAL 30\r\n", 0)
	k.send(call, 0)
	k.read(call[:16])
	k.read(call[16:])
	k.read(call + dbusCall("Other"))
	path := writeFile(t, k.all...)
	wantClean(t, path)
	wantFields(t, fields(t, path, "frame.interface_name", "dbus.member", "_ws.col.Protocol", "data.len"),
		"unix-stream:sent||sendmsg|19", "unix-stream:sent|Ping|D-Bus|", "unix-stream:user||recvfrom|16",
		"unix-stream:user||recvfrom|"+strconv.Itoa(len(call)-16), "unix-stream:user|Ping|D-Bus|")
	for n, p := range packetsOf(t, path) {
		if want := k.all[n]; !bytes.Equal(p.Data, want.Data) || p.Call != want.Call || p.Interface.DecodeAs != "dbus" {
			t.Errorf("packet %d is %+v of %+v", n, *p, *p.Interface)
		}
	}
}

// What is read is what was written, whatever it is decoded as, and is written again bit for bit.
func TestUnixStreamReadBack(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "http", "dbus", "nothing-that-there-is"} {
		k := streamTalk(name)
		file, err := os.ReadFile(writeFile(t, k.all...))
		if err != nil {
			t.Fatal(err)
		}
		for n, p := range mustRead(t, bytes.NewReader(file), ReadOptions{}) {
			want := *k.all[n]
			if p.Interface.Header == capture.HeaderRecorded {
				want.Segment = capture.Segment{} // each call stands by itself
			}
			if p.Segment != want.Segment || p.Src.IsValid() || p.Protocol != 0 || !bytes.Equal(p.Data, want.Data) || p.Len != want.Len || p.Call != want.Call ||
				p.Interface.DecodeAs != name || p.Interface.Layer != capture.LayerMessage {
				t.Errorf("%q: packet %d:\n got %+v of %+v\nwant %+v", name, n, *p, *p.Interface, want)
			}
		}
		if again := rewrite(t, file); !bytes.Equal(again, file) {
			t.Errorf("%q: written again it differs", name)
		}
	}
}

// A copy can be decoded as something else, and the copy as something else again.
func TestDecodeAsInCopy(t *testing.T) {
	t.Parallel()
	plain := writeFile(t, streamTalk("").all...)
	for _, names := range [][]string{{"http"}, {"http", "pgsql", "http"}} {
		path := plain
		for _, name := range names {
			path = copyAs(t, path, name)
		}
		wantClean(t, path)
		if got, want := fields(t, path, "http.request.uri", "tcp.srcport"), fields(t, writeFile(t, streamTalk("http").all...), "http.request.uri", "tcp.srcport"); !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("after %q, tshark reads %q, want %q", names, got, want)
		}
	}
	alone := copyAs(t, plain, "http2")
	for n, p := range packetsOf(t, alone) {
		if p.Interface.Header != capture.HeaderRecorded || p.Interface.DecodeAs != "http2" || p.Segment.Known {
			t.Errorf("packet %d is %+v of %+v", n, *p, *p.Interface)
		}
	}
	// Others stay as they are.
	tcp := writeFile(t, newTalk("tcp", client4, server4, protocolTCP).http().all...)
	if before, after := run(t, "tshark", "-r", tcp, "-x"), run(t, "tshark", "-r", copyAs(t, tcp, "pgsql"), "-x"); before != after {
		t.Error("what went through TCP has changed")
	}
}

func copyAs(t *testing.T, path, name string) string {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copied, _ := copyRead(t, "pcapng", Section{}, ReadOptions{Name: "in", DecodeAs: name}, file)
	out := filepath.Join(t.TempDir(), "copy.pcapng")
	if err := os.WriteFile(out, copied, 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

// Netlink messages are dissected, by the protocol of their socket.
func TestNetlinkInTshark(t *testing.T) {
	t.Parallel()
	i := &capture.Interface{Kind: "netlink", View: capture.ViewKernel, Layer: capture.LayerMessage, LinkType: capture.LinkNetlink, Source: capture.SourceTap, HasMeta: true}
	i.Description = remark.Description(&capture.Interface{Kind: i.Kind, View: i.View, Source: i.Source})
	i.Source = capture.SourceUnknown
	header := func(kind uint16, rest ...byte) *capture.Packet {
		b := binary.NativeEndian.AppendUint32(nil, uint32(16+len(rest)))
		b = binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(b, kind), 0)
		b = binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(b, 99), 0)
		return &capture.Packet{Interface: i, Data: append(b, rest...), Direction: capture.Inbound}
	}
	link := header(unix.RTM_NEWLINK, append(binary.NativeEndian.AppendUint32([]byte{0, 0, 1, 0}, 5), make([]byte, 8)...)...)
	generic := header(0x10, 3, 1, 0, 0)
	generic.Netlink, generic.Direction = unix.NETLINK_GENERIC, capture.Outbound
	for _, p := range []*capture.Packet{link, generic} {
		p.Len = len(p.Data)
	}
	path := writeFile(t, link, generic)
	wantFields(t, fields(t, path, "netlink.family", "netlink.hdr_seq", "netlink-route.ifi_index", "genl.ctrl.cmd", "_ws.col.Protocol"),
		"0x0000|99|5||Netlink route", "0x0010|99||3|Netlink generic")
	for n, p := range packetsOf(t, path) {
		want := []*capture.Packet{link, generic}[n]
		if p.Netlink != want.Netlink || p.Direction != want.Direction || !bytes.Equal(p.Data, want.Data) || p.Interface.LinkType != capture.LinkNetlink {
			t.Errorf("packet %d is %+v of %+v", n, *p, *p.Interface)
		}
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if again := rewrite(t, file); !bytes.Equal(again, file) {
		t.Error("written again it differs")
	}
}

// A message of the kernel view has its kind in the protocol column. Files of versions that left it
// empty are read as before, as are their netlink messages.
func TestMessagesOfOlderFiles(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"unix-dgram", "unix-seqpacket", "netlink"} {
		f := newFile(binary.LittleEndian)
		f.section()
		f.iface(linkUpperPDU, stringOption(interfaceResolution, "\x09"), stringOption(interfaceName, kind+":kernel"))
		header := []byte{0, pduDissector, 0, 4, 'd', 'a', 't', 'a', 0, pduDirection, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0}
		f.packet(0, 5, append(header, "hello"...), option{packetFlags, func(order binary.AppendByteOrder) []byte { return order.AppendUint32(nil, flagInbound) }})
		all := mustRead(t, bytes.NewReader(f.Bytes()), ReadOptions{})
		if len(all) != 1 || string(all[0].Data) != "hello" || all[0].Interface.Kind != kind || all[0].Interface.Layer != capture.LayerMessage {
			t.Fatalf("%s: %+v", kind, all)
		}
		path := filepath.Join(t.TempDir(), "new.pcapng")
		if err := os.WriteFile(path, rewrite(t, f.Bytes()), 0o600); err != nil {
			t.Fatal(err)
		}
		wantFields(t, fields(t, path, "_ws.col.Protocol", "data.data"), kind+"|68656c6c6f")
	}
}
