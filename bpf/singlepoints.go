package bpf

import (
	"errors"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// singlePoints are the tracepoints of single system calls, at their beginning and their end. The
// zero value has none.
type singlePoints struct {
	points []callPoint
	holder *holder // nil until all are attached
}

// callPoint is one of them.
type callPoint struct {
	*perfEvent
	begins bool
}

// attachFunc attaches a program to a tracepoint.
type attachFunc func(p *perfEvent, program *ebpf.Program) error

// open opens those of a table of calls.
func (s *singlePoints) open(table []syscall) error {
	t, err := openTracefs()
	if err != nil {
		return err
	}
	defer t.close()
	for _, call := range table {
		for _, begins := range []bool{false, true} {
			name := "syscalls/sys_exit_"
			if begins {
				name = "syscalls/sys_enter_"
			}
			event, err := t.open(name + call.kernelName())
			if call.optional && errors.Is(err, unix.ENOENT) {
				continue
			}
			if err != nil {
				return err
			}
			s.points = append(s.points, callPoint{event, begins})
		}
	}
	return nil
}

// attach attaches the two programs. After an error, detach detaches what was attached by then.
func (s *singlePoints) attach(begins, ends *ebpf.Program, attach attachFunc) error {
	if attach == nil {
		attach = (*perfEvent).attach
	}
	holder, err := newHolder(len(s.points))
	if err != nil {
		return err
	}
	for _, p := range s.points {
		program := ends
		if p.begins {
			program = begins
		}
		if err := attach(p.perfEvent, program); err != nil {
			return errors.Join(err, holder.Close())
		}
	}
	// Not before: what is held keeps its program, before Linux 5.15, until the kernel has given
	// up the array.
	for _, p := range s.points {
		holder.hold(p.perfEvent)
	}
	s.holder = holder
	return nil
}

// detach begins to close them.
func (s *singlePoints) detach(ends *sync.WaitGroup) {
	for _, p := range s.points {
		ends.Go(func() { _ = p.Close() })
	}
	s.points = nil
}

// close releases the rest, after detach. The kernel gives up the tracepoints in the background.
func (s *singlePoints) close() error {
	if s.holder == nil {
		return nil
	}
	return s.holder.Close()
}
