package capture

import (
	"os"

	"github.com/ebpfdump/ebpfdump/capture/internal/process"
)

// Command is a command to run under capture.
type Command struct {
	// Args are the command and its arguments, at least the command. It is searched for in PATH.
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

func (c *Command) inner() process.Command {
	return process.Command{
		Args: c.Args, Env: c.Env, Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr, User: (*process.User)(c.User),
	}
}

// Reenter is the main function of the process that Start makes from this same program; in that
// process it does not return. Every program that calls Start must call it before it does
// anything else.
func Reenter() { process.Reenter() }
