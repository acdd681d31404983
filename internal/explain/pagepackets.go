package explain

import (
	"cmp"
	"fmt"
	"html/template"
	"slices"
	"strings"

	"github.com/ebpfdump/ebpfdump/capture"
)

// pageBytes is how long a page gets by the bytes of its packets: whoever wants to see more of them than
// there is room for chooses some.
const pageBytes = 1_900_000

// drawingBytes is up to where connections have a drawing of their time line, which is some hundreds of them.
const drawingBytes = 300_000

// openPackets is up to how many packets a page shows opened.
const openPackets = 50

// chunk is how many packets a browser lays out together, when they come into sight.
const chunk = 50

// pageGroup is a connection on the page: what is said of it, and its packets.
type pageGroup struct {
	Head   template.HTML
	Chunks [][]template.HTML
}

// pageTalk is what is said of a connection.
type pageTalk struct {
	Name, Said string
	Warning    bool
	Line       *pageLine
}

// pageLine is the drawing of a time line: lanes below each other, laneHeight units high, as wide as it has
// columns.
type pageLine struct {
	Columns, Height int
	Lanes           []pageLane
	End, Label      string
}

type pageLane struct{ Name, Path string }

const (
	laneColumns = 128
	laneHeight  = 20
)

// pagePacket is a packet on the page.
type pagePacket struct {
	Name    string
	Details []string
	Said    []string
	Map     layerMap
	Rows    []pageRow
	Open    bool
	Warning bool
}

type pageRow struct {
	Class, Label, Place, Hex, ASCII, Remark string
}

// pageItem is a packet as a line, and as all that is known of it if there is room for that.
type pageItem struct {
	g         *shown
	line, all template.HTML
}

// pageGroups makes the connections of the page. said says whose bytes are on it.
func (e *Explanation) pageGroups() (groups []pageGroup, said string, err error) {
	items := make(map[*shown]*pageItem, len(e.packets))
	order := make([]*pageItem, 0, len(e.packets))
	size, drawn := 0, 0
	var all tally
	for _, g := range e.packets {
		all[g.item]++
		item := &pageItem{g: g}
		if item.line, err = render("line", g.pageLine()); err != nil {
			return nil, "", err
		}
		size += len(item.line)
		items[g], order = item, append(order, item)
	}
	for _, g := range e.groups {
		head, err := render("head", g.pageHead(drawn < drawingBytes))
		if err != nil {
			return nil, "", err
		}
		drawn += len(head)
		const around = len("<ol>\n</ol>\n</section>\n")
		size += len(head) + around*(len(g.packets)/chunk+1)
		groups = append(groups, pageGroup{Head: head})
	}
	whole, err := fill(order, pageBytes-size)
	if err != nil {
		return nil, "", err
	}
	for i, g := range e.groups {
		for packets := range slices.Chunk(g.packets, chunk) {
			var lines []template.HTML
			for _, packet := range packets {
				lines = append(lines, cmp.Or(items[packet].all, items[packet].line))
			}
			groups[i].Chunks = append(groups[i].Chunks, lines)
		}
	}
	if whole < len(order) {
		said = fmt.Sprintf("There is room for the bytes of %s of %s: --id shows those of others.", digits(uint64(whole)), &all)
	}
	return groups, said, nil
}

// pageHead is what is said of a connection, with a drawing if there is one and room for it.
func (g *group) pageHead(room bool) pageTalk {
	head := pageTalk{Name: g.name(), Said: g.said(), Warning: g.lost() > 0}
	if room && g.drawn() {
		head.Line = g.line.page()
	}
	return head
}

