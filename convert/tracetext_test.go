package convert

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert/internal/text"
)

// asRecorded was printed by Linux 6.18, with an empty line after each line and the task's
// name unknown at first.
const asRecorded = `           <...>-23521   [001] ..s21  2975.387279: bpf_trace_printk: Kernelspace: Received 11 bytes, dumping

           <...>-23521   [001] ..s21  2975.387298: bpf_trace_printk: 	byte[0]=0x87

           <...>-23521   [001] ..s21  2975.387299: bpf_trace_printk: 	byte[1]=0xb

              tp-23521   [001] ..s21  2975.387299: bpf_trace_printk: 	byte[2]=0xb4

              tp-23521   [001] ..s21  2975.387300: bpf_trace_printk: 	byte[3]=0x6b

              tp-23521   [001] ..s21  2975.387301: bpf_trace_printk: 	byte[4]=0x0

              tp-23521   [001] ..s21  2975.388301: bpf_trace_printk: 	byte[5]=0xb

              tp-23521   [001] ..s21  2976.387301: bpf_trace_printk: 	byte[6]=0xfe

              tp-23521   [001] ..s21  2976.387302: bpf_trace_printk: 	byte[7]=0x26

              tp-23521   [001] ..s21  2976.387303: bpf_trace_printk: 	byte[8]=0x30

              tp-23521   [001] ..s21  2976.387304: bpf_trace_printk: 	byte[9]=0x31

              tp-23521   [001] ..s21  2976.387304: bpf_trace_printk: 	byte[10]=0xa

              tp-23521   [001] ..s21  2976.387304: bpf_trace_printk: ` + `

`

func TestTraceTextAsRecorded(t *testing.T) {
	t.Parallel()
	for _, strict := range []bool{false, true} {
		boot := time.Unix(1793880000, 0)
		packets := mustRead(t, strings.NewReader(asRecorded), ReadOptions{Strict: strict, BootTime: boot})
		if len(packets) != 1 {
			t.Fatalf("%d packets", len(packets))
		}
		p := packets[0]
		want := capture.Packet{
			Interface: p.Interface, Time: 1793880000e9 + 2975387279000, ID: 1, Direction: capture.Inbound,
			Len: 11, Comment: "task <...>-23521, cpu 1", Protocol: protocolUDP,
			Src: netip.MustParseAddrPort("127.0.0.1:34571"), Dst: netip.MustParseAddrPort("127.0.0.1:46187"),
		}
		data := p.Data
		p.Data = nil
		if fmt.Sprint(*p) != fmt.Sprint(want) || string(data) != "\x87\x0b\xb4\x6b\x00\x0b\xfe\x2601\n" {
			t.Errorf("packet %+v %x, want %+v", *p, data, want)
		}
		i := *p.Interface
		i.Description = ""
		if i != (capture.Interface{
			Kind: "udp", View: capture.ViewKernel, Layer: capture.LayerTransport, Source: capture.SourceTrace, Header: capture.HeaderInvented,
		}) {
			t.Errorf("interface %+v", i)
		}
		if d := p.Interface.Description; !strings.Contains(d, "header is synthetic") || !strings.HasSuffix(d, "from boot, which is taken to be 2026-11-05T12:00:00Z") {
			t.Errorf("description %q", d)
		}
	}
}

// TestTracePrefixes reads the same packet with the prefixes of different kernels.
func TestTracePrefixes(t *testing.T) {
	t.Parallel()
	p := datagram(t, udpKernel, client4, server4, probe)
	for _, prefix := range []string{
		newPrefix,
		"              nc-2834    [001] ..s31  1234.567890: bpf_trace_printk: ",
		"              nc-2834  [001] ..s3  1234.567890: : ",
		"              nc-2834  [001] ..s3  1234.567890: 0x00000001: ",
		"              nc-2834  [001] d.s3  1234.567890: ",
		"              nc-2834  [001]  1234.567890: : ",
		"              nc-2834    (   2834) [001] ..s31  1234.567890: bpf_trace_printk: ",
		"              nc-2834    (-------) [001] ..s31  1234.567890: bpf_trace_printk: ",
		"nc-2834 [001] b..h4..  1234.567890: bpf_trace_printk: ",
		"   a [0] task-1-2834    [001] ..s31  1234.567890: bpf_trace_printk: ",
		"           <...>-2834    [001] ..s31  1234.567: bpf_trace_printk: ",
		"           <...>-2834    [001] ..s31  1234.567890000: bpf_trace_printk: ",
		"  kworker/u8:1+x-2834    [128] dNs3.  1234.567890: bpf_trace_printk: ",
	} {
		for _, end := range []string{"\n", "\n\n", "\r\n"} {
			text := dumpText(prefix, text.KernelHead, len(p.Data), p.Data)
			text = strings.ReplaceAll(text+text, "\n", end)
			packets := mustRead(t, strings.NewReader(text), ReadOptions{Strict: true})
			if len(packets) != 2 {
				t.Errorf("%q, lines that end with %q: %d packets", prefix, end, len(packets))
				continue
			}
			for _, got := range packets {
				if !bytes.Equal(got.Data, p.Data) || !strings.Contains(got.Comment, "-2834, cpu 1") || got.Time/1e6 != 1234567 {
					t.Errorf("%q: time %d, comment %q, data %x", prefix, got.Time, got.Comment, got.Data)
				}
			}
		}
	}
}

