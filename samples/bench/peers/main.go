// Command peers measures what capturing costs with ebpfdump and with other
// programs, side by side and in turns, and writes the table and the plots of
// samples/bench. It needs root; make bench-peers builds what it calls.
//
// Sender and receiver stand in two network namespaces that a veth pair joins.
// They are this program again, see traffic.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// settings are what the command line says.
type settings struct {
	ebpfdump, record, printing string
	backlog, results, from     string
	folder, scratch            string
	only                       *regexp.Regexp
	limits                     limits
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("peers: ")
	if len(os.Args) > 1 && roles[os.Args[1]] != nil {
		if err := roles[os.Args[1]](os.Args[2:]); err != nil {
			log.Fatalf("%s: %v", os.Args[1], err)
		}
		return
	}
	s, err := parse(os.Args[1:])
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			log.Print(err)
		}
		os.Exit(2)
	}
	// A signal ends the run that is under way; what was made is then taken away.
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	switch err := s.run(ctx); {
	case ctx.Err() != nil:
		log.Fatal("interrupted")
	case err != nil:
		log.Fatal(err)
	}
}

func parse(args []string) (*settings, error) {
	s := &settings{}
	f := flag.NewFlagSet("peers", flag.ContinueOnError)
	f.StringVar(&s.ebpfdump, "ebpfdump", "./ebpfdump", "the `PROGRAM` that is compared")
	f.StringVar(&s.record, "record", "build/record", "samples/text/record, built")
	f.StringVar(&s.printing, "printing", "build/printing.o", "samples/text/printing.c, compiled")
	f.StringVar(&s.backlog, "backlog", "", "`FILE` with the output of go test -bench Backlog, for its plot")
	f.StringVar(&s.results, "results", "build/peers.json", "`FILE` for the figures of every run")
	f.StringVar(&s.from, "from", "", "measure nothing, and take the figures from this `FILE`")
	f.StringVar(&s.folder, "folder", "samples/bench", "`FOLDER` of README.md and the plots")
	f.StringVar(&s.scratch, "scratch", "", "`FOLDER` for the captures (default /dev/shm if it has room, else the temporary one)")
	f.IntVar(&s.limits.rounds, "rounds", 5, "how often everything is measured")
	f.DurationVar(&s.limits.sending, "sending", 300*time.Millisecond, "how long datagrams are sent in a run if nobody captures")
	f.IntVar(&s.limits.stream, "stream", 1024, "MiB that a TCP stream brings")
	f.IntVar(&s.limits.connections, "connections", 20000, "short TCP connections")
	only := f.String("only", "", "only workloads whose name fits this `PATTERN`; README.md then stays as it is")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("%q is not understood: see -help", f.Arg(0))
	}
	if s.limits.rounds < 1 || s.limits.sending <= 0 || s.limits.stream < 1 || s.limits.connections < 1 {
		return nil, errors.New("-rounds, -sending, -stream and -connections want more than nothing")
	}
	var err error
	if s.only, err = regexp.Compile(*only); err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	var names []string
	for _, w := range workloads(s.limits) {
		names = append(names, w.name)
	}
	if !slices.ContainsFunc(names, s.only.MatchString) {
		return nil, fmt.Errorf("-only %s: no workload has such a name: choose of %s", *only, strings.Join(names, ", "))
	}
	return s, nil
}

func (s *settings) run(ctx context.Context) error {
	if s.from != "" {
		r, err := loadReport(s.from)
		if err != nil {
			return err
		}
		return s.publish(r)
	}
	if os.Geteuid() != 0 {
		return errors.New("network namespaces and captures need root: try sudo make bench-peers")
	}
	scratch, err := s.makeScratch()
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	b, err := newBench(ctx, s, scratch)
	if err != nil {
		return err
	}
	defer b.Close()
	r, err := b.measure(ctx)
	if err != nil {
		return err
	}
	if err := r.save(s.results); err != nil {
		return err
	}
	return s.publish(r)
}

// makeScratch makes a folder for the captures. In memory nothing waits for a
// disk, whose own work would be counted as well.
func (s *settings) makeScratch() (string, error) {
	if s.scratch != "" {
		return os.MkdirTemp(s.scratch, "peers")
	}
	const room = 4 << 30
	var fs unix.Statfs_t
	if unix.Statfs("/dev/shm", &fs) == nil && fs.Bavail*uint64(fs.Bsize) > room && availableMemory() > room+room/2 {
		return os.MkdirTemp("/dev/shm", "peers")
	}
	return os.MkdirTemp("", "peers")
}

// publish writes the plots and the table, or prints the table if it is not whole.
func (s *settings) publish(r *report) error {
	if s.backlog != "" {
		text, err := os.ReadFile(s.backlog)
		if err != nil {
			return err
		}
		if r.Backlog, err = parseBacklog(string(text)); err != nil {
			return fmt.Errorf("reading %s: %w", s.backlog, err)
		}
	}
	table := r.markdown()
	if s.only.String() != "" {
		fmt.Print(table)
		return nil
	}
	for name, p := range r.plots() {
		if err := os.WriteFile(filepath.Join(s.folder, name), []byte(p.svg()), 0o644); err != nil {
			return err
		}
	}
	readme := filepath.Join(s.folder, "README.md")
	text, err := os.ReadFile(readme)
	if err != nil {
		return err
	}
	whole, err := replaceBetweenMarks(string(text), table)
	if err != nil {
		return fmt.Errorf("%s: %w", readme, err)
	}
	return os.WriteFile(readme, []byte(whole), 0o644)
}
