package convert

import (
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/gopacket/layers"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// Comments name packets by their ids.
func TestLineIDs(t *testing.T) {
	t.Parallel()
	var packets []*capture.Packet
	for n, id := range []uint64{9, 10, 0, 7} {
		p := datagram(t, udpKernel, client4, server4, "")
		if n == 3 {
			p = message(udpUser, client4, server4, protocolUDP, "")
		}
		p.ID = id
		packets = append(packets, p)
	}
	const to = " 127.0.0.1:52638 > 127.0.0.1:16962 udp "
	wantLines(t, lines(t, LineOptions{}, packets...),
		"12:00:00.123456789 udp:kernel #9"+to+"8",
		"12:00:00.123456789 udp:kernel #10"+to+"8",
		"12:00:00.123456789 udp:kernel    "+to+"8",
		"12:00:00.123456789 udp:user   #7 "+to+"0",
	)
}

// On a terminal nothing is wider than it, and no word of a comment is missing.
func TestLinesFitTheTerminal(t *testing.T) {
	t.Parallel()
	comment := "read from packets 4-9, and " + strings.Repeat("a word and ", 20) + strings.Repeat("x", 90)
	for columns := 20; columns < 500; columns++ {
		p := segment(t, tcpKernel, client4, server4, layers.TCP{PSH: true, ACK: true}, strings.Repeat("payload", 90))
		p.ID, p.Comment = 12, comment
		got := lines(t, LineOptions{Terminal: func() int { return columns }}, p)
		const head = "12:00:00.123456789 tcp:kernel #12 127.0.0.1:52638 > 127.0.0.1:16962 [P.] 650"
		if !strings.HasPrefix(got[0], head) {
			t.Fatalf("%d columns: %q", columns, got[0])
		}
		for n, line := range got {
			if wide := utf8.RuneCountInString(line); wide > columns && (n > 0 || line != head) {
				t.Errorf("%d columns of %d: %q", wide, columns, line)
			}
		}
		if room := columns - len(head) - 1; len(got) > 1 && room >= 4 && utf8.RuneCountInString(got[0]) != columns {
			t.Errorf("%d columns: a comment below leaves the payload its room: %q", columns, got[0])
		}
		said := strings.Join(strings.Fields(strings.Join(got, " ")), "")
		if _, said, _ = strings.Cut(said, ";"); said != strings.ReplaceAll(comment, " ", "") {
			t.Errorf("%d columns: the comment became %q", columns, said)
		}
	}
	// One whose width is not known is no reason to break lines.
	p := datagram(t, udpKernel, client4, server4, "x")
	p.Comment = comment
	if got := lines(t, LineOptions{Terminal: func() int { return 0 }}, p); len(got) != 1 {
		t.Errorf("%d lines", len(got))
	}
}

// A payload that is cut says so, and one that is not does not.
func TestLinesCutForTheTerminal(t *testing.T) {
	t.Parallel()
	const head = "12:00:00.123456789 udp:kernel 127.0.0.1:52638 > 127.0.0.1:16962 udp "
	for _, test := range []struct {
		payload string
		room    int // behind the head and the length
		want    string
	}{
		{"0123456789", 11, " 0123456789"},
		{"0123456789", 10, " 01234567…"},
		{"0123456789", 6, " 0123…"},
		{"0123456789", 5, " 012…"},
		{"0123456789", 4, " …"},
		{"0123456789", 2, " …"},
		{"0123456789", 1, ""},
		{"0123456789", -8, ""},
		{"ab", 3, " ab"},
		{"", 1, ""},
		{"\x00\x01\x02\xff", 11, " 0x000102ff"},
		{"\x00\x01\x02\xff", 10, " 0x000102…"},
		{"\x00\x01\x02\xff", 9, " 0x0001…"}, // half a byte is none
		{"\x00\x01\x02\xff", 5, " …"},
		{"\x00", 4, " …"},
	} {
		p := datagram(t, udpKernel, client4, server4, test.payload)
		line := head + strconv.Itoa(len(p.Data))
		columns := len(line) + test.room
		wantLines(t, lines(t, LineOptions{Terminal: func() int { return columns }}, p), line+test.want)
	}
	// In a file there is no ellipsis among what may be taken for payload.
	p := datagram(t, udpKernel, client4, server4, strings.Repeat("x", 100))
	for _, wide := range []func() int{nil, func() int { return 0 }} {
		wantLines(t, lines(t, LineOptions{Terminal: wide}, p), head+"108 xxxxxxxx")
	}
}

func TestLineColours(t *testing.T) {
	t.Parallel()
	p := datagram(t, udpKernel, client4, server4, "\x1b[31m")
	p.ID, p.Comment = 1, "\x1b[2J"
	plain := lines(t, LineOptions{Columns: 200}, p)[0]
	var out strings.Builder
	w := NewLineWriter(&out, LineOptions{Columns: 200, Colours: true})
	if err := w.WritePacket(p); err != nil {
		t.Fatal(err)
	}
	got := out.String()
	for _, colour := range []string{terminal.Green, terminal.Yellow, terminal.Reset} {
		if !strings.Contains(got, colour) {
			t.Errorf("no %q in %q", colour, got)
		}
		got = strings.ReplaceAll(got, colour, "")
	}
	_, got, _ = strings.Cut(strings.TrimSuffix(got, "\n"), " ") // the time is local
	if !strings.HasPrefix(got, "udp:kernel #1 ") || strings.Contains(got, "\x1b") || !strings.HasSuffix(plain, got) {
		t.Errorf("%q, without colours %q", got, plain)
	}
}
