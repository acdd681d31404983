package convert

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// TestMixedForms has packets in several forms in one text: those in another form than the text's are told of, with
// their lines, and lines beside packets are not taken for any.
func TestMixedForms(t *testing.T) {
	t.Parallel()
	packet := ipv4(datagram(t, udpKernel, client4, server4, "mixed").Data)
	const task = "  nc-1 [000] d..31 100.000001: bpf_trace_printk: "
	var rows, printed strings.Builder
	for at := 0; at < len(packet); at += 16 {
		fmt.Fprintf(&rows, "%04x  % x\n", at, packet[at:min(at+16, len(packet))])
	}
	for i, c := range packet {
		fmt.Fprintf(&printed, "byte[%d]=%#x\n", i, c)
	}
	bytes := strings.ReplaceAll("\t"+strings.TrimSuffix(printed.String(), "\n"), "\n", "\n\t") + "\n\n"
	forms := map[string]string{
		"rows": rows.String() + "\n",
		"line": fmt.Sprintf("pkt len %d: % x\n", len(packet), packet),
		"bare": fmt.Sprintf("%x\n", packet),
		"trace": task + fmt.Sprintf("Kernelspace: Received %d bytes, dumping\n", len(packet)) +
			task + strings.ReplaceAll(strings.TrimSuffix(bytes, "\n\n"), "\n", "\n"+task) + "\n" + task + "\n",
		"server":   fmt.Sprintf("Userspace: Received %d bytes, dumping\n", len(packet)) + bytes,
		"in trace": task + fmt.Sprintf("pkt len %d: % x\n", len(packet), packet),
		"words":    "0000000 0045 2900 0000 0040\n\n",
		"beside":   "10:00:00.000000 IP 127.0.0.1.52638 > 127.0.0.1.16962: UDP, length 5\nchecksum 0123456789abcdef\n    Data: 6d69786564206d69786564\n",
	}
	for _, test := range []struct {
		text, from string
		packets    int
		skipped    []string // the beginnings of doubts
	}{
		{"rows rows", "", 2, nil},
		{"rows beside rows", "", 2, nil},
		{"rows line bare rows line", "", 2, []string{"text:5: a packet in one line in a text of rows with offsets: it is skipped", "text:6: ", "text:11: "}},
		{"rows trace", "", 1, []string{"text:5: a packet that a filter has printed in a text of rows with offsets"}},
		{"rows server", "", 1, []string{"text:5: a packet that a server has printed in a text of rows with offsets"}},
		{"trace rows trace", "hexdump", 1, []string{"text:1: a packet that a filter", "text:40: a packet that a filter"}},
		{"line rows line", "hexlines", 2, []string{"text:2: a packet in rows with offsets in a text of a packet a line"}},
		{"line server line", "hexlines", 2, []string{"text:2: a packet that a server has printed"}},
		{"trace in-trace trace", "trace", 2, []string{"text:36: a packet in one line in a text of what a filter has printed"}},
	} {
		var text strings.Builder
		for name := range strings.FieldsSeq(test.text) {
			text.WriteString(forms[strings.ReplaceAll(name, "-", " ")])
		}
		var doubts []string
		o := ReadOptions{Name: "text", Doubt: func(err *InputError) { doubts = append(doubts, err.Error()) }}
		packets, err := readForm(t, text.String(), test.from, o)
		if err != nil || packets != test.packets {
			t.Errorf("%s: %d packets, %v\n%s", test.text, packets, err, text.String())
		}
		if !slices.EqualFunc(doubts, test.skipped, strings.HasPrefix) {
			t.Errorf("%s: %q, want %q", test.text, doubts, test.skipped)
		}
		o.Strict = true
		if _, err := readForm(t, text.String(), test.from, o); (err != nil) != (len(test.skipped) > 0) {
			t.Errorf("%s: strictly %v", test.text, err)
		}
	}
	// Words are refused also where their order is asked about too late.
	var doubts []string
	o := ReadOptions{Name: "text", Doubt: func(err *InputError) { doubts = append(doubts, err.Error()) }}
	packets, err := readForm(t, strings.Repeat(forms["rows"], 40)+forms["words"]+forms["rows"], "", o)
	if err != nil || packets != 41 || len(doubts) != 1 || !strings.HasPrefix(doubts[0], "text:161: it has words") {
		t.Errorf("%d packets, %q, %v", packets, doubts, err)
	}
}

// readForm counts the packets of a text.
func readForm(t *testing.T, text, from string, o ReadOptions) (packets int, err error) {
	t.Helper()
	var form *Format
	if from != "" {
		form, _ = FormatByName(from)
	}
	source, err := Open(strings.NewReader(text), form, o)
	for err == nil {
		if _, err = source.Next(); err == nil {
			packets++
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return packets, err
}