func TestTraceTextWithoutPrefix(t *testing.T) {
	t.Parallel()
	p := datagram(t, udpKernel, client4, server4, probe)
	text := dumpText("", text.KernelHead, len(p.Data), p.Data)
	packets := mustRead(t, strings.NewReader(text+text), ReadOptions{Strict: true})
	if len(packets) != 2 || !bytes.Equal(packets[1].Data, p.Data) {
		t.Errorf("%d packets", len(packets))
	}
}

// TestTraceTextAmongOthers has everything else that a trace file may contain.
func TestTraceTextAmongOthers(t *testing.T) {
	t.Parallel()
	p := datagram(t, udpKernel, client4, server4, probe)
	other := "            bash-99      [000] ...1.  2976.733997: tracing_mark_write: hello [001] byte[7]=0x1\n"
	text := "# tracer: nop\n#\n#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION\n" + other
	for line := range strings.Lines(kernelText(p.Data)) {
		text += line + other + "            bash-99      [000] ...1.  2976.733997: <stack trace>\n => do_syscall_64\n"
	}
	packets := mustRead(t, strings.NewReader(text), ReadOptions{Strict: true})
	if len(packets) != 1 || !bytes.Equal(packets[0].Data, p.Data) {
		t.Errorf("%d packets", len(packets))
	}
}

// TestTraceTextInterleaved interleaves packets of several cpus, of tasks on one cpu, and
// of an interrupt in a task.
func TestTraceTextInterleaved(t *testing.T) {
	t.Parallel()
	prefixes := []string{
		"              nc-2834    [001] ..s31  1234.567890: bpf_trace_printk: ",
		"              nc-2834    [000] ..s31  1234.567891: bpf_trace_printk: ",
		"              nc-2835    [001] ..s31  1234.567892: bpf_trace_printk: ",
		"              nc-2834    [001] ..h31  1234.567893: bpf_trace_printk: ",
	}
	var texts [][]string
	for i, prefix := range prefixes {
		d := datagram(t, udpKernel, client4, server4, fmt.Sprintf("packet %d%s", i, strings.Repeat("!", i)))
		texts = append(texts, slices.Collect(strings.Lines(dumpText(prefix, text.KernelHead, len(d.Data), d.Data))))
	}
	var mixed strings.Builder
	for line := range 30 {
		for _, lines := range texts {
			if line < len(lines) {
				mixed.WriteString(lines[line])
			}
		}
	}
	for _, size := range []int{1, 7, 1 << 20} {
		packets := mustRead(t, pieces{strings.NewReader(mixed.String()), size}, ReadOptions{Strict: true})
		if len(packets) != len(prefixes) {
			t.Fatalf("%d packets", len(packets))
		}
		for i, p := range packets {
			if got, want := string(p.Data[8:]), fmt.Sprintf("packet %d%s", i, strings.Repeat("!", i)); got != want || p.Time != 1234567890000+int64(i)*1000 {
				t.Errorf("packet %d is %q at %d", i, got, p.Time)
			}
		}
	}
}

func TestTraceTextLongPackets(t *testing.T) {
	t.Parallel()
	p := datagram(t, udpKernel, client4, server4, strings.Repeat("x", 1400))
	for _, printed := range []int{128, 200, 256, 257, 300, 1408} {
		text := dumpText(newPrefix, text.KernelHead, len(p.Data), p.Data[:printed])
		got := mustRead(t, strings.NewReader(text), ReadOptions{Strict: true})
		if len(got) != 1 || got[0].Len != 1408 || !bytes.Equal(got[0].Data, p.Data[:printed]) {
			t.Errorf("%d printed: %+v", printed, got)
		}
	}
}

func TestTraceTextLost(t *testing.T) {
	t.Parallel()
	p := datagram(t, udpKernel, client4, server4, "x")
	text := kernelText(p.Data)
	got := mustRead(t, strings.NewReader("CPU:1 [LOST 123 EVENTS]\n"+text+"CPU:0 [LOST 5 EVENTS]\n"+text+"CPU:1 [LOST EVENTS]\n"+text), ReadOptions{Strict: true})
	hex := fmt.Sprintf("9:%x;", p.Data)
	wantPackets(t, got, hex+"the trace lost 123 lines before this packet", hex, hex+"the trace lost lines before this packet")
}

