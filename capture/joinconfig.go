package capture

import (
	"errors"
	"fmt"
	"slices"
)

// JoinConfig is what a Live session captures.
type JoinConfig struct {
	Options
	// PIDs are the processes of Join, whose descendants are followed as well.
	PIDs []int
	// Cgroup is the folder of a cgroup, or its path in the cgroup2 hierarchy: its processes are
	// followed instead of PIDs, including those that join it later.
	Cgroup string
	// Descriptors chooses sockets of these processes, but not of their descendants, by
	// descriptor. Default: all.
	Descriptors []int
	// Ports chooses sockets by their own or their peer's port. Default: all.
	Ports []uint16
	// UnixStreams also captures unix streams, which no filter sees: they are in ViewUser and ViewSent
	// only. It does not go with Ports. Sockets that Descriptors choose may be streams without it.
	UnixStreams bool
	// ReplaceFilter puts the tap on all sockets, also in the place of filters that they have, which
	// are put back at the end: the process gets everything meanwhile. An eBPF one stays where it
	// could not be put back, for which CAP_SYS_ADMIN is needed, and so does the tap that another
	// capture has put there and that goes on.
	ReplaceFilter bool
	// WrapFilter runs the filters that sockets have of their own inside the tap, which is put in
	// their place: what they decide is recorded, and the process gets what it would get without.
	// They are put back at the end. Packet and netlink sockets that have a filter are captured as
	// well. It goes with neither a Verdict nor ReplaceFilter.
	WrapFilter bool
	// Filtered is called for each socket that is skipped because it has a filter already, which
	// ReplaceFilter would replace. Default: Notice is called.
	Filtered func(socket string)
	// Started is called with the number of the process, once it has become the command of Start: by
	// Run, where it calls the Sink. Default: nothing is called.
	Started func(pid int)
	// LeftOut is called, by Join, with the packet and netlink sockets that are skipped because they
	// are captured with WrapFilter only. Default: Notice is called.
	LeftOut func(sockets []string)
}

func (c *JoinConfig) byDescriptor() bool { return len(c.Descriptors) > 0 }

// wantsPort tells whether a listener on a port is chosen.
func (c *JoinConfig) wantsPort(port uint16) bool {
	return len(c.Ports) == 0 || slices.Contains(c.Ports, port)
}

// changes tells whether the capture may change what the process receives.
func (c *JoinConfig) changes() bool { return c.Verdict != nil || c.ReplaceFilter }

// check refuses what contradicts itself.
func (c *JoinConfig) check() error {
	switch {
	case c.WrapFilter && c.changes():
		return errors.New("joining processes: JoinConfig.WrapFilter goes with neither a Verdict nor ReplaceFilter")
	case c.UnixStreams && c.Expression != nil:
		return errors.New("joining processes: an Expression is about IP packets, and UnixStreams have none")
	case c.wants(ViewSelect):
		return fmt.Errorf("joining processes: the view %v is only of a reuseport group that the capture has opened", ViewSelect)
	}
	return c.Options.check()
}
