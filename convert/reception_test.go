package convert

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

var (
	pktinfo   = capture.Control{Level: unix.SOL_IP, Type: unix.IP_PKTINFO, Len: 12}
	timestamp = capture.Control{Level: unix.SOL_SOCKET, Type: unix.SO_TIMESTAMPNS, Len: 16}
	rights    = capture.Control{Level: unix.SOL_SOCKET, Type: unix.SCM_RIGHTS, Len: 12}
	gro       = capture.Control{Level: 17, Type: 104, Len: 4}
)

// receptionRow is what a call said, and what a comment says of it.
type receptionRow struct {
	reception capture.Reception
	data      string
	length    int
	comment   string
}

var receptionRows = []receptionRow{
	{data: "abcd"},
	{data: "abcd", reception: capture.Reception{Buffer: 100, HasBuffer: true}},
	{data: "", reception: capture.Reception{HasBuffer: true, Cut: true, Whole: 9}, comment: "cut to 0 of 9 by the buffer"},
	{data: "abcd", reception: capture.Reception{Buffer: 4, HasBuffer: true, Cut: true, Whole: 1200, Flags: unix.MSG_TRUNC}, comment: "cut to 4 of 1200 by the buffer"},
	// With MSG_TRUNC, the call returns the length of the message.
	{data: "abcd", length: 1200, reception: capture.Reception{Buffer: 4, HasBuffer: true, Cut: true, Whole: 1200}, comment: "cut to 4 of 1200 by the buffer"},
	{data: "abcd", reception: capture.Reception{Buffer: 4, HasBuffer: true, Cut: true, Flags: unix.MSG_TRUNC}, comment: "cut to 4 by the buffer"},
	{data: "abcdefgh", reception: capture.Reception{Segment: 3, Controls: []capture.Control{gro}}, comment: "3 datagrams of 3 bytes, the last of 2 (UDP_GRO)"},
	{data: "abcdefghi", reception: capture.Reception{Segment: 3, Controls: []capture.Control{gro, pktinfo}}, comment: "3 datagrams of 3 bytes (UDP_GRO)"},
	{data: "abc", reception: capture.Reception{Segment: 3, Controls: []capture.Control{gro}}},
	{data: "abcd", reception: capture.Reception{Buffer: 4, HasBuffer: true, Cut: true, Whole: 9, Segment: 3}, comment: "cut to 4 of 9 by the buffer; 2 datagrams of 3 bytes, the last of 1 (UDP_GRO)"},
	{data: "abcd", reception: capture.Reception{Controls: []capture.Control{timestamp, pktinfo, {Level: -1, Type: 1 << 30, Len: 1<<32 - 1}}, ControlRest: 30}},
	{data: "abcd", reception: capture.Reception{Controls: []capture.Control{timestamp, rights}, Flags: unix.MSG_EOR}, comment: "3 descriptors came with it (SCM_RIGHTS)"},
	{data: "abcd", reception: capture.Reception{Controls: []capture.Control{{Level: 1, Type: 1, Len: 4}}, Flags: unix.MSG_CTRUNC}, comment: "1 descriptor came with it (SCM_RIGHTS); its ancillary data was cut (MSG_CTRUNC)"},
	// Nobody but a file of others says these.
	{data: "abcd", reception: capture.Reception{Buffer: 4, HasBuffer: true, Cut: true, Whole: 3}, comment: "cut to 4 of 3 by the buffer"},
	{data: "abcd", reception: capture.Reception{Buffer: 2, HasBuffer: true, Cut: true}, comment: "cut to 2 by the buffer"},
	{data: "abcd", reception: capture.Reception{Controls: []capture.Control{{Level: 1, Type: 1, Len: 1<<32 - 4}, rights}}, comment: "1073741826 descriptors came with it (SCM_RIGHTS)"},
	{data: "abcd", reception: capture.Reception{Controls: slices.Repeat([]capture.Control{pktinfo}, capture.ControlsMax), ControlRest: 1}},
}

func receptionPackets() (all []*capture.Packet) {
	for i, row := range receptionRows {
		p := message(udpUser, client4, server4, protocolUDP, row.data)
		p.ID, p.Len, p.Reception = uint64(i+1), max(row.length, len(row.data)), row.reception
		all = append(all, p)
	}
	return all
}

// All comes back from a file, also from one that Wireshark's tools have written anew, and from
// what only the comment says.
func TestReceptionComesBack(t *testing.T) {
	t.Parallel()
	packets := receptionPackets()
	path := writeFile(t, packets...)
	var comments []string
	for _, row := range receptionRows {
		comments = append(comments, row.comment)
	}
	wantFields(t, fields(t, path, "frame.comment"), comments...)
	readBack(t, path, packets...)
	testutil.RequireTool(t, "editcap")
	edited := filepath.Join(t.TempDir(), "edited.pcapng")
	if out, err := exec.Command("editcap", path, edited).CombinedOutput(); err != nil {
		t.Fatalf("editcap: %v, %s", err, out)
	}
	readBack(t, edited, packets...)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copied, leftOut := copyOf(t, "pcapng", Section{}, file)
	if len(leftOut) > 0 {
		t.Errorf("left out: %q", leftOut)
	}
	again := filepath.Join(t.TempDir(), "copy.pcapng")
	if err := os.WriteFile(again, copied, 0o600); err != nil {
		t.Fatal(err)
	}
	readBack(t, again, packets...)
}

