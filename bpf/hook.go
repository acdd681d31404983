package bpf

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/capability"
)

// MaxPorts is how many ports a Hook can choose by.
const MaxPorts = 64

// HookOptions say what a Hook does. The zero value marks and records nothing new.
type HookOptions struct {
	// Snaplen is the most bytes recorded of a packet. Default: MaxSnaplen.
	Snaplen int
	// NoLink leaves the link header out of the records. Default: it is recorded.
	NoLink bool
	// Record records the packets of marked sockets into the ring of the Tap.
	Record bool
	// FromNetwork records packets from the network header on. Default: from offset 0 of the
	// socket's filter on.
	FromNetwork bool
	// Egress also records the packets that marked sockets send.
	Egress bool
	// Beside is for sockets that have the Tap as well, which counts what arrives: then the Hook
	// has Counters of its own for that. Default: what arrives is in the ledger of the Tap.
	Beside bool
	// BesideWrappers is Beside for those sockets that have a Wrapper: what arrives at them is recorded with
	// HookBeside, in place of nothing. What arrives at others has one record, and is in Shared as well.
	BesideWrappers bool
	// NoProcesses only looks at sockets that Mark has marked, and at those that they accept.
	NoProcesses bool
	// TellFilters also records which filter each socket has of its own: the Filter of a Record.
	// A filter is told of in a record with HookNone, before its first packet.
	TellFilters bool
	// MarkNew marks the sockets that followed processes create.
	MarkNew bool
	// Ports chooses packets by the socket's own or its peer's port. Default: all.
	Ports []uint16
	// Cgroup is the folder of a cgroup. Processes that run a program (execve) while they
	// are in it, or in one below it, are followed from then on; if it is one of cgroup2, for
	// the kernel knows no other. Default: none.
	Cgroup string
	// Expression chooses which packets are recorded, by their bytes. Default: all.
	Expression *Expression
	// Notes leaves notes of packets that arrive and are not chosen, as Options.Notes of a Tap.
	Notes bool
	// NotesOfSent leaves notes of packets that are sent and not chosen.
	NotesOfSent bool
}

// Hook follows sockets of other processes without changing them. The packets of marked
// sockets, and of those that they accept, are recorded at the cgroup_skb/ingress hook, which
// the kernel runs for each packet just before the socket's own filter; the bytes are those
// that the filter gets.
//
// Needs Linux 5.8 with BTF, CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.
type Hook struct {
	doing   string // for errors
	objects *loaded
	links   []io.Closer
	// tap is the id of the tap's program, and canAsk tells whether the kernel can tell which
	// program is a socket's filter.
	tap       ebpf.ProgramID
	canAsk    bool
	processes *mapping // a byte for each number, not 0 if that process is followed
	// arrived is the ledger of what arrives, nil if that is the tap's, and departed that of what
	// is sent, nil without Egress.
	arrived, departed *counts[tapCounters]
	// shared is how many of the elements of arrived are those of sockets without a Wrapper; 0 if the
	// ledger does not tell them apart.
	shared int
}

// OpenHook loads the hook into the kernel and attaches it at the root of the cgroup
// hierarchy. No socket is marked and no process followed yet.
//
// Every packet of the machine pays for a lookup in its socket's storage, some 40 ns.
//
// An error is a *MissingError if a privilege or a feature of the kernel is missing.
func OpenHook(tap *Tap, opts HookOptions) (_ *Hook, err error) {
	spec, err := loadHook()
	if err != nil {
		return nil, fmt.Errorf("reading the hook's object: %w", err)
	}
	types := func() *btf.Spec { return kernelTypes(spec) }
	if opts.NoProcesses {
		_ = rlimit.RemoveMemlock() // as in Open
		// No program that needs the whole map is loaded.
		spec.Maps[hookMapProcesses].MaxEntries = 1
		return openHook(tap, spec, types, nil, opts)
	}
	processes, err := newProcesses(spec)
	if err != nil {
		return nil, err
	}
	defer processes.Close()
	return openHook(tap, spec, types, processes, opts)
}

// newProcesses creates the map of followed processes. A Hook and Calls clone it, so it may be
// closed afterwards.
func newProcesses(spec *ebpf.CollectionSpec) (*ebpf.Map, error) {
	_ = rlimit.RemoveMemlock() // as in Open
	processes, err := ebpf.NewMap(spec.Maps[hookMapProcesses])
	if err != nil {
		return nil, diagnoseHook(followingSockets, err)
	}
	return processes, nil
}

