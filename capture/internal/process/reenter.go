package process

import (
	"errors"
	"os"
	"os/exec"
)

// launcherName is argument 0 with which this program starts itself again.
const launcherName = "ebpfdump-launcher"

// reentrant tells that Reenter was called. A program that does not call it would run its own
// main function again in the process that is to become the command.
var reentrant bool

// Reenter is the main function of the process that Launch makes from this same program; in that
// process it does not return. Every program that calls Launch must call it before it does
// anything else.
func Reenter() {
	reentrant = true
	if os.Args[0] == launcherName {
		os.Exit(launch(os.Args[1:]))
	}
}

// again makes a command that runs this same program. The files become its descriptors from 3
// on.
func again(name string, files []*os.File, args ...string) (*exec.Cmd, error) {
	if !reentrant {
		return nil, errors.New("starting a command needs capture.Reenter at the beginning of the program")
	}
	return &exec.Cmd{Path: "/proc/self/exe", Args: append([]string{name}, args...), ExtraFiles: files}, nil
}
