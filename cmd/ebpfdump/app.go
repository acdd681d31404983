package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/extcap"
	"github.com/ebpfdump/ebpfdump/internal/outfile"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// app is the environment of the commands. Tests replace parts of it.
type app struct {
	args []string
	// stdout and stderr are for text, and keep untrusted text from controlling a
	// terminal.
	stdout, stderr *terminal.Writer
	// data is stdout for binary data, such as pcapng.
	data           io.Writer
	stdoutTerminal bool
	stderrTerminal bool
	// quiet: stderr is for what went wrong alone, since Wireshark shows it.
	quiet bool
	// files are the files that the command reads and writes.
	files outfile.Files
}

func newApp() *app {
	a := &app{
		stdout:         textOn(os.Stdout),
		stderr:         textOn(os.Stderr),
		data:           os.Stdout,
		stdoutTerminal: term.IsTerminal(int(os.Stdout.Fd())),
		stderrTerminal: term.IsTerminal(int(os.Stderr.Fd())),
	}
	a.files.Notice = func(text string) { a.stderr.Line("ebpfdump: %s", text) }
	return a
}

// textOn prints text on stdout or stderr, on a terminal in lines of its width.
func textOn(f *os.File) *terminal.Writer {
	if !term.IsTerminal(int(f.Fd())) {
		return terminal.NewWriter(f)
	}
	return terminal.NewTerminal(f, func() int {
		columns, _, _ := term.GetSize(int(f.Fd()))
		return columns
	})
}

// The exit statuses of every command.
const (
	exitDone    = 0
	exitFailed  = 1 // failed while running
	exitUsage   = 2 // wrong usage
	exitLoss    = 3 // finished, but packets were lost, with --fail-on-drop
	exitMissing = 4 // a privilege or a kernel feature is missing
	exitDiffers = 5 // something differs from before, or from what is expected (survey --compare, replay --expect)
	// exitUnread is that of every program which is ended by SIGPIPE.
	exitUnread = 128 + int(unix.SIGPIPE)
)

// usageError is an error in the arguments of a command.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// lossError says that records were lost, with --fail-on-drop: of packets, in any view, and of calls.
type lossError struct{ lost uint64 }

func (e lossError) Error() string {
	were := "were"
	if e.lost == 1 {
		were = "was"
	}
	return fmt.Sprintf("%s of packets and calls %s lost: a larger ring (-B) or a smaller snaplen (-s) may keep up", counted(e.lost, "record"), were)
}

// differenceError says that something differs from before, or from what is expected.
type differenceError struct{ text string }

func (e differenceError) Error() string { return e.text }

// unreadError says that whoever read stdout wanted no more of it, such as head. Nothing is printed, as
// with other programs. To a capture it is an error like others: what comes then is lost.
type unreadError struct{ error }

func (e unreadError) Unwrap() error { return e.error }

// isUnread tells whether an error is that of stdout which nobody reads.
func isUnread(err error) bool {
	var path *fs.PathError
	return errors.Is(err, unix.EPIPE) && errors.As(err, &path) && path.Path == os.Stdout.Name()
}

// exitStatus is the only place where errors become exit statuses.
func exitStatus(err error) int {
	var (
		usage   usageError
		loss    lossError
		missing *bpf.MissingError
		differs differenceError
		command commandError
		cannot  *unrunnableError
		same    *outfile.SameFileError
		unread  unreadError
	)
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &unread):
		return exitUnread
	case errors.As(err, &command):
		return command.status
	case errors.As(err, &cannot):
		return cannot.status()
	case errors.As(err, &usage), errors.As(err, &same):
		return exitUsage
	case errors.As(err, &loss):
		return exitLoss
	case errors.As(err, &missing):
		return exitMissing
	case errors.As(err, &differs):
		return exitDiffers
	}
	return exitFailed
}

