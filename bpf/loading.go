package bpf

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// loaded is an object of ours in the kernel. Its maps are made first and its programs
// loaded as they are wanted, since the kernel takes long for both: as many at a time
// as there are cpus.
type loaded struct {
	spec      *ebpf.CollectionSpec
	types     func() *btf.Spec // of the kernel, as far as the programs need them
	maps      map[string]*ebpf.Map
	variables map[string]*ebpf.Variable
	mu        sync.Mutex
	programs  map[string]*ebpf.Program
}

// newLoaded makes the maps of an object, but for those that are shared with another
// one and some that are to be left out.
func newLoaded(spec *ebpf.CollectionSpec, types func() *btf.Spec, shared map[string]*ebpf.Map, without ...string) (_ *loaded, err error) {
	l := &loaded{spec: spec, types: types, maps: make(map[string]*ebpf.Map), programs: make(map[string]*ebpf.Program)}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	for name, m := range shared {
		if l.maps[name], err = m.Clone(); err != nil {
			return nil, fmt.Errorf("sharing map %s: %w", name, err)
		}
	}
	var own []string
	for name := range spec.Maps {
		// Those of the variables are made with the variables.
		if l.maps[name] == nil && !strings.HasPrefix(name, ".") && !slices.Contains(without, name) {
			own = append(own, name)
		}
	}
	if err := l.makeMaps(own...); err != nil {
		return nil, err
	}
	data := l.part(nil)
	data.Variables = spec.Variables
	for name, m := range spec.Maps {
		if strings.HasPrefix(name, ".") {
			data.Maps[name] = m
		}
	}
	collection, err := ebpf.NewCollectionWithOptions(data, ebpf.CollectionOptions{MapReplacements: l.maps})
	if err != nil {
		return nil, err
	}
	for name, m := range collection.Maps {
		_ = l.maps[name].Close() // the collection has its own handle
		l.maps[name] = m
	}
	l.variables = collection.Variables
	return l, nil
}

// readObjects reads objects of ours, all at once.
func readObjects(read ...func() (*ebpf.CollectionSpec, error)) ([]*ebpf.CollectionSpec, error) {
	specs := make([]*ebpf.CollectionSpec, len(read))
	var workers sync.WaitGroup
	errs := make([]error, len(read))
	for i := range read {
		workers.Go(func() { specs[i], errs[i] = read[i]() })
	}
	workers.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("reading the objects: %w", err)
	}
	return specs, nil
}

// some are maps to share with another object, which may be loaded while there come more.
func (l *loaded) some(names ...string) map[string]*ebpf.Map {
	shared := make(map[string]*ebpf.Map)
	for _, name := range names {
		shared[name] = l.maps[name]
	}
	return shared
}

// makeMaps makes maps, all at once.
func (l *loaded) makeMaps(names ...string) error {
	return together(names, func(name string) error {
		m, err := ebpf.NewMap(l.spec.Maps[name])
		if err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.maps[name] = m
		return nil
	})
}

// load loads programs; those of a group one after the other, the groups all at once.
func (l *loaded) load(groups ...[]string) error {
	opts := ebpf.CollectionOptions{MapReplacements: l.maps}
	opts.Programs.KernelTypes = l.types()
	return together(groups, func(group []string) error {
		collection, err := ebpf.NewCollectionWithOptions(l.part(group), opts)
		if err != nil {
			return err
		}
		l.mu.Lock()
		maps.Copy(l.programs, collection.Programs)
		l.mu.Unlock()
		clear(collection.Programs)
		collection.Close()
		return nil
	})
}

// part is the object with some programs, and the maps that there are.
func (l *loaded) part(programs []string) *ebpf.CollectionSpec {
	part := &ebpf.CollectionSpec{
		Maps: make(map[string]*ebpf.MapSpec), Programs: make(map[string]*ebpf.ProgramSpec),
		Types: l.spec.Types, ByteOrder: l.spec.ByteOrder,
	}
	for name := range l.maps {
		part.Maps[name] = l.spec.Maps[name]
	}
	for _, name := range programs {
		part.Programs[name] = l.spec.Programs[name]
	}
	return part
}

// Close gives up everything. It is safe to call it twice.
func (l *loaded) Close() error {
	if l == nil {
		return nil
	}
	var errs []error
	for _, p := range l.programs {
		errs = append(errs, p.Close())
	}
	for _, m := range l.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// Following is what follows sockets of other processes.
type Following struct {
	Tap   *Tap
	Hook  *Hook
	Calls *Calls // nil if nobody asked for it
}

// OpenFollowing opens a Tap, a Hook and, if there are options for it, Calls, at the same
// time as far as one does not need the other.
//
// An error is a *MissingError if a privilege or a feature of the kernel is missing.
func OpenFollowing(tap Options, hook HookOptions, calls *CallsOptions) (_ *Following, err error) {
	f := &Following{}
	objects := []func() (*ebpf.CollectionSpec, error){loadHook}
	if calls != nil {
		objects = append(objects, loadCalls, loadUring)
	}
	specs, err := readObjects(objects...)
	if err != nil {
		return nil, err
	}
	var (
		worker   sync.WaitGroup
		callsErr error
		types    = sync.OnceValue(func() *btf.Spec { return kernelTypes(specs...) })
	)
	processes, missing := newProcesses(specs[0])
	if missing == nil {
		defer processes.Close()
		if calls != nil {
			worker.Go(func() { f.Calls, callsErr = openCalls(specs[1], specs[2], types, processes, *calls, false) })
		}
	}
	// The tap first, because what it needs all of them do.
	if f.Tap, err = Open(tap); err == nil {
		if err = missing; err == nil {
			f.Hook, err = openHook(f.Tap, specs[0], types, processes, hook)
		}
	}
	worker.Wait()
	if err == nil {
		err = callsErr
	}
	if err == nil && f.Calls != nil {
		err = f.Tap.ring.watch(f.Calls.ring)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Close gives up all three. It is safe to call it twice.
func (f *Following) Close() error {
	var errs []error
	if f.Calls != nil {
		errs = append(errs, f.Calls.Close())
	}
	if f.Hook != nil {
		errs = append(errs, f.Hook.Close())
	}
	if f.Tap != nil {
		errs = append(errs, f.Tap.Close())
	}
	return errors.Join(errs...)
}

// together does something for each of some things at the same time.
func together[T any](all []T, do func(T) error) error {
	errs := make([]error, len(all))
	var workers sync.WaitGroup
	for i, one := range all {
		workers.Go(func() { errs[i] = do(one) })
	}
	workers.Wait()
	return errors.Join(errs...)
}