// TestTraceTextCutOff cuts a text at every byte.
func TestTraceTextCutOff(t *testing.T) {
	t.Parallel()
	good := kernelText([]byte{1, 2, 3})
	whole := good + kernelText([]byte{4, 5, 6})
	for n := len(good); n < len(whole); n++ {
		got := readText(t, whole[:n], ReadOptions{Kind: kind(t, "udp")})
		if got.err != nil || len(got.packets) == 0 || !bytes.Equal(got.packets[0].Data, []byte{1, 2, 3}) {
			t.Fatalf("cut at %d: error %v, %d packets", n, got.err, len(got.packets))
		}
		if len(got.packets) == 2 && !bytes.HasPrefix([]byte{4, 5, 6}, got.packets[1].Data) {
			t.Fatalf("cut at %d: %x", n, got.packets[1].Data)
		}
		// The last line only marks the end: it may be missing.
		last := len(whole) - len(newPrefix) - 1
		line := whole[strings.LastIndexByte(whole[:n], '\n')+1 : n]
		if doubtful := n > len(good) && n < last && (line == "" || strings.TrimSpace(line) != "" || n > len(good)+len(newPrefix)); (len(got.doubts) > 0) != doubtful && (n <= last || n == len(whole)-1) {
			t.Errorf("cut at %d, after %q: doubts %q", n, whole[max(0, n-20):n], got.doubts)
		}
		strict := readText(t, whole[:n], ReadOptions{Kind: kind(t, "udp"), Strict: true})
		if len(got.doubts) > 0 && (strict.err == nil || len(strict.packets) != 1) {
			t.Errorf("cut at %d: strict: %d packets, error %v", n, len(strict.packets), strict.err)
		}
	}
}

func TestTextWithNothingInIt(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                       "reading in: it is empty",
		"\n\n\n":                 "reading in: its form cannot be told from its content",
		"\x00\xff":               "reading in: its form cannot be told from its content",
		"# tracer: nop\n#\n#\n":  "in:3: there is no packet in all of the text",
		traceHead("1")[:70]:      "its form cannot be told",
		text.UserHead + "x\n\n":  "in:2: there is no packet in all of the text",
		traceHead("4294967296"):  "in:1: there is no packet in all of the text",
		kernelText([]byte{9, 9}): "in:1: the kind of socket cannot be told from the bytes",
	} {
		got := readText(t, text, ReadOptions{})
		if got.err == nil || !strings.Contains(got.err.Error(), want) || len(got.packets) > 0 {
			t.Errorf("%q: error %v, want %q; %d packets", text, got.err, want, len(got.packets))
		}
	}
}

func TestReadError(t *testing.T) {
	t.Parallel()
	broken := io.MultiReader(strings.NewReader(kernelText([]byte{1})+traceHead("2")), errorReader{})
	got := read(t, broken, ReadOptions{Kind: kind(t, "udp")})
	if got.err == nil || !strings.HasSuffix(got.err.Error(), "in:5: the disk is broken") || len(got.packets) != 1 {
		t.Errorf("error %v, %d packets", got.err, len(got.packets))
	}
}

type errorReader struct{}

func (errorReader) Read([]byte) (int, error) { return 0, fmt.Errorf("the disk is broken") }

// TestKindFromBytes finds the kind of socket.
func TestKindFromBytes(t *testing.T) {
	t.Parallel()
	udp := datagram(t, udpKernel, client4, server4, probe).Data
	tcp := handshake(t, tcpKernel, client4, server4)
	raw := ipv4(udp)
	var segments string
	for _, p := range tcp {
		segments += kernelText(p.Data)
	}
	long := segment(t, tcpKernel, client4, server4, layers.TCP{ACK: true}, strings.Repeat("x", 2000)).Data
	for _, tt := range []struct{ text, want string }{
		{kernelText(udp), "udp"},
		{kernelText(raw), "raw"},
		{segments, "tcp"},
		{kernelText(long), "tcp"},
		{segments + kernelText(udp), "tcp"},
		{kernelText([]byte{1}) + kernelText(udp) + kernelText(udp), "udp"},
	} {
		packets := mustRead(t, strings.NewReader(tt.text), ReadOptions{})
		if got := packets[0].Interface.Kind; got != tt.want {
			t.Errorf("kind %q, want %q", got, tt.want)
		}
	}
}

