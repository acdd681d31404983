package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
	"github.com/ebpfdump/ebpfdump/internal/decoding"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// A shell asks what may come next by a hidden command of cobra, __complete. What a command itself does
// not complete has a row in one of these tables.
var (
	// flagOffers are by the name of a flag.
	flagOffers = map[string]cobra.CompletionFunc{
		"view":        completeViews,
		"from":        offerFormats(false),
		"to":          offerFormats(true),
		"sock":        completeKinds,
		"as":          completeAs,
		"proto":       oneOf("tcp", "udp", "icmp"),
		"decode-as":   oneOf(decoding.Names()...),
		"verdict":     oneOf("keep\tthe whole packet", "drop\tnothing of it"),
		"compress":    oneOf("zstd", "gzip"),
		"color":       oneOf("auto\ton a terminal, without NO_COLOR", "always", "never"),
		"ring-buffer": begun("duration:", "interval:", "filesize:", "packets:", "files:"),
		"autostop":    begun("duration:", "filesize:", "packets:", "files:"),
		"read":        filesNamed("json"),
		"compare":     filesNamed("json"),
		"cgroup":      completeCgroup,
	}
	// valueOffers are by the name that a flag's value has in --help.
	valueOffers = map[string]cobra.CompletionFunc{
		"FILE":             anyFile,
		"FILE.o[:PROGRAM]": filesNamed("o"),
		"DIR":              folders,
		"FOLDER":           folders,
		"USER":             completeUsers,
	}
	// argumentOffers are by the command whose arguments they are. The others have none, as far as these
	// are not commands.
	argumentOffers = map[string]cobra.CompletionFunc{
		"ebpfdump capture": completeCommand,
		"ebpfdump convert": anyFile,
		"ebpfdump explain": filesNamed(captureFiles...),
		"ebpfdump replay":  filesNamed(captureFiles...),
		"ebpfdump survey":  filesNamed("json"),
	}
)

// captureFiles are what names of captures end in.
var captureFiles = []string{"pcapng", "ntar", "pcap", "cap", "gz", "zst"}

// complete has the shell offer values for all flags, and arguments, of a command and of those below it.
func complete(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name, _ := pflag.UnquoteUsage(f)
		offer, ok := flagOffers[f.Name]
		if !ok {
			offer, ok = valueOffers[name]
		}
		if !ok {
			offer = cobra.NoFileCompletions
		}
		if _, done := cmd.GetFlagCompletionFunc(f.Name); !done {
			register(cmd, f.Name, offer)
		}
	})
	if offer := argumentOffers[cmd.CommandPath()]; offer != nil {
		cmd.ValidArgsFunction = offer
	} else if cmd.ValidArgsFunction == nil {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	for _, sub := range cmd.Commands() {
		if sub.Name() != "help" && sub.Name() != "completion" { // cobra's own
			complete(sub)
		}
	}
}

// completionUses are how each shell reads its script for the time that it runs, and what it needs to.
var completionUses = map[string]string{
	"bash":       "source <(ebpfdump completion bash)\n\nThe package bash-completion must be there.",
	"zsh":        "autoload -U compinit; compinit\n  source <(ebpfdump completion zsh)",
	"fish":       "ebpfdump completion fish | source",
	"powershell": "ebpfdump completion powershell | Out-String | Invoke-Expression",
}

// describeCompletion says of cobra's command what is so with this program.
func describeCompletion(cmd *cobra.Command) {
	cmd.Short = "Write the script by which a shell completes commands"
	cmd.Long = `Writes a script by which a shell completes the commands, flags and values of
ebpfdump: kinds, views and forms, processes, and the descriptors and ports of
the process that --pid names. Installing ebpfdump puts it where the shells look
for it.`
	for _, shell := range cmd.Commands() {
		shell.Short = "for " + shell.Name()
		shell.Long = "For the shell that runs:\n\n  " + completionUses[shell.Name()]
		if shell.Name() == "bash" {
			shell.RunE = writeBashCompletion
		}
	}
}

