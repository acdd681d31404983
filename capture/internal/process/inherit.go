package process

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// inheritance is what a command has from whoever called us, besides its three files:
// under the numbers that it has here. The one with the highest number is the last, those
// between that are not for the command are nil.
type inheritance struct {
	files     []*os.File // from descriptor 3 on, copies of ours
	activated int        // how many of the first ones are sockets that we were started for
}

// firstInherited is the first descriptor behind stdin, stdout and stderr, and the first one of
// socket activation (sd_listen_fds(3)).
const firstInherited = 3

// activated is how many sockets we were started for.
func activated() int {
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 0 || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return n
}

// inherit finds out what a command is to have: all that was left open for it, or, if it
// runs as another user, the sockets that we were started for.
func inherit(u *User) (_ *inheritance, err error) {
	in := &inheritance{activated: activated()}
	defer func() {
		if err != nil {
			in.close()
		}
	}()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, fmt.Errorf("starting the command: %w", err)
	}
	for _, entry := range entries {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil || fd < firstInherited {
			continue
		}
		asked := fd < firstInherited+in.activated
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || !asked && (flags&unix.FD_CLOEXEC != 0 || u != nil) {
			continue // not for any command, or of the look itself
		}
		copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, firstInherited)
		if err != nil {
			return nil, fmt.Errorf("starting the command: copying descriptor %d: %w", fd, err)
		}
		at := fd - firstInherited
		in.files = append(in.files, make([]*os.File, max(0, at+1-len(in.files)))...)
		in.files[at] = os.NewFile(uintptr(copied), "inherited")
	}
	return in, nil
}

func (in *inheritance) close() {
	for _, f := range in.files {
		f.Close() // nil is an error, and no matter
	}
}

// handOver leaves the sockets that we were started for to the command: a connection has
// ended for its peer only when nobody has it any more. Listeners stay, so that what is
// on them can be taken off at the end.
func (in *inheritance) handOver() error {
	var errs []error
	for i, f := range in.files {
		if f == nil || isListener(f) {
			continue
		}
		f.Close()
		in.files[i] = nil
		if i < in.activated {
			errs = append(errs, os.NewSyscallError("close", unix.Close(firstInherited+i)))
		}
	}
	return errors.Join(errs...)
}

func isListener(f *os.File) (listening bool) {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Control(func(fd uintptr) {
		n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		listening = err == nil && n != 0
	})
	return err == nil && listening
}

// environment tells the command of the sockets that it is started for, as we were told.
// Their owner's number is set when it is certain which that is.
func (in *inheritance) environment(env []string) []string {
	if in.activated == 0 {
		return env
	}
	if env == nil {
		env = os.Environ()
	}
	env = slices.DeleteFunc(slices.Clone(env), func(entry string) bool { return strings.HasPrefix(entry, "LISTEN_") })
	for _, name := range []string{"LISTEN_FDS", "LISTEN_FDNAMES"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// each does something with each descriptor that the command will have, under the number
// that it will have there.
func (in *inheritance) each(c *Command, do func(fd int, own *os.File) error) error {
	var errs []error
	for fd, own := range slices.Concat([]*os.File{c.Stdin, c.Stdout, c.Stderr}, in.files) {
		if own != nil {
			errs = append(errs, do(fd, own))
		}
	}
	return errors.Join(errs...)
}
