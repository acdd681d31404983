package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/capability"
)

// WireOptions say how a Wire records.
type WireOptions struct {
	// Snaplen is the most bytes recorded of a frame. Default: MaxSnaplen.
	Snaplen int
	// Expression chooses which frames are recorded. Default: all.
	Expression *Expression
}

// Wire records the frames of the sockets that Flows has, as packet sockets get them on the
// interfaces: with their link header, if the device has one, and without the VLAN tag that the
// kernel keeps beside it. A frame that passes lo is recorded when it arrives, not when it leaves.
//
// Needs Linux 5.8, CAP_BPF, CAP_PERFMON, without which the verifier goes through too many ways, and
// CAP_NET_RAW.
type Wire struct {
	tap    *Tap
	flows  *Flows
	opts   WireOptions
	counts *counts[tapCounters]
	maps   map[string]*ebpf.Map // besides those of tap and flows
	places []wirePlace
}

// wirePlace is what is attached in a network namespace.
type wirePlace struct {
	network uint32
	objects *loaded
	socket  int
}

// OpenWire makes a Wire that looks at no namespace yet, and records into the tap's ring.
//
// An error is a *MissingError if a privilege or a feature of the kernel is missing.
func OpenWire(tap *Tap, flows *Flows, opts WireOptions) (_ *Wire, err error) {
	if opts.Snaplen == 0 {
		opts.Snaplen = MaxSnaplen
	}
	spec, err := loadWire()
	if err != nil {
		return nil, fmt.Errorf("reading the object of the interfaces' tap: %w", err)
	}
	w := &Wire{tap: tap, flows: flows, opts: opts, maps: make(map[string]*ebpf.Map)}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	spec.Maps[wireMapCounts].MaxEntries = tap.objects.Counts.MaxEntries()
	for _, name := range []string{wireMapCounts, wireMapFragments} {
		if w.maps[name], err = ebpf.NewMap(spec.Maps[name]); err != nil {
			return nil, diagnoseWire(err)
		}
	}
	w.counts, err = openCounts[tapCounters](w.maps[wireMapCounts])
	return w, err
}

const loadingWire = "loading the tap of the interfaces"

// diagnoseWire says what is missing. Without CAP_PERFMON the verifier refuses the program otherwise
// than with EPERM.
func diagnoseWire(err error) error {
	for _, c := range []int{unix.CAP_BPF, unix.CAP_PERFMON} {
		if !capability.Held(c) {
			return LacksCapability(c, loadingWire, err)
		}
	}
	return Diagnose(loadingWire, err)
}

// Watch begins to record in the network namespace of the calling thread, whose inode is network. A
// namespace that is watched already is left as it is.
func (w *Wire) Watch(network uint32) (err error) {
	if w.Watches(network) {
		return nil
	}
	spec, err := loadWire()
	if err != nil {
		return fmt.Errorf("reading the object of the interfaces' tap: %w", err)
	}
	shared := w.flows.shared()
	for name, m := range w.maps {
		shared[name] = m
	}
	shared[wireMapRing] = w.tap.objects.Ring
	sizeRing(spec.Maps[wireMapRing], w.tap.size)
	spec.Maps[wireMapCounts].MaxEntries = w.maps[wireMapCounts].MaxEntries()
	err = errors.Join(
		spec.Variables[wireVarNetwork].Set(network),
		spec.Variables[wireVarSnaplen].Set(uint32(w.opts.Snaplen)),
		spec.Variables[wireVarWantsLink].Set(uint32(0)), // it is at the beginning of what is recorded
		spec.Variables[wireVarWakeupBytes].Set(uint64(w.tap.wakeup)),
		spec.Variables[wireVarWakesFirst].Set(flag(w.tap.first)),
		w.opts.Expression.splice(spec, false),
	)
	if err != nil {
		return fmt.Errorf("setting up the tap of the interfaces: %w", err)
	}
	place := wirePlace{network: network, socket: -1}
	defer func() {
		if err != nil {
			err = errors.Join(err, place.close())
		}
	}()
	if place.objects, err = newLoaded(spec, func() *btf.Spec { return nil }, shared); err != nil {
		return diagnoseWire(err)
	}
	if err := place.objects.load([]string{wireProgWire}); err != nil {
		return diagnoseWire(err)
	}
	// Without a protocol nothing comes to it before it has the filter.
	place.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EPERM) {
		return LacksCapability(unix.CAP_NET_RAW, "looking at the interfaces", err)
	}
	if err != nil {
		return fmt.Errorf("looking at the interfaces: %w", err)
	}
	if err := AttachFilter(place.socket, place.objects.programs[wireProgWire].FD()); err != nil {
		return err
	}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	if err := unix.Bind(place.socket, &unix.SockaddrLinklayer{Protocol: all}); err != nil {
		return fmt.Errorf("looking at the interfaces: %w", err)
	}
	w.places = append(w.places, place)
	return nil
}

// Watches tells whether a network namespace is watched.
func (w *Wire) Watches(network uint32) bool {
	for _, at := range w.places {
		if at.network == network {
			return true
		}
	}
	return false
}

// Counters is the ledger of the frames of the chosen sockets: Seen = Recorded + Unwanted +
// RingFull + LoadFailed.
func (w *Wire) Counters() (Counters, error) {
	sum, err := sumCounters(w.counts)
	if err != nil {
		return sum, fmt.Errorf("the interfaces: %w", err)
	}
	return sum, nil
}

// Stop ends the recording. What is in the ring stays readable.
func (w *Wire) Stop() error {
	var errs []error
	for _, at := range w.places {
		errs = append(errs, at.objects.variables[wireVarWatching].Set(uint32(0)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stopping the tap of the interfaces: %w", err)
	}
	return nil
}

func (p *wirePlace) close() error {
	var err error
	if p.socket >= 0 {
		err = unix.Close(p.socket)
		p.socket = -1
	}
	return errors.Join(err, p.objects.Close())
}

// Close releases everything but the tap and the register. It is safe to call it twice.
func (w *Wire) Close() error {
	if w == nil {
		return nil
	}
	var errs []error
	for i := range w.places {
		errs = append(errs, w.places[i].close())
	}
	w.places = nil
	errs = append(errs, w.counts.close())
	for _, m := range w.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
