package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// activatedServer is a server as systemd would start it at the first connection
// (sd_listen_fds(3)).
const activatedServer = `import os, socket
assert os.environ["LISTEN_PID"] == str(os.getpid()), os.environ
assert os.environ["LISTEN_FDS"] == "1" and os.environ["LISTEN_FDNAMES"] == "web", os.environ
listener = socket.socket(fileno=3)
for i in range(6):
    connection, _ = listener.accept()
    question = connection.recv(100)
    connection.sendall(b"answer to " + question)
    connection.close()
`

// Socket activation works for a command under ebpfdump as it does without: it inherits a
// listener with waiting clients.
func TestActivatedCommand(t *testing.T) {
	t.Parallel()
	requireTools(t, "python3", "sh", "tshark", "ss")
	for name, flags := range map[string][]string{"as root": {"--user", "root"}, "as nobody": {"--user", "nobody"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			listener, address := b.listenFor()
			early := b.dial("tcp", address)
			defer early.Close()
			wire := b.tapWire()
			args := slices.Concat([]string{"-c", `LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec "$0" "$@"`,
				b.named("ebpfdump"), "capture", "--fail-on-drop", "-o", b.recordTo()}, flags, []string{"--", "python3", "-c", activatedServer})
			cmd := exec.Command("sh", args...)
			cmd.ExtraFiles = []*os.File{listener}
			r := b.recordBy(cmd)
			fmt.Fprint(early, "who woke it")
			if got, err := io.ReadAll(early); err != nil || string(got) != "answer to who woke it" {
				t.Errorf("%q, %v", got, err)
			}
			for i := range 5 {
				b.ask(address, i)
			}
			r.wait()
			b.checkAll(r, wire, early)
		})
	}
}

// Started as by inetd, a command has a connection as its stdin.
func TestConnectionAsStdin(t *testing.T) {
	t.Parallel()
	requireTools(t, "cat", "tshark", "ss")
	b := newBench(t)
	listener, address := b.listenFor()
	client := b.dial("tcp", address)
	defer client.Close()
	fd, _, err := unix.Accept4(int(listener.Fd()), unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	wire := b.tapWire()
	cmd := exec.Command(b.named("ebpfdump"), "capture", "--fail-on-drop", "-o", b.recordTo(), "--user", "root", "--", "cat")
	connection := os.NewFile(uintptr(fd), "connection")
	cmd.Stdin = connection
	r := b.recordBy(cmd)
	connection.Close()
	for i := range 5 {
		fmt.Fprintf(client, "line %d\n", i)
		time.Sleep(10 * time.Millisecond)
	}
	if err := client.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	r.wait()
	if said := r.stdout.String(); said != "line 0\nline 1\nline 2\nline 3\nline 4\n" {
		t.Errorf("cat says %q", said)
	}
	b.checkAll(r, wire, nil)
}

// listenFor listens on behalf of a command that is started later.
func (b *bench) listenFor() (listener *os.File, address string) {
	b.Helper()
	const port = 9100
	var fd int
	err := b.ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port})
	}
	if err == nil {
		err = unix.Listen(fd, 100)
	}
	if err != nil {
		b.Fatal(err)
	}
	listener = os.NewFile(uintptr(fd), "listener")
	b.Cleanup(func() { listener.Close() })
	return listener, fmt.Sprintf("127.0.0.1:%d", port)
}

// checkAll compares a recording with the wire. What came over a connection that waited to
// be accepted only has to be in the user view.
func (b *bench) checkAll(r *recording, w *wire, waited net.Conn) {
	b.Helper()
	truth := w.stop()
	b.checkWhole(r)
	got := b.packets(r.file)
	if waited != nil {
		of := func(p packet) bool { return p.src.String() == waited.LocalAddr().String() }
		var read string
		for _, p := range got {
			if of(p) && p.user {
				read += string(p.data)
			}
		}
		if read != "who woke it" {
			b.Errorf("the user view has %q of the connection that waited", read)
		}
		truth, got = slices.DeleteFunc(truth, of), slices.DeleteFunc(got, of)
	}
	var c comparison
	c.compare(scope{serves: []uint16{9100}}, truth, got)
	c.report(b)
	if b.Failed() {
		b.Logf("ebpfdump said:\n%s", r.stderr.String())
	}
}
