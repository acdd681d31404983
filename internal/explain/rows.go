package explain

import (
	"fmt"

	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// rowBytes is how many bytes a row has at most.
const rowBytes = 16

// row is a line of bytes. Every layer starts a new row, and what userspace got
// is in a row below, in the same columns.
type row struct {
	label string // at most 8 columns
	place string // offset of the first byte, relative to the kernel view
	start int    // column of the first byte, from 0 on
	data  []byte
	class class
	user  bool
	peek  bool // what userspace only looked at
	// remark is shown instead of bytes.
	remark string
}

// rows lays out the bytes of a packet, so many in a row.
func (g *shown) rows(each int) []row {
	var rows []row
	for _, s := range g.spans {
		label := s.name
		for at := s.from; at < s.to; at += each {
			end := min(at+each, s.to)
			if at >= len(g.frame) {
				break
			}
			data := g.frame[at:min(end, len(g.frame))]
			rows = append(rows, row{label: label, place: fmt.Sprint(at - g.offset0), data: data, class: s.class})
			rows = g.userRows(rows, at, at+len(data))
			label = ""
		}
		if s.to > len(g.frame) {
			rows = append(rows, g.rest(label, s, max(s.from, len(g.frame))))
		}
	}
	if g.item != itemPacket {
		rows = g.alone(rows, each)
	}
	return rows
}

// rest says how much of a layer is not shown, from an offset on.
func (g *shown) rest(label string, s span, at int) row {
	got := 0
	for _, p := range g.parts {
		if p.peeked {
			continue
		}
		got += max(min(p.from+p.length, s.to)-max(p.from, at), 0)
	}
	more := uint64(s.to - at)
	remark := fmt.Sprintf("... %s more", bytesOf(more))
	switch absent := s.to - max(g.captured, at); {
	case uint64(max(absent, 0)) == more:
		remark += ", not in the file"
	case absent > 0:
		remark += fmt.Sprintf(", %s of them not in the file", digits(uint64(absent)))
	}
	switch {
	case !g.user || g.omitted > 0:
	case got == 0:
		remark += "; in no read"
	case uint64(got) == more:
		remark += "; read"
	default:
		remark += fmt.Sprintf("; %s of them read", digits(uint64(got)))
	}
	return row{label: label, place: fmt.Sprint(at - g.offset0), class: s.class, remark: remark}
}

// userRows appends what reads got of the bytes between two offsets.
func (g *shown) userRows(rows []row, from, to int) []row {
	for i := range g.parts {
		p := &g.parts[i]
		low, high := max(from, p.from), min(to, p.from+len(p.data))
		if low < high {
			rows = append(rows, row{
				label: p.label(), start: low - from, data: p.data[low-p.from : high-p.from],
				class: classPayload, user: true, peek: p.peeked,
			})
		}
	}
	return rows
}

// alone appends the bytes of a read without a packet.
func (g *shown) alone(rows []row, each int) []row {
	for i := range g.parts {
		p := &g.parts[i]
		label := p.label()
		for at := 0; at < len(p.data); at += each {
			rows = append(rows, row{
				label: label, place: fmt.Sprint(at), data: p.data[at:min(at+each, len(p.data))],
				class: classPayload, user: true, peek: p.peeked,
			})
			label = ""
		}
		if rest := p.length - len(p.data); rest > 0 {
			rows = append(rows, row{place: fmt.Sprint(len(p.data)), remark: "... " + bytesOf(uint64(rest)) + " more", user: true})
		}
	}
	return rows
}

// label names the read, peek or send in at most 8 columns.
func (p *part) label() string {
	switch {
	case p.sent:
		return cutLabel("sent %d", p.read)
	case p.peeked:
		return cutLabel("peek %d", p.read)
	}
	return cutLabel("read %d", p.read)
}

// cutLabel makes a label of a word and a number.
func cutLabel(format string, number uint64) string {
	if number < 1000 {
		return fmt.Sprintf(format, number)
	}
	return fmt.Sprintf("%.1s%d", format, number%1e7)
}

// hex returns the bytes in hexadecimal, and ascii as characters, both indented to line up
// with the row above.
func (r *row) hex() string {
	const hexDigits = "0123456789abcdef"
	b := make([]byte, 0, 3*rowBytes)
	for range r.start {
		b = append(b, "   "...)
	}
	for i, c := range r.data {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(b, hexDigits[c>>4], hexDigits[c&0xf])
	}
	return string(b)
}

func (r *row) ascii() string {
	b := make([]byte, 0, rowBytes)
	for range r.start {
		b = append(b, ' ')
	}
	for _, c := range r.data {
		b = append(b, terminal.ASCII(c))
	}
	return string(b)
}

// name is what a packet is called.
func (g *shown) name() string {
	switch {
	case g.item == itemSend:
		return "a send"
	case g.item == itemRead:
		return "a read"
	case g.item == itemPeek:
		return "a peek"
	case g.id == 0:
		return "packet without an id"
	}
	return "packet " + digits(g.id)
}

// details are what a packet's title has besides its name; within a connection not what all of that have.
func (g *shown) details(within bool) (details []string) {
	if !within {
		details = append(details, printable(g.kind))
	}
	if direction := directionNames[g.direction]; direction != "" {
		details = append(details, direction)
	}
	if !within && (g.src.IsValid() || g.dst.IsValid()) {
		details = append(details, address(g.src)+" > "+address(g.dst))
	}
	if g.what != "" {
		details = append(details, g.what)
	}
	if g.timed {
		details = append(details, "+"+duration(g.time))
	}
	return details
}

// said returns the remarks below a packet's title, one per line.
func (g *shown) said() []string {
	lines := []string{g.fate}
	if text := metadataText(&g.meta); text != "" {
		lines = append(lines, text)
	}
	for i := range g.parts {
		p := &g.parts[i]
		if p.sent {
			lines = append(lines, p.saidSent())
			continue
		}
		line := fmt.Sprintf("read %d: ", p.read)
		if p.peeked {
			line = fmt.Sprintf("peek %d: ", p.read)
		}
		if p.call != "" {
			line += p.call + " returned "
		}
		if p.failed {
			line += "an error"
		} else {
			line += bytesOf(uint64(p.whole)) + p.into
		}
		if p.length < p.whole && (p.length > 0 || !p.peeked) {
			line += fmt.Sprintf(", %s of them from here", digits(uint64(p.length)))
		}
		if g.lasted && g.item == itemPacket {
			line += ", " + later(p.time-g.time)
		}
		if p.comment != "" {
			line += "; " + p.comment
		}
		lines = append(lines, line)
	}
	if g.omitted > 0 {
		lines = append(lines, fmt.Sprintf("and %s more", readsOf(uint64(g.omitted))))
	}
	if g.morePeeks > 0 {
		lines = append(lines, fmt.Sprintf("and %s more", peeksOf(uint64(g.morePeeks))))
	}
	lines = append(lines, g.notes...)
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return lines
}

func later(ns int64) string {
	if ns < 0 {
		return duration(-ns) + " earlier"
	}
	return duration(ns) + " later"
}
