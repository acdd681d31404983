package doctor

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/capability"
	"github.com/ebpfdump/ebpfdump/internal/privilege"
)

// command is a command, or a form of one that needs more, with the trials that must have
// succeeded for it.
type command struct {
	name         string
	form         string
	capabilities []capability.Cap // of this row alone
	all          []capability.Cap // with those of the rows that it builds on
	needs        []string
}

// trialsOf are the trials that show whether a capability has the effect that it is needed
// for.
var trialsOf = map[capability.Cap][]string{
	unix.CAP_BPF:              {TapLoads, TapRecords},
	unix.CAP_NET_RAW:          {RawSocket, PacketSocket},
	unix.CAP_SYS_ADMIN:        {NetworkNamespace},
	unix.CAP_NET_ADMIN:        {NetlinkMessage},
	unix.CAP_NET_BIND_SERVICE: {LowPort},
	unix.CAP_PERFMON:          {SystemCalls},
	unix.CAP_SYS_PTRACE:       {OtherProcess},
	unix.CAP_DAC_READ_SEARCH:  {OtherDescriptors},
	unix.CAP_SETUID:           {OtherUser},
	unix.CAP_SETGID:           {OtherUser},
}

// without has the trials of a row's capabilities that do not matter for the row, and
// alsoNeeds further ones that do.
var (
	without = map[string][]string{
		"capture --sock raw":    {PacketSocket},
		"capture --sock packet": {RawSocket},
		"capture --view wire":   {RawSocket},
		"list --pid PID":        {TapRecords},
		"replay":                {TapRecords},
	}
	alsoNeeds = map[string][]string{
		"capture --view cgroup":           {CgroupHook},
		"capture --view drop":             {KernelDrops},
		"capture --pid PID":               {CgroupHook},
		"capture --wrap-filter --pid PID": {CgroupHook, BPFFileSystem},
		"capture --replace-filter":        {CgroupHook},
		"capture -- COMMAND":              {CgroupHook},
		"list":                            {ownProcesses},
		"capture --user USER -- COMMAND":  {CgroupHook},
	}
)

// commands has a row for each command, followed by those for its forms.
var commands = makeCommands()

func makeCommands() []command {
	var rows []command
	for _, r := range privilege.Requirements() {
		row := command{name: r.Command, form: r.Form, capabilities: r.Needs, all: r.Example.Needs()}
		name := Verdict{Command: r.Command, Form: r.Form}.Name()
		for _, c := range row.all {
			for _, trial := range trialsOf[c] {
				if !slices.Contains(without[name], trial) && !slices.Contains(row.needs, trial) {
					row.needs = append(row.needs, trial)
				}
			}
		}
		row.needs = append(row.needs, alsoNeeds[name]...)
		rows = append(rows, row)
	}
	return rows
}

// Commands lists the commands that a report judges.
func Commands() []string {
	var names []string
	for _, c := range commands {
		if c.form == "" {
			names = append(names, c.name)
		}
	}
	return names
}

// neededFor lists the commands that need a capability. A form is left out where its command needs it already.
func neededFor(needed capability.Cap) []string {
	var names []string
	for _, c := range commands {
		if slices.Contains(c.capabilities, needed) && !slices.Contains(names, c.name) {
			names = append(names, Verdict{Command: c.name, Form: c.form}.Name())
		}
	}
	return names
}

// Diagnose judges the commands by the facts. program is the version of ebpfdump.
func Diagnose(m Machine, program string) Report {
	r := Report{Version: Version, Program: program, Works: true, Machine: m}
	for _, c := range commands {
		v := judge(m, c)
		r.Commands = append(r.Commands, v)
		if v.Form == "" && v.Answer != Yes {
			r.Works = false
		}
	}
	return r
}

// judge gives the one step that makes a command work. What no capability fixes comes
// first, since capabilities alone would not help; missing capabilities are named
// together.
func judge(m Machine, c command) Verdict {
	v := Verdict{Command: c.name, Form: c.form, Finding: Finding{Answer: Yes}}
	var lacking []string
	for _, name := range c.needs {
		t := m.trial(name)
		switch {
		case t.Answer == Yes || v.Answer == No:
		case t.Lacks == "":
			v.Answer, v.Detail, v.Mend = t.Answer, t.Detail, t.Mend
		default:
			lacking = m.addLacking(lacking, c, t)
		}
	}
	if v.Answer != No && len(lacking) > 0 {
		v.Answer = No
		v.Detail = "needs " + strings.Join(lacking, ", ")
		if m.Process.nested {
			v.Detail += " outside of this user namespace"
		}
		v.Mend = privilege.Hint(capability.Privilege{UID: m.Process.UID, Nested: m.Process.nested}, privilege.Names(c.all, lacking...)...)
	}
	return v
}

// addLacking adds the capabilities for want of which a trial failed. The trial itself tells
// of the first one only.
func (m Machine) addLacking(lacking []string, c command, t Trial) []string {
	names := []string{t.Lacks}
	for _, needed := range c.all {
		if slices.Contains(trialsOf[needed], t.Name) && !m.Process.holds(needed) {
			names = append(names, needed.String())
		}
	}
	for _, name := range names {
		if !slices.Contains(lacking, name) {
			lacking = append(lacking, name)
		}
	}
	return lacking
}

func (p Process) holds(c capability.Cap) bool {
	return slices.ContainsFunc(p.Capabilities, func(held Capability) bool { return held.Name == c.String() && held.Held == Yes })
}

// ownProcesses stands for a trial of copying sockets of one's own processes, which can only be
// inferred: there may be none but those that the kernel refuses for other reasons.
const ownProcesses = "own processes"

// trialOfOwn infers it from the setting.
func (m Machine) trialOfOwn() Trial {
	t := Trial{Name: ownProcesses, Finding: m.Kernel.OwnProcesses}
	switch {
	case t.Answer == "":
		t.Answer = Unknown
	case t.Answer != No:
	case m.Kernel.noCopies:
		t.Mend = "boot with another kernel.yama.ptrace_scope"
	case m.Process.holds(unix.CAP_SYS_PTRACE):
		t.Answer = Yes
	default:
		t.Lacks = capability.Cap(unix.CAP_SYS_PTRACE).String()
	}
	return t
}

// trial finds a trial by name; one that was not run is unknown.
func (m Machine) trial(name string) Trial {
	if name == ownProcesses {
		return m.trialOfOwn()
	}
	for _, t := range m.Trials {
		if t.Name == name {
			return t
		}
	}
	return Trial{Name: name, Finding: Finding{Unknown, "not tried: " + name}}
}
