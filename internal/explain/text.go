package explain

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// The width of the text in columns: Columns where there is room for that, and no less than leastColumns, in
// which an address and an id have room.
const (
	Columns      = 80
	leastColumns = 40
)

var directionNames = map[capture.Direction]string{capture.Inbound: "received", capture.Outbound: "sent"}

func address(a netip.AddrPort) string {
	switch {
	case !a.IsValid():
		return "?"
	case a.Port() == 0:
		return printable(a.Addr().String())
	}
	return printable(a.String())
}

// Terminal colours (ECMA-48, select graphic rendition).
const (
	plain   = ""
	bold    = "1"
	faint   = "2"
	warning = "1;31"
	user    = "1;32"
)

var classColours = map[class]string{classLink: "35", classNetwork: "36", classTransport: "33", classPayload: plain}

// printer writes lines with or without colours.
type printer struct {
	w       *bufio.Writer
	colour  bool
	columns int
}

func (p *printer) paint(colour, text string) string {
	if !p.colour || colour == plain || text == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// WriteText prints the explanation for people, in so many columns, at least 40 and at most Columns. Control
// characters from the file are escaped.
func (e *Explanation) WriteText(w io.Writer, colour bool, columns int) error {
	p := &printer{w: bufio.NewWriter(w), colour: colour, columns: min(max(columns, leastColumns), Columns)}
	p.summary(&e.Report)
	for _, s := range e.Report.Sockets {
		p.socket(s)
	}
	for _, g := range e.groups {
		p.connection(g)
		for _, packet := range g.packets {
			p.packet(packet)
		}
	}
	if e.left != "" {
		p.wrapped("", e.left+" --connections N shows N of them, 0 all.", faint)
	}
	if e.omitted.total() > 0 {
		p.wrapped("", e.leftOut()+" --packets N shows N of them, 0 all.", faint)
	}
	if err := p.w.Flush(); err != nil {
		return fmt.Errorf("writing the explanation: %w", err)
	}
	return nil
}

// leftOut says what is not shown.
func (e *Explanation) leftOut() string {
	switch {
	case e.omitted.total() == 0:
		return ""
	case len(e.packets) == 0:
		return fmt.Sprintf("Not shown one by one: %s.", &e.omitted)
	}
	return fmt.Sprintf("Left out here: %s more.", &e.omitted)
}

// cutOff is a sentence about an incomplete file, empty if it is complete.
func (r *Report) cutOff() string {
	if r.CutOff == nil {
		return ""
	}
	if r.CutOff.Rest == 0 { // which only a compressed file has: others end there
		return "The compressed stream of the file breaks off. What follows is about the part before that."
	}
	return fmt.Sprintf("The file ends in the middle of a block, of which it has %s. What follows is about the part before that.", bytesOf(uint64(r.CutOff.Rest)))
}

func (p *printer) summary(r *Report) {
	p.wrapped("", r.summary(), bold)
	if r.Command != "" {
		p.wrapped("  ", "made by: "+r.command(), faint)
	}
	if c := r.cutOff(); c != "" {
		p.wrapped("  ", c, warning)
	}
	if r.Damage != "" {
		p.wrapped("  ", "The file is damaged, and this is about the part before that: "+printable(r.Damage), warning)
	}
	if f := r.foreign(); f != "" {
		p.wrapped("  ", f, plain)
	}
	fmt.Fprintln(p.w)
}

// summary is a line about the whole file.
func (r *Report) summary() string {
	s := printable(r.File) + ": "
	if r.Packets == 0 {
		s += "no packet in it"
	} else {
		s += quantity(r.Packets, "record", "records")
		if r.Duration > 0 {
			s += " in " + duration(r.Duration)
		}
		if r.Start != nil {
			s += " from " + r.Start.Format("2006-01-02 15:04:05.000000 UTC") + " on"
		}
	}
	if r.Application != "" {
		s += ", written by " + printable(r.Application)
	}
	if r.OS != "" {
		s += " on " + printable(r.OS)
	}
	return s
}

// command is the command lines that made and converted the file, from the lines of its
// comment, to which other programs add theirs.
func (r *Report) command() string {
	var said strings.Builder
	for line := range strings.Lines(r.Command) {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
			continue
		case said.Len() == 0:
		case strings.HasPrefix(line, "ebpfdump "):
			said.WriteString("; then ")
		default:
			said.WriteString(" | ")
		}
		said.WriteString(line)
	}
	return printable(said.String())
}

