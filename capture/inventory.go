package capture

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/process"
)

// InventoryConfig chooses the sockets of an Inventory. The zero value chooses all of the
// machine's.
type InventoryConfig struct {
	// PIDs are the processes whose sockets are listed. Default: all, except this one.
	PIDs []int
	// Cgroup is the folder of a cgroup, or its path in the cgroup2 hierarchy: its processes are
	// looked into instead of PIDs, and those of the cgroups below it.
	Cgroup string
	// Descriptors chooses sockets by descriptor. Default: all.
	Descriptors []int
	// Ports chooses sockets by their own or their peer's port. Default: all.
	Ports []uint16
	// Kinds chooses sockets by their Kind. Default: all.
	Kinds []string
}

// Inventory is a list of sockets.
type Inventory struct {
	// Sockets are those that processes have descriptors of, by the lowest process id and
	// descriptor that they have.
	Sockets []Socket
	// Denied is how many processes could not be looked into, or not at all of their sockets, and
	// Denial why not one of them: a *bpf.MissingError if a privilege or a feature of the kernel is
	// missing. Those sockets are missing, unless another process has them as well, and the process
	// is not named as an owner.
	Denied int
	Denial error
	// Hidden is why further processes are missing, which nobody can count, because /proc does not
	// show them: a *bpf.MissingError; nil if there are none.
	Hidden error
	// Unattached is why eBPF programs and sockmaps, and the network namespaces, are missing from
	// the Sockets; nil if they are there.
	Unattached error
}

// DescriptorError says that none of the chosen descriptors is a socket of the kind that is asked
// for.
type DescriptorError struct {
	Descriptors []int
	// Wanted is what none of them is: "a socket".
	Wanted string
}

func (e *DescriptorError) Error() string {
	return fmt.Sprintf("none of the descriptors %s is %s", strings.Trim(fmt.Sprint(e.Descriptors), "[]"), e.Wanted)
}

