package survey

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// Difference is a value in which two reports differ.
type Difference struct {
	// Path locates the value: "tcp offset0", "fields hwtstamp readable".
	Path string
	// Old and New are the two values; empty where there is none.
	Old, New string
}

// String is one line, whatever the reports contain.
func (d Difference) String() string {
	return terminal.Plain(fmt.Sprintf("%s: %s -> %s", d.Path, orNothing(d.Old), orNothing(d.New)))
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

// Compare finds all differences between two reports except for their System.
func Compare(before, after *Report) ([]Difference, error) {
	a, err := flatten(before.comparable(after))
	if err != nil {
		return nil, err
	}
	b, err := flatten(after.comparable(before))
	if err != nil {
		return nil, err
	}
	all := maps.Clone(a)
	maps.Copy(all, b)
	var differences []Difference
	for _, path := range slices.Sorted(maps.Keys(all)) {
		if a[path] != b[path] {
			differences = append(differences, Difference{Path: path, Old: a[path], New: b[path]})
		}
	}
	return differences, nil
}

// comparable returns the report with only the status of those sockets whose status
// differs in the other report: all their other differences follow from it.
func (r *Report) comparable(other *Report) *Report {
	c := *r
	c.Sockets = slices.Clone(r.Sockets)
	for i := range c.Sockets {
		s := &c.Sockets[i]
		if o, ok := other.Socket(s.Name); !ok || o.Status != s.Status {
			*s = Socket{Name: s.Name, Status: s.Status, Reason: s.Reason}
		}
	}
	c.Hooks = nil
	for i := range r.Hooks {
		if o, ok := other.hook(r.Hooks[i].Name); ok {
			c.Hooks = append(c.Hooks, r.Hooks[i].comparable(o))
		}
	}
	return &c
}

// comparable is Report.comparable for what one hook shows. Hooks that were not surveyed are in no
// report.
func (h Hook) comparable(other *Hook) Hook {
	h.Sockets = slices.Clone(h.Sockets)
	if h.Missing != "" || other.Missing != "" {
		return Hook{Name: h.Name, Missing: h.Missing}
	}
	for i := range h.Sockets {
		s := &h.Sockets[i]
		at := slices.IndexFunc(other.Sockets, func(o HookSocket) bool { return o.Name == s.Name })
		if at < 0 || other.Sockets[at].Status != s.Status {
			*s = HookSocket{Name: s.Name, Status: s.Status, Reason: s.Reason}
		}
	}
	return h
}

// flatten turns a report into a map from paths to values. It works on the JSON, so that
// no field can be forgotten.
func flatten(r *Report) (map[string]string, error) {
	compared := *r
	compared.System = System{}
	text, err := json.Marshal(compared)
	if err != nil {
		return nil, fmt.Errorf("comparing reports: %w", err)
	}
	var tree map[string]any
	if err := json.Unmarshal(text, &tree); err != nil {
		return nil, fmt.Errorf("comparing reports: %w", err)
	}
	// A socket's name is enough for a path.
	sockets := tree["sockets"]
	delete(tree, "sockets")
	flat := make(map[string]string)
	flattenInto(flat, nil, tree)
	flattenInto(flat, nil, sockets)
	return flat, nil
}

func flattenInto(flat map[string]string, path []string, node any) {
	switch node := node.(type) {
	case nil:
	case map[string]any:
		for key, value := range node {
			flattenInto(flat, append(slices.Clip(path), key), value)
		}
	case []any:
		if len(node) > 0 && elementName(node[0]) != "" {
			for _, element := range node {
				name, object := elementName(element), element.(map[string]any)
				for _, known := range elementNames {
					delete(object, known)
				}
				flattenInto(flat, append(slices.Clip(path), name), object)
			}
			return
		}
		var words []string
		for _, element := range node {
			words = append(words, fmt.Sprint(element))
		}
		flat[strings.Join(path, " ")] = strings.Join(words, ", ")
	default:
		flat[strings.Join(path, " ")] = fmt.Sprint(node)
	}
}

// elementNames are the keys that identify elements, and the summary, which says nothing
// about the kernel.
var elementNames = []string{"name", "summary", "packet", "to", "keep"}

// elementName identifies an element of an array; empty if it is not an object.
func elementName(element any) string {
	object, ok := element.(map[string]any)
	if !ok {
		return ""
	}
	if name, ok := object["name"].(string); ok {
		return name
	}
	if packet, ok := object["packet"].(string); ok {
		if to, ok := object["to"].(string); ok {
			packet += " to " + to
		}
		return packet
	}
	return "keep " + fmt.Sprint(object["keep"])
}
