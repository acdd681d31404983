package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// backlogRow is one structure of BenchmarkBacklog: what a round costs, in
// nanoseconds (Y), while so many others wait (X).
type backlogRow struct {
	Name   string
	Points []point
}

// parseBacklog reads what go test -bench prints, in lines such as
//
//	BenchmarkBacklog/alike/waiting=4000-2    50000    231.6 ns/op
//
// Of a benchmark that ran several times (-count) it takes the median.
func parseBacklog(text string) ([]backlogRow, error) {
	type place struct {
		name    string
		waiting float64
	}
	measured := make(map[place][]float64)
	var order []place
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || !strings.HasPrefix(fields[0], "BenchmarkBacklog/") {
			continue
		}
		name, waiting, ok := strings.Cut(strings.TrimPrefix(fields[0], "BenchmarkBacklog/"), "/waiting=")
		waiting, _, _ = strings.Cut(waiting, "-") // the number of cores
		x, err := strconv.ParseFloat(waiting, 64)
		at := slices.Index(fields, "ns/op")
		if !ok || err != nil || at < 1 {
			return nil, fmt.Errorf("the line %q is not understood", strings.TrimSpace(line))
		}
		y, err := strconv.ParseFloat(fields[at-1], 64)
		if err != nil {
			return nil, fmt.Errorf("the line %q is not understood", strings.TrimSpace(line))
		}
		p := place{name, x}
		if measured[p] == nil {
			order = append(order, p)
		}
		measured[p] = append(measured[p], y)
	}
	if len(order) == 0 {
		return nil, errors.New("there is no line of BenchmarkBacklog in it")
	}
	var rows []backlogRow
	for _, p := range order {
		i := slices.IndexFunc(rows, func(r backlogRow) bool { return r.Name == p.name })
		if i < 0 {
			i = len(rows)
			rows = append(rows, backlogRow{Name: p.name})
		}
		rows[i].Points = append(rows[i].Points, point{p.waiting, median(measured[p])})
	}
	return rows, nil
}
