package capture

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture/internal/process"
)

// What it costs to capture from a process beside many sockets, or with many.

func init() { targets["holder"] = targetHolder }

// targetHolder has a socket that echoes, and so many that are idle. A second number is
// how often a second it starts a process for a moment.
func targetHolder(args []string) error {
	idle, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if err := roomFor(idle); err != nil {
		return err
	}
	for i := range idle { // each with a port of its own, which the kernel would look for long
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 1, byte(i)}, Port: 2000 + i}); err != nil {
			return err
		}
	}
	if len(args) > 1 && args[1] != "0" {
		rate, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		go forkAt(rate)
	}
	return listenAndEcho("tcp4", "127.0.0.1:0", false)
}

// roomFor lets the process have so many sockets.
func roomFor(sockets int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	need := uint64(sockets + 100)
	limit.Cur, limit.Max = max(limit.Cur, need), max(limit.Max, need)
	return os.NewSyscallError("setrlimit", unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
}

func forkAt(rate int) {
	for range time.Tick(time.Second / time.Duration(rate)) {
		child := &exec.Cmd{Path: "/proc/self/exe", Args: []string{targetName, "exit"}}
		_ = child.Run() // its status is not 0
	}
}

// joinTimes is what it takes to find and mark what each of some processes has, in time of
// a cpu, since others use the machine; not what it takes to load the programs, which is the
// same for all. They take turns, so that what slows the machine down slows all of them.
func joinTimes(t *testing.T, servers ...*target) []time.Duration {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	best := slices.Repeat([]time.Duration{1<<63 - 1}, len(servers))
	for range 3 {
		for i, server := range servers {
			best[i] = min(best[i], joinTime(t, server))
		}
	}
	return best
}

func joinTime(t *testing.T, server *target) time.Duration {
	t.Helper()
	l, err := newLive(JoinConfig{PIDs: []int{server.Process.Pid}, Options: Options{RingSize: smallRing}})
	if err != nil {
		t.Fatal(err)
	}
	root, err := process.Open(server.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	l.follows(newFamilies(root))
	begin := threadTime(t)
	err = l.scanner.join()
	took := threadTime(t) - begin
	if cerr := l.Close(); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
	return took
}

// threadTime is how long this thread has run so far.
func threadTime(t *testing.T) time.Duration {
	t.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// idleSockets is a busy proxy's connections.
const idleSockets = 16000

// What other processes have does not matter; what the process itself has is looked at
// once, each socket for itself.
func TestJoinBesideIdleSockets(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "holder", "0")
	alone := joinTimes(t, server)[0]
	for range 4 {
		startTarget(t, "holder", fmt.Sprint(idleSockets/4))
	}
	times := joinTimes(t, server, startTarget(t, "holder", fmt.Sprint(idleSockets/8)), startTarget(t, "holder", fmt.Sprint(idleSockets)))
	beside, some, many := times[0], times[1], times[2]
	t.Logf("alone %v, beside %d idle sockets of others %v, with %d of its own %v, with %d %v", alone, idleSockets, beside, idleSockets/8, some, idleSockets, many)
	// A look at each of them would make it as much as many is.
	if beside > many/8 {
		t.Errorf("joined in %v beside %d sockets of others, in %v without them", beside, idleSockets, alone)
	}
	if many > 3*8*some {
		t.Errorf("joined in %v with %d sockets, in %v with %d", many, idleSockets, some, idleSockets/8)
	}
}

// BenchmarkForks is what the tool itself uses, in parts of a core, while it captures
// from a process with 5,000 sockets, one that is idle and one that starts 50 others a second.
func BenchmarkForks(b *testing.B) {
	for _, rate := range []string{"0", "50"} {
		b.Run(rate, func(b *testing.B) {
			server := startTarget(b, "holder", "5000", rate)
			capturer := startTarget(b, "capturer", "pid", fmt.Sprint(server.Process.Pid))
			var used, passed time.Duration
			for b.Loop() {
				begin, before := time.Now(), cpuTime(b, capturer.Process.Pid)
				time.Sleep(time.Second)
				used += cpuTime(b, capturer.Process.Pid) - before
				passed += time.Since(begin)
			}
			b.ReportMetric(100*used.Seconds()/passed.Seconds(), "%core")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// cpuTime is what the threads of a process have used so far (/proc/PID/task/TID/schedstat).
func cpuTime(tb testing.TB, pid int) (sum time.Duration) {
	tb.Helper()
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		tb.Fatal(err)
	}
	for _, thread := range threads {
		var used int64
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, thread.Name()))
		if err == nil {
			_, err = fmt.Sscan(string(text), &used)
		}
		if err != nil {
			tb.Fatal(err)
		}
		sum += time.Duration(used)
	}
	return sum
}
