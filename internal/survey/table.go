package survey

import (
	"fmt"
	"io"
	"strings"
)

// table is a table of a page, in Markdown or HTML.
type table struct {
	Title, Note string
	Heads       []string
	Rows        [][]string
}

// tables returns everything that the pages show of a report, except its conclusions.
func (r *Report) tables() []table {
	overview := table{
		Title: "What a filter sees, and what userspace gets",
		Note: "Below offset 0: the headers that the filter gets with bpf_skb_load_bytes_relative, and with absolute " +
			"loads at SKF_NET_OFF and SKF_LL_OFF; \"itself\" is the bytes from offset 0 on once more, and not a header below them.",
		Heads: []string{"socket", "offset 0", "below: relative", "below: absolute", "sees", "userspace gets", "inherited"},
	}
	verdicts := table{
		Title: "What the filter's return value does to what userspace gets",
		Heads: []string{"socket", "returns 0", "returns 8", "returns -1"},
	}
	exchange := table{
		Title: "Which packets on the wire the filter sees",
		Note:  "In brackets what it does not see.",
		Heads: []string{"socket", "exchange"},
	}
	sizes := table{
		Title: "Unusual sizes",
		Note:  "A message without payload; a datagram of 4000 bytes and a stream of 40000 over an MTU of 1500.",
		Heads: []string{"socket", "empty", "fragments", "stream"},
	}
	beside := table{
		Title: "VLAN tags, and what comes together",
		Note: "A frame with a priority tag (id 0) and one of a VLAN without a device (id 5). Datagrams of one call (UDP_SEGMENT), " +
			"to a socket without and with UDP_GRO.",
		Heads: []string{"socket", "tagged", "together"},
	}
	for i := range r.Sockets {
		s := &r.Sockets[i]
		if s.Status != Filtered {
			overview.Rows = append(overview.Rows, []string{s.Name, s.statusText(), "", "", "", "", ""})
			continue
		}
		overview.Rows = append(overview.Rows, []string{s.Name, s.Offset0, s.Below.relativeCell(), s.Below.legacyCell(),
			strings.Join(s.Directions, ", "), s.userspaceCell(), s.Inherits})
		verdicts.Rows = append(verdicts.Rows, []string{s.Name, s.verdictText(0), s.verdictText(8), s.verdictText(-1)})
		if text := s.exchangeText(); text != "" {
			exchange.Rows = append(exchange.Rows, []string{s.Name, text})
		}
		if s.VLAN != nil || s.Merged != nil {
			beside.Rows = append(beside.Rows, []string{s.Name, s.vlanText(), s.mergedText()})
		}
		if s.Empty != nil || s.Fragments != nil || s.Large != nil {
			sizes.Rows = append(sizes.Rows, []string{s.Name, s.emptyText(), s.fragmentsText(), s.largeText()})
		}
	}
	tables := []table{overview, verdicts, exchange, sizes}
	if len(beside.Rows) > 0 {
		tables = append(tables, beside)
	}
	return append(append(tables, r.fieldTable()), r.hookTables()...)
}

func (r *Report) fieldTable() table {
	t := table{
		Title: "Fields of __sk_buff",
		Note:  "What the verifier lets a socket filter read, and what that held during the probe.",
		Heads: []string{"field", "readable", "held"},
	}
	for _, f := range r.Fields {
		row := []string{f.Name, "no", ""}
		if f.Readable {
			row = []string{f.Name, "yes", r.heldText(f.Name)}
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// historyTable is the findings of 2017.
func (r *Report) historyTable() table {
	t := table{
		Title: "The findings of 2017",
		Note:  history,
		Heads: []string{"finding", "here", "evidence"},
	}
	for _, f := range r.Findings2017() {
		t.Rows = append(t.Rows, []string{f.Claim, f.Verdict, f.Evidence})
	}
	return t
}

// WriteMarkdown prints the report as a page of Markdown.
func (r *Report) WriteMarkdown(w io.Writer) error {
	r = r.plain()
	var b strings.Builder
	fmt.Fprintf(&b, "# What sockets show a filter on Linux %s (%s)\n", r.System.Kernel, r.System.Machine)
	all := r.tables()
	all[0].writeMarkdown(&b)
	b.WriteString("\n## Conclusions\n\n")
	for _, c := range r.Conclusions() {
		fmt.Fprintf(&b, "- %s *(%s)*\n", markdownEscaper.Replace(c.Text), strings.Join(c.Rows, ", "))
	}
	history := r.historyTable()
	history.writeMarkdown(&b)
	for _, t := range all[1:] {
		t.writeMarkdown(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// markdownEscaper escapes markup in cells.
var markdownEscaper = strings.NewReplacer("|", `\|`, "_", `\_`, "*", `\*`, "[", `\[`, "<", "&lt;")

func (t *table) writeMarkdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n## %s\n\n", markdownEscaper.Replace(t.Title))
	if t.Note != "" {
		b.WriteString(markdownEscaper.Replace(t.Note) + "\n\n")
	}
	b.WriteString("| " + strings.Join(t.Heads, " | ") + " |\n|" + strings.Repeat(" --- |", len(t.Heads)) + "\n")
	for _, row := range t.Rows {
		b.WriteString("|")
		for _, cell := range row {
			b.WriteString(" " + markdownEscaper.Replace(cell) + " |")
		}
		b.WriteString("\n")
	}
}