// TakeInventory lists the sockets of processes, and what is on each. It looks at each socket once,
// by a copy of a descriptor that it closes at once, and changes nothing.
//
// Of processes, programs and maps that cannot be looked at, the Inventory says why. If this was so
// for all processes, that is the error: a *bpf.MissingError if a privilege or a feature of the
// kernel is missing. It is unix.ESRCH if there is no such process.
func TakeInventory(config InventoryConfig) (_ *Inventory, err error) {
	const doing = "listing sockets"
	if len(config.PIDs) > 0 && config.Cgroup != "" {
		return nil, errors.New(doing + ": InventoryConfig has PIDs and a Cgroup: choose one")
	}
	pids, err := config.processes()
	if err != nil {
		return nil, err
	}
	l, err := newLister(config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	defer l.close()
	if len(config.PIDs) == 0 && config.Cgroup == "" {
		l.Hidden = process.Hidden()
	}
	for _, pid := range pids {
		if err := l.process(pid); err != nil {
			return nil, fmt.Errorf("%s of process %d: %w", doing, pid, err)
		}
	}
	switch {
	case l.looked == 0 && cmp.Or(l.Denial, l.Hidden) != nil:
		return nil, cmp.Or(l.Denial, l.Hidden)
	case len(config.Descriptors) > 0 && l.chosen == 0:
		return nil, fmt.Errorf("%s: %w", doing, &DescriptorError{config.Descriptors, "a socket"})
	}
	return &l.Inventory, nil
}

// processes lists the processes to look into, in ascending order.
func (c *InventoryConfig) processes() ([]int, error) {
	switch {
	case c.Cgroup != "":
		folder, err := groupFolder(c.Cgroup)
		if err != nil {
			return nil, fmt.Errorf("listing sockets of %w", err)
		}
		pids := newGroup(folder).list()
		slices.Sort(pids)
		return slices.Compact(pids), nil
	case len(c.PIDs) > 0:
		pids := slices.Clone(c.PIDs)
		slices.Sort(pids)
		return slices.Compact(pids), nil
	}
	return process.All(), nil
}

// lister takes an Inventory.
type lister struct {
	Inventory
	config    InventoryConfig
	inspector *bpf.Inspector // nil if it cannot be had
	clock     clock
	network   uint32         // our network namespace, 0 if it is not known
	foreign   bool           // the process that is looked into is in another one
	places    map[uint64]int // of sockets in the Inventory, by inode; unchosen for others
	looked    int            // processes, at one socket at least if they have any
	chosen    int            // sockets that the Descriptors choose
}

// unchosen is the place of a socket that the config does not choose.
const unchosen = -1

func newLister(config InventoryConfig) (_ *lister, err error) {
	l := &lister{config: config, places: make(map[uint64]int)}
	if l.clock, err = newClock(); err != nil {
		return nil, err
	}
	l.inspector, l.Unattached = bpf.OpenInspector()
	var own unix.Stat_t
	if unix.Stat("/proc/thread-self/ns/net", &own) == nil {
		l.network = uint32(own.Ino)
	}
	return l, nil
}

func (l *lister) close() {
	if l.inspector != nil {
		l.inspector.Close()
	}
}

// process looks into a process. Of those that nobody has named, the ones that have ended are
// left out.
func (l *lister) process(pid int) error {
	p, err := process.Open(pid)
	switch {
	case errors.Is(err, unix.ESRCH) && len(l.config.PIDs) > 0:
		return unix.ESRCH
	case errors.Is(err, unix.ESRCH):
		return nil
	case err != nil:
		l.deny(err)
		return nil
	}
	defer p.Close()
	looked, err := l.sockets(p)
	if looked {
		l.looked++
	}
	// Of one that ends, and of the kernel's own threads, nothing is missed.
	if err != nil && p.Lives() && !p.OfKernel() {
		l.deny(err)
	}
	return nil
}

// deny counts a process that cannot be looked into. The error names it.
func (l *lister) deny(err error) {
	l.Denied++
	l.Denial = cmp.Or(l.Denial, err)
}

// sockets looks at the sockets of a process that are new, and makes it an owner of the others. The
// error is that of the first one that cannot be looked at. looked tells whether others were, or
// there are none.
func (l *lister) sockets(p *process.Process) (looked bool, err error) {
	files, err := p.Descriptors()
	if err != nil {
		return false, err
	}
	l.foreign = p.ForeignNetwork()
	slices.SortFunc(files, func(a, b process.Descriptor) int { return cmp.Compare(a.FD, b.FD) })
	for _, f := range files {
		inode, ok := f.Inode()
		if !ok || len(l.config.Descriptors) > 0 && !slices.Contains(l.config.Descriptors, f.FD) {
			continue
		}
		l.chosen++
		at, seen := l.places[inode]
		if !seen {
			var ok bool
			var failed error
			if at, ok, failed = l.look(p, f.FD, inode); failed != nil {
				err = cmp.Or(err, failed)
			}
			if !ok {
				continue // closed by now, or not to be looked at
			}
			l.places[inode] = at
		}
		looked = true
		if at != unchosen {
			l.Sockets[at].own(p, f.FD)
		}
	}
	return looked || err == nil, err
}

// look looks at a socket, and returns its place. ok is false if it is closed, or cannot be looked
// at.
func (l *lister) look(p *process.Process, fd int, inode uint64) (at int, ok bool, err error) {
	copied, err := p.CopyDescriptor(fd)
	if errors.Is(err, unix.EBADF) || errors.Is(err, unix.ESRCH) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer unix.Close(copied)
	var st unix.Stat_t
	if unix.Fstat(copied, &st) != nil || st.Ino != inode {
		return 0, false, nil // another file has the descriptor
	}
	info, err := inspect(copied)
	if isShutDown(err) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("descriptor %d of %s: %w", fd, p, err)
	}
	s := newSocketFacts(&info, inode)
	if len(l.config.Kinds) > 0 && !slices.Contains(l.config.Kinds, s.Kind) {
		return unchosen, true, nil
	}
	if l.inspector != nil {
		found, err := l.inspector.Inspect(copied)
		if err != nil {
			return 0, false, fmt.Errorf("descriptor %d of %s: %w", fd, p, err)
		}
		s.attached(&found, l.clock)
		s.Elsewhere = found.Network != l.network
	} else {
		s.Elsewhere = l.foreign // as its process, mostly
	}
	s.Local, s.Peer = info.addresses(!s.Elsewhere)
	if len(l.config.Ports) > 0 && !s.hasPort(l.config.Ports) {
		return unchosen, true, nil
	}
	s.ask(copied, &info)
	l.Sockets = append(l.Sockets, s)
	return len(l.Sockets) - 1, true, nil
}