// writeBashCompletion writes cobra's script, with a change: bash 5.2 puts a backslash before a comma when it
// quotes (printf %q), so that what is typed of a list would be no beginning of what is offered.
func writeBashCompletion(cmd *cobra.Command, _ []string) error {
	plain, err := cmd.Flags().GetBool("no-descriptions")
	if err != nil {
		return err
	}
	var script bytes.Buffer
	if err := cmd.Root().GenBashCompletionV2(&script, !plain); err != nil {
		return fmt.Errorf("making the script: %w", err)
	}
	text := quotedWord.ReplaceAllString(script.String(), "$0; $1$2=$${$1$2//\\\\,/,}")
	if _, err := io.WriteString(cmd.OutOrStdout(), text); err != nil {
		return fmt.Errorf("writing the script: %w", err)
	}
	return nil
}

// quotedWord is where the script quotes a single word.
var quotedWord = regexp.MustCompile(`(?m)^\s+printf -v (comp) "%q" .*$|^\s+(COMPREPLY\[0\])=\$\(printf "%q" .*\)$`)

func register(cmd *cobra.Command, flag string, offer cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, offer); err != nil {
		panic(err) // there is no such flag
	}
}

func oneOf(values ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
}

// begun offers beginnings of values.
func begun(values ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace)
}

func filesNamed(extensions ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(extensions, cobra.ShellCompDirectiveFilterFileExt)
}

func anyFile(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

func folders(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// offered makes a completion of values that may stand several with commas between them.
func offered(offers func(yield func(value, about string))) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return among(typed, offers), cobra.ShellCompDirectiveNoFileComp
	}
}

func offerFormats(writable bool) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var all []string
		for _, form := range convert.Formats(writable) {
			all = append(all, form.Name+"\t"+form.Summary)
		}
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}

var completeKinds = offered(func(yield func(value, about string)) {
	for _, k := range capture.Kinds() {
		yield(k.Name, k.Summary)
	}
})

