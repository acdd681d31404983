// Vmrun boots a Linux kernel under QEMU's software emulation and runs one static program
// there, so that tests can run on kernels other than the host's.
//
//	vmrun fetch [-dir DIR] [-update] [KERNEL...]
//	vmrun list [-dir DIR]
//	vmrun run -kernel KERNEL [FLAGS] BINARY [ARGS...]
//
// KERNEL is a version series such as 5.10, "latest", or the path of a bzImage.
// The program's output goes to stdout and stderr, its exit status becomes
// vmrun's. Vmrun's own failures exit with 125, wrong usage with 2.
//
// It is meant to be used as a wrapper:
//
//	CGO_ENABLED=0 go test -exec 'vmrun run -kernel 5.10' ./bpf
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

const (
	statusUsage = 2
	// statusFailed distinguishes vmrun's own failures from the program's, as in
	// timeout(1) and env(1).
	statusFailed = 125
)

const usage = `usage: vmrun fetch [FLAGS] [KERNEL...]      get kernels from Debian's archive
       vmrun list [FLAGS]                   name the kernels that are there
       vmrun run -kernel KERNEL [FLAGS] BINARY [ARGS...]
"vmrun COMMAND -h" lists a command's flags.
`

// usageError is a mistake on the command line. If empty, the flag package has already
// explained it.
type usageError string

func (e usageError) Error() string { return string(e) }

func main() {
	if inGuest() {
		guestMain()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(command(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// command runs one of vmrun's commands and decides the exit status.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	status, err := dispatch(ctx, args, stdout, stderr)
	var wrong usageError
	switch {
	case err == nil:
		return status
	case errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &wrong):
		if wrong != "" {
			fmt.Fprintf(stderr, "vmrun: %v\n", err)
		}
		return statusUsage
	}
	fmt.Fprintf(stderr, "vmrun: %v\n", err)
	return statusFailed
}

func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) (int, error) {
	if len(args) == 0 {
		return 0, usageError("which command?\n" + usage)
	}
	switch args[0] {
	case "fetch":
		return 0, fetchCommand(ctx, args[1:], stdout, stderr)
	case "list":
		return 0, listCommand(args[1:], stdout, stderr)
	case "run":
		return runCommand(ctx, args[1:], stdout, stderr)
	case "-h", "-help", "--help", "help":
		fmt.Fprint(stdout, usage)
		return 0, nil
	}
	return 0, usageError(fmt.Sprintf("unknown command %q\n%s", args[0], usage))
}

// newFlags makes a command's flag set, with the -dir that all commands have.
func newFlags(name string, stderr io.Writer) (flags *flag.FlagSet, dir *string) {
	flags = flag.NewFlagSet("vmrun "+name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir = flags.String("dir", defaultDir(), "`folder` of the kernels")
	return flags, dir
}

// parseFlags turns the errors of the flag package, which prints them itself, into usage
// errors.
func parseFlags(flags *flag.FlagSet, args []string) error {
	err := flags.Parse(args)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		return usageError("")
	}
	return err
}

func defaultDir() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	return filepath.Join(cache, "ebpfdump", "kernels")
}
