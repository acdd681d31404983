package capture

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/process"
	"github.com/ebpfdump/ebpfdump/internal/header"
)

// The wire view is made of what packet sockets get on all interfaces of the network namespaces that the
// chosen sockets are in: those frames whose addresses are the sockets'.

// wire is what a capture has on the interfaces.
type wire struct {
	flows   *bpf.Flows
	tap     *bpf.Wire
	devices devices
	// networks counts the namespaces besides that of this program.
	networks int
}

// networksLimit bounds the network namespaces whose interfaces are looked at: each has a filter of its
// own, and takes some ten milliseconds.
const networksLimit = 64

var errNetworks = fmt.Errorf("the processes are in more than %d network namespaces", networksLimit)

// frames is what the collector knows of them.
type frames struct {
	devices *devices
	lost    losses
	drops   uint64        // losses since the last frame
	sent    atomic.Uint64 // frames of the view that were sent
}

// openWire makes what a capture needs that wants to see the interfaces; nil if it does not.
func openWire(tap *bpf.Tap, o *Options) (_ *wire, err error) {
	if !o.wants(ViewWire) {
		return nil, nil
	}
	w := &wire{}
	defer func() {
		if err != nil {
			err = errors.Join(withoutWire(err), w.Close())
		}
	}()
	if w.flows, err = bpf.NewFlows(); err != nil {
		return nil, err
	}
	w.tap, err = bpf.OpenWire(tap, w.flows, bpf.WireOptions{Snaplen: o.Snaplen, Expression: o.Expression})
	return w, err
}

// withoutWire adds to an error about a privilege that other views do without it.
func withoutWire(err error) error {
	if missing := (*bpf.MissingError)(nil); errors.As(err, &missing) {
		missing.Otherwise = cmp.Or(missing.Otherwise, "choose views without wire")
	}
	return err
}

// watch begins to look at the interfaces of the network namespace of this thread.
func (w *wire) watch() (network uint32, err error) {
	if network, err = threadNetwork(); err != nil || w.tap.Watches(network) {
		return network, err
	}
	// The names first, so that the first frame finds them.
	if err := w.devices.add(network); err != nil {
		return network, err
	}
	return network, withoutWire(w.tap.Watch(network))
}

// threadNetwork is the inode of this thread's network namespace.
func threadNetwork() (uint32, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return 0, fmt.Errorf("asking for the network namespace: %w", err)
	}
	return uint32(st.Ino), nil
}

// watchThat is watch in a namespace that a file stands for.
func (w *wire) watchThat(namespace *os.File) (network uint32, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(namespace.Fd()), &st); err != nil {
		return 0, fmt.Errorf("asking for the network namespace: %w", err)
	}
	network = uint32(st.Ino)
	if w.tap.Watches(network) {
		return network, nil
	}
	if own, err := threadNetwork(); err == nil && own == network {
		return w.watch()
	}
	if w.networks++; w.networks > networksLimit {
		return network, errNetworks
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked, so the thread ends with the goroutine
		err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET)
		switch {
		case errors.Is(err, unix.EPERM):
			err = withoutWire(bpf.LacksCapability(unix.CAP_SYS_ADMIN, "looking at the interfaces of another network namespace", err))
		case err != nil:
			err = fmt.Errorf("looking at the interfaces of another network namespace: %w", err)
		default:
			_, err = w.watch()
		}
		done <- err
	}()
	return network, <-done
}

// networkOf is the inode of a socket's network namespace, after its interfaces are looked at.
func (w *wire) networkOf(fd int) (uint32, error) {
	namespace, err := unix.IoctlRetInt(fd, unix.SIOCGSKNS)
	if errors.Is(err, unix.EPERM) {
		return 0, withoutWire(bpf.LacksCapability(unix.CAP_NET_ADMIN, "asking a socket for its network namespace", err))
	}
	if err != nil {
		return 0, fmt.Errorf("asking a socket for its network namespace: %w", err)
	}
	file := os.NewFile(uintptr(namespace), "network namespace")
	defer file.Close()
	return w.watchThat(file)
}

