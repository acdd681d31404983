package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ebpfdump/ebpfdump/capture"
)

// OwnFilters is what the file tells of the filters that the sockets have of their own.
type OwnFilters struct {
	// Filters says which they are and how their verdicts are known, at most eight.
	Filters []string `json:"filters"`
	// Judged tells which packets came while a socket had each of Filters, as far as the file does, and
	// what it decided. Without counts the packets that came while it had another filter, and while it
	// had none, as long as there were others.
	Judged   []Judged `json:"judged"`
	Further  Count    `json:"judged_by_further"`
	Unjudged Count    `json:"judged_by_none"`
	// Asked counts the packets that a filter drops or truncates according to its answer when it was
	// asked afterwards, and Unasked those that it could not be asked about.
	Asked   Count `json:"asked_afterwards"`
	Unasked Count `json:"not_asked_about"`
	// Belied counts those of which userspace got something else than the answer.
	Belied Count `json:"belied"`
}

// Judged is what a filter decided.
type Judged struct {
	// Filter is one of OwnFilters.Filters.
	Filter string `json:"filter"`
	// Packets are those that it decided about. Dropped and Truncated count those of them of which that
	// is known.
	Packets   Count  `json:"packets"`
	Dropped   uint64 `json:"dropped"`
	Truncated uint64 `json:"truncated"`
}

// ownFiltersShown bounds Filters.
const ownFiltersShown = 8

// ownFilters is made when there is something to tell.
func (s *socket) ownFilters() *OwnFilters {
	if s.out.OwnFilters == nil {
		s.out.OwnFilters = &OwnFilters{Filters: []string{}, Judged: []Judged{}}
	}
	return s.out.OwnFilters
}

// hasFilter notes the filter of an interface's sockets.
func (s *socket) hasFilter(i *capture.Interface) {
	words := i.Filter
	some, shared := strings.CutPrefix(words, capture.FilterOfSome)
	if _, known := s.filters[i]; known {
		return
	}
	if s.filters == nil {
		s.filters = make(map[*capture.Interface]string)
	}
	if s.filters[i] = words; shared { // the packets say which of them
		s.filters[i], words = "", some
	}
	s.judged(words)
}

// judged is the count of a filter, nil if there are so many that it has none.
func (s *socket) judged(words string) *Judged {
	o := s.ownFilters()
	at := slices.Index(o.Filters, words)
	if at < 0 && len(o.Filters) < ownFiltersShown {
		at = len(o.Filters)
		o.Filters, o.Judged = append(o.Filters, words), append(o.Judged, Judged{Filter: words})
	}
	if at < 0 {
		return nil
	}
	return &o.Judged[at]
}

// countFilter counts a packet of the kernel view for the filter that its socket had.
func (s *socket) countFilter(p *capture.Packet) {
	if p.Filter.Changed {
		if s.filters == nil {
			s.filters = make(map[*capture.Interface]string)
		}
		s.filters[p.Interface] = p.Filter.Now
	}
	words := s.filters[p.Interface]
	length := uint64(max(p.Len, len(p.Data)))
	if words == "" {
		s.unfiltered.add(p.ID, length)
		return
	}
	of := s.judged(words)
	if of == nil {
		s.ownFilters().Further.add(p.ID, length)
		return
	}
	of.Packets.add(p.ID, length)
	switch {
	case p.Verdict.Dropped:
		of.Dropped++
	case p.Verdict.Of > 0:
		of.Truncated++
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

// beginning is that of what is said of a filter, where there are several.
func beginning(words string) string {
	const most = 120
	if len(words) > most {
		return strings.ToValidUTF8(words[:most], "") + "..."
	}
	return words
}

func (s *socket) sayOwnFilters() Finding {
	f := Finding{Topic: "filter"}
	o := s.out.OwnFilters
	if o == nil {
		return f
	}
	o.Unjudged = s.unfiltered
	none := o.Unjudged.Packets
	several := len(o.Judged) > 1 || none > 0
	if several {
		f.Text += "Not all packets met the same filter. "
	}
	for i := range o.Judged {
		of := &o.Judged[i]
		switch {
		case several:
			f.Text += fmt.Sprintf("For %s (%d dropped, %d truncated): %s. ", of.Packets.named(), of.Dropped, of.Truncated, beginning(of.Filter))
		case capture.IsOtherTap(of.Filter):
			f.Text += fmt.Sprintf("The socket has a filter: %s. ", of.Filter)
		default:
			f.Text += fmt.Sprintf("The socket has a filter of its own: %s. ", of.Filter)
		}
	}
	if n := o.Further.Packets; n > 0 {
		f.Text += fmt.Sprintf("For %s: further ones. ", o.Further.named())
	}
	if none > 0 {
		f.Text += fmt.Sprintf("For %s: none. ", o.Unjudged.named())
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
