package capture

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What io_uring_setup(2), io_uring_enter(2) and io_uring_register(2) are told, from
// linux/io_uring.h.
const (
	setupSQPoll       = 1 << 1
	setupCQSize       = 1 << 3
	setupSingleIssuer = 1 << 12
	setupDeferTaskrun = 1 << 13

	enterGetEvents = 1
	enterSQWakeup  = 2
	sqNeedsWakeup  = 1

	registerBuffers    = 0
	registerFiles      = 2
	registerBufferRing = 22
	ringIncremental    = 2

	sqeFixedFile    = 1
	sqeLink         = 1 << 2
	sqeAsync        = 1 << 4
	sqeBufferSelect = 1 << 5

	opReadv          = 1
	opReadFixed      = 4
	opRecvmsg        = 10
	opAccept         = 13
	opRead           = 22
	opRecv           = 27
	opSplice         = 30
	opProvideBuffers = 31

	recvMultishot = 2
	recvBundle    = 16

	cqeBuffer     = 1
	cqeMore       = 2
	cqeBufferMore = 16
)

// sqe is struct io_uring_sqe.
type sqe struct {
	opcode, flags uint8
	ioprio        uint16
	fd            int32
	off, addr     uint64
	len, opFlags  uint32
	userData      uint64
	bufGroup, _   uint16
	spliceFD      int32
	_             [2]uint64
}

// cqe is struct io_uring_cqe.
type cqe struct {
	userData uint64
	res      int32
	flags    uint32
}

// params is struct io_uring_params.
type params struct {
	sqEntries, cqEntries, flags, _, idle, features, _ uint32
	_                                                 [3]uint32
	sq                                                struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// ring is an io_uring with some memory that it may read into.
type ring struct {
	fd      int
	params  params
	sq, cq  []byte
	sqes    []sqe
	pending uint32
	memory  []byte
	// A ring of buffers of a size, in the rest of the memory.
	buffers    []byte
	bufferSize int
	tail       uint16
}

// errUnsupported is that this kernel has not what a request wants.
var errUnsupported = errors.New("this kernel does not do that")

func newRing(entries, flags, cqEntries uint32) (_ *ring, err error) {
	r := &ring{params: params{flags: flags, cqEntries: cqEntries, idle: 50}}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&r.params)), 0)
	if errno == unix.EINVAL {
		return nil, errUnsupported
	}
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	r.fd = int(fd)
	mapped := func(at int64, size uint32) []byte {
		m, merr := unix.Mmap(r.fd, at, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
		err = errors.Join(err, merr)
		return m
	}
	p := &r.params
	r.sq = mapped(0, p.sq.array+4*p.sqEntries)
	r.cq = mapped(0x8000000, p.cq.cqes+16*p.cqEntries)
	all := mapped(0x10000000, 64*p.sqEntries)
	if err != nil {
		return nil, err
	}
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&all[0])), p.sqEntries)
	r.memory, err = unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE)
	return r, err
}

func word(m []byte, at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&m[at])) }

func (r *ring) address(at int) uint64 { return uint64(uintptr(unsafe.Pointer(&r.memory[at]))) }

// put puts a request into the ring.
func (r *ring) put(s sqe) {
	p := &r.params.sq
	tail := *word(r.sq, p.tail)
	at := tail & *word(r.sq, p.mask)
	r.sqes[at] = s
	*word(r.sq, p.array+4*at) = at
	atomic.StoreUint32(word(r.sq, p.tail), tail+1)
	r.pending++
}

// enter hands over the requests, and waits for so many completions.
func (r *ring) enter(wait uint32) error {
	flags := uint32(enterGetEvents)
	if r.params.flags&setupSQPoll != 0 && atomic.LoadUint32(word(r.sq, r.params.sq.flags))&sqNeedsWakeup != 0 {
		flags |= enterSQWakeup
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.pending), uintptr(wait), uintptr(flags), 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno == unix.EBUSY { // completions wait for room: reap them first
			return nil
		}
		if errno != 0 {
			return fmt.Errorf("io_uring_enter: %w", errno)
		}
		r.pending -= uint32(n)
		return nil
	}
}

// reap takes the next completion, and waits for it.
func (r *ring) reap() (cqe, error) {
	p := &r.params.cq
	for {
		head := *word(r.cq, p.head)
		if head != atomic.LoadUint32(word(r.cq, p.tail)) {
			at := p.cqes + 16*(head&*word(r.cq, p.mask))
			c := *(*cqe)(unsafe.Pointer(&r.cq[at]))
			atomic.StoreUint32(word(r.cq, p.head), head+1)
			if c.res == -int32(unix.EINVAL) || c.res == -int32(unix.EOPNOTSUPP) {
				return c, errUnsupported
			}
			if c.res < 0 {
				return c, fmt.Errorf("request %d: %w", c.userData, unix.Errno(-c.res))
			}
			return c, nil
		}
		if err := r.enter(1); err != nil {
			return cqe{}, err
		}
	}
}

// do makes a request and waits for it.
func (r *ring) do(s sqe) (cqe, error) {
	r.put(s)
	if err := r.enter(1); err != nil {
		return cqe{}, err
	}
	return r.reap()
}

func (r *ring) register(what uint32, argument unsafe.Pointer, n int) error {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), uintptr(what), uintptr(argument), uintptr(n), 0, 0)
	if errno == unix.EINVAL {
		return errUnsupported
	}
	if errno != 0 {
		return fmt.Errorf("io_uring_register: %w", errno)
	}
	return nil
}

// bufferGroup is the number of the group of buffers, which is none of the first ones.
const bufferGroup = 70

// provide makes a ring of n buffers of a size.
func (r *ring) provide(n, size int, flags uint16) (err error) {
	r.buffers, err = unix.Mmap(-1, 0, 16*n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	r.bufferSize = size
	group := struct {
		address      uint64
		entries      uint32
		group, flags uint16
		_            [3]uint64
	}{address: uint64(uintptr(unsafe.Pointer(&r.buffers[0]))), entries: uint32(n), group: bufferGroup, flags: flags}
	if err := r.register(registerBufferRing, unsafe.Pointer(&group), 1); err != nil {
		return err
	}
	for i := range n {
		r.giveBack(i)
	}
	return nil
}

// giveBack puts a buffer at the end of the ring.
func (r *ring) giveBack(id int) {
	n := len(r.buffers) / 16
	at := 16 * (int(r.tail) % n)
	*(*uint64)(unsafe.Pointer(&r.buffers[at])) = r.address(id * r.bufferSize)
	*word(r.buffers, uint32(at+8)) = uint32(r.bufferSize)
	*(*uint16)(unsafe.Pointer(&r.buffers[at+12])) = uint16(id)
	r.tail++
	// The tail stands beside the reserved half word of the first entry.
	first := word(r.buffers, 12)
	atomic.StoreUint32(first, *first&0xffff|uint32(r.tail)<<16)
}

// provideListed provides n buffers of a size in the old way, by a request.
func (r *ring) provideListed(first, n, size int) error {
	r.bufferSize = size
	c, err := r.do(sqe{opcode: opProvideBuffers, fd: int32(n), addr: r.address(first * size), len: uint32(size), off: uint64(first), bufGroup: bufferGroup, userData: 99})
	if err == nil && c.userData != 99 {
		err = fmt.Errorf("completion %+v", c)
	}
	return err
}