func openHook(
	tap *Tap, spec *ebpf.CollectionSpec, types func() *btf.Spec, processes *ebpf.Map, opts HookOptions,
) (_ *Hook, err error) {
	if err := opts.set(spec, tap); err != nil {
		return nil, err
	}
	h := &Hook{doing: followingSockets}
	if opts.NoProcesses {
		h.doing = "recording at the cgroup hooks"
	}
	defer func() {
		if err != nil {
			h.Close()
		}
	}()
	if err := h.makeMaps(tap, spec, types, processes, opts); err != nil {
		return nil, err
	}
	packets := []string{hookProgArrived}
	if opts.Egress {
		packets = append(packets, hookProgDeparted)
	}
	if opts.NoProcesses {
		if err := h.objects.load(packets); err != nil {
			return nil, h.diagnose(err)
		}
		return h, h.attach(nil)
	}
	if h.processes, err = mapMemory(h.objects.maps[hookMapProcesses]); err != nil {
		return nil, fmt.Errorf("mapping which processes are followed: %w", err)
	}
	small := []string{
		hookProgCreated, hookProgBound4, hookProgBound6, hookProgConnects4, hookProgConnects6, hookProgFilterId,
	}
	tasks := opts.taskPrograms()
	for _, at := range tasks {
		small = append(small, at.program)
	}
	if _, nested := pidNamespace(); nested {
		small = append(small, hookProgFindProcess)
	}
	if err := h.objects.load(packets, small); err != nil {
		return nil, h.diagnose(err)
	}
	info, err := tap.objects.Tap.Info()
	if err != nil {
		return nil, fmt.Errorf("asking for the tap's number: %w", err)
	}
	h.tap, _ = info.ID()
	// Also because the first run needs privileges that may be given up later.
	_, err = h.filterID(-1)
	h.canAsk = err == nil
	if opts.Cgroup != "" {
		if err := h.choose(opts.Cgroup); err != nil {
			return nil, err
		}
	}
	return h, h.attach(tasks)
}

// makeMaps creates the maps that are not the tap's.
func (h *Hook) makeMaps(tap *Tap, spec *ebpf.CollectionSpec, types func() *btf.Spec, processes *ebpf.Map, opts HookOptions) (err error) {
	shared := map[string]*ebpf.Map{hookMapRing: tap.objects.Ring}
	if processes != nil {
		shared[hookMapProcesses] = processes
	}
	cpus := tap.objects.Counts.MaxEntries()
	spec.Maps[hookMapCounts].MaxEntries, spec.Maps[hookMapEgressCounts].MaxEntries = cpus, cpus
	if opts.BesideWrappers {
		h.shared = int(cpus)
		spec.Maps[hookMapCounts].MaxEntries = 2 * cpus
	}
	if !opts.Beside && !opts.BesideWrappers {
		shared[hookMapCounts] = tap.objects.Counts
	}
	var without []string
	if !opts.Egress {
		without = append(without, hookMapEgressCounts)
	}
	sizeRing(spec.Maps[hookMapRing], tap.size)
	if h.objects, err = newLoaded(spec, types, shared, without...); err != nil {
		return h.diagnose(err)
	}
	if opts.Beside || opts.BesideWrappers {
		if h.arrived, err = openCounts[tapCounters](h.objects.maps[hookMapCounts]); err != nil {
			return err
		}
	}
	if opts.Egress {
		h.departed, err = openCounts[tapCounters](h.objects.maps[hookMapEgressCounts])
	}
	return err
}

// choose follows what is in a cgroup. One of another hierarchy than cgroup2 it leaves out.
func (h *Hook) choose(folder string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(folder, &fs); err != nil {
		return fmt.Errorf("following cgroup %s: %w", folder, err)
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return nil
	}
	group, err := os.Open(folder)
	if err != nil {
		return fmt.Errorf("following a cgroup: %w", err)
	}
	defer group.Close()
	if err := h.objects.maps[hookMapCgroups].Update(uint32(0), uint32(group.Fd()), ebpf.UpdateAny); err != nil {
		return fmt.Errorf("following cgroup %s: %w", folder, err)
	}
	return nil
}

