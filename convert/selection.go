package convert

import (
	"slices"

	"github.com/ebpfdump/ebpfdump/capture"
)

// Selection decides which packets of an input go into an output.
type Selection struct {
	// Views are the selected views; empty selects all.
	Views []capture.View
	// Format is the format of the output. If it has room for only one view, only packets
	// of the same view and link type as the first one are taken. Nil takes all.
	Format *Format

	first *capture.Interface
	left  []LeftOut
}

// LeftOut counts the packets of an interface that did not fit into the output's only
// view.
type LeftOut struct {
	Interface *capture.Interface
	Packets   uint64
}

// TakesItem tells whether an item is selected. A block other than a packet follows the
// packets of its interface; one that concerns all interfaces is always taken.
func (s *Selection) TakesItem(item *Item) bool {
	if item.Packet != nil {
		return s.Takes(item.Packet)
	}
	i := item.Interface()
	return i == nil || s.wants(i)
}

// wants tells whether an interface's view is selected.
func (s *Selection) wants(i *capture.Interface) bool {
	return len(s.Views) == 0 || slices.Contains(s.Views, i.View)
}

// Takes tells whether a packet is selected.
func (s *Selection) Takes(p *capture.Packet) bool {
	i := p.Interface
	if !s.wants(i) {
		return false
	}
	if s.Format == nil || !s.Format.OneView {
		return true
	}
	if s.Format.fits != nil && !s.Format.fits(p) {
		s.leaveOut(i)
		return false
	}
	if i == s.first {
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

// LeftOut lists what was not taken because the output has room for only one view.
func (s *Selection) LeftOut() []LeftOut { return s.left }
