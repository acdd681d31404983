package capture

import (
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture/internal/process"
)

// queue is the receive queue of another process's socket. Its count of drops is read from time
// to time, because it cannot be read any more once the socket is closed.
type queue struct {
	process *process.Process
	fd      int
	cookie  uint64
	outlet  *outlet
	before  dropCount // its count when the capture began
	last    uint32    // its count when it was read last
}

// counted returns the outlet of a socket whose drops are counted, nil for others. To keep it
// cheap, only sockets with interfaces of their own are counted.
func (s *scanner) counted(cookie uint64) *outlet {
	if at := s.live.roster.outletOf(cookie); at != nil && !at.kind.stream {
		return at
	}
	return nil
}

// count begins to count the drops of a socket.
func (s *scanner) count(p *process.Process, fd int, info *foreign, before dropCount) {
	at := s.counted(info.cookie)
	s.queues = append(s.queues, &queue{process: p, fd: fd, cookie: info.cookie, outlet: at, before: before, last: before.high})
}

// countNew begins to count the drops of a socket that was made during the capture.
func (s *scanner) countNew(p *process.Process, fd int, cookie uint64) {
	if at := s.counted(cookie); at != nil && !s.counts(cookie) {
		s.queues = append(s.queues, &queue{process: p, fd: fd, cookie: cookie, outlet: at})
	}
}

func (s *scanner) counts(cookie uint64) bool {
	for _, q := range s.queues {
		if q.cookie == cookie {
			return true
		}
	}
	return false
}

// ask reads the socket's count; ok is false if it is closed. look is called with a copy of the descriptor, unless
// it is nil.
func (q *queue) ask(look func(copied int, cookie uint64)) (drops uint32, ok bool) {
	copied, err := q.process.CopyDescriptor(q.fd)
	if err != nil {
		return 0, false
	}
	defer unix.Close(copied)
	// The descriptor may be another socket's by now.
	if cookie, err := unix.GetsockoptUint64(copied, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil || cookie != q.cookie {
		return 0, false
	}
	if look != nil {
		look(copied, q.cookie)
	}
	return queueDrops(copied), true
}

// askQueues reads the counts, and looks whether the tap is still where it was put.
func (s *scanner) askQueues() {
	for _, q := range s.queues {
		if drops, ok := q.ask(s.lookForTap); ok {
			q.last = drops
		}
	}
}

// settleQueues reads the counts for the last time, after the recording has ended. Drops since
// the previous reading may have happened before or after that end.
func (s *scanner) settleQueues() {
	for _, q := range s.queues {
		end := dropCount{q.last, q.last}
		if drops, ok := q.ask(nil); ok {
			end.high = drops
		} else {
			q.outlet.tally.closed++
		}
		q.outlet.tally.drops.add(end.since(q.before))
	}
	s.queues = nil
}

// lookForTap looks whether a socket that has got the tap still has it.
func (s *scanner) lookForTap(copied int, cookie uint64) {
	if t, had := s.taps[cookie]; !had || t.told {
		return
	}
	f, err := getFilter(copied)
	if err == nil && !s.live.inherited(copied, &f) {
		err = s.missed(copied, cookie, &f, false)
	}
	if err != nil {
		s.live.refuse(err.Error())
	}
}
