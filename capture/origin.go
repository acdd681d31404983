package capture

import (
	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/pair"
)

// origin is the source of a session's packets: a socket of its own, or other processes'
// sockets.
type origin interface {
	// routeOf finds the route of a packet. nil is for a socket that is not known any more.
	routeOf(rec *bpf.Record) *route
	// take returns what userspace has got since the last time, ordered by time, in a batch that
	// may reuse the memory of the emptied one. All later deliveries have a time after horizon.
	// The last time it also returns what is incomplete. In a hurry it does not wait for sends
	// that have begun.
	take(emptied batch, last, hurry bool) (taken batch, horizon int64)
	// rests tells whether there is nothing to take. Then the next delivery ends the tap's
	// Sleep.
	rests() bool
	// outlets lists all outlets. It may be called while the capture goes on.
	outlets() []*outlet
}

// own is a socket that the session has opened, and the connections that it accepts.
type own struct {
	home    *route
	tap     *bpf.Tap
	mailbox *mailbox
	losses  []*pair.QueueLoss // if the sockets' counts of drops may include the filter's
	group   *portGroup        // nil if there is one socket
	members []*route          // of the group
}

func (o *own) routeOf(rec *bpf.Record) *route {
	if o.group == nil {
		return o.home
	}
	if i, ok := o.group.byCookie[rec.Cookie]; ok {
		return o.members[i]
	}
	return nil
}

func (o *own) outlets() []*outlet {
	if o.group == nil {
		return []*outlet{o.home.outlet}
	}
	var all []*outlet
	for _, r := range o.members {
		all = append(all, r.outlet)
	}
	return all
}

func (o *own) rests() bool { return o.mailbox.rests() }

func (o *own) take(emptied batch, _, hurry bool) (batch, int64) {
	taken, horizon := o.mailbox.take(emptied, hurry)
	if len(o.losses) > 0 {
		counters, err := o.tap.Counters()
		for _, loss := range o.losses { // any socket may have lost all of them
			loss.Unrecorded(counters.Lost(), err == nil)
		}
	}
	return taken, horizon
}
