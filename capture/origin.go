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
	loss    *pair.QueueLoss // if the socket's count of drops may include the filter's
}

func (o *own) routeOf(*bpf.Record) *route { return o.home }

func (o *own) outlets() []*outlet { return []*outlet{o.home.outlet} }

func (o *own) rests() bool { return o.mailbox.rests() }

func (o *own) take(emptied batch, _, hurry bool) (batch, int64) {
	taken, horizon := o.mailbox.take(emptied, hurry)
	if o.loss != nil {
		counters, err := o.tap.Counters()
		o.loss.Unrecorded(counters.Lost(), err == nil)
	}
	return taken, horizon
}
