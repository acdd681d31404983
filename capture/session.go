package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/pair"
	"golang.org/x/sys/unix"
)

const (
	// pollInterval is how long to wait for more packets before the ring is read.
	pollInterval = 15 * time.Millisecond
	// immediateInterval replaces it for a capture that is Immediate.
	immediateInterval = time.Millisecond
	// silence is how long nothing must have come for the next packet to be processed at once.
	silence = 10 * time.Millisecond
)

// Config is what a Session captures.
type Config struct {
	Options
	// Kind of socket to open: one of Kinds, as KindByName finds it.
	Kind *Kind
	// Listen is the address to bind the socket to. Default: the kind's Loopback. Raw sockets
	// have no port: theirs is where the probe goes.
	Listen netip.AddrPort
	// Address is the same for kinds without IP address and port: an interface, a path or @NAME,
	// netlink groups, a vsock port. Default: the kind's Address.
	Address string
	// Groups are multicast groups that the socket joins (UDP only). Then nothing of other groups comes
	// to it. Default: none.
	Groups []MulticastGroup
	// Protocol is the IP protocol of raw kinds. Default: 6, TCP.
	Protocol int
	// Echo sends back what the socket received.
	Echo bool
	// Reuseport opens a reuseport group of so many sockets, at most MaxReuseport, one of which gets each
	// packet: the one that Selection chooses, or the kernel by a hash (UDP only). Default: one socket
	// that is in no group.
	Reuseport int
	// Selection chooses the socket of the group; ViewSelect shows what it sees, which needs CAP_PERFMON.
	// The group's sockets are in all maps that it can choose from by an index. Default: the kernel's
	// hash chooses.
	Selection *bpf.Selection
	// Filter is attached to the socket instead of the tap, for experiments: then the kernel's
	// views stay empty. Default: the tap.
	Filter Filter
	// Prepare is called with the socket before it is bound, for experiments. Default: it is not
	// called.
	Prepare func(fd int) error
	// ListenerOnly attaches no filter to the accepted sockets of those kinds that do not
	// inherit it from their listener.
	ListenerOnly bool
	// Observe is called with every record of the tap, and must not keep it. Default: it is not
	// called.
	Observe func(*bpf.Record)
	// Namespace to open the socket in. Default: the caller's.
	Namespace *Namespace
}

// Filter is what can be attached to a socket.
type Filter interface {
	Attach(fd int) error
}

// Session is a socket with the tap: one that the session has opened and reads itself (Open), or
// one of the caller's (Attach).
type Session struct {
	recording
	config   Config
	main     *socket
	group    *portGroup // that main is the first socket of; nil if it is in none
	borrowed bool       // main is the caller's
	own      *own

	receivers sync.WaitGroup
	broken    atomic.Pointer[error] // why main can be read no more
	stopping  atomic.Bool
	accepted  atomic.Int64 // connections that have their filter
	mu        sync.Mutex
	sockets   map[*socket]struct{} // main and what it accepted
	released  bool                 // the name of main was removed; for a borrowed one, the tap
}

// Open opens the socket and attaches the tap. Every packet that arrives after it returns is
// captured, unless the ring has no room for it.
//
// An error is a *bpf.MissingError if a privilege or a feature of the kernel is missing.
func Open(config Config) (*Session, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	return newSession(config.withDefaults(), (*Session).open)
}

