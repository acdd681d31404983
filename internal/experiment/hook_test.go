package experiment

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/capability"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// The same datagram at every hook: from another header on, and no datagrams of sockets without the mark.
func TestRecorders(t *testing.T) {
	t.Parallel()
	requirePrivilege(t)
	if !capability.Held(unix.CAP_NET_ADMIN) || !capability.Held(unix.CAP_PERFMON) {
		testutil.Missing(t, "needs CAP_NET_ADMIN and CAP_PERFMON")
	}
	const header, ip = 8, 20
	message := []byte("the message that all of them see")
	for _, h := range Hooks() {
		before := 0
		switch {
		case h.Place == OnPacketSocket:
			continue // it is like a socket
		case h.Place == OnCgroup:
			before = ip + header
		case h.Name != "reuseport filter":
			before = header
		}
		direct, err := h.Direct()
		if err != nil {
			t.Fatal(err)
		}
		r, err := h.OpenRecorder(direct, h.Pass, NewMark())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := r.Attach(fd); err != nil {
			t.Fatal(err)
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
		to, err := unix.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		other, sender := testutil.UDPPair(t)
		if _, err := unix.Write(sender, message); err != nil {
			t.Fatal(err)
		}
		if err := unix.Sendto(fd, message, 0, to); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 100)
		for _, from := range []int{other, fd} {
			if n, _, err := unix.Recvfrom(from, got, 0); err != nil || !bytes.Equal(got[:n], message) {
				t.Fatalf("%q, %v", got[:n], err)
			}
		}
		seen, err := r.Runs()
		if err != nil {
			t.Fatal(err)
		}
		if len(seen) != 1 {
			t.Errorf("%s ran %d times", h.Name, len(seen))
			continue
		}
		run := &seen[0]
		if run.Len != before+len(message) || run.Failed || !bytes.Equal(run.Data[before:], message) || (run.Linear >= 0) != direct {
			t.Errorf("%s: %+v", h.Name, run)
		}
		if direct && !bytes.Equal(run.Direct, run.Data[:8]) {
			t.Errorf("%s: %x at data, %x loaded", h.Name, run.Direct, run.Data[:8])
		}
	}
}
