package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
)

// processes finds out what the processes are that packets are of. A goroutine of its own looks them up,
// since who writes packets must not wait: what it finds is written with the next packet.
type processes struct {
	asked   map[uint32]int64 // when a process was asked for last, by the packets' times
	asks    chan int
	answers chan convert.ProcessInfo
	done    chan struct{} // closed when all that was asked for is answered
	closed  bool
}

const (
	// processQueue is how many processes may wait to be looked up, or to be written.
	processQueue = 4096
	// processAgain is when a number is looked up again: it may be another process's by then, or have
	// become another program.
	processAgain = int64(10 * time.Second)
	// processesKnown bounds the memory for those that were asked for.
	processesKnown = 1 << 16
	// ticksASecond is the unit of times in /proc: USER_HZ is 100 on every architecture that is followed.
	ticksASecond = 100
)

func openProcesses() *processes {
	r := &processes{
		asked: make(map[uint32]int64), asks: make(chan int, processQueue),
		answers: make(chan convert.ProcessInfo, processQueue), done: make(chan struct{}),
	}
	go r.lookUp()
	return r
}

// lookUp answers until there are no more questions. A process that is as it was is not told of again.
func (r *processes) lookUp() {
	defer close(r.done)
	known := make(map[uint32]convert.ProcessInfo)
	for pid := range r.asks {
		info, ok := processInfo(pid)
		before, again := known[info.PID]
		if !ok || again && sameProcess(&before, &info) {
			continue
		}
		if len(known) >= processesKnown {
			clear(known)
		}
		known[info.PID] = info
		select {
		case r.answers <- info:
		default: // nobody writes
		}
	}
}

func sameProcess(a, b *convert.ProcessInfo) bool {
	return a.Name == b.Name && a.Path == b.Path && bytes.Equal(a.Arguments, b.Arguments) && a.Parent == b.Parent && a.User == b.User &&
		max(a.Start, b.Start)-min(a.Start, b.Start) < int64(time.Second)
}

// ask asks for a process. It does not wait: when more are asked for than can be looked up, some are not.
func (r *processes) ask(pid int) {
	select {
	case r.asks <- pid:
	default:
	}
}

// close ends the questions, and waits for the answers. It is safe to call it twice, and on nil.
func (r *processes) close() {
	if r == nil || r.closed {
		return
	}
	r.closed = true
	close(r.asks)
	<-r.done
}

// describeProcess asks for a packet's process, and writes what has been found out.
func (out *captureOutput) describeProcess(p *capture.Packet) error {
	r := out.processes
	if r == nil || p.PID == 0 {
		return nil
	}
	if last, asked := r.asked[p.PID]; !asked || p.Time-last > processAgain {
		if len(r.asked) >= processesKnown {
			clear(r.asked)
		}
		r.asked[p.PID] = p.Time
		r.ask(int(p.PID))
	}
	return out.describeProcesses()
}

// describeProcesses writes what has been found out.
func (out *captureOutput) describeProcesses() error {
	if out.processes == nil || !out.Begun() {
		return nil
	}
	for {
		select {
		case info := <-out.processes.answers:
			to := out.recordedFile.(interface {
				WriteProcess(*convert.ProcessInfo) error
			})
			if err := to.WriteProcess(&info); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// processInfo reads what /proc says of a process, ok only if there is one.
func processInfo(pid int) (info convert.ProcessInfo, ok bool) {
	folder := filepath.Join("/proc", strconv.Itoa(pid))
	status, err := os.ReadFile(filepath.Join(folder, "status"))
	if err != nil {
		return info, false
	}
	info.PID = uint32(pid)
	name, _ := os.ReadFile(filepath.Join(folder, "comm"))
	info.Name = strings.ToValidUTF8(strings.TrimSuffix(string(name), "\n"), "\ufffd")
	path, _ := os.Readlink(filepath.Join(folder, "exe")) // of others' it takes CAP_SYS_PTRACE
	info.Path = strings.ToValidUTF8(path, "\ufffd")
	info.Arguments, _ = os.ReadFile(filepath.Join(folder, "cmdline"))
	parent, okParent := statusField(string(status), "PPid:", 0)
	user, okUser := statusField(string(status), "Uid:", 1) // the effective one
	info.Parent, info.User, info.Known = parent, user, okParent && okUser
	stat, _ := os.ReadFile(filepath.Join(folder, "stat"))
	info.Start = startOf(string(stat))
	return info, true
}

// statusField is a number in a line of /proc/PID/status. A name in it has its line breaks escaped.
func statusField(status, name string, index int) (uint32, bool) {
	for line := range strings.Lines(status) {
		rest, found := strings.CutPrefix(line, name)
		if fields := strings.Fields(rest); found && index < len(fields) {
			n, err := strconv.ParseUint(fields[index], 10, 32)
			return uint32(n), err == nil
		}
	}
	return 0, false
}

// startOf is when a process began, of its /proc/PID/stat: the 22nd field, of which those behind the
// name in brackets are counted. 0 if it is not there.
func startOf(stat string) int64 {
	const field = 22 - 3
	rest := stat[strings.LastIndexByte(stat, ')')+1:]
	fields := strings.Fields(rest)
	if len(fields) <= field {
		return 0
	}
	ticks, err := strconv.ParseInt(fields[field], 10, 64)
	var now unix.Timespec
	if err != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return 0
	}
	return time.Now().UnixNano() - now.Nano() + ticks*int64(time.Second/ticksASecond)
}
