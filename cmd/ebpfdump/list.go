package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/privilege"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// listFlags are the flags of list as given.
type listFlags struct {
	live         liveFlags
	kinds        []string
	instructions bool
	json         bool
}

func (a *app) listCommand() *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use:   "list [--pid PID | --cgroup PATH]",
		Short: "List sockets, and what is on each",
		Long: `Lists the sockets of processes, of a cgroup or, without either, of the machine:
descriptor, kind, state, cookie, addresses and owners, and below each what is
on it: a classic or eBPF filter, a reuseport group and its program, sockmaps,
kTLS, the state of MPTCP, another network namespace. A socket of several
processes is listed once, with all of them that were looked into.

Nothing is changed. What cannot be looked at, mostly for want of a privilege, is
said at the end, and the rest is listed. Of a long list of descriptors the
table has the first ones, --json all.

With --json, each socket is one line, a JSON object with these fields, those
that say nothing left out:
  kind, family, type, protocol   as above, and the numbers of socket(2)
  state                          as ss names it; of others than TCP and MPTCP
                                 "listen" or "estab"
  cookie, inode                  the kernel's numbers of the socket
  network_namespace              its inode
  local, local_port, peer, peer_port
                                 unix: a path, or @ and an abstract name
  owners                         pid, name, descriptors of each
  classic_filter                 instructions as tcpdump -ddd prints them
  ebpf_filter                    id, name, loaded; {} if it is not known which
                                 if it is the tap of a capture, tap: ended, pid
                                 of the capture, wraps (a filter is inside),
                                 inside (id, name, loaded of that)
  filter_locked                  true: its owner has locked it (SO_LOCK_FILTER)
  reuseport                      sockets of the group; ebpf_program or
                                 classic_program if one chooses among them
  sockmaps                       id, name of each
  ulp                            upper layer protocol, "tls" is kTLS
  mptcp                          subflows besides the first, fallback to TCP

` + privilegeHelp("list") + `
"--pid PID" is a process of another user, with all that is on its sockets.
Where kernel.yama.ptrace_scope is not 0, those of one's own need CAP_SYS_PTRACE.

Exit status: 0 listed; 4 no process may be looked into.`,
		Example: `  ebpfdump list --pid nginx
  ebpfdump list --pid 1234 --fd 3 --instructions
  ebpfdump list --cgroup system.slice/ssh.service
  ebpfdump list --json | jq 'select(.ebpf_filter)'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.list(cmd, f) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.VarP(processNames{&f.live.pids}, "pid", "p", "list the sockets of process `PID`, or of all that are called so")
	flags.StringVar(&f.live.cgroup, "cgroup", "", "list those of the cgroup `PATH`, a folder or a path in the cgroup2 file system")
	flags.IntSliceVar(&f.live.fds, "fd", nil, "with --pid: only the socket that is descriptor `N` of the process")
	flags.IntSliceVar(&f.live.ports, "port", nil, "only sockets whose own or peer's port is `P`")
	flags.StringSliceVar(&f.kinds, "sock", nil, "only sockets of this `KIND`, as capture --sock and this list name them")
	flags.BoolVar(&f.instructions, "instructions", false, "print classic filters as tcpdump -ddd does, which --filter-cbpf takes")
	flags.BoolVar(&f.json, "json", false, "print a JSON object for each socket, of a form that stays the same")
	completeSelection(cmd, &f.live)
	return cmd
}

// config checks the flags.
func (f *listFlags) config(cmd *cobra.Command) (config capture.InventoryConfig, err error) {
	pid, cgroup := cmd.Flags().Changed("pid"), cmd.Flags().Changed("cgroup")
	switch {
	case pid && cgroup:
		return config, usagef("sockets of processes (--pid), or of a cgroup (--cgroup): not both")
	case f.json && f.instructions:
		return config, usagef("--json has the instructions without --instructions: leave that out")
	case !pid && len(f.live.fds) > 0:
		return config, usagef("--fd is for --pid: every process has a descriptor of that number")
	}
	for _, kind := range f.kinds {
		if !capture.IsKindName(kind) {
			return config, usagef("there is no kind of socket %q: choose some of %s, or a family and type such as alg-seqpacket", kind, kindNames())
		}
	}
	config = capture.InventoryConfig{Cgroup: f.live.cgroup, Descriptors: f.live.fds, Kinds: f.kinds}
	if config.Ports, err = f.live.numbers(); err != nil {
		return config, err
	}
	config.PIDs, err = f.live.processes()
	return config, err
}

func (a *app) list(cmd *cobra.Command, f listFlags) error {
	config, err := f.config(cmd)
	if err != nil {
		return err
	}
	use := privilege.Use{Command: "list", Join: true}
	all, err := capture.TakeInventory(config)
	if err != nil {
		return use.Advise(pointToList(err, config.PIDs))
	}
	if f.json {
		err = writeListJSON(a.stdout, all.Sockets)
	} else {
		err = writeListTable(a.stdout, all.Sockets, f.instructions)
	}
	if err != nil {
		return fmt.Errorf("writing the list: %w", err)
	}
	if len(all.Sockets) == 0 {
		a.stderr.Line("ebpfdump: there is no such socket")
	}
	if all.Denied > 0 {
		a.stderr.Line("ebpfdump: the sockets of %s are missing: %v", plural(all.Denied, "process", "processes"), use.Advise(all.Denial))
	}
	if all.Hidden != nil {
		a.stderr.Line("ebpfdump: sockets of further processes may be missing: %v", use.Advise(all.Hidden))
	}
	if all.Unattached != nil {
		a.stderr.Line("ebpfdump: %v", use.Advise(all.Unattached))
	}
	return nil
}

// pointToList says where descriptors of sockets are shown, if an error is about one that is
// none.
func pointToList(err error, pids []int) error {
	var none *capture.DescriptorError
	if !errors.As(err, &none) || len(pids) != 1 {
		return err
	}
	return fmt.Errorf("%w: ebpfdump list --pid %d shows those that are", err, pids[0])
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// socketAddress is a socket's address and its peer's, for people.
func socketAddress(s *capture.Socket) string {
	local, peer := s.Local.String(), s.Peer.String()
	if inet := s.Family == unix.AF_INET || s.Family == unix.AF_INET6; inet && s.Type == unix.SOCK_RAW {
		local += fmt.Sprintf(" protocol %d", s.Protocol)
	}
	switch {
	case peer == "":
		return local
	case local == "":
		return "> " + peer
	}
	return local + " > " + peer
}

// socketNotes are the lines about what is on a socket.
func socketNotes(s *capture.Socket, instructions bool) []string {
	var all []string
	note := func(classic []unix.SockFilter, format string, args ...any) {
		all = append(all, fmt.Sprintf(format, args...))
		if instructions {
			for _, line := range bpf.ClassicText(classic) {
				all = append(all, "  "+line)
			}
		}
	}
	locked := ""
	if s.Locked {
		locked = ", locked (SO_LOCK_FILTER)"
	}
	switch {
	case len(s.Classic) > 0:
		note(s.Classic, "classic filter of %s%s", plural(len(s.Classic), "instruction", "instructions"), locked)
	case s.Extended:
		note(nil, "eBPF filter%s%s", programText(s.Filter), locked)
		if s.Tap != nil {
			note(nil, "  %s", tapText(s.Tap))
		}
	case s.Locked:
		note(nil, "no filter%s", locked)
	}
	if s.ReuseportSockets > 0 {
		program := ""
		switch {
		case s.Reuseport.ID != 0:
			program = ", one chosen by program" + programText(s.Reuseport)
		case len(s.ReuseportClassic) > 0:
			program = ", one chosen by a classic program of " + plural(len(s.ReuseportClassic), "instruction", "instructions")
		}
		note(s.ReuseportClassic, "reuseport group of %s%s", plural(s.ReuseportSockets, "socket", "sockets"), program)
	}
	for _, m := range s.Sockmaps {
		note(nil, "in sockmap %d%s", m.ID, inParentheses(m.Name))
	}
	switch {
	case s.ULP == "tls":
		note(nil, "kTLS")
	case s.ULP != "":
		note(nil, "upper layer protocol %s", terminal.Plain(s.ULP))
	}
	switch {
	case s.MPTCP == nil:
	case s.MPTCP.Fallback:
		note(nil, "fell back to TCP")
	case s.MPTCP.Subflows == 0:
		note(nil, "the first subflow only")
	default:
		note(nil, "%s", plural(s.MPTCP.Subflows, "more subflow", "more subflows"))
	}
	if s.Elsewhere && s.Network != 0 {
		note(nil, "network namespace %d", s.Network)
	}
	return all
}

// programText tells which program, if that is known.
func programText(p capture.Program) string {
	if p.ID == 0 {
		return ""
	}
	return fmt.Sprintf(" %d%s, loaded %s", p.ID, inParentheses(p.Name), p.Loaded.Format("2006-01-02 15:04:05"))
}

// tapText says whose tap it is.
func tapText(t *capture.SocketTap) string {
	text := "the tap of another ebpfdump"
	switch {
	case t.Ended:
		text = "the tap of a capture that has ended"
	case t.PID != 0:
		text = fmt.Sprintf("the tap of a capture, process %d", t.PID)
	}
	switch {
	case t.Inside.ID != 0:
		text += ", with eBPF filter" + programText(t.Inside) + " inside"
	case t.Wraps:
		text += ", with a classic filter inside"
	case t.Ended:
		text += ": it lets everything through"
	}
	return text
}

func inParentheses(name string) string {
	if name == "" {
		return ""
	}
	return " (" + terminal.Plain(name) + ")"
}

// ownerGroup is owners of a name that have a socket by the same descriptors.
type ownerGroup struct {
	descriptors []int
	name        string
	pids        []string
}

func (g *ownerGroup) String() string {
	return terminal.Plain(g.name) + " " + strings.Join(g.pids, ", ")
}

func ownerGroups(owners []capture.Owner) []ownerGroup {
	var all []ownerGroup
	for _, o := range owners {
		pid := fmt.Sprint(o.PID)
		at := slices.IndexFunc(all, func(g ownerGroup) bool { return g.name == o.Name && slices.Equal(g.descriptors, o.Descriptors) })
		if at < 0 {
			all = append(all, ownerGroup{o.Descriptors, o.Name, []string{pid}})
			continue
		}
		all[at].pids = append(all[at].pids, pid)
	}
	return all
}

// ranges lists ascending numbers: 3-5,9. If that takes more than so many columns, only the first
// ones are there: 3-5,9,...
func ranges(numbers []int, room int) string {
	const more = ",..."
	text, short := "", "" // short leaves room for more
	for i := 0; i < len(numbers); {
		end := i
		for end+1 < len(numbers) && numbers[end+1] == numbers[end]+1 {
			end++
		}
		if i > 0 {
			text += ","
		}
		text += strconv.Itoa(numbers[i])
		if end > i {
			text += "-" + strconv.Itoa(numbers[end])
		}
		if len(text) > room {
			return cmp.Or(short, strconv.Itoa(numbers[0])) + more
		}
		if len(text)+len(more) <= room {
			short = text
		}
		i = end + 1
	}
	return text
}
