package capture

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// Processes and sockets that cannot be looked at, or not by the usual way.

func init() {
	targets["headless"], targets["refused"] = targetHeadless, targetRefused
	if filepath.Base(os.Args[0]) == targetName && os.Args[1] == "headless" {
		runtime.LockOSThread() // in an init function, this keeps the main goroutine on the first thread
	}
}

// targetHeadless ends its first thread, and goes on.
func targetHeadless([]string) error {
	debug.SetGCPercent(-1) // a thread that has ended does not stop for it
	go func() {
		for {
			text, err := os.ReadFile("/proc/self/stat")
			if err == nil && strings.HasPrefix(string(text[strings.LastIndexByte(string(text), ')'):]), ") Z ") {
				break
			}
			time.Sleep(time.Millisecond)
		}
		_ = untilStdinEnds("headless")
		os.Exit(0)
	}()
	_, _, errno := unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
	return errno
}

// What a process has whose first thread has ended is found by another thread, in a list and for a
// capture. Kernels before Linux 6.9 cannot, and that is said.
func TestHeadless(t *testing.T) {
	t.Parallel()
	p := newPool(t)
	f := p.open(unix.AF_INET, unix.SOCK_DGRAM, 0)
	p.must(unix.Bind(int(f.Fd()), &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	other := startTargetWith(t, p.files, "headless")
	pid := other.Process.Pid
	join := JoinConfig{PIDs: []int{pid}, Options: Options{RingSize: smallRing}}
	if linux(t) < 6<<8|9 {
		_, err := TakeInventory(InventoryConfig{PIDs: []int{pid}})
		_, jerr := Join(join)
		for _, err := range []error{err, jerr} {
			var missing *bpf.MissingError
			if !errors.As(err, &missing) || !strings.Contains(err.Error(), "whose first thread has ended, needs pidfd_open with PIDFD_THREAD of Linux 6.9") {
				t.Errorf("got %v", err)
			}
		}
		return
	}
	if s := one(t, InventoryConfig{PIDs: []int{pid}}); fmt.Sprint(s.Owners) != fmt.Sprint([]Owner{{pid, "exe", []int{3}}}) || !s.Elsewhere {
		t.Errorf("got %+v", s)
	}
	l := mustJoin(t, join)
	sink := runLive(t, l, func() {
		conn := dialFrom(t, p.ns, "udp", addressOf(t, int(f.Fd())))
		defer conn.Close()
		if _, err := io.WriteString(conn, "seen"); err != nil {
			t.Error(err)
		}
	})
	if known := strings.Join(l.Sockets(), "\n"); !strings.Contains(known, "(descriptor 3)") || len(sink.view(ViewKernel)) != 1 {
		t.Errorf("%d packets of %q", len(sink.view(ViewKernel)), known)
	}
}

// addressOf is the address of a socket.
func addressOf(t *testing.T, fd int) string {
	t.Helper()
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return addrPort(sa).String()
}

// refuse makes a system call fail, of all threads, where an argument has a value.
func refuse(call, argument, value int, errno unix.Errno) error {
	at := func(offset uintptr) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: uint32(offset)}
	}
	unless := func(value uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: skip, K: value}
	}
	result := func(value uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value}
	}
	const number, arguments = 0, 16 // of struct seccomp_data
	code := []unix.SockFilter{
		at(number), unless(uint32(call), 3), at(arguments + 8*uintptr(argument)), unless(uint32(value), 1),
		result(unix.SECCOMP_RET_ERRNO | uint32(errno)), result(unix.SECCOMP_RET_ALLOW),
	}
	program := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	_, _, err := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if err != 0 {
		return err
	}
	return nil
}

