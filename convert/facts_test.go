package convert

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/remark"
)

// Packets come back from a file with all their facts as fields, and only the text of
// others in their comments.
func TestFactsComeBack(t *testing.T) {
	t.Parallel()
	packet := func(v capture.Verdict, comment string) *capture.Packet {
		p := datagram(t, udpMeta, client4, server4, probe)
		p.Verdict, p.Comment = v, comment
		return p
	}
	read := func(r capture.Receipt, comment string) *capture.Packet {
		p := message(udpUser, client4, server4, protocolUDP, "")
		p.Call, p.Receipt, p.Comment = "recvmsg", r, comment
		return p
	}
	truncated := packet(capture.Verdict{Keep: 12, Of: 19}, "")
	truncated.Data, truncated.Truncated = truncated.Data[:10], true
	marked := packet(capture.Verdict{Dropped: true}, "a note")
	marked.Meta = capture.Meta{Mark: 42, Queue: 1}
	want := []*capture.Packet{
		packet(capture.Verdict{}, ""), packet(capture.Verdict{Dropped: true}, ""), truncated, marked,
		read(capture.Receipt{}, ""), read(capture.Receipt{Missing: capture.MissingPacket}, ""),
		read(capture.Receipt{Fed: capture.IDs{Ranges: [][2]uint64{{1, 2}, {4, 4}}}}, "a note"),
		read(capture.Receipt{QueueDropped: 2, DroppedIDs: capture.IDs{Ranges: [][2]uint64{{1, 2}}}}, ""),
		read(capture.Receipt{Peeked: true, Errno: syscall.ECONNREFUSED}, ""), read(capture.Receipt{End: true}, ""),
	}
	path := writeFile(t, want...)
	wantFields(t, fields(t, path, "frame.comment"), "", "verdict=0 (dropped by the filter)",
		"verdict=12 of 19 (truncated by the filter); cut to 10 of 19 bytes by the snaplen", "a note; verdict=0 (dropped by the filter); mark=0x2a",
		"", "the tap has no record of the packet that brought this", "a note; read from packets 1-2, 4",
		"the receive queue dropped 2 before this one: packets 1-2", "peeked at (MSG_PEEK), and left in the queue; recvmsg: connection refused", "end of stream")
	readBack(t, path, want...)
	wantComments(t, path)
}

// Files of older versions yield the same facts, and writing these yields the same text.
func TestSamplesReadAsFacts(t *testing.T) {
	t.Parallel()
	var files []string
	for _, pattern := range []string{"../samples/*.pcapng", "../samples/text/*.pcapng"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(found), err)
		}
		files = append(files, found...)
	}
	said := 0
	for _, path := range files {
		for _, p := range wantComments(t, path) {
			_, _, task := remark.TaskOf(p)
			if p.Comment != "" && !task {
				t.Errorf("%s: nobody but us has said %q", path, p.Comment)
			}
			if remark.HasFacts(p) {
				said++
			}
		}
	}
	if said == 0 {
		t.Error("no sample has a fact")
	}
}

// wantComments compares the comments that packets of a file get with those that tshark
// finds in it.
func wantComments(t *testing.T, path string) []*capture.Packet {
	t.Helper()
	packets, rows := packetsOf(t, path), fields(t, path, "frame.comment")
	if len(packets) != len(rows) {
		t.Fatalf("%s: %d packets, tshark finds %d", path, len(packets), len(rows))
	}
	for i, p := range packets {
		if got := string(remark.AppendComment(nil, remark.Facts(p), &p.Meta)); got != rows[i][0] {
			t.Errorf("%s: packet %d says %q, want %q", path, i+1, got, rows[i][0])
		}
	}
	return packets
}

// Comments of other tools keep their position relative to ours.
func TestFactsBesideComments(t *testing.T) {
	t.Parallel()
	f := newFile(binary.LittleEndian)
	f.section()
	f.iface(linkEthernet, stringOption(interfaceName, "packet:kernel"))
	f.packet(0, 1, frame(t, probe), stringOption(optionComment, "verdict=0 (dropped by the filter)"), stringOption(optionComment, "look here"), endOfOptions)
	f.packet(0, 2, frame(t, probe), stringOption(optionComment, "look here"), stringOption(optionComment, "verdict=0 (dropped by the filter)"), endOfOptions)
	source, err := Open(bytes.NewReader(f.Bytes()), nil, ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	packets, err := drain(source)
	if err != nil || len(packets) != 2 {
		t.Fatalf("%d packets, %v", len(packets), err)
	}
	for i, want := range []string{"verdict=0 (dropped by the filter)\nlook here", "look here\nverdict=0 (dropped by the filter)"} {
		p := packets[i]
		if !p.Verdict.Dropped || strings.TrimSpace(p.Comment) != "look here" {
			t.Errorf("%+v", p)
		}
		var out bytes.Buffer
		w, err := createJSON(&out, WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.WritePacket(p), w.Flush()); err != nil {
			t.Fatal(err)
		}
		var got struct{ Comment string }
		if err := json.Unmarshal(out.Bytes(), &got); err != nil || got.Comment != want {
			t.Errorf("%q, want %q; %v", got.Comment, want, err)
		}
	}
}

// A comment that is too long is truncated, but not the sentence about the Meta.
func TestLongCommentWithFacts(t *testing.T) {
	t.Parallel()
	p := datagram(t, udpMeta, client4, server4, probe)
	p.Comment, p.Verdict.Dropped, p.Meta.Mark = strings.Repeat("x", maxOption-remark.MetaSize-10), true, 42
	rows := fields(t, writeFile(t, p), "frame.comment")
	if got, want := rows[0][0], p.Comment+"; verdict=; mark=0x2a"; got != want {
		t.Errorf("it ends in %q, want %q", got[max(0, len(got)-40):], want[len(want)-40:])
	}
}
