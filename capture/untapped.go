package capture

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

var errReplaced = errors.New("the descriptor is another socket's")

// tapGone is what there is to say of a session's socket without the tap.
const tapGone = "somebody has taken the tap off the socket, or put another filter in its place: what has come since then is in no view of the kernel's"

// lookForTap notes which of the session's own sockets do not have the tap any more, as far as no program is needed
// to see that: with another eBPF filter in its place, the accounts tell.
func (s *Session) lookForTap() {
	if s.untapped {
		return
	}
	main := s.opened()
	s.eachSocket(func(socket *socket) {
		if s.config.Kind.adopts && !slices.Contains(main, socket) {
			return // it may never have got it, which was said
		}
		var f filter
		err := socket.control(func(fd int) (err error) {
			if cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil || cookie != socket.cookie {
				return errors.Join(err, errReplaced) // its owner has put another socket there, which never had the tap
			}
			f, err = getFilter(fd)
			return err
		})
		if err == nil && !f.extended {
			s.own.routeOfSocket(socket).outlet.untapped.Store(true)
		}
	})
}

// tellUntapped says, after the end, that the tap was taken off: its sockets show that, or messages that came
// although no filter saw them.
func (s *Session) tellUntapped() error {
	g := s.ledger()
	counts, err := g.counts()
	if err != nil {
		return err
	}
	accounts, gone := g.accounts(counts), false
	for n, p := range g.outlets {
		if accounts != nil && accounts[n] != nil && accounts[n].Unknown > 0 {
			p.untapped.Store(true)
		}
		gone = gone || p.untapped.Load()
	}
	if gone {
		s.config.Notice(tapGone)
	}
	return nil
}
