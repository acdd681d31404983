package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

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
	// joined lists the processes that have come to belong since each, otherwise than by
	// a fork. followed tells of a number whether the kernel follows it.
	joined(followed func(pid int) bool) []*process.Process
	// named tells whether the user has named this very process, and not an ancestor of
	// it: the descriptors that the user has chosen are its own.
	named(p *process.Process) bool
	// needs tells whether there is nothing to capture without a process.
	needs(p *process.Process) bool
	// remarks says what is worth knowing before the capture begins. calls tells whether
	// system calls are followed.
	remarks(calls bool) []string
	// bury gives up the processes that have ended.
	bury()
	// over tells whether nothing can come any more: all that the user has named has ended.
	over() bool
	// await returns nil when that is so, and the context's error if it ends before. ended
	// is told of each thing that was named when it ends, by any goroutine.
	await(ctx context.Context, ended func(what string)) error
	// close gives up all processes. It is safe to call it twice.
	close()
}

// openScope makes the scope that a JoinConfig asks for.
func openScope(c *JoinConfig) (scope, error) {
	if c.Cgroup != "" {
		return openGroup(c.Cgroup)
	}
	return openFamilies(c.PIDs)
}

// held are the processes that somebody holds, by number.
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

// bury gives up those that have ended, but for some.
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

// families is the scope of some processes and their descendants. It is over when the
// last one of those that were named has ended.
type families struct {
	heads []*process.Process
	held  // those among heads as well
}

// openFamilies finds processes by their numbers. The error of one that is not there is
// unix.ESRCH.
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
	}
	return f, nil
}

// newFamilies takes over processes that run.
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

// listedHeads is how many processes are named one by one.
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
		fmt.Fprintf(&b, "%d (%s)", p.PID, p.Command)
	}
	return b.String()
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
	// The number of one that was named, and has ended, is not looked up again.
	if p := f.held[pid]; p != nil && f.named(p) {
		return p, nil
	}
	return f.held.find(pid)
}

func (f *families) named(p *process.Process) bool { return slices.Contains(f.heads, p) }

func (f *families) needs(p *process.Process) bool { return len(f.heads) == 1 && p == f.heads[0] }

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

// joined is nobody: what belongs and is not followed by now cannot be told of.
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
