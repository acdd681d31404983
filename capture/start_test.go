package capture

import (
	"os"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

func mustStart(tb testing.TB, config JoinConfig, ns *Namespace, args ...string) *Live {
	tb.Helper()
	var l *Live
	err := ns.Do(func() (err error) {
		l, err = Start(config, Command{Args: args, Stderr: os.Stderr})
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// asCommand makes a target of this test binary that can be found by its name.
func asCommand(tb testing.TB) string {
	tb.Helper()
	exe, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	path := tb.TempDir() + "/" + targetName
	if err := os.Symlink(exe, path); err != nil {
		tb.Fatal(err)
	}
	return path
}

// A command's connection is captured from its SYN on.
func TestStartClient(t *testing.T) {
	t.Parallel()
	for network, kind := range map[string]string{"tcp": "tcp:kernel", "udp": "udp:kernel"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			args := []string{"echo", "tcp4", "127.0.0.1:0"}
			if network == "udp" {
				args = []string{"udp", "127.0.0.1:0"}
			}
			server := startTarget(t, args...)
			l := mustStart(t, JoinConfig{Options: Options{RingSize: smallRing}}, server.ns, asCommand(t), "client", network, server.address, "there and back")
			sink := untilEnd(t, l)
			var user strings.Builder
			for _, p := range sink.view(ViewUser) {
				user.Write(p.Data)
			}
			if user.String() != "there and back" {
				t.Errorf("user view: %q", user.String())
			}
			checkPairs(t, sink)
			first := sink.view(ViewKernel)[0]
			if first.Interface.Name() != kind || first.Src.String() != server.address {
				t.Errorf("first packet %+v", first)
			}
			if network == "tcp" && !isSYN(first.Data) {
				t.Errorf("the first packet is no SYN")
			}
		})
	}
}

// untilEnd runs a session until its command has ended, well.
func untilEnd(tb testing.TB, l *Live) *memory {
	tb.Helper()
	defer l.Close()
	var sink memory
	if err := l.Run(tb.Context(), &sink); err != nil {
		tb.Fatal(err)
	}
	if state := l.Status(); state == nil || !state.Success() {
		tb.Errorf("status %v", state)
	}
	skipMissed(tb, l)
	return &sink
}

// The tap is there in time also where the command is not held.
func TestStartUnheld(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "udp", "127.0.0.1:0")
	for range 10 {
		l := mustStart(t, JoinConfig{Options: Options{RingSize: smallRing}}, server.ns, asCommand(t), "unheld", server.address, "there and back")
		sink := untilEnd(t, l)
		if n := len(sink.view(ViewKernel)); n != 1 {
			t.Errorf("%d packets in the kernel view, want 1", n)
		}
		checkPairs(t, sink)
	}
}

// A command's listener has the tap before anybody can connect, and when the
// capture has had enough, the command goes on.
func TestStartServer(t *testing.T) {
	t.Parallel()
	ns := mustNamespace(t)
	stdin, input, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	output, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	var l *Live
	err = ns.Do(func() (err error) {
		l, err = Start(JoinConfig{Options: Options{Packets: 3, RingSize: smallRing}}, Command{
			Args: []string{asCommand(t), "echo", "tcp4", "127.0.0.1:0"}, Stdin: stdin, Stdout: stdout, Stderr: os.Stderr,
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var sink memory
	done := make(chan error)
	go func() { done <- l.Run(t.Context(), &sink) }()
	address := make([]byte, 64)
	n, err := output.Read(address)
	if err != nil {
		t.Fatal(err)
	}
	server := &target{ns: ns, address: strings.TrimSpace(string(address[:n]))}
	conn := server.dial(t, "tcp", server.address)
	exchange(t, conn, "first")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !isSYN(sink.view(ViewKernel)[0].Data) {
		t.Errorf("the first packet is no SYN")
	}
	skipMissed(t, l) // listen may be among them
	if d := sink.view(ViewKernel)[0].Interface.Sockets; !strings.Contains(d, "listening on "+server.address) {
		t.Error(d)
	}
	pid := l.command.PID()
	checkNoFilter(t, pid)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	exchange(t, conn, "and it goes on")
	input.Close()
	l.command.State()
}

func TestStartStatus(t *testing.T) {
	t.Parallel()
	testutil.RequirePrivilege(t)
	l, err := Start(JoinConfig{Options: Options{RingSize: smallRing}}, Command{Args: []string{asCommand(t), "exit"}, User: &User{UID: os.Getuid(), GID: os.Getgid()}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Run(t.Context(), new(memory)); err != nil {
		t.Fatal(err)
	}
	if state := l.Status(); state == nil || state.ExitCode() != 3 {
		t.Errorf("status %v", state)
	}
	l, err = Start(JoinConfig{Options: Options{RingSize: smallRing}}, Command{Args: []string{"/nowhere/to/be/found"}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Run(t.Context(), new(memory)); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a command that does not exist: %v", err)
	}
}
