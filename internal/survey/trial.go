package survey

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/experiment"
)

// trial is one experiment: a socket in a network namespace of its own, the probe, and a
// packet socket as the reference.
type trial struct {
	row     Row
	payload []byte
	mtu     int // of lo; 0 leaves it as it is, at 64 KiB
	verdict *bpf.Verdict
	// filter is attached to the socket instead of the tap.
	filter capture.Filter
	// prepare is called with the socket before it is bound.
	prepare func(fd int) error
	// send is called in the network namespace in place of the probe.
	send func(*capture.Session) error
	// echo has the socket send back what it gets.
	echo bool
	// watcher is the filter of a second packet socket; nil for none.
	watcher capture.Filter
	// listenerOnly attaches the filter only to the listener, to see whether accepted
	// sockets inherit it.
	listenerOnly bool
}

// observation is the result of a trial.
type observation struct {
	// openErr is why the socket could not be opened or does not accept a filter. Nothing
	// else is known then.
	openErr error
	// probeErr is why the probe failed.
	probeErr error

	records    []record                        // of the tap, in order
	packets    []capture.Packet                // of all views
	wire       []frame                         // received over lo
	watched    [][]byte                        // that the watcher's socket got
	runs       map[string][]experiment.HookRun // of recorders, by the names of their hooks
	statistics []capture.Statistics
}

// record is a copy of a record of the tap, without the bytes below offset 0.
type record struct {
	bpf.Record
	data []byte
}

// ringSize is large enough for every trial.
const ringSize = 2 << 20

var keptViews = []capture.View{capture.ViewKernel, capture.ViewUser, capture.ViewNet, capture.ViewLink}

func (t trial) run(ctx context.Context) (_ *observation, err error) {
	ns, err := capture.NewNamespace()
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if t.mtu > 0 {
		if err := ns.SetMTU(t.mtu); err != nil {
			return nil, err
		}
	}
	wire, _ := capture.KindByName("packet")
	reference, err := capture.Open(capture.Config{Kind: wire, Namespace: ns, Options: capture.Options{RingSize: ringSize}})
	if err != nil {
		return nil, fmt.Errorf("opening the reference: %w", err)
	}
	defer reference.Close()
	watcher, err := t.openWatcher(wire, ns)
	if err != nil {
		return nil, err
	}
	if watcher != nil {
		defer watcher.Close()
	}

	o := &observation{}
	config := capture.Config{
		Kind: t.row.Kind, Protocol: t.row.protocol, Address: t.row.address,
		Options: capture.Options{Views: keptViews, RingSize: ringSize, Verdict: t.verdict},
		Filter:  t.filter, ListenerOnly: t.listenerOnly, Prepare: t.prepare, Echo: t.echo && t.row.Kind.CanEcho(),
		Observe: o.observe, Namespace: ns,
	}
	session, err := capture.Open(config)
	if err != nil {
		o.openErr = err
		return o, nil
	}
	defer session.Close()
	if t.send != nil {
		send := t.send
		t.send = func(s *capture.Session) error { return ns.Do(func() error { return send(s) }) }
	}
	return o, o.watch(ctx, t, session, reference, watcher)
}

// openWatcher opens the second packet socket, if there is one.
func (t trial) openWatcher(kind *capture.Kind, ns *capture.Namespace) (*capture.Session, error) {
	if t.watcher == nil {
		return nil, nil
	}
	watcher, err := capture.Open(capture.Config{
		Kind: kind, Namespace: ns, Filter: t.watcher, Options: capture.Options{RingSize: bpf.MinRingSize, Views: []capture.View{capture.ViewUser}},
	})
	if err != nil {
		return nil, fmt.Errorf("opening a packet socket: %w", err)
	}
	return watcher, nil
}

// watch sends the probe, and waits until neither side has any more packets. watcher may be nil.
func (o *observation) watch(ctx context.Context, t trial, session, reference, watcher *capture.Session) (err error) {
	var kept, frames, watched memory
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ran := make(chan error, 3)
	go func() { ran <- reference.Run(ctx, &frames) }()
	go func() { ran <- session.Run(ctx, &kept) }()
	go func() {
		if watcher == nil {
			ran <- nil
			return
		}
		ran <- watcher.Run(ctx, &watched)
	}()
	if t.send == nil {
		o.probeErr = session.ProbeWith(ctx, t.payload)
	} else if o.probeErr = t.send(session); o.probeErr == nil {
		err = awaitQuiet(ctx, session, reference)
	}
	cancel()
	if err != nil {
		return errors.Join(err, <-ran, <-ran, <-ran)
	}
	if err := errors.Join(<-ran, <-ran, <-ran); err != nil {
		return fmt.Errorf("capturing: %w", err)
	}
	for _, p := range watched.packets {
		o.watched = append(o.watched, p.Data)
	}
	if o.statistics, err = session.Statistics(); err != nil {
		return err
	}
	o.packets = kept.packets
	o.takeWire(t.row.Kind.Name, frames.packets)
	return nil
}

// awaitQuiet waits until nothing has come to either session for a while.
func awaitQuiet(ctx context.Context, sessions ...*capture.Session) error {
	const quiet, tick = 300 * time.Millisecond, 20 * time.Millisecond
	var last []capture.Counts
	for since := time.Now(); time.Since(since) < quiet && ctx.Err() == nil; time.Sleep(tick) {
		var now []capture.Counts
		for _, s := range sessions {
			counts, err := s.Counts()
			if err != nil {
				return err
			}
			now = append(now, counts)
		}
		if !slices.Equal(now, last) {
			last, since = now, time.Now()
		}
	}
	return nil
}

// takeWire collects the frames that the reference recorded. A packet socket on lo gets
// each frame twice; the received copy counts.
func (o *observation) takeWire(kind string, packets []capture.Packet) {
	wire := &capture.Interface{
		Kind: kind, View: capture.ViewWire, Layer: capture.LayerLink,
		Description: "what was received over lo, as a packet socket gets it",
	}
	times := make(map[uint64]int64) // of the frame, not of recvmsg
	for _, p := range packets {
		if p.Interface.View == capture.ViewKernel {
			times[p.ID] = p.Time
		}
	}
	for _, p := range packets {
		if p.Interface.View != capture.ViewUser || p.Direction != capture.Inbound {
			continue
		}
		o.wire = append(o.wire, parseFrame(p.Data))
		if at, ok := times[p.ID]; ok {
			p.Time = at
		}
		p.Interface, p.ID, p.Call, p.Receipt = wire, 0, "", capture.Receipt{}
		o.packets = append(o.packets, p)
	}
}

func (o *observation) observe(r *bpf.Record) {
	o.records = append(o.records, record{Record: *r, data: bytes.Clone(r.Data)})
}

// delivered lists the messages that userspace got, without the ends of connections. A
// stream is one message.
func (o *observation) delivered(kind *capture.Kind) (all [][]byte, ended bool) {
	var stream []byte
	for _, p := range o.packets {
		if p.Interface.View != capture.ViewUser {
			continue
		}
		switch {
		case kind.Listens() && p.Len == 0:
			ended = true
		case kind.Stream():
			stream = append(stream, p.Data...)
		default:
			all = append(all, p.Data)
		}
	}
	if len(stream) > 0 {
		all = append(all, stream)
	}
	return all, ended
}

// memory is a Sink that keeps copies of packets.
type memory struct {
	mu      sync.Mutex
	packets []capture.Packet
}

func (m *memory) WritePacket(p *capture.Packet) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := *p
	kept.Data = bytes.Clone(p.Data)
	m.packets = append(m.packets, kept)
	return nil
}
