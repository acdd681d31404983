package convert

import (
	"slices"

	"github.com/ebpfdump/ebpfdump/capture"
)

// Selection tells which packets of an input go into an output.
type Selection struct {
	// Views are the views that are asked for; empty for all packets.
	Views []capture.View
	// Format is the form of the output. If that has room for one view, only packets
	// are taken that fit into one file with the first one: they are of the same
	// view and have the same link type. Nil takes all.
	Format *Format

	first *capture.Interface
	left  []LeftOut
}

// LeftOut counts the packets of an interface that had no room beside the others.
type LeftOut struct {
	Interface *capture.Interface
	Packets   uint64
}

// TakesItem tells whether an item is selected. Blocks besides the packets go where
// the packets of their interface go; those of all interfaces are always taken.
func (s *Selection) TakesItem(item *Item) bool {
	if item.Packet != nil {
		return s.Takes(item.Packet)
	}
	i := item.Interface()
	return i == nil || s.wants(i)
}

// wants tells whether an interface's view is asked for.
func (s *Selection) wants(i *capture.Interface) bool {
	return len(s.Views) == 0 || slices.Contains(s.Views, i.View)
}

// Takes tells whether a packet is selected.
func (s *Selection) Takes(p *capture.Packet) bool {
	i := p.Interface
	if !s.wants(i) {
		return false
	}
	if s.Format == nil || !s.Format.OneView || i == s.first {
		return true
	}
	if s.first == nil {
		s.first = i
		return true
	}
	typeOf := linkType
	if s.Format.link != nil {
		typeOf = s.Format.link
	}
	link, err := typeOf(i)
	first, firstErr := typeOf(s.first)
	if i.View == s.first.View && link == first && err == nil && firstErr == nil {
		return true
	}
	s.leaveOut(i)
	return false
}

func (s *Selection) leaveOut(i *capture.Interface) {
	for n := range s.left {
		if s.left[n].Interface == i {
			s.left[n].Packets++
			return
		}
	}
	s.left = append(s.left, LeftOut{i, 1})
}

// LeftOut lists what was not taken because the output has room for one view.
func (s *Selection) LeftOut() []LeftOut { return s.left }
