package capture

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// targetRingServer serves one connection after the other by an io_uring. It says when a request
// waits for the first bytes of one, and when one has ended.
func targetRingServer([]string) error {
	runtime.LockOSThread()
	r, err := newRing(8, 0, 0)
	if err != nil {
		return untilStdinEnds("unsupported")
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 8)); err != nil {
		return err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	fmt.Println(addrPort(name))
	for stdin := bufio.NewScanner(os.Stdin); err == nil && stdin.Scan(); {
		err = r.serve(fd)
	}
	return err
}

// serve accepts a connection and reads all that it brings.
func (r *ring) serve(listener int) error {
	accepted, err := r.do(sqe{opcode: opAccept, fd: int32(listener)})
	if err != nil {
		return err
	}
	receive := sqe{opcode: opRecv, fd: accepted.res, addr: r.address(0), len: turnBytes / 4}
	r.put(receive)
	if err := r.enter(0); err != nil {
		return err
	}
	fmt.Println("waits")
	for {
		c, err := r.reap()
		if err != nil {
			return err
		}
		if c.res <= 1 {
			break // a single byte is all there is
		}
		r.put(receive)
	}
	if err := unix.Close(int(accepted.res)); err != nil {
		return err
	}
	fmt.Println("ended")
	return nil
}

// A read has the id of its packets also if its request was there before the first of them: the
// connection has no cookie by then, nor had an earlier one whose memory it may have.
func TestReceiveBeforeFirstPacket(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "uring")
	if server.address == "unsupported" {
		t.Skip("nobody may have an io_uring here")
	}
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}})
	var all []*taking
	expect := func(want string) {
		t.Helper()
		if line := server.line(t); line != want {
			t.Fatalf("connection %d: the server says %q, want %q", len(all), line, want)
		}
	}
	sink := collect(t, l, func() {
		for range 40 {
			fmt.Fprintln(server.stdin)
			short := server.dial(t, "tcp", server.address)
			expect("waits")
			if _, err := short.Write([]byte{1}); err != nil {
				t.Fatal(err)
			}
			expect("ended") // by its only request, so that its place is left
			short.Close()
			k := &taking{receiveRow: receiveRow{way: "recv", call: "io_uring recv"}}
			all = append(all, k)
			fmt.Fprintln(server.stdin)
			k.conn = server.dial(t, "tcp", server.address)
			expect("waits")
			for _, part := range threeSegments() {
				k.sent = append(k.sent, part)
				if _, err := k.conn.Write(part); err != nil {
					t.Fatal(err)
				}
			}
			k.conn.Close()
			expect("ended")
		}
		quiet(t, l)
	})
	for _, k := range all {
		checkStream(t, k, sink)
	}
	checkLiveLedger(t, l)
}