// run runs a command and returns its exit status.
func (a *app) run(args []string) int {
	if extcap.IsCall(args) && !a.quiet {
		return a.extcap(args)
	}
	a.args = args
	root := a.rootCommand()
	root.SetArgs(args)
	cmd, err := root.ExecuteC()
	switch {
	case a.quiet && errors.Is(err, unix.EPIPE):
		err = nil // Wireshark has seen enough
	case cmd.Name() != "capture" && isUnread(err):
		err = unreadError{err}
	}
	command, unread := (commandError{}), (unreadError{})
	if err != nil && !errors.As(err, &command) && !errors.As(err, &unread) {
		for i, sentence := range terminal.Sentences(err) {
			if i == 0 {
				sentence = "ebpfdump: " + sentence
			}
			a.stderr.Line("%s", sentence)
		}
		for _, line := range pointing(err, a.stderr.Columns()) {
			a.stderr.Line("%s", line)
		}
	}
	return exitStatus(err)
}

// coloured is stdout for text, with colours or without.
func (a *app) coloured(colour bool) io.Writer { return coloured(a.stdout, colour) }

func coloured(w *terminal.Writer, colour bool) io.Writer {
	if colour {
		return w.Coloured()
	}
	return w
}

// results is stdout for a command's main output, if that is text. If stdout is a file, it
// must not be an input, and gets the checks of other outputs.
func (a *app) results() (*terminal.Writer, error) {
	to, err := a.files.Stdout(a.data)
	if err != nil {
		return nil, err
	}
	if a.stdoutTerminal {
		return terminal.NewTerminal(to, a.stdout.Columns), nil
	}
	return terminal.NewWriter(to), nil
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "ebpfdump",
		Short: "Record what a socket filter sees of every packet, and what userspace gets",
		Long: `ebpfdump puts an eBPF filter on a socket and writes, into one pcapng file, what
each layer sees of every packet: the bytes that the kernel shows the filter,
and the bytes that userspace gets from recv.

Exit status: 0 done; 1 failed while running; 2 wrong usage; 3 finished but
packets were lost, with --fail-on-drop; 4 a privilege or kernel feature is
missing; 5 something is not as it was, or as it should be, with survey
--compare and replay --expect; 141 nobody reads stdout any more, as behind
head, where a capture has 1: it loses packets then. After capture -- COMMAND,
the command's own if the capture was fine; 127 if there is no such command, 126
if it cannot be run.`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		// Of every command, before it looks at its flags.
		PersistentPreRunE: requireValues,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return noCommand(cmd, args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			_ = cmd.Help()
			return usagef("a command is missing")
		},
	}
	root.SetVersionTemplate("{{versionText}}") // asked for only where it is printed, since that may take another program
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w: see %s --help", flagError(err), cmd.CommandPath())
	})
	root.SetUsageTemplate(strings.NewReplacer(
		".LocalFlags.FlagUsages ", "flagUsages .LocalFlags ",
		".InheritedFlags.FlagUsages ", "flagUsages .InheritedFlags ",
		`Use "{{.CommandPath}} [command] --help" for more information about a command.`, `{{.CommandPath}} COMMAND --help says more of each.`,
	).Replace(root.UsageTemplate()))
	root.AddCommand(a.captureCommand(), a.listCommand(), a.convertCommand(), a.explainCommand(), a.replayCommand(),
		a.surveyCommand(), a.doctorCommand(), a.extcapCommand(), a.wiresharkCommand(), a.manualCommand())
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	complete(root)
	refuseUnknown(root)
	return root
}

func init() { cobra.AddTemplateFunc("flagUsages", flagUsages) }

// flagUsages is the help of flags, for terminals of 80 columns. Of those that need no value, the library shows
// the one that they have then and a space before FILE, which would make that an argument.
func flagUsages(flags *pflag.FlagSet) string {
	text := flags.FlagUsagesWrapped(80)
	flags.VisitAll(func(f *pflag.Flag) {
		if name, _ := pflag.UnquoteUsage(f); f.NoOptDefVal != "" && name != "" {
			own := fmt.Sprintf("--%s[=%s]", f.Name, name)
			theirs := fmt.Sprintf("--%s %s[=%q]", f.Name, name, f.NoOptDefVal)
			text = strings.Replace(text, theirs, fmt.Sprintf("%-*s", len(theirs), own), 1)
		}
	})
	return text
}