// foreign is a line about interfaces that are not views of a socket.
func (r *Report) foreign() string {
	if len(r.Foreign) == 0 {
		return ""
	}
	var words []string
	for i, f := range r.Foreign {
		if i == 8 {
			words = append(words, quantity(uint64(len(r.Foreign)-i), "other", "others"))
			break
		}
		words = append(words, fmt.Sprintf("%s (%s)", printable(f.Name), packetsOf(f.Packets)))
	}
	return "Not views of a socket, and left out: " + list(words) + "."
}

func (p *printer) socket(s *Socket) {
	title := printable(s.Kind)
	if s.Summary != "" {
		title += ": " + printable(s.Summary)
	}
	p.wrapped("", title, bold)
	for _, f := range s.Findings {
		colour := plain
		if f.Warning {
			colour = warning
		}
		p.wrapped(fmt.Sprintf("  %-11s", f.Topic), printable(f.Text), colour)
	}
	fmt.Fprintln(p.w)
}

// cells is how many columns a time line has, behind its name.
func (p *printer) cells() int { return p.columns - 13 }

// rowBytes is how many bytes have room in a row, in hexadecimal and as characters, behind the label: the whole
// page's number, or an even one.
func (p *printer) rowBytes() int {
	const each = len("00 ") + len("0")
	return min((p.columns-rowIndent-len(" "))/each&^1, rowBytes)
}

// rowIndent is how many columns precede the bytes of a row.
const rowIndent = 14

// blocks are the heights of a column.
var blocks = []rune(" ▁▂▃▄▅▆▇█")

// connection prints what passed in a connection, and when. All lanes have the same scale.
func (p *printer) connection(g *group) {
	p.wrapped("", g.name(), bold)
	colour := plain
	if g.lost() > 0 {
		colour = warning
	}
	p.wrapped("  ", g.said(), colour)
	if g.drawn() {
		p.timeline(&g.line)
	}
	fmt.Fprintln(p.w)
}

var laneColours = [laneCount]string{laneRead: user, laneSent: "36", laneStopped: warning, laneDropped: warning}

func (p *printer) timeline(t *timeline) {
	cells := p.cells()
	var lanes [laneCount][]uint64
	var most uint64
	for l := range laneCount {
		lanes[l] = t.columns(l, cells)
		most = max(most, slices.Max(lanes[l]))
	}
	for l, counts := range lanes {
		if len(t.lanes[l]) == 0 {
			continue
		}
		bar := make([]rune, 0, cells)
		for _, n := range counts {
			bar = append(bar, blocks[height(n, most, uint64(len(blocks)-1))])
		}
		fmt.Fprintln(p.w, p.paint(faint, fmt.Sprintf("  %-11s", lane(l)))+p.paint(laneColours[l], strings.TrimRight(string(bar), " ")))
	}
	from, to := "0s", "+"+duration(t.end-t.start)
	fmt.Fprintln(p.w, p.paint(faint, strings.Repeat(" ", 13)+from+pad(to, cells-len(from))))
}

// height is how high a count is drawn, up to a height: what is not nothing is seen.
func height(n, most, full uint64) uint64 {
	if n == 0 {
		return 0
	}
	return max(n*full/most, 1)
}

func (p *printer) packet(g *shown) {
	p.wrapped("", g.name()+": "+strings.Join(g.details(false), ", "), bold)
	for _, line := range g.said() {
		p.wrapped("  ", line, plain)
	}
	for _, r := range g.rows(p.rowBytes()) {
		p.row(&r)
	}
	fmt.Fprintln(p.w)
}

func (p *printer) row(r *row) {
	colour := classColours[r.class]
	if r.user {
		colour = user
	}
	line := p.paint(colour, fmt.Sprintf("%-8s", r.label)) + p.paint(faint, fmt.Sprintf("%5s", r.place)) + " "
	if r.remark != "" {
		for i, remark := range terminal.WrapHard(r.remark, p.columns-rowIndent, p.columns-rowIndent) {
			if i > 0 {
				line = strings.Repeat(" ", rowIndent)
			}
			fmt.Fprintln(p.w, line+p.paint(faint, remark))
		}
		return
	}
	hex := r.hex()
	space := strings.Repeat(" ", 3*p.rowBytes()-len(hex))
	fmt.Fprintln(p.w, line+p.paint(colour, hex)+space+" "+p.paint(colour, r.ascii()))
}

// wrapped prints a text after a label, with the further lines indented.
func (p *printer) wrapped(label, text, colour string) {
	text = terminal.Plain(text)
	indent := utf8.RuneCountInString(label)
	for i, line := range terminal.WrapHard(text, p.columns-indent, p.columns-max(indent, 2)) {
		switch {
		case i == 0:
			fmt.Fprint(p.w, p.paint(faint, label))
		default:
			fmt.Fprint(p.w, strings.Repeat(" ", max(indent, 2)))
		}
		fmt.Fprintln(p.w, p.paint(colour, line))
	}
}