func completeAs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var all []string
	for _, k := range asKinds() {
		all = append(all, k.Name+"\t"+k.Summary)
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

// viewWords are a few words on each view.
var viewWords = map[string]string{
	"kernel": "what the filter gets", "user": "what receiving calls return", "net": "the same from the network header on",
	"link": "the same from the link header on", "sent": "what sending calls take", "cgroup": "packets of both directions at the cgroup hooks",
	"wire": "frames of both directions on the interfaces", "drop": "what the kernel freed, with its reason",
	"select": "what a program saw that chose a socket",
}

var completeViews = offered(func(yield func(value, about string)) {
	for name := range strings.SplitSeq(capture.ViewNames(), ", ") {
		yield(name, viewWords[name])
	}
})

func completeUsers(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	text, _ := os.ReadFile("/etc/passwd") // where users come from elsewhere, none are offered
	var all []string
	for line := range strings.Lines(string(text)) {
		if name, _, ok := strings.Cut(line, ":"); ok && terminal.Plain(name) == name {
			all = append(all, name)
		}
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

// completeCgroup offers folders, and paths in the cgroup2 file system one after another.
func completeCgroup(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	root, mounted := bpf.CgroupMount()
	if strings.HasPrefix(typed, "/") || !mounted {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	above := typed[:strings.LastIndexByte(typed, '/')+1]
	entries, _ := os.ReadDir(filepath.Join(root, above))
	var all []string
	for _, entry := range entries {
		if name := above + entry.Name(); entry.IsDir() && terminal.Plain(name) == name && strings.HasPrefix(name, typed) {
			all = append(all, name)
		}
	}
	return all, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// completeCommand offers the commands of the PATH behind --, and files for what they take.
func completeCommand(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	switch {
	case !slices.Contains(os.Args, "--"): // cobra has taken it away
		return nil, cobra.ShellCompDirectiveNoFileComp
	case len(args) > 0 || typed == "" || strings.Contains(typed, "/"):
		return nil, cobra.ShellCompDirectiveDefault
	}
	var all []string
	for _, folder := range filepath.SplitList(os.Getenv("PATH")) {
		entries, _ := os.ReadDir(folder)
		for _, entry := range entries {
			if name := entry.Name(); strings.HasPrefix(name, typed) && terminal.Plain(name) == name && !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

// completeListen has the shell offer where a socket of the chosen kind can be bound.
func (f *captureFlags) completeListen(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	kind, ok := capture.KindByName(f.sock)
	switch {
	case !ok:
		return nil, cobra.ShellCompDirectiveNoFileComp
	case kind.Family() == unix.AF_UNIX:
		return nil, cobra.ShellCompDirectiveDefault
	case kind.Family() == unix.AF_PACKET:
		return among(typed, func(yield func(value, about string)) {
			for _, name := range deviceNames() {
				yield(name, "")
			}
		}), cobra.ShellCompDirectiveNoFileComp
	case kind.Address() != "":
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	// The port is the user's choice.
	return among(typed, func(yield func(value, about string)) {
		for _, ip := range addresses(kind.IPv6()) {
			yield(strings.TrimSuffix(netip.AddrPortFrom(ip, 0).String(), "0"), "")
		}
	}), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// addresses are those of the machine of a version of IP that need no zone, and the one that stands for all.
func addresses(ipv6 bool) []netip.Addr {
	all := []netip.Addr{netip.IPv4Unspecified()}
	if ipv6 {
		all[0] = netip.IPv6Unspecified()
	}
	of, _ := net.InterfaceAddrs()
	for _, a := range of {
		prefix, err := netip.ParsePrefix(a.String())
		if ip := prefix.Addr(); err == nil && ip.Is6() == ipv6 && !ip.IsLinkLocalUnicast() {
			all = append(all, ip)
		}
	}
	return all
}

// completeSelection has the shell offer what list shows, for the flags that choose sockets.
func completeSelection(cmd *cobra.Command, f *liveFlags) {
	sockets := func(offer func(s *capture.Socket, yield func(value, about string))) cobra.CompletionFunc {
		return offered(func(yield func(value, about string)) {
			config := capture.InventoryConfig{Cgroup: f.cgroup}
			pids, err := f.processes()
			if err != nil {
				return
			}
			if config.PIDs = pids; config.Cgroup != "" {
				config.PIDs = nil
			}
			all, err := capture.TakeInventory(config)
			if err != nil {
				return
			}
			for i := range all.Sockets {
				offer(&all.Sockets[i], yield)
			}
		})
	}
	register(cmd, "pid", completeProcesses)
	register(cmd, "fd", sockets(func(s *capture.Socket, yield func(value, about string)) {
		for _, o := range s.Owners {
			for _, fd := range o.Descriptors {
				if len(f.pids) > 0 {
					yield(strconv.Itoa(fd), s.Kind+" "+socketAddress(s))
				}
			}
		}
	}))
	register(cmd, "port", sockets(func(s *capture.Socket, yield func(value, about string)) {
		for _, a := range []capture.Address{s.Local, s.Peer} {
			if a.Port != 0 {
				yield(strconv.Itoa(int(a.Port)), fmt.Sprintf("%s %s, %s", s.Kind, socketAddress(s), s.Owners[0].Name))
			}
		}
	}))
}

// completeProcesses offers the numbers of processes, and to whoever begins with a letter their names:
// of those that have sockets, or of all where their sockets may not be seen.
func completeProcesses(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	var owners []capture.Owner
	all, err := capture.TakeInventory(capture.InventoryConfig{})
	if err == nil {
		for _, s := range all.Sockets {
			owners = append(owners, s.Owners...)
		}
	}
	if err != nil || all.Denied > 0 || all.Hidden != nil {
		owners = append(owners, capture.Programs()...)
	}
	last := typed[strings.LastIndexByte(typed, ',')+1:]
	named := last != "" && (last[0] < '0' || last[0] > '9')
	return among(typed, func(yield func(value, about string)) {
		for _, o := range owners {
			switch {
			case !named:
				yield(strconv.Itoa(o.PID), o.Name)
			case terminal.Plain(o.Name) == o.Name && !strings.ContainsAny(o.Name, ", \"'"):
				yield(o.Name, "")
			}
		}
	}), cobra.ShellCompDirectiveNoFileComp
}

// among completes the last one of several values with commas between them. Each value is offered
// once, with what is said of it first, and not again when it is there.
func among(typed string, offers func(yield func(value, about string))) []string {
	before := typed[:strings.LastIndexByte(typed, ',')+1]
	seen := make(map[string]bool)
	for value := range strings.SplitSeq(strings.TrimSuffix(before, ","), ",") {
		seen[value] = true
	}
	var all []string
	offers(func(value, about string) {
		if seen[value] || !strings.HasPrefix(before+value, typed) {
			return
		}
		seen[value] = true
		if about = terminal.Plain(about); about != "" {
			about = "\t" + about
		}
		all = append(all, before+value+about)
	})
	return all
}