func (opts HookOptions) set(spec *ebpf.CollectionSpec, tap *Tap) error {
	if opts.Snaplen == 0 {
		opts.Snaplen = MaxSnaplen
	}
	if len(opts.Ports) > MaxPorts {
		return fmt.Errorf("choosing by ports: %d are more than %d", len(opts.Ports), MaxPorts)
	}
	var ports [MaxPorts]uint16
	copy(ports[:], opts.Ports)
	errs := []error{
		spec.Variables[hookVarSnaplen].Set(uint32(opts.Snaplen)),
		spec.Variables[hookVarWantsLink].Set(flag(!opts.NoLink)),
		spec.Variables[hookVarWakeupBytes].Set(uint64(tap.wakeup)),
		spec.Variables[hookVarWakesFirst].Set(flag(tap.first)),
		spec.Variables[hookVarRecording].Set(flag(opts.Record)),
		spec.Variables[hookVarFromNetwork].Set(flag(opts.FromNetwork)),
		spec.Variables[hookVarTellsFilters].Set(flag(opts.TellFilters)),
		spec.Variables[hookVarMarkNew].Set(flag(opts.MarkNew)),
		spec.Variables[hookVarPorts].Set(ports),
		spec.Variables[hookVarPortCount].Set(uint32(len(opts.Ports))),
		opts.Expression.splice(spec, opts.Notes),
		spec.Variables[hookVarNotesSent].Set(flag(opts.NotesOfSent)),
	}
	if opts.BesideWrappers {
		errs = append(errs, spec.Variables[hookVarWrappedCounts].Set(tap.objects.Counts.MaxEntries()))
	}
	if st, nested := pidNamespace(); nested {
		errs = append(errs, spec.Variables[hookVarNamespaceInode].Set(uint32(st.Ino)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("setting up the hook: %w", err)
	}
	return nil
}

func flag(set bool) uint32 {
	if set {
		return 1
	}
	return 0
}

// attachment is a program and its tracepoint.
type attachment struct{ tracepoint, program string }

// taskPrograms are the programs that follow forks and exits, and with a Cgroup also execs.
func (opts HookOptions) taskPrograms() []attachment {
	const forks, exits = "sched_process_fork", "sched_process_exit"
	all := []attachment{{forks, hookProgForked}, {exits, hookProgExited}}
	if Preemptible() {
		all = append(all, attachment{forks, hookProgForkedAgain}, attachment{exits, hookProgExitedAgain})
	}
	if opts.Cgroup != "" {
		all = append(all, attachment{"sched_process_exec", hookProgExecuted})
	}
	return all
}

func (h *Hook) attach(tasks []attachment) error {
	root, err := CgroupRoot()
	if err != nil {
		return err
	}
	defer root.Close()
	for _, at := range hookPoints {
		program := h.objects.programs[at.program]
		if program == nil {
			continue // it was not asked for
		}
		l, err := link.AttachCgroup(link.CgroupOptions{
			Path: fmt.Sprintf("/proc/self/fd/%d", root.Fd()), Attach: at.attach, Program: program,
		})
		if err != nil {
			return h.diagnose(fmt.Errorf("%s %s: %w", attachingCgroup, root.Name(), err))
		}
		h.links = append(h.links, l)
	}
	for _, at := range tasks {
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: at.tracepoint, Program: h.objects.programs[at.program]})
		if err != nil {
			return h.diagnose(fmt.Errorf("attaching to %s: %w", at.tracepoint, err))
		}
		h.links = append(h.links, l)
	}
	return nil
}

// hookPoints are the programs that are attached to the cgroup.
var hookPoints = []struct {
	attach  ebpf.AttachType
	program string
}{
	{ebpf.AttachCGroupInetIngress, hookProgArrived},
	{ebpf.AttachCGroupInetEgress, hookProgDeparted},
	{ebpf.AttachCGroupInetSockCreate, hookProgCreated},
	{ebpf.AttachCGroupInet4PostBind, hookProgBound4},
	{ebpf.AttachCGroupInet6PostBind, hookProgBound6},
	{ebpf.AttachCGroupInet4Connect, hookProgConnects4},
	{ebpf.AttachCGroupInet6Connect, hookProgConnects6},
}

// HidesSYNACKs tells whether the kernel runs no egress hook for the SYN-ACKs that TCP sends over
// IPv6, as before Linux 6.6.
func HidesSYNACKs() bool {
	major, minor := version()
	return major < 6 || major == 6 && minor < 6
}