// fill makes the details of packets, of those that were lost first, as far as there is room, and returns of how many.
func fill(items []*pageItem, room int) (whole int, err error) {
	const tries = 20 // some that are short may have room where one that is long has none
	failed := 0
	for _, lost := range []bool{true, false} {
		for _, item := range items {
			if item.g.lost != lost || failed > tries {
				continue
			}
			details := item.g.page()
			if details.Open = len(items) <= openPackets; !details.Open {
				details.Details = item.g.pageLine().Details
			}
			all, err := render("packet", details)
			if err != nil {
				return whole, err
			}
			if more := len(all) - len(item.line); more > room {
				failed++
			} else {
				room -= more
				whole++
				item.all = all
			}
		}
	}
	return whole, nil
}

func render(name string, data any) (template.HTML, error) {
	var b strings.Builder
	err := pageTemplate.ExecuteTemplate(&b, name, data)
	return template.HTML(b.String()), err
}

// page draws a time line. All lanes have the same scale.
func (t *timeline) page() *pageLine {
	line := &pageLine{Columns: laneColumns, End: "+" + duration(t.end-t.start)}
	var lanes [laneCount][]uint64
	var most uint64
	for l := range laneCount {
		lanes[l] = t.columns(l, laneColumns)
		most = max(most, slices.Max(lanes[l]))
	}
	var names []string
	for l, counts := range lanes {
		if len(t.lanes[l]) == 0 {
			continue
		}
		line.Lanes = append(line.Lanes, pageLane{lane(l).String(), lanePath(counts, most, (len(line.Lanes)+1)*laneHeight-1)})
		names = append(names, lane(l).String())
	}
	line.Height = len(line.Lanes) * laneHeight
	line.Label = "when it was: " + list(names)
	return line
}

// lanePath is the outline of a lane's columns, above a base line.
func lanePath(counts []uint64, most uint64, base int) string {
	var b []byte
	for at := 0; at < len(counts); {
		high := height(counts[at], most, laneHeight-3)
		end := at + 1
		for end < len(counts) && height(counts[end], most, laneHeight-3) == high {
			end++
		}
		if high > 0 {
			b = fmt.Appendf(b, "M%d %dv-%dh%dv%dz", at, base, high, end-at, high)
		}
		at = end
	}
	return string(b)
}

// pageLine is a packet in a line: what its connection has not said, and what became of it.
func (g *shown) pageLine() pagePacket {
	p := pagePacket{Name: strings.TrimPrefix(g.name(), "packet "), Warning: g.lost}
	if said := g.said(); g.item != itemPacket {
		p.Details = append(g.details(!g.talk.further), said[min(1, len(said)-1)])
		return p
	}
	if g.talk.further {
		p.Details = append(p.Details, address(g.src)+" > "+address(g.dst))
	}
	if g.direction == capture.Outbound {
		p.Details = append(p.Details, directionNames[g.direction])
	}
	if g.timed {
		p.Details = append(p.Details, "+"+duration(g.time))
	}
	if strings.HasPrefix(g.what, "[") {
		p.Details = append(p.Details, g.what)
	}
	fate := strings.TrimSuffix(printable(g.fate), ": userspace sees nothing of it")
	if !strings.Contains(fate, "bytes") {
		p.Details = append(p.Details, bytesOf(uint64(g.length)))
	}
	p.Details = append(p.Details, fate)
	if at := slices.IndexFunc(g.parts, func(p part) bool { return !p.peeked }); g.lasted && g.reads() == 1 {
		p.Details = append(p.Details, later(g.parts[at].time-g.time))
	}
	return p
}

func (g *shown) page() pagePacket {
	p := pagePacket{Name: g.name(), Details: g.details(!g.talk.further), Said: g.said(), Map: g.draw(), Warning: g.lost}
	for _, r := range g.rows(rowBytes) {
		row := pageRow{Class: r.class.String(), Label: r.label, Place: r.place, Hex: r.hex(), ASCII: r.ascii(), Remark: r.remark}
		switch {
		case r.peek:
			row.Class = "user peek"
		case r.user:
			row.Class = "user"
		}
		p.Rows = append(p.Rows, row)
	}
	return p
}
