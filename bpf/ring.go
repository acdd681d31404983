package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Place is where a record stands in a ring, in bytes since the ring was made.
type Place uint64

// ring reads a BPF ring buffer where it lies. What it hands out is the kernel's own
// memory, which stays as it is until it is given back: whoever reads may go on and
// keep a part of it, and nothing is copied.
//
// The layout is that of kernel/bpf/ringbuf.c: a page with the place up to which the
// reader has given back, a page with the place up to which writers have reserved, and
// the data, which could be mapped twice in a row. Here they are mapped once, since each
// page counts as memory as often as it is mapped, and the one record that goes over the end
// is copied. Before each record stands its length, with a bit as long as it is being written
// and one if it was given up.
//
// The package ringbuf of cilium/ebpf copies each record and gives it back at once.
type ring struct {
	mu       sync.Mutex // held from begin to end: then the memory is in use
	consumer []byte
	producer []byte
	data     []byte
	size     uint64
	next     Place // of the next record to look at
	torn     []byte
	tornAt   Place // of the record that torn is a copy of
	source   *ebpf.Map

	waiters sync.RWMutex // held for reading while the descriptors are used, against close
	// File descriptors: what wakes who waits for this ring, who sleeps and waits for those
	// beside it as well, and what flush and nudge do.
	epoll, sleeper, flushed, nudged int
	beside                          []*ring
	closed                          atomic.Bool
}

const (
	ringBusy    = 1 << 31
	ringDiscard = 1 << 30
	ringHeader  = 8
)

// ErrFlushed is returned when all that was in the ring at Flush has been read.
var ErrFlushed = errors.New("the ring was flushed")

// sizeRing sets the size of a ring that is to be made, in bytes. Its records' type is for
// whoever reads the object: the kernel takes none, but not before it has made the whole ring.
func sizeRing(spec *ebpf.MapSpec, size int) {
	spec.MaxEntries = uint32(size)
	spec.Key, spec.Value = nil, nil
}

// openRing maps a ring buffer of the kernel.
func openRing(m *ebpf.Map) (_ *ring, err error) {
	r := &ring{size: uint64(m.MaxEntries()), epoll: -1, sleeper: -1, flushed: -1, nudged: -1, source: m}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("opening a ring: %w", err), r.close())
		}
	}()
	if r.flushed, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, err
	}
	if r.nudged, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, err
	}
	if r.epoll, err = r.waiting(r.flushed); err != nil {
		return nil, err
	}
	if r.sleeper, err = r.waiting(r.flushed, r.nudged); err != nil {
		return nil, err
	}
	page := os.Getpagesize()
	if r.consumer, err = unix.Mmap(m.FD(), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, err
	}
	if r.producer, err = unix.Mmap(m.FD(), int64(page), page+int(r.size), unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return nil, err
	}
	r.data = r.producer[page:]
	r.next = Place(position(r.consumer).Load())
	return r, nil
}

// waiting makes an epoll descriptor for the ring and some eventfds.
func (r *ring) waiting(events ...int) (epoll int, err error) {
	if epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return -1, err
	}
	err = r.wakes(epoll)
	for _, fd := range events {
		err = errors.Join(err, unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}))
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(epoll))
	}
	return epoll, nil
}

// wakes lets the ring's writers wake who waits at an epoll descriptor. Edge-triggered:
// what woke the reader is the writers' business, and not that there is something.
func (r *ring) wakes(epoll int) error {
	fd := r.source.FD()
	return unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(fd)})
}

// watch lets another ring's writers end a sleep, too. It must outlive this one.
func (r *ring) watch(other *ring) error {
	r.beside = append(r.beside, other)
	if err := other.wakes(r.sleeper); err != nil {
		return fmt.Errorf("watching a ring: %w", err)
	}
	return nil
}

// position is the place that a page begins with.
func position(page []byte) *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&page[0])) }

// begin begins a look at the ring, which close waits for.
func (r *ring) begin() error {
	r.mu.Lock()
	if r.closed.Load() {
		r.mu.Unlock()
		return os.ErrClosed
	}
	return nil
}

// end ends a look, and gives all records before a place back to the writers.
func (r *ring) end(before Place) {
	position(r.consumer).Store(uint64(before))
	r.mu.Unlock()
}

// leave ends a look in which nothing was given back.
func (r *ring) leave() { r.mu.Unlock() }

// unread is how many bytes are reserved and were not given back.
func (r *ring) unread() uint64 { return uint64(r.reserved()) - position(r.consumer).Load() }

