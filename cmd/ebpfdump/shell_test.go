package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// typed is what a user types before the tabulator key, and what the command line is after it.
type typed struct{ before, after string }

// TestShells types the beginnings of commands into the shells that people have.
func TestShells(t *testing.T) {
	t.Parallel()
	testutil.RequirePrivilege(t) // processes of others are looked into
	process := startWaiting(t)
	port := strconv.Itoa(process.port)
	cases := []typed{
		{"ebpfdump cap", "ebpfdump capture"},
		{"ebpfdump capture --sock unix-d", "ebpfdump capture --sock unix-dgram"},
		{"ebpfdump capture --view kernel,us", "ebpfdump capture --view kernel,user"},
		{"ebpfdump capture --sock raw --proto ic", "ebpfdump capture --sock raw --proto icmp"},
		{"ebpfdump capture -o x.pcapng -w y.pcapng --comp", "ebpfdump capture -o x.pcapng -w y.pcapng --compress"},
		{"ebpfdump convert --to js", "ebpfdump convert --to json"},
		{"ebpfdump replay --as packet-", "ebpfdump replay --as packet-dgram"},
		{"ebpfdump explain one.pcapn", "ebpfdump explain one.pcapng"},
		{"ebpfdump capture --pid " + process.name[:len(process.name)-2], "ebpfdump capture --pid " + process.name},
		{"ebpfdump list --pid " + process.pid + " --fd ", "ebpfdump list --pid " + process.pid + " --fd 3"},
		{"ebpfdump capture --pid " + process.pid + " --port " + port[:1], "ebpfdump capture --pid " + process.pid + " --port " + port},
		{"ebpfdump capture -o x.pcapng -- ebpfdum", "ebpfdump capture -o x.pcapng -- ebpfdump"},
	}
	folder := t.TempDir()
	for _, name := range []string{"one.pcapng", "one.pcapn.txt"} {
		if err := os.WriteFile(filepath.Join(folder, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("bash", func(t *testing.T) {
		t.Parallel()
		const functions = "/usr/share/bash-completion/bash_completion"
		if _, err := os.Stat(functions); err != nil {
			testutil.Missing(t, "%v", err)
		}
		typeInto(t, folder, cases, "source "+functions+"; source <(ebpfdump completion bash)", "bash", "--norc", "--noprofile", "-i")
	})
	t.Run("zsh", func(t *testing.T) {
		t.Parallel()
		typeInto(t, folder, cases, "autoload -U compinit; compinit -u -D; source <(ebpfdump completion zsh)", "zsh", "-f", "-i")
	})
	t.Run("fish", func(t *testing.T) {
		t.Parallel()
		askFish(t, folder, cases)
	})
}

// waiting is a process with a UDP socket at descriptor 3.
type waiting struct {
	name, pid string
	port      int
}

func startWaiting(t *testing.T) waiting {
	t.Helper()
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	file, err := socket.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// A script has the name of its file.
	name := fmt.Sprintf("waits%d", os.Getpid())
	script := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(script, []byte("#!/bin/sh\nread line\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(script)
	cmd.ExtraFiles = []*os.File{file}
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
	return waiting{name, strconv.Itoa(cmd.Process.Pid), socket.LocalAddr().(*net.UDPAddr).Port}
}

// typeInto types into an interactive shell, and then has it print its own command line.
func typeInto(t *testing.T, folder string, cases []typed, setUp string, shell ...string) {
	t.Helper()
	testutil.RequireTool(t, shell[0])
	terminal := openTerminal(t)
	cmd := exec.Command(shell[0], shell[1:]...)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "TERM=dumb", "PS1=> ", "LC_ALL=C.UTF-8", "HISTFILE=", "HOME="+folder)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal.slave, terminal.slave, terminal.slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		terminal.close()
	})
	terminal.write(t, setUp+"; echo set up $((1+1)).\n")
	terminal.await(t, "set up 2.")
	const toBegin, toEnd = "\x01", "\x05" // keys of emacs, which both shells have
	for i, c := range cases {
		terminal.write(t, c.before+"\t"+toBegin+fmt.Sprintf("printf 'line %%d: %%s|\\n' %d '", i)+toEnd+"'\n")
		line := terminal.await(t, fmt.Sprintf("line %d: ", i))
		if got := strings.TrimRight(line, " "); got != c.after {
			t.Errorf("%s: %q becomes %q, want %q", shell[0], c.before, got, c.after)
		}
	}
}

func askFish(t *testing.T, folder string, cases []typed) {
	t.Helper()
	testutil.RequireTool(t, "fish")
	var script strings.Builder
	script.WriteString("ebpfdump completion fish | source\n")
	for i, c := range cases {
		fmt.Fprintf(&script, "echo case %d; complete -C '%s'\n", i, c.before)
	}
	cmd := exec.Command("fish", "--no-config", "-c", script.String())
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "HOME="+folder)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_, rest, _ := strings.Cut(string(out), "case 0\n")
	for i, c := range cases {
		var offered string
		offered, rest, _ = strings.Cut(rest, fmt.Sprintf("case %d\n", i+1))
		want := c.after[strings.LastIndexByte(c.after, ' ')+1:]
		var values []string
		for line := range strings.Lines(offered) {
			value, _, _ := strings.Cut(strings.TrimRight(line, "\n"), "\t")
			values = append(values, value)
		}
		// By their extension fish cannot choose files.
		isFile := strings.Contains(want, ".pcapng")
		if len(values) == 0 || !slices.Contains(values, want) || len(values) > 1 && !isFile {
			t.Errorf("fish: of %q it offers %q, want %s", c.before, values, want)
		}
	}
}

// terminal is a pseudo-terminal, with what has been printed on it.
type ptyTerminal struct {
	master, slave *os.File

	mu      sync.Mutex
	printed bytes.Buffer
}

func openTerminal(t *testing.T) *ptyTerminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil { // lines that are never broken
		err = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 100, Col: 400})
	}
	if err != nil {
		t.Fatal(err)
	}
	p := &ptyTerminal{master: master}
	if p.slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			p.mu.Lock()
			p.printed.Write(buffer[:n])
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return p
}

func (p *ptyTerminal) close() {
	p.slave.Close()
	p.master.Close()
}

func (p *ptyTerminal) write(t *testing.T, text string) {
	t.Helper()
	if _, err := p.master.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// await waits for a line that begins so, and returns what follows up to | or the end.
func (p *ptyTerminal) await(t *testing.T, begin string) string {
	t.Helper()
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		p.mu.Lock()
		printed := p.printed.String()
		p.mu.Unlock()
		_, rest, found := strings.Cut(printed, "\n"+begin)
		if line, _, ended := strings.Cut(rest, "\r"); found && ended {
			return strings.TrimSuffix(line, "|")
		}
		if time.Since(start) > testTimeout {
			t.Fatalf("waited in vain for a line that begins with %q, on the terminal is:\n%s", begin, printed)
		}
	}
}
