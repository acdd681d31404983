package capture

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"github.com/ebpfdump/ebpfdump/bpf"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace of its own, with nothing in it but a
// loopback interface that is up. Sockets that are opened in it stay in it.
type Namespace struct {
	calls  chan func()
	closed chan struct{}
	close  sync.Once
}

// errClosedNamespace is the error of using a Namespace after Close.
var errClosedNamespace = fmt.Errorf("the network namespace is closed: %w", os.ErrClosed)

// NewNamespace makes a network namespace. It needs CAP_SYS_ADMIN and CAP_NET_ADMIN. The
// namespace exists until Close was called and the sockets in it are closed.
func NewNamespace() (*Namespace, error) {
	ns := &Namespace{calls: make(chan func()), closed: make(chan struct{})}
	ready := make(chan error)
	go func() {
		// The thread is never unlocked: it ends with the goroutine, so that no other goroutine
		// runs in the namespace.
		runtime.LockOSThread()
		err := enterNewNamespace()
		ready <- err
		if err != nil {
			return
		}
		for {
			select {
			case call := <-ns.calls:
				call()
			case <-ns.closed:
				return
			}
		}
	}()
	if err := <-ready; err != nil {
		return nil, err
	}
	return ns, nil
}

// quietPorts are the ephemeral ports of a namespace: none that Wireshark takes for a protocol,
// as it does with some forty of Linux's default range.
const quietPorts = "50000 54000"

func enterNewNamespace() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		if errors.Is(err, unix.EPERM) {
			return bpf.LacksCapability(unix.CAP_SYS_ADMIN, "making a network namespace", err)
		}
		return fmt.Errorf("making a network namespace: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bringing up lo: %w", err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("bringing up lo: %w", err)
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); errors.Is(err, unix.EPERM) {
		return bpf.LacksCapability(unix.CAP_NET_ADMIN, "bringing up the loopback interface of a network namespace", err)
	} else if err != nil {
		return fmt.Errorf("bringing up lo: %w", err)
	}
	// This fails if there is no writable /proc/sys; opening a ping socket then reports it.
	_ = os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0)
	_ = os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte(quietPorts), 0)
	return nil
}

// SetMTU sets the MTU of the namespace's loopback interface, in bytes.
func (ns *Namespace) SetMTU(bytes int) error {
	err := ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		lo, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		lo.SetUint32(uint32(bytes))
		return unix.IoctlIfreq(fd, unix.SIOCSIFMTU, lo)
	})
	if err != nil {
		return fmt.Errorf("setting the MTU of lo: %w", err)
	}
	return nil
}

// Do runs f inside the namespace; on a nil Namespace, in the caller's. Goroutines that f starts
// run outside. After Close it returns os.ErrClosed.
func (ns *Namespace) Do(f func() error) error {
	if ns == nil {
		return f()
	}
	done := make(chan error, 1)
	select {
	case ns.calls <- func() { done <- f() }:
		return <-done
	case <-ns.closed:
		return errClosedNamespace
	}
}

// Close releases the namespace. It is safe to call it twice.
func (ns *Namespace) Close() {
	if ns != nil {
		ns.close.Do(func() { close(ns.closed) })
	}
}
