package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
	"github.com/ebpfdump/ebpfdump/internal/explain"
)

// chosenSource is a capture as if it had some of its interfaces only.
type chosenSource struct {
	*convert.Source
	names []string
}

// chosen is what is explained of a capture.
func (f *explainFlags) chosen(source *convert.Source) explain.Source {
	if len(f.interfaces) == 0 {
		return source
	}
	return &chosenSource{source, f.interfaces}
}

// missesInterfaces says that a file has none of the interfaces that were asked for, or none of them is a
// view.
func (f *explainFlags) missesInterfaces(name string, source *convert.Source) error {
	if len(f.interfaces) == 0 {
		return nil
	}
	found := f.chosen(source).Interfaces()
	if slices.ContainsFunc(found, func(i *capture.Interface) bool { return i.View != 0 }) {
		return nil
	}
	what := "none of the interfaces that were asked for is in it"
	if len(found) > 0 {
		what = "no interface that was asked for is a view of a socket (ebpfdump convert --interface takes out what they have)"
	}
	return fmt.Errorf("reading %s: %s: there are %s", name, what, listedInterfaces(source))
}

// listedInterfaces lists the interfaces of files.
func listedInterfaces(sources ...*convert.Source) string {
	var all []string
	for _, s := range sources {
		for _, name := range s.InterfaceNames() {
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	if len(all) == 0 {
		return "none that have names"
	}
	const shown = 12
	if more := len(all) - shown; more > 0 {
		all = append(all[:shown], fmt.Sprintf("%d more", more))
	}
	return strings.Join(all, ", ")
}

// Next implements explain.Source.
func (s *chosenSource) Next() (*capture.Packet, error) {
	for {
		p, err := s.Source.Next()
		if err != nil || s.Has(p.Interface, s.names) {
			return p, err
		}
	}
}

// Interfaces implements explain.Source.
func (s *chosenSource) Interfaces() []*capture.Interface {
	return slices.DeleteFunc(slices.Clone(s.Source.Interfaces()), func(i *capture.Interface) bool { return !s.Has(i, s.names) })
}

// Statistics implements explain.Source.
func (s *chosenSource) Statistics() []capture.Statistics {
	return slices.DeleteFunc(slices.Clone(s.Source.Statistics()), func(st capture.Statistics) bool { return !s.Has(st.Interface, s.names) })
}
