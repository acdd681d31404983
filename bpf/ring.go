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
// the data, mapped twice in a row so that no record is torn. Before each record stands
// its length, with a bit as long as it is being written and one if it was given up.
//
// The package ringbuf of cilium/ebpf copies each record and gives it back at once.
type ring struct {
	mu       sync.Mutex // held from begin to end: then the memory is in use
	consumer []byte
	producer []byte
	data     []byte
	size     uint64
	next     Place // of the next record to look at

	waiters        sync.RWMutex // held for reading while the descriptors are used, against close
	epoll, flushed int          // file descriptors
	closed         atomic.Bool
}

const (
	ringBusy    = 1 << 31
	ringDiscard = 1 << 30
	ringHeader  = 8
)

// ErrFlushed is returned when all that was in the ring at Flush has been read.
var ErrFlushed = errors.New("the ring was flushed")

// openRing maps a ring buffer of the kernel.
func openRing(m *ebpf.Map) (_ *ring, err error) {
	r := &ring{size: uint64(m.MaxEntries()), epoll: -1, flushed: -1}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("opening a ring: %w", err), r.close())
		}
	}()
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	if r.flushed, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, err
	}
	// Edge-triggered: what woke the reader is the writers' business, and not that there is something.
	if err = unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, m.FD(), &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(m.FD())}); err != nil {
		return nil, err
	}
	if err = unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, r.flushed, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(r.flushed)}); err != nil {
		return nil, err
	}
	page := os.Getpagesize()
	if r.consumer, err = unix.Mmap(m.FD(), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, err
	}
	if r.producer, err = unix.Mmap(m.FD(), int64(page), page+2*int(r.size), unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return nil, err
	}
	r.data = r.producer[page:]
	r.next = Place(position(r.consumer).Load())
	return r, nil
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

// record is a record that was taken, by its place.
func (r *ring) record(at Place) []byte {
	offset := uint64(at) & (r.size - 1)
	length := uint64(*(*uint32)(unsafe.Pointer(&r.data[offset]))) &^ (ringBusy | ringDiscard)
	begin, end := offset+ringHeader, offset+ringHeader+length
	return r.data[begin:end:end]
}

// wait sleeps until writers wake the reader, or until the deadline, which is
// os.ErrDeadlineExceeded, or a flush, which is ErrFlushed. The zero deadline is none.
func (r *ring) wait(deadline time.Time) error {
	r.waiters.RLock()
	defer r.waiters.RUnlock()
	if r.closed.Load() {
		return os.ErrClosed
	}
	var events [2]unix.EpollEvent
	for {
		timeout := -1
		if !deadline.IsZero() {
			timeout = max(0, int((time.Until(deadline)+time.Millisecond-1)/time.Millisecond))
		}
		n, err := unix.EpollWait(r.epoll, events[:], timeout)
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
		for _, event := range events[:n] {
			if event.Fd == int32(r.flushed) {
				var count [8]byte
				_, _ = unix.Read(r.flushed, count[:])
				return ErrFlushed
			}
		}
		return nil
	}
}

// flush makes a wait return, this one or the next.
func (r *ring) flush() error {
	r.waiters.RLock()
	defer r.waiters.RUnlock()
	if r.closed.Load() {
		return os.ErrClosed
	}
	return r.wake()
}

func (r *ring) wake() error {
	one := binary.NativeEndian.AppendUint64(nil, 1)
	if _, err := unix.Write(r.flushed, one); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("flushing a ring: %w", err)
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
		errs = append(errs, r.wake())
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
	for _, fd := range []int{r.epoll, r.flushed} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}
