package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/capability"
)

// Selector is a Selection in the kernel, for one reuseport group.
type Selector struct {
	program *ebpf.Program
	filter  *ebpf.Collection // what the program refers to
	arrays  []*ebpf.Map      // that it chooses sockets from by their index
	// Of one that records:
	counts  *counts[tapCounters]
	owned   []*ebpf.Map
	enabled *ebpf.Variable
}

// OpenSelector loads a selection for a group of so many sockets.
//
// With record, what the program sees of each packet and what it chooses goes into the tap's ring, in
// records with HookSelect: of a program that chooses by itself what is between data and data_end.
// Recording that needs CAP_PERFMON.
//
// The error is a *MissingError or a *RefusedError as with Open.
func (t *Tap) OpenSelector(selection *Selection, sockets int, record bool) (_ *Selector, err error) {
	if record && !selection.Filters() && !capability.CurrentPrivilege().Has(capPerfmon) {
		return nil, LacksCapability(capPerfmon, "recording what a program sees that chooses a socket", unix.EPERM)
	}
	selection, err = selection.sized(sockets)
	if err != nil {
		return nil, err
	}
	v := selection.verdict
	s := &Selector{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.filter, err = v.load(!record); err != nil {
		s.filter = nil
		return nil, v.explain("refuses it", err)
	}
	for _, name := range selection.arrays() {
		s.arrays = append(s.arrays, s.filter.Maps[name])
	}
	if !record {
		s.program = s.filter.DetachProgram(v.program)
		return s, nil
	}
	if err := s.wrap(t, selection); err != nil {
		return nil, err
	}
	return s, nil
}

// wrap loads the program inside of one that records.
func (s *Selector) wrap(t *Tap, selection *Selection) error {
	v := selection.verdict
	spec, program, err := selection.wrapper(t, s.filter.Maps)
	if err != nil {
		return fmt.Errorf("setting up the selector: %w", err)
	}
	all, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{"ring": t.objects.Ring}})
	if err != nil {
		return v.diagnose(err)
	}
	defer all.Close()
	s.program = all.DetachProgram(program)
	s.enabled = all.Variables["enabled"]
	// The variable is in a map that the collection would close.
	for _, name := range []string{".data", "counts"} {
		s.owned = append(s.owned, all.DetachMap(name))
	}
	if s.counts, err = openCounts[tapCounters](s.owned[1]); err != nil {
		return err
	}
	return nil
}

// wrapper is the object that records, with the program in it.
func (s *Selection) wrapper(t *Tap, maps map[string]*ebpf.Map) (spec *ebpf.CollectionSpec, program string, err error) {
	if s.Filters() {
		opts := t.options
		opts.Verdict, opts.Leased, opts.NoLink, opts.Expression = s.verdict, false, true, nil
		if spec, err = opts.spec(maps); err == nil {
			err = spec.Variables[tapVarSelects].Set(uint32(1))
		}
		return spec, tapProgTap, err
	}
	if spec, err = loadSelector(); err != nil {
		return nil, "", err
	}
	sizeRing(spec.Maps[selectorMapRing], t.size)
	delete(spec.Maps, selectorMapNobody)
	wrapping := spec.Programs[selectorProgSelector]
	wrapping.AttachType = s.program().AttachType
	calls := false
	err = errors.Join(
		sizeCounts(spec.Maps[selectorMapCounts]),
		spec.Variables[selectorVarSnaplen].Set(uint32(t.options.Snaplen)),
		spec.Variables[selectorVarWakeupBytes].Set(uint64(t.wakeup)),
		spec.Variables[selectorVarWakesFirst].Set(flag(t.first)),
		spec.Variables[selectorVarReadsKeys].Set(flag(s.keyed())),
		s.verdict.spliceWith(wrapping, maps, func(own asm.Instructions) asm.Instructions {
			calls = follow(own)
			return own
		}),
	)
	if err == nil && !calls { // verifiers refuse functions that nobody calls
		begin, end, ferr := function(wrapping.Instructions, chooseSymbol)
		if ferr != nil {
			return nil, "", ferr
		}
		wrapping.Instructions = slices.Concat(wrapping.Instructions[:begin], wrapping.Instructions[end:])
	}
	return spec, selectorProgSelector, err
}

// Attach makes the program choose among the sockets of the group that a bound socket is in.
func (s *Selector) Attach(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_EBPF, s.program.FD()); err != nil {
		return fmt.Errorf("attaching the program that chooses a socket: %w", err)
	}
	return nil
}

// Fill puts the sockets of the group, which are bound, into the maps that the program chooses from: the
// first one gets the index 0.
func (s *Selector) Fill(sockets []int) error {
	for _, m := range s.arrays {
		for i, fd := range sockets {
			value := make([]byte, m.ValueSize())
			if len(value) == 8 {
				binary.NativeEndian.PutUint64(value, uint64(fd))
			} else {
				binary.NativeEndian.PutUint32(value, uint32(fd))
			}
			if err := m.Put(uint32(i), value); err != nil {
				return fmt.Errorf("putting socket %d into a map of the program that chooses one: %w", i, err)
			}
		}
	}
	return nil
}

// Counters is the ledger of a selector that records, otherwise all zero. Dropped counts the packets
// for which the program returned anything but SK_PASS; of a socket filter it is zero.
func (s *Selector) Counters() (Counters, error) {
	sum, err := sumCounters(s.counts)
	if err != nil {
		return sum, fmt.Errorf("the selector: %w", err)
	}
	return sum, nil
}

// Stop ends recording. The program goes on to choose.
func (s *Selector) Stop() error {
	if s.enabled == nil {
		return nil
	}
	if err := s.enabled.Set(uint32(0)); err != nil {
		return fmt.Errorf("stopping the selector: %w", err)
	}
	return nil
}

// Close releases the selector. It is safe to call it twice.
func (s *Selector) Close() error {
	errs := []error{s.program.Close(), s.counts.close()}
	for _, m := range s.owned {
		errs = append(errs, m.Close())
	}
	if s.filter != nil {
		s.filter.Close()
	}
	s.counts = nil
	return errors.Join(errs...)
}

// Chosen is what a program asked for that chooses a socket by itself.
type Chosen struct {
	// Calls counts its calls of bpf_sk_select_reuseport for a packet.
	Calls int
	// Index is the one that the last of them asked for; 0 if one of its maps has no indexes.
	Index uint32
	// Errno is why that was refused; 0 if it was not.
	Errno unix.Errno
	// AnyAddress says that the group is bound to all addresses.
	AnyAddress bool
}

// choiceSize is what a Chosen takes in a record.
const choiceSize = int(unsafe.Sizeof(selectorChoice{}))

// Chosen is what the program asked for, in a record with HookSelect; not ok for a socket filter.
func (r *Record) Chosen() (c Chosen, ok bool) {
	if r.Hook != HookSelect || int(r.Before) != choiceSize || len(r.Data) < choiceSize {
		return c, false
	}
	var raw selectorChoice
	if _, err := binary.Decode(r.Data, binary.NativeEndian, &raw); err != nil {
		return c, false
	}
	return Chosen{Calls: int(raw.Calls), Index: raw.Index, Errno: unix.Errno(-raw.Error), AnyAddress: raw.BindInany != 0}, true
}

// ChoosesNobody and Passes are what a program returns that chooses a socket by itself: SK_DROP and
// SK_PASS of linux/bpf.h.
const (
	ChoosesNobody = 0
	Passes        = 1
)
