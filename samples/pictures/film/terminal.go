package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A terminal is one that nobody sits at.
type terminal struct{ ours, theirs *os.File }

func openTerminal(columns, rows uint16) (*terminal, error) {
	// Not blocking, so that a read can have a deadline.
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a terminal: %w", err)
	}
	t := &terminal{ours: os.NewFile(uintptr(fd), "/dev/ptmx")}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.close()
		return nil, fmt.Errorf("unlocking a terminal: %w", err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.close()
		return nil, fmt.Errorf("asking for a terminal's number: %w", err)
	}
	if t.theirs, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.close()
		return nil, err
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		t.close()
		return nil, fmt.Errorf("setting a terminal's size: %w", err)
	}
	return t, nil
}

func (t *terminal) close() {
	t.ours.Close()
	if t.theirs != nil {
		t.theirs.Close()
	}
}

// start starts a command with the terminal as its own.
func (t *terminal) start(c *exec.Cmd) error {
	c.Stdin, c.Stdout, c.Stderr = t.theirs, t.theirs, t.theirs
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	rights(c.SysProcAttr)
	return c.Start()
}

func (t *terminal) write(text string) error {
	_, err := t.ours.WriteString(text)
	return err
}

// read returns what the terminal shows next.
func (t *terminal) read(patience time.Duration) ([]byte, error) {
	if err := t.ours.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	b := make([]byte, 64<<10)
	n, err := t.ours.Read(b)
	return b[:n], err
}