// enterFlow enters a socket of an address family with ports, given by a descriptor of this process.
func enterFlow(flows *bpf.Flows, fd int, network uint32, about *foreign, origin uint64) error {
	s := bpf.FlowSocket{
		Network: network, Cookie: about.cookie, Origin: origin, Family: about.domain, Type: about.typ, Protocol: about.protocol,
		Local: about.local, Peer: about.peer,
	}
	if about.domain == unix.AF_INET6 {
		only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		s.OnlyIPv6 = err == nil && only != 0
	}
	return flows.Enter(&s)
}

// enterWire begins to look at the interfaces, and enters the main socket.
func (s *Session) enterWire() error {
	if s.wire == nil {
		return nil
	}
	return s.main.control(func(fd int) (err error) {
		var network uint32
		if s.borrowed {
			network, err = s.wire.networkOf(fd)
		} else {
			err = s.config.Namespace.Do(func() (err error) { network, err = s.wire.watch(); return err })
		}
		if err != nil {
			return err
		}
		about, err := inspect(fd)
		if err != nil {
			return err
		}
		return enterFlow(s.wire.flows, fd, network, &about, about.cookie)
	})
}

// openWire opens what the wire view needs, if somebody wants to see that.
func (l *Live) openWire() (err error) {
	if l.wire, err = openWire(l.tap, &l.config.Options); l.wire == nil {
		return err
	}
	return withoutWire(l.wire.flows.Follow(l.hook, l.config.Ports))
}

// watchOwn looks at the interfaces of the network namespace of this thread, where a command begins.
func (l *Live) watchOwn() error {
	if l.wire == nil {
		return nil
	}
	_, err := l.wire.watch()
	return err
}

// watchNetwork looks at the interfaces of the network namespace that a process is in.
func (l *Live) watchNetwork(p *process.Process) error {
	if l.wire == nil {
		return nil
	}
	namespace, err := p.Network()
	if err != nil {
		return nil // whether it may be looked into turns out with its sockets
	}
	defer namespace.Close()
	_, err = l.wire.watchThat(namespace)
	return l.late(err)
}

// late takes an error for a notice once the capture runs: then privileges may be given up.
func (l *Live) late(err error) error {
	if err != nil && (l.running.Load() || errors.Is(err, errNetworks)) {
		l.refuse("the wire view is not complete: " + err.Error())
		return nil
	}
	return err
}

// enterWire enters a socket that was found, by our copy of its descriptor, and looks at the
// interfaces there.
func (l *Live) enterWire(p *process.Process, copied int, info *foreign) error {
	if l.wire == nil || info.domain != unix.AF_INET && info.domain != unix.AF_INET6 {
		return nil
	}
	network, err := l.wire.networkOf(copied)
	if err != nil && l.running.Load() {
		// Its process is in the same one, as far as is known.
		var st unix.Stat_t
		if namespace, nerr := p.Network(); nerr == nil {
			defer namespace.Close()
			err = unix.Fstat(int(namespace.Fd()), &st)
			network = uint32(st.Ino)
		}
	}
	if err != nil {
		return l.late(err)
	}
	origin, ok := l.hook.Origin(copied)
	if !ok {
		origin = info.cookie
	}
	return enterFlow(l.wire.flows, copied, network, info, origin)
}

// unwatched is how many network namespaces followed sockets were in that nobody looks at.
func (l *Live) unwatched() int {
	if l.wire == nil {
		return 0
	}
	return l.wire.flows.Unwatched(l.wire.tap)
}

func otherNetworks(n int) string {
	if n == 1 {
		return "a network namespace"
	}
	return fmt.Sprintf("%d network namespaces", n)
}

// looksAt sets where the names of interfaces are.
func (c *collector) looksAt(w *wire) {
	if w != nil {
		c.frames.devices = &w.devices
	}
}

// Stop ends the recording.
func (w *wire) Stop() error {
	if w == nil {
		return nil
	}
	return w.tap.Stop()
}

// Close is safe to call twice.
func (w *wire) Close() error {
	if w == nil {
		return nil
	}
	return errors.Join(w.tap.Close(), w.flows.Close(), w.devices.close())
}

