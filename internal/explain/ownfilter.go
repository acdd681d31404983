package explain

import (
	"fmt"
	"slices"

	"github.com/ebpfdump/ebpfdump/capture"
)

// OwnFilters is what the file tells of the filters that the sockets have of their own.
type OwnFilters struct {
	// Filters says which they are and how their verdicts are known, at most eight.
	Filters []string `json:"filters"`
	// Asked counts the packets that a filter drops or truncates according to its answer when it was
	// asked afterwards, and Unasked those that it could not be asked about.
	Asked   Count `json:"asked_afterwards"`
	Unasked Count `json:"not_asked_about"`
	// Belied counts those of which userspace got something else than the answer.
	Belied Count `json:"belied"`
}

// ownFiltersShown bounds Filters.
const ownFiltersShown = 8

// ownFilters is made when there is something to tell.
func (s *socket) ownFilters() *OwnFilters {
	if s.out.OwnFilters == nil {
		s.out.OwnFilters = &OwnFilters{Filters: []string{}}
	}
	return s.out.OwnFilters
}

// hasFilter notes the filter of an interface's sockets.
func (s *socket) hasFilter(words string) {
	if o := s.ownFilters(); len(o.Filters) < ownFiltersShown && !slices.Contains(o.Filters, words) {
		o.Filters = append(o.Filters, words)
	}
}

// countAnswer counts what a filter answered about a packet of the kernel view, or what a packet of
// the user view shows of that.
func (s *socket) countAnswer(p *capture.Packet) {
	length := uint64(max(p.Len, len(p.Data)))
	if p.Verdict.Asked {
		s.ownFilters().Asked.add(p.ID, length)
	}
	if p.Verdict.Unasked {
		s.ownFilters().Unasked.add(p.ID, length)
	}
	if p.Receipt.Belied {
		s.ownFilters().Belied.add(p.ID, length)
	}
}

func (s *socket) sayOwnFilters() Finding {
	f := Finding{Topic: "filter"}
	o := s.out.OwnFilters
	if o == nil {
		return f
	}
	for _, words := range o.Filters {
		f.Text += fmt.Sprintf("The socket has a filter of its own: %s. ", words)
	}
	if n := o.Asked.Packets; n > 0 {
		f.Text += fmt.Sprintf("What is said of %s is its answer when it was asked afterwards. ", packetsOf(n))
	}
	if n := o.Unasked.Packets; n > 0 {
		f.Text += fmt.Sprintf("It could not be asked about %s. ", packetsOf(n))
	}
	if n := o.Belied.Packets; n > 0 {
		f.Warning = true
		f.Text += fmt.Sprintf("Of %s userspace got something else than it answered (%s): it has state, or depends on something that has changed.", packetsOf(n), o.Belied.named())
	}
	return f
}
