package convert

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ebpfdump/ebpfdump/convert/internal/text"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// BenchmarkAgainstText2pcap converts the same packets with text2pcap and with this
// package, each from its own text format to pcapng, in turn in the same run. It prints
// the packets per second of both, and the ratio.
func BenchmarkAgainstText2pcap(b *testing.B) {
	text2pcap := testutil.RequireTool(b, "text2pcap")
	const packets = 100000
	var hex, trace, server bytes.Buffer
	for n := range packets {
		data := datagram(b, udpKernel, client4, server4, fmt.Sprintf("packet %028d", n)).Data
		appendText2pcap(&hex, data)
		prefix := fmt.Sprintf("              nc-2834    [001] ..s31  1234.%06d: bpf_trace_printk: ", n)
		trace.WriteString(dumpText(prefix, text.KernelHead, len(data), data))
		server.WriteString(userText(data))
	}
	dir := b.TempDir()
	path := func(name string, content []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, content, 0o600); err != nil {
			b.Fatal(err)
		}
		return name
	}
	hexFile, out := path("hex.txt", hex.Bytes()), path("out.pcapng", nil)
	texts := map[string]string{"Trace": path("trace.txt", trace.Bytes()), "Server": path("server.txt", server.Bytes())}
	for _, name := range []string{"Trace", "Server"} {
		b.Run(name, func(b *testing.B) {
			var theirs, ours time.Duration
			for b.Loop() {
				began := time.Now()
				if message, err := exec.Command(text2pcap, "-q", "-l", "228", hexFile, out).CombinedOutput(); err != nil {
					b.Fatalf("%v: %s", err, message)
				}
				theirs += time.Since(began)
				began = time.Now()
				convertFile(b, texts[name], out, packets)
				ours += time.Since(began)
			}
			all := float64(packets) * float64(b.N)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(all/theirs.Seconds(), "text2pcap-packets/s")
			b.ReportMetric(all/ours.Seconds(), "packets/s")
			b.ReportMetric(theirs.Seconds()/ours.Seconds(), "times-text2pcap")
		})
	}
}

// appendText2pcap appends a packet in the form that text2pcap reads.
func appendText2pcap(b *bytes.Buffer, data []byte) {
	for at := 0; at < len(data); at += 16 {
		fmt.Fprintf(b, "%06x  % x\n", at, data[at:min(at+16, len(data))])
	}
	b.WriteByte('\n')
}

// convertFile does what the command does, without starting a process.
func convertFile(b *testing.B, from, to string, packets int) {
	in, err := os.Open(from)
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	source, err := Open(in, nil, ReadOptions{Name: from})
	if err != nil {
		b.Fatal(err)
	}
	w, err := NewWriter(out, Section{})
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	for ; ; n++ {
		p, err := source.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			b.Fatal(err)
		}
		if err := w.WritePacket(p); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil || n != packets {
		b.Fatalf("%d packets, error %v", n, err)
	}
}