// wired processes what was recorded of a frame. whole are its bytes.
func (c *collector) wired(whole []byte, length int) {
	rec := &c.record
	c.frames.drops += c.frames.lost.since(rec.Cpu, rec.Lost)
	if c.full() {
		c.after.frames.count(rec)
		return // it is later than the last packet that was asked for
	}
	r := c.origin.routeOf(rec)
	if r == nil {
		c.forgotten.Add(1)
		return
	}
	c.packet = Packet{
		Time: c.clock.wall(int64(rec.Time)), Direction: Inbound, Protocol: r.protocol, Meta: metaOf(rec),
		ID: c.sightings.passes(rec, c.newID), Data: whole, Len: length, Truncated: len(whole) < length,
	}
	p := &c.packet
	if rec.Hook == bpf.HookWireOut {
		p.Direction = Outbound
	}
	ip, ok := header.ParseIP(rec.Data)
	if ok {
		p.Protocol = ip.Protocol
		p.Src, p.Dst = netip.AddrPortFrom(ip.Src, 0), netip.AddrPortFrom(ip.Dst, 0)
		rest := rec.Data[min(ip.Size, len(rec.Data)):]
		if hasPorts(ip.Protocol) && !ip.Later && len(rest) >= 4 {
			p.Src = netip.AddrPortFrom(ip.Src, uint16(rest[0])<<8|uint16(rest[1]))
			p.Dst = netip.AddrPortFrom(ip.Dst, uint16(rest[2])<<8|uint16(rest[3]))
		}
		p.Meta.ChecksumPartial = partialChecksum(ip.Protocol, rec.Data, rest, int(rec.Len)-ip.Size)
	}
	layer := LayerLink
	switch frame := linkHeaderSize(whole); {
	case rec.Before == 0:
		layer = LayerNetwork
	case int(rec.Before) != frame: // a header of another kind, which no link type stands for
		layer = LayerNetwork
		p.Data, p.Len = rec.Data, int(rec.Len)
	}
	at := r.outlet.framed(device{uint32(rec.Filter), rec.Ifindex}, c.frames.devices, layer, ok && ip.Version == 6)
	p.Drops, c.frames.drops = c.frames.drops, 0
	c.counts[ViewWire].Add(1)
	if p.Direction == Outbound {
		c.frames.sent.Add(1)
	}
	c.add(p, at, true)
}

// framedLane is the lane of an interface of the wire view.
type framedLane struct {
	device device
	layer  Layer
	ipv6   bool
	*lane
}

// framedLanes is how many interfaces of the machine get interfaces of their own in the file; those
// of all others share some.
const framedLanes = 16

// framed finds or makes the lane of the frames of an interface.
func (pl *outlet) framed(on device, names *devices, layer Layer, ipv6 bool) *lane {
	ipv6 = ipv6 && layer == LayerNetwork
	own := 0
	for i := range pl.frames {
		at := &pl.frames[i]
		if at.device == on && at.layer == layer && at.ipv6 == ipv6 {
			return at.lane
		}
		if at.device != (device{}) {
			own++
		}
	}
	name := "others"
	if own < framedLanes {
		name = names.name(on)
	} else if on != (device{}) {
		return pl.framed(device{}, names, layer, ipv6)
	}
	l := &lane{Interface: pl.lanes[ViewWire].Interface}
	if l.Device, l.Layer = name, layer; layer == LayerNetwork {
		l.IPv6 = ipv6
	}
	pl.frames = append(pl.frames, framedLane{on, layer, ipv6, l})
	return l
}

// each calls do for every interface of a view. That of the wire view which the others are made of is one as long
// as no frame has come.
func (pl *outlet) each(v View, do func(*lane)) {
	for i := range pl.frames {
		if v == ViewWire {
			do(pl.frames[i].lane)
		}
	}
	for _, at := range []*lane{pl.lanes[v], pl.mapped[v]} {
		if at != nil && (v != ViewWire || len(pl.frames) == 0) {
			do(at)
		}
	}
}
