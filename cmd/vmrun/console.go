package main

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
)

// consoleLines is how many of the kernel's last lines an error shows.
const consoleLines = 30

var (
	escapes = regexp.MustCompile("\x1b(\\[[0-9;?=]*[A-Za-z]|c)")
	panics  = regexp.MustCompile(`Kernel panic - not syncing: (.*)`)
)

// console receives what the kernel prints, and keeps the last lines.
type console struct {
	mu      sync.Mutex
	show    io.Writer // nil: keep quiet
	partial []byte
	lines   []string
	panic   string
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.partial = append(c.partial, p...)
	for {
		line, rest, found := bytes.Cut(c.partial, []byte("\n"))
		if !found {
			return len(p), nil
		}
		c.line(string(line))
		c.partial = rest
	}
}

func (c *console) line(line string) {
	line = strings.TrimRight(escapes.ReplaceAllString(line, ""), "\r \t")
	if line == "" {
		return
	}
	if m := panics.FindStringSubmatch(line); m != nil && c.panic == "" {
		c.panic = m[1]
	}
	if c.show != nil {
		fmt.Fprintf(c.show, "console: %s\n", line)
	}
	if c.lines = append(c.lines, line); len(c.lines) > consoleLines {
		c.lines = c.lines[1:]
	}
}

// explain makes an error with the kernel's last lines: its panic if there was one,
// otherwise the given error.
func (c *console) explain(otherwise error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.partial) > 0 {
		c.line(string(c.partial))
		c.partial = nil
	}
	err := otherwise
	if c.panic != "" {
		err = fmt.Errorf("kernel panic: %s", c.panic)
	}
	if len(c.lines) == 0 || c.show != nil {
		return err
	}
	return fmt.Errorf("%w; the console's last lines:\n\t%s", err, strings.Join(c.lines, "\n\t"))
}
