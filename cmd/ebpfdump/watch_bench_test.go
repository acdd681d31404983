package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkWatch prints how long it takes until a packet that arrives at an idle socket
// can be read from -o -, directly and through tshark, as medians in milliseconds; and the
// cpu time in milliseconds that ebpfdump takes per idle second.
func BenchmarkWatch(b *testing.B) {
	requireTools(b, "python3", "tshark")
	for _, how := range []string{"kind", "pid", "kind/tshark", "pid/tshark"} {
		b.Run(how, func(b *testing.B) {
			bench := newBench(b)
			address := "127.0.0.1:7000"
			args := []string{"capture", "-o", "-", "--sock", "udp", "-l", address}
			if strings.HasPrefix(how, "pid") {
				server := bench.python("import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('127.0.0.1', 7000)); print(flush=True)\nwhile True: s.recv(100)")
				args = []string{"capture", "-o", "-", "--pid", fmt.Sprint(server.Process.Pid)}
			}
			w := bench.watch(strings.HasSuffix(how, "tshark"), args...)
			conn := bench.dial("udp", address)
			var times []float64
			for b.Loop() {
				time.Sleep(50 * time.Millisecond)
				w.skip()
				begin := time.Now()
				if _, err := conn.Write([]byte("x")); err != nil {
					b.Fatal(err)
				}
				w.await()
				times = append(times, time.Since(begin).Seconds()*1000)
			}
			before := w.cpu()
			time.Sleep(idleSeconds * time.Second)
			b.ReportMetric(median(times), "ms-to-reader")
			b.ReportMetric((w.cpu()-before)/idleSeconds, "ms-cpu/s-idle")
			b.ReportMetric(0, "ns/op")
			w.end()
		})
	}
}

const idleSeconds = 5

// watcher reads what ebpfdump writes.
type watcher struct {
	*bench
	cmd, reader *exec.Cmd
	out         *os.File
}

// watch starts ebpfdump with its output connected to the test or to tshark.
func (b *bench) watch(byTshark bool, args ...string) *watcher {
	b.Helper()
	w := &watcher{bench: b, cmd: exec.Command(b.named("ebpfdump"), args...)}
	var said output
	w.cmd.Stderr = &said
	pipe := func() (r, w *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			b.Fatal(err)
		}
		return r, w
	}
	out, in := pipe()
	w.out, w.cmd.Stdout = out, in
	files := []*os.File{in}
	if byTshark {
		shown, show := pipe()
		w.reader = exec.Command("tshark", "-r", "-", "-l", "-n")
		w.reader.Stdin, w.reader.Stdout = out, show
		w.out, files = shown, append(files, out, show)
		b.launch(w.reader)
	}
	b.launch(w.cmd)
	for _, f := range files {
		f.Close()
	}
	for begin := time.Now(); !strings.Contains(said.String(), "listening on"); time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > testTimeout {
			b.Fatalf("ebpfdump does not listen: %s", said.String())
		}
	}
	time.Sleep(time.Second) // tshark needs as long to begin
	return w
}

// skip discards what can be read.
func (w *watcher) skip() {
	w.Helper()
	for buf := make([]byte, 1<<16); ; {
		if err := w.out.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			w.Fatal(err)
		}
		if _, err := w.out.Read(buf); err != nil {
			return
		}
	}
}

// await waits until there is something to read.
func (w *watcher) await() {
	w.Helper()
	if err := w.out.SetReadDeadline(time.Now().Add(testTimeout)); err != nil {
		w.Fatal(err)
	}
	if _, err := w.out.Read(make([]byte, 1<<16)); err != nil {
		w.Fatal(err)
	}
}

// cpu is the cpu time of ebpfdump so far, in milliseconds.
func (w *watcher) cpu() float64 {
	w.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.cmd.Process.Pid))
	if err != nil {
		w.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')'):]))
	var ticks int
	for _, field := range fields[12:14] { // utime, stime
		n, err := strconv.Atoi(field)
		if err != nil {
			w.Fatal(err)
		}
		ticks += n
	}
	const tick = 10 // USER_HZ is 100 everywhere
	return float64(ticks * tick)
}

// end ends both.
func (w *watcher) end() {
	w.Helper()
	if err := w.cmd.Process.Signal(unix.SIGINT); err != nil {
		w.Fatal(err)
	}
	for w.skip(); ; {
		if err := w.out.SetReadDeadline(time.Now().Add(testTimeout)); err != nil {
			w.Fatal(err)
		}
		if _, err := w.out.Read(make([]byte, 1<<16)); err != nil {
			return
		}
	}
}
