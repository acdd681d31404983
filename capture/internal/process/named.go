package process

import (
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ebpfdump/ebpfdump/internal/terminal"
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

// Programs lists the processes that run a program, with their names, in ascending order and without
// this one.
func Programs() iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		for _, pid := range All() {
			p := &Process{PID: pid, pidfd: -1}
			// A thread of the kernel and a process that has ended have none.
			line, err := os.ReadFile(p.proc("cmdline"))
			if err != nil || len(line) == 0 {
				continue
			}
			name, err := p.comm()
			if err == nil && !yield(pid, name) {
				return
			}
		}
	}
}

// NameOf is the name that a process gets from the program that it runs.
func NameOf(program string) string {
	base := filepath.Base(program)
	return base[:min(len(base), commMax)]
}

// Named lists the processes with a name, in ascending order, without this one: by the name that
// ps and pidof show, in full where the kernel only keeps its beginning. Of a name that cannot be
// printed as it is, what ps or Label makes of it will do.
func Named(name string) []int {
	return slices.DeleteFunc(All(), func(pid int) bool {
		p := &Process{PID: pid, pidfd: -1}
		return !p.isCalled(name) || !p.Lives()
	})
}

func (p *Process) isCalled(name string) bool {
	comm, err := p.comm()
	if err != nil {
		return false
	}
	if readsAs(comm, name) {
		return true
	}
	if len(comm) < commMax || len(name) <= commMax {
		return false
	}
	line, err := os.ReadFile(p.proc("cmdline"))
	program, _, _ := strings.Cut(string(line), "\x00")
	base := filepath.Base(program)
	return err == nil && len(base) > commMax && NameOf(program) == comm && readsAs(base, name)
}

// readsAs tells whether text is a name, or what stands for it where it is printed.
func readsAs(name, text string) bool {
	return terminal.Plain(text) == terminal.Plain(name) || text == inUTF8(name) || text == inASCII(name)
}

// inUTF8 is a name as ps prints it in a UTF-8 locale: a question mark stands for each character that
// cannot be printed, and for each byte that is of no character.
func inUTF8(name string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, name)
}

// inASCII is a name as ps prints it in the locale C: a full stop stands for each control character,
// and a question mark for each byte beyond ASCII.
func inASCII(name string) string {
	b := []byte(name)
	for i, c := range b {
		switch {
		case c >= utf8.RuneSelf:
			b[i] = '?'
		case c < ' ' || c > '~':
			b[i] = '.'
		}
	}
	return string(b)
}
