package main

// The plots, by file name.
const (
	plotCost     = "cost.svg"
	plotRecorded = "recorded.svg"
	plotSockets  = "sockets.svg"
	plotBacklog  = "backlog.svg"
)

// look is how a tool is drawn, in all plots alike.
var look = map[string]style{
	nobody:     {hue: 0},
	tcpdump:    {hue: 1},
	dumpcap:    {hue: 2},
	printed:    {hue: 3},
	sockKernel: {hue: 4},
	sockBoth:   {hue: 4, second: true},
	pidKernel:  {hue: 5},
	pidBoth:    {hue: 5, second: true},
}

// plots makes those for which something was measured.
func (r *report) plots() map[string]*plot {
	all := map[string]*plot{
		plotCost: {
			title: "What each datagram costs, sent as fast as one process can",
			x:     axis{name: "bytes in a datagram", log: true}, y: axis{name: "ns of all cores", log: true},
			series: r.series(func(x *result) int { return x.Size }, func(x *result, tool string) float64 { return median(x.all(tool, cost)) }),
		},
		plotRecorded: {
			title: "How much of it is recorded",
			x:     axis{name: "bytes in a datagram"}, y: axis{name: "% of the datagrams", most: 100},
			bars: true,
			series: without(nobody, r.series(func(x *result) int { return x.Size },
				func(x *result, tool string) float64 { return 100 * median(x.all(tool, run.share)) })),
		},
		plotSockets: {
			title: "What each datagram costs beside many sockets of the same process",
			x:     axis{name: "sockets", log: true}, y: axis{name: "ns of all cores"},
			series: r.series(func(x *result) int { return x.Sockets }, func(x *result, tool string) float64 { return median(x.all(tool, cost)) }),
		},
		plotBacklog: {
			title: "What pairing one packet costs while others wait",
			x:     axis{name: "packets, reads or connections that wait", log: true}, y: axis{name: "ns", log: true},
			series: backlogSeries(r.Backlog),
		},
	}
	for name, p := range all {
		if len(p.series) == 0 {
			delete(all, name)
		}
	}
	return all
}

// series has a line for each tool: where a result stands, and its figure.
func (r *report) series(place func(*result) int, figure func(r *result, tool string) float64) []series {
	var all []series
	for _, t := range tools {
		s := series{name: t.name, style: look[t.name]}
		for i := range r.Results {
			x := &r.Results[i]
			if place(x) > 0 && len(x.Runs[t.name]) > 0 {
				s.points = append(s.points, point{float64(place(x)), figure(x, t.name)})
			}
		}
		if len(s.points) > 0 {
			all = append(all, s)
		}
	}
	return all
}

func without(name string, all []series) []series {
	var rest []series
	for _, s := range all {
		if s.name != name {
			rest = append(rest, s)
		}
	}
	return rest
}

func backlogSeries(rows []backlogRow) []series {
	var all []series
	for i, row := range rows {
		all = append(all, series{name: row.Name, points: row.Points, style: style{hue: i % hues, second: i >= hues}})
	}
	return all
}
