package capture

import (
	"os"
	"os/exec"
)

// Names by which this program starts itself again, as argument 0.
const (
	launcherName = "ebpfdump-launcher"
	keeperName   = "ebpfdump-keeper"
)

// reentrant tells that Reenter was called. A program that does not call it would
// do all its own work over again in the process that is to be a keeper.
var reentrant bool

// Reenter does the work of the processes that Join and Start make of the same
// program, and does not return in those. Every program that calls Join or Start
// must call it before it does anything else.
func Reenter() {
	reentrant = true
	switch os.Args[0] {
	case launcherName:
		os.Exit(launch(os.Args[1:]))
	case keeperName:
		keep()
		os.Exit(0)
	}
}

// again makes a command of the program that is running. The files become its
// descriptors from 3 on.
func again(name string, files []*os.File, args ...string) *exec.Cmd {
	if !reentrant {
		panic("capture: Join and Start need Reenter at the beginning of the program")
	}
	return &exec.Cmd{Path: "/proc/self/exe", Args: append([]string{name}, args...), ExtraFiles: files}
}
