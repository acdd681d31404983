package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
	"github.com/ebpfdump/ebpfdump/internal/outfile"
	"github.com/ebpfdump/ebpfdump/internal/privilege"
	"github.com/ebpfdump/ebpfdump/internal/survey"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// surveyFlags are the flags of survey as given.
type surveyFlags struct {
	sock, read, compare, captures string
	output                        once
	markdown, json, html, verbose bool
	hooks                         bool
}

func (a *app) surveyCommand() *cobra.Command {
	var f surveyFlags
	cmd := &cobra.Command{
		Use:   "survey [--sock LIST] [-o FILE]",
		Short: "Try what every kind of socket shows a filter, and make tables",
		Long: `Sends the probe to a socket of every kind, each in a network namespace of its
own, and finds by comparing bytes what the socket's filter sees, what it reaches
below that, what userspace gets, and what the filter's return value changes.
Takes some ten seconds, and needs no other program.

It prints a table and conclusions, or with a flag, or an output file that is
named so, a page (.md, .html) or data for programs (.json).

With --hooks it also runs programs at the other hooks that a socket's packets
pass: cgroup_skb/ingress and cgroup_skb/egress, a packet socket beside it, and
the selection of a socket in a reuseport group (sk_reuseport).

With --compare it prints what differs between two surveys of other kernels or
machines, or between one and this machine.

Exit status: 0 done, 5 the surveys differ, 4 a privilege or kernel feature is
missing without which nothing can be tried.

` + privilegeHelp("survey"),
		Example: `  ebpfdump survey --sock tcp,udp,raw
  ebpfdump survey -o survey.json --captures pcaps
  ebpfdump survey --read survey.json -o survey.html
  ebpfdump survey --compare survey.json`,
		Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.refusal(privilege.Use{Command: "survey", Hooks: f.hooks}.Advise(a.survey(f, args)), f.verbose)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.sock, "sock", "", "survey only a `LIST` of kinds, such as tcp,raw/udp")
	flags.BoolVar(&f.hooks, "hooks", false, "survey the other hooks that a socket's packets pass as well")
	flags.VarP(&f.output, "output", "o", "write to `FILE`, or to stdout if it is - or not given")
	flags.BoolVar(&f.markdown, "markdown", false, "print a page of Markdown")
	flags.BoolVar(&f.json, "json", false, "print one JSON object, of a form that stays the same")
	flags.BoolVar(&f.html, "html", false, "print one HTML page with a drawing, which needs nothing else")
	flags.StringVar(&f.captures, "captures", "", "keep each kind's packets in `DIR`, a pcapng file each")
	flags.StringVarP(&f.read, "read", "r", "", "try nothing, but show the survey in a JSON `FILE`")
	flags.StringVar(&f.compare, "compare", "", "print what differs from the survey in a JSON `FILE`, in a second one or on this machine")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "print all that the verifier says of a program that it refuses")
	return cmd
}

// surveyFormat prints a report.
type surveyFormat func(*survey.Report, io.Writer) error

// format is the format selected by the flags, or by the output's name.
func (f surveyFlags) format() (surveyFormat, error) {
	formats := []struct {
		wanted    bool
		extension string
		format    surveyFormat
	}{
		{f.markdown, ".md", (*survey.Report).WriteMarkdown},
		{f.json, ".json", (*survey.Report).WriteJSON},
		{f.html, ".html", (*survey.Report).WriteHTML},
	}
	var chosen surveyFormat
	for _, c := range formats {
		if c.wanted && chosen != nil {
			return nil, usagef("choose one of --markdown, --json and --html")
		}
		if c.wanted {
			chosen = c.format
		}
	}
	if chosen != nil {
		return chosen, nil
	}
	for _, c := range formats {
		if filepath.Ext(f.output.text) == c.extension {
			return c.format, nil
		}
	}
	return (*survey.Report).WriteText, nil
}

// check refuses flags that contradict each other.
func (f surveyFlags) check(args []string) error {
	switch {
	case f.compare == "" && len(args) > 0:
		return usagef("%q is one argument too many: see ebpfdump survey --help", args[0])
	case len(args) > 1:
		return usagef("%q is one argument too many: --compare takes two surveys", args[1])
	case f.compare != "" && (f.markdown || f.json || f.html || f.read != ""):
		return usagef("--compare prints differences: leave --markdown, --json, --html and --read out")
	case f.hooks && (f.read != "" || f.compare != ""):
		return usagef("--hooks makes experiments: --read and --compare take from the file what was surveyed")
	case f.captures != "" && (f.read != "" || len(args) > 0):
		return usagef("--captures keeps packets of experiments: a survey from a file makes none")
	}
	return nil
}

func (a *app) survey(f surveyFlags, args []string) (err error) {
	format, err := f.format()
	if err != nil {
		return err
	}
	if err := f.check(args); err != nil {
		return err
	}
	ctx, cancel := untilSignal(context.Background())
	defer cancel()
	a.files.Reads(append(args, f.read, f.compare)...)
	out, err := a.openReport(ctx, f.output.text)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.close(err)) }()
	files, err := openSurveys(f, args)
	defer closeAll(files)
	if err != nil {
		return err
	}
	if f.read != "" || len(args) > 0 { // no experiments
		if err := confineToFiles(out.file); err != nil {
			return err
		}
	}
	if f.compare != "" {
		return a.compareSurveys(ctx, f, files, out)
	}
	report, err := a.surveyReport(ctx, f, files, nil)
	if err != nil {
		return err
	}
	return format(report, out)
}

