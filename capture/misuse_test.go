package capture

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
	"golang.org/x/sys/unix"
)

// What a program gets wrong is an error that names it, or nothing happens: nothing panics.
func TestMisuse(t *testing.T) {
	t.Parallel()
	testutil.RequirePrivilege(t)
	opening := func(config Config) func() error {
		return func() error {
			s, err := Open(config)
			if err == nil {
				s.Close()
			}
			return err
		}
	}
	for _, test := range []struct {
		name, want string
		do         func() error
	}{
		{"no kind", "Config.Kind", opening(Config{})},
		{"a kind of one's own", "", opening(Config{Kind: &Kind{Name: "mine"}})},
		{"a view of no socket", "there is no view", opening(Config{Kind: mustKind(t, "udp"), Options: Options{Views: []View{ViewCount}}})},
		{"a view that does not exist", "there is no view", opening(Config{Kind: mustKind(t, "udp"), Options: Options{Views: []View{100}}})},
		{"a view twice", "kernel is chosen twice", opening(Config{Kind: mustKind(t, "udp"), Options: Options{Views: []View{ViewKernel, ViewKernel}}})},
		{"a negative snaplen", "snaplen", opening(Config{Kind: mustKind(t, "udp"), Options: Options{Snaplen: -1}})},
		{"a tiny ring", "ring", opening(Config{Kind: mustKind(t, "udp"), Options: Options{RingSize: 1}})},
		{"joining with a view of no socket", "there is no view", func() error {
			_, err := Join(JoinConfig{PIDs: []int{os.Getpid()}, Options: Options{Views: []View{ViewCount}}})
			return err
		}},
		{"joining nobody", "JoinConfig.PIDs is empty", func() error {
			_, err := Join(JoinConfig{Options: Options{RingSize: smallRing}})
			return err
		}},
		{"an empty command", "Command.Args", func() error {
			_, err := Start(JoinConfig{}, Command{})
			return err
		}},
	} {
		if err := test.do(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestRunIsForOnce(t *testing.T) {
	t.Parallel()
	s, err := Open(Config{Kind: mustKind(t, "udp"), Namespace: mustNamespace(t), Options: Options{RingSize: smallRing, Packets: 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "Sink") {
		t.Errorf("without a sink: %v", err)
	}
	if _, err := dialIn(t, s, "udp").Write([]byte("once")); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), new(memory)); err != nil {
		t.Error(err)
	}
	if err := s.Run(t.Context(), new(memory)); err == nil || !strings.Contains(err.Error(), "has run") {
		t.Errorf("the second time: %v", err)
	}
}

// A process that ran already is not signalled.
func TestSignalWithoutACommand(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "udp", "127.0.0.1:0")
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}})
	sink := runLive(t, l, func() {
		l.Signal(unix.SIGKILL)
		l.Signal(nil)
		if _, err := server.dial(t, "udp", server.address).Write([]byte("alive")); err != nil {
			t.Fatal(err)
		}
	})
	if l.Status() != nil || len(sink.view(ViewUser)) != 1 {
		t.Errorf("status %v, %d packets", l.Status(), len(sink.packets))
	}
}

func TestClosedNamespace(t *testing.T) {
	t.Parallel()
	testutil.RequirePrivilege(t)
	ns, err := NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
	ns.Close()
	if err := ns.Do(func() error { t.Error("it ran"); return nil }); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Do: %v", err)
	}
	if err := ns.SetMTU(1500); !errors.Is(err, os.ErrClosed) {
		t.Errorf("SetMTU: %v", err)
	}
}
