package bpf

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/ebpfdump/ebpfdump/internal/capability"
	"golang.org/x/sys/unix"
)

// DropOptions say what Drops records. The zero value is usable.
type DropOptions struct {
	// Snaplen is the most bytes recorded of a packet. Default: MaxSnaplen.
	Snaplen int
	// Ports chooses packets by the socket's own or its peer's port. Default: all.
	Ports []uint16
	// Flows are the addresses of the sockets, for packets of which the kernel does not tell the
	// socket. Default: those are not recorded.
	Flows *Flows
	// Expression chooses which packets are recorded. Default: all.
	Expression *Expression
}

// Drops records packets of marked sockets that the kernel frees without having used them, with
// its reason, into the ring of a Tap: as records with HookDrop. The bytes are those from the
// network header on that the kernel has in one piece.
//
// Needs Linux 5.17 with BTF, CAP_BPF and CAP_PERFMON. From Linux 6.11 on the kernel
// tells the socket that was to receive the packet.
type Drops struct {
	objects *loaded
	link    io.Closer
	counts  *counts[tapCounters]
	dropFacts
	symbols *symbols
}

const tellingDrops = "telling which packets the kernel drops"

// OpenDrops loads the program and attaches it to the tracepoint kfree_skb. The sockets are those
// that the Hook has marked, and those that they accept; without one they are to be marked by Mark.
//
// Every packet of the machine that is freed otherwise than by being used up pays for it, some
// 100 ns.
//
// An error is a *MissingError if a privilege or a feature of the kernel is missing.
func OpenDrops(tap *Tap, hook *Hook, opts DropOptions) (_ *Drops, err error) {
	spec, err := loadDrop()
	if err != nil {
		return nil, fmt.Errorf("reading the object that records drops: %w", err)
	}
	_ = rlimit.RemoveMemlock() // as in Open
	told, err := aboutDrops()
	if err != nil {
		return nil, diagnoseDrops(err)
	}
	if err := opts.set(spec, tap, told); err != nil {
		return nil, err
	}
	d := &Drops{dropFacts: told}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	var reading sync.WaitGroup
	reading.Go(func() { d.symbols = readSymbols() })
	defer reading.Wait()

	shared := map[string]*ebpf.Map{dropMapRing: tap.objects.Ring, dropMapArrivals: tap.objects.Counts}
	if hook != nil {
		shared[dropMapMarks] = hook.objects.maps[hookMapMarks]
		shared[dropMapArrivals] = hook.objects.maps[hookMapCounts] // the tap's, unless it is beside that
	}
	if opts.Flows != nil {
		maps.Copy(shared, opts.Flows.shared())
	} else {
		spec.Maps[dropMapFlows].MaxEntries, spec.Maps[dropMapLocals].MaxEntries = 1, 1 // nobody looks into them
	}
	for _, name := range []string{dropMapCounts, dropMapArrivals} {
		spec.Maps[name].MaxEntries = tap.objects.Counts.MaxEntries()
	}
	sizeRing(spec.Maps[dropMapRing], tap.size)
	if d.objects, err = newLoaded(spec, func() *btf.Spec { return kernelTypes(spec) }, shared); err != nil {
		return nil, diagnoseDrops(err)
	}
	if d.counts, err = openCounts[tapCounters](d.objects.maps[dropMapCounts]); err != nil {
		return nil, err
	}
	if err := d.objects.load([]string{dropProgFreed}); err != nil {
		return nil, diagnoseDrops(err)
	}
	if d.link, err = link.AttachTracing(link.TracingOptions{Program: d.objects.programs[dropProgFreed]}); err != nil {
		return nil, diagnoseDrops(fmt.Errorf("attaching to kfree_skb: %w", err))
	}
	return d, nil
}

func (opts DropOptions) set(spec *ebpf.CollectionSpec, tap *Tap, told dropFacts) error {
	if opts.Snaplen == 0 {
		opts.Snaplen = MaxSnaplen
	}
	if len(opts.Ports) > MaxPorts {
		return fmt.Errorf("choosing by ports: %d are more than %d", len(opts.Ports), MaxPorts)
	}
	var ports [MaxPorts]uint16
	copy(ports[:], opts.Ports)
	err := errors.Join(
		spec.Variables[dropVarSnaplen].Set(uint32(opts.Snaplen)),
		spec.Variables[dropVarWakeupBytes].Set(uint64(tap.wakeup)),
		spec.Variables[dropVarWakesFirst].Set(flag(tap.first)),
		spec.Variables[dropVarPorts].Set(ports),
		spec.Variables[dropVarPortCount].Set(uint32(len(opts.Ports))),
		spec.Variables[dropVarTellsReceiver].Set(flag(told.receiver)),
		spec.Variables[dropVarUsedUp].Set(told.usedUp),
		spec.Variables[dropVarByAddress].Set(flag(opts.Flows != nil)),
		opts.Expression.splice(spec, false),
	)
	if err != nil {
		return fmt.Errorf("setting up the program that records drops: %w", err)
	}
	return nil
}

