package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

const (
	beginMark = "<!-- make bench-peers writes what follows -->"
	endMark   = "<!-- make bench-peers wrote what precedes -->"
)

// replaceBetweenMarks puts a table between the marks of a text; the rest stays.
func replaceBetweenMarks(text, table string) (string, error) {
	before, rest, ok := strings.Cut(text, beginMark)
	if !ok {
		return "", errors.New("it has no line " + beginMark)
	}
	_, after, ok := strings.Cut(rest, endMark)
	if !ok {
		return "", errors.New("it has no line " + endMark + " after the first mark")
	}
	return before + beginMark + "\n\n" + strings.TrimSpace(table) + "\n\n" + endMark + after, nil
}

// markdown is all tables.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s: %s, %d cores, Linux %s; %s. %d rounds.\n", r.Machine.Day, r.Machine.CPU, r.Machine.Cores,
		r.Machine.Kernel, strings.Join(r.Machine.Versions, ", "), r.Rounds)
	if r.Machine.noisy() {
		fmt.Fprintf(&b, "\n**The machine was not quiet**: %.2f of its %d cores were busy with something else before it began. "+
			"These figures show the form and prove nothing.\n", r.Machine.Background, r.Machine.Cores)
	} else {
		fmt.Fprintf(&b, "Before it began, %.3f cores were busy; that is taken off.\n", r.Machine.Background)
	}
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "\n%s\n", note)
	}
	b.WriteString(r.pictures(plotCost, plotRecorded))
	sockets := false
	for i := range r.Results {
		if r.Results[i].Sockets > 0 && !sockets {
			sockets = true
			b.WriteString(r.pictures(plotSockets))
		}
		r.Results[i].markdown(&b)
	}
	if len(r.Backlog) > 0 {
		r.backlogMarkdown(&b)
	}
	return b.String()
}

func (r *report) backlogMarkdown(b *strings.Builder) {
	b.WriteString("\n### Pairing beside a backlog\n\n" +
		"`go test -bench Backlog ./capture/internal/pair`: what one packet or read costs while so many others wait.\n")
	b.WriteString(r.pictures(plotBacklog))
	b.WriteString("\n| structure | waiting, at least | at most | ns beside the fewest | ns beside the most | the most of all |\n|---|--:|--:|--:|--:|--:|\n")
	for _, row := range r.Backlog {
		fewest, most := row.Points[0], row.Points[len(row.Points)-1]
		highest := slices.MaxFunc(row.Points, func(a, b point) int { return cmp.Compare(a.Y, b.Y) })
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s |\n", row.Name, grouped(int(fewest.X)), grouped(int(most.X)),
			nanoseconds(fewest.Y), nanoseconds(most.Y), nanoseconds(highest.Y))
	}
}

// pictures are links to those plots that have something in them.
func (r *report) pictures(names ...string) string {
	var b strings.Builder
	plots := r.plots()
	for _, name := range names {
		if p, ok := plots[name]; ok {
			fmt.Fprintf(&b, "\n![%s](%s)\n", p.title, name)
		}
	}
	return b.String()
}

func (r *result) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n### %s\n\n", r.Title)
	fmt.Fprintf(b, "%s of them in each turn", grouped(r.Count))
	for _, t := range tools {
		if runs := r.Runs[t.name]; t.few > 1 && len(runs) > 0 {
			fmt.Fprintf(b, ", %s for %s", grouped(runs[0].Sent), t.name)
		}
	}
	fmt.Fprintf(b, ".\n\n| who captures | ns for each %s | min..max | x tcpdump | x nobody | recorded | memory, MiB | sender's rate | aim |\n"+
		"|---|--:|--:|--:|--:|---|--:|--:|---|\n", r.Unit)
	for _, t := range tools {
		if len(r.Runs[t.name]) == 0 {
			continue
		}
		costs := r.all(t.name, cost)
		fmt.Fprintf(b, "| %s | %s | %s..%s | %s | %s |", t.name, nanoseconds(median(costs)), nanoseconds(slices.Min(costs)), nanoseconds(slices.Max(costs)),
			ratio(r.against(t.name, tcpdump, cost)), ratio(r.against(t.name, nobody, cost)))
		if t.command == nil {
			b.WriteString(" | | 1 | |\n")
			continue
		}
		fmt.Fprintf(b, " %s | %.0f | %s | %s |\n", r.recorded(t.name), median(r.all(t.name, memory))/(1<<20),
			ratio(r.against(t.name, nobody, rate)), r.aim(&t))
	}
}

func nanoseconds(x float64) string {
	if x < 0 {
		return "-" + nanoseconds(-x)
	}
	return grouped(int(math.Round(x)))
}

func ratio(ratios []float64) string {
	if len(ratios) == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", median(ratios))
}

// recorded says how much of what arrived is in the captures.
func (r *result) recorded(tool string) string {
	shares := r.all(tool, run.share)
	if r.lost(tool) == 0 {
		return "all"
	}
	return fmt.Sprintf("%s %% (%s..%s)", percent(median(shares)), percent(slices.Min(shares)), percent(slices.Max(shares)))
}

// percent never says 100 of what is less.
func percent(share float64) string {
	if share > 0.999 && share < 1 {
		return fmt.Sprintf("%.3f", math.Floor(share*1e5)/1e3)
	}
	return fmt.Sprintf("%.1f", math.Floor(share*1e3)/10)
}

// lost is how many packets were lost in the worst round.
func (r *result) lost(tool string) int {
	lost := 0
	for _, m := range r.Runs[tool] {
		lost = max(lost, m.Arrived-m.Recorded)
	}
	return lost
}

// aim says whether the project does what it aims at, and where not.
func (r *result) aim(t *tool) string {
	if !t.ours {
		return ""
	}
	var missed []string
	if most, asked := r.Costs[t.name]; asked {
		if is := median(r.against(t.name, tcpdump, cost)); is > most {
			missed = append(missed, fmt.Sprintf("cost %.2f, not %.2f", is, most))
		}
	}
	if lost := r.lost(t.name); r.Whole && lost > 0 {
		missed = append(missed, grouped(lost)+" lost, not 0")
	}
	if is := slices.Max(r.all(t.name, memory)); is > mostMemory {
		missed = append(missed, fmt.Sprintf("%.0f MiB, not %d", is/(1<<20), mostMemory>>20))
	}
	if len(missed) == 0 {
		return "met"
	}
	return "**not met**: " + strings.Join(missed, "; ")
}
