package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/ebpfdump/ebpfdump/capture/internal/process"
	"golang.org/x/sys/unix"
)

// scope is the set of processes that a capture follows: where to begin, and when it is over.
// Children of a followed process belong to the scope too; the kernel follows them by itself
// (bpf.Hook.Follow).
//
// A scope belongs to the goroutine that sets the capture up, and then to the scanner's, except
// for String, over and await, which any goroutine may call until it is closed.
type scope interface {
	// String describes what the user has asked for, for people.
	String() string
	// names are the processes that the user has named, by number, for people.
	names() map[int]string
	// each calls do for every process of the scope, a parent before its children are listed: if
	// do follows it, none of them can be missed. It stops at the first error of do.
	each(do func(*process.Process) error) error
	// find finds a process that the kernel reported.
	find(pid int) (*process.Process, error)
	// joined lists the processes that have joined the scope since each, other than by a fork.
	// followed tells whether the kernel follows a pid.
	joined(followed func(pid int) bool) []*process.Process
	// named tells whether the user has named this very process, and not an ancestor of it: then
	// the descriptors that the user chose are its own.
	named(p *process.Process) bool
	// mayLack tells whether the capture goes on without a process that cannot be followed or
	// inspected because of an error. unix.ESRCH is for one that has ended.
	mayLack(p *process.Process, err error) bool
	// remarks returns what is worth knowing before the capture begins. calls tells whether
	// system calls are followed.
	remarks(calls bool) []string
	// bury releases the processes that have ended.
	bury()
	// over tells whether nothing can come any more, because everything that the user has named
	// has ended.
	over() bool
	// await returns nil when over, and the context's error if it ends before. ended is called
	// for each named process or group when it ends, from any goroutine.
	await(ctx context.Context, ended func(what string)) error
	// close releases all processes. It is safe to call it twice.
	close()
}

// openScope opens the scope that a JoinConfig asks for.
func openScope(c *JoinConfig) (scope, error) {
	if c.Cgroup != "" {
		return newGroup(c.Cgroup), nil
	}
	return openFamilies(c.PIDs)
}

// held are open processes, by pid.
type held map[int]*process.Process

func (h held) find(pid int) (*process.Process, error) {
	before := h[pid]
	if before != nil && !before.Exited() {
		return before, nil
	}
	fresh, err := process.Open(pid)
	if err != nil {
		return nil, err
	}
	if before != nil {
		before.Close()
	}
	h[pid] = fresh
	return fresh, nil
}

// bury closes the processes that have ended, except those that spare selects.
func (h held) bury(spare func(*process.Process) bool) {
	for pid, p := range h {
		if !spare(p) && p.Exited() {
			p.Close()
			delete(h, pid)
		}
	}
}

func (h held) close() {
	for _, p := range h {
		p.Close()
	}
}

// families is the scope of some processes and their descendants. It is over when the last named
// process has ended.
type families struct {
	heads []*process.Process
	held  // including heads
}

// openFamilies opens processes by their pids. If one does not exist, the error is unix.ESRCH.
func openFamilies(pids []int) (_ *families, err error) {
	f := newFamilies()
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	for _, pid := range pids {
		if f.held[pid] != nil {
			continue // named twice
		}
		p, err := process.Open(pid)
		if err != nil {
			return nil, err
		}
		f.add(p)
		if p.OfKernel() {
			return nil, fmt.Errorf("joining %s: it is a thread of the kernel, which has no descriptors", p)
		}
	}
	return f, nil
}

// newFamilies takes ownership of running processes.
func newFamilies(heads ...*process.Process) *families {
	f := &families{held: make(held)}
	for _, p := range heads {
		f.add(p)
	}
	return f
}

func (f *families) add(head *process.Process) {
	f.heads = append(f.heads, head)
	f.held[head.PID] = head
}

// listedHeads is how many processes String names one by one.
const listedHeads = 4

func (f *families) String() string {
	if len(f.heads) == 1 {
		return f.heads[0].String()
	}
	var b strings.Builder
	for i, p := range f.heads {
		if i == listedHeads {
			fmt.Fprintf(&b, " and %d more", len(f.heads)-i)
			break
		}
		b.WriteString([]string{"processes ", ", "}[min(i, 1)])
		b.WriteString(p.Label())
	}
	return b.String()
}

func (f *families) names() map[int]string {
	all := make(map[int]string)
	for _, p := range f.heads {
		all[p.PID] = p.String()
	}
	return all
}

func (f *families) each(do func(*process.Process) error) error {
	all, listed := slices.Clone(f.heads), make(map[int]bool)
	for _, p := range all {
		listed[p.PID] = true
	}
	for i := 0; i < len(all); i++ {
		if err := do(all[i]); err != nil {
			return err
		}
		for _, pid := range all[i].Children() {
			if listed[pid] {
				continue
			}
			listed[pid] = true
			if child, err := f.find(pid); err == nil {
				all = append(all, child)
			}
		}
	}
	return nil
}

func (f *families) find(pid int) (*process.Process, error) {
	// The pid of a named process that has ended is not looked up again.
	if p := f.held[pid]; p != nil && f.named(p) {
		return p, nil
	}
	return f.held.find(pid)
}

func (f *families) named(p *process.Process) bool { return slices.Contains(f.heads, p) }

func (f *families) mayLack(p *process.Process, err error) bool {
	return errors.Is(err, unix.ESRCH) && !(len(f.heads) == 1 && p == f.heads[0])
}

func (f *families) remarks(calls bool) []string {
	var all []string
	for _, p := range f.heads {
		if p.PID == 1 {
			all = append(all, "process 1 is the ancestor of all: this captures from every process of the machine that it has started")
		}
		if p.ForeignNetwork() {
			all = append(all, fmt.Sprintf("%s is in another network namespace: its packets are those of that namespace", p))
		}
		if calls && p.Is32Bit() {
			all = append(all, fmt.Sprintf("%s is a 32-bit program, whose system calls are not followed: the user view stays empty", p))
		}
	}
	return all
}

func (f *families) bury() { f.held.bury(f.named) }

// joined returns nothing: processes only join by a fork, which the kernel follows.
func (f *families) joined(func(int) bool) []*process.Process { return nil }

func (f *families) over() bool {
	return !slices.ContainsFunc(f.heads, func(p *process.Process) bool { return !p.Exited() })
}

func (f *families) await(ctx context.Context, ended func(string)) error {
	var waits sync.WaitGroup
	errs := make([]error, len(f.heads))
	for i, p := range f.heads {
		waits.Go(func() {
			if errs[i] = p.AwaitExit(ctx); errs[i] == nil {
				ended(p.String())
			}
		})
	}
	waits.Wait()
	return errors.Join(errs...)
}
