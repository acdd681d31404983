package outfile

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// AwaitUnread calls gone, on a goroutine of its own, when nobody reads a pipe or a socket any more:
// the next write would fail, but nobody knows when that comes. Of other writers nothing is told.
// stop ends the wait, and may be called several times.
func AwaitUnread(to io.Writer, gone func()) (stop func()) {
	file, ok := to.(*os.File)
	if ours, is := to.(*File); is {
		file, ok = ours.file, true
	}
	if !ok {
		return func() {}
	}
	info, err := file.Stat()
	if err != nil || info.Mode()&(os.ModeNamedPipe|os.ModeSocket) == 0 {
		return func() {}
	}
	over, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return func() {} // then the next write tells
	}
	var wait sync.WaitGroup
	fd := int32(file.Fd())
	wait.Go(func() {
		if unread(fd, int32(over)) {
			gone()
		}
	})
	return sync.OnceFunc(func() {
		_, _ = unix.Write(over, binary.NativeEndian.AppendUint64(nil, 1))
		wait.Wait()
		unix.Close(over)
	})
}

// unread waits until nobody reads a pipe or a socket, or for an event.
func unread(fd, event int32) bool {
	fds := []unix.PollFd{{Fd: fd}, {Fd: event, Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || fds[1].Revents != 0:
			return false
		default:
			return fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
		}
	}
}
