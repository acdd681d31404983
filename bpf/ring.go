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

// Place is the position of a record in a ring: the bytes that were reserved before it since
// the ring was created.
type Place uint64

// ring reads a BPF ring buffer in place. What it returns is the kernel's own memory, which
// does not change until it is released: a reader may take further records meanwhile, and
// nothing is copied.
//
// The layout is that of kernel/bpf/ringbuf.c: a page with the consumer's position, up to
// which records are released, a page with the producer's position, up to which room is
// reserved, and the data. The kernel maps the data twice in a row, so that records never
// wrap around. Here it is mapped once, since each page counts towards memory use as often as
// it is mapped, and the one record that wraps around is copied. Each record has a header
// with its length, a bit while it is being written, and a bit if it was discarded.
//
// Package ringbuf of cilium/ebpf copies each record and releases it at once.
type ring struct {
	mu        sync.Mutex // held from begin to end, while the memory is in use
	consumer  []byte
	producer  []byte
	data      []byte
	size      uint64
	next      Place // of the next record to take
	wrapped   []byte
	wrappedAt Place // of the record that wrapped is a copy of
	source    *ebpf.Map

	waiters sync.RWMutex // held for reading while the descriptors are in use, against close
	// File descriptors: the epoll instances of wait and of sleep, which also watches the
	// rings beside this one, and the eventfds of flush and nudge.
	epoll, sleeper, flushed, nudged int
	beside                          []*ring
	closed                          atomic.Bool
}

const (
	ringBusy    = 1 << 31
	ringDiscard = 1 << 30
	ringHeader  = 8
)

// ErrFlushed is returned when everything that was in the ring at Flush has been read.
var ErrFlushed = errors.New("the ring was flushed")

// sizeRing sets the size in bytes of a ring that is to be created, and removes the type of
// its records, which is only there for bpf2go: the kernel would refuse it, but only after it
// has allocated the whole ring, and the library would try again without.
func sizeRing(spec *ebpf.MapSpec, size int) {
	spec.MaxEntries = uint32(size)
	spec.Key, spec.Value = nil, nil
}

// openRing maps the memory of a ring buffer.
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

// waiting creates an epoll instance for the ring and some eventfds.
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

// wakes adds the ring to an epoll instance. Edge-triggered, so that the writers decide when
// the reader is woken, and not whether there is data.
func (r *ring) wakes(epoll int) error {
	fd := r.source.FD()
	return unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(fd)})
}

// watch lets the writers of another ring end a sleep as well. That ring must outlive this one.
func (r *ring) watch(other *ring) error {
	r.beside = append(r.beside, other)
	if err := other.wakes(r.sleeper); err != nil {
		return fmt.Errorf("watching a ring: %w", err)
	}
	return nil
}

// position is the position at the beginning of a page.
func position(page []byte) *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&page[0])) }

// begin begins to use the ring's memory, until end or leave. Close waits for that.
func (r *ring) begin() error {
	r.mu.Lock()
	if r.closed.Load() {
		r.mu.Unlock()
		return os.ErrClosed
	}
	return nil
}

// end releases all records before a place, and ends the use of the memory.
func (r *ring) end(before Place) {
	position(r.consumer).Store(uint64(before))
	r.mu.Unlock()
}

// leave ends the use of the memory without releasing anything.
func (r *ring) leave() { r.mu.Unlock() }

// unread is how many bytes are reserved and not released yet.
func (r *ring) unread() uint64 { return uint64(r.reserved()) - position(r.consumer).Load() }

// reserved is the place behind all records that are reserved so far.
func (r *ring) reserved() Place { return Place(position(r.producer).Load()) }

// take returns the next record and its place. ok is false if there is none, or if it is still
// being written.
func (r *ring) take() (record []byte, at Place, ok bool) {
	for end := r.reserved(); r.next < end; {
		offset := uint64(r.next) & (r.size - 1)
		// The writer clears the bit atomically when the record is complete: whoever reads
		// the word without it sees the whole record.
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

// record is a record that was taken, by its place. At most one of those that are not released
// wraps around the end of the ring.
func (r *ring) record(at Place) []byte {
	offset := uint64(at) & (r.size - 1)
	length := uint64(*(*uint32)(unsafe.Pointer(&r.data[offset]))) &^ (ringBusy | ringDiscard)
	begin, end := offset+ringHeader, offset+ringHeader+length
	if end <= r.size {
		return r.data[begin:end:end]
	}
	if r.wrappedAt != at {
		r.wrapped = append(append(r.wrapped[:0], r.data[begin:]...), r.data[:end-r.size]...)
		r.wrappedAt = at
	}
	return r.wrapped
}

// wait blocks until the writers wake the reader. At the deadline it returns
// os.ErrDeadlineExceeded, after a flush ErrFlushed. The zero deadline means none.
func (r *ring) wait(deadline time.Time) error { return r.waitAt(r.epoll, deadline) }

// sleep is like wait, but also for the rings beside this one. It returns at once if any of
// them has unread data, for which the writers would not wake the reader again.
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

// flush makes the current or the next wait or sleep return.
func (r *ring) flush() error { return r.signal(r.flushed) }

// nudge makes the current or the next sleep return.
func (r *ring) nudge() error { return r.signal(r.nudged) }

func (r *ring) signal(event int) error {
	r.waiters.RLock()
	defer r.waiters.RUnlock()
	if r.closed.Load() {
		return os.ErrClosed
	}
	return wake(event)
}

// wake signals an eventfd.
func wake(event int) error {
	one := binary.NativeEndian.AppendUint64(nil, 1)
	if _, err := unix.Write(event, one); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("waking the reader of a ring: %w", err)
	}
	return nil
}

// close interrupts those who wait, waits until the memory is not in use, and unmaps it. It is
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
