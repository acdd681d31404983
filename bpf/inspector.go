package bpf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/capability"
)

// Inspector finds out what is on sockets where no system call tells: which eBPF programs, and
// which sockmaps. It changes nothing. Only one goroutine at a time may use it.
//
// Needs Linux 5.10 with BTF, CAP_BPF and CAP_PERFMON.
type Inspector struct{ objects *loaded }

// Program is an eBPF program in the kernel.
type Program struct {
	// ID is the kernel's number of the program; 0 if there is none.
	ID uint32
	// Name as its loader chose it, of any bytes.
	Name string
	// Loaded is when: CLOCK_BOOTTIME, in nanoseconds.
	Loaded int64
}

// Sockmap is a map of sockets (BPF_MAP_TYPE_SOCKMAP, BPF_MAP_TYPE_SOCKHASH).
type Sockmap struct {
	// ID is the kernel's number of the map.
	ID uint32
	// Name as its maker chose it, of any bytes.
	Name string
}

// Attachments are what an Inspector finds on a socket.
type Attachments struct {
	// Network is the inode of the socket's network namespace.
	Network uint32
	// Filter is the eBPF program that is the socket's filter.
	Filter Program
	// ReuseportSockets is how many sockets share the address (SO_REUSEPORT); 0 if this one is in
	// no such group.
	ReuseportSockets int
	// Reuseport is the eBPF program that chooses one of them for each packet or connection.
	Reuseport Program
	// ReuseportClassic is the classic program that does so.
	ReuseportClassic []unix.SockFilter
	// Sockmaps are those that the socket is in, at most MaxSockmaps.
	Sockmaps []Sockmap
}

// MaxSockmaps is how many of a socket's sockmaps an Inspector finds.
const MaxSockmaps = len(inspectAttachments{}.Map)

// OpenInspector loads the program that looks at sockets.
//
// An error is a *MissingError if a privilege or a feature of the kernel is missing.
func OpenInspector() (_ *Inspector, err error) {
	spec, err := loadInspect()
	if err != nil {
		return nil, fmt.Errorf("reading the inspector's object: %w", err)
	}
	_ = rlimit.RemoveMemlock() // as in Open
	i := &Inspector{}
	if i.objects, err = newLoaded(spec, func() *btf.Spec { return kernelTypes(spec) }, nil); err != nil {
		return nil, diagnoseInspector(err)
	}
	defer func() {
		if err != nil {
			i.Close()
		}
	}()
	if err := i.objects.load([]string{inspectProgInspect}); err != nil {
		return nil, diagnoseInspector(err)
	}
	// A kernel that runs no such program on demand says so now.
	if _, err := i.run(-1); err != nil {
		return nil, diagnoseInspector(err)
	}
	return i, nil
}

func diagnoseInspector(err error) error {
	const doing = "telling which eBPF programs and sockmaps are on sockets"
	for _, c := range []int{unix.CAP_BPF, unix.CAP_PERFMON} {
		if !capability.Held(c) { // as in diagnoseHook
			return LacksCapability(c, doing, err)
		}
	}
	if missing := lacksTypes(doing, err); missing != nil {
		return missing
	}
	if errors.Is(err, ebpf.ErrNotSupported) {
		return &MissingError{What: doing + " needs Linux 5.10", Hint: "use a newer kernel", Err: err}
	}
	return Diagnose(doing, err)
}

// run runs the program for a descriptor. found is false if that is no socket.
func (i *Inspector) run(fd int) (found bool, err error) {
	n, err := i.objects.programs[inspectProgInspect].Run(&ebpf.RunOptions{Context: [12]uint64{uint64(fd)}})
	if err != nil {
		return false, fmt.Errorf("looking at what is on a socket: %w", err)
	}
	return n != 0, nil
}

// Inspect tells what is on a socket, given by a descriptor of this process.
func (i *Inspector) Inspect(fd int) (a Attachments, err error) {
	found, err := i.run(fd)
	if err == nil && !found {
		err = fmt.Errorf("looking at what is on a socket: descriptor %d: %w", fd, unix.ENOTSOCK)
	}
	if err != nil {
		return a, err
	}
	var raw inspectAttachments
	if err := i.objects.variables[inspectVarFound].Get(&raw); err != nil {
		return a, fmt.Errorf("looking at what is on a socket: %w", err)
	}
	a = Attachments{
		Network: raw.Network, ReuseportSockets: int(raw.ReuseportSockets),
		Filter: program(inspectFoundProgram(raw.Filter)), Reuseport: program(inspectFoundProgram(raw.Reuseport)),
	}
	for _, m := range raw.Map[:raw.Maps] {
		a.Sockmaps = append(a.Sockmaps, Sockmap{ID: m.Id, Name: unix.ByteSliceToString(m.Name[:])})
	}
	if raw.ReuseportClassic == 0 {
		return a, nil
	}
	all := make([]unix.SockFilter, unix.BPF_MAXINSNS)
	if err := i.objects.variables[inspectVarClassicFound].Get(all); err != nil {
		return a, fmt.Errorf("looking at what is on a socket: %w", err)
	}
	a.ReuseportClassic = slices.Clone(all[:raw.ReuseportClassic])
	return a, nil
}

// On tells whether the tap is the filter of a socket, given by a descriptor of this process.
//
// Needs what an Inspector needs, or else the error is a *MissingError.
func (t *Tap) On(fd int) (_ bool, err error) {
	info, err := t.objects.Tap.Info()
	if err != nil {
		return false, fmt.Errorf("asking for the tap's number: %w", err)
	}
	id, _ := info.ID()
	i, err := OpenInspector()
	if err != nil {
		return false, err
	}
	defer i.Close()
	found, err := i.Inspect(fd)
	return err == nil && found.Filter.ID == uint32(id), err
}

func program(p inspectFoundProgram) Program {
	return Program{ID: p.Id, Name: unix.ByteSliceToString(p.Name[:]), Loaded: int64(p.Loaded)}
}

// Close unloads the program. It is safe to call it twice.
func (i *Inspector) Close() error { return i.objects.Close() }
