package bpf

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Asker asks the filter that a socket has of its own what it decides on packets that the socket
// has got already, with BPF_PROG_RUN: a classic one is translated, of an eBPF one the very program
// is run. It never asks a program that might change something: that would be a packet more for
// its maps.
//
// An Asker is for one goroutine at a time.
type Asker struct {
	runner  *Runner       // of a classic filter
	program *ebpf.Program // the eBPF one
	reads   []string      // fields that the program reads, and that are zero whenever it is asked
	frame   []byte
}

// UnaskedError says why a filter is not asked what it decides.
type UnaskedError struct {
	// Reason is in words, as "it writes to its map counts".
	Reason string
	Err    error // may be nil
}

func (e *UnaskedError) Error() string { return "the filter is not asked: " + e.Reason }
func (e *UnaskedError) Unwrap() error { return e.Err }

// unasked makes an UnaskedError.
func unasked(format string, args ...any) *UnaskedError {
	err := fmt.Errorf(format, args...)
	return &UnaskedError{Reason: err.Error(), Err: errors.Unwrap(err)}
}

// OpenAsker prepares to ask a filter. Where that cannot be done, or would do harm, the error is an
// *UnaskedError.
//
// A classic filter needs CAP_BPF, an eBPF one CAP_SYS_ADMIN, and one that calls functions of the
// kernel CAP_SYSLOG as well, to know which.
func OpenAsker(f *OwnFilter) (*Asker, error) {
	if f.Program.ID != 0 {
		return askProgram(f.Program.ID)
	}
	instructions, err := translate(f.Classic)
	if err != nil {
		return nil, unasked("%w", err)
	}
	runner, err := OpenRunner(newVerdict("the socket's classic filter", instructions))
	if err != nil {
		return nil, unasked("%w", err)
	}
	if never := runner.Never(); len(never) > 0 {
		return nil, errors.Join(unasked("it asks for %s, which only the socket has", strings.Join(never, ", ")), runner.Close())
	}
	return &Asker{runner: runner}, nil
}

func askProgram(id uint32) (*Asker, error) {
	program, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	switch {
	case errors.Is(err, unix.EPERM):
		return nil, &UnaskedError{Reason: "taking hold of its program needs CAP_SYS_ADMIN", Err: err}
	case err != nil:
		return nil, unasked("the program is gone: %w", err)
	}
	reads, err := harmless(program)
	if err != nil {
		return nil, errors.Join(err, program.Close())
	}
	return &Asker{program: program, reads: reads}, nil
}

// Ask returns what the filter decides on a packet, from its offset 0 on: the number of bytes to
// keep, negative for all, 0 to drop it. ok is false if it cannot be asked about this one: if
// something that it reads could not be given to it.
func (a *Asker) Ask(packet []byte, c Context) (verdict int32, ok bool) {
	if a.runner != nil {
		verdict, missing, err := a.runner.Run(packet, c)
		return verdict, err == nil && len(missing) == 0
	}
	for i := range givens {
		g := &givens[i]
		unset := g.detour != noDetour && g.value(&c) != 0
		if slices.Contains(a.reads, g.name) && (unset || !c.Known) {
			return 0, false
		}
	}
	a.frame = slices.Grow(a.frame[:0], frameHeader+len(packet))[:frameHeader]
	clear(a.frame)
	a.frame[12], a.frame[13] = byte(c.Protocol>>8), byte(c.Protocol)
	a.frame = append(a.frame, packet...)
	verdict, err := a.run(c)
	// As in Runner.Run. A packet that is too long for the kernel is not asked about.
	if errors.Is(err, unix.EINVAL) && c.Protocol != 0 && len(packet) < 40 && !slices.Contains(a.reads, "protocol") {
		a.frame[12], a.frame[13] = 0, 0
		verdict, err = a.run(c)
	}
	return verdict, err == nil
}

func (a *Asker) run(c Context) (int32, error) {
	options := ebpf.RunOptions{Data: a.frame}
	if skb := c.encode(false); skb != nil {
		options.Context = skb
	}
	verdict, err := a.program.Run(&options)
	return int32(verdict), err
}

// Close lets go of the filter.
func (a *Asker) Close() error {
	if a.runner != nil {
		return a.runner.Close()
	}
	return a.program.Close()
}