// reserved is the place behind all that was reserved so far.
func (r *ring) reserved() Place { return Place(position(r.producer).Load()) }

// take is the next record and its place. It is not ok if there is none, or if it is
// still being written.
func (r *ring) take() (record []byte, at Place, ok bool) {
	for end := r.reserved(); r.next < end; {
		offset := uint64(r.next) & (r.size - 1)
		// The writer exchanges the word when the record is complete: whoever sees it
		// without the bit sees all of the record.
		head := atomic.LoadUint32((*uint32)(unsafe.Pointer(&r.data[offset])))
		if head&ringBusy != 0 {
			return nil, r.next, false
		}
		at, length := r.next, uint64(head&^(ringBusy|ringDiscard))
		r.next += Place((length + ringHeader + 7) &^ 7)
		if head&ringDiscard == 0 {
			return r.record(at), at, true
		}
	}
	return nil, r.next, false
}

// record is a record that was taken, by its place. At any time at most one of those that
// were not given back goes over the end of the ring.
func (r *ring) record(at Place) []byte {
	offset := uint64(at) & (r.size - 1)
	length := uint64(*(*uint32)(unsafe.Pointer(&r.data[offset]))) &^ (ringBusy | ringDiscard)
	begin, end := offset+ringHeader, offset+ringHeader+length
	if end <= r.size {
		return r.data[begin:end:end]
	}
	if r.tornAt != at {
		r.torn = append(append(r.torn[:0], r.data[begin:]...), r.data[:end-r.size]...)
		r.tornAt = at
	}
	return r.torn
}

// wait sleeps until writers wake the reader, or until the deadline, which is
// os.ErrDeadlineExceeded, or a flush, which is ErrFlushed. The zero deadline is none.
func (r *ring) wait(deadline time.Time) error { return r.waitAt(r.epoll, deadline) }

// sleep is wait for the writers of the rings beside it as well. Where there is something
// already, nobody will wake the reader for it.
func (r *ring) sleep(deadline time.Time) error {
	for _, one := range append(r.beside[:len(r.beside):len(r.beside)], r) {
		if err := one.begin(); err != nil {
			return err
		}
		something := one.unread() > 0
		one.leave()
		if something {
			return nil
		}
	}
	return r.waitAt(r.sleeper, deadline)
}

func (r *ring) waitAt(epoll int, deadline time.Time) error {
	r.waiters.RLock()
	defer r.waiters.RUnlock()
	if r.closed.Load() {
		return os.ErrClosed
	}
	var events [4]unix.EpollEvent
	for {
		timeout := -1
		if !deadline.IsZero() {
			timeout = max(0, int((time.Until(deadline)+time.Millisecond-1)/time.Millisecond))
		}
		n, err := unix.EpollWait(epoll, events[:], timeout)
		switch {
		case r.closed.Load():
			return os.ErrClosed
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("waiting for a ring: %w", err)
		case n == 0:
			return os.ErrDeadlineExceeded
		}
		var count [8]byte
		flushed := false
		for _, event := range events[:n] {
			switch int(event.Fd) {
			case r.flushed:
				flushed = true
				fallthrough
			case r.nudged:
				_, _ = unix.Read(int(event.Fd), count[:])
			}
		}
		if flushed {
			return ErrFlushed
		}
		return nil
	}
}

// flush makes a wait or a sleep return, this one or the next.
func (r *ring) flush() error { return r.tell(r.flushed) }

// nudge makes a sleep return, this one or the next.
func (r *ring) nudge() error { return r.tell(r.nudged) }

func (r *ring) tell(event int) error {
	r.waiters.RLock()
	defer r.waiters.RUnlock()
	if r.closed.Load() {
		return os.ErrClosed
	}
	return wake(event)
}

// wake lets an eventfd wake who waits for it.
func wake(event int) error {
	one := binary.NativeEndian.AppendUint64(nil, 1)
	if _, err := unix.Write(event, one); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("waking the reader of a ring: %w", err)
	}
	return nil
}

// close interrupts who waits, waits for who looks, and gives the ring up. It is
// safe to call it twice.
func (r *ring) close() error {
	if r.closed.Swap(true) {
		return nil
	}
	var errs []error
	if r.flushed >= 0 {
		errs = append(errs, wake(r.flushed))
	}
	r.waiters.Lock()
	defer r.waiters.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, mapping := range [][]byte{r.consumer, r.producer} {
		if mapping != nil {
			errs = append(errs, unix.Munmap(mapping))
		}
	}
	for _, fd := range []int{r.epoll, r.sleeper, r.flushed, r.nudged} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}
