package doctor

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// The report's columns. Where there are few, the details stand below the names.
const (
	Columns      = 80
	fewColumns   = 64
	leastColumns = 40
	nameFrom     = len("  yes  ")
	nameWidth    = 20
)

// page lays out a report. The answers are words, so colour only adds emphasis.
type page struct {
	text    strings.Builder
	colour  bool
	columns int
}

// detailFrom is the column of the details.
func (p *page) detailFrom() int {
	if p.columns < fewColumns {
		return nameFrom
	}
	return nameFrom + nameWidth + 1
}

var marks = map[Answer]string{Yes: "yes", No: "no ", Unknown: "?  "}

// Text writes the report for people, within so many columns where words can be wrapped: at least 40, and at
// most Columns.
func (r Report) Text(w io.Writer, colour bool, columns int) error {
	p := &page{colour: colour, columns: min(max(columns, leastColumns), Columns)}
	p.kernel(r)
	p.process(r.Process)
	p.heading("Tried")
	for _, t := range r.Trials {
		p.row(t.Answer, t.Name, t.Detail, t.Answer == No)
	}
	p.heading("Tools, for looking at captures")
	for _, t := range r.Tools {
		p.row(t.Answer, t.Name, t.Detail, false)
	}
	p.row(r.Extcap.Answer, "extcap folder", r.Extcap.Detail, false)
	p.heading("Commands")
	for _, v := range r.Commands {
		p.row(v.Answer, v.Name(), v.Detail, v.Answer == No)
		if v.Mend != "" {
			p.wrap("-> ", v.Mend)
		}
	}
	_, err := io.WriteString(w, p.text.String())
	return err
}

func (p *page) kernel(r Report) {
	k := r.Kernel
	title := fmt.Sprintf("ebpfdump %s on Linux %s %s", terminal.Plain(r.Program), terminal.Plain(k.Release), terminal.Plain(k.Architecture))
	p.text.WriteString(strings.Join(terminal.Hang(title, p.columns), "\n") + "\n")
	p.heading("Kernel")
	p.row(k.BPF.Answer, "bpf(2)", k.BPF.Detail, k.BPF.Answer == No)
	for _, f := range groupFeatures(r.Features) {
		p.row(f.Answer, f.Kind, f.Name, f.Answer == No)
		if f.Detail != "" {
			p.wrap("", "("+f.Detail+")")
		}
	}
	p.row(k.BTF.Answer, "BTF", k.BTF.Detail, false)
	p.row(k.JIT.Answer, "JIT", k.JIT.Detail, false)
	p.row(k.UnprivilegedBPF.Answer, "unprivileged bpf(2)", k.UnprivilegedBPF.Detail, false)
	p.row(k.OwnProcesses.Answer, "one's own processes", k.OwnProcesses.Detail, false)
	p.row(r.Cgroup.Answer, "cgroup version 2", r.Cgroup.Detail, false)
	var paths []string
	for _, m := range r.Cgroup.Mounts {
		if m.Version == 1 {
			paths = append(paths, m.Path)
		}
	}
	if len(paths) > 0 {
		p.row(Yes, "cgroup version 1", strings.Join(paths, ", "), false)
	}
}

func (p *page) process(process Process) {
	p.heading(fmt.Sprintf("This process: uid %d, effective capabilities %s", process.UID, process.Effective))
	for _, c := range process.Capabilities {
		p.row(c.Held, c.Name, "for "+strings.Join(c.NeededFor, ", "), c.Held == No)
	}
	p.row(process.InitialUserNamespace.Answer, "first user namespace", process.InitialUserNamespace.Detail, false)
	p.row(process.Seccomp.Answer, "seccomp filter", process.Seccomp.Detail, false)
}

// groupFeatures merges the features of a kind that have the same answer.
func groupFeatures(features []Feature) []Feature {
	var groups []Feature
	for _, f := range features {
		i := slices.IndexFunc(groups, func(g Feature) bool { return g.Kind == f.Kind && g.Finding == f.Finding })
		if i < 0 {
			groups = append(groups, f)
			continue
		}
		groups[i].Name += ", " + f.Name
	}
	return groups
}

func (p *page) heading(text string) {
	fmt.Fprintf(&p.text, "\n%s\n", strings.Join(terminal.Hang(text, p.columns), "\n"))
}

// row writes an answer, red where it is bad news.
func (p *page) row(answer Answer, name, detail string, bad bool) {
	mark := marks[answer]
	if p.colour {
		number := 33 // yellow
		switch {
		case bad:
			number = 31
		case answer == Yes:
			number = 32
		}
		mark = fmt.Sprintf("\x1b[%dm%s\x1b[0m", number, mark)
	}
	line := fmt.Sprintf("  %s  %-*s", mark, nameWidth, terminal.Plain(name))
	if detail == "" {
		p.text.WriteString(strings.TrimRight(line, " ") + "\n")
		return
	}
	if p.columns < fewColumns || utf8.RuneCountInString(terminal.Plain(name)) > nameWidth {
		p.text.WriteString(strings.TrimRight(line, " ") + "\n" + strings.Repeat(" ", p.detailFrom()))
	} else {
		p.text.WriteString(line + " ")
	}
	p.lines("", detail)
}

// wrap writes lines in the column of the details, the first after a prefix.
func (p *page) wrap(prefix, text string) {
	p.text.WriteString(strings.Repeat(" ", p.detailFrom()) + prefix)
	p.lines(strings.Repeat(" ", len(prefix)), text)
}

// lines writes a text, wrapped within the column of the details.
func (p *page) lines(indent, text string) {
	room := p.columns - p.detailFrom() - len(indent)
	lines := terminal.Wrap(terminal.Plain(text), room, room)
	p.text.WriteString(strings.Join(lines, "\n"+strings.Repeat(" ", p.detailFrom())+indent) + "\n")
}
