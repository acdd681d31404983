package capture

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// The number of a process that has ended comes to be somebody else's.

func init() {
	targets["reborn"] = targetReborn
	targets["parent"] = targetParent
	targets["parentlater"] = targetParentLater
}

// cloneArgs is struct clone_args of clone3(2).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// startNumbered starts a target that gets a number which nobody has.
func startNumbered(number int, stdin, stdout *os.File, args ...string) error {
	argv, err := syscall.SlicePtrFromStrings(append([]string{targetName}, args...))
	if err != nil {
		return err
	}
	envv, err := syscall.SlicePtrFromStrings(os.Environ())
	if err != nil {
		return err
	}
	path, err := unix.BytePtrFromString("/proc/self/exe")
	if err != nil {
		return err
	}
	wanted := int32(number)
	clone := cloneArgs{exitSignal: uint64(unix.SIGCHLD), setTID: uint64(uintptr(unsafe.Pointer(&wanted))), setTIDSize: 1}
	in, out := stdin.Fd(), stdout.Fd()
	pid, errno := cloneAndExec(&clone, path, &argv[0], &envv[0], in, out)
	if errno != 0 {
		return os.NewSyscallError("clone3", errno)
	}
	if int(pid) != number {
		return fmt.Errorf("process %d, not %d", pid, number)
	}
	return nil
}

// cloneAndExec makes no other calls in the child, which has this thread only.
//
//go:norace
//go:noinline
func cloneAndExec(clone *cloneArgs, path *byte, argv, envv **byte, in, out uintptr) (pid uintptr, errno syscall.Errno) {
	pid, _, errno = syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(clone)), unsafe.Sizeof(*clone), 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	syscall.RawSyscall(unix.SYS_DUP3, in, 0, 0)
	syscall.RawSyscall(unix.SYS_DUP3, out, 1, 0)
	syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(argv)), uintptr(unsafe.Pointer(envv)))
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 127, 0, 0)
	}
}

// targetReborn starts an echo that has a number, when it is told which. It is a
// stranger to the process that had it before.
func targetReborn([]string) error {
	fmt.Println("ready")
	var number int
	if _, err := fmt.Fscanln(os.Stdin, &number); err != nil {
		return err
	}
	if err := startNumbered(number, os.Stdin, os.Stdout, "echo", "tcp4", "127.0.0.1:0"); err != nil {
		return err
	}
	var status unix.WaitStatus
	_, err := unix.Wait4(number, &status, 0, nil)
	return err
}

// targetParent has a child that ends at once, and reaps it when it is told to.
func targetParent([]string) error {
	child := &exec.Cmd{Path: "/proc/self/exe", Args: []string{targetName, "exit"}}
	if err := child.Start(); err != nil {
		return err
	}
	// It is a zombie when its end can be waited for.
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, child.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		return err
	}
	fmt.Println(child.Process.Pid)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		_ = child.Wait() // its status is not 0
		fmt.Println("reaped")
	}
	return nil
}

// reborn lets a stranger have a number, and talks to it.
func reborn(t *testing.T, stranger *target, number int) net.Conn {
	t.Helper()
	fmt.Fprintln(stranger.stdin, number)
	address := stranger.line(t)
	if exe, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", number)); err != nil || !bytes.Contains(exe, []byte("echo")) {
		t.Fatalf("process %d is %q: %v", number, exe, err)
	}
	conn := stranger.dial(t, "tcp", address)
	exchange(t, conn, "the stranger's own business")
	return conn
}

// requireNumbers skips a test where no process can be given a number.
func requireNumbers(t *testing.T) {
	t.Helper()
	testutil.RequirePrivilege(t)
	if name, err := os.Readlink("/proc/self/ns/pid"); err != nil || !strings.Contains(name, "4026531836") {
		t.Skipf("the numbers of the first process id namespace are out of reach from %s: %v", name, err)
	}
}

// A child of the joined process ends, and a stranger gets its number: nothing of that is
// recorded. So it is with a child that had ended when the capture began, and of which
// nothing but its number was there.
func TestJoinNumberUsedAgain(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		ended, target string
	}{{"before", "parent"}, {"during the capture", "parentlater"}} {
		t.Run(test.ended, func(t *testing.T) {
			t.Parallel()
			requireNumbers(t)
			parent := startTarget(t, test.target)
			stranger := startTarget(t, "reborn")
			l := mustJoin(t, JoinConfig{PIDs: []int{parent.Process.Pid}})
			sink := runLive(t, l, func() {
				child := parent.address
				if test.target == "parentlater" {
					fmt.Fprintln(parent.stdin, "begin and end")
					child = parent.line(t)
				}
				number, err := strconv.Atoi(child)
				if err != nil {
					t.Fatal(err)
				}
				parent.tell(t, "reap it")
				reborn(t, stranger, number)
			})
			for _, p := range sink.packets {
				t.Errorf("recorded: %s of process %d from %v: %.40q", p.Call, p.PID, p.Src, p.Data)
			}
		})
	}
}

// targetParentLater is targetParent, whose child begins when it is told to.
func targetParentLater(args []string) error {
	fmt.Println("ready")
	if _, err := os.Stdin.Read(make([]byte, 100)); err != nil {
		return err
	}
	return targetParent(args)
}

// The joined process itself ends, and its number is another one's before anything else
// happens: the capture ends, and has nothing of that one.
func TestJoinNumberOfTheJoinedUsedAgain(t *testing.T) {
	t.Parallel()
	requireNumbers(t)
	server := startTarget(t, "echo", "tcp4", "127.0.0.1:0")
	stranger := startTarget(t, "reborn")
	l := mustJoin(t, JoinConfig{PIDs: []int{server.Process.Pid}})
	defer l.Close()
	conn := server.dial(t, "tcp", server.address)
	exchange(t, conn, "the last words")
	server.stdin.Close()
	if err := server.Wait(); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	other := reborn(t, stranger, server.Process.Pid)
	var sink memory
	if err := l.Run(t.Context(), &sink); err != nil {
		t.Fatal(err)
	}
	for _, p := range sink.packets {
		if p.Src.String() == other.LocalAddr().String() {
			t.Errorf("recorded: %+v", p)
		}
	}
	skipMissed(t, l)
	if got := streamOf(&sink, conn.LocalAddr()); got != "the last words" {
		t.Errorf("user view: %q", got)
	}
}