// newSession makes a session, for which place attaches the tap to its main socket.
func newSession(config Config, place func(*Session) error) (_ *Session, err error) {
	s := &Session{config: config, sockets: make(map[*socket]struct{})}
	s.views, s.notice = config.Views, config.Notice
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := config.checkViews(); err != nil {
		return nil, err
	}
	s.tap, err = bpf.Open(bpf.Options{
		RingSize: config.RingSize, Snaplen: config.Snaplen, Verdict: config.Verdict, WakeFirst: true,
		Expression: config.Expression, Notes: !config.discards() || config.Verdict != nil,
		NoLink: config.Observe == nil && !config.wants(ViewLink),
	})
	if err != nil {
		return nil, err
	}
	if s.config.Filter == nil {
		s.config.Filter = s.tap
	}
	s.untapped = s.config.Filter != Filter(s.tap)
	if err := s.openHook(); err != nil {
		return nil, err
	}
	if s.wire, err = openWire(s.tap, &config.Options); err != nil {
		return nil, err
	}
	if err := s.openDrops(); err != nil {
		return nil, err
	}
	clock, err := newClock()
	if err != nil {
		return nil, err
	}
	s.started = bootNow()
	if err := place(s); err != nil {
		return nil, err
	}
	if err := s.enterWire(); err != nil {
		return nil, err
	}
	if err := s.enterDropped(); err != nil {
		return nil, err
	}
	if config.Kind.Note != "" {
		config.Notice(config.Kind.Note)
	}
	s.collector = newCollector(config.Options, s.tap, clock)
	s.collector.observe = config.Observe
	s.collector.looksAt(s.wire)
	if s.hook != nil {
		s.collector.hooks.beside = newBeside()
	}
	s.collector.dropped = newDrops(s.drops)
	s.collector.departures.countLosses(s.hook)
	s.own = newOwn(&config, s.tap, clock.bound)
	s.own.home.cookie = s.main.cookie
	if s.group != nil {
		s.own.join(s.group, &config, clock.bound)
		s.selector = s.group.selector
	}
	s.collector.origin = s.own
	return s, nil
}

// open opens the main socket.
func (s *Session) open() error {
	if s.config.Reuseport > 0 {
		return s.config.Namespace.Do(s.openGroup)
	}
	err := s.config.Namespace.Do(func() (err error) {
		s.main, err = openSocket(&s.config, s.config.Filter, s.tap.Rejection())
		return err
	})
	if err == nil {
		s.keep(s.main)
	}
	return err
}

func (c Config) withDefaults() Config {
	if !c.Listen.IsValid() {
		c.Listen = c.Kind.Loopback()
	}
	if c.Address == "" {
		c.Address = c.Kind.place.address
	}
	if c.Protocol == 0 {
		c.Protocol = unix.IPPROTO_TCP
	}
	if !c.Kind.anyProtocol {
		c.Protocol = int(c.Kind.Protocol())
	}
	c.Options = c.Options.withDefaults()
	return c
}

// checkViews refuses what a kind of socket has no packets for.
func (c *Config) checkViews() error {
	switch {
	case c.Expression != nil && !c.Kind.HasIPPackets():
		return fmt.Errorf("an Expression is about IP packets, and a %s has none", c.Kind.Summary)
	case c.Kind.HasCgroupHooks():
		return nil
	case c.wants(ViewDrop):
		return fmt.Errorf("what the kernel drops is recorded of internet sockets, not of a %s: choose views without %v", c.Kind.Summary, ViewDrop)
	case c.wants(ViewCgroup):
		return fmt.Errorf("the kernel runs no cgroup hook for a %s: choose views without %v", c.Kind.Summary, ViewCgroup)
	case c.wants(ViewWire):
		return fmt.Errorf("a %s has no address by which its packets are found on an interface: choose views without %v", c.Kind.Summary, ViewWire)
	}
	return nil
}

// check refuses a Config for which no socket can be opened.
func (c *Config) check() error {
	if c.Kind == nil {
		return errors.New("opening a socket: Config.Kind is nil: choose one of Kinds, or find it with KindByName")
	}
	if err := c.Options.check(); err != nil {
		return err
	}
	if err := c.checkMulticast(); err != nil {
		return err
	}
	return c.checkGroup()
}

// newCollector makes a collector whose origin is not set yet.
func newCollector(options Options, tap *bpf.Tap, clock clock) *collector {
	c := &collector{
		tap:        tap,
		clock:      clock,
		limit:      options.Packets,
		poll:       pollInterval,
		flows:      newFlows(options.Views),
		untold:     newUntold(tap.LostByCPU),
		departures: newDepartures(&options),
		sightings:  newSightings(&options),
		snaplen:    options.Snaplen,
		expression: options.Expression,
		immediate:  options.Immediate,
	}
	if options.Immediate {
		c.poll = immediateInterval
	}
	return c
}

