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
	drops     uint32    // of the receive queue before we came
	missing   time.Time // when no process was found to have it any more; zero if one has it
}

// String names the socket as its owner knows it.
func (m *member) String() string {
	return fmt.Sprintf("%s, descriptor %d, %s", m.owner, m.fd, &m.foreign)
}

// port is the socket's own port, 0 as long as it has none.
func (m *member) port() uint16 { return uint16(m.localPort.Load()) }
