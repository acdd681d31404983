package survey

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// socket is what a program at a hook sees as if it were the socket's filter, for what is told of both
// in the same way.
func (s *HookSocket) socket() *Socket {
	return &Socket{
		Name: s.Name, Status: s.Status, Reason: s.Reason, Headers: s.Headers, Offset0: s.Offset0, Exchange: s.Exchange,
		Below: &Below{RelativeNet: s.Net, RelativeLink: s.Link}, Verdicts: s.Verdicts,
	}
}

// statusText describes a socket for which the program never ran.
func (s *HookSocket) statusText() string {
	switch s.Status {
	case Unfiltered:
		return "the program never runs"
	case Unprobed:
		return "could not be probed (" + s.Reason + ")"
	case Refused:
		return "takes no program (" + s.Reason + ")"
	case Absent:
		return "not on this kernel (" + s.Reason + ")"
	}
	return ""
}

// seesCell tells in which direction the packets go that the program sees, or names them if it does
// not see all of a direction.
func (s *HookSocket) seesCell() string {
	var seen, missed []Exchanged
	for _, x := range s.Exchange {
		if x.Filter == "all" {
			seen = append(seen, x)
		} else {
			missed = append(missed, x)
		}
	}
	to := func(end string) func(Exchanged) bool { return func(x Exchanged) bool { return x.To == end } }
	in, out := slices.ContainsFunc(seen, to(toSocket)), slices.ContainsFunc(seen, to(toPeer))
	whole := (!in || !slices.ContainsFunc(missed, to(toSocket))) && (!out || !slices.ContainsFunc(missed, to(toPeer)))
	switch {
	case s.Offset0 == theEnd:
		return "some"
	case len(s.Exchange) == 0:
		return "in"
	case whole && in && out:
		return "in, out"
	case whole && in:
		return "in"
	case whole && out:
		return "out"
	case len(seen) == 0:
		return "some"
	case len(missed) == 0:
		return "all"
	}
	var names []string
	for _, x := range seen {
		if !slices.Contains(names, x.Packet) {
			names = append(names, x.Packet)
		}
	}
	return strings.Join(names, ", ")
}

// directCell tells what is between data and data_end.
func (s *HookSocket) directCell() string {
	switch l := s.Linear; {
	case l == nil:
		return "-"
	case !l.Same:
		return "other"
	case l.Part < 0 && l.Whole:
		return "all"
	case l.Part < 0:
		return "part"
	default:
		return strconv.Itoa(l.Part)
	}
}

// effectCell says in a word what a returned number does, against the number that lets pass.
func (h *Hook) effectCell(s *HookSocket, number int) string {
	if !slices.Contains(h.Returns, number) {
		return "refused"
	}
	o, ok := s.socket().outcome(number)
	best := o
	for _, other := range s.Verdicts {
		if other.Messages > best.Messages || other.Messages == best.Messages && other.Bytes > best.Bytes ||
			other.Probe == "ok" && best.Probe != "ok" && other.Bytes == best.Bytes {
			best = other
		}
	}
	switch {
	case !ok:
		return ""
	case o.Messages == best.Messages && o.Bytes == best.Bytes && o.Probe == best.Probe:
		return "kept"
	case o.Messages == 0, o.Bytes == best.Bytes:
		return "dropped"
	case o.Messages == best.Messages:
		return "cut"
	}
	return "mixed"
}

