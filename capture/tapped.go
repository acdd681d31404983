package capture

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// tapped is a socket that has got the tap, for people, and its filter before that, if it had one: it is classic,
// held, or inside the wrapper.
type tapped struct {
	what    string
	classic []unix.SockFilter
	held    *bpf.HeldFilter
	wrapper *bpf.Wrapper
	told    bool // that the tap was taken from it
}

// filtered tells whether there is a filter to be put back.
func (t *tapped) filtered() bool { return len(t.classic) > 0 || t.held != nil || t.wrapper != nil }

// restore puts back what the socket had.
func (t *tapped) restore(fd int) error {
	switch {
	case t.wrapper != nil:
		return t.wrapper.Restore(fd)
	case t.held != nil:
		return t.held.Restore(fd)
	}
	return restoreFilter(fd, t.classic)
}

// endpoint is where a listener gets its connections, and what they have of that.
type endpoint struct {
	network  uint64 // the cookie of its network namespace, 0 before Linux 5.14
	protocol int
	local    netip.AddrPort
}

func endpointOf(fd int, info *foreign) endpoint {
	network, _ := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	return endpoint{network, info.protocol, info.local}
}

// tappedListener is a listener in the place of whose filter the tap is.
type tappedListener struct {
	endpoint
	tapped
}

// accepts tells whether a connection at an address may be the listener's.
func (l *tappedListener) accepts(at endpoint) bool {
	return l.network == at.network && l.protocol == at.protocol && l.local.Port() == at.local.Port() &&
		(l.local.Addr() == at.local.Addr() || l.local.Addr().IsUnspecified())
}

// inherits gives a connection, which has the tap of its listener, the filter that it would have from that.
func (s *scanner) inherits(t *tapped, copied int) {
	if len(s.listeners) == 0 || t.filtered() {
		return
	}
	info, err := inspect(copied)
	if err != nil || info.listening {
		return
	}
	at := endpointOf(copied, &info)
	for _, l := range s.listeners {
		if l.accepts(at) {
			t.classic, t.held = l.classic, l.held
		}
	}
}

// hold takes hold of an eBPF filter, to put it back at the end.
func (s *scanner) hold(own *bpf.OwnFilter) (*bpf.HeldFilter, error) {
	if held := s.held[own.Program.ID]; held != nil {
		return held, nil
	}
	if len(s.held) == wrappersLimit {
		return nil, fmt.Errorf("there are %d others", wrappersLimit)
	}
	held, err := own.Hold()
	if err == nil {
		s.held[own.Program.ID] = held
	}
	return held, err
}

// closeFilters lets go of the filters that were replaced, and of all wrappers.
func (s *scanner) closeFilters() []error {
	errs := s.closeWrappers()
	for id, held := range s.held {
		errs = append(errs, held.Close())
		delete(s.held, id)
	}
	return errs
}

// release removes the tap from a socket that has it, unless another filter has replaced it.
func (s *scanner) release(copied int, _ uint64) error {
	f, err := getFilter(copied)
	if err != nil {
		return err
	}
	cookie, err := unix.GetsockoptUint64(copied, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return fmt.Errorf("asking a socket for its cookie: %w", err)
	}
	if !s.live.inherited(copied, &f) {
		return s.missed(copied, cookie, &f, true)
	}
	t := s.taps[cookie]
	if t.wrapper, err = s.wrapperOn(copied); err != nil {
		return err
	}
	s.inherits(&t, copied)
	err = t.restore(copied)
	if errors.Is(err, unix.EPERM) && isLocked(copied) {
		s.live.refuse(lockedMeanwhile(cmp.Or(t.what, "a socket"), t.wrapper != nil))
		return nil
	}
	if err == nil {
		delete(s.taps, cookie)
	}
	return err
}

// missed looks at a socket that is not, or no more, one with the tap. If it had it, somebody has taken it off, which
// is said. What another capture has left in its place, when it was killed, makes room at the end for the filter
// that the socket had.
func (s *scanner) missed(copied int, cookie uint64, f *filter, end bool) error {
	t, had := s.taps[cookie]
	if !had {
		return nil
	}
	info, err := inspect(copied)
	if err != nil {
		return nil // it is closed, or was shut down
	}
	var other *bpf.OtherTap
	now, pid := "no filter", 0
	if !f.none() {
		own := bpf.OwnFilter{Classic: f.classic}
		if f.extended {
			if own, err = s.live.hook.Extended(copied); err != nil {
				return err
			}
			if other, pid, err = otherTap(&own); err != nil { // nobody may look at it any more
				other = new(bpf.OtherTap)
			}
		}
		now = wordsOf(&own)
	}
	var back bool
	if end && other != nil && other.Ended {
		if err = t.restore(copied); err != nil {
			return err
		}
		back = true
		delete(s.taps, cookie)
	}
	recorded := s.live.config.WrapFilter && info.kind() != nil && info.kind().HasCgroupHooks() // by the hook
	if at := s.live.roster.outletOf(cookie); at != nil && !recorded {
		at.untapped.Store(true)
	}
	if t.told && !back || recorded && other == nil {
		return nil
	}
	if !back {
		t.told = true
		s.taps[cookie] = t
	}
	s.live.refuse(takenOff(&t, now, pid, back, recorded, other != nil))
	return nil
}

// takenOff says that somebody has taken the tap off a socket, and what that means.
func takenOff(t *tapped, now string, pid int, back, recorded, tap bool) string {
	text := t.what + " does not have the tap any more: somebody has taken it off, and there is " + now
	if pid != 0 {
		text += fmt.Sprintf(", of process %d", pid)
	}
	switch {
	case back && t.filtered():
		text += " in its place, for which its own filter is back"
	case back:
		text += " in its place, which is taken off"
	case tap && t.filtered():
		text += " in its place, which stays: this capture cannot put the socket's own filter back"
	default:
		text += ", which stays so"
	}
	if !recorded {
		text += "; what has come since then is in no view of the kernel's"
	}
	return text
}

// isLocked tells whether a socket's owner has locked its filter.
func isLocked(fd int) bool {
	locked, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER)
	return err == nil && locked != 0
}

// lockedMeanwhile says what stays on a socket whose filter was locked during the capture.
func lockedMeanwhile(what string, wraps bool) string {
	const locked = "%s: its owner has locked its filter meanwhile (SO_LOCK_FILTER), so the tap stays on it until it is closed: it records nothing any more, and %s"
	if wraps {
		return fmt.Sprintf(locked, what, "goes on to run the socket's own filter")
	}
	return fmt.Sprintf(locked, what, "lets everything through")
}
