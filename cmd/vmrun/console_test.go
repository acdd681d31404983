package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestConsole(t *testing.T) {
	c := &console{}
	// QEMU writes in arbitrary pieces.
	for _, piece := range []string{"\x1bc\x1b[?7l\x1b[2J[    0.5", "12] first\r\n\r\n[    1.0] Kernel panic - not sync", "ing: VFS: no root\r\nunfinished"} {
		if n, err := c.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
	}
	err := c.explain(errNoStatus)
	want := "kernel panic: VFS: no root; the console's last lines:\n\t" +
		"[    0.512] first\n\t[    1.0] Kernel panic - not syncing: VFS: no root\n\tunfinished"
	if err.Error() != want {
		t.Errorf("the error is\n%q, want\n%q", err, want)
	}
}

func TestConsoleKeepsTheEnd(t *testing.T) {
	c := &console{}
	for i := range 100 {
		fmt.Fprintf(c, "line %d\n", i)
	}
	err := c.explain(errNoStatus)
	if !errors.Is(err, errNoStatus) {
		t.Errorf("the error %v is not the one that was explained", err)
	}
	if got := strings.Count(err.Error(), "line "); got != consoleLines {
		t.Errorf("the error shows %d lines, want %d", got, consoleLines)
	}
	if !strings.HasSuffix(err.Error(), "line 99") {
		t.Errorf("the last line is missing from %v", err)
	}
}

func TestConsoleShown(t *testing.T) {
	var shown bytes.Buffer
	c := &console{show: &shown}
	fmt.Fprint(c, "one\r\ntwo\r\n")
	if err := c.explain(errNoStatus); err != errNoStatus {
		t.Errorf("the error repeats what was shown: %v", err)
	}
	if got := shown.String(); got != "console: one\nconsole: two\n" {
		t.Errorf("%q was shown", got)
	}
}