func TestTraceTextOptions(t *testing.T) {
	t.Parallel()
	udp := datagram(t, udpKernel, client4, server4, probe).Data
	o := ReadOptions{Src: netip.MustParseAddrPort("10.0.0.1:0"), Dst: netip.MustParseAddrPort("10.0.0.2:99")}
	p := mustRead(t, strings.NewReader(kernelText(udp)), o)[0]
	if p.Src.String() != "10.0.0.1:52638" || p.Dst.String() != "10.0.0.2:16962" {
		t.Errorf("%v > %v", p.Src, p.Dst)
	}
	for name, want := range map[string]uint8{"tcp6": protocolTCP, "udp6": protocolUDP, "raw6": protocolUDP} {
		p := mustRead(t, strings.NewReader(kernelText(udp)), ReadOptions{Kind: kind(t, name)})[0]
		if p.Src.Addr() != netip.IPv6Loopback() || p.Protocol != want || p.Interface.Name() != name+":kernel" {
			t.Errorf("%s: %v, protocol %d", name, p.Src, p.Protocol)
		}
	}
	raw := mustRead(t, strings.NewReader(kernelText(ipv4(udp))), o)[0]
	if raw.Src.String() != "127.0.0.1:52638" || raw.Protocol != protocolUDP || raw.Interface.Layer != capture.LayerNetwork {
		t.Errorf("raw: %v, protocol %d, layer %d", raw.Src, raw.Protocol, raw.Interface.Layer)
	}
}

// TestTextMemory reads texts that could make a reader accumulate memory: more of the same
// must not need more.
func TestTextMemory(t *testing.T) {
	const size = 80 << 20
	var cpus strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&cpus, "x-%d [%d] .... 1.000000: : Kernelspace: Received 1000 bytes, dumping\nCPU:%d [LOST 1 EVENTS]\n", i, i, i)
	}
	for name, r := range map[string]io.Reader{
		"an endless line":   &ones{head: kernelText([]byte{1}), n: size},
		"an endless index":  &ones{head: kernelText([]byte{1}) + traceHead("5") + newPrefix + "\tbyte[", n: size, tail: "]=0x1\n"},
		"packets of no end": strings.NewReader(kernelText([]byte{1}) + cpus.String()),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		source, err := Open(r, nil, ReadOptions{Name: "in", Kind: kind(t, "udp")})
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = source.Next()
		}
		if err != io.EOF {
			t.Errorf("%s: %v", name, err)
		}
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 40<<20 {
			t.Errorf("%s: %d MiB were allocated", name, grown>>20)
		}
	}
}

// TestTraceTextAllocations checks that lines cost no allocation, and packets few.
func TestTraceTextAllocations(t *testing.T) {
	text := strings.Repeat(kernelText(datagram(t, udpKernel, client4, server4, probe).Data), 10000)
	n := testing.AllocsPerRun(1, func() {
		source, err := Open(strings.NewReader(text), nil, ReadOptions{})
		for err == nil {
			_, err = source.Next()
		}
		if err != io.EOF {
			t.Fatal(err)
		}
	})
	if n > 1000 {
		t.Errorf("%v allocations for 10000 packets", n)
	}
}

// BenchmarkTraceText reads trace text that is in memory, on one core.
func BenchmarkTraceText(b *testing.B) {
	const packets = 10000
	for _, bench := range []struct {
		name     string
		prefixes []string
		end      string
	}{
		{"Linux5.13", []string{newPrefix}, "\n"},
		{"Linux4.9", []string{"              nc-2834  [001] ..s3  1234.567890: : "}, "\n"},
		{"EmptyLines", []string{newPrefix}, "\n\n"},
		{"CRLF", []string{newPrefix}, "\r\n"},
		{"TwoCPUs", []string{newPrefix, strings.Replace(newPrefix, "[001]", "[000]", 1)}, "\n"},
	} {
		b.Run(bench.name, func(b *testing.B) {
			data := datagram(b, udpKernel, client4, server4, strings.Repeat("x", 35)).Data
			var one strings.Builder
			var texts [][]string
			for _, prefix := range bench.prefixes {
				texts = append(texts, strings.SplitAfter(dumpText(prefix, text.KernelHead, len(data), data), "\n"))
			}
			for i := range texts[0] {
				for _, lines := range texts {
					one.WriteString(strings.ReplaceAll(lines[i], "\n", bench.end))
				}
			}
			text := strings.Repeat(one.String(), packets/len(texts))
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				benchRead(b, text, packets)
			}
		})
	}
}

// BenchmarkServerText reads server text on one core.
func BenchmarkServerText(b *testing.B) {
	const packets = 50000
	text := strings.Repeat(userText([]byte(strings.Repeat("x", 43))), packets)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		benchRead(b, text, packets)
	}
}

func benchRead(b *testing.B, text string, packets int) {
	source, err := Open(strings.NewReader(text), nil, ReadOptions{})
	n := 0
	for ; err == nil; n++ {
		_, err = source.Next()
	}
	if err != io.EOF || n-1 != packets {
		b.Fatalf("%d packets, error %v", n-1, err)
	}
}
