package capture

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
	"golang.org/x/sys/unix"
)

// Several processes are followed, whatever their namespaces, until the last one ends.
func TestJoinSeveral(t *testing.T) {
	t.Parallel()
	first, second := startTarget(t, "echo", "tcp4", "127.0.0.1:0"), startTarget(t, "udp", "127.0.0.1:0")
	said := newNotices()
	pids := []int{first.Process.Pid, second.Process.Pid, first.Process.Pid}
	l := mustJoin(t, JoinConfig{PIDs: pids, Options: Options{Notice: said.add}})
	defer l.Close()
	stream, datagrams := first.dial(t, "tcp", first.address), second.dial(t, "udp", second.address)
	var sink memory
	done := make(chan error)
	go func() { done <- l.Run(t.Context(), &sink) }()
	exchange(t, stream, "to the first one")
	exchange(t, datagrams, "to the second one")
	first.stdin.Close()
	for ended := fmt.Sprintf("process %d (exe) has ended", first.Process.Pid); <-said.lines != ended; {
	}
	exchange(t, datagrams, "who is alone now")
	second.stdin.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	skipMissed(t, l)
	checkWholeFrom(t, &sink, stream.LocalAddr(), "to the first one")
	checkWholeFrom(t, &sink, datagrams.LocalAddr(), "to the second onewho is alone now")
	want := []int{first.Process.Pid, second.Process.Pid}
	for i, conn := range []net.Conn{stream, datagrams} {
		if got := whoseFrom(&sink, conn.LocalAddr()); got != fmt.Sprintf("process %d (exe)", want[i]) {
			t.Errorf("packets from %v are of %q", conn.LocalAddr(), got)
		}
	}
}

// whoseFrom is the process whose interface the packets from a client have.
func whoseFrom(sink *memory, client net.Addr) string {
	from := unmapped(netip.MustParseAddrPort(client.String()))
	for _, p := range sink.view(ViewUser) {
		if p.Src == from {
			return p.Interface.Process
		}
	}
	return ""
}

// mustGroup makes a cgroup, which is removed when the test ends, after all that is in it.
func mustGroup(t *testing.T) string {
	t.Helper()
	root, ok := bpf.CgroupMount()
	if !ok {
		root = t.TempDir()
		if err := unix.Mount("none", root, "cgroup2", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	}
	folder, err := os.MkdirTemp(root, "ebpfdump-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(folder) })
	return folder
}

// targetInto runs another target in a cgroup.
func targetInto(args []string) error {
	if err := os.WriteFile(args[0]+"/"+procs, fmt.Append(nil, os.Getpid()), 0); err != nil {
		return err
	}
	return unix.Exec("/proc/self/exe", append([]string{targetName}, args[1:]...), os.Environ())
}

// enterGroup puts a process into a cgroup.
func enterGroup(t *testing.T, folder string, pid int) {
	t.Helper()
	if err := os.WriteFile(folder+"/"+procs, fmt.Append(nil, pid), 0); err != nil {
		t.Fatal(err)
	}
}

// What is in a cgroup, or in one below it, is followed, and what comes to it later as well,
// until the cgroup is removed; what runs a program there from the program's start on.
func TestJoinCgroup(t *testing.T) {
	t.Parallel()
	testutil.RequirePrivilege(t)
	folder := mustGroup(t)
	below := folder + "/below"
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	first := startTarget(t, "echo", "tcp4", "127.0.0.1:0")
	second := startTarget(t, "udp", "127.0.0.1:0")
	stranger := startTarget(t, "udp", "127.0.0.1:0")
	enterGroup(t, folder, first.Process.Pid)
	said := newNotices()
	l := mustJoin(t, JoinConfig{Cgroup: folder, Options: Options{Notice: said.add}})
	defer l.Close()
	if got := l.Process(); got != "cgroup "+folder {
		t.Errorf("it follows %q", got)
	}
	var sink memory
	done := make(chan error)
	go func() { done <- l.Run(t.Context(), &sink) }()
	stream, datagrams := first.dial(t, "tcp", first.address), second.dial(t, "udp", second.address)
	exchange(t, stream, "to the first one")
	exchange(t, datagrams, "too early. ")
	enterGroup(t, below, second.Process.Pid)
	for !l.followed(second.Process.Pid) {
		time.Sleep(time.Millisecond)
	}
	quiet(t, l) // its socket is being looked at
	exchange(t, datagrams, "to the second one")
	third := startTarget(t, "into", below, "echo", "tcp4", "127.0.0.1:0")
	fresh := third.dial(t, "tcp", third.address)
	exchange(t, fresh, "to the third one")
	exchange(t, stranger.dial(t, "udp", stranger.address), "to a stranger")
	for _, p := range []*target{first, second, third} {
		p.stdin.Close()
		if err := p.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Remove(below), os.Remove(folder)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	skipMissed(t, l)
	checkWholeFrom(t, &sink, stream.LocalAddr(), "to the first one")
	checkWholeFrom(t, &sink, datagrams.LocalAddr(), "to the second one")
	checkWholeFrom(t, &sink, fresh.LocalAddr(), "to the third one")
	checkHandshake(t, &sink, fresh.LocalAddr())
	if n := holding(sink.packets, "to a stranger"); n != 0 {
		t.Errorf("%d packets of a stranger", n)
	}
	if all := said.all(); !strings.Contains(all, "cgroup "+folder+" has ended") {
		t.Errorf("notices %q", all)
	}
}