// newOwn makes the origin of a session's own socket.
func newOwn(config *Config, tap *bpf.Tap, clockError int64) *own {
	o := &own{tap: tap, mailbox: newMailbox(func() { _ = tap.Nudge() }, newSendTimes(config.Views))}
	o.home = o.newRoute(config, clockError)
	return o
}

// newRoute makes the route of a socket of ours.
func (o *own) newRoute(config *Config, clockError int64) *route {
	kind := config.Kind
	r := newRoute(kind, newOutlet(kind, config.Views, config.DecodeAs, clockError))
	r.outlet.chosenBy(config.Expression)
	r.protocol, r.listens = uint8(config.Protocol), kind.listens
	mayDrop := config.Verdict != nil && kind.countsFiltered()
	switch {
	case config.discards() && kind.stream:
		r.pairer = pair.Nothing{}
	case config.discards():
		loss := &pair.QueueLoss{Filters: mayDrop}
		r.pairer = loss
		if mayDrop {
			o.losses = append(o.losses, loss)
		}
	case mayDrop:
		if q, ok := r.pairer.(*pair.Datagrams); ok {
			q.Loss.Filters = true
			o.losses = append(o.losses, &q.Loss)
		}
	}
	return r
}

// discards tells whether no view needs what userspace gets: then it is discarded where it is
// received, and only counted.
func (c *Config) discards() bool {
	return !c.wants(ViewUser) && c.Packets == 0 && !c.Echo && !c.Kind.adopts && c.Reuseport == 0
}

// Address is the address that the socket is bound to, for people.
func (s *Session) Address() string {
	switch {
	case s.config.Kind.place.sockaddr != nil:
		return s.config.Address
	case s.config.Kind.anyProtocol:
		return fmt.Sprintf("%s protocol %d", s.Addr().Addr(), s.config.Protocol)
	}
	return s.Addr().String()
}

// Addr is the IP address that the socket is bound to, if it has one.
func (s *Session) Addr() netip.AddrPort {
	if s.config.Kind.anyProtocol {
		// Its local port is the IP protocol.
		return netip.AddrPortFrom(s.main.local.Addr(), 0)
	}
	return s.main.local
}

// Interfaces lists the interfaces of the packets to come, in the order of the views, but for those
// of the wire view: while Run runs, more come with the first frame of each interface of the machine.
func (s *Session) Interfaces() []*Interface {
	var all []*Interface
	for _, v := range s.config.Views {
		for _, p := range s.own.outlets() {
			p.each(v, func(at *lane) { all = append(all, &at.Interface) })
		}
	}
	return all
}

// Run hands packets to the sink until the context ends, the Config's number of packets was
// captured, or the sink fails. It can be called once.
func (s *Session) Run(ctx context.Context, sink Sink) (err error) {
	if err := s.mayRun(sink); err != nil {
		return err
	}
	s.collector.sink = sink
	switch {
	case s.borrowed: // its owner reads it
	case s.config.Kind.listens:
		s.receivers.Go(s.acceptAll)
	default:
		for _, socket := range s.opened() {
			s.receivers.Go(func() { s.receiveAll(socket) })
		}
	}
	defer context.AfterFunc(ctx, func() { _ = s.tap.Flush() })()

	for ctx.Err() == nil && s.readable() == nil && !s.collector.full() && err == nil {
		err = s.collector.round()
	}
	// Even after an error, what was captured is still written, unless the error is the sink's.
	return errors.Join(err, s.stop(), s.readable(), s.collector.finish(), s.ledger().close(), s.tellUntapped(), s.checkClock())
}

// unreadable ends Run, since the socket gives nothing any more.
func (s *Session) unreadable(err error) {
	s.broken.Store(&err)
	_ = s.tap.Flush()
}

