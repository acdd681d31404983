package main

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// reuseportFlags open a group of sockets.
type reuseportFlags struct {
	sockets int
	given   bool // --reuseport is
	object  string
	classic string
}

func (f *reuseportFlags) add(flags *pflag.FlagSet) {
	flags.IntVar(&f.sockets, "reuseport", 0, "open a reuseport group of `N` sockets, one of which gets each packet (udp, udp6)")
	flags.StringVar(&f.object, "reuseport-filter", "", "the socket is chosen by the sk_reuseport program or socket filter of a BPF object,\n`FILE.o[:PROGRAM]`, with the group in its maps")
	flags.StringVar(&f.classic, "reuseport-filter-cbpf", "", "the socket is chosen by the classic filter in `FILE`, which returns its number")
}

// read makes a Selection from the flags; nil if none is given.
func (f reuseportFlags) read() (*bpf.Selection, error) {
	if (f.object != "" || f.classic != "") && f.sockets == 0 {
		return nil, usagef("--reuseport-filter chooses one of several sockets: say how many with --reuseport N")
	}
	switch {
	case f.object != "" && f.classic != "":
		return nil, usagef("one program at a time: leave only one of --reuseport-filter and --reuseport-filter-cbpf")
	case f.object != "":
		selection, err := bpf.ReadSelection(splitProgram(f.object))
		if choice := (*bpf.ChoiceError)(nil); errors.As(err, &choice) {
			return nil, usagef("--reuseport-filter: %w", err)
		}
		return selection, err
	case f.classic != "":
		selection, err := bpf.ReadClassicSelection(f.classic)
		if err != nil && isELF(f.classic) {
			return nil, usagef("--reuseport-filter-cbpf %s: it is an ELF file: a BPF object is for --reuseport-filter", f.classic)
		}
		return selection, err
	}
	return nil, nil
}

// files are the files that read opens.
func (f reuseportFlags) files() []string {
	object, _ := splitProgram(f.object)
	return []string{object, f.classic}
}

// filterFlags select the filter that decides what a socket keeps.
type filterFlags struct {
	object, classic, verdict string
	setup                    setupFlags
}

func (f *filterFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.object, "filter", "", "run the socket filter of a BPF object, `FILE.o[:PROGRAM]`")
	flags.StringVar(&f.classic, "filter-cbpf", "", "run the classic filter in `FILE`, as tcpdump -ddd or -dd prints it")
	flags.StringVar(&f.verdict, "verdict", "", "keep of each packet what `WHAT` says: keep (all), drop, or a number of bytes")
	f.setup.add(flags)
}

// read makes a Verdict from the flags; nil if none is given.
func (f filterFlags) read() (*bpf.Verdict, error) {
	given := 0
	for _, value := range []string{f.object, f.classic, f.verdict} {
		if value != "" {
			given++
		}
	}
	if given > 1 {
		return nil, usagef("one filter at a time: leave only one of --filter, --filter-cbpf and --verdict")
	}
	if f.setup.given() && f.object == "" {
		return nil, usagef("--map, --map-size and --var set up the filter of a BPF object: give --filter FILE.o as well")
	}
	switch {
	case f.object != "":
		verdict, err := bpf.ReadVerdict(splitProgram(f.object))
		var choice *bpf.ChoiceError
		if errors.As(err, &choice) {
			return nil, usagef("--filter: %w", err)
		}
		if err != nil {
			return nil, err
		}
		return verdict, f.setup.apply(verdict)
	case f.classic != "":
		verdict, err := bpf.ReadClassic(f.classic)
		if err != nil && isELF(f.classic) {
			return nil, usagef("--filter-cbpf %s: it is an ELF file: a BPF object is for --filter", f.classic)
		}
		return verdict, err
	case f.verdict != "":
		return parseVerdict(f.verdict)
	}
	return nil, nil
}

// files are the files that read opens.
func (f filterFlags) files() []string {
	object, _ := splitProgram(f.object)
	return append(f.setup.files(), object, f.classic)
}

// isELF tells whether a file begins as an object does.
func isELF(name string) bool {
	file, err := os.Open(name)
	if err != nil {
		return false
	}
	defer file.Close()
	var magic [len(elf.ELFMAG)]byte
	_, err = io.ReadFull(file, magic[:])
	return err == nil && string(magic[:]) == elf.ELFMAG
}

// splitProgram splits FILE:PROGRAM, unless there is a file of that whole name.
func splitProgram(s string) (file, program string) {
	at := strings.LastIndexByte(s, ':')
	if _, err := os.Stat(s); err == nil || at < 0 {
		return s, ""
	}
	return s[:at], s[at+1:]
}

func parseVerdict(s string) (*bpf.Verdict, error) {
	n, err := verdictNumber(s)
	if err != nil {
		return nil, usagef("--verdict: %w", err)
	}
	return bpf.Keep(n), nil
}

// verdictNumber parses the return value of a filter: a 32-bit number of bytes, also with
// a sign as filters write it.
func verdictNumber(s string) (int32, error) {
	switch s {
	case "keep":
		return -1, nil
	case "drop":
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil || n < -1<<31 || n >= 1<<32 {
		return 0, fmt.Errorf("%q is none of keep, drop and a number of bytes", s)
	}
	return int32(uint32(n)), nil
}

// refusal prints the verifier's whole log with -v, if an error has one.
func (a *app) refusal(err error, verbose bool) error {
	if refused := (*bpf.RefusedError)(nil); errors.As(err, &refused) && refused.Unsized != "" {
		refused.Reason += fmt.Sprintf(" (here --map-size %s=1024)", refused.Unsized)
	}
	log := bpf.VerifierLog(err)
	if len(log) == 0 {
		return err
	}
	if verbose {
		for _, line := range log {
			a.stderr.Line("%s", line)
		}
		return err
	}
	return fmt.Errorf("%w (-v prints all that the verifier said)", err)
}
