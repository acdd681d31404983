package process

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/capability"
)

// Command is a command to run, like the one of package capture.
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

// User is who a command runs as. Such a command inherits only its stdin, stdout and stderr, and
// the sockets of this program's socket activation (LISTEN_FDS).
type User struct {
	UID, GID int
	Groups   []int
}

// Permitted checks before the command runs whether it can become the user, and be followed
// after that: it would run without a capture otherwise.
func (u *User) Permitted() error {
	if u == nil {
		return nil
	}
	needs := []struct {
		capability int
		doing      string
	}{
		{unix.CAP_SETGID, "running a command as another user"},
		{unix.CAP_SETUID, "running a command as another user"},
		{unix.CAP_SYS_PTRACE, "copying the sockets of a command of another user"},
		{unix.CAP_DAC_READ_SEARCH, "listing the sockets of a command of another user"},
	}
	if u.UID == os.Geteuid() {
		needs = needs[:1] // only CAP_SETGID, for the groups
	}
	for _, n := range needs {
		if !capability.Held(n.capability) {
			return bpf.LacksCapability(n.capability, n.doing, unix.EPERM)
		}
	}
	return nil
}

// Launcher is the process that becomes a command.
type Launcher struct {
	cmd   *exec.Cmd
	begin *os.File // tells it to begin
	why   *os.File // where it says why it cannot
	about Command
	has   *inheritance  // besides the files
	ended chan struct{} // closed when the process has ended
}

// Launch starts a process that waits just before it becomes the command.
func Launch(c Command) (_ *Launcher, err error) {
	// Pipes: a socket of ours would be among those of the command.
	begins, begin, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("starting the command: %w", err)
	}
	defer begins.Close()
	why, says, err := os.Pipe()
	if err != nil {
		begin.Close()
		return nil, fmt.Errorf("starting the command: %w", err)
	}
	defer says.Close()
	l := &Launcher{begin: begin, why: why, about: c, ended: make(chan struct{})}
	if l.has, err = inherit(c.User); err != nil {
		begin.Close()
		why.Close()
		return nil, err
	}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	control := firstInherited + len(l.has.files)
	l.cmd, err = again(launcherName, slices.Concat(l.has.files, []*os.File{begins, says}),
		slices.Concat([]string{strconv.Itoa(control), strconv.Itoa(l.has.activated), c.User.encode()}, c.Args)...)
	if err != nil {
		return nil, err
	}
	l.cmd.Env = l.has.environment(c.Env)
	// A nil *os.File would become an io.Reader that is not nil.
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
		_ = l.cmd.Wait() // the ProcessState has its result
		close(l.ended)
	}()
	return l, nil
}

// Release lets the process become the command.
func (l *Launcher) Release() error {
	if _, err := l.begin.Write([]byte{1}); err != nil {
		return fmt.Errorf("running the command: %w", err)
	}
	// The process's end closes when it becomes the command.
	why := make([]byte, 1024)
	if n, _ := l.why.Read(why); n > 0 {
		return fmt.Errorf("running the command: %s", why[:n])
	}
	return l.has.handOver()
}

// Close releases what the start needed. It does not end the command.
func (l *Launcher) Close() {
	l.begin.Close()
	l.why.Close()
	l.has.close()
}

// PID is the process id.
func (l *Launcher) PID() int { return l.cmd.Process.Pid }

// Signal sends it a signal.
func (l *Launcher) Signal(s os.Signal) { _ = l.cmd.Process.Signal(s) }

// State waits until the command has ended, and returns how.
func (l *Launcher) State() *os.ProcessState {
	<-l.ended
	return l.cmd.ProcessState
}

// EachFile calls do with each descriptor that the command will have, under the number that it
// will have there.
func (l *Launcher) EachFile(do func(fd int, own *os.File) error) error {
	return l.has.each(&l.about, do)
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

// launch is the main function of the launcher process: it returns only if it cannot become the
// command. The first argument is the first of the descriptors of two pipes, the second one how many
// sockets of socket activation the command has.
func launch(args []string) (status int) {
	runtime.LockOSThread() // becomeUser drops the privileges of this thread only
	if len(args) < 4 {
		return 127
	}
	fd, err := strconv.Atoi(args[0])
	if err != nil {
		return 127
	}
	begins, says := os.NewFile(uintptr(fd), "begin"), os.NewFile(uintptr(fd+1), "why")
	unix.CloseOnExec(fd)
	unix.CloseOnExec(fd + 1)
	if err := becomeCommand(begins, args[1:]); err != nil {
		_, _ = says.WriteString(err.Error())
	}
	return 127
}

func becomeCommand(begins *os.File, args []string) error {
	if n, err := begins.Read(make([]byte, 1)); n != 1 {
		return fmt.Errorf("waiting to begin: %w", err)
	}
	sockets, err := strconv.Atoi(args[0])
	if err != nil {
		return fmt.Errorf("starting the command: %w", err)
	}
	if sockets > 0 {
		if err := os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())); err != nil {
			return err
		}
	}
	if err := becomeUser(args[1], unix.Stderr+sockets); err != nil {
		return err
	}
	path, err := exec.LookPath(args[2])
	if err != nil {
		return err
	}
	return os.NewSyscallError("execve "+path, unix.Exec(path, args[2:], os.Environ()))
}

// becomeUser switches this thread to UID,GID,GROUP... as encoded, and closes all descriptors
// after the last one that is for the command.
func becomeUser(encoded string, last int) error {
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
	if err := closeBehind(last); err != nil {
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

// closeBehind makes sure that the next program does not inherit descriptors after the last one
// that is for it: the caller of ebpfdump may have left some open that are not for another user.
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
