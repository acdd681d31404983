package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// expectations are the verdicts that a replay must yield, by packet id.
type expectations map[uint64]*expectation

// expectation is a line of a file of expectations.
type expectation struct {
	text    string // as written
	verdict int32
	all     bool // "keep": any verdict that keeps the whole packet
	seen    bool
	differs bool
	missing []string // what a filter with another verdict could not see of the packet
}

func readExpectations(name string) (expectations, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading the expected verdicts: %w", err)
	}
	defer file.Close()
	expected, err := parseExpectations(file)
	if err != nil {
		return nil, fmt.Errorf("reading the expected verdicts: %s:%w", name, err)
	}
	return expected, nil
}

// parseExpectations parses lines of ID VERDICT, or those that replay prints. Its errors begin with the line number.
func parseExpectations(r io.Reader) (expectations, error) {
	expected := make(expectations)
	lines := bufio.NewScanner(r)
	number := 0
	for lines.Scan() {
		number++
		text, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		id, e, err := parseExpectation(fields)
		if err == nil && expected[id] != nil {
			err = fmt.Errorf("packet %d has a verdict already", id)
		}
		if err != nil {
			return nil, fmt.Errorf("%d: %w", number, err)
		}
		expected[id] = e
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%d: %w", number+1, err)
	}
	if len(expected) == 0 {
		return nil, fmt.Errorf("%d: it expects nothing: write lines of ID VERDICT", number)
	}
	return expected, nil
}

func parseExpectation(fields []string) (id uint64, e *expectation, err error) {
	// A line of replay's own has id, length, verdict and what that means.
	if words := strings.Join(fields[min(3, len(fields)):], " "); words == "keeps all" || strings.HasPrefix(words, "keeps all;") {
		fields = []string{fields[0], "keep"}
	} else if strings.HasPrefix(words, "keeps ") || strings.HasPrefix(words, "drops ") {
		fields = []string{fields[0], fields[2]}
	}
	if len(fields) != 2 {
		return 0, nil, errors.New("a line is a packet's id and its verdict, such as 3 drop")
	}
	if id, err = strconv.ParseUint(fields[0], 10, 64); err != nil {
		return 0, nil, fmt.Errorf("%q is not a packet's id", fields[0])
	}
	verdict, err := verdictNumber(fields[1])
	if err != nil {
		return 0, nil, err
	}
	return id, &expectation{text: fields[1], verdict: verdict, all: fields[1] == "keep"}, nil
}

// compare records the verdict of a replay. The expectation is nil if there is none for
// the packet.
func (x expectations) compare(id uint64, verdict int32, length int, missing []string) (e *expectation, ok bool) {
	if e = x[id]; e == nil {
		return nil, false
	}
	e.seen = true
	ok = verdict == e.verdict || e.all && verdict != 0 && kept(verdict, length) == length
	if !ok {
		e.differs, e.missing = true, missing
	}
	return e, ok
}

// outcome returns an error if verdicts differ or packets are missing. never lists what
// the filter could not see of any packet.
func (x expectations) outcome(name string, never []string) error {
	differ, missing := 0, 0
	unseen := make(map[string]bool)
	for _, e := range x {
		switch {
		case !e.seen:
			missing++
		case e.differs:
			differ++
			for _, what := range slices.Concat(e.missing, never) {
				unseen[what] = true
			}
		}
	}
	if differ == 0 && missing == 0 {
		return nil
	}
	text := fmt.Sprintf("%d of %d verdicts are not as %s expects", differ, len(x), name)
	if missing > 0 {
		text += fmt.Sprintf(", and %d of its packets are not in the capture", missing)
	}
	if len(unseen) > 0 {
		text += fmt.Sprintf("; the filter asks for %s, which it could not see as it did live", strings.Join(slices.Sorted(maps.Keys(unseen)), ", "))
	}
	return differenceError{text}
}
