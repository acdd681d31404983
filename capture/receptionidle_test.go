package capture

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// split cuts a buffer into so many parts, if it has as many bytes.
func split(b []byte, most int) (all [][]byte) {
	for ; len(all) < most-1 && len(b) > 1; b = b[1:] {
		all = append(all, b[:1])
	}
	return append(all, b)
}

// spliced receives into a pipe, of which only the length is known.
func (r *receptions) spliced(fd, size, sent int) error {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	n, err := unix.Splice(fd, nil, pipe[1], nil, size, 0)
	r.noted("splice", int(n), err, size, sent, func(o *outcome) {
		if o.Unread = true; !o.Reception.Cut {
			o.Reception = Reception{}
		}
	})
	return err
}

// idle makes calls that want no bytes: the kernel does not ask the socket, and there is nothing
// to be seen of them.
func (r *receptions) idle(fd int) error {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	read, err1 := unix.Read(fd, nil)
	readv, err2 := unix.Readv(fd, [][]byte{{}, {}})
	preadv2, err3 := unix.Preadv2(fd, make([][]byte, 100), -1, 0)
	splice, err4 := unix.Splice(fd, nil, pipe[1], nil, 0, 0)
	if read+readv+preadv2+int(splice) != 0 {
		return errors.New("calls that want nothing have got something")
	}
	err := errors.Join(err1, err2, err3, err4)
	ring, rerr := newRing(8, 0, 0)
	if rerr != nil {
		return err // nobody may have one here
	}
	vector := unix.Iovec{Base: &ring.memory[0]}
	for _, s := range []sqe{
		{opcode: opRead, addr: ring.address(0)}, {opcode: opReadv, addr: ring.address(0)},
		{opcode: opReadv, addr: uint64(uintptr(unsafe.Pointer(&vector))), len: 1},
		{opcode: opSplice, fd: int32(pipe[1]), off: ^uint64(0), addr: ^uint64(0), spliceFD: int32(fd)},
	} {
		if s.opcode != opSplice {
			s.fd = int32(fd)
		}
		c, rerr := ring.do(s)
		if err = errors.Join(err, rerr); c.res != 0 {
			return fmt.Errorf("request %+v: %d", s, c.res)
		}
	}
	runtime.KeepAlive(&vector)
	return err
}
