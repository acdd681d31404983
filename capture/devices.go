package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// devices are the names of the interfaces of some network namespaces. Whoever asks for one waits for
// nobody: the kernel tells of new ones (rtnetlink(7)).
type devices struct {
	mu      sync.Mutex // of those who enter names
	names   atomic.Pointer[map[device]string]
	sockets []*os.File
	readers sync.WaitGroup
}

// device is an interface, by the inode of its network namespace and its number there.
type device struct {
	network uint32
	index   uint32
}

// name is plain text.
func (d *devices) name(of device) string {
	if names := d.names.Load(); names != nil {
		if name, ok := (*names)[of]; ok {
			return name
		}
	}
	return fmt.Sprintf("number %d", of.index)
}

// add enters the interfaces of the network namespace of this thread, and those to come.
func (d *devices) add(network uint32) (err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("asking for the interfaces: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("asking for the interfaces: %w", errors.Join(err, unix.Close(fd)))
		}
	}()
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}); err != nil {
		return err
	}
	request := make([]byte, unix.NLMSG_HDRLEN+unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], unix.RTM_GETLINK)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	for done := false; !done; {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return err
		}
		if done, err = d.take(network, buf[:n]); err != nil {
			return err
		}
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	news := os.NewFile(uintptr(fd), "netlink")
	d.sockets = append(d.sockets, news)
	d.readers.Go(func() {
		for {
			n, err := news.Read(buf)
			if err != nil && !errors.Is(err, unix.ENOBUFS) {
				return
			}
			_, _ = d.take(network, buf[:max(n, 0)])
		}
	})
	return nil
}

// take enters the names that messages tell. done tells whether they were the last answer.
func (d *devices) take(network uint32, messages []byte) (done bool, err error) {
	all, err := syscall.ParseNetlinkMessage(messages)
	if err != nil {
		return false, fmt.Errorf("reading what rtnetlink says: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	names := make(map[device]string)
	if before := d.names.Load(); before != nil {
		names = maps.Clone(*before)
	}
	for i := range all {
		m := &all[i]
		switch m.Header.Type {
		case unix.NLMSG_DONE:
			done = true
		case unix.NLMSG_ERROR:
			return true, errors.New("rtnetlink refuses")
		case unix.RTM_NEWLINK:
			attributes, err := syscall.ParseNetlinkRouteAttr(m)
			if err != nil || len(m.Data) < unix.SizeofIfInfomsg {
				continue
			}
			for _, a := range attributes {
				if a.Attr.Type == unix.IFLA_IFNAME && len(a.Value) > 0 {
					names[device{network, binary.NativeEndian.Uint32(m.Data[4:])}] = terminal.Plain(unix.ByteSliceToString(a.Value))
				}
			}
		}
	}
	d.names.Store(&names)
	return done, nil
}

// close ends the reading. It is safe to call it twice.
func (d *devices) close() error {
	var errs []error
	for _, socket := range d.sockets {
		errs = append(errs, socket.Close())
	}
	d.sockets = nil
	d.readers.Wait()
	return errors.Join(errs...)
}
