// Package privilege is the table of the capabilities that each use of ebpfdump needs to
// start. Hints, the doctor and tests are derived from it. Which of them a capture still
// needs once it is set up is up to the capture itself, which drops the rest: see
// Capabilities in package capture.
package privilege

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/capability"
)

// Requirement is what a command needs, or what a form of it needs in addition.
type Requirement struct {
	// Command is the command's name.
	Command string
	// Form is empty for the command itself; otherwise it has the flags that select it.
	Form string
	// Needs are the capabilities that are required.
	Needs []capability.Cap

	applies func(Use) bool
}

// Use is what a user wants to do.
type Use struct {
	// Command is the command's name.
	Command string
	// Kind is the kind of socket that --sock names.
	Kind string
	// Probe, Isolate, LowPort: the flags, and a port below 1024.
	Probe, Isolate, LowPort bool
	// Join is --pid with a process of another user or with more privileges, Run is --
	// COMMAND.
	Join, Run bool
	// OtherUser: is the command to run as another user?
	OtherUser bool
}

// table has the row of each command before those of its forms.
var table = []Requirement{
	{Command: "capture", Needs: caps(unix.CAP_BPF)},
	{Command: "capture", Form: "--sock raw", Needs: caps(unix.CAP_NET_RAW), // its probe
		applies: func(u Use) bool { return u.Kind == "raw" || u.Kind == "raw6" }},
	{Command: "capture", Form: "--sock packet", Needs: caps(unix.CAP_NET_RAW),
		applies: func(u Use) bool { return u.Kind == "packet" || u.Kind == "packet-dgram" }},
	{Command: "capture", Form: "--sock netlink --probe", Needs: caps(unix.CAP_NET_ADMIN),
		applies: func(u Use) bool { return u.Kind == "netlink" && u.Probe }},
	{Command: "capture", Form: "--isolate", Needs: caps(unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN),
		applies: func(u Use) bool { return u.Isolate }},
	{Command: "capture", Form: "-l ADDR:80", Needs: caps(unix.CAP_NET_BIND_SERVICE),
		applies: func(u Use) bool { return u.LowPort }},
	{Command: "capture", Form: "--pid PID", Needs: caps(unix.CAP_PERFMON, unix.CAP_NET_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH),
		applies: func(u Use) bool { return u.Join }},
	{Command: "capture", Form: "-- COMMAND", Needs: caps(unix.CAP_PERFMON, unix.CAP_NET_ADMIN),
		applies: func(u Use) bool { return u.Run }},
	{Command: "capture", Form: "--user USER -- COMMAND",
		Needs:   caps(unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH),
		applies: func(u Use) bool { return u.Run && u.OtherUser }},
	{Command: "replay", Needs: caps(unix.CAP_BPF)}, // for a long packet it loads a tap
	{Command: "convert"},
	{Command: "survey", Needs: caps(unix.CAP_BPF, unix.CAP_NET_RAW, unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN)},
	{Command: "explain"},
	{Command: "doctor"},
}

func caps(list ...capability.Cap) []capability.Cap { return list }

// Requirements lists the table's rows: each command, followed by its forms.
func Requirements() []Requirement { return slices.Clone(table) }

// Needs lists everything that a use needs.
func (u Use) Needs() []capability.Cap {
	var all []capability.Cap
	for _, r := range table {
		if r.Command != u.Command || r.applies != nil && !r.applies(u) {
			continue
		}
		for _, c := range r.Needs {
			if !slices.Contains(all, c) {
				all = append(all, c)
			}
		}
	}
	return all
}

// Advise changes the hint of an error about a missing capability to name everything that
// the use needs and the process lacks, so that one step is enough.
func (u Use) Advise(err error) error {
	var missing *bpf.MissingError
	if !errors.As(err, &missing) || missing.Capability == "" {
		return err
	}
	missing.Hint = u.hint(capability.CurrentPrivilege(), missing.Capability)
	return err
}

// Hint is the step that gives ebpfdump capabilities that it lacks. setcap replaces those
// of the file, so the hint includes the usual ones.
func Hint(p capability.Privilege, lacking ...string) string {
	return p.HintFor("ebpfdump", []string{"CAP_BPF", "CAP_NET_RAW"}, lacking...)
}

func (u Use) hint(p capability.Privilege, missing string) string {
	lacking := []string{missing}
	for _, c := range u.Needs() {
		if name := c.String(); !p.Has(int(c)) && name != missing {
			lacking = append(lacking, name)
		}
	}
	return Hint(p, lacking...)
}
