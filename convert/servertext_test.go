package convert

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/text"
)

func TestServerText(t *testing.T) {
	t.Parallel()
	text := userText([]byte(probe)) + userText(nil) + userText([]byte(strings.Repeat("x", 3000)))
	for _, end := range []string{"\n", "\r\n"} {
		packets := mustRead(t, strings.NewReader(strings.ReplaceAll(text, "\n", end)), ReadOptions{Strict: true, Kind: kind(t, "tcp")})
		if len(packets) != 3 || string(packets[0].Data) != probe || len(packets[1].Data) != 0 || len(packets[2].Data) != 3000 {
			t.Fatalf("%d packets", len(packets))
		}
		for i, p := range packets {
			if p.Interface.Name() != "tcp:user" || p.Time != int64(i+1)*1000 || p.ID != 0 || p.Protocol != protocolTCP || p.Interface.Layer != capture.LayerMessage {
				t.Errorf("packet %d: %+v", i, p)
			}
		}
	}
}

func TestServerTextKind(t *testing.T) {
	t.Parallel()
	udp := datagram(t, udpKernel, client4, server4, probe).Data
	for _, tt := range []struct {
		data []byte
		want string
	}{{ipv4(udp), "raw:user"}, {udp, "unknown:user"}, {[]byte(probe), "unknown:user"}} {
		o := ReadOptions{Src: client4, Dst: server4}
		p := mustRead(t, strings.NewReader(userText(tt.data)), o)[0]
		if p.Interface.Name() != tt.want || p.Src != client4 || p.Dst != server4 {
			t.Errorf("%s, %v > %v, want %s", p.Interface.Name(), p.Src, p.Dst, tt.want)
		}
	}
}

// TestBadServerText covers what differs from TestBadTraceText.
func TestBadServerText(t *testing.T) {
	t.Parallel()
	good := userText([]byte{1, 2, 3})
	goodLines := strings.Count(good, "\n")
	head := text.UserHead + "2 bytes, dumping\n"
	for _, tt := range []struct {
		name, bad string
		line      int
		doubt     string
		doubts    int
		packets   []string
	}{
		{"out of order", head + "\tbyte[1]=0x1\n\tbyte[0]=0x0\n\n", 2, "byte 1 where byte 0 should come", 1, []string{"2:;byte 1 where byte 0 should come"}},
		{"missing", head + "\tbyte[0]=0x1\n\n", 1, "the packet has 2 bytes, but 1 of them follow", 1, []string{"2:01;the text ends after byte 0"}},
		{"repeated", head + "\tbyte[0]=0x1\n\tbyte[0]=0x1\n\tbyte[1]=0x2\n\n", 3, "byte 0 comes again", 1, []string{"2:0102;"}},
		{"above 0xff", head + "\tbyte[0]=0xffffff9d\n\n", 2, "byte 0 is 0xffffff9d, which is no byte", 1, []string{"2:;byte 0 is 0xffffff9d, which is no byte"}},
		{"too many", head + "\tbyte[0]=0x1\n\tbyte[1]=0x2\n\tbyte[2]=0x3\n\n", 4, "byte 2 of a packet of 2 bytes", 1, []string{"2:0102;byte 2 of a packet of 2 bytes"}},
		{"4 GiB", text.UserHead + "4294967296 bytes, dumping\n\tbyte[0]=0x1\n\n", 1, "no packet has 4294967296 bytes", 1, nil},
		{"an error", text.UserHead + "-1 bytes, dumping\n\n", 1, `"Userspace: Received -1 bytes, dumping" cannot be read`, 1, nil},
		{"no packet", "\tbyte[0]=0x1\n\tbyte[1]=0x1\n\n", 1, "a byte of no packet", 1, nil},
		{"other words", "listening on port 16962\n", 1, `"listening on port 16962" is no line of server text`, 1, nil},
		{"binary junk", "\x00\x01\x02\xff\n", 1, `"\x00\x01\x02\xff" is no line of server text`, 1, nil},
		{"a long line", strings.Repeat("\tbyte[", 1<<20) + "\n", 1, "a line of more than 65536 bytes", 1, nil},
		{"a line of a trace", "nc-2834 [001] ..s31 1.000000: : \tbyte[0]=0x1\n", 1, "is no line of server text", 1, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			at := "in:" + string(rune('0'+goodLines+tt.line)) + ": "
			text := good + tt.bad + good
			got := readText(t, text, ReadOptions{})
			if got.err != nil {
				t.Errorf("error %v", got.err)
			}
			wantPackets(t, got.packets, slices.Concat([]string{"3:010203;"}, tt.packets, []string{"3:010203;"})...)
			if len(got.doubts) != tt.doubts || !strings.HasPrefix(got.doubts[0], at) || !strings.Contains(got.doubts[0], tt.doubt) {
				t.Errorf("%d doubts %q, want %d, the first at %q: %q", len(got.doubts), got.doubts, tt.doubts, at, tt.doubt)
			}
			got = readText(t, text, ReadOptions{Strict: true})
			if got.err == nil || !strings.HasPrefix(got.err.Error(), at) || !strings.Contains(got.err.Error(), tt.doubt) {
				t.Errorf("strict: error %v", got.err)
			}
			wantPackets(t, got.packets, "3:010203;")
		})
	}
}

func TestServerTextCutOff(t *testing.T) {
	t.Parallel()
	good := userText([]byte{1, 2, 3})
	whole := good + userText([]byte{4, 5, 6})
	for n := len(good); n <= len(whole); n++ {
		got := readText(t, whole[:n], ReadOptions{})
		if got.err != nil || len(got.packets) == 0 || !bytes.Equal(got.packets[0].Data, []byte{1, 2, 3}) {
			t.Fatalf("cut at %d: error %v, %d packets", n, got.err, len(got.packets))
		}
		if doubtful := n > len(good) && n < len(whole)-1; (len(got.doubts) > 0) != doubtful {
			t.Errorf("cut at %d: doubts %q", n, got.doubts)
		}
		if len(got.packets) == 2 && !bytes.HasPrefix([]byte{4, 5, 6}, got.packets[1].Data) {
			t.Errorf("cut at %d: %x", n, got.packets[1].Data)
		}
	}
}