// dropFacts is what the kernel's types tell of its drops.
type dropFacts struct {
	reasons  map[uint32]string
	usedUp   uint32 // the reason of a packet that was used up; 0 if there is none
	receiver bool   // the tracepoint tells the socket
}

// errNoReasons is for a kernel that does not tell why it frees a packet.
var errNoReasons = errors.New("the tracepoint kfree_skb has no reason")

// Names of the kernel: enum skb_drop_reason of include/net/dropreason-core.h.
const (
	reasonType   = "skb_drop_reason"
	reasonPrefix = "SKB_DROP_REASON_"
	reasonUsedUp = "SKB_CONSUMED"
)

// aboutDrops asks the kernel's types: numbers differ from kernel to kernel.
func aboutDrops() (dropFacts, error) {
	kernel, release, err := allKernelTypes()
	if err != nil {
		return dropFacts{}, err
	}
	defer release()
	return factsOfDrops(kernel)
}

// TellsDrops tells whether this kernel says why it frees packets, which Drops need.
func TellsDrops() bool {
	_, err := aboutDrops()
	return err == nil
}

func factsOfDrops(kernel *btfBlob) (dropFacts, error) {
	const point = "__traceiter_kfree_skb"
	arguments := kernel.arguments(kernel.functions(point)[point])
	told := dropFacts{reasons: make(map[uint32]string), receiver: slices.Contains(arguments, "rx_sk")}
	for number, name := range kernel.enum(reasonType) {
		if name == reasonUsedUp {
			told.usedUp = number
		}
		told.reasons[number] = strings.TrimPrefix(name, reasonPrefix)
	}
	if !slices.Contains(arguments, "reason") || len(told.reasons) == 0 {
		return told, errNoReasons
	}
	return told, nil
}

func diagnoseDrops(err error) error {
	if errors.Is(err, errNoReasons) {
		return &MissingError{
			What: tellingDrops + " needs the reasons that Linux 5.17 and newer give, and this is Linux " + release(),
			Hint: "use a newer kernel",
			Err:  err,
		}
	}
	for _, c := range []int{unix.CAP_BPF, unix.CAP_PERFMON} {
		if !capability.Held(c) {
			return LacksCapability(c, tellingDrops, err)
		}
	}
	if missing := lacksTypes(tellingDrops, err); missing != nil {
		return missing
	}
	return Diagnose(tellingDrops, err)
}

// Mark is Hook.Mark for Drops without a Hook.
func (d *Drops) Mark(fd int) error {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return fmt.Errorf("asking a socket for its cookie: %w", err)
	}
	err = d.objects.maps[dropMapMarks].Update(int32(fd), hookMark{Origin: cookie}, ebpf.UpdateNoExist)
	if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("marking a socket: %w", err)
	}
	return nil
}

// TellsReceiver tells whether the kernel says which socket was to receive a packet, as from Linux
// 6.11 on.
func (d *Drops) TellsReceiver() bool { return d.receiver }

// OnlyNetwork says in which network namespace all marked sockets are, by its inode; 0 that there are
// several. It matters only if the kernel does not tell the receiver: then it is what finds the
// connection of a segment that TCP drops.
func (d *Drops) OnlyNetwork(network uint32) error {
	if err := d.objects.variables[dropVarOnlyNetwork].Set(network); err != nil {
		return fmt.Errorf("setting the network namespace of drops: %w", err)
	}
	return nil
}

// Reason is the kernel's name for why it has freed a packet, without SKB_DROP_REASON_, such as
// "SOCKET_RCVBUFF". Those of its subsystems, whose names are not with the others, are numbers.
func (d *Drops) Reason(rec *Record) string {
	number := uint32(rec.Verdict)
	if name, known := d.reasons[number]; known {
		return name
	}
	return fmt.Sprintf("%#x", number)
}

// Location is the name of the function that has freed a packet, empty if it is not known: to read
// the kernel's symbols may take CAP_SYSLOG (kernel.kptr_restrict).
func (d *Drops) Location(rec *Record) string { return d.symbols.at(rec.Filter) }

// KnowsLocations tells whether the kernel's functions are known.
func (d *Drops) KnowsLocations() bool { return len(d.symbols.addresses) > 0 }

// Counters reads the ledger of the packets that were freed. Missed counts the packets, of all
// sockets, for which the kernel did not run the program.
func (d *Drops) Counters() (sum Counters, missed uint64, err error) {
	if sum, err = sumCounters(d.counts); err != nil {
		return sum, 0, fmt.Errorf("the drops: %w", err)
	}
	return sum, d.objects.recursionMisses(dropProgFreed), nil
}

// Stop ends the recording. What is in the ring stays readable.
func (d *Drops) Stop() error {
	if err := d.objects.variables[dropVarRecording].Set(uint32(0)); err != nil {
		return fmt.Errorf("stopping to record drops: %w", err)
	}
	return nil
}

// Close detaches the program. It is safe to call it twice.
func (d *Drops) Close() error {
	var err error
	if d.link != nil {
		err, d.link = d.link.Close(), nil
	}
	return errors.Join(err, d.counts.close(), d.objects.Close())
}