// readable returns the error of unreadable.
func (s *Session) readable() error {
	if err := s.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// stop closes the sockets to further packets and lets the receivers read what is in their
// queues. After that, the counts of the ledger do not change any more.
func (s *Session) stop() error {
	s.stopping.Store(true)
	s.own.mailbox.close()
	if s.borrowed {
		err := s.giveBack()
		quiesce()
		return err
	}
	if s.drops != nil {
		// Before the sockets turn away what comes: that is not of the kernel's own accord.
		if err := s.drops.Stop(); err != nil {
			return err
		}
	}
	var errs []error
	if s.selector != nil {
		errs = append(errs, s.selector.Stop())
	}
	sockets := s.opened()
	drops := make([]dropCount, len(sockets))
	for i, socket := range sockets {
		drops[i].low = socket.queueDrops()
		socket.closing.Store(&drops[i].low)
	}
	s.lookForTap()
	s.eachSocket(func(socket *socket) {
		err := socket.attach(s.tap.Rejection())
		refused := s.untapped && errors.As(err, new(*bpf.MissingError)) // as the Config's filter may have found
		if err != nil && !refused && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	})
	quiesce()
	s.eachSocket((*socket).interrupt)
	s.receivers.Wait()
	for i, socket := range sockets {
		drops[i].high = socket.queueDrops()
		s.own.routeOfSocket(socket).outlet.tally.drops = drops[i].since(socket.before)
	}
	return errors.Join(append(errs, s.stopRecording())...)
}

// opened are the sockets that Open has opened, without those that they accept.
func (s *Session) opened() []*socket {
	if s.group == nil {
		return []*socket{s.main}
	}
	return s.group.sockets
}

// stopRecording ends what is recorded anywhere.
func (s *Session) stopRecording() error {
	err := s.tap.Stop()
	if s.hook != nil {
		err = errors.Join(err, s.hook.Stop())
	}
	if s.drops != nil {
		err = errors.Join(err, s.drops.Stop())
	}
	return errors.Join(err, s.wire.Stop())
}

func (s *Session) eachSocket(do func(*socket)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for socket := range s.sockets {
		do(socket)
	}
}

// keep registers a socket for stop. After stop, it is stopped at once.
func (s *Session) keep(socket *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sockets[socket] = struct{}{}
	if s.stopping.Load() {
		_ = socket.attach(s.tap.Rejection())
		socket.interrupt()
	}
}

func (s *Session) forget(socket *socket) {
	s.mu.Lock()
	delete(s.sockets, socket)
	s.mu.Unlock()
	socket.file.Close()
}

// acceptAll accepts connections until stop. A socket that accepts no more ends the session.
func (s *Session) acceptAll() {
	short := false
	for {
		conn, err := s.main.accept(s.stopping.Load())
		if outOf(err) && !s.stopping.Load() {
			if !short {
				s.config.Notice("connections have to wait: " + err.Error())
			}
			short = true
			time.Sleep(100 * time.Millisecond)
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && s.stopping.Load() {
			continue // accept the connections that are waiting
		}
		if err != nil {
			if !s.stopping.Load() && !errors.Is(err, os.ErrClosed) {
				s.unreadable(err)
			}
			return
		}
		if s.config.Kind.adopts && !s.config.ListenerOnly && !s.stopping.Load() {
			if err := conn.attach(s.config.Filter); err != nil {
				s.config.Notice("a connection goes without the tap: " + err.Error())
			}
		}
		short = false
		s.accepted.Add(1)
		s.keep(conn)
		s.receivers.Go(func() { s.receiveAll(conn) })
	}
}

// outOf tells whether a call failed for lack of a resource that may become available again.
func outOf(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM)
}

// Close closes the sockets and the tap. It is safe to call it twice.
func (s *Session) Close() error {
	var closers []io.Closer
	s.mu.Lock()
	for socket := range s.sockets {
		closers = append(closers, socket.file)
	}
	clear(s.sockets)
	if release := s.config.Kind.place.release; release != nil && s.main != nil && !s.borrowed && !s.released {
		release(s.config.Address)
		s.released = true
	}
	s.mu.Unlock()
	var err error
	if s.borrowed {
		err = s.giveBack()
	}
	if s.drops != nil {
		closers = append(closers, s.drops)
	}
	if s.hook != nil {
		closers = append(closers, s.hook)
	}
	closers = append(closers, s.flows, s.wire)
	if s.group != nil && s.group.selector != nil {
		closers = append(closers, s.group.selector)
	}
	if s.tap != nil {
		closers = append(closers, s.tap)
	}
	return errors.Join(err, closeAll(closers))
}

// closeAll closes closers, some of which may have been closed before.
func closeAll(closers []io.Closer) error {
	var errs []error
	for _, c := range closers {
		if err := c.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
