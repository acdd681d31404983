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

// loaded is one of our objects in the kernel. The kernel takes long to create maps and to load
// programs, so both are done concurrently, and programs are loaded only when they are needed.
type loaded struct {
	spec      *ebpf.CollectionSpec
	types     func() *btf.Spec // the kernel's types that the programs are relocated against
	maps      map[string]*ebpf.Map
	variables map[string]*ebpf.Variable
	mu        sync.Mutex
	programs  map[string]*ebpf.Program
}

// newLoaded creates the maps of an object, except those that are shared with another object
// and those to be left out.
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
		// Those of the variables are created with the variables.
		if l.maps[name] == nil && !strings.HasPrefix(name, ".") && !slices.Contains(without, name) {
			own = append(own, name)
		}
	}
	if err := l.makeMaps(own...); err != nil {
		return nil, err
	}
	data := l.subset(nil)
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

// readObjects reads some of our objects, concurrently.
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

// some returns maps to share with another object. The result is a map of its own, because
// l.maps may get more entries while that object is loaded.
func (l *loaded) some(names ...string) map[string]*ebpf.Map {
	shared := make(map[string]*ebpf.Map)
	for _, name := range names {
		shared[name] = l.maps[name]
	}
	return shared
}

// makeMaps creates maps, concurrently.
func (l *loaded) makeMaps(names ...string) error {
	return concurrently(names, func(name string) error {
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

// load loads programs: those of a group one after the other, the groups concurrently.
func (l *loaded) load(groups ...[]string) error {
	opts := ebpf.CollectionOptions{MapReplacements: l.maps}
	opts.Programs.KernelTypes = l.types()
	return concurrently(groups, func(group []string) error {
		collection, err := ebpf.NewCollectionWithOptions(l.subset(group), opts)
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

// subset is the object with some of its programs, and the maps that exist already.
func (l *loaded) subset(programs []string) *ebpf.CollectionSpec {
	subset := &ebpf.CollectionSpec{
		Maps: make(map[string]*ebpf.MapSpec), Programs: make(map[string]*ebpf.ProgramSpec),
		Types: l.spec.Types, ByteOrder: l.spec.ByteOrder,
	}
	for name := range l.maps {
		subset.Maps[name] = l.spec.Maps[name]
	}
	for _, name := range programs {
		subset.Programs[name] = l.spec.Programs[name]
	}
	return subset
}

// Close releases the maps and programs. It is safe to call it twice.
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

// OpenFollowing opens a Tap, a Hook and, if there are options for it, Calls: concurrently,
// which is faster than one after the other.
//
// An error is a *MissingError if a privilege or a feature of the kernel is missing.
func OpenFollowing(tap Options, hook HookOptions, calls *CallsOptions) (_ *Following, err error) {
	f := &Following{}
	objects := []func() (*ebpf.CollectionSpec, error){loadHook}
	if calls != nil {
		objects = append(objects, calls.objects()...)
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
			worker.Go(func() { f.Calls, callsErr = openCalls(specs[1:], types, processes, *calls, bestWay()) })
		}
	}
	// The tap first, because all of them need what it needs: its error is the one to report.
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

// Close closes all three. It is safe to call it twice.
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

// concurrently calls a function for each element.
func concurrently[T any](all []T, do func(T) error) error {
	errs := make([]error, len(all))
	var workers sync.WaitGroup
	for i, one := range all {
		workers.Go(func() { errs[i] = do(one) })
	}
	workers.Wait()
	return errors.Join(errs...)
}
