package survey

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// WriteJSON prints the report as one JSON object with the structure of Report.
func (r *Report) WriteJSON(w io.Writer) error {
	return terminal.WriteJSON(w, r, "  ")
}

// largestReport limits the bytes of a report that are read. One of all kinds of sockets
// has less than one megabyte.
const largestReport = 64 << 20

// ReadJSON reads a report written by WriteJSON of this or an older version.
func ReadJSON(from io.Reader) (*Report, error) {
	var r Report
	limited := &io.LimitedReader{R: from, N: largestReport}
	if err := json.NewDecoder(limited).Decode(&r); err != nil {
		if limited.N == 0 {
			return nil, fmt.Errorf("reading a survey: it has more than %d bytes", largestReport)
		}
		return nil, fmt.Errorf("reading a survey: it is not one in JSON, as survey --json writes it: %w", err)
	}
	if r.Schema != Schema {
		return nil, fmt.Errorf("reading a survey: it has schema %d, and this program knows %d", r.Schema, Schema)
	}
	return &r, nil
}

// Only returns the report reduced to the sockets with these names.
func (r *Report) Only(names []string) *Report {
	only := *r
	only.Sockets = nil
	for _, name := range names {
		if s, ok := r.Socket(name); ok {
			only.Sockets = append(only.Sockets, *s)
		}
	}
	only.Hooks = slices.Clone(r.Hooks)
	for i := range only.Hooks {
		h := &only.Hooks[i]
		h.Sockets = slices.DeleteFunc(slices.Clone(h.Sockets), func(s HookSocket) bool { return !slices.Contains(names, s.Name) })
	}
	return &only
}

// Names lists the report's sockets.
func (r *Report) Names() []string {
	var names []string
	for i := range r.Sockets {
		names = append(names, r.Sockets[i].Name)
	}
	return names
}
