package survey

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// textWidth is the width of the text in columns.
const textWidth = 80

// columns are the columns of the table on a terminal.
var columns = []struct {
	title string
	width int
	cell  func(*Socket) string
}{
	{"SOCKET", 15, func(s *Socket) string { return s.Name }},
	{"OFFSET 0", 9, func(s *Socket) string { return s.Offset0 }},
	{"RELATIVE", 10, func(s *Socket) string { return s.Below.relativeCell() }},
	{"ABSOLUTE", 10, func(s *Socket) string { return s.Below.legacyCell() }},
	{"SEES", 7, func(s *Socket) string { return strings.Join(s.Directions, ", ") }},
	{"USERSPACE GETS", 16, (*Socket).userspaceCell},
	{"KEEP 8", 7, (*Socket).keepCell},
}

func reachCell(net, link string) string {
	switch {
	case net == ReachedBytes && link == ReachedBytes:
		return "net, link"
	case net == ReachedBytes:
		return "net"
	case link == ReachedBytes:
		return "link"
	case net == ReachedSelf || link == ReachedSelf:
		return "itself"
	case net == ReachedOther || link == ReachedOther:
		return "noise"
	}
	return "-"
}

func (b *Below) relativeCell() string {
	if b == nil {
		return ""
	}
	return reachCell(b.RelativeNet, b.RelativeLink)
}

func (b *Below) legacyCell() string {
	if b == nil {
		return ""
	}
	return reachCell(b.LegacyNet, b.LegacyLink)
}

func (s *Socket) userspaceCell() string {
	switch u := s.Userspace; {
	case u == nil:
		return "nothing"
	case u.Same:
		return "the same"
	case len(u.Missing) > 0:
		return "all but " + strings.Join(u.Missing, ", ")
	default:
		return u.From
	}
}

func (s *Socket) keepCell() string {
	o, ok := s.outcome(8)
	switch {
	case !ok:
		return ""
	case o.Probe != "ok":
		return "stuck"
	case o.Messages == 0:
		return "nothing"
	}
	return strconv.Itoa(o.Bytes/o.Messages) + " bytes"
}

// statusText describes a socket whose filter never ran.
func (s *Socket) statusText() string {
	switch s.Status {
	case Unfiltered:
		return "takes a filter, never runs it; userspace gets the " + s.userspaceCell()
	case Unprobed:
		return "takes a filter, could not be probed (" + s.Reason + ")"
	case Refused:
		return "takes no filter (" + s.Reason + ")"
	case Absent:
		return "not on this kernel (" + s.Reason + ")"
	}
	return ""
}

// WriteText prints the table, the conclusions and the findings of 2017, for a
// terminal of 80 columns.
func (r *Report) WriteText(w io.Writer) error {
	r = r.plain()
	var b strings.Builder
	fmt.Fprintf(&b, "Linux %s (%s)\n\n", r.System.Kernel, r.System.Machine)
	r.writeTable(&b)
	b.WriteString(`
OFFSET 0: what the filter finds there. RELATIVE, ABSOLUTE: headers that it gets
with bpf_skb_load_bytes_relative, and with loads at SKF_NET_OFF and SKF_LL_OFF;
"itself" is the bytes from offset 0 on once more, and not a header below them.
SEES: packets that the host receives or sends. USERSPACE GETS: against the
filter's bytes. KEEP 8: what userspace gets of each when the filter returns 8.
`)
	b.WriteString("\nConclusions\n\n")
	for _, c := range r.Conclusions() {
		writeWrapped(&b, "- ", c.String())
	}
	b.WriteString("\nThe findings of 2017\n\n")
	writeWrapped(&b, "", history)
	b.WriteString("\n")
	for _, f := range r.Findings2017() {
		writeWrapped(&b, "- ", f.Claim)
		writeWrapped(&b, "  ", strings.ToUpper(f.Verdict)+": "+f.Evidence)
	}
	readable, refused := fieldNames(r.Fields)
	b.WriteString("\nFields of __sk_buff\n\n")
	writeWrapped(&b, "- ", "readable: "+strings.Join(readable, " "))
	writeWrapped(&b, "- ", "refused by the verifier: "+strings.Join(refused, " "))
	r.writeHooks(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) writeTable(b *strings.Builder) {
	var line strings.Builder
	for _, c := range columns {
		fmt.Fprintf(&line, "%-*s ", c.width, c.title)
	}
	b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	for i := range r.Sockets {
		s := &r.Sockets[i]
		line.Reset()
		if s.Status != Filtered {
			fmt.Fprintf(&line, "%-*s %s", columns[0].width, s.Name, s.statusText())
		} else {
			for _, c := range columns {
				fmt.Fprintf(&line, "%-*s ", c.width, c.cell(s))
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

// fieldNames sorts the fields by whether they can be read.
func fieldNames(fields []Field) (readable, refused []string) {
	for _, f := range fields {
		if f.Readable {
			readable = append(readable, f.Name)
		} else {
			refused = append(refused, f.Name)
		}
	}
	return readable, refused
}

// writeWrapped writes a paragraph with a mark before its first line, and the other
// lines indented by as much.
func writeWrapped(b *strings.Builder, mark, text string) {
	room := textWidth - len(mark)
	lines := terminal.Wrap(text, room, room)
	b.WriteString(mark + strings.Join(lines, "\n"+strings.Repeat(" ", len(mark))) + "\n")
}
