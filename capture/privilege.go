package capture

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/confine"
)

// Capabilities are those that a session needs once it is open, so that all others can be
// dropped. A probe may need more.
//
//	CAP_BPF           to read the counters, where the kernel requires it: before
//	                  Linux 5.19 with kernel.unprivileged_bpf_disabled
//	CAP_NET_ADMIN     to probe a netlink socket
//	CAP_NET_RAW       to probe raw sockets of other protocols than TCP and UDP
//	CAP_DAC_OVERRIDE  to remove a unix socket from another user's folder
func (s *Session) Capabilities(probe bool) []int {
	all := countingNeeds(s.Counts)
	kind := s.config.Kind
	if probe && kind.domain == unix.AF_NETLINK {
		all = append(all, unix.CAP_NET_ADMIN)
	}
	if probe && kind.anyProtocol && s.config.Protocol != unix.IPPROTO_TCP && s.config.Protocol != unix.IPPROTO_UDP {
		all = append(all, unix.CAP_NET_RAW)
	}
	if folder := kind.place.folder; folder != nil && !s.borrowed && folder(s.config.Address) != "" {
		all = append(all, confine.NeedsToRemoveFrom(folder(s.config.Address))...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// countingNeeds is what reading the counters needs.
func countingNeeds(count func() (Counts, error)) []int {
	err := confine.Unprivileged(func() error {
		_, err := count()
		return err
	})
	if err != nil {
		return []int{unix.CAP_BPF}
	}
	return nil
}

// Capabilities are those that a session needs while it runs, so that all others can be dropped.
//
//	CAP_SYS_PTRACE       to duplicate sockets that other processes make later
//	CAP_DAC_READ_SEARCH  to list the descriptors of other users' processes at the end,
//	                     where their sockets have the tap
//	CAP_BPF              to mark sockets, and to read the counters, where the kernel
//	                     requires it
//	CAP_BPF              also to ask the filters that sockets get later, and to run them inside
//	                     the tap (WrapFilter)
//	CAP_SYS_ADMIN        to take hold of their eBPF filters (ReplaceFilter, WrapFilter)
//	CAP_NET_ADMIN        to restore a socket's own classic filter (ReplaceFilter, WrapFilter)
//	CAP_KILL             to pass a signal on to another user's command
func (l *Live) Capabilities() []int {
	all := []int{unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH}
	all = append(all, countingNeeds(l.Counts)...)
	if l.tellsFilters() {
		all = append(all, unix.CAP_BPF)
	}
	if l.config.ReplaceFilter || l.config.WrapFilter {
		all = append(all, unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN)
	}
	if l.command != nil {
		all = append(all, unix.CAP_KILL)
	}
	return all
}
