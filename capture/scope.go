package capture

import (
	"context"
	"fmt"

	"github.com/ebpfdump/ebpfdump/capture/internal/process"
)

// scope is which processes a capture follows: it knows where to begin, and when all is
// over. What a followed process forks belongs to the scope too, and the kernel enters it
// by itself (bpf.Hook.Follow).
//
// A scope belongs to the goroutine that sets the capture up, and then to the scanner's,
// but for String, over and await, which anybody may call until it is closed.
type scope interface {
	// String says what the user has asked for, for people.
	String() string
	// each calls do for every process that belongs now, a parent before its children
	// are listed: if do follows it, none of them can be missed. It ends with the first
	// error of do.
	each(do func(*process.Process) error) error
	// find finds a process that the kernel has told of.
	find(pid int) (*process.Process, error)
	// named tells whether the user has named this very process, and not an ancestor of
	// it: the descriptors that the user has chosen are its own.
	named(p *process.Process) bool
	// remarks says what is worth knowing before the capture begins. calls tells whether
	// system calls are followed.
	remarks(calls bool) []string
	// bury gives up the processes that have ended.
	bury()
	// over tells whether all processes that the user has named have ended.
	over() bool
	// await returns nil when that is so, and the context's error if it ends before.
	await(ctx context.Context) error
	// close gives up all processes. It is safe to call it twice.
	close()
}

// tree is the scope of one process and its descendants. It is over with that process.
type tree struct {
	root  *process.Process
	known map[int]*process.Process // by number
}

// newTree takes over a process that runs.
func newTree(root *process.Process) *tree {
	return &tree{root: root, known: map[int]*process.Process{root.PID: root}}
}

func (t *tree) String() string { return t.root.String() }

func (t *tree) each(do func(*process.Process) error) error {
	all, listed := []*process.Process{t.root}, map[int]bool{t.root.PID: true}
	for i := 0; i < len(all); i++ {
		if err := do(all[i]); err != nil {
			return err
		}
		for _, pid := range all[i].Children() {
			if listed[pid] {
				continue
			}
			listed[pid] = true
			if child, err := t.find(pid); err == nil {
				all = append(all, child)
			}
		}
	}
	return nil
}

func (t *tree) find(pid int) (*process.Process, error) {
	if p := t.known[pid]; p != nil && (p == t.root || !p.Exited()) {
		return p, nil
	}
	fresh, err := process.Open(pid)
	if err != nil {
		return nil, err
	}
	if before := t.known[pid]; before != nil {
		before.Close()
	}
	t.known[pid] = fresh
	return fresh, nil
}

func (t *tree) named(p *process.Process) bool { return p == t.root }

func (t *tree) remarks(calls bool) []string {
	var all []string
	if t.root.PID == 1 {
		all = append(all, "process 1 is the ancestor of all: this captures from every process of the machine that it has started")
	}
	if t.root.ForeignNetwork() {
		all = append(all, fmt.Sprintf("%s is in another network namespace: its packets are those of that namespace", t))
	}
	if calls && t.root.Is32Bit() {
		all = append(all, fmt.Sprintf("%s is a 32-bit program, whose system calls are not followed: the user view stays empty", t))
	}
	return all
}

func (t *tree) bury() {
	for pid, p := range t.known {
		if p != t.root && p.Exited() {
			p.Close()
			delete(t.known, pid)
		}
	}
}

func (t *tree) over() bool { return t.root.Exited() }

func (t *tree) await(ctx context.Context) error { return t.root.AwaitExit(ctx) }

func (t *tree) close() {
	for _, p := range t.known {
		p.Close()
	}
}
