package capture

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/process"
)

// Drop says why the kernel has freed a packet without having used it.
type Drop struct {
	// Reason is the kernel's name for why, without SKB_DROP_REASON_, such as "SOCKET_RCVBUFF", or a
	// hexadecimal number for those of its subsystems. Empty for a packet that was not dropped.
	Reason string
	// Location is the function of the kernel that has freed it, empty if it is not known.
	Location string
}

// DropReasons says why the kernel dropped packets: the most frequent reason first.
type DropReasons struct{ Counts []ReasonCount }

// ReasonCount is how many packets were dropped for a reason, as Drop has it.
type ReasonCount struct {
	Reason  string
	Packets uint64
}

// drops is what the collector knows of the packets that the kernel frees.
type drops struct {
	told      *bpf.Drops
	locations map[uint64]string // that were asked for: there are as many as the kernel has places
	lost      losses
	// since counts losses since the last packet of the view.
	since uint64
}

// reasonNone is the kernel's reason where it does not say any.
const reasonNone = "NOT_SPECIFIED"

// reasonPurge is that of packets in a queue that is emptied since its socket is closed.
const reasonPurge = "QUEUE_PURGE"

// reasonFilter is that of packets that the socket's filter turns away.
const reasonFilter = "SOCKET_FILTER"

// reasonFull is that of packets for which a receive queue has no room.
const reasonFull = "SOCKET_RCVBUFF"

// reasonPacketSocket is that of copies for packet sockets.
const reasonPacketSocket = "PACKET_SOCK_ERROR"

// refusals are the reasons of packets that do not come into a receive queue, which follow immediately after the
// filter has run. From Linux 6.18 on those of want of memory may come later, and from another cpu.
var refusals = map[string]bool{reasonFull: true, reasonFilter: true}

// isOrdinary tells whether a packet was freed as packets are that were used, or is the copy of
// another observer. Before Linux 6.8 TCP frees in the same way what opens or closes a connection
// and what it does not want, and gives no reason. What nobody has read when a socket is closed is not
// the kernel's to explain; with TCP it is what has closed the connection.
func (d *drops) isOrdinary(rec *bpf.Record) bool {
	reason, location := d.told.Reason(rec), d.location(rec)
	switch {
	case reason == reasonPurge, reason == reasonPacketSocket, strings.HasPrefix(location, "packet_rcv"), strings.HasPrefix(location, "tpacket_rcv"):
		return true
	case rec.Type == unix.SOCK_RAW && rec.PktType != unix.PACKET_OUTGOING:
		// It gets copies, and what becomes of the packet in its protocol is not its own.
		return !slices.ContainsFunc(ofRaw, func(begins string) bool { return strings.HasPrefix(reason, begins) })
	case rec.SocketProtocol == unix.IPPROTO_ICMP || rec.SocketProtocol == unix.IPPROTO_ICMPV6:
		return strings.HasPrefix(location, "icmp") // a ping socket gets a copy as well
	case rec.Type != unix.SOCK_STREAM || rec.PktType == unix.PACKET_OUTGOING:
		return false
	case reason == reasonNone:
		return location == "" || slices.ContainsFunc(ofStreams, func(begins string) bool { return strings.HasPrefix(location, begins) })
	}
	return false
}

// ofRaw are how the reasons begin for which a raw socket does not get a packet.
var ofRaw = []string{"SOCKET_", "NETFILTER_", "IP_", "XFRM_"}

// ofStreams are how the functions begin in which TCP and its queues free segments.
var ofStreams = []string{"tcp_", "sk_stream_", "skb_queue_purge", "inet_"}

