package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// serve receives datagrams on a socket with the filter on it, and writes what
// the filter printed of them into a file, until a signal comes.
func serve(object, address, file string) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	filter, err := ebpf.LoadCollection(object)
	if err != nil {
		return fmt.Errorf("loading the filter: %w", err)
	}
	defer filter.Close()
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	trace, err := openTrace()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, trace.Close()) }()
	restore, err := trace.expand()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restore()) }()
	// What others printed before must not be in the file.
	if _, err := trace.readAll(); err != nil {
		return err
	}
	conn, err := net.ListenPacket("udp4", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := attach(conn.(*net.UDPConn), filter.Programs["printing"]); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "listening on %s\n", address)
	go func() {
		buf := make([]byte, 64<<10)
		for {
			if _, _, err := conn.ReadFrom(buf); err != nil {
				return // it was closed
			}
		}
	}()
	return trace.copyTo(out, ctx.Done())
}

// usualTrace is the memory in KiB that the kernel gives the trace of each core
// once somebody traces events. Before that it is a few, and printing alone does
// not change it.
const usualTrace = 1408

// expand gives the trace the usual memory if it has less.
func (t *trace) expand() (restore func() error, err error) {
	name := filepath.Join(t.file, "buffer_size_kb")
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	// Such as "7 (expanded: 1408)", and only "7" if it has been changed before.
	var now int
	if _, err := fmt.Sscan(string(text), &now); err != nil {
		return nil, fmt.Errorf("%s is %q: %w", name, text, err)
	}
	if now >= usualTrace {
		return func() error { return nil }, nil
	}
	set := func(size int) error {
		if err := os.WriteFile(name, []byte(strconv.Itoa(size)), 0); err != nil {
			return fmt.Errorf("setting the size of the trace: %w", err)
		}
		return nil
	}
	return func() error { return set(now) }, set(usualTrace)
}

// copyTo writes the trace into a file until it is told to end, and then what is
// left of it.
func (t *trace) copyTo(out *os.File, end <-chan struct{}) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(t.fd, buf)
		switch {
		case n > 0:
			if _, err := out.Write(buf[:n]); err != nil {
				return err
			}
			continue
		case err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("reading the trace: %w", err)
		}
		select {
		case <-end:
			return nil
		case <-time.After(time.Millisecond):
		}
	}
}
