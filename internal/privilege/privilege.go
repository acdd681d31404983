// Package privilege is the table of the capabilities that each use of ebpfdump needs to
// start. Hints, the doctor and tests are derived from it. Which of them a capture still
// needs once it is set up is up to the capture itself, which drops the rest: see
// Capabilities in package capture.
package privilege

import (
	"errors"
	"slices"
	"strings"

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
	// Example is a use of the form. What it needs is what the row needs together with
	// those that it builds on.
	Example Use

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
	// Hooks is --view cgroup of a socket that is opened, or --hooks of survey, and Drops --view drop.
	Hooks, Drops bool
	// Wire is --view wire.
	Wire bool
	// Selects is --reuseport-filter with the view select.
	Selects bool
	// Join is --pid with a process of another user or with more privileges, all of whose sockets
	// are to be seen; Run is -- COMMAND.
	Join, Run bool
	// WrapFilter, ReplaceFilter: the flags, with an eBPF filter on a socket.
	WrapFilter, ReplaceFilter bool
	// OtherUser: is the command to run as another user?
	OtherUser bool
}

// table has the row of each command before those of its forms.
var table = []Requirement{
	{Command: "capture", Needs: caps(unix.CAP_BPF), Example: Use{Command: "capture"}},
	{Command: "capture", Form: "--sock raw", Needs: caps(unix.CAP_NET_RAW), // its probe
		Example: Use{Command: "capture", Kind: "raw"},
		applies: func(u Use) bool { return u.Kind == "raw" || u.Kind == "raw6" }},
	{Command: "capture", Form: "--sock packet", Needs: caps(unix.CAP_NET_RAW),
		Example: Use{Command: "capture", Kind: "packet"},
		applies: func(u Use) bool { return u.Kind == "packet" || u.Kind == "packet-dgram" }},
	{Command: "capture", Form: "--sock netlink --probe", Needs: caps(unix.CAP_NET_ADMIN),
		Example: Use{Command: "capture", Kind: "netlink", Probe: true},
		applies: func(u Use) bool { return u.Kind == "netlink" && u.Probe }},
	{Command: "capture", Form: "--isolate", Needs: caps(unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN),
		Example: Use{Command: "capture", Isolate: true},
		applies: func(u Use) bool { return u.Isolate }},
	{Command: "capture", Form: "-l ADDR:80", Needs: caps(unix.CAP_NET_BIND_SERVICE),
		Example: Use{Command: "capture", LowPort: true},
		applies: func(u Use) bool { return u.LowPort }},
	{Command: "capture", Form: "--view cgroup", Needs: caps(unix.CAP_PERFMON, unix.CAP_NET_ADMIN),
		Example: Use{Command: "capture", Hooks: true},
		applies: func(u Use) bool { return u.Hooks }},
	{Command: "capture", Form: "--view drop", Needs: caps(unix.CAP_PERFMON),
		Example: Use{Command: "capture", Drops: true},
		applies: func(u Use) bool { return u.Drops }},
	{Command: "capture", Form: "--view wire", Needs: caps(unix.CAP_PERFMON, unix.CAP_NET_RAW),
		Example: Use{Command: "capture", Wire: true},
		applies: func(u Use) bool { return u.Wire }},
	{Command: "capture", Form: "--reuseport-filter FILE", Needs: caps(unix.CAP_PERFMON),
		Example: Use{Command: "capture", Selects: true},
		applies: func(u Use) bool { return u.Selects }},
	{Command: "capture", Form: "--pid PID", Needs: caps(unix.CAP_PERFMON, unix.CAP_NET_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH),
		Example: Use{Command: "capture", Join: true},
		applies: func(u Use) bool { return u.Join }},
	{Command: "capture", Form: "-- COMMAND", Needs: caps(unix.CAP_PERFMON, unix.CAP_NET_ADMIN),
		Example: Use{Command: "capture", Run: true},
		applies: func(u Use) bool { return u.Run }},
	{Command: "capture", Form: "--wrap-filter --pid PID", Needs: caps(unix.CAP_SYS_ADMIN),
		Example: Use{Command: "capture", Join: true, WrapFilter: true},
		applies: func(u Use) bool { return u.WrapFilter }},
	{Command: "capture", Form: "--replace-filter", Needs: caps(unix.CAP_SYS_ADMIN),
		Example: Use{Command: "capture", Join: true, ReplaceFilter: true},
		applies: func(u Use) bool { return u.ReplaceFilter }},
	{Command: "capture", Form: "--user USER -- COMMAND",
		Needs:   caps(unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH),
		Example: Use{Command: "capture", Run: true, OtherUser: true},
		applies: func(u Use) bool { return u.Run && u.OtherUser }},
	{Command: "list", Example: Use{Command: "list"}},
	{Command: "list", Form: "--pid PID", Needs: caps(unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH),
		Example: Use{Command: "list", Join: true},
		applies: func(u Use) bool { return u.Join }},
	{Command: "replay", Needs: caps(unix.CAP_BPF), Example: Use{Command: "replay"}}, // for a long packet it loads a tap
	{Command: "convert", Example: Use{Command: "convert"}},
	{Command: "survey", Needs: caps(unix.CAP_BPF, unix.CAP_NET_RAW, unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN), Example: Use{Command: "survey"}},
	{Command: "survey", Form: "--hooks", Needs: caps(unix.CAP_PERFMON),
		Example: Use{Command: "survey", Hooks: true},
		applies: func(u Use) bool { return u.Hooks }},
	{Command: "explain", Example: Use{Command: "explain"}},
	{Command: "extcap", Example: Use{Command: "extcap"}}, // what it captures is capture's
	{Command: "wireshark", Example: Use{Command: "wireshark"}},
	{Command: "doctor", Example: Use{Command: "doctor"}},
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
// the use needs, so that one step is enough.
func (u Use) Advise(err error) error {
	var missing *bpf.MissingError
	if !errors.As(err, &missing) || missing.Capability == "" {
		return err
	}
	text, before := err.Error(), missing.Error()
	missing.Hint = u.hint(capability.CurrentPrivilege(), missing.Capability)
	if err.Error() == text { // an error around it, which has made its text already
		return &advised{strings.Replace(text, before, missing.Error(), 1), err}
	}
	return err
}

// advised is an error with another text.
type advised struct {
	text string
	err  error
}

func (a *advised) Error() string { return a.text }
func (a *advised) Unwrap() error { return a.err }

// usual are the capabilities that REFERENCE.md gives ebpfdump's file.
var usual = []string{"CAP_BPF", "CAP_NET_RAW"}

// Hint is the step that gives ebpfdump all that it needs for a use, of which it lacks some.
// setcap replaces the capabilities of the file, so the hint includes the usual ones.
func Hint(p capability.Privilege, needs ...string) string {
	return p.HintFor("ebpfdump", usual, needs...)
}

// HintToAdd is the step that gives ebpfdump further capabilities, whatever they are for:
// it keeps those that it has.
func HintToAdd(p capability.Privilege, lacking ...string) string {
	keep := slices.Clone(usual)
	for _, name := range p.Names() {
		if !slices.Contains(keep, name) {
			keep = append(keep, name)
		}
	}
	return p.HintFor("ebpfdump", keep, lacking...)
}

// hint is for a use that lacks a capability, which may be one that the table does not
// know of, such as that for a helper of the filter. Where the step does not name what
// else is lacking, it says so.
func (u Use) hint(p capability.Privilege, missing string) string {
	hint := Hint(p, Names(u.Needs(), missing)...)
	if p.Nested {
		return hint // within the namespace it may have them all
	}
	var others []string
	for _, name := range u.Lacking(p) {
		short := strings.TrimPrefix(name, "CAP_")
		if name != missing && !strings.Contains(strings.ToUpper(hint), short) {
			others = append(others, name)
		}
	}
	switch last := len(others) - 1; {
	case last == 0:
		hint += ", since " + others[0] + " is lacking as well"
	case last > 0:
		hint += ", since " + strings.Join(others[:last], ", ") + " and " + others[last] + " are lacking as well"
	}
	return hint
}

// Lacking lists the names of what a use needs and a privilege has not.
func (u Use) Lacking(p capability.Privilege) []string {
	var names []string
	for _, c := range u.Needs() {
		if !p.Has(int(c)) {
			names = append(names, c.String())
		}
	}
	return names
}

// Names lists the names of what a use needs, and further ones that turned out to be
// missing.
func Names(needs []capability.Cap, missing ...string) []string {
	var all []string
	for _, c := range needs {
		all = append(all, c.String())
	}
	for _, name := range missing {
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}
