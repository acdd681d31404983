package capture

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// followed is a socket of another process whose calls are followed. Its ends
// are the collector's alone; a listener that accepts knows only our port.
type followed struct {
	route    atomic.Pointer[route]
	from, to netip.AddrPort
	asked    bool // the ends are those of the descriptor a moment later, when it may have been another socket
	copies   int  // descriptors that the process has of it, but for one
	guessed  bool // the ends follow from the order of connections
}

// complete fills in what the call itself did not say, and tells the route.
func (f *followed) complete(d *delivery) *route {
	if !d.from.IsValid() {
		d.from = f.from
	}
	if !d.to.IsValid() {
		d.to = f.to
	}
	return f.route.Load()
}

// member is a socket that was chosen: the tap is on it, unless it takes none.
type member struct {
	followed
	foreign
	inode     uint64
	owner     *process
	fd        int
	tapped    bool
	settled   atomic.Bool // it is known what it is for
	own       bool        // has interfaces of its own
	passesOn  atomic.Bool // has the tap, which what it accepts inherits
	localPort atomic.Uint32
	saved     []unix.SockFilter
	before    dropCount // what it had dropped when the tap came
	drops     uint32    // what it had dropped when it was asked last
	accounted bool      // what it dropped is in its outlet's tally
	missing   time.Time // when no process was found to have it any more; zero if one has it
}

// String names the socket as its owner knows it.
func (m *member) String() string {
	return fmt.Sprintf("%s, descriptor %d, %s", m.owner, m.fd, &m.foreign)
}

// counts tells whether the socket's own count of drops is wanted.
func (m *member) counts() bool { return m.tapped && !m.route.Load().kind.stream }

// settleDrops takes the socket's count of drops for the last time, when the tap
// sees nothing any more. What came since it was asked last may be of before or after that.
func (m *member) settleDrops(count uint32) {
	if !m.counts() || m.accounted {
		return
	}
	m.accounted = true
	end := dropCount{m.drops, count}
	m.route.Load().outlet.tally.drops.add(end.since(m.before))
}

// closeDrops makes do with what the socket said last, because it is closed.
func (m *member) closeDrops() {
	if !m.counts() || m.accounted {
		return
	}
	m.settleDrops(m.drops)
	m.route.Load().outlet.tally.closed++
}

// askQueues asks datagram sockets what they have dropped so far; only those that have
// interfaces of their own if it is to cost little.
func (l *Live) askQueues(few bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, m := range l.members {
		if !m.counts() || few && !m.own {
			continue
		}
		copied, err := m.owner.copyDescriptor(m.fd)
		if err != nil {
			continue // closed by now
		}
		// The number may be another socket's by now.
		if cookie, err := unix.GetsockoptUint64(copied, unix.SOL_SOCKET, unix.SO_COOKIE); err == nil && cookie == m.cookie {
			m.drops = queueDrops(copied)
		}
		unix.Close(copied)
	}
}

// countClosed settles the sockets that nobody has any more at the end.
func (l *Live) countClosed() {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, m := range l.members {
		m.closeDrops()
	}
}

// port is the socket's own port, 0 as long as it has none.
func (m *member) port() uint16 { return uint16(m.localPort.Load()) }
