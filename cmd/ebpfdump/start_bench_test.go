package main

import (
	"bufio"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkStart prints how long it takes from the start of ebpfdump to "listening on",
// and from the signal to its exit: the medians.
func BenchmarkStart(b *testing.B) {
	requireTools(b, "python3")
	for name, args := range map[string][]string{
		"kind":       {"--sock", "udp"},
		"pid/kernel": {"--pid", "", "--view", "kernel"},
		"pid":        {"--pid", ""},
	} {
		b.Run(name, func(b *testing.B) {
			bench := newBench(b)
			args := append([]string{"capture", "-o", "start.pcapng"}, args...)
			for i, arg := range args {
				if arg == "" {
					args[i] = fmt.Sprint(bench.listener().Process.Pid)
				}
			}
			var starts, stops []float64
			for b.Loop() {
				// The kernel takes a second to clean up after the previous run.
				time.Sleep(1500 * time.Millisecond)
				start, stop := bench.startAndStop(args...)
				starts, stops = append(starts, start), append(stops, stop)
			}
			b.ReportMetric(median(starts), "ms-start")
			b.ReportMetric(median(stops), "ms-stop")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// listener starts a process with a socket.
func (b *bench) listener() *exec.Cmd {
	b.Helper()
	return b.python("import socket; s = socket.create_server(('127.0.0.1', 0)); print(flush=True); s.accept()")
}

// python starts a program that runs until the end of the benchmark, and waits for its
// first output.
func (b *bench) python(program string) *exec.Cmd {
	b.Helper()
	cmd := exec.Command("python3", "-c", program)
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	end := b.launch(cmd)
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-end.done
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		b.Fatal(err)
	}
	return cmd
}

// startAndStop runs ebpfdump once, and measures both times in milliseconds.
func (b *bench) startAndStop(args ...string) (start, stop float64) {
	b.Helper()
	cmd := exec.Command(b.named("ebpfdump"), args...)
	cmd.Dir = b.dir
	said, err := cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	begin := time.Now()
	if err := b.ns.Do(cmd.Start); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewReader(said)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			b.Fatalf("ebpfdump does not listen: %v", err)
		}
		if strings.HasPrefix(line, "listening on") {
			break
		}
	}
	start = time.Since(begin).Seconds() * 1000
	time.Sleep(100 * time.Millisecond) // at rest
	begin = time.Now()
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		b.Fatal(err)
	}
	if _, err := lines.WriteTo(new(strings.Builder)); err != nil {
		b.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		b.Fatal(err)
	}
	return start, time.Since(begin).Seconds() * 1000
}
