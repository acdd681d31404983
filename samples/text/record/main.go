// Command record makes the sample texts in the old way: it attaches the filter
// of printing.c to a socket, sends the probe, and writes what the filter printed
// into the kernel's trace and what a server printed that received it.
//
//	record PRINTING.o raw|tcp|udp FOLDER
//	record PRINTING.o serve ADDR:PORT FILE
//
// The second form sends nothing: it receives datagrams of others until a signal,
// and writes the trace of them into a file. It needs root, and nobody else who
// reads the trace meanwhile.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("record: ")
	var err error
	switch {
	case len(os.Args) == 5 && os.Args[2] == "serve":
		err = serve(os.Args[1], os.Args[3], os.Args[4])
	case len(os.Args) == 4:
		err = record(os.Args[1], os.Args[2], os.Args[3])
	default:
		log.Fatal("usage: record PRINTING.o raw|tcp|udp FOLDER, or record PRINTING.o serve ADDR:PORT FILE")
	}
	if err != nil {
		log.Fatal(err)
	}
}

func record(object, kind, folder string) error {
	filter, err := ebpf.LoadCollection(object)
	if err != nil {
		return fmt.Errorf("loading the filter: %w", err)
	}
	defer filter.Close()
	ns, err := capture.NewNamespace()
	if err != nil {
		return err
	}
	defer ns.Close()
	trace, err := openTrace()
	if err != nil {
		return err
	}
	defer trace.Close()
	// What others printed before must not be in the sample.
	if _, err := trace.readAll(); err != nil {
		return err
	}

	var server bytes.Buffer
	if err := ns.Do(func() error { return converse(filter.Programs["printing"], kind, &server) }); err != nil {
		return fmt.Errorf("sending the probe: %w", err)
	}
	printed, err := trace.readAll()
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(folder, kind+"-kernelspace.txt"), printed, 0o644),
		os.WriteFile(filepath.Join(folder, kind+"-userspace.txt"), server.Bytes(), 0o644),
	)
}

// trace is the kernel's trace pipe, on a mount that nobody else sees.
type trace struct {
	fd   int
	file string
}

// openTrace mounts the trace file system in a folder of its own, as not every
// machine has it mounted.
func openTrace() (*trace, error) {
	folder, err := os.MkdirTemp("", "trace")
	if err != nil {
		return nil, err
	}
	if err := unix.Mount("tracefs", folder, "tracefs", 0, ""); err != nil {
		return nil, errors.Join(fmt.Errorf("mounting tracefs: %w", err), os.Remove(folder))
	}
	fd, err := unix.Open(filepath.Join(folder, "trace_pipe"), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the trace: %w", err), unix.Unmount(folder, 0), os.Remove(folder))
	}
	return &trace{fd, folder}, nil
}

// quiet is how long the trace must have been silent to be over.
const quiet = 300 * time.Millisecond

// readAll reads the pipe, which never ends, until nothing comes for a while.
func (t *trace) readAll() ([]byte, error) {
	var (
		all []byte
		buf [4096]byte
	)
	for last := time.Now(); time.Since(last) < quiet; {
		n, err := unix.Read(t.fd, buf[:])
		if n > 0 {
			all, last = append(all, buf[:n]...), time.Now()
			continue
		}
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("reading the trace: %w", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return all, nil
}

func (t *trace) Close() error {
	return errors.Join(unix.Close(t.fd), unix.Unmount(t.file, 0), os.Remove(t.file))
}

const address = "127.0.0.1:16962"

// converse opens a socket with the filter on it, sends the probe, and prints
// what the socket received.
func converse(filter *ebpf.Program, kind string, server io.Writer) error {
	switch kind {
	case "tcp":
		return converseTCP(filter, server)
	case "udp":
		conn, err := net.ListenPacket("udp4", address)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := attach(conn.(*net.UDPConn), filter); err != nil {
			return err
		}
		client, err := net.Dial("udp4", address)
		if err != nil {
			return err
		}
		defer client.Close()
		if _, err := io.WriteString(client, capture.ProbePayload); err != nil {
			return err
		}
		return receive(conn.(*net.UDPConn), server, 1)
	case "raw":
		conn, err := net.ListenIP("ip4:"+strconv.Itoa(unix.IPPROTO_TCP), &net.IPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := attach(conn, filter); err != nil {
			return err
		}
		// Nobody listens: a SYN, and the RST that answers it.
		if _, err := net.Dial("tcp4", address); !errors.Is(err, unix.ECONNREFUSED) {
			return fmt.Errorf("connecting where nobody listens: %w", err)
		}
		return receive(conn, server, 2)
	}
	return fmt.Errorf("there is no kind %q here", kind)
}

func converseTCP(filter *ebpf.Program, server io.Writer) error {
	var config net.ListenConfig
	config.SetMultipathTCP(false) // an MPTCP socket takes no filter
	listener, err := config.Listen(context.Background(), "tcp4", address)
	if err != nil {
		return err
	}
	defer listener.Close()
	if err := attach(listener.(*net.TCPListener), filter); err != nil {
		return err
	}
	client, err := net.Dial("tcp4", address)
	if err != nil {
		return err
	}
	defer client.Close()
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(client, capture.ProbePayload); err != nil {
		return err
	}
	if err := receive(conn.(*net.TCPConn), server, 1); err != nil {
		return err
	}
	if err := client.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		return err
	}
	if err := conn.Close(); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, client)
	return err
}

// attach makes the program the socket's filter.
func attach(conn syscall.Conn, filter *ebpf.Program) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_BPF, filter.FD())
	})
	return errors.Join(cerr, err)
}

// receive prints so many messages as the server of 2017 did. It uses recvfrom
// as that did: net.IPConn.Read would take the IP header off.
func receive(conn syscall.Conn, server io.Writer, messages int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for range messages {
		var n int
		rerr := raw.Read(func(fd uintptr) bool {
			n, _, err = unix.Recvfrom(int(fd), buf, 0)
			return !errors.Is(err, unix.EAGAIN)
		})
		if err := errors.Join(rerr, err); err != nil {
			return err
		}
		fmt.Fprintf(server, "Userspace: Received %d bytes, dumping\n", n)
		for i, b := range buf[:n] {
			fmt.Fprintf(server, "\tbyte[%d]=0x%x\n", i, b)
		}
		fmt.Fprintln(server)
	}
	return nil
}