// allows tells which numbers the verifier lets a program return.
func (h *Hook) allows() string {
	var may, refused []string
	for _, number := range tried {
		if slices.Contains(h.Returns, number) {
			may = append(may, strconv.Itoa(number))
		} else {
			refused = append(refused, strconv.Itoa(number))
		}
	}
	text := strings.Join(may, ", ")
	if len(refused) > 0 {
		text += " (not " + strings.Join(refused, ", ") + ")"
	}
	return text
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

// hookColumns are the columns of a hook's table on a terminal.
var hookColumns = []struct {
	title string
	width int
	cell  func(*Hook, *HookSocket) string
}{
	{"SOCKET", 14, func(_ *Hook, s *HookSocket) string { return s.Name }},
	{"OFFSET 0", 8, func(_ *Hook, s *HookSocket) string { return s.Offset0 }},
	{"RELATIVE", 9, func(_ *Hook, s *HookSocket) string { return reachCell(s.Net, s.Link) }},
	{"SEES", 12, func(_ *Hook, s *HookSocket) string { return s.seesCell() }},
	{"DIRECT", 6, func(_ *Hook, s *HookSocket) string { return s.directCell() }},
	{"0", 7, func(h *Hook, s *HookSocket) string { return h.effectCell(s, 0) }},
	{"1", 7, func(h *Hook, s *HookSocket) string { return h.effectCell(s, 1) }},
	{"8", 7, func(h *Hook, s *HookSocket) string { return h.effectCell(s, 8) }},
}

// writeHooks writes a table for each hook, for a terminal.
func (r *Report) writeHooks(b *strings.Builder) {
	if len(r.Hooks) == 0 {
		return
	}
	b.WriteString("\nWhat the hooks show a program of a socket's packets\n")
	for i := range r.Hooks {
		r.Hooks[i].write(b)
	}
	b.WriteString(`
SEES: packets to the socket (in), from it (out), or which of them. DIRECT: what
is between data and data_end of a message longer than the MTU: all of each
packet, or only so many of its bytes. 0, 1, 8: what becomes of the probe when
the program returns that, or that the verifier refuses such a program.
`)
}

func (h *Hook) write(b *strings.Builder) {
	b.WriteString("\n")
	if h.Missing != "" {
		writeWrapped(b, "", h.Name+" ("+h.Program+"): "+h.Missing)
		return
	}
	writeWrapped(b, "", h.Name+" ("+h.Program+"): may return "+h.allows())
	readable, refused := fieldNames(h.Fields)
	writeWrapped(b, "- ", "reads of "+h.Context+": "+strings.Join(readable, " "))
	if len(refused) > 0 {
		writeWrapped(b, "- ", "may not read: "+strings.Join(refused, " "))
	}
	var rest []string // why programs do not run
	kinds := make(map[string][]string)
	head := false
	for i := range h.Sockets {
		s := &h.Sockets[i]
		if s.Status != Filtered {
			why := s.statusText()
			if kinds[why] == nil {
				rest = append(rest, why)
			}
			kinds[why] = append(kinds[why], s.Name)
			continue
		}
		if !head {
			h.writeRow(b, nil)
		}
		head = true
		h.writeRow(b, s)
	}
	for _, why := range rest {
		writeWrapped(b, "- ", why+": "+strings.Join(kinds[why], ", "))
	}
}

// writeRow writes a row of the table; nil is its head.
func (h *Hook) writeRow(b *strings.Builder, s *HookSocket) {
	var line strings.Builder
	for _, c := range hookColumns {
		cell := c.title
		if s != nil {
			cell = c.cell(h, s)
		}
		fmt.Fprintf(&line, "%-*s ", c.width, cell)
	}
	b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
}

// hookTables are the tables of the hooks on a page.
func (r *Report) hookTables() []table {
	if len(r.Hooks) == 0 {
		return nil
	}
	overview := table{
		Title: "The hooks that a socket's packets pass",
		Note:  "What the verifier lets a program do at each. Direct: read the packet between data and data_end.",
		Heads: []string{"hook", "program", "direct", "may return", "reads", "may not read"},
	}
	all := []table{{}}
	for i := range r.Hooks {
		h := &r.Hooks[i]
		if h.Missing != "" {
			overview.Rows = append(overview.Rows, []string{h.Name, h.Program, h.Missing, "", "", ""})
			continue
		}
		readable, refused := fieldNames(h.Fields)
		overview.Rows = append(overview.Rows, []string{
			h.Name, h.Program, yesNo(h.Direct), h.allows(), h.Context + ": " + strings.Join(readable, " "), strings.Join(refused, " "),
		})
		all = append(all, h.table())
	}
	all[0] = overview
	return all
}

func (h *Hook) table() table {
	t := table{
		Title: "Hook " + h.Name,
		Note: "Sees: in brackets what it does not. Direct: what is between data and data_end of a message longer than the MTU. " +
			"The last columns: what userspace got when the program returned that.",
		Heads: []string{"socket", "offset 0", "below", "sees", "direct"},
	}
	for _, number := range h.Returns {
		t.Heads = append(t.Heads, fmt.Sprintf("returns %d", number))
	}
	for i := range h.Sockets {
		s := &h.Sockets[i]
		row := make([]string, len(t.Heads))
		row[0], row[1] = s.Name, s.statusText()
		if s.Status == Filtered {
			row = append(row[:1], s.Offset0, reachCell(s.Net, s.Link), exchangeText(s.Exchange), s.directCell())
			for _, number := range h.Returns {
				row = append(row, s.socket().verdictText(number))
			}
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// sockets names the kinds of sockets at a hook for which a condition holds.
func (h *Hook) sockets(holds func(*HookSocket) bool) []string {
	var names []string
	for i := range h.Sockets {
		if s := &h.Sockets[i]; s.Status == Filtered && holds(s) {
			names = append(names, s.Name)
		}
	}
	return names
}

func (r *Report) concludeHooks(say sayer) {
	for i := range r.Hooks {
		h := &r.Hooks[i]
		for _, p := range []struct {
			place place
			text  string
		}{
			{linkPlace, "link header"}, {networkPlace, "network header"}, {transportPlace, "transport header"}, {messagePlace, "message itself"},
		} {
			say(h.sockets(func(s *HookSocket) bool { return s.socket().placeOf(s.Offset0) == p.place }), "%s: offset 0 is the %s.", h.Name, p.text)
		}
		say(h.sockets(func(s *HookSocket) bool { return s.Net == ReachedBytes && s.Link == ReachedNone }),
			"%s: the network header can be loaded and the link header cannot.", h.Name)
		say(h.sockets(func(s *HookSocket) bool { return s.Linear != nil && s.Linear.Part >= 0 }),
			"%s: of a message longer than the MTU only a part is between data and data_end, and the rest can be loaded.", h.Name)
		say(h.sockets(func(s *HookSocket) bool { return s.seesCell() == "SYN" }), "%s: of a connection the program sees the SYN alone.", h.Name)
		say(h.sockets(func(s *HookSocket) bool { return h.effectCell(s, 0) == "dropped" }), "%s: a program that returns 0 drops the packet.", h.Name)
		say(h.sockets(func(s *HookSocket) bool { return h.effectCell(s, 0) == "kept" }), "%s: a program that returns 0 drops nothing.", h.Name)
		say(h.sockets(func(s *HookSocket) bool { return h.effectCell(s, 8) == "cut" }), "%s: a program that returns 8 cuts the packet.", h.Name)
	}
}
