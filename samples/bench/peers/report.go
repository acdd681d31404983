package main

import (
	"encoding/json"
	"os"
	"slices"
)

// report is everything that was measured.
type report struct {
	Machine machine
	Rounds  int
	Results []result
	// Notes are of what could not be measured here.
	Notes   []string
	Backlog []backlogRow `json:"-"`
}

// result is one workload's.
type result struct {
	Name, Title, Unit string
	Count             int
	Size, Sockets     int
	Costs             map[string]float64
	Whole             bool
	// Runs are each tool's, one a round.
	Runs map[string][]run
}

// run is one turn of one tool.
type run struct {
	// Cost is what the whole machine did, in nanoseconds a unit.
	Cost float64
	// Rate is how many units were sent in a second.
	Rate float64
	// Sent are units; Arrived are packets at the receiver's interface.
	Sent, Arrived int
	// Recorded are the packets in the capture, Reads what the user view has besides.
	Recorded, Reads int
	// Memory is the most that the tool had, in bytes.
	Memory int
}

func loadReport(name string) (*report, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	r := &report{}
	return r, json.Unmarshal(text, r)
}

func (r *report) save(name string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o644)
}

// share is the part of the packets that was recorded.
func (m run) share() float64 {
	if m.Arrived == 0 {
		return 0
	}
	return float64(m.Recorded) / float64(m.Arrived)
}

// all lists one figure of each round.
func (r *result) all(tool string, figure func(run) float64) []float64 {
	var values []float64
	for _, m := range r.Runs[tool] {
		values = append(values, figure(m))
	}
	return values
}

// against lists, for each round, the ratio of a figure to another tool's in that
// round: what changes slowly on the machine is then in both.
func (r *result) against(tool, other string, figure func(run) float64) []float64 {
	mine, theirs := r.all(tool, figure), r.all(other, figure)
	var ratios []float64
	for i := range min(len(mine), len(theirs)) {
		if theirs[i] > 0 {
			ratios = append(ratios, mine[i]/theirs[i])
		}
	}
	return ratios
}

func cost(m run) float64   { return m.Cost }
func rate(m run) float64   { return m.Rate }
func memory(m run) float64 { return float64(m.Memory) }

// median of none is zero.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}
