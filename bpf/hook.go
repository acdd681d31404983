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
	// NoLink leaves what stands from the link header on out of the records. Default: it is there.
	NoLink bool
	// Record records the packets of marked sockets into the ring of the Tap.
	Record bool
	// MarkNew marks the sockets that followed processes make.
	MarkNew bool
	// Ports chooses packets by the socket's own or its peer's port. Default: all.
	Ports []uint16
	// Cgroup is the folder of a cgroup. Processes that run a program (execve) while they
	// are in it, or in one below it, are followed from then on; if it is one of cgroup2, for
	// the kernel knows no other. Default: none.
	Cgroup string
}

// Hook follows sockets of other processes and leaves them as they are. Marked
// sockets, and those that they accept, have their packets recorded at the
// cgroup_skb/ingress hook, which the kernel runs for each packet just before the
// socket's own filter; the bytes are those that the filter gets.
//
// Needs Linux 5.8 with BTF, CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.
type Hook struct {
	objects *loaded
	links   []io.Closer
	// tap is the number of the tap's program, and canAsk tells whether the kernel says
	// which program is a socket's filter.
	tap    ebpf.ProgramID
	canAsk bool
}

// OpenHook loads the hook into the kernel and attaches it at the root of the cgroup
// hierarchy. No socket is marked and no process followed yet.
//
// It costs every packet of the machine a look into its socket's storage, some 40 ns.
//
// An error is a *MissingError if a privilege or a feature of the kernel is missing.
func OpenHook(tap *Tap, opts HookOptions) (_ *Hook, err error) {
	spec, err := loadHook()
	if err != nil {
		return nil, fmt.Errorf("reading the hook's object: %w", err)
	}
	processes, err := newProcesses(spec)
	if err != nil {
		return nil, err
	}
	defer processes.Close()
	return openHook(tap, spec, func() *btf.Spec { return kernelTypes(spec) }, processes, opts)
}

// newProcesses makes the set of followed processes. It is no more than a map: the
// handle may be closed when a Hook and Calls have it.
func newProcesses(spec *ebpf.CollectionSpec) (*ebpf.Map, error) {
	_ = rlimit.RemoveMemlock() // as in Open
	processes, err := ebpf.NewMap(spec.Maps[hookMapProcesses])
	if err != nil {
		return nil, diagnoseHook(err)
	}
	return processes, nil
}

func openHook(
	tap *Tap, spec *ebpf.CollectionSpec, types func() *btf.Spec, processes *ebpf.Map, opts HookOptions,
) (_ *Hook, err error) {
	if err := opts.set(spec, tap); err != nil {
		return nil, err
	}
	h := &Hook{}
	defer func() {
		if err != nil {
			h.Close()
		}
	}()
	sizeRing(spec.Maps[hookMapRing], tap.size)
	h.objects, err = newLoaded(spec, types, map[string]*ebpf.Map{
		hookMapRing: tap.objects.Ring, hookMapCounts: tap.objects.Counts, hookMapProcesses: processes,
	})
	if err != nil {
		return nil, diagnoseHook(err)
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
	if err := h.objects.load([]string{hookProgArrived}, small); err != nil {
		return nil, diagnoseHook(err)
	}
	info, err := tap.objects.Tap.Info()
	if err != nil {
		return nil, fmt.Errorf("asking for the tap's number: %w", err)
	}
	h.tap, _ = info.ID()
	// Also because the first time needs privileges that may be given up later.
	_, err = h.filterID(-1)
	h.canAsk = err == nil
	if opts.Cgroup != "" {
		if err := h.choose(opts.Cgroup); err != nil {
			return nil, err
		}
	}
	return h, h.attach(tasks)
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
		spec.Variables[hookVarMarkNew].Set(flag(opts.MarkNew)),
		spec.Variables[hookVarPorts].Set(ports),
		spec.Variables[hookVarPortCount].Set(uint32(len(opts.Ports))),
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

// attachment is a program and where it belongs.
type attachment struct{ tracepoint, program string }

// taskPrograms are those that hear of the beginning and the end of processes, and of
// the programs that they run if that matters.
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
	root, err := cgroupRoot()
	if err != nil {
		return err
	}
	defer root.Close()
	for _, at := range []struct {
		attach  ebpf.AttachType
		program *ebpf.Program
	}{
		{ebpf.AttachCGroupInetIngress, h.objects.programs[hookProgArrived]},
		{ebpf.AttachCGroupInetSockCreate, h.objects.programs[hookProgCreated]},
		{ebpf.AttachCGroupInet4PostBind, h.objects.programs[hookProgBound4]},
		{ebpf.AttachCGroupInet6PostBind, h.objects.programs[hookProgBound6]},
		{ebpf.AttachCGroupInet4Connect, h.objects.programs[hookProgConnects4]},
		{ebpf.AttachCGroupInet6Connect, h.objects.programs[hookProgConnects6]},
	} {
		l, err := link.AttachCgroup(link.CgroupOptions{
			Path: fmt.Sprintf("/proc/self/fd/%d", root.Fd()), Attach: at.attach, Program: at.program,
		})
		if err != nil {
			return diagnoseHook(fmt.Errorf("%s %s: %w", attachingCgroup, root.Name(), err))
		}
		h.links = append(h.links, l)
	}
	for _, at := range tasks {
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: at.tracepoint, Program: h.objects.programs[at.program]})
		if err != nil {
			return diagnoseHook(fmt.Errorf("attaching to %s: %w", at.tracepoint, err))
		}
		h.links = append(h.links, l)
	}
	return nil
}

