package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine is what a reader of the figures must know of where they were measured.
type machine struct {
	CPU      string
	Cores    int
	Kernel   string
	Versions []string
	// Background is how many cores were busy before anything was measured.
	Background float64
	Day        string
}

// noisy tells that something else runs, of which nobody knows how much it will
// take. A little goes on everywhere, and is taken off.
func (m *machine) noisy() bool { return m.Background > 0.05*float64(m.Cores) }

func describeMachine() (machine, error) {
	m := machine{CPU: runtime.GOARCH, Cores: runtime.NumCPU(), Day: time.Now().UTC().Format(time.DateOnly)}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return m, err
	}
	m.Kernel = unix.ByteSliceToString(u.Release[:])
	for _, tool := range []string{"tcpdump", "dumpcap"} {
		// Some versions of tcpdump leave with a status for --version.
		out, err := exec.Command(tool, "--version").CombinedOutput()
		if len(out) == 0 {
			return m, fmt.Errorf("asking %s for its version: %w", tool, err)
		}
		m.Versions = append(m.Versions, versionOf(tool, string(out)))
		if _, rest, ok := strings.Cut(string(out), "libpcap version "); ok && tool == "tcpdump" {
			m.Versions = append(m.Versions, "libpcap "+strings.Fields(rest)[0])
		}
	}
	m.Versions = append(m.Versions, strings.Replace(runtime.Version(), "go", "Go ", 1))
	return m, nil
}

// versionOf finds the first number in what a program says of itself.
func versionOf(tool, said string) string {
	for word := range strings.FieldsSeq(said) {
		if word[0] >= '0' && word[0] <= '9' {
			return tool + " " + strings.TrimRight(word, ".,)")
		}
	}
	return tool
}

// busy is how long all cores together have worked for anybody, interrupts included.
func busy() (time.Duration, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return busyOf(string(stat))
}

// busyOf adds up user, nice, system, irq and softirq: neither idle and iowait nor
// what other guests of the same host took.
func busyOf(stat string) (time.Duration, error) {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on all that Go runs on
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var ticks int64
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat begins with %q", line)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// used is the time that a process has worked so far, in ticks.
func used(pid int) (int, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in brackets, may have any character.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat is %q", pid, stat)
	}
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(fields[12])
	return user + system, err
}

// peak is the most memory that a process has had so far, in bytes.
func peak(pid int) (int, error) {
	return kilobytes(fmt.Sprintf("/proc/%d/status", pid), "VmHWM:")
}

func availableMemory() uint64 {
	n, err := kilobytes("/proc/meminfo", "MemAvailable:")
	if err != nil {
		return 0
	}
	return uint64(n)
}

// kilobytes finds a line such as "VmHWM:  1234 kB", and returns bytes.
func kilobytes(file, name string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(text), name)
	if !ok {
		return 0, fmt.Errorf("%s has no line %s", file, name)
	}
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	return n << 10, err
}