// freed processes a packet that the kernel has freed.
func (c *collector) freed(whole []byte, length int) {
	d, rec := c.dropped, &c.record
	d.since += d.lost.since(rec.Cpu, rec.Lost)
	if d.isOrdinary(rec) {
		c.ordinary.Add(1)
		return
	}
	r := c.origin.routeOf(rec)
	if r == nil {
		c.forgotten.Add(1)
		return
	}
	p := &c.packet
	*p = Packet{
		Time: c.clock.wall(int64(rec.Time)), Direction: direction(rec.PktType), Protocol: r.protocol, Meta: metaOf(rec),
		Drop: Drop{Reason: d.told.Reason(rec), Location: d.location(rec)},
	}
	address(p, rec, r.kind.layer)
	at := r.at(ViewDrop, p)
	if at == nil {
		return
	}
	var reached bool
	if p.ID, reached = c.sightings.freed(rec, whole, length, r.kind.layer); p.ID == 0 && p.Direction != Outbound && refusals[p.Drop.Reason] {
		p.ID = c.sightings.refused(rec, whole, r.kind.layer)
		reached = p.ID != 0
	}
	if p.ID == 0 && c.full() {
		c.after.drops.count(rec)
		return // it is none of those that were asked for
	}
	if p.ID == 0 {
		p.ID = c.newID()
	} else if reached && p.Direction != Outbound && p.Drop.Reason != reasonFilter {
		r.outlet.tally.refused++
	}
	p.Data, p.Len = whole[:min(len(whole), c.snaplen)], length
	p.Drops, d.since = d.since, 0
	c.counts[ViewDrop].Add(1)
	at.drop(p.Drop.Reason)
	c.add(p, at, true)
	p.Drops = 0
}

// drop counts a packet that was dropped for a reason.
func (l *lane) drop(reason string) {
	if l.reasons == nil {
		l.reasons = make(map[string]uint64)
	}
	l.reasons[reason]++
}

// reasonsOf are the reasons of a lane's packets, nil if it has none.
func (l *lane) reasonsOf() *DropReasons {
	if l.reasons == nil {
		return nil
	}
	all := &DropReasons{}
	for reason, n := range l.reasons {
		all.Counts = append(all.Counts, ReasonCount{reason, n})
	}
	all.sort()
	return all
}

func (r *DropReasons) sort() {
	slices.SortFunc(r.Counts, func(a, b ReasonCount) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), strings.Compare(a.Reason, b.Reason))
	})
}

// Add adds the reasons of more packets.
func (r *DropReasons) Add(more *DropReasons) {
	for _, m := range more.Counts {
		at := slices.IndexFunc(r.Counts, func(c ReasonCount) bool { return c.Reason == m.Reason })
		if at < 0 {
			r.Counts = append(r.Counts, m)
		} else {
			r.Counts[at].Packets += m.Packets
		}
	}
	r.sort()
}

// String lists the reasons, such as "5 SOCKET_RCVBUFF, 2 NETFILTER_DROP".
func (r *DropReasons) String() string {
	var words []string
	for _, c := range r.Counts {
		words = append(words, fmt.Sprintf("%d %s", c.Packets, c.Reason))
	}
	return strings.Join(words, ", ")
}

// newDrops returns nil if nobody wants to know.
func newDrops(told *bpf.Drops) *drops {
	if told == nil {
		return nil
	}
	return &drops{told: told, locations: make(map[uint64]string)}
}

// location is the name of the function that has freed a packet.
func (d *drops) location(rec *bpf.Record) string {
	name, known := d.locations[rec.Filter]
	if !known {
		name = d.told.Location(rec)
		d.locations[rec.Filter] = name
	}
	return name
}

// openDrops begins to record what the kernel frees, if its view is wanted.
func (r *recording) openDrops(o *Options, ports []uint16) (err error) {
	if !o.wants(ViewDrop) {
		return nil
	}
	if r.wire != nil {
		r.flows = r.wire.flows
	} else if r.flows, err = bpf.NewFlows(); err != nil {
		return withoutDrops(err)
	}
	if r.drops, err = bpf.OpenDrops(r.tap, r.hook, bpf.DropOptions{Snaplen: o.Snaplen, Ports: ports, Flows: r.flows, Expression: o.Expression}); err != nil {
		return withoutDrops(err)
	}
	if !r.drops.TellsReceiver() {
		o.Notice("before Linux 6.11 the kernel does not tell which socket was to receive what it drops: the view drop has what addresses and ports tell")
	}
	if !r.drops.KnowsLocations() {
		o.Notice("the view drop has no names of functions: to read the kernel's symbols takes CAP_SYSLOG (kernel.kptr_restrict)")
	}
	return nil
}

