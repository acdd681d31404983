package capture

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/process"
)

// wrappersLimit bounds the filters that run inside the tap.
const wrappersLimit = 256

// wrap runs the filter of a socket inside the tap. It tells whether its packets are recorded: those of an
// internet socket are in any case.
func (s *scanner) wrap(what string, copied int, info *foreign, f *filter) bool {
	l := s.live
	own := bpf.OwnFilter{Classic: f.classic}
	var err error
	if f.extended {
		own, err = l.hook.Extended(copied)
	}
	on := filterAt{info.cookie, own.Key()}
	if s.stays[on] {
		return info.kind().HasCgroupHooks() // which has been said
	}
	inside := own
	if err == nil {
		inside, err = s.mayWrap(copied, own)
	}
	var w *bpf.Wrapper
	if err == nil {
		w, err = s.wrapper(&inside)
	}
	if err == nil {
		err = w.Attach(copied)
	}
	if err != nil {
		if len(s.stays) < soughtLimit {
			s.stays[on] = true
		}
		has := "a filter of its own"
		if stays := (*tapStaysError)(nil); errors.As(err, &stays) {
			has = "a filter"
		}
		l.refuse(fmt.Sprintf("%s has %s, which cannot run inside the tap: %v", what, has, err))
		l.collector.filters.stays(&own, err)
		if !l.running.Load() {
			s.noteFilter(copied, info)
		}
		s.unwrapped(copied, info, err)
		return info.kind().HasCgroupHooks()
	}
	s.taps[info.cookie] = tapped{what: what, wrapper: w}
	if info.domain == unix.AF_PACKET {
		l.roster.wraps(info.cookie, inside.Key())
	}
	known := l.collector.filters.wraps(&inside)
	if known != nil && !l.running.Load() {
		s.describeFilter(info, known, filterState{inside.Key(), true})
	}
	return true
}

// mayWrap tells why a filter cannot run inside the tap, and be put back. It returns the one that can:
// where a capture was killed, that is the one inside its tap.
func (s *scanner) mayWrap(copied int, own bpf.OwnFilter) (bpf.OwnFilter, error) {
	if own.Key() == 0 {
		return own, errors.New("this kernel does not say which program its filter is")
	}
	switch other, pid, err := otherTap(&own); {
	case err != nil:
		return own, err
	case other == nil:
	case !other.Ended:
		return own, staysOf(&own, pid)
	case other.Inside.Key() != 0:
		return other.Inside, nil
	default:
		return own, &tapStaysError{fmt.Sprintf("it is %s, which stays", wordsOf(&own))}
	}
	return own, mayRestore(copied, own.Classic)
}

func wordsOf(own *bpf.OwnFilter) string {
	words, _ := describeFilter(own)
	return words
}

// wrapLater runs the filter inside the tap that a socket has got during the capture, as the hook has
// seen. Its descriptor must be looked for.
func (s *scanner) wrapLater(cookie uint64) {
	_ = s.live.scope.each(func(p *process.Process) error {
		err := p.EachSocket(func(copied int, _ uint64) error {
			found, err := unix.GetsockoptUint64(copied, unix.SOL_SOCKET, unix.SO_COOKIE)
			if err != nil || found != cookie {
				return nil
			}
			info, err := inspect(copied)
			if err != nil || info.kind() == nil || !s.live.taps(copied, &info) {
				return nil
			}
			whose := owner{p.String(), info.String()}
			s.live.roster.add(&info, func() owner { return whose }, true)
			if s.attach(whose.String(), copied, &info) {
				s.live.roster.recorded(cookie)
			}
			return nil
		})
		if err != nil && !p.Exited() {
			s.live.refuse(err.Error())
		}
		return nil
	})
}

// unwrapped marks a socket whose filter cannot run inside the tap, if the hook sees its packets.
func (s *scanner) unwrapped(copied int, info *foreign, why error) {
	if info.domain == unix.AF_INET || info.domain == unix.AF_INET6 {
		if err := s.mark(copied, info); err != nil {
			s.live.refuse(err.Error())
		}
		return
	}
	if missing := (*bpf.MissingError)(nil); errors.As(why, &missing) {
		s.denied = why
	}
}

// wrapper finds or makes the wrapper of a filter.
func (s *scanner) wrapper(own *bpf.OwnFilter) (*bpf.Wrapper, error) {
	key := own.Key()
	if w := s.wrappers[key]; w != nil {
		return w, nil
	}
	if len(s.wrappers) == wrappersLimit {
		return nil, fmt.Errorf("%d others do already", wrappersLimit)
	}
	w, err := s.live.tap.Wrap(own)
	if err != nil {
		return nil, err
	}
	if err := s.live.hook.Wraps(w); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	s.wrappers[key] = w
	return w, nil
}

// wrapperOn finds the wrapper that is on a socket, nil if there is none.
func (s *scanner) wrapperOn(copied int) (*bpf.Wrapper, error) {
	if len(s.wrappers) == 0 {
		return nil, nil
	}
	on, err := s.live.hook.Extended(copied)
	if err != nil || on.Program.ID == 0 {
		return nil, err
	}
	for _, w := range s.wrappers {
		if w.ID() == on.Program.ID {
			return w, nil
		}
	}
	return nil, nil
}

// closeWrappers lets go of all wrappers.
func (s *scanner) closeWrappers() (errs []error) {
	for key, w := range s.wrappers {
		errs = append(errs, w.Close())
		delete(s.wrappers, key)
	}
	return errs
}

// stays notes why a filter does not run inside the tap.
func (o *ownFilters) stays(f *bpf.OwnFilter, why error) {
	if own := o.enter(f); own != nil {
		text := why.Error()
		own.unwrapped.Store(&text)
	}
}

// wraps notes that a filter runs inside the tap.
func (o *ownFilters) wraps(f *bpf.OwnFilter) *ownFilter {
	own := o.enter(f)
	if own != nil {
		own.wrapped.Store(true)
	}
	return own
}
