package explain

import (
	"fmt"
	"math"

	"github.com/ebpfdump/ebpfdump/capture"
)

// layerMap is a drawing of a packet: its layers side by side, and below them a bar for
// the part that each view covers. Lengths are in SVG user units.
type layerMap struct {
	Width, Height int
	Boxes         []mapBox
	Bars          []mapBar
	// Offset0 is where the kernel view begins, Bottom the lower edge of the last bar.
	Offset0, Bottom int
	// More says what did not fit.
	More  string
	Label string
}

// mapBox is a layer.
type mapBox struct {
	X, W   int
	Middle int
	Name   string
	Size   string
	Class  string
}

// mapBar is the part that a view or a read covers.
type mapBar struct {
	Name  string
	X, W  int
	Y     int
	TextY int
	Size  string
	Class string
}

const (
	mapWidth   = 440
	mapLeft    = 58 // room for the names of the views
	mapRight   = 60 // and for their sizes
	mapTop     = 46 // of the first bar
	barHeight  = 20
	mapBars    = 8
	leastWidth = 50 // of a box: its name must fit
)

// draw makes the packet's map. Widths grow with the square root of the size, so that a
// large payload leaves room for the headers.
func (g *shown) draw() layerMap {
	m := layerMap{Width: mapWidth}
	spans := g.spans
	if g.item != itemPacket {
		spans = g.aloneSpan()
	}
	left := mapLeft
	if g.kernel && g.offset0 == 0 && g.layer == capture.LayerTransport {
		m.Boxes = append(m.Boxes, mapBox{X: left, W: leastWidth, Middle: left + leastWidth/2, Name: "IP", Size: "not here", Class: "absent"})
		left += leastWidth
	}
	scale := newScale(spans, left, mapWidth-mapRight)
	for i, s := range spans {
		x, end := scale.edges[i], scale.edges[i+1]
		m.Boxes = append(m.Boxes, mapBox{
			X: x, W: end - x, Middle: (x + end) / 2, Name: s.name, Size: fmt.Sprintf("%d B", s.to-s.from), Class: s.class.String(),
		})
	}
	m.bars(g, scale)
	if g.kernel {
		m.Offset0 = scale.at(g.offset0)
	}
	m.Bottom = mapTop + len(m.Bars)*barHeight
	m.Height = m.Bottom + 4
	if g.kernel {
		m.Height += 12
	}
	if m.More != "" {
		m.Height += barHeight
	}
	m.Label = printable(g.fate)
	return m
}

// aloneSpan is the span of a read without a packet.
func (g *shown) aloneSpan() []span {
	length := 0
	for i := range g.parts {
		length = max(length, g.parts[i].length)
	}
	return []span{{"message", classPayload, 0, length}}
}

func (m *layerMap) bars(g *shown, scale scale) {
	for _, view := range []capture.View{capture.ViewWire, capture.ViewLink, capture.ViewNet, capture.ViewCgroup, capture.ViewSelect, capture.ViewKernel, capture.ViewDrop} {
		for _, c := range g.covers {
			if c.view == view {
				m.bar(view.String(), view.String(), scale.at(c.from), scale.at(c.to), c.to-c.from)
			}
		}
	}
	for i := range g.parts {
		p := &g.parts[i]
		if i == mapBars {
			m.More = fmt.Sprintf("and %s more", g.further(i))
			break
		}
		class := "user"
		if p.peeked {
			class = "peek"
		}
		m.bar(p.label(), class, scale.at(p.from), scale.at(p.from+p.length), p.length)
	}
	if g.reads() == 0 && g.user && g.item == itemPacket {
		m.bar("reads", "nothing", scale.edges[0], scale.edges[0], 0)
	}
}

// further says how many reads and peeks there are from a part on.
func (g *shown) further(from int) string {
	reads, peeks := uint64(g.omitted), uint64(g.morePeeks)
	for _, p := range g.parts[from:] {
		if p.peeked {
			peeks++
		} else {
			reads++
		}
	}
	switch {
	case peeks == 0:
		return readsOf(reads)
	case reads == 0:
		return peeksOf(peeks)
	}
	return readsOf(reads) + " and " + peeksOf(peeks)
}

func (m *layerMap) bar(name, class string, from, to, size int) {
	y := mapTop + len(m.Bars)*barHeight
	width := max(to-from, 2)
	if size == 0 {
		width = 0
	}
	m.Bars = append(m.Bars, mapBar{
		Name: name, X: from, W: width, Y: y, TextY: y + 13, Size: fmt.Sprintf("%d B", size), Class: class,
	})
}

// scale maps offsets in a packet to positions in the drawing.
type scale struct {
	spans []span
	edges []int // of the starts of the spans, and of the end of the last
}

func newScale(spans []span, left, right int) scale {
	s := scale{spans: spans, edges: []int{left}}
	total := 0.0
	for _, span := range spans {
		total += math.Sqrt(float64(span.to - span.from))
	}
	room := float64(right - left - leastWidth*len(spans))
	x := float64(left)
	for _, span := range spans {
		x += leastWidth
		if total > 0 {
			x += room * math.Sqrt(float64(span.to-span.from)) / total
		}
		s.edges = append(s.edges, int(x+0.5))
	}
	return s
}

func (s scale) at(place int) int {
	for i, span := range s.spans {
		if place > span.to || span.to == span.from {
			continue
		}
		part := float64(max(place-span.from, 0)) / float64(span.to-span.from)
		return s.edges[i] + int(part*float64(s.edges[i+1]-s.edges[i])+0.5)
	}
	return s.edges[len(s.edges)-1]
}