// refuseUnknown has the commands of cobra refuse what they do not know, and not show what they do
// and call it done.
func refuseUnknown(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			show := cmd.Run
			cmd.Run = nil
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				if _, unknown, err := root.Find(args); err != nil || len(unknown) > 0 {
					return noCommand(root, args)
				}
				show(cmd, args)
				return nil
			}
		case "completion":
			describeCompletion(cmd)
			cmd.Args = nil
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				if len(args) > 0 {
					return usagef("there is no completion for %q: choose bash, fish, powershell or zsh", args[0])
				}
				_ = cmd.Help()
				return usagef("which shell? Choose bash, fish, powershell or zsh")
			}
		}
	}
}

// noCommand says that there is no such command, and which there are.
func noCommand(root *cobra.Command, words []string) error {
	var names []string
	for _, cmd := range root.Commands() {
		if cmd.IsAvailableCommand() {
			names = append(names, cmd.Name())
		}
	}
	return usagef("there is no command %q: choose one of %s, or see ebpfdump --help", strings.Join(words, " "), strings.Join(names, ", "))
}

// flagError says what is wrong with the number given to a flag.
func flagError(err error) error {
	var bad *pflag.InvalidValueError
	if !errors.As(err, &bad) {
		return err
	}
	wanted := "a whole number"
	if strings.HasPrefix(bad.GetFlag().Value.Type(), "uint") {
		wanted += " from 0 on"
	}
	switch {
	case errors.Is(err, strconv.ErrSyntax):
		return fmt.Errorf("--%s takes %s, not %q", bad.GetFlag().Name, wanted, bad.GetValue())
	case errors.Is(err, strconv.ErrRange):
		return fmt.Errorf("--%s takes no number as large as %s", bad.GetFlag().Name, bad.GetValue())
	}
	return err
}

// noArguments refuses arguments that are neither flags nor their values.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%q is one argument too many: see %s --help", args[0], cmd.CommandPath())
	}
	return nil
}

// commandLine is the command line, for the file's comment.
func (a *app) commandLine() string { return "ebpfdump " + shellWords(a.args) }

// shellWords is a command line that a shell takes apart into these words.
func shellWords(args []string) string {
	var words []string
	for _, arg := range args {
		switch {
		case strings.ContainsFunc(arg, unicode.IsControl):
			arg = controlWord(arg)
		case arg == "" || strings.ContainsAny(arg, " \t\n\"'\\$`*?;&|<>()"):
			arg = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}

// controlWord is a word with control characters, in the form $'...' of POSIX: the lines of a file's comment are
// one command line each.
func controlWord(arg string) string {
	b := []byte("$'")
	for i := range len(arg) {
		switch c := arg[i]; {
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\t':
			b = append(b, `\t`...)
		case c == '\'' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c > '~':
			b = fmt.Appendf(b, `\%03o`, c)
		default:
			b = append(b, c)
		}
	}
	return string(append(b, '\''))
}

// untilSignal cancels the context at the first signal that asks to stop. The second of
// its kind has its default effect.
func untilSignal(parent context.Context) (ctx context.Context, cancel context.CancelFunc) {
	// Catch SIGPIPE, permanently, so that a write to a broken pipe fails with EPIPE
	// instead. Likewise a write beyond the file size limit (ulimit -f).
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE, unix.SIGXFSZ)
	ctx, cancel = signal.NotifyContext(parent, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE)
	context.AfterFunc(ctx, func() { time.AfterFunc(repeatedSignal, cancel) })
	return ctx, cancel
}

// repeatedSignal is how long a second signal counts as a repetition of the first:
// timeout(1) sends its signal twice.
const repeatedSignal = 500 * time.Millisecond

// untilSecondSignal is for captures that pass the first signal on to a command: they end
// with the command, or at the second signal.
func untilSecondSignal(parent context.Context, first func(os.Signal)) (ctx context.Context, cancel context.CancelFunc) {
	ctx, cancel = context.WithCancel(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE)
	go func() {
		defer signal.Stop(signals)
		var asked time.Time
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-signals:
				switch {
				case s == unix.SIGPIPE || !asked.IsZero() && time.Since(asked) > repeatedSignal:
					cancel()
				case asked.IsZero():
					asked = time.Now()
					first(s)
				}
			}
		}
	}()
	return ctx, cancel
}
