package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// limited is a Sink that keeps so many packets of a view and then is full.
type limited struct {
	memory
	view View // 0 for any
	room int
}

func (l *limited) WritePacket(p *Packet) error {
	if l.view == 0 || p.Interface.View == l.view {
		if l.room == 0 {
			return unix.ENOSPC
		}
		l.room--
	}
	return l.memory.WritePacket(p)
}

// runInto runs a session until so many packets are captured, and then lets
// something happen to it before it ends.
func runInto(t *testing.T, s Capture, sink Sink, packets uint64, end func()) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx, sink) }()
	for {
		select {
		case err := <-done:
			cancel()
			return err
		default:
		}
		if counts, err := s.Counts(); err != nil || counts.Captured >= packets {
			break
		}
	}
	end()
	cancel()
	return <-done
}

const failurePackets = 1344

// Whatever fails at the end, everything that was captured is written.
func TestFailuresLoseNothing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		fail func(t *testing.T, s *Session)
		want error
	}{
		{"closing the socket", func(t *testing.T, s *Session) {
			// A locked filter cannot be replaced.
			cerr := s.main.conn.Control(func(fd uintptr) {
				if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1); err != nil {
					t.Error(err)
				}
			})
			if cerr != nil {
				t.Error(cerr)
			}
		}, unix.EPERM},
		{"the tap", func(t *testing.T, s *Session) {
			if err := s.tap.Close(); err != nil {
				t.Error(err)
			}
		}, os.ErrClosed},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := Open(Config{Kind: mustKind(t, "udp"), Namespace: mustNamespace(t), Options: Options{RingSize: 4 << 20}})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			conn := dialIn(t, s, "udp")
			for i := range failurePackets {
				fmt.Fprintf(conn, "datagram %d", i)
			}
			var sink memory
			err = runInto(t, s, &sink, failurePackets, func() { test.fail(t, s) })
			if !errors.Is(err, test.want) {
				t.Errorf("Run returned %v", err)
			}
			if n := len(sink.view(ViewKernel)); n != failurePackets {
				t.Errorf("%d packets of %d in the kernel view", n, failurePackets)
			}
			counts, _ := s.Counts()
			if n := uint64(len(sink.packets)); counts.Captured+counts.Delivered != n || counts.Written != n {
				t.Errorf("%d packets: %+v", n, counts)
			}
		})
	}
}

// A sink that fails gets no more packets. All else is counted to the end.
func TestSinkFailsCounted(t *testing.T) {
	t.Parallel()
	for _, view := range []View{0, ViewKernel, ViewUser} {
		s, err := Open(Config{Kind: mustKind(t, "udp"), Namespace: mustNamespace(t), Options: Options{RingSize: 4 << 20}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		conn := dialIn(t, s, "udp")
		for i := range failurePackets {
			fmt.Fprintf(conn, "datagram %d", i)
		}
		sink := limited{view: view, room: 100}
		checkFailedSink(t, s, &sink, runInto(t, s, &sink, 1<<62, nil))
	}
}

func checkFailedSink(t *testing.T, s Capture, sink *limited, err error) {
	t.Helper()
	if !errors.Is(err, unix.ENOSPC) || strings.Count(err.Error(), unix.ENOSPC.Error()) != 1 {
		t.Errorf("Run returned %v", err)
	}
	counts, err := s.Counts()
	if err != nil {
		t.Fatal(err)
	}
	if counts.Captured != failurePackets || counts.Written != uint64(len(sink.packets)) {
		t.Errorf("the sink took %d: %+v", len(sink.packets), counts)
	}
	all, err := s.Statistics()
	if a := accountOf(t, all, err); a.Seen != failurePackets || a.Delivered+a.Queue != failurePackets {
		t.Errorf("%s", a)
	}
	for _, st := range all {
		if st.Written != uint64(len(sink.memory.view(st.Interface.View))) || st.Delivered > failurePackets {
			t.Errorf("%s: %+v", st.Interface.Name(), st)
		}
	}
}

// The same of a joined process: its sink fails, or the tap does.
func TestFailuresOfJoined(t *testing.T) {
	t.Parallel()
	start := func() (*Live, *target) {
		process := startTarget(t, "sink", fmt.Sprint(largeBuffer))
		l := mustJoin(t, JoinConfig{PIDs: []int{process.Process.Pid}})
		conn := process.dial(t, "udp", process.address)
		for i := range failurePackets {
			fmt.Fprintf(conn, "datagram %d", i)
		}
		quiet(t, l)
		return l, process
	}
	l, process := start()
	defer l.Close()
	sink := limited{room: 100}
	checkFailedSink(t, l, &sink, runInto(t, l, &sink, 1<<62, nil))
	checkNoFilter(t, process.Process.Pid)

	l, process = start()
	defer l.Close()
	var all memory
	err := runInto(t, l, &all, failurePackets, func() {
		if err := l.tap.Close(); err != nil {
			t.Error(err)
		}
	})
	if err == nil || len(all.view(ViewKernel)) != failurePackets {
		t.Errorf("%d packets, and Run returned %v", len(all.view(ViewKernel)), err)
	}
	checkNoFilter(t, process.Process.Pid)
}

// A socket that gives nothing but an error ends its session, which says so and has the packets
// that came before.
func TestSocketThatOnlyFails(t *testing.T) {
	t.Parallel()
	testutil.RequirePrivilege(t)
	var notices []string
	config := Config{Kind: mustKind(t, "udp"), Namespace: mustNamespace(t), Options: Options{RingSize: smallRing, Notice: func(s string) { notices = append(notices, s) }}}
	s, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	// In its place comes one that is not connected, of which the kernel refuses to read.
	other, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	replace := func(fd uintptr) { err = unix.Dup3(other, int(fd), unix.O_CLOEXEC) }
	if cerr := s.main.conn.Control(replace); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
	var sink memory
	err = s.Run(t.Context(), &sink)
	if !errors.Is(err, unix.EINVAL) || !strings.HasPrefix(err.Error(), "receiving: invalid argument") || len(notices) != 1 {
		t.Errorf("%v, notices %q", err, notices)
	}
	if failed := sink.view(ViewUser); len(failed) != failsMost || failed[0].Receipt.Errno != unix.EINVAL {
		t.Errorf("%d packets", len(failed))
	}
}

// A listener that accepts nothing any more ends its session, too.
func TestListenerThatOnlyFails(t *testing.T) {
	t.Parallel()
	testutil.RequirePrivilege(t)
	s, err := Open(Config{Kind: mustKind(t, "tcp"), Namespace: mustNamespace(t), Options: Options{RingSize: smallRing}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if cerr := s.main.conn.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_RDWR) }); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
	err = s.Run(t.Context(), &memory{})
	if !errors.Is(err, unix.EINVAL) || !strings.HasPrefix(err.Error(), "accepting a connection: invalid argument") {
		t.Error(err)
	}
}
