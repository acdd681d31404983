package main

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/ebpfdump/ebpfdump/bpf"
)

// setupFlags set up what the program that a filter was made for would set up when it loads it.
type setupFlags struct {
	maps, sizes, variables []string
}

func (f *setupFlags) add(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.maps, "map", nil, "put into a map of the filter, before it runs, an entry or those of a file:\n`NAME=KEY:VALUE` or NAME=FILE.json (repeatable)")
	flags.StringArrayVar(&f.sizes, "map-size", nil, "give a map of the filter room for N entries, `NAME=N` (repeatable)")
	flags.StringArrayVar(&f.variables, "var", nil, "give a global variable of the filter a value, `NAME=VALUE` (repeatable)")
}

// given tells whether there is anything to set up.
func (f *setupFlags) given() bool { return len(f.maps)+len(f.sizes)+len(f.variables) > 0 }

// files are those that apply opens.
func (f *setupFlags) files() (files []string) {
	for _, text := range f.maps {
		if _, what, ok := strings.Cut(text, "="); ok && isMapFile(what) {
			files = append(files, what)
		}
	}
	return files
}

func isMapFile(what string) bool { return strings.HasSuffix(what, ".json") }

// apply sets up a filter. Sizes come first, since they say what there is room for.
func (f *setupFlags) apply(v *bpf.Verdict) error {
	for _, text := range f.sizes {
		name, size, ok := strings.Cut(text, "=")
		entries, err := strconv.ParseUint(size, 0, 32)
		if _, number := new(big.Int).SetString(size, 0); ok && err != nil && number {
			return usagef("--map-size %s: a map has room for 1 to %d entries", text, uint32(math.MaxUint32))
		}
		if !ok || err != nil {
			return usagef("--map-size %s: give NAME=N, such as flows=1024", text)
		}
		if err := v.SetMapSize(name, uint32(entries)); err != nil {
			return setupUsage("--map-size", text, err)
		}
	}
	for _, text := range f.variables {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return usagef("--var %s: give NAME=VALUE, such as sampling=1", text)
		}
		if err := v.SetVariable(name, value); err != nil {
			return setupUsage("--var", text, err)
		}
	}
	for _, text := range f.maps {
		name, what, ok := strings.Cut(text, "=")
		key, value, entry := splitEntry(what)
		switch {
		case ok && isMapFile(what):
			if err := putFile(v, name, what); err != nil {
				return setupUsage("--map", text, err)
			}
		case ok && entry:
			if err := v.PutEntry(name, key, value); err != nil {
				return setupUsage("--map", text, err)
			}
		default:
			return usagef("--map %s: give NAME=KEY:VALUE, such as blocked=10.0.0.1:1, or NAME=FILE.json", text)
		}
	}
	return nil
}

func putFile(v *bpf.Verdict, name, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("reading the entries of a map: %w", err)
	}
	defer file.Close()
	return v.PutEntries(name, file)
}

// setupUsage is a usage error for what does not fit the filter.
func setupUsage(flag, text string, err error) error {
	if refused := (*bpf.SetupError)(nil); errors.As(err, &refused) {
		return usagef("%s %s: %w", flag, text, err)
	}
	return err
}

// splitEntry splits KEY:VALUE at the first colon that is not inside of brackets, braces or quotes.
func splitEntry(text string) (key, value string, ok bool) {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			depth--
		case c == ':' && depth == 0:
			return text[:i], text[i+1:], true
		}
	}
	return "", "", false
}

// noteTables says which tables for tail calls are empty.
func (a *app) noteTables(v *bpf.Verdict) {
	if v == nil {
		return
	}
	for _, name := range v.EmptyTables() {
		a.stderr.Line("%s: its table for tail calls %s is empty, since the program that it was made for fills it at run time: no tail call goes anywhere (--map %s=0:PROGRAM puts one there)", v.Name(), name, name)
	}
}