// attachingCgroup begins the errors of attaching to the cgroup.
const attachingCgroup = "attaching to cgroup"

const followingSockets = "following sockets of other processes"

func (h *Hook) diagnose(err error) error { return diagnoseHook(h.doing, err) }

func diagnoseHook(doing string, err error) error {
	for _, c := range []int{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN} {
		// Asked for all errors: if one is missing, the verifier refuses helpers otherwise
		// than with EPERM.
		if !capability.Held(c) {
			return LacksCapability(c, doing, err)
		}
	}
	if errors.Is(err, unix.EPERM) && strings.Contains(err.Error(), attachingCgroup) {
		return &MissingError{
			What: doing + ": another program is attached there and allows no other beside it",
			Hint: "bpftool cgroup tree shows it: detach it, or have it attached with BPF_F_ALLOW_MULTI",
			Err:  err,
		}
	}
	if missing := lacksTypes(doing, err); missing != nil {
		return missing
	}
	return Diagnose(doing, err)
}

// Mark begins to follow a socket, by a descriptor of this process, and returns its cookie.
// Connections that are made to a listener from now on inherit its mark.
func (h *Hook) Mark(fd int) (cookie uint64, err error) {
	cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("asking a socket for its cookie: %w", err)
	}
	return cookie, h.MarkAs(fd, cookie)
}

// MarkAs is Mark for a socket whose cookie is known.
func (h *Hook) MarkAs(fd int, cookie uint64) error {
	err := h.objects.maps[hookMapMarks].Update(int32(fd), hookMark{Origin: cookie}, ebpf.UpdateNoExist)
	if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("marking a socket: %w", err)
	}
	return nil
}

// Origin is the cookie of the socket from which a socket has its mark: itself, or the listener
// that accepted it. ok is false for a socket without a mark.
func (h *Hook) Origin(fd int) (cookie uint64, ok bool) {
	var m hookMark
	err := h.objects.maps[hookMapMarks].Lookup(int32(fd), &m)
	return m.Origin, err == nil
}

// MarkMPTCP follows an MPTCP listener that is marked already, by a descriptor of this process.
// Its packets go to a subflow socket of the kernel's own, which is recognized by port and
// network namespace. Needs CAP_NET_ADMIN.
func (h *Hook) MarkMPTCP(fd int, port uint16, origin uint64) error {
	network, err := unix.IoctlRetInt(fd, unix.SIOCGSKNS)
	if err != nil {
		return fmt.Errorf("asking a socket for its network namespace: %w", err)
	}
	defer unix.Close(network)
	var st unix.Stat_t
	if err := unix.Fstat(network, &st); err != nil {
		return fmt.Errorf("asking a socket for its network namespace: %w", err)
	}
	key := hookMptcpListener{Network: uint32(st.Ino), Port: uint32(port)}
	if err := h.objects.maps[hookMapMptcpPorts].Update(key, origin, ebpf.UpdateAny); err != nil {
		return fmt.Errorf("following the MPTCP listener on port %d: %w", port, err)
	}
	if err := h.objects.variables[hookVarMptcpListeners].Set(uint32(1)); err != nil {
		return fmt.Errorf("following the MPTCP listener on port %d: %w", port, err)
	}
	return nil
}

// HasTap tells whether the eBPF filter of a socket, given by a descriptor of this process, is
// the tap. Before Linux 5.10 that cannot be found out, and the filter is taken for the tap.
func (h *Hook) HasTap(fd int) (bool, error) {
	if !h.canAsk {
		return true, nil
	}
	id, err := h.filterID(fd)
	return id == uint32(h.tap), err
}

// filterID is the id of the program that is a socket's filter, 0 if it has none.
func (h *Hook) filterID(fd int) (uint32, error) {
	id, err := h.objects.programs[hookProgFilterId].Run(&ebpf.RunOptions{Context: [12]uint64{uint64(fd)}})
	if err != nil {
		return 0, fmt.Errorf("asking for the filter of a socket: %w", err)
	}
	return id, nil
}

// Follow begins to follow a process, and those that it forks from now on. Then it asks whether
// the process is alive: the hook notices only exits from now on, and the id of a process that
// has exited before may be reused. If it is not, the error is unix.ESRCH. lives may be nil
// for a process that is known to be alive.
func (h *Hook) Follow(pid uint32, lives func() bool) error {
	global, err := h.globalPID(pid)
	if err != nil {
		return err
	}
	if err := h.note(global, true); err != nil {
		return fmt.Errorf("following process %d: %w", pid, err)
	}
	if lives == nil || lives() {
		return nil
	}
	return fmt.Errorf("following process %d: %w", pid, errors.Join(unix.ESRCH, h.note(global, false)))
}