// targetRefused looks into processes, while a system call is refused as a security module would do
// it, and says what it got. Its arguments are those of refuse, what to do, and the processes.
func targetRefused(args []string) error {
	var numbers []int
	for _, arg := range append(args[:4:4], args[5:]...) {
		n, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		numbers = append(numbers, n)
	}
	if err := refuse(numbers[0], numbers[1], numbers[2], unix.Errno(numbers[3])); err != nil {
		return fmt.Errorf("making a system call fail: %w", err)
	}
	var missing *bpf.MissingError
	if args[4] == "join" {
		said := newNotices()
		l, err := Join(JoinConfig{PIDs: numbers[4:], Options: Options{RingSize: smallRing, Notice: said.add}})
		if err != nil {
			fmt.Printf("missing %v: %v\n", errors.As(err, &missing), err)
			return nil
		}
		fmt.Println(strings.ReplaceAll(said.all(), "\n", "; "), l.Sockets())
		return errors.Join(l.leave(), l.Close())
	}
	all, err := TakeInventory(InventoryConfig{PIDs: numbers[4:]})
	if err != nil {
		fmt.Printf("missing %v: %v\n", errors.As(err, &missing), err)
		return nil
	}
	fmt.Printf("%d sockets, %d denied, missing %v: %v\n", len(all.Sockets), all.Denied, errors.As(all.Denial, &missing), all.Denial)
	return nil
}

// What cannot be looked at for whatever reason is counted and said, and the rest is listed.
func TestInventoryRefused(t *testing.T) {
	t.Parallel()
	p := newPool(t)
	for range 2 {
		p.open(unix.AF_INET, unix.SOCK_DGRAM, 0)
	}
	two := p.hand() // descriptors 3 and 4
	p.files = p.files[:1]
	three := p.hand() // 3
	const (
		copying, descriptor = unix.SYS_PIDFD_GETFD, 1
		asking, option      = unix.SYS_GETSOCKOPT, 2
	)
	name := fmt.Sprintf("process %d (exe)", two.Process.Pid)
	for _, c := range []struct {
		call, argument, value int
		errno                 unix.Errno
		do                    string
		want                  string
	}{
		{copying, descriptor, 4, unix.EACCES, "both", "1 sockets, 1 denied, missing true: copying a socket of " + name + " of user 0 is not permitted, whatever capabilities are held: look for"},
		{copying, descriptor, 4, unix.EPERM, "both", "1 sockets, 1 denied, missing true: copying the sockets of " + name + " of user 0 is not permitted although CAP_SYS_PTRACE is held: look for"},
		{copying, descriptor, 4, unix.ENOMEM, "both", "1 sockets, 1 denied, missing false: copying descriptor 4 of " + name + ": cannot allocate memory"},
		{copying, descriptor, 4, unix.EBADF, "both", "1 sockets, 0 denied, missing false: <nil>"}, // it is closed
		{copying, descriptor, 3, unix.EACCES, "one", "1 sockets, 1 denied, missing true: copying a socket of " + name},
		{copying, descriptor, 3, unix.ENOMEM, "both", "1 sockets, 2 denied, missing false: copying descriptor 3 of "},
		{asking, option, unix.SO_PROTOCOL, unix.EACCES, "one", "missing true: descriptor 3 of " + name + ": asking a socket for its kind is not permitted, whatever capabilities are held: look for"},
		{asking, option, unix.SO_PROTOCOL, unix.ENOMEM, "one", "missing false: descriptor 3 of " + name + ": asking a socket for its kind: cannot allocate memory"},
		{asking, option, unix.SO_PROTOCOL, unix.EINVAL, "one", "0 sockets, 0 denied, missing false: <nil>"}, // it is shut down
		{asking, option, unix.SO_PROTOCOL, unix.EACCES, "join", "descriptor 3 of " + name + " is left alone: asking a socket for its kind is not permitted"},
		{copying, descriptor, 3, unix.EACCES, "join", "missing true: joining " + name + ": copying a socket of " + name},
	} {
		args := []string{"refused"}
		for _, n := range []int{c.call, c.argument, c.value, int(c.errno)} {
			args = append(args, strconv.Itoa(n))
		}
		args = append(args, c.do, strconv.Itoa(two.Process.Pid))
		if c.do == "both" {
			args = append(args, strconv.Itoa(three.Process.Pid))
		}
		if got := startTarget(t, args...).address; !strings.Contains(got, c.want) {
			t.Errorf("%v: got %s\nwant %s", args, got, c.want)
		}
	}
}
