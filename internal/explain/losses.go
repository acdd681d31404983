package explain

import (
	"maps"
	"slices"

	"github.com/ebpfdump/ebpfdump/capture"
)

// What a capture loses is in no record, so nobody knows which kind of socket it was of. The file has the loss of a
// view with one of the kinds that have that view, since a number must stand somewhere.

// lossOfView says, of the views whose losses are told, what that is of which something is lost.
var lossOfView = map[capture.View]string{
	capture.ViewKernel: "the filter saw", capture.ViewUser: "calls returned", capture.ViewSent: "was sent",
	capture.ViewCgroup: "the hooks saw", capture.ViewWire: "was on the wire", capture.ViewDrop: "the kernel dropped",
}

// undivide notes which losses may be of any of several kinds.
func (a *analysis) undivide() {
	for _, v := range slices.Sorted(maps.Keys(lossOfView)) {
		var all []*socket
		for _, s := range a.order {
			if s.views[v] != nil {
				all = append(all, s)
			}
		}
		if len(all) < 2 {
			continue
		}
		// At the end each is counted once; a packet that tells of some may be of another kind than the one that has the number.
		counted := !slices.ContainsFunc(all, func(s *socket) bool { return s.views[v].out.Statistics == nil })
		var with []string
		for _, s := range all {
			if s.counted[v] = counted; s.lossOf(v) > 0 {
				with = append(with, s.out.Kind)
			}
		}
		for _, s := range all {
			if len(with) > 0 {
				s.undivided[v] = with
				s.out.Undivided = append(s.out.Undivided, v.String())
			}
		}
	}
}

// lossOf is what stands with this kind of what the capture has lost of a view.
func (s *socket) lossOf(v capture.View) uint64 {
	of := s.views[v]
	if of == nil {
		return 0
	}
	told := of.out.Drops
	if v == capture.ViewUser {
		told = s.out.Losses.Calls // the rest is what receive queues dropped
	}
	switch {
	case of.out.Statistics == nil:
		return told
	case s.counted[v]:
		return of.out.Statistics.Dropped
	}
	return max(told, of.out.Statistics.Dropped)
}

// mayLack tells whether the capture has lost something of a view that may be of this kind of socket.
func (s *socket) mayLack(v capture.View) bool { return s.lossOf(v) > 0 || len(s.undivided[v]) > 0 }

// sayNothing says that the file has nothing of a view. flat is how that is said if the capture has lost nothing.
func (s *socket) sayNothing(v capture.View, flat string) string {
	if s.mayLack(v) {
		return "The file has nothing that " + lossOfView[v] + "."
	}
	return flat
}

// sayLoss is a sentence about what the capture has lost of a view, if it has. counted is that in words.
func (s *socket) sayLoss(v capture.View, counted string) string {
	with, of := s.undivided[v], lossOfView[v]
	switch {
	case s.lossOf(v) > 0 && len(with) > 0:
		return " The capture lost " + counted + " of what " + of + ", of whichever kind of socket here."
	case s.lossOf(v) > 0:
		return " The capture lost " + counted + " of what " + of + "."
	case len(with) > 0:
		return " " + s.sayElsewhere(v)
	}
	return ""
}

// sayElsewhere says that a loss has its number elsewhere.
func (s *socket) sayElsewhere(v capture.View) string {
	return "What the capture lost of what " + lossOfView[v] + " may be of this kind of socket as well: it is counted with " + list(s.undivided[v]) + "."
}

// lostElsewhere tells whether the capture has lost something of a view that may be of this kind, and that another has
// the number of.
func (s *socket) lostElsewhere(v capture.View) bool {
	return s.lossOf(v) == 0 && len(s.undivided[v]) > 0
}

// sayWhoseTap says of what the tap lost whose that was, if that is not sure.
func (s *socket) sayWhoseTap() string {
	if len(s.undivided[capture.ViewKernel]) == 0 {
		return ""
	}
	return " Of which kind of socket here that was is not known."
}
