package bpf

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// uring records what requests of io_uring receive, into the ring of Calls.
type uring struct {
	objects *loaded
	links   []io.Closer
}

// openURing loads the programs, with the maps that they share with Calls, and attaches them to
// io_uring's tracepoints. Only processes that use io_uring pay for them.
func openURing(spec *ebpf.CollectionSpec, types func() *btf.Spec, shared map[string]*ebpf.Map, opts CallsOptions, snaplen uint32) (_ *uring, err error) {
	for _, name := range []string{uringMapEvents, uringMapEventCounts} {
		spec.Maps[name].MaxEntries = shared[name].MaxEntries()
	}
	if err := opts.choose(spec, snaplen); err != nil {
		return nil, err
	}
	arguments, err := tracepointArguments()
	if err != nil {
		return nil, err
	}
	points, err := findTracepoints(spec, arguments)
	if err != nil {
		return nil, err
	}
	u := &uring{}
	defer func() {
		if err != nil {
			err = errors.Join(err, u.close())
		}
	}()
	if u.objects, err = newLoaded(spec, types, shared); err != nil {
		return nil, err
	}
	programs := map[string]string{
		"submit_sqe": uringProgSubmitted, "submit_req": uringProgSubmitted, "complete": uringProgCompletes,
		"cqe_overflow": uringProgOverflows, "task_add": uringProgWoken,
	}
	var groups [][]string
	for _, point := range points {
		groups = append(groups, []string{programs[point]})
	}
	if err := u.objects.load(groups...); err != nil {
		return nil, err
	}
	for _, point := range points {
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "io_uring_" + point, Program: u.objects.programs[programs[point]]})
		if err != nil {
			return nil, fmt.Errorf("attaching to tracepoint io_uring_%s: %w", point, err)
		}
		u.links = append(u.links, l)
	}
	return u, nil
}

// tracepointArguments reads from the kernel's BTF the names of the arguments of io_uring's
// tracepoints: none for a tracepoint that does not exist.
func tracepointArguments() (func(point string) []string, error) {
	kernel, release, err := allKernelTypes()
	if err != nil {
		return nil, err
	}
	defer release()
	const prefix = "__traceiter_io_uring_"
	told := make(map[string][]string)
	for name, id := range kernel.functions(prefix) {
		if names := kernel.arguments(id); len(names) > 0 {
			told[name[len(prefix):]] = names[1:] // the first is for the tracer
		}
	}
	return func(point string) []string { return told[point] }, nil
}

// findTracepoints finds those of io_uring's tracepoints that this kernel has, and tells the
// programs the positions of their arguments, in which kernels differ.
func findTracepoints(spec *ebpf.CollectionSpec, arguments func(point string) []string) (points []string, err error) {
	submit, complete := arguments("submit_req"), arguments("complete")
	points = []string{"submit_req", "complete"}
	if len(submit) == 0 {
		submit = arguments("submit_sqe")
		points[0] = "submit_sqe"
	}
	v := spec.Variables
	for _, row := range []struct {
		variable  string
		arguments []string
		name      string
		needed    bool
	}{
		{uringVarSubmitReq, submit, "req", true},
		{uringVarCompleteCtx, complete, "ctx", true},
		{uringVarCompleteReq, complete, "req", false},
		{uringVarCompleteCqe, complete, "cqe", false},
		{uringVarCompleteUserData, complete, "user_data", !slices.Contains(complete, "cqe")},
		{uringVarCompleteRes, complete, "res", !slices.Contains(complete, "cqe")},
		{uringVarCompleteCflags, complete, "cflags", !slices.Contains(complete, "cqe")},
	} {
		at := slices.Index(row.arguments, row.name)
		if at < 0 && row.needed {
			return nil, errors.New("its tracepoints do not tell what they are about")
		}
		if at < 0 {
			continue
		}
		if err := v[row.variable].Set(uint32(at)); err != nil {
			return nil, fmt.Errorf("setting up the programs: %w", err)
		}
	}
	if slices.Equal(arguments("cqe_overflow"), []string{"ctx", "user_data", "res", "cflags", "ocqe"}) {
		points = append(points, "cqe_overflow")
	}
	if slices.Equal(arguments("task_add"), []string{"req", "mask"}) {
		points = append(points, "task_add")
	}
	return points, nil
}

// missed counts the requests and completions for which the kernel skipped the programs. The
// one for wakeups does not count, since it matters only at the beginning.
func (u *uring) missed() (n uint64) {
	for _, name := range []string{uringProgSubmitted, uringProgCompletes, uringProgOverflows} {
		p := u.objects.programs[name]
		if p == nil {
			continue
		}
		if stats, err := p.Stats(); err == nil {
			n += stats.RecursionMisses
		}
	}
	return n
}

// detach begins to detach the programs.
func (u *uring) detach(ends *sync.WaitGroup) {
	for _, l := range u.links {
		ends.Go(func() { _ = l.Close() })
	}
	u.links = nil
}

func (u *uring) close() error {
	var ends sync.WaitGroup
	u.detach(&ends)
	ends.Wait()
	return u.objects.Close()
}

// stop ends the recording.
func (u *uring) stop() error {
	if err := u.objects.variables[uringVarFollowing].Set(uint32(0)); err != nil {
		return fmt.Errorf("stopping to follow io_uring: %w", err)
	}
	return nil
}

// NoURing says why requests of io_uring cannot be followed; nil if they are.
func (c *Calls) NoURing() error { return c.noURing }

// HasURing says that a followed process has an io_uring that is older than the capture.
func (c *Calls) HasURing() error {
	if err := c.objects.variables[callsVarRings].Set(uint32(1)); err != nil {
		return fmt.Errorf("following io_uring: %w", err)
	}
	return nil
}