// Follows tells whether a process is followed. Of one that is because of its Cgroup, this
// is so only after Follow: what it had before that nobody has looked at.
func (h *Hook) Follows(pid uint32) bool {
	global, err := h.globalPID(pid)
	if err != nil {
		return false
	}
	followed := make([]byte, 1)
	_, err = h.processes.ReadAt(followed, int64(global))
	return err == nil && followed[0] == followedAndSeen
}

// followedAndSeen is FOLLOWED of scope.h.
const followedAndSeen = 1

// note sets whether a process is followed. It writes a single byte and not a row of the map,
// because the programs write the other bytes at the same time.
func (h *Hook) note(global uint32, followed bool) error {
	_, err := h.processes.WriteAt([]byte{byte(flag(followed))}, int64(global))
	return err
}

// globalPID is the id of a process in the initial pid namespace.
func (h *Hook) globalPID(pid uint32) (uint32, error) {
	if _, nested := pidNamespace(); !nested {
		return pid, nil
	}
	wanted, found := h.objects.variables[hookVarWantedPid], h.objects.variables[hookVarFoundPid]
	if err := errors.Join(wanted.Set(pid), found.Set(uint32(0))); err != nil {
		return 0, fmt.Errorf("finding process %d: %w", pid, err)
	}
	it, err := link.AttachIter(link.IterOptions{Program: h.objects.programs[hookProgFindProcess]})
	if err != nil {
		return 0, h.diagnose(fmt.Errorf("finding process %d: %w", pid, err))
	}
	defer it.Close()
	tasks, err := it.Open()
	if err != nil {
		return 0, fmt.Errorf("finding process %d: %w", pid, err)
	}
	defer tasks.Close()
	if _, err := io.Copy(io.Discard, tasks); err != nil {
		return 0, fmt.Errorf("finding process %d: %w", pid, err)
	}
	var global uint32
	if err := found.Get(&global); err != nil || global == 0 {
		return 0, fmt.Errorf("finding process %d: %w", pid, errors.Join(unix.ESRCH, err))
	}
	return global, nil
}

// Counters reads the ledgers of what arrived and of what was sent. The first is zero unless the
// hook is Beside a Tap, or BesideWrappers, whose ledger it would be otherwise, and the second without Egress.
func (h *Hook) Counters() (arrived, departed Counters, err error) {
	if arrived, err = sumCounters(h.arrived); err != nil {
		return arrived, departed, fmt.Errorf("the hook: %w", err)
	}
	if departed, err = sumCounters(h.departed); err != nil {
		return arrived, departed, fmt.Errorf("the hook: %w", err)
	}
	return arrived, departed, nil
}

// Shared is that part of what arrived, BesideWrappers, that has no other record.
func (h *Hook) Shared() (Counters, error) {
	if h.shared == 0 {
		return Counters{}, nil
	}
	all, err := h.arrived.read()
	if err != nil {
		return Counters{}, fmt.Errorf("the hook: %w", err)
	}
	return sumOf(all[:h.shared]), nil
}

// SharedLostByCPU appends how many packets of Shared each cpu has lost so far, as Tap.LostByCPU does
// of the Tap's.
func (h *Hook) SharedLostByCPU(to []uint64) ([]uint64, error) {
	if h.shared == 0 {
		return to, nil
	}
	all, err := h.arrived.read()
	if err != nil {
		return to, fmt.Errorf("the hook: %w", err)
	}
	return lostByCPU(to, all[:h.shared]), nil
}

// Stop ends all following and recording. What is in the ring stays readable.
func (h *Hook) Stop() error {
	if err := h.objects.variables[hookVarFollowing].Set(uint32(0)); err != nil {
		return fmt.Errorf("stopping the hook: %w", err)
	}
	return nil
}

// Close detaches the hook, and removes all marks. It is safe to call it twice.
func (h *Hook) Close() error {
	var errs []error
	for _, l := range h.links {
		errs = append(errs, l.Close())
	}
	h.links = nil
	return errors.Join(append(errs, h.processes.close(), h.arrived.close(), h.departed.close(), h.objects.Close())...)
}
