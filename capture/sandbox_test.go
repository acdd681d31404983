package capture

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Programs that lock themselves in with seccomp run under a capture as without one.

func init() { targets["sandbox"] = targetSandbox }

// sandboxes are the ways to lock oneself in, with what becomes of a call that is not
// allowed. 0 is for the mode that has no filter.
var sandboxes = map[string]uint32{
	"strict":        0,
	"kill thread":   unix.SECCOMP_RET_KILL_THREAD,
	"kill process":  unix.SECCOMP_RET_KILL_PROCESS,
	"trap":          unix.SECCOMP_RET_TRAP,
	"errno":         unix.SECCOMP_RET_ERRNO | uint32(unix.EXDEV),
	"trace":         unix.SECCOMP_RET_TRACE,
	"log":           unix.SECCOMP_RET_LOG,
	"allow":         unix.SECCOMP_RET_ALLOW,
	"notify a user": unix.SECCOMP_RET_USER_NOTIF,
}

// targetSandbox sends a text to a server, locks the thread in, reads the text that
// comes back, and makes a call that is not allowed there.
func targetSandbox(args []string) error {
	// A thread that the kernel has killed can not stop for Go's purposes.
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(4)
	server := netip.MustParseAddrPort(args[1])
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: server.Addr().As4(), Port: int(server.Port())}); err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte(args[2])); err != nil {
		return err
	}
	var failed error
	thread, ended := make(chan int), make(chan struct{})
	go onAnotherThread(func() {
		thread <- unix.Gettid()
		failed = lockedIn(args[0], fd, len(args[2]))
		close(ended)
	})
	inside := fmt.Sprintf("/proc/self/task/%d", <-thread)
	for {
		select {
		case <-ended:
			return failed
		case <-time.After(10 * time.Millisecond):
		}
		if _, err := os.Stat(inside); err != nil {
			select {
			case <-ended: // by itself
				return failed
			default:
			}
			fmt.Println("the thread has ended")
			return nil
		}
	}
}

// onAnotherThread does something on a thread that is not the process's first one: of
// that something stays, also when it has ended.
func onAnotherThread(do func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		do()
		return
	}
	go onAnotherThread(do)
	select {}
}

func lockedIn(way string, fd, length int) error {
	buf := make([]byte, length)
	done := fmt.Appendf(nil, "%d bytes came\n", length)
	before := os.Getppid()
	if err := lockIn(way); err != nil {
		return err
	}
	for at := 0; at < length; {
		n, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&buf[at])), uintptr(length-at))
		if errno != 0 || n == 0 {
			return fmt.Errorf("reading: %w", errno)
		}
		at += int(n)
	}
	syscall.RawSyscall(unix.SYS_WRITE, 1, uintptr(unsafe.Pointer(&done[0])), uintptr(len(done)))
	if way == "strict" {
		syscall.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
	}
	parent, _, errno := syscall.Syscall(unix.SYS_GETPPID, 0, 0, 0)
	fmt.Println("not killed:", errno, int(parent) == before, parent == notified)
	return nil
}

// notified is what a call returns that somebody else answers.
const notified = 0x4242

// lockIn locks the thread in.
func lockIn(way string) error {
	if way == "strict" {
		return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_STRICT, 0, 0, 0)
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_GETPPID, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: sandboxes[way]},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	var flags uintptr
	if sandboxes[way] == unix.SECCOMP_RET_USER_NOTIF {
		flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	listener, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	if flags != 0 {
		go answer(listener)
	}
	return nil
}

// answer answers one call in the place of the kernel (seccomp_unotify(2)).
func answer(listener uintptr) {
	const receive, send = 0xc0502100, 0xc0182101 // SECCOMP_IOCTL_NOTIF_RECV, _SEND
	var request struct {
		id   uint64
		rest [72]byte
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, listener, receive, uintptr(unsafe.Pointer(&request))); errno != 0 {
		fmt.Println("receiving:", errno)
	}
	response := struct {
		id    uint64
		value int64
		error int32
		flags uint32
	}{id: request.id, value: notified}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, listener, send, uintptr(unsafe.Pointer(&response))); errno != 0 {
		fmt.Println("answering:", errno)
	}
}

func TestStartSandboxes(t *testing.T) {
	t.Parallel()
	for way := range sandboxes {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			server := startTarget(t, "echo", "tcp4", "127.0.0.1:0")
			text := "into the sandbox: " + strings.Repeat(way, 100)
			args := []string{asCommand(t), "sandbox", way, server.address, text}
			said, state := sandboxAlone(t, server.ns, args)
			saidToo, stateToo, sink := sandboxCaptured(t, server.ns, args)
			if !strings.Contains(said, fmt.Sprintf("%d bytes came\n", len(text))) {
				t.Errorf("without a capture it says %q, and ends with %v", said, state)
			}
			if saidToo != said || stateToo.String() != state.String() {
				t.Errorf("it says %q, and ends with %v: without a capture %q, %v", saidToo, stateToo, said, state)
			}
			var user strings.Builder
			for _, p := range sink.view(ViewUser) {
				user.Write(p.Data)
			}
			if user.String() != text {
				t.Errorf("the user view has %.100q", user.String())
			}
			checkPairs(t, sink)
		})
	}
}

// What Go says when a call is trapped is of no interest.
var sandboxEnv = append(os.Environ(), "GODEBUG=asyncpreemptoff=1", "GOTRACEBACK=none")

func sandboxAlone(t *testing.T, ns *Namespace, args []string) (said string, state *os.ProcessState) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	var stdout strings.Builder
	cmd.Stdout, cmd.Env = &stdout, sandboxEnv
	if err := ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its state says how it ended
	return stdout.String(), cmd.ProcessState
}

func sandboxCaptured(t *testing.T, ns *Namespace, args []string) (said string, state *os.ProcessState, sink *memory) {
	t.Helper()
	file, err := os.Create(t.TempDir() + "/stdout")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var l *Live
	err = ns.Do(func() (err error) {
		l, err = Start(JoinConfig{Options: Options{RingSize: smallRing}}, Command{Args: args, Env: sandboxEnv, Stdout: file})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sink = new(memory)
	if err := l.Run(t.Context(), sink); err != nil {
		t.Fatal(err)
	}
	skipMissed(t, l)
	all, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(all), l.Status(), sink
}
