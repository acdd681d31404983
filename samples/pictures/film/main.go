// Command film makes the film of README: it types commands into a shell on a terminal of its own,
// records what comes back and when, and writes it as an SVG that moves, and as an asciinema cast.
// What is typed and what is answered is real, and so is the order; the time between two lines is
// stretched, and after an answer there is a pause, so that it can be read.
//
// As root the shell runs as an ordinary user with CAP_BPF. make pictures calls it in a network
// namespace of its own.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A scene is what is typed, a line after the other, and how long the answer stays before the next.
type scene struct {
	lines []string
	stays time.Duration
}

var scenes = []scene{
	{[]string{"ebpfdump capture --sock tcp --probe -o tcp.pcapng"}, 5 * time.Second},
	{[]string{"ebpfdump explain tcp.pcapng --id 3"}, 11 * time.Second},
	{[]string{
		`tshark -r tcp.pcapng -T fields -e frame.interface_name -e frame.packet_id \`,
		`    -e tcp.flags.str -e data.data -e frame.comment | column -ts $'\t'`,
	}, 12 * time.Second},
}

// The terminal's size in cells.
const columns, rows = 80, 36

const (
	keystroke = 45 * time.Millisecond  // between two keys
	line      = 110 * time.Millisecond // at least, between two lines of an answer
	patience  = 30 * time.Second       // for an answer
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("film: ")
	program := flag.String("ebpfdump", "./ebpfdump", "the `FILE` to film")
	picture := flag.String("o", "film.svg", "the `FILE` of the film")
	cast := flag.String("cast", "", "a `FILE` for asciinema as well")
	flag.Parse()
	if err := run(*program, *picture, *cast); err != nil {
		log.Fatal(err)
	}
}

func run(program, picture, cast string) error {
	recorded, err := record(program, scenes)
	if err != nil {
		return err
	}
	shown := pace(recorded)
	if cast != "" {
		if err := os.WriteFile(cast, castOf(shown), 0o644); err != nil {
			return err
		}
	}
	var s screen
	for _, o := range shown {
		if err := s.write(o.at, o.text); err != nil {
			return err
		}
	}
	return os.WriteFile(picture, drawing(&s, end(shown)), 0o644)
}

// A kind tells why something came from the terminal.
type kind int

const (
	echo kind = iota // a key
	answer
	prompt // what the shell says when an answer is complete
)

// An output is what came from the terminal at once.
type output struct {
	at    time.Duration
	kind  kind
	stays time.Duration // of a prompt: how long the answer before it is to be seen
	text  string
}

// record runs the scenes in a shell, and returns what its terminal showed.
func record(program string, scenes []scene) ([]output, error) {
	folder, err := os.MkdirTemp("", "film")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	if err := furnish(folder, program); err != nil {
		return nil, err
	}
	t, err := openTerminal(columns, rows)
	if err != nil {
		return nil, err
	}
	defer t.close()
	// No readline, whose way of drawing a line is no one's business here.
	shell := exec.Command("bash", "--noprofile", "--norc", "--noediting")
	shell.Dir = folder
	shell.Env = []string{"PATH=" + folder + ":/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + folder, "TERM=xterm-256color", "LANG=C.UTF-8", "PS1=" + mark, "PS2=> "}
	if err := t.start(shell); err != nil {
		return nil, fmt.Errorf("starting a shell: %w", err)
	}
	defer func() { _ = shell.Process.Kill(); _ = shell.Wait() }()
	return t.play(scenes)
}

// furnish puts into a folder what the shell is to find there.
func furnish(folder, program string) error {
	b, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "ebpfdump"), b, 0o755); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Chown(folder, nobody, nobody)
}

// The prompt.
const mark = "$ "

// play types the scenes, and waits for each answer.
func (t *terminal) play(scenes []scene) ([]output, error) {
	var all []output
	start := time.Now()
	var pending string // what was read, and is no output yet
	take := func(n int, k kind) {
		all = append(all, output{at: time.Since(start), kind: k, text: pending[:n]})
		pending = pending[n:]
	}
	// await reads until something holds of what is pending.
	await := func(holds func() bool) error {
		for !holds() {
			b, err := t.read(patience)
			if err != nil {
				return fmt.Errorf("after %q: %w", pending, err)
			}
			pending += string(b)
		}
		return nil
	}
	echoed := func(keys string) error {
		err := await(func() bool { return len(pending) >= len(keys) })
		switch {
		case err != nil:
			return err
		case !strings.HasPrefix(pending, keys):
			return fmt.Errorf("typed %q, and the terminal shows %q", keys, pending)
		}
		take(len(keys), echo)
		return nil
	}
	answered := func(prompt string) error {
		if err := await(func() bool { return pending == prompt || strings.HasSuffix(pending, "\n"+prompt) }); err != nil {
			return err
		}
		take(len(pending), answer)
		return nil
	}
	if err := answered(mark); err != nil {
		return nil, err
	}
	for _, s := range scenes {
		for i, command := range s.lines {
			for _, key := range command {
				if err := t.write(string(key)); err != nil {
					return nil, err
				}
				if err := echoed(string(key)); err != nil {
					return nil, err
				}
				time.Sleep(keystroke)
			}
			if err := t.write("\n"); err != nil {
				return nil, err
			}
			if err := echoed("\r\n"); err != nil {
				return nil, err
			}
			next := mark
			if i < len(s.lines)-1 {
				next = "> "
			}
			if err := answered(next); err != nil {
				return nil, err
			}
		}
		all = append(all, output{at: time.Since(start), kind: prompt, stays: s.stays})
	}
	return all, nil
}

// pace makes of what came when it came what can be read: a line after the other.
func pace(recorded []output) []output {
	var shown []output
	var now, before time.Duration
	for _, o := range recorded {
		now += o.at - before
		before = o.at
		if o.kind != answer {
			now += o.stays
			o.at = now
			shown = append(shown, o)
			continue
		}
		for _, text := range bytes.SplitAfter([]byte(o.text), []byte("\n")) {
			if len(text) == 0 {
				continue
			}
			now += line
			shown = append(shown, output{at: now, kind: answer, text: string(text)})
		}
	}
	return shown
}

// end is how long a film lasts.
func end(shown []output) time.Duration { return shown[len(shown)-1].at }

// castOf is asciinema's form, version 2.
func castOf(shown []output) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	// Numbers and strings alone: nothing can fail.
	_ = e.Encode(map[string]any{"version": 2, "width": columns, "height": rows})
	for _, o := range shown {
		_ = e.Encode([]any{o.at.Seconds(), "o", o.text})
	}
	return b.Bytes()
}

// Who nobody is on Linux.
const nobody = 65534

// rights make of a root's process an ordinary user's with CAP_BPF.
func rights(a *syscall.SysProcAttr) {
	if os.Geteuid() != 0 {
		return
	}
	a.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	a.AmbientCaps = []uintptr{unix.CAP_BPF}
}
