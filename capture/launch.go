package capture

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// Command is a command to run under capture.
type Command struct {
	// Args are the command and its arguments. The command is searched for in PATH.
	Args []string
	// Env is its environment. Default: the caller's.
	Env []string
	// Stdin, Stdout and Stderr are its files. Default: /dev/null.
	Stdin, Stdout, Stderr *os.File
	// User to run it as. Default: the caller's.
	User *User
}

// User is who a command runs as. Such a command gets no descriptors but the three
// that are for it.
type User struct {
	UID, GID int
	Groups   []int
}

// permitted tells before the command runs whether it can become the user, and be
// followed then: it would run without a capture otherwise.
func (u *User) permitted() error {
	if u == nil {
		return nil
	}
	needs := []struct {
		capability bpf.Capability
		doing      string
	}{
		{unix.CAP_SETGID, "running a command as another user"},
		{unix.CAP_SETUID, "running a command as another user"},
		{unix.CAP_SYS_PTRACE, "copying the sockets of a command of another user"},
		{unix.CAP_DAC_READ_SEARCH, "listing the sockets of a command of another user"},
	}
	if u.UID == os.Geteuid() {
		needs = needs[:1] // for the groups
	}
	for _, n := range needs {
		if !bpf.HasCapability(int(n.capability)) {
			return n.capability.Lacks(n.doing, unix.EPERM)
		}
	}
	return nil
}

// launcher is the process that becomes the command.
type launcher struct {
	cmd     *exec.Cmd
	control *os.File      // to say that it may begin, and to hear why it cannot
	ended   chan struct{} // closed when the process has ended
}

// startLauncher starts a process that is held just before it becomes the command.
func startLauncher(c Command) (_ *launcher, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("starting the command: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "control")
	defer theirs.Close()
	l := &launcher{control: os.NewFile(uintptr(pair[0]), "control"), ended: make(chan struct{})}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	l.cmd = again(launcherName, []*os.File{theirs}, append([]string{c.User.encode()}, c.Args...)...)
	l.cmd.Env = c.Env
	// A nil *os.File must not become an io.Reader that is not nil.
	if c.Stdin != nil {
		l.cmd.Stdin = c.Stdin
	}
	if c.Stdout != nil {
		l.cmd.Stdout = c.Stdout
	}
	if c.Stderr != nil {
		l.cmd.Stderr = c.Stderr
	}
	if err := l.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the command: %w", err)
	}
	go func() {
		_ = l.cmd.Wait() // what it returns is in the ProcessState
		close(l.ended)
	}()
	theirs.Close()
	return l, nil
}

// release lets the process become the command.
func (l *launcher) release() error {
	if _, err := l.control.Write([]byte{1}); err != nil {
		return fmt.Errorf("running the command: %w", err)
	}
	// The other end closes when it has become the command.
	why := make([]byte, 1024)
	if n, _ := l.control.Read(why); n > 0 {
		return fmt.Errorf("running the command: %s", why[:n])
	}
	return nil
}

func (l *launcher) close() {
	l.control.Close()
}

func (u *User) encode() string {
	if u == nil {
		return ""
	}
	ids := []string{strconv.Itoa(u.UID), strconv.Itoa(u.GID)}
	for _, g := range u.Groups {
		ids = append(ids, strconv.Itoa(g))
	}
	return strings.Join(ids, ",")
}

// launch is the launcher's own work: it returns only if it cannot become the
// command. Descriptor 3 is the control socket.
func launch(args []string) (status int) {
	runtime.LockOSThread() // what becomeUser gives up is this thread's
	control := os.NewFile(3, "control")
	unix.CloseOnExec(3)
	if err := becomeCommand(control, args); err != nil {
		_, _ = control.WriteString(err.Error())
	}
	return 127
}

func becomeCommand(control *os.File, args []string) error {
	if len(args) < 2 {
		return errors.New("no command")
	}
	if n, err := control.Read(make([]byte, 1)); n != 1 {
		return fmt.Errorf("waiting to begin: %w", err)
	}
	if err := becomeUser(args[0]); err != nil {
		return err
	}
	path, err := exec.LookPath(args[1])
	if err != nil {
		return err
	}
	return os.NewSyscallError("execve "+path, unix.Exec(path, args[1:], os.Environ()))
}

// becomeUser gives up the privileges of this thread, as UID,GID,GROUP... say.
func becomeUser(encoded string) error {
	if encoded == "" {
		return nil
	}
	var ids []int
	for field := range strings.SplitSeq(encoded, ",") {
		id, err := strconv.Atoi(field)
		if err != nil {
			return fmt.Errorf("becoming the user: %w", err)
		}
		ids = append(ids, id)
	}
	if len(ids) < 2 {
		return fmt.Errorf("becoming the user: %q", encoded)
	}
	if err := closeBehind(unix.Stderr); err != nil {
		return fmt.Errorf("becoming user %d: %w", ids[0], err)
	}
	if err := errors.Join(
		os.NewSyscallError("setgroups", unix.Setgroups(ids[2:])),
		os.NewSyscallError("setgid", unix.Setresgid(ids[1], ids[1], ids[1])),
		os.NewSyscallError("setuid", unix.Setresuid(ids[0], ids[0], ids[0])),
	); err != nil {
		return fmt.Errorf("becoming user %d: %w", ids[0], err)
	}
	return nil
}

// closeBehind sees to it that the next program has no descriptor behind the last
// one that is for it: whoever called ebpfdump may have left open what is not for
// another user.
func closeBehind(last int) error {
	err := unix.CloseRange(uint(last)+1, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return os.NewSyscallError("close_range", err)
	}
	// CLOSE_RANGE_CLOEXEC came with Linux 5.11.
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > last {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