// attachingCgroup begins an error of what the hook needs a cgroup for.
const attachingCgroup = "attaching to cgroup"

func diagnoseHook(err error) error {
	const doing = "following sockets of other processes"
	for _, c := range []int{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN} {
		// The verifier refuses helpers that want one with another error.
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
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, btf.ErrNotFound) {
		if _, berr := os.Stat("/sys/kernel/btf/vmlinux"); errors.Is(berr, os.ErrNotExist) {
			return &MissingError{
				What: doing + " needs the kernel's BTF, which is not at /sys/kernel/btf/vmlinux",
				Hint: "mount sysfs there, or use a kernel built with CONFIG_DEBUG_INFO_BTF",
				Err:  err,
			}
		}
	}
	return Diagnose(doing, err)
}

// Mark begins to follow a socket, of which fd is a descriptor of ours, and returns
// its cookie. A listener passes its mark on to the connections that it accepts from
// now on.
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

// Origin tells from which marked socket a socket has its mark: itself, or the
// listener that accepted it. It is not ok for a socket without a mark.
func (h *Hook) Origin(fd int) (cookie uint64, ok bool) {
	var m hookMark
	err := h.objects.maps[hookMapMarks].Lookup(int32(fd), &m)
	return m.Origin, err == nil
}

// MarkMPTCP follows an MPTCP listener, of which fd is a descriptor of ours and which has
// its mark: its packets go to a socket that the kernel has made for it, which is
// known by port and network namespace. Needs CAP_NET_ADMIN.
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

// HasTap tells whether a socket, of which fd is a descriptor of ours and which has an
// eBPF filter, has the tap. Before Linux 5.10 the kernel does not say, and it is
// taken for that.
func (h *Hook) HasTap(fd int) (bool, error) {
	if !h.canAsk {
		return true, nil
	}
	id, err := h.filterID(fd)
	return id == uint32(h.tap), err
}

// filterID is the number of the program that is a socket's filter, 0 if it is none.
func (h *Hook) filterID(fd int) (uint32, error) {
	id, err := h.objects.programs[hookProgFilterId].Run(&ebpf.RunOptions{Context: [12]uint64{uint64(fd)}})
	if err != nil {
		return 0, fmt.Errorf("asking for the filter of a socket: %w", err)
	}
	return id, nil
}

// Follow begins to follow a process, and those that it forks from now on. Afterwards it
// asks whether the process lives: the kernel tells only of ends to come, and the number
// of one that has ended can come to be somebody else's. Then the error is unix.ESRCH. nil
// is for a process that is known to live.
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
	processes, err := h.objects.maps[hookMapProcesses].Memory()
	if err != nil {
		return false
	}
	followed := make([]byte, 1)
	_, err = processes.ReadAt(followed, int64(global))
	return err == nil && followed[0] == followedAndSeen
}

// followedAndSeen is FOLLOWED of scope.h.
const followedAndSeen = 1

// note says whether a process is followed. It is a byte for each number, which the
// programs write as well: so not by the row.
func (h *Hook) note(global uint32, followed bool) error {
	processes, err := h.objects.maps[hookMapProcesses].Memory()
	if err != nil {
		return err
	}
	_, err = processes.WriteAt([]byte{byte(flag(followed))}, int64(global))
	return err
}

// globalPID is the number of a process in the first process id namespace.
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
		return 0, diagnoseHook(fmt.Errorf("finding process %d: %w", pid, err))
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

// Stop ends all following and recording. What is in the ring stays readable.
func (h *Hook) Stop() error {
	if err := h.objects.variables[hookVarFollowing].Set(uint32(0)); err != nil {
		return fmt.Errorf("stopping the hook: %w", err)
	}
	return nil
}

// Close takes the hook away, and with it all marks. It is safe to call it twice.
func (h *Hook) Close() error {
	var errs []error
	for _, l := range h.links {
		errs = append(errs, l.Close())
	}
	h.links = nil
	return errors.Join(append(errs, h.objects.Close())...)
}
