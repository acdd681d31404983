package capture

import (
	"os"

	"github.com/ebpfdump/ebpfdump/capture/internal/process"
)

// Command is a command to run under capture.
type Command struct {
	// Args are the command and its arguments, at least the former. The command is
	// searched for in PATH.
	Args []string
	// Env is its environment. Default: the caller's.
	Env []string
	// Stdin, Stdout and Stderr are its files. Default: /dev/null.
	Stdin, Stdout, Stderr *os.File
	// User to run it as. Default: the caller's.
	User *User
}

// User is who a command runs as. Such a command gets no descriptors but the three
// that are for it, and the sockets that this program was started for (LISTEN_FDS).
type User struct {
	UID, GID int
	Groups   []int
}

func (c *Command) inner() process.Command {
	return process.Command{
		Args: c.Args, Env: c.Env, Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr, User: (*process.User)(c.User),
	}
}

// Reenter does the work of the process that Start makes of the same program, and
// does not return in it. Every program that calls Start must call it before it does
// anything else.
func Reenter() { process.Reenter() }