// Files of the other byte order have the option's number in theirs. What is not of this form,
// or not in the user view, is an option of somebody else's.
func TestReceptionOfOthers(t *testing.T) {
	t.Parallel()
	r := capture.Reception{Buffer: 7, HasBuffer: true, Flags: unix.MSG_EOR, Controls: []capture.Control{pktinfo}}
	value := string(appendReception(nil, &r)[8:])
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		f := newFile(order)
		f.section()
		f.iface(linkUpperPDU, stringOption(interfaceName, "udp:user"), endOfOptions)
		f.iface(linkIPv4, stringOption(interfaceName, "udp:kernel"), endOfOptions)
		user := message(udpUser, client4, server4, protocolUDP, "abcd")
		data := appendHeader(nil, user)
		data = append(data, user.Data...)
		f.packet(0, 1, data, custom(customBytes, value), endOfOptions)
		f.packet(0, 1, data, custom(customBytes, "rcx"+value[3:]), endOfOptions)
		f.packet(0, 1, data, custom(customBytes, value[:6]), endOfOptions)
		f.packet(0, 1, data, custom(customBytes, value+strings.Repeat("x", 4*maxReception)), endOfOptions)
		f.packet(0, 1, data, custom(customText, value), endOfOptions)
		f.packet(1, 1, ipv4([]byte("abcdefgh")), custom(customBytes, value), endOfOptions)
		source, err := Open(bytes.NewReader(f.Bytes()), nil, ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 6 {
			p, err := source.Next()
			if err != nil {
				t.Fatal(err)
			}
			want := capture.Reception{}
			if i == 0 {
				want = r
			}
			if !reflect.DeepEqual(p.Reception, want) {
				t.Errorf("%v, packet %d: %+v", order, i, p.Reception)
			}
		}
		_, leftOut := copyOf(t, "json", Section{}, f.Bytes())
		if all := strings.Join(leftOut, "\n"); !strings.Contains(all, "5 other packet options left out") {
			t.Errorf("left out of JSON: %q", leftOut)
		}
	}
}

func TestReceptionInJSONAndLines(t *testing.T) {
	t.Parallel()
	p := message(unixUser, client4, server4, 0, "abcd")
	p.Reception = capture.Reception{
		Buffer: 4, HasBuffer: true, Cut: true, Whole: 9, Flags: unix.MSG_TRUNC | unix.MSG_EOR | 1<<20, Segment: 2,
		Controls: []capture.Control{rights, {Level: 99, Type: -1, Len: 5}}, ControlRest: 8,
	}
	failed := message(udpUser, client4, server4, protocolUDP, "")
	failed.Receipt.Errno = syscall.ECONNREFUSED
	plain := message(udpUser, client4, server4, protocolUDP, "abcd")
	var b bytes.Buffer
	w, err := createJSON(&b, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*capture.Packet{p, failed, plain} {
		if err := w.WritePacket(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(&b)
	names := []string{"errno", "buffer", "cut_by_buffer", "message_length", "msg_flags", "gro_size", "ancillary", "ancillary_rest"}
	for i, want := range []map[string]any{
		{
			"buffer": 4., "cut_by_buffer": true, "message_length": 9., "msg_flags": []any{"MSG_TRUNC", "MSG_EOR", "0x100000"}, "gro_size": 2.,
			"ancillary": []any{
				map[string]any{"name": "SCM_RIGHTS", "level": 1., "type": 1., "length": 12., "descriptors": 3.},
				map[string]any{"name": "level 99 type -1", "level": 99., "type": -1., "length": 5.},
			},
			"ancillary_rest": 8.,
		},
		{"errno": "ECONNREFUSED"},
		{},
	} {
		var got map[string]any
		if err := decoder.Decode(&got); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if !reflect.DeepEqual(got[name], want[name]) {
				t.Errorf("packet %d: %s is %v, want %v", i, name, got[name], want[name])
			}
		}
	}
	b.Reset()
	if err := NewLineWriter(&b, LineOptions{}).WritePacket(p); err != nil {
		t.Fatal(err)
	}
	if want := " ; cut to 4 of 9 by the buffer; 2 datagrams of 2 bytes (UDP_GRO); 3 descriptors came with it (SCM_RIGHTS)\n"; !strings.HasSuffix(b.String(), want) {
		t.Errorf("line %q", &b)
	}
}

func TestReceptionLeftOut(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile(writeFile(t, receptionPackets()[1:3]...))
	if err != nil {
		t.Fatal(err)
	}
	for form, want := range map[string]bool{"pcap": true, "text": true, "json": false, "pcapng": false} {
		_, leftOut := copyOf(t, form, Section{}, file)
		if got := slices.Contains(leftOut, "2 buffer sizes, with flags and ancillary data of calls left out: "+form+" has no room for them"); got != want {
			t.Errorf("%s: left out %q", form, leftOut)
		}
	}
}

// Whatever the option's value is, what is read of it is written and read again.
func FuzzReception(f *testing.F) {
	for _, row := range receptionRows {
		f.Add(appendReception(nil, &row.reception)[4:])
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		if !isReception(value, order) {
			return
		}
		r := parseReception(value, nil)
		if len(r.Controls) > capture.ControlsMax {
			t.Fatalf("%d control messages", len(r.Controls))
		}
		b := appendReception(nil, &r)
		if len(b) > maxReception || len(b)%4 != 0 || int(order.Uint16(b[2:])) != len(b)-4 || !isReception(b[4:], order) {
			t.Fatalf("%x is written as %x", value, b)
		}
		if again := parseReception(b[4:], nil); !reflect.DeepEqual(again, r) {
			t.Errorf("%+v is read as %+v", r, again)
		}
	})
}
