package process

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// commMax is how many bytes of a name the kernel keeps (TASK_COMM_LEN, without its zero).
const commMax = 15

// All lists all processes in ascending order, without this one.
func All() []int {
	entries, _ := os.ReadDir("/proc") // without /proc, there is none
	var all []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil && pid != os.Getpid() {
			all = append(all, pid)
		}
	}
	slices.Sort(all)
	return all
}

// Named lists the processes with a name, in ascending order, without this one: by the name that
// ps and pidof show, in full where the kernel only keeps its beginning.
func Named(name string) []int {
	return slices.DeleteFunc(All(), func(pid int) bool {
		p := &Process{PID: pid, pidfd: -1}
		return !p.isCalled(name) || !p.Lives()
	})
}

func (p *Process) isCalled(name string) bool {
	comm, err := os.ReadFile(p.proc("comm"))
	if err != nil || strings.TrimSuffix(string(comm), "\n") != name[:min(len(name), commMax)] {
		return false
	}
	if len(name) <= commMax {
		return true
	}
	line, err := os.ReadFile(p.proc("cmdline"))
	program, _, _ := strings.Cut(string(line), "\x00")
	return err == nil && filepath.Base(program) == name
}
