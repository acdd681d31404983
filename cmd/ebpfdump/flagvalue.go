package main

import (
	"cmp"
	"encoding/csv"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// valueNames say what flags need, for those whose value's name is not enough.
var valueNames = map[string]string{
	"pid":    "the number or the name of a process, or several with commas between them",
	"cgroup": "the folder of a cgroup, such as /sys/fs/cgroup/system.slice",
}

// requireValues refuses a flag that was given nothing, as by a variable that is not set: without
// the flag, a command does something else than its user wants. And an output that is given twice.
func requireValues(cmd *cobra.Command, _ []string) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if o, ok := f.Value.(*once); ok && o.times > 1 {
			err = usagef("two outputs are given: choose one")
		}
		if text := f.Value.String(); err == nil && (text == "" || text == "[]") {
			name, _ := pflag.UnquoteUsage(f)
			err = usagef("--%s needs %s: what it was given is empty", f.Name, cmp.Or(valueNames[f.Name], name))
		}
	})
	return err
}

// once is the value of a flag that may be given once: of two outputs one would be missing, and
// nobody would be told. requireValues refuses it, and not Set, since completion reads the flags
// several times.
type once struct {
	text  string
	times int
}

var _ pflag.Value = &once{}

func (o *once) Set(text string) error {
	o.text = text
	o.times++
	return nil
}

func (o *once) String() string { return o.text }

// Type is that of a string in pflag.
func (o *once) Type() string { return "string" }

// processNames is the value of a flag that names processes, with commas between them. Quotes are
// needed around a name with a comma, and nothing else is special.
type processNames struct{ names *[]string }

var _ pflag.Value = processNames{}

// Set adds names.
func (p processNames) Set(text string) error {
	// A line break would end what csv reads. The name is found by this as well.
	text = strings.NewReplacer("\n", `\n`, "\r", `\r`).Replace(text)
	from := csv.NewReader(strings.NewReader(text))
	from.LazyQuotes = true
	names, err := from.Read()
	if errors.Is(err, io.EOF) {
		return nil // empty
	}
	*p.names = append(*p.names, names...)
	return err
}

func (p processNames) String() string { return strings.Join(*p.names, ",") }

// Type is the type of a list in pflag.
func (p processNames) Type() string { return "strings" }
