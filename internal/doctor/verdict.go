package doctor

import (
	"slices"
	"strings"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// command is a command, or a form of one that needs more, and the trials that
// must have gone well for it.
type command struct {
	name  string
	form  string
	needs []string
}

// commands has a row for each command, followed by those for its forms.
var commands = []command{
	{name: "capture", needs: []string{TapLoads, TapRecords}},
	{name: "capture", form: "--sock raw", needs: []string{TapLoads, TapRecords, RawSocket}},
	{name: "capture", form: "--isolate", needs: []string{TapLoads, TapRecords, NetworkNamespace}},
	{name: "capture", form: "-l ADDR:80", needs: []string{TapLoads, TapRecords, LowPort}},
	{name: "capture", form: "--pid PID", needs: []string{TapLoads, TapRecords, SystemCalls, OtherProcess, OtherDescriptors}},
	{name: "capture", form: "-- COMMAND", needs: []string{TapLoads, TapRecords, SystemCalls, HeldCommand}},
	{name: "replay", needs: []string{TapLoads}},
	{name: "convert"},
	{name: "survey", needs: []string{TapLoads, TapRecords, RawSocket, PacketSocket, NetworkNamespace}},
	{name: "explain"},
	{name: "doctor"},
}

// Commands lists the commands that a report has a verdict on.
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
func neededFor(capability string) []string {
	var names []string
	for _, c := range commands {
		needs := slices.ContainsFunc(c.needs, func(name string) bool { return capabilityOf(name) == capability })
		if needs && !slices.Contains(names, c.name) {
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

// judge names the one step that mends a command. What no capability mends comes
// first, as capabilities alone would not help; those are named together.
func judge(m Machine, c command) Verdict {
	v := Verdict{Command: c.name, Form: c.form, Finding: Finding{Answer: Yes}}
	var lacking []string
	for _, name := range c.needs {
		t := m.trial(name)
		switch {
		case t.Answer == Yes || v.Answer == No:
		case t.Lacks == "":
			v.Answer, v.Detail, v.Mend = t.Answer, t.Detail, t.Mend
		case !slices.Contains(lacking, t.Lacks):
			lacking = append(lacking, t.Lacks)
		}
	}
	if v.Answer != No && len(lacking) > 0 {
		privilege := bpf.Privilege{UID: m.Process.UID, Nested: m.Process.nested}
		v.Answer = No
		v.Detail = "needs " + strings.Join(lacking, ", ")
		if m.Process.nested {
			v.Detail += " outside of this user namespace"
		}
		v.Mend = privilege.Hint(lacking...)
	}
	return v
}

// trial finds a trial; one that was not made is unknown.
func (m Machine) trial(name string) Trial {
	for _, t := range m.Trials {
		if t.Name == name {
			return t
		}
	}
	return Trial{Name: name, Finding: Finding{Unknown, "not tried: " + name}}
}
