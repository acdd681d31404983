package explain

import "github.com/ebpfdump/ebpfdump/capture"

// view is the state of one view of a socket while its packets are read.
type view struct {
	out *View
	// ours is the first interface whose packets have the form that the Writer gives them.
	ours *capture.Interface
	// untimed says that it has no real times.
	untimed bool
	// mixed says that not all of its packets begin with the same layer.
	mixed bool
	// synthetic counts the packets with a synthetic IP header, and invented those of them
	// whose addresses are invented.
	synthetic, invented uint64
	// printed says that the packets were not recorded by a tap, but printed by a filter.
	printed bool
	// last is the interface of the last packet; made and invents tell whether it adds to
	// synthetic and invented.
	last          *capture.Interface
	made, invents bool
	// begun and ended are the times of its first and its last packet.
	begun, ended int64
	// strange says that its packets have another header than the one that the Writer
	// would add.
	strange bool
}

// view returns the view of an interface, creating it if necessary.
func (s *socket) view(i *capture.Interface) *view {
	v := s.views[i.View]
	if v != nil && v.last == i {
		return v
	}
	if v == nil {
		v = &view{out: &View{Name: i.View.String(), Description: i.Description}}
		s.views[i.View] = v
		s.out.Views = append(s.out.Views, v.out)
		v.untimed = i.Times == capture.TimesNone
		s.out.Timed = s.out.Timed && i.Times == capture.TimesRecorded
	}
	v.take(i)
	if i.Filter != "" {
		s.hasFilter(i)
	}
	switch {
	case i.Process == "":
		s.own = true
	default:
		s.ownedBy(i.Process)
	}
	return v
}

// take sets the interface of the next packets. A view may have several: of different
// sockets, or for either version of IP.
func (v *view) take(i *capture.Interface) {
	v.last = i
	v.printed = v.printed || i.Source == capture.SourceTrace
	synthetic := i.Header == capture.HeaderSynthetic || i.Header == capture.HeaderInvented
	v.made = i.Layer == capture.LayerTransport && synthetic
	v.strange = i.Layer == capture.LayerForeign || i.Layer != capture.LayerTransport && synthetic
	v.invents = v.made && i.Header == capture.HeaderInvented
	switch {
	case v.strange:
	case v.ours == nil:
		v.ours = i
	default:
		v.mixed = v.mixed || i.Layer != v.ours.Layer
	}
}

func (v *view) count(p *capture.Packet) {
	if v.out.Packets == 0 {
		v.begun, v.ended = p.Time, p.Time
	}
	v.begun, v.ended = min(v.begun, p.Time), max(v.ended, p.Time)
	v.out.Packets++
	v.out.Bytes += uint64(max(p.Len, len(p.Data)))
	v.out.Drops += p.Drops
	if len(p.Data) < p.Len {
		v.out.Cut++
	}
	if v.made {
		v.synthetic++
	}
	if v.invents {
		v.invented++
	}
	switch p.Direction {
	case capture.Inbound:
		v.out.Received++
	case capture.Outbound:
		v.out.Sent++
	default:
		v.out.Undirected++
	}
}

// addStatistics adds an interface's statistics. Sockets of one kind can have several
// interfaces.
func (v *view) addStatistics(s capture.Statistics) {
	if v.out.Statistics == nil {
		v.out.Statistics = &Statistics{}
	}
	sum := v.out.Statistics
	sum.Received += s.Received
	sum.Delivered += s.Delivered
	sum.Dropped += s.Dropped
	sum.NotWanted += s.Unwanted
	sum.Accepted += s.Accepted
	sum.OSDropped += s.OSDropped
	if s.Comment != "" && sum.Comment != "" {
		sum.Comment += "\n"
	}
	sum.Comment += s.Comment
}

// before records how far before offset 0 a view begins.
func (v *view) before(n int) {
	if v.out.Before == nil {
		v.out.Before = &Range{int64(n), int64(n)}
	}
	v.out.Before.Least, v.out.Before.Most = min(v.out.Before.Least, int64(n)), max(v.out.Before.Most, int64(n))
}
