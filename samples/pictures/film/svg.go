package main

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// A cell, the frame around the screen, and the bar above it, in pixels.
const (
	cellWidth, cellHeight = 8, 17
	frame, bar            = 14, 30
)

// The colours by day and by night. Each is legible on its ground: the first look has 7 to 1 at least,
// the faint one and the colours have 4.5.
const style = `
.ground { fill: #fbfbfa; stroke: #c9ccd1 } .bar { fill: #eceef1 } .dot { fill: #c3c8cf }
text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre; fill: #1f2328 }
.b { font-weight: bold } .d { fill: #656d76 } .cursor { fill: #1f2328; opacity: .5 }
.c1 { fill: #b3261e } .c2 { fill: #116329 } .c3 { fill: #7d4e00 } .c4 { fill: #0550ae } .c5 { fill: #8250df } .c6 { fill: #1b6b72 } .c7 { fill: #59636e }
@media (prefers-color-scheme: dark) {
.ground { fill: #0d1117; stroke: #3d444d } .bar { fill: #161b22 } .dot { fill: #3d444d }
text { fill: #e6edf3 } .d { fill: #8b949e } .cursor { fill: #e6edf3 }
.c1 { fill: #ff7b72 } .c2 { fill: #56d364 } .c3 { fill: #e3b341 } .c4 { fill: #79c0ff } .c5 { fill: #d2a8ff } .c6 { fill: #76e3ea } .c7 { fill: #b1bac4 }
}
@media (prefers-reduced-motion: reduce) { * { animation: none !important } .cursor { visibility: hidden } }
`

// drawing is a film as an SVG. Whoever shows no animations shows its end.
func drawing(s *screen, lasts time.Duration) []byte {
	var b, moves bytes.Buffer
	width, height := 2*frame+columns*cellWidth, bar+2*frame+rows*cellHeight
	last := max(0, s.row+1-rows)
	share := func(at time.Duration) string {
		return fmt.Sprintf("%.4g%%", 100*at.Seconds()/lasts.Seconds())
	}
	// The first times of pieces, which have a number each.
	numbers := map[time.Duration]int{}
	for _, p := range s.pieces {
		if _, there := numbers[p.at]; !there && p.at > 0 {
			n := len(numbers)
			numbers[p.at] = n
			fmt.Fprintf(&moves, "@keyframes k%d{0%%{visibility:hidden}%s{visibility:visible}}.k%d{animation-name:k%d}\n", n, share(p.at), n, n)
		}
	}
	fmt.Fprintf(&moves, "text[class^=k],.page,.cursor{animation-duration:%.3gs;animation-timing-function:step-end;animation-iteration-count:infinite}\n", lasts.Seconds())
	moves.WriteString("@keyframes page{")
	above := -1
	for _, c := range s.cursors {
		if n := max(0, c.row+1-rows); n != above {
			above = n
			fmt.Fprintf(&moves, "%s{transform:translateY(%dpx)}", share(c.at), -n*cellHeight)
		}
	}
	moves.WriteString("}.page{animation-name:page}\n@keyframes cursor{0%{transform:none}")
	before := place{}
	for _, c := range s.cursors {
		if c.row == before.row && c.column == before.column {
			continue
		}
		before = c
		fmt.Fprintf(&moves, "%s{transform:translate(%dpx,%dpx)}", share(c.at), c.column*cellWidth, c.row*cellHeight)
	}
	moves.WriteString("}.cursor{animation-name:cursor}\n")

	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\">\n", width, height, width, height)
	b.WriteString("<title>A terminal: ebpfdump captures, explains what it has captured, and tshark reads it</title>\n")
	fmt.Fprintf(&b, "<style>%s%s</style>\n", style, moves.Bytes())
	fmt.Fprintf(&b, "<rect class=\"ground\" x=\".5\" y=\".5\" width=\"%d\" height=\"%d\" rx=\"8\"/>\n", width-1, height-1)
	fmt.Fprintf(&b, "<path class=\"bar\" d=\"M1 %dV9a8 8 0 0 1 8-8H%da8 8 0 0 1 8 8V%dz\"/>\n", bar, width-9, bar)
	for i := range 3 {
		fmt.Fprintf(&b, "<circle class=\"dot\" cx=\"%d\" cy=\"%d\" r=\"5\"/>", frame+6+18*i, bar/2)
	}
	fmt.Fprintf(&b, "\n<svg x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\">\n", frame, bar+frame, columns*cellWidth, rows*cellHeight)
	fmt.Fprintf(&b, "<g class=\"page\" transform=\"translate(0,%d)\">\n", -last*cellHeight)
	end := s.cursors[len(s.cursors)-1]
	fmt.Fprintf(&b, "<rect class=\"cursor\" width=\"%d\" height=\"%d\" transform=\"translate(%d,%d)\"/>\n", cellWidth, cellHeight, end.column*cellWidth, end.row*cellHeight)
	for _, p := range slices.SortedFunc(slices.Values(s.pieces), func(a, b piece) int { return cmp.Compare(a.at, b.at) }) {
		b.WriteString(p.element(numbers))
	}
	b.WriteString("</g>\n</svg>\n</svg>\n")
	return b.Bytes()
}

// element is a piece's text, or nothing if nothing is to be seen of it.
func (p piece) element(numbers map[time.Duration]int) string {
	text := strings.TrimLeft(p.text, " ")
	column := p.column + len(p.text) - len(text)
	text = strings.TrimRight(text, " ")
	if text == "" {
		return ""
	}
	var classes []string
	if n, there := numbers[p.at]; there {
		classes = append(classes, fmt.Sprintf("k%d", n))
	}
	if p.look.bold {
		classes = append(classes, "b")
	}
	if p.look.faint {
		classes = append(classes, "d")
	}
	if p.look.colour > 0 {
		classes = append(classes, fmt.Sprintf("c%d", p.look.colour))
	}
	var escaped bytes.Buffer
	_ = xml.EscapeText(&escaped, []byte(text)) // a buffer takes all
	n := utf8.RuneCountInString(text)
	wide := ""
	if n > 1 { // whatever font there is, the columns are the terminal's
		wide = fmt.Sprintf(" textLength=\"%d\"", n*cellWidth)
	}
	return fmt.Sprintf("<text class=\"%s\" x=\"%d\" y=\"%d\"%s>%s</text>\n", strings.Join(classes, " "), column*cellWidth, p.row*cellHeight+13, wide, escaped.Bytes())
}
