package convert

import (
	"io"
	"slices"

	"github.com/ebpfdump/ebpfdump/capture"
)

// Selection decides which packets of an input go into an output.
type Selection struct {
	// Views are the selected views; empty selects all.
	Views []capture.View
	// Interfaces are the selected interfaces, by their names or their numbers in Sources; empty
	// selects all. A packet must fit both.
	Interfaces []string
	// Sources are the inputs. They must be known before the first packet is taken if Interfaces
	// has numbers.
	Sources []*Source
	// Format is the format of the output. If it has room for only one view, only packets of
	// one view and link type are taken: of the view that Consider found, otherwise of that of
	// the first packet, but of what was sent only if Views asks for it. Nil takes all.
	Format *Format

	best  rank // that Consider found, 0 if it was not called
	first *capture.Interface
	left  []LeftOut
	has   map[*capture.Interface]bool // whether Interfaces has it
}

// rank says how well an interface represents a capture in an output with room for one: the
// kernel's views before what userspace got, and that before what it sent, since a socket filter
// is about what comes. Smaller is better, and 0 is none.
type rank uint8

var viewRanks = map[capture.View]rank{
	capture.ViewKernel: 1, capture.ViewNet: 2, capture.ViewLink: 3, capture.ViewWire: 4,
	capture.ViewCgroup: 5,
	0:                  6, // an interface that is not a view of a socket
	capture.ViewUser:   7, capture.ViewDrop: 8, capture.ViewSent: 9,
}

// rankOf ranks an interface. Of what was sent, that which becomes IP packets comes first.
func rankOf(i *capture.Interface) rank {
	rank := viewRanks[i.View]
	if i.View == capture.ViewSent && !hasSegments(i) {
		rank++
	}
	return rank
}

// view is the same for all interfaces of a view.
func (r rank) view() rank { return min(r, viewRanks[capture.ViewSent]) }

// bestRank ends the search of Consider.
const bestRank rank = 1

// Reason is why packets were left out.
type Reason uint8

const (
	// ReasonView: the output has room for one view, and has another one.
	ReasonView Reason = iota + 1
	// ReasonLinkType: the output has room for one link type, and has another one.
	ReasonLinkType
	// ReasonNoBytes: a call that failed, or moved no bytes, is no packet in the output.
	ReasonNoBytes
	// ReasonNotReceived: the output is for what was received.
	ReasonNotReceived
)

// LeftOut counts the packets of interfaces with one name that did not fit into the output.
type LeftOut struct {
	// Interface is the first of them.
	Interface *capture.Interface
	Packets   uint64
	Reason    Reason
}

// Considers tells whether it depends on all packets which of them are taken, so that Consider
// should be called for every input before the first packet is taken.
func (s *Selection) Considers() bool {
	return s.Format != nil && s.Format.OneView && (len(s.Views) == 0 || slices.Contains(s.Views, capture.ViewSent))
}

// Consider reads an input up to where no better view can come, so that the choice of a view does
// not depend on which packet comes first. An error of the input is not reported: reading it
// again finds it again.
func (s *Selection) Consider(r io.Reader, format *Format, o ReadOptions) {
	o.Doubt = nil
	source, err := Open(r, format, o)
	if err != nil {
		return
	}
	s.Sources = append(s.Sources, source)
	for s.best != bestRank {
		p, err := source.Next()
		if err != nil {
			return
		}
		i := p.Interface
		if s.wants(i) && s.reason(p) == 0 && !s.Format.leavesOut(p) && (s.best == 0 || rankOf(i) < s.best) {
			s.best = rankOf(i)
		}
		if !severalViews(source) {
			return
		}
	}
}

// severalViews tells whether a source may have other views than that of its first packet.
func severalViews(s *Source) bool {
	return s.Format.Name == "pcapng" && slices.ContainsFunc(s.Interfaces(), func(i *capture.Interface) bool { return i.View != 0 })
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
	return (len(s.Views) == 0 || slices.Contains(s.Views, i.View)) && (len(s.Interfaces) == 0 || s.names(i))
}

// names tells whether an interface's name or number is selected.
func (s *Selection) names(i *capture.Interface) bool {
	has, known := s.has[i]
	if known {
		return has
	}
	has = slices.Contains(s.Interfaces, i.Name()) ||
		slices.ContainsFunc(s.Sources, func(of *Source) bool { return of.Has(i, s.Interfaces) })
	if s.has == nil {
		s.has = make(map[*capture.Interface]bool)
	}
	s.has[i] = has
	return has
}

// reason is why the format has no room for a packet, whatever else it has; 0 if it has.
func (s *Selection) reason(p *capture.Packet) Reason {
	if s.Format.fits == nil {
		return 0
	}
	return s.Format.fits(p)
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
	reason := s.reason(p)
	switch {
	case reason == ReasonNotReceived: // to choose its view would not help
	case s.otherView(i):
		reason = ReasonView
		if i.View == 0 { // nobody can choose it
			reason = ReasonLinkType
		}
	case reason == 0 && !s.sameLinkType(i):
		reason = ReasonLinkType
	}
	if reason != 0 {
		s.leaveOut(i, reason)
		return false
	}
	if s.first == nil && !s.Format.leavesOut(p) {
		s.first = i
	}
	return true
}

// otherView tells whether an interface is not of the view that is taken.
func (s *Selection) otherView(i *capture.Interface) bool {
	switch {
	case s.first != nil:
		return i.View != s.first.View
	case s.best != 0:
		return rankOf(i).view() != s.best.view()
	}
	return i.View == capture.ViewSent && len(s.Views) == 0
}

// sameLinkType tells whether an interface has the link type of the first one, or may be that.
func (s *Selection) sameLinkType(i *capture.Interface) bool {
	if s.first == nil {
		return s.best == 0 || rankOf(i) == s.best
	}
	if i == s.first {
		return true
	}
	typeOf := linkType
	if s.Format.link != nil {
		typeOf = s.Format.link
	}
	link, err := typeOf(i)
	first, firstErr := typeOf(s.first)
	return link == first && err == nil && firstErr == nil
}

func (s *Selection) leaveOut(i *capture.Interface, reason Reason) {
	for n := range s.left {
		if left := &s.left[n]; left.Reason == reason && (left.Interface == i || left.Interface.Name() == i.Name()) {
			left.Packets++
			return
		}
	}
	s.left = append(s.left, LeftOut{i, 1, reason})
}

// LeftOut lists what was selected and not taken, because the output has no room for it.
func (s *Selection) LeftOut() []LeftOut { return s.left }
