package capture

import (
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture/internal/process"
)

// queue is a receive queue of another process's socket, which is asked now and then
// what it has dropped: nobody can ask it any more when it is closed.
type queue struct {
	process *process.Process
	fd      int
	cookie  uint64
	outlet  *outlet
	before  dropCount // what it had dropped when the capture began
	last    uint32    // what it had dropped when it was asked last
}

// counted is the outlet of a socket whose drops are counted, nil for others. Only those
// with interfaces of their own are, so that it costs little.
func (s *scanner) counted(cookie uint64) *outlet {
	if at := s.live.roster.outletOf(cookie); at != nil && !at.kind.stream {
		return at
	}
	return nil
}

// count begins to count what a socket drops.
func (s *scanner) count(p *process.Process, fd int, info *foreign, before dropCount) {
	at := s.counted(info.cookie)
	s.queues = append(s.queues, &queue{process: p, fd: fd, cookie: info.cookie, outlet: at, before: before, last: before.high})
}

// countNew begins to count what a socket drops that was made during the capture.
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

// ask asks the socket; not ok if it is closed.
func (q *queue) ask() (drops uint32, ok bool) {
	copied, err := q.process.CopyDescriptor(q.fd)
	if err != nil {
		return 0, false
	}
	defer unix.Close(copied)
	// The number may be another socket's by now.
	if cookie, err := unix.GetsockoptUint64(copied, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil || cookie != q.cookie {
		return 0, false
	}
	return queueDrops(copied), true
}

func (s *scanner) askQueues() {
	for _, q := range s.queues {
		if drops, ok := q.ask(); ok {
			q.last = drops
		}
	}
}

// settleQueues takes the counts for the last time, when nothing is recorded any more.
// What came since they were taken last may be of before or after that.
func (s *scanner) settleQueues() {
	for _, q := range s.queues {
		end := dropCount{q.last, q.last}
		if drops, ok := q.ask(); ok {
			end.high = drops
		} else {
			q.outlet.tally.closed++
		}
		q.outlet.tally.drops.add(end.since(q.before))
	}
	s.queues = nil
}
