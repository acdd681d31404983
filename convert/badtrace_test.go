package convert

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// traceByte is a line of trace text.
func traceByte(index string, value string) string {
	return newPrefix + "\tbyte[" + index + "]=0x" + value + "\n"
}

func traceHead(length string) string {
	return newPrefix + "Kernelspace: Received " + length + " bytes, dumping\n"
}

// TestBadTraceText covers everything that can be wrong, with a good packet before and
// after it. By default doubtful lines are skipped and counted; Strict stops at the first.
func TestBadTraceText(t *testing.T) {
	t.Parallel()
	good := kernelText([]byte{1, 2, 3})
	goodLines := strings.Count(good, "\n")
	end := newPrefix + "\n"
	const goodPacket = "3:010203;"
	for _, tt := range []struct {
		name, bad string
		line      int    // of the first doubt, in bad
		doubt     string // the first
		doubts    int
		packets   []string // what comes of bad
	}{
		{
			"bytes out of order", traceHead("4") + traceByte("0", "0") + traceByte("2", "2") + traceByte("1", "1") + traceByte("3", "3") + end,
			3, "byte 2 where byte 1 should come: what follows of this packet is skipped", 1,
			[]string{"4:00;byte 2 where byte 1 should come"},
		},
		{
			"a byte is missing", traceHead("3") + traceByte("0", "0") + traceByte("2", "2") + end,
			3, "byte 2 where byte 1 should come", 1, []string{"3:00;byte 2 where byte 1 should come"},
		},
		{
			"the last byte is missing", traceHead("3") + traceByte("0", "0") + traceByte("1", "2") + end,
			1, "the packet has 3 bytes, but 2 of them follow", 1, []string{"3:0002;the text ends after byte 1"},
		},
		{
			"all bytes are missing", traceHead("3") + end,
			1, "the packet has 3 bytes, but 0 of them follow", 1, []string{"3:;the text has no byte of it"},
		},
		{
			"a byte comes again", traceHead("2") + traceByte("0", "0") + traceByte("0", "0") + traceByte("1", "1") + end,
			3, "byte 0 comes again", 1, []string{"2:0001;"},
		},
		{
			"a value above 0xff", traceHead("2") + traceByte("0", "0") + traceByte("1", "100") + end,
			3, "byte 1 is 0x100, which is no byte", 1, []string{"2:00;byte 1 is 0x100, which is no byte"},
		},
		{
			"a value with a sign", traceHead("2") + traceByte("0", "ffffffab") + traceByte("1", "1") + end,
			2, "byte 0 is 0xffffffab, which is no byte", 1, []string{"2:;byte 0 is 0xffffffab, which is no byte"},
		},
		{
			"a value of 80 digits", traceHead("1") + traceByte("0", strings.Repeat("f", 80)) + end,
			2, "byte 0 is 0xffffffffffffffff, which is no byte", 1, []string{"1:;byte 0 is 0xffffffffffffffff, which is no byte"},
		},
		{
			"more bytes than the packet has", traceHead("1") + traceByte("0", "0") + traceByte("1", "1") + traceByte("2", "1") + end,
			3, "byte 1 of a packet of 1 bytes", 1, []string{"1:00;byte 1 of a packet of 1 bytes"},
		},
		{
			"an index of 4 GiB", traceHead("3") + traceByte("4294967296", "0") + end,
			2, "byte 4294967296 of a packet of 3 bytes", 1, []string{"3:;byte 4294967296 of a packet of 3 bytes"},
		},
		{
			"a length of 4 GiB", traceHead("4294967296") + traceByte("0", "0") + traceByte("1", "0") + end,
			1, "no packet has 4294967296 bytes: it is skipped", 1, nil,
		},
		{
			"a length just below 4 GiB", traceHead("4294967295") + traceByte("0", "0") + end,
			1, "the packet has 4294967295 bytes, but 1 of them follow", 1, []string{"4294967295:00;the text ends after byte 0"},
		},
		{
			"a length of 30 digits", traceHead(strings.Repeat("9", 30)) + traceByte("0", "0") + end,
			1, "no packet has 18446744073709551615 bytes: it is skipped", 1, nil,
		},
		{
			"a negative length", traceHead("-1") + end,
			1, `"Kernelspace: Received -1 bytes, dumping" cannot be read`, 1, nil,
		},
		{
			"a byte of no packet", traceByte("0", "0") + traceByte("1", "1") + end,
			1, "a byte of no packet: those up to the next packet are skipped", 1, nil,
		},
		{
			"a byte without a value", traceHead("1") + traceByte("0", "") + end,
			2, `"byte[0]=0x" cannot be read: what follows of this packet is skipped`, 1, []string{`1:;"byte[0]=0x" cannot be read`},
		},
		{
			"a byte that is no number", traceHead("1") + traceByte("zero", "1") + end,
			2, `"byte[zero]=0x1" cannot be read`, 1, []string{`1:;"byte[zero]=0x1" cannot be read`},
		},
		{
			"a new packet in a packet", traceHead("3") + traceByte("0", "7"),
			1, "the packet has 3 bytes, but 1 of them follow", 1, []string{"3:07;the text ends after byte 0"},
		},
		{
			"binary junk", "\x00\x01\xff\xfe[[[-]: \x80\n\x7fELF\x02\x01\n",
			1, `"\x00\x01\xff\xfe[[[-]: \x80" is no line of a trace`, 2, nil,
		},
		{
			"binary junk in a packet", traceHead("2") + traceByte("0", "0") + "\xff\xad\n" + traceByte("1", "1") + end,
			3, `"\xff\xad" is no line of a trace`, 1, []string{"2:0001;"},
		},
		{
			"a line of 3 MB", strings.Repeat("x", 3<<20) + "\n",
			1, "a line of more than 65536 bytes", 1, nil,
		},
		{
			"a time without an end", "nc-1 [000] .... 12.5\n",
			1, `"nc-1 [000] .... 12.5" is no line of a trace`, 1, nil,
		},
		{
			"a time of a cycle counter", "nc-1 [000] .... 123456789: bpf_trace_printk: \tbyte[0]=0x1\n",
			1, `"nc-1 [000] .... 123456789: bpf_trace_pri"... is no line of a trace`, 1, nil,
		},
		{
			"a time after the end of all times", "nc-1 [000] .... 99999999999.000000: bpf_trace_printk: \tbyte[0]=0x1\n",
			1, `is no line of a trace`, 1, nil,
		},
		{
			"a line of server text", "Userspace: Received 1 bytes, dumping\n",
			1, `"Userspace: Received 1 bytes, dumping" is no line of a trace`, 1, nil,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			at := fmt.Sprintf("in:%d: ", goodLines+tt.line)
			for _, crlf := range []bool{false, true} {
				text := good + tt.bad + good
				if crlf && !strings.Contains(tt.name, "junk") {
					text = strings.ReplaceAll(text, "\n", "\r\n")
				}
				got := readText(t, text, ReadOptions{Kind: kind(t, "udp")})
				if got.err != nil {
					t.Errorf("error %v", got.err)
				}
				wantPackets(t, got.packets, slices.Concat([]string{goodPacket}, tt.packets, []string{goodPacket})...)
				if len(got.doubts) != tt.doubts || !strings.HasPrefix(got.doubts[0], at) || !strings.Contains(got.doubts[0], tt.doubt) {
					t.Errorf("%d doubts %q, want %d, the first at %q: %q", len(got.doubts), got.doubts, tt.doubts, at, tt.doubt)
				}

				got = readText(t, text, ReadOptions{Kind: kind(t, "udp"), Strict: true})
				if got.err == nil || len(got.doubts) > 0 || !strings.HasPrefix(got.err.Error(), at) || !strings.Contains(got.err.Error(), tt.doubt) {
					t.Errorf("strict: error %v, doubts %q", got.err, got.doubts)
				}
				wantPackets(t, got.packets, goodPacket)
			}
		})
	}
}