// compareSurveys prints the differences.
func (a *app) compareSurveys(ctx context.Context, f surveyFlags, files []*os.File, out io.Writer) error {
	before, err := readSurvey(files[0])
	if err != nil {
		return err
	}
	f.hooks = len(before.Hooks) > 0
	after, err := a.surveyReport(ctx, f, files[1:], before.Names())
	if err != nil {
		return err
	}
	if f.sock != "" {
		rows, err := survey.RowsByName(strings.Split(f.sock, ","))
		if err != nil {
			return usageError{err}
		}
		var names []string
		for _, row := range rows {
			names = append(names, row.Name)
		}
		before, after = before.Only(names), after.Only(names)
	}
	differences, err := survey.Compare(before, after)
	if err != nil {
		return err
	}
	for _, d := range differences {
		if _, err := fmt.Fprintln(out, d); err != nil {
			return err
		}
	}
	switch n := len(differences); {
	case n == 1:
		return differenceError{"1 difference"}
	case n > 1:
		return differenceError{counted(uint64(n), "difference")}
	}
	_, err = fmt.Fprintf(out, "no differences between %s and %s\n", terminal.Plain(before.System.Kernel), terminal.Plain(after.System.Kernel))
	return err
}

// surveyReport reads a survey from the first file, if any. Otherwise it makes one of the
// kinds that the user named, by default all.
func (a *app) surveyReport(ctx context.Context, f surveyFlags, files []*os.File, names []string) (*survey.Report, error) {
	if len(files) > 0 {
		return readSurvey(files[0])
	}
	options := survey.Options{Program: "ebpfdump " + version(), Hooks: f.hooks}
	switch {
	case f.sock != "":
		rows, err := survey.RowsByName(strings.Split(f.sock, ","))
		if err != nil {
			return nil, usageError{err}
		}
		options.Rows = rows
	case names != nil:
		options.Rows = slices.DeleteFunc(survey.Rows(), func(r survey.Row) bool { return !slices.Contains(names, r.Name) })
	}
	if f.captures != "" {
		if err := a.prepareCaptures(f.captures, options.Rows); err != nil {
			return nil, err
		}
		options.Captured = func(row survey.Row, packets []capture.Packet, statistics []capture.Statistics) error {
			return a.keepCapture(ctx, f.captures, row, packets, statistics)
		}
	}
	if a.stderrTerminal {
		done := 0
		options.Done = func(name string) {
			done++
			a.stderr.Overwrite(fmt.Sprintf("%s of sockets tried, last %s", counted(uint64(done), "kind"), name))
		}
		defer a.stderr.Clear()
	}
	return survey.Run(ctx, options)
}

// openSurveys opens all surveys before any of them is read.
func openSurveys(f surveyFlags, args []string) (files []*os.File, err error) {
	for _, name := range append([]string{f.read, f.compare}, args...) {
		if name == "" {
			continue
		}
		file, err := os.Open(name)
		if err != nil {
			return files, err
		}
		files = append(files, file)
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, file := range files {
		file.Close()
	}
}

func readSurvey(file *os.File) (*survey.Report, error) {
	report, err := survey.ReadJSON(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file.Name(), err)
	}
	return report, nil
}

// prepareCaptures creates the directory, and checks before the experiments that no file
// in it is in use.
func (a *app) prepareCaptures(dir string, rows []survey.Row) error {
	if err := a.files.MakeDirectory(dir); err != nil {
		return fmt.Errorf("keeping the captures: %w", err)
	}
	if rows == nil {
		rows = survey.Rows()
	}
	for _, row := range rows {
		if err := a.files.Check(captureName(dir, row)); err != nil {
			return err
		}
	}
	return nil
}

// captureName is the file for a row's packets.
func captureName(dir string, row survey.Row) string {
	return filepath.Join(dir, strings.ReplaceAll(row.Name, "/", "-")+".pcapng")
}

// keepCapture writes the packets of a row's main experiment to a separate file.
func (a *app) keepCapture(ctx context.Context, dir string, row survey.Row, packets []capture.Packet, statistics []capture.Statistics) error {
	target, err := a.files.Create(ctx, captureName(dir, row))
	if err != nil {
		return err
	}
	file := convert.NewFile(target, convert.Pcapng())
	if err := a.writePackets(file, packets); err != nil {
		return errors.Join(err, target.Finish(err)) // not just a part of them
	}
	return file.End(nil, statistics...)
}

func (a *app) writePackets(file *convert.File, packets []capture.Packet) error {
	if err := file.Begin(convert.WriteOptions{Section: section(a.commandLine())}); err != nil {
		return err
	}
	for i := range packets {
		if err := file.AddInterface(packets[i].Interface); err != nil {
			return err
		}
	}
	for i := range packets {
		if err := file.WritePacket(&packets[i]); err != nil {
			return err
		}
	}
	return nil
}

// reportOutput is a file or stdout for a report, which is written only when it is
// complete.
type reportOutput struct {
	bytes.Buffer
	stdout io.Writer
	file   *outfile.File // nil for stdout
}

func (a *app) openReport(ctx context.Context, name string) (*reportOutput, error) {
	out := &reportOutput{}
	var err error
	if name == "" || name == "-" {
		out.stdout, err = a.results()
	} else {
		out.file, err = a.files.Create(ctx, name)
	}
	return out, err
}

// close writes the report. After a failure nothing is written, and an older file is
// untouched.
func (out *reportOutput) close(failure error) error {
	if differ := (differenceError{}); errors.As(failure, &differ) {
		failure = nil
	}
	if out.file == nil {
		if failure != nil {
			return nil
		}
		_, err := out.WriteTo(out.stdout)
		return err
	}
	if failure == nil {
		_, failure = out.WriteTo(out.file)
		return errors.Join(failure, out.file.Finish(failure))
	}
	return out.file.Finish(failure)
}
