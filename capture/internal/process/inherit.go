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

// inheritance is the open descriptors that a command inherits from our parent, besides stdin,
// stdout and stderr, under the same numbers as here. Those in between that are not for the
// command are nil, the last one is not.
type inheritance struct {
	files     []*os.File // from descriptor 3 on, duplicates of ours
	activated int        // how many of the first ones are our sockets of socket activation
}

// firstInherited is the first descriptor after stdin, stdout and stderr, which is also the
// first one of socket activation (sd_listen_fds(3)).
const firstInherited = 3

// activated is how many sockets this program has from socket activation.
func activated() int {
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 0 || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return n
}

// inherit finds what a command inherits: all that was left open for it, or, if it runs as
// another user, only the sockets of socket activation.
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
			continue // not inheritable, or the directory that is being read
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
		f.Close() // a nil file only returns an error
	}
}

// handOver closes our descriptors of the sockets of socket activation, and our duplicates: a
// connection ends for its peer only when all descriptors are closed. Listeners stay open, so
// that the tap can be removed from them at the end.
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

// environment sets the variables of socket activation for the command, as we got them.
// LISTEN_PID is set by launch, in the process that it names.
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

// each calls do with each descriptor that the command will have, under the number that it will
// have there.
func (in *inheritance) each(c *Command, do func(fd int, own *os.File) error) error {
	var errs []error
	for fd, own := range slices.Concat([]*os.File{c.Stdin, c.Stdout, c.Stderr}, in.files) {
		if own != nil {
			errs = append(errs, do(fd, own))
		}
	}
	return errors.Join(errs...)
}
