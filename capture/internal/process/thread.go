package process

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// The first thread of a process may end before the others. The process then goes on with all that
// it has, but nothing of that can be seen, or copied, by way of the first thread any more.

// threads lists the threads of the process that have not begun to exit, the first one first.
func (p *Process) threads() iter.Seq[int] {
	return func(yield func(int) bool) {
		names, _ := os.ReadDir(p.proc("task"))
		for _, name := range names {
			tid, err := strconv.Atoi(name.Name())
			if err == nil && !p.ends(tid) && !yield(tid) {
				return
			}
		}
	}
}

// ends tells whether a thread has begun to exit.
func (p *Process) ends(tid int) bool {
	text, err := os.ReadFile(p.thread(tid, "stat"))
	return err != nil || ending(string(text))
}

// thread is a file of a thread in /proc.
func (p *Process) thread(tid int, name string) string {
	return p.proc("task/" + strconv.Itoa(tid) + "/" + name)
}

// living is a file in /proc that all threads of the process have alike, of one that lives.
func (p *Process) living(name string) string {
	if p.ends(p.PID) {
		for tid := range p.threads() {
			return p.thread(tid, name)
		}
	}
	return p.proc(name)
}

// copier is a thread whose descriptors are copied. The zero value is none.
type copier struct{ tid, pidfd int }

func (c *copier) close() {
	if c.tid != 0 {
		unix.Close(c.pidfd)
		*c = copier{}
	}
}

// copy duplicates a descriptor of the first thread, or if that has ended, of another one.
func (p *Process) copy(fd int) (int, error) {
	from := copier{p.PID, p.pidfd}
	if p.other.tid != 0 {
		from = p.other
	}
	copied, err := unix.PidfdGetfd(from.pidfd, fd, 0)
	if !isGone(err) || !p.ends(from.tid) {
		return copied, err
	}
	for tid := range p.threads() {
		if oerr := p.copyFrom(tid); errors.Is(oerr, unix.ESRCH) {
			continue // it has ended meanwhile
		} else if oerr != nil {
			return -1, oerr
		}
		if copied, err = unix.PidfdGetfd(p.other.pidfd, fd, 0); !isGone(err) || !p.ends(tid) {
			break
		}
	}
	return copied, err
}

// isGone tells whether an error of pidfd_getfd(2) says that there is no such descriptor, or no
// thread to have it.
func isGone(err error) bool { return errors.Is(err, unix.EBADF) || errors.Is(err, unix.ESRCH) }

// copyFrom makes a thread the one whose descriptors are copied from now on.
func (p *Process) copyFrom(tid int) error {
	const pidfdThread = unix.O_EXCL // PIDFD_THREAD of linux/pidfd.h
	fd, err := unix.PidfdOpen(tid, pidfdThread)
	if errors.Is(err, unix.EINVAL) {
		return &bpf.MissingError{
			What: fmt.Sprintf("copying the sockets of %s, whose first thread has ended, needs pidfd_open with PIDFD_THREAD of Linux 6.9", p),
			Hint: "use a newer kernel",
			Err:  err,
		}
	}
	if err != nil {
		return fmt.Errorf("opening thread %d of %s: %w", tid, p, err)
	}
	p.other.close()
	p.other = copier{tid, fd}
	return nil
}
