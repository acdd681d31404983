package process

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
)

func TestNotPermitted(t *testing.T) {
	t.Parallel()
	var missing *bpf.MissingError
	p := &Process{PID: os.Getpid(), Command: "x"}
	if err := p.notCopied(unix.EPERM); !errors.As(err, &missing) || !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_SYS_PTRACE") {
		t.Errorf("%v", err)
	}
}

// A process is known from its start to its end, and no other one by its number.
func TestProcess(t *testing.T) {
	t.Parallel()
	child := exec.Command("cat")
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := Open(child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.Exited() || !p.Lives() {
		t.Errorf("%s has ended, while it waits for its input", p)
	}
	files, err := p.Descriptors()
	if err != nil || len(files) < 3 {
		t.Errorf("%s has %v open, %v", p, files, err)
	}
	if p.Is32Bit() || p.ForeignNetwork() {
		t.Errorf("%s is in another world than its parent", p)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.AwaitExit(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting no longer: %v", err)
	}
	over := make(chan error)
	go func() { over <- p.AwaitExit(t.Context()) }()
	stdin.Close()
	if err := <-over; err != nil {
		t.Errorf("waiting for the end: %v", err)
	}
	if err := child.Wait(); err != nil {
		t.Fatal(err)
	}
	if !p.Exited() || p.Lives() {
		t.Errorf("%s has not ended", p)
	}
	if _, err := Open(child.Process.Pid); !errors.Is(err, unix.ESRCH) {
		t.Errorf("opening a process that is gone: %v", err)
	}
	p.Close()
	p.Close()
}

// A thread's name can have anything in it, also what looks like the end of it.
func TestEnding(t *testing.T) {
	t.Parallel()
	for stat, want := range map[string]bool{
		"7 (cat) S 1 7 7 0 -1 4194304 ":      false,
		"7 (a) S 1) Z 1 7 7 0 -1 4194308 ":   true,
		"7 (a) b) S 1 7 7 0 -1 4194304 ":     false,
		"7 (cat":                             true,
		"7 (cat) S 1 7 7 0 -1 no-number 1 2": true,
	} {
		if got := ending(stat); got != want {
			t.Errorf("%q: %v, want %v", stat, got, want)
		}
	}
}

// A program that has not called Reenter would do its own work again in the child.
func TestLaunchNeedsReenter(t *testing.T) {
	t.Parallel()
	l, err := Launch(Command{Args: []string{"true"}})
	if err == nil || !strings.Contains(err.Error(), "Reenter") {
		t.Errorf("%v, %v", l, err)
	}
}
