package capture

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// peer is the probe's end of a conversation: a blocking socket of any kind, on which no call
// takes longer than probeTimeout.
type peer struct {
	fd     int
	stream bool
}

var _ io.ReadWriteCloser = peer{}

// connectPeer opens a socket and connects it.
func connectPeer(domain, typ, protocol int, to unix.Sockaddr) (_ peer, err error) {
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return peer{}, fmt.Errorf("socket: %w", err)
	}
	p := peer{fd: fd, stream: typ == unix.SOCK_STREAM}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	timeout := unix.NsecToTimeval(probeTimeout.Nanoseconds())
	for _, option := range []int{unix.SO_SNDTIMEO, unix.SO_RCVTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &timeout); err != nil {
			return peer{}, fmt.Errorf("setting a timeout: %w", err)
		}
	}
	err = uninterrupted(func() error { return unix.Connect(fd, to) })
	if errors.Is(err, unix.EALREADY) || errors.Is(err, unix.EINPROGRESS) {
		err = unix.ETIMEDOUT
	}
	if err != nil {
		return peer{}, fmt.Errorf("connect: %w", err)
	}
	return p, nil
}

// uninterrupted repeats a call that a signal interrupts: Go's runtime sends many.
func uninterrupted(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Write sends b, on all but stream sockets as one message: there the kernel may return less,
// when the receiver's filter trims the message (netlink).
func (p peer) Write(b []byte) (n int, err error) {
	err = uninterrupted(func() error {
		for {
			sent, err := unix.SendmsgN(p.fd, b[n:], nil, nil, unix.MSG_NOSIGNAL)
			if err != nil {
				return err
			}
			if n += sent; n >= len(b) || !p.stream {
				return nil
			}
		}
	})
	return n, p.outcome("send", err)
}

// Read receives the next bytes; io.EOF at the end of a stream.
func (p peer) Read(b []byte) (n int, err error) {
	err = uninterrupted(func() error {
		n, _, err = unix.Recvfrom(p.fd, b, 0)
		return err
	})
	if err != nil {
		return 0, p.outcome("recv", err)
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// CloseWrite shuts the sending side down.
func (p peer) CloseWrite() error {
	return p.outcome("shutdown", unix.Shutdown(p.fd, unix.SHUT_WR))
}

// Close closes the socket.
func (p peer) Close() error { return unix.Close(p.fd) }

func (p peer) outcome(call string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EAGAIN):
		// The error after a timeout.
		return fmt.Errorf("%s: %w", call, os.ErrDeadlineExceeded)
	}
	return fmt.Errorf("%s: %w", call, err)
}
