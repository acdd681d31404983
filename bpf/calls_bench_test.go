package bpf

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkCalls is what a system call costs: when nobody looks, in a process that is not
// followed, in one of which only the news are, and in one that is; and what a receiving one costs
// there.
func BenchmarkCalls(b *testing.B) {
	requirePrivilege(b)
	receiver, sender := udpPair(b)
	buf := make([]byte, 64)
	calls := map[string]func(){
		"getppid": func() { _, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0) },
		"recvfrom": func() {
			if err := unix.Send(sender, buf, 0); err != nil {
				b.Fatal(err)
			}
			if _, _, err := unix.Recvfrom(receiver, buf, 0); err != nil {
				b.Fatal(err)
			}
		},
	}
	states := []string{"off", "others tracepoints", "news tracepoints", "followed tracepoints", "others raw", "news raw", "followed raw"}
	if hasSessions() {
		states = append(states, "others functions", "news functions", "followed functions")
	}
	for _, state := range states {
		for name, call := range calls {
			b.Run(state+"/"+name, func(b *testing.B) {
				if state != "off" {
					hook := mustHook(b, mustOpen(b, Options{RingSize: MinRingSize, Snaplen: MaxSnaplen}), HookOptions{Record: true})
					c, err := openCallsOf(hook, CallsOptions{NewsOnly: strings.HasPrefix(state, "news")}, ways[strings.Fields(state)[1]])
					if err != nil {
						b.Fatal(err)
					}
					defer c.Close()
					stop := drainCalls(c)
					defer stop()
					if !strings.HasPrefix(state, "others") {
						if _, err := hook.Mark(receiver); err != nil {
							b.Fatal(err)
						}
						if err := hook.Follow(uint32(os.Getpid()), nil); err != nil {
							b.Fatal(err)
						}
					}
				}
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				before := cpuTime(b)
				for b.Loop() {
					call()
				}
				b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op") // also of a busy machine
			})
		}
	}
}

// BenchmarkSends is what the view of what is sent costs: a write to a file and a send, when
// nobody looks, when only what is received is followed, and with what is sent, in a process that
// is not followed and in one that is. Nobody reads what is sent: the receive queue is full.
func BenchmarkSends(b *testing.B) {
	requirePrivilege(b)
	_, sender := udpPair(b)
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	file := int(null.Fd())
	small, large := make([]byte, 64), make([]byte, 16384)
	calls := []struct {
		name string
		fd   int
		data []byte
	}{{"a write to a file", file, small}, {"a send of 64 bytes", sender, small}, {"a send of 16384 bytes", sender, large}}
	for _, state := range []string{"off", "others without sends", "followed without sends", "others with sends", "followed with sends"} {
		for _, call := range calls {
			b.Run(state+"/"+call.name, func(b *testing.B) {
				if state != "off" {
					hook := mustHook(b, mustOpen(b, Options{RingSize: MinRingSize, Snaplen: MaxSnaplen}), HookOptions{Record: true})
					c, err := OpenCalls(hook, CallsOptions{Sends: strings.HasSuffix(state, "with sends"), RingSize: 64 << 20})
					if err != nil {
						b.Fatal(err)
					}
					defer c.Close()
					if strings.HasPrefix(state, "followed") {
						// As a capture does: otherwise each call is the first news of its socket.
						if _, err := hook.Mark(sender); err != nil {
							b.Fatal(err)
						}
						if err := hook.Follow(uint32(os.Getpid()), nil); err != nil {
							b.Fatal(err)
						}
					}
					stop := drainCalls(c)
					defer stop()
				}
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				before := cpuTime(b)
				for b.Loop() {
					if _, err := unix.Write(call.fd, call.data); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op") // also of a busy machine
			})
		}
	}
}

// cpuTime is what the thread has used so far.
func cpuTime(b *testing.B) int64 {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &used); err != nil {
		b.Fatal(err)
	}
	return used.Utime.Nano() + used.Stime.Nano()
}

// drainCalls reads events until stop is called, so that the ring does not fill up.
func drainCalls(c *Calls) (stop func()) {
	ending, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		for e := new(Event); ; {
			select {
			case <-ending:
				return
			default:
			}
			for c.Read(e) == nil {
			}
			_ = unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
		}
	}()
	return func() { close(ending); <-over }
}
