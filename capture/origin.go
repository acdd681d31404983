package capture

import (
	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/pair"
)

// origin is whose packets a session captures: those of a socket of its own, or of
// other processes' sockets.
type origin interface {
	// routeOf finds the route of a packet. nil is for a socket that is forgotten.
	routeOf(rec *bpf.Record) *route
	// take gets what userspace has got since the last time, in the order of the times,
	// in a batch whose memory may be that of the emptied one. What it has not got has a
	// time after horizon. The last time it also gives what is not complete.
	take(emptied batch, last bool) (taken batch, horizon int64)
	// rests tells whether there is nothing to take. Then the tap's Sleep ends when there
	// is something.
	rests() bool
	// outlets lists where packets go. It may be asked for while the capture goes on.
	outlets() []*outlet
}

// own is a socket that the session has opened, and the connections that it accepts.
type own struct {
	home    *route
	tap     *bpf.Tap
	mailbox *mailbox
	loss    *pair.QueueLoss // if the filter's drops may be in the socket's count of drops
}

func (o *own) routeOf(*bpf.Record) *route { return o.home }

func (o *own) outlets() []*outlet { return []*outlet{o.home.outlet} }

func (o *own) rests() bool { return o.mailbox.rests() }

func (o *own) take(emptied batch, _ bool) (batch, int64) {
	taken, horizon := o.mailbox.take(emptied)
	if o.loss != nil {
		counters, err := o.tap.Counters()
		o.loss.Unrecorded(counters.Lost(), err == nil)
	}
	return taken, horizon
}
