package main

import (
	"cmp"
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

type point struct{ X, Y float64 }

// style is how a series is drawn: its colour, which is one of hues, and whether
// it is the second one of that colour: dashed, or hollow if it is a bar.
type style struct {
	hue    int
	second bool
}

type series struct {
	name   string
	points []point
	style  style
}

type axis struct {
	name string
	log  bool
	most float64 // zero: what the points need
}

// plot is lines, or bars in groups, with a legend at the right. It carries its
// own background, so that it can be read on a light page and on a dark one.
type plot struct {
	title  string
	x, y   axis
	bars   bool
	series []series
}

const (
	width, height            = 860, 430
	left, right, top, bottom = 82.0, 150.0, 52.0, 58.0
	hues                     = 6
)

// colours are the hues on a light page and on a dark one.
var colours = [hues][2]string{
	{"#6e7781", "#9da7b1"}, {"#0067b8", "#58a6ff"}, {"#007f5f", "#3fc79a"},
	{"#8a6a00", "#e3b341"}, {"#7b3fe4", "#b692ff"}, {"#cf4500", "#ff8d5c"},
}

// sheet is plain CSS without variables, which not every program that draws SVG has.
func sheet() string {
	var b strings.Builder
	b.WriteString(`
.page { fill: #ffffff } text { font: 12px system-ui, sans-serif; fill: #24292f } .title { font-size: 15px; font-weight: 600 }
.grid { stroke: #d8dee4; stroke-width: 1 } .base { stroke: #6e7781; stroke-width: 1 }
.line { fill: none; stroke-width: 2; stroke-linejoin: round } .second { stroke-dasharray: 6 4 } .hollow { fill: #ffffff; stroke-width: 1.5 }
`)
	hueRules(&b, 0)
	b.WriteString(`@media (prefers-color-scheme: dark) {
.page, .hollow { fill: #0d1117 } text { fill: #e6edf3 } .grid { stroke: #30363d } .base { stroke: #8b949e }
`)
	hueRules(&b, 1)
	b.WriteString("}\n")
	return b.String()
}

func hueRules(b *strings.Builder, page int) {
	for i, c := range colours {
		fmt.Fprintf(b, ".h%d { stroke: %s } .mark.h%d { fill: %s }\n", i, c[page], i, c[page])
	}
}

// drawing is a plot on its way to be text.
type drawing struct {
	*plot
	strings.Builder
	xTicks, yTicks []float64
	xFrom, xTo     float64
	yFrom, yTo     float64
}

func (p *plot) svg() string {
	d := &drawing{plot: p}
	d.scale()
	fmt.Fprintf(d, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">`+"\n<style>%s</style>\n",
		width, height, width, height, html.EscapeString(p.title), sheet())
	fmt.Fprintf(d, `<rect class="page" width="%d" height="%d"/>`+"\n", width, height)
	d.text(left, 26, "start", "title", p.title)
	d.axes()
	if p.bars {
		d.drawBars()
	} else {
		for i := range p.series {
			d.drawLine(&p.series[i])
		}
	}
	d.legend()
	d.WriteString("</svg>\n")
	return d.String()
}

// scale finds the ticks and the ends of both axes.
func (d *drawing) scale() {
	low, high := math.Inf(1), math.Inf(-1)
	for _, s := range d.series {
		for _, p := range s.points {
			if !slices.Contains(d.xTicks, p.X) {
				d.xTicks = append(d.xTicks, p.X)
			}
			if !d.y.log || p.Y > 0 { // of a logarithm nothing else can be drawn
				low, high = min(low, p.Y), max(high, p.Y)
			}
		}
	}
	slices.Sort(d.xTicks)
	if len(d.xTicks) > 0 {
		d.xFrom, d.xTo = d.xTicks[0], d.xTicks[len(d.xTicks)-1]
	}
	if low > high {
		low, high = 1, 10
	}
	if d.y.most > 0 {
		high = d.y.most
	}
	if d.y.log {
		d.yTicks = logTicks(low, high)
	} else {
		d.yTicks = linearTicks(high)
	}
	d.yFrom, d.yTo = d.yTicks[0], d.yTicks[len(d.yTicks)-1]
}

// logTicks are 1, 2 and 5 of each power of ten, around low and high. Of many
// powers it takes these alone.
func logTicks(low, high float64) []float64 {
	steps := []float64{1, 2, 5}
	if math.Log10(high/low) > 3 {
		steps = steps[:1]
	}
	var ticks []float64
	for power := math.Floor(math.Log10(low)); ; power++ {
		for _, step := range steps {
			tick := step * math.Pow(10, power)
			if len(ticks) > 0 && tick <= low {
				ticks[0] = tick
				continue
			}
			ticks = append(ticks, tick)
			if tick >= high && len(ticks) > 1 {
				return ticks
			}
		}
	}
}

// linearTicks go from zero to high or a bit above.
func linearTicks(high float64) []float64 {
	if high <= 0 {
		return []float64{0, 1}
	}
	step := math.Pow(10, math.Floor(math.Log10(high)))
	for _, part := range []float64{10, 5, 2} {
		if high/(step/part) <= 10 {
			step /= part
			break
		}
	}
	ticks := []float64{0}
	for i := 1.0; ticks[len(ticks)-1] < high; i++ {
		ticks = append(ticks, i*step)
	}
	return ticks
}

// along says where v stands between from and to, as a part of one.
func along(v, from, to float64, log bool) float64 {
	if log {
		v, from, to = math.Log(v), math.Log(from), math.Log(to)
	}
	if from == to {
		return 0.5
	}
	return (v - from) / (to - from)
}

func (d *drawing) atX(v float64) float64 {
	const margin = 16.0
	if d.bars {
		// A group for each value.
		return left + (float64(slices.Index(d.xTicks, v))+0.5)*(width-left-right)/float64(len(d.xTicks))
	}
	return left + margin + along(v, d.xFrom, d.xTo, d.x.log)*(width-left-right-2*margin)
}

func (d *drawing) atY(v float64) float64 {
	return height - bottom - along(v, d.yFrom, d.yTo, d.y.log)*(height-top-bottom)
}

func (d *drawing) text(x, y float64, anchor, class, s string) {
	fmt.Fprintf(d, `<text x="%.1f" y="%.1f" text-anchor="%s" class="%s">%s</text>`+"\n", x, y, anchor, class, html.EscapeString(s))
}

func (d *drawing) axes() {
	for _, v := range d.yTicks {
		y := d.atY(v)
		fmt.Fprintf(d, `<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`+"\n", left, width-right, y, y)
		d.text(left-8, y+4, "end", "", tickText(v))
	}
	fmt.Fprintf(d, `<line class="base" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`+"\n", left, width-right, height-bottom, height-bottom)
	for _, v := range d.xTicks {
		d.text(d.atX(v), height-bottom+18, "middle", "", tickText(v))
	}
	d.text((left+width-right)/2, height-14, "middle", "", d.x.name)
	middle := (top + height - bottom) / 2
	fmt.Fprintf(d, `<text transform="translate(18 %.1f) rotate(-90)" text-anchor="middle">%s</text>`+"\n", middle, html.EscapeString(d.y.name))
}

func tickText(v float64) string {
	if v == math.Trunc(v) {
		return grouped(int(v))
	}
	return fmt.Sprintf("%g", v)
}

func (s *style) classes() (line, mark string) {
	line, mark = fmt.Sprintf("line h%d", s.hue), fmt.Sprintf("mark h%d", s.hue)
	if s.second {
		return line + " second", fmt.Sprintf("hollow h%d", s.hue)
	}
	return line, mark
}

func (d *drawing) drawLine(s *series) {
	line, mark := s.style.classes()
	var path, marks strings.Builder
	for _, p := range s.points {
		if d.y.log && p.Y <= 0 {
			continue
		}
		x, y := d.atX(p.X), d.atY(p.Y)
		fmt.Fprintf(&path, "%.1f,%.1f ", x, y)
		fmt.Fprintf(&marks, `<circle class="%s" cx="%.1f" cy="%.1f" r="3.5"><title>%s, %s: %s</title></circle>`+"\n",
			mark, x, y, html.EscapeString(s.name), tickText(p.X), grouped(int(math.Round(p.Y))))
	}
	fmt.Fprintf(d, `<polyline class="%s" points="%s"/>`+"\n%s", line, strings.TrimSpace(path.String()), marks.String())
}

func (d *drawing) drawBars() {
	group := (width - left - right) / float64(len(d.xTicks)) * 0.84
	wide := group / float64(len(d.series))
	for i := range d.series {
		s := &d.series[i]
		_, mark := s.style.classes()
		for _, p := range s.points {
			y := d.atY(min(p.Y, d.yTo))
			fmt.Fprintf(d, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%s, %s: %.1f</title></rect>`+"\n",
				mark, d.atX(p.X)-group/2+float64(i)*wide+1, y, wide-2, height-bottom-y, html.EscapeString(s.name), tickText(p.X), p.Y)
		}
	}
}

// legend names the series; those of lines in the order in which they end.
func (d *drawing) legend() {
	order := slices.Clone(d.series)
	if !d.bars {
		slices.SortStableFunc(order, func(a, b series) int {
			return cmp.Compare(b.points[len(b.points)-1].Y, a.points[len(a.points)-1].Y)
		})
	}
	for i, s := range order {
		x, y := float64(width-right+16), top+12+float64(i)*21
		line, mark := s.style.classes()
		if d.bars {
			fmt.Fprintf(d, `<rect class="%s" x="%.1f" y="%.1f" width="14" height="11"/>`+"\n", mark, x+6, y-9)
		} else {
			fmt.Fprintf(d, `<polyline class="%s" points="%.1f,%.1f %.1f,%.1f"/><circle class="%s" cx="%.1f" cy="%.1f" r="3.5"/>`+"\n",
				line, x, y-4, x+26, y-4, mark, x+13, y-4)
		}
		d.text(x+34, y, "start", "", s.name)
	}
}