// withoutDrops adds to an error about a privilege or a kernel that other views do without it.
func withoutDrops(err error) error {
	if missing := (*bpf.MissingError)(nil); errors.As(err, &missing) {
		missing.Otherwise = cmp.Or(missing.Otherwise, "choose views without drop")
	}
	return err
}

// openDrops begins to record what the kernel frees, so that whatever gets the filter is marked.
func (s *Session) openDrops() error {
	if err := s.recording.openDrops(&s.config.Options, nil); s.drops == nil || err != nil {
		return err
	}
	if s.hook == nil {
		s.config.Filter = &marking{s.config.Filter, s.drops.Mark}
	}
	return nil
}

// enterDropped enters the address of the main socket, unless the wire view has.
func (s *Session) enterDropped() error {
	if s.flows == nil || s.wire != nil {
		return nil
	}
	return s.main.control(func(fd int) error {
		var network uint32
		var err error
		if s.borrowed {
			network, err = networkInode(fd)
		} else {
			err = s.config.Namespace.Do(func() (err error) { network, err = threadNetwork(); return err })
		}
		if err != nil {
			return err
		}
		about, err := inspect(fd)
		if err != nil {
			return err
		}
		return enterFlow(s.flows, fd, network, &about, about.cookie)
	})
}

// openDrops begins to record what the kernel frees of marked sockets.
func (l *Live) openDrops() error {
	if err := l.recording.openDrops(&l.config.Options, l.config.Ports); l.drops == nil || l.wire != nil || err != nil {
		return err
	}
	return withoutDrops(l.flows.Follow(l.hook, l.config.Ports))
}

// enterDropped enters the address of a socket that was found, by our copy of its descriptor, unless
// the wire view does.
func (l *Live) enterDropped(p *process.Process, copied int, info *foreign) error {
	if l.flows == nil || l.wire != nil || info.domain != unix.AF_INET && info.domain != unix.AF_INET6 {
		return nil
	}
	network, err := networkInode(copied)
	if err != nil {
		// Its process is in the same one, as far as is known. CAP_NET_ADMIN may be given up by now.
		var st unix.Stat_t
		namespace, err := p.Network()
		if err != nil {
			return nil // it has ended
		}
		defer namespace.Close()
		if err := unix.Fstat(int(namespace.Fd()), &st); err != nil {
			return fmt.Errorf("asking for the network namespace of %s: %w", p, err)
		}
		network = uint32(st.Ino)
	}
	origin, ok := l.hook.Origin(copied)
	if !ok {
		origin = info.cookie
	}
	return enterFlow(l.flows, copied, network, info, origin)
}

// networkInode is the inode of a socket's network namespace. Needs CAP_NET_ADMIN there.
func networkInode(fd int) (uint32, error) {
	namespace, err := unix.IoctlRetInt(fd, unix.SIOCGSKNS)
	if errors.Is(err, unix.EPERM) {
		return 0, withoutDrops(bpf.LacksCapability(unix.CAP_NET_ADMIN, "asking a socket for its network namespace", err))
	}
	if err != nil {
		return 0, fmt.Errorf("asking a socket for its network namespace: %w", err)
	}
	defer unix.Close(namespace)
	var st unix.Stat_t
	if err := unix.Fstat(namespace, &st); err != nil {
		return 0, fmt.Errorf("asking a socket for its network namespace: %w", err)
	}
	return uint32(st.Ino), nil
}

// dropsOf notes the network namespace of a process that is followed from now on, where that is needed
// to find what TCP drops of it.
func (l *Live) dropsOf(network func() (*os.File, error)) error {
	if l.drops == nil || l.drops.TellsReceiver() {
		return nil
	}
	namespace, err := network()
	if err != nil {
		return nil // it has ended, or is not to be looked into: then its connections are not found
	}
	defer namespace.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(namespace.Fd()), &st); err != nil {
		return fmt.Errorf("asking for a network namespace: %w", err)
	}
	const most = 2 // more make no difference
	if l.networks == nil {
		l.networks = make(map[uint32]bool)
	}
	if len(l.networks) < most {
		l.networks[uint32(st.Ino)] = true
	}
	only := uint32(0)
	if len(l.networks) == 1 {
		only = uint32(st.Ino)
	}
	return l.drops.OnlyNetwork(only)
}
