package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// program is a row of the table of real programs: what ebpfdump records is compared with
// the wire. In its strings $DIR is a directory for the row.
type program struct {
	name  string
	needs []string // commands, or files, with a pattern for a version in it

	// common rows run with all other tests and need only what make test installs; the
	// others are for make programs.
	common bool

	files      map[string]string
	prepare    func(*bench) // whatever must be there before the program starts
	aside      []string     // another program, which is not followed
	asideReady []string     // says that this serves
	server     []string     // the program, if it is joined
	started    bool         // it is not joined, but started by ebpfdump
	ready      []string     // says by its status that the server serves
	command    []string     // the program, if ebpfdump starts it
	flags      []string     // of capture
	traffic    func(*bench) // while a joined program is followed
	scope                   // which traffic is its own
	unread     bool         // it does not read all that it gets
	check      func(*bench, *recording)
}

// programs are all rows, from the files by kind.
var programs = slices.Concat(webPrograms, dataPrograms, datagramPrograms, languagePrograms, clientPrograms, stressPrograms)

// all tells whether the rows for make programs run too.
func all() bool { return os.Getenv("EBPFDUMP_PROGRAMS") == "1" }

func TestPrograms(t *testing.T) {
	t.Parallel()
	for _, p := range programs {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			if !p.common && !all() {
				t.Skip("make programs runs this")
			}
			requireTools(t, append(p.needs, "tshark", "ss")...)
			p.run(t)
		})
	}
}

// always returns a row that make test runs as well.
func (p program) always() program {
	p.common = true
	return p
}

// expand replaces $DIR in words.
func (b *bench) expand(words []string) []string {
	all := make([]string, len(words))
	for i, word := range words {
		all[i] = strings.ReplaceAll(word, "$DIR", b.dir)
		if strings.ContainsRune(all[i], '*') && i == 0 {
			all[i] = installed(all[i])
		}
	}
	return all
}

// installed is the newest file that matches a pattern, or the pattern itself if there is
// none.
func installed(pattern string) string {
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		return pattern
	}
	return found[len(found)-1]
}

// setUp writes the program's files.
func (p *program) setUp(b *bench) {
	b.Helper()
	for name, text := range p.files {
		path := filepath.Join(b.dir, name)
		text = strings.ReplaceAll(text, "$DIR", b.dir)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			b.Fatal(err)
		}
	}
	if p.prepare != nil {
		p.prepare(b)
	}
}

// run records a program, and compares.
func (p *program) run(t *testing.T) {
	b := newBench(t)
	p.setUp(b)
	if p.aside != nil {
		b.start(b.expand(p.aside), b.expand(p.asideReady))
	}
	var server *exec.Cmd
	if p.server != nil && !p.started {
		server = b.start(b.expand(p.server), b.expand(p.ready))
	}
	wire := b.tapWire()
	flags := append([]string{"--fail-on-drop"}, p.flags...)
	var r *recording
	switch {
	case p.command != nil:
		r = b.record(slices.Concat(flags, []string{"--user", "root", "--"}, b.expand(p.command))...)
	case p.started:
		r = b.record(slices.Concat(flags, []string{"--user", "root", "--"}, b.expand(p.server))...)
		b.awaitAnswer(b.expand(p.ready), r.end)
		p.traffic(b)
		r.finish(unix.SIGTERM)
	default:
		r = b.join(server, flags...)
		p.traffic(b)
		r.finish(unix.SIGINT)
	}
	r.wait()
	truth := wire.stop()
	t.Logf("ebpfdump said:\n%s", r.stderr.String())
	b.checkWhole(r)
	got := b.packets(r.file)
	if p.check != nil {
		p.check(b, r)
	}
	if len(p.serves)+len(p.calls) == 0 {
		return // neither TCP nor UDP
	}
	c := comparison{unread: p.unread}
	c.compare(p.scope, truth, got)
	c.report(t)
}
