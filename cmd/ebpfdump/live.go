package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

const liveHelp = `
With --pid, joins running processes and their children: the kernel view is what
a filter on their sockets gets, recorded just before their own filters, and the
user view is what their own receiving system calls return; with --view sent,
what their sending ones take is there as well, and with --view cgroup each
packet of both directions from the IP header on, with --view wire each frame of
theirs on the interfaces. They notice nothing of it,
before, during or after, unless --allow-drop or --replace-filter changes what
they get. A filter that a socket has of its own is asked afterwards what it
decided, as far as that is sure to change nothing; with --wrap-filter it runs
inside the tap, which records what it decides, and is put back at the end. The
capture ends when all of those that --pid names have ended.
With --cgroup, does so for all that is in a cgroup, or comes to it, and in
those below it, until the cgroup is removed: a service, a container, a session.
(--cgroup says whose sockets, --view cgroup which of their packets: those that
pass the kernel's cgroup hooks, of any process or socket. Neither needs the
other.)
With --unix-streams, what goes through unix streams is in the views user and
sent as well: no filter sees it. --decode-as tells Wireshark what it is.
With -- COMMAND, runs a command, from its first packet to its end; the exit
status is then the command's if nothing else went wrong. A signal is passed on
to the command, a second one ends the capture.`

const liveExample = `  ebpfdump capture --pid 1234 --port 80 -o live.pcapng
  ebpfdump capture --pid nginx -o web.pcapng port 80 and host 10.0.0.1
  ebpfdump capture --pid nginx,4711 -o live.pcapng
  ebpfdump capture --cgroup system.slice/ssh.service -o ssh.pcapng
  ebpfdump capture -o live.pcapng -- curl http://127.0.0.1/`

// liveFlags are the flags of capturing from other processes.
type liveFlags struct {
	pids          []string // numbers and names
	cgroup        string
	fds           []int
	ports         []int
	user          string
	replaceFilter bool
	wrapFilter    bool
	allowDrop     bool
	command       []string
}

func (f *liveFlags) register(flags *pflag.FlagSet) {
	flags.VarP(processNames{&f.pids}, "pid", "p", "join the running process `PID`, or all that are called so, and their children")
	flags.StringVar(&f.cgroup, "cgroup", "", "follow the processes of the cgroup `PATH`, a folder or a path in the cgroup2 file system\n(--view cgroup is no choice of processes, but a view of their packets)")
	flags.IntSliceVar(&f.fds, "fd", nil, "with --pid: only the socket that is descriptor `N` of the process, as list shows")
	flags.IntSliceVar(&f.ports, "port", nil, "with --pid, --cgroup or a command: only sockets whose own or peer's port is `P`, as list shows")
	flags.StringVarP(&f.user, "user", "Z", "", "run the command as `USER` (default who called sudo)")
	flags.BoolVar(&f.replaceFilter, "replace-filter", false, "put the tap in the place of filters that sockets have, which then get everything;\nthey are put back at the end")
	flags.BoolVar(&f.wrapFilter, "wrap-filter", false, "run the filters that sockets have of their own inside the tap, to record what they decide;\nthey are put back at the end")
	flags.BoolVar(&f.allowDrop, "allow-drop", false, "with --pid, --cgroup or a command: let --filter, --filter-cbpf or --verdict change what the process gets")
}

// loose refuses arguments that are not behind --, and says how to give what they may be.
func loose(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if _, ok := capture.KindByName(args[0]); ok && !cmd.Flags().Changed("sock") {
		return usagef("%q is one argument too many: a kind of socket is given as --sock %[1]s", args[0])
	}
	if _, err := exec.LookPath(args[0]); err == nil {
		return usagef("%q is one argument too many: a command to run goes behind --, as in %s -- %s", args[0], cmd.CommandPath(), shellWords(args))
	}
	if expression := strings.Join(args, " "); isExpression(expression) {
		return usagef("a capture filter (%s) chooses packets: of what? Give --sock KIND, --pid PID, or -- COMMAND", terminal.Plain(expression))
	}
	return noArguments(cmd, args)
}

func isExpression(text string) bool {
	_, err := bpf.ParseExpression(text)
	return err == nil
}

// wanted tells whether the user wants to capture from other processes.
func (f *liveFlags) wanted(cmd *cobra.Command) bool {
	for _, name := range []string{"pid", "cgroup", "fd", "port", "user", "replace-filter", "wrap-filter", "allow-drop", "unix-streams", "process-info"} {
		if cmd.Flags().Changed(name) {
			return true
		}
	}
	return len(f.command) > 0
}

// joinConfig checks the flags.
func (f captureFlags) joinConfig(cmd *cobra.Command) (p capturePlan, config capture.JoinConfig, err error) {
	p.captureFlags = f
	if err := f.live.contradiction(cmd); err != nil {
		return p, config, err
	}
	if err := f.common(&p); err != nil {
		return p, config, err
	}
	if p.config.Verdict, err = f.filter.read(); err != nil {
		return p, config, err
	}
	if slices.Contains(p.config.Views, capture.ViewSelect) {
		return p, config, usagef("the view select is of a reuseport group that is opened: give --sock udp --reuseport N --reuseport-filter FILE.o")
	}
	pids, err := f.live.processes()
	if err != nil {
		return p, config, err
	}
	config = capture.JoinConfig{
		PIDs: pids, Cgroup: f.live.cgroup, Descriptors: f.live.fds, ReplaceFilter: f.live.replaceFilter,
		WrapFilter:  f.live.wrapFilter,
		UnixStreams: f.decode.streams || f.decode.as != "",
		Options:     p.config.Options,
	}
	config.Ports, err = f.live.numbers()
	return p, config, err
}

// numbers checks the descriptors, and returns the ports.
func (f *liveFlags) numbers() (ports []uint16, err error) {
	for _, fd := range f.fds {
		if fd < 0 {
			return nil, usagef("--fd %d: descriptors count from 0", fd)
		}
	}
	for _, port := range f.ports {
		if port < 1 || port > 65535 {
			return nil, usagef("--port %d: ports are from 1 to 65535", port)
		}
		ports = append(ports, uint16(port))
	}
	return ports, nil
}

// contradiction refuses flags that contradict each other.
func (f *liveFlags) contradiction(cmd *cobra.Command) error {
	if cmd.Flags().Changed("sock") {
		return f.besideOwn(cmd)
	}
	for _, name := range []string{"listen", "join", "proto", "echo", "probe", "isolate"} {
		if cmd.Flags().Changed(name) {
			return usagef("--%s is for a socket that ebpfdump opens itself (--sock): it does not go with --pid, --cgroup and commands", name)
		}
	}
	for _, name := range []string{"filter", "filter-cbpf", "verdict"} {
		if cmd.Flags().Changed(name) && !f.allowDrop && !f.wrapFilter {
			return usagef("--%s changes what the other process gets, and what it drops is lost to it: add --allow-drop if you want that", name)
		}
	}
	for _, name := range []string{"reuseport", "reuseport-filter", "reuseport-filter-cbpf"} {
		if cmd.Flags().Changed(name) {
			return usagef("--%s is for sockets that are opened (--sock udp): those of other processes have their groups already", name)
		}
	}
	for _, name := range []string{"filter", "filter-cbpf", "verdict", "replace-filter"} {
		if f.wrapFilter && cmd.Flags().Changed(name) {
			return usagef("--wrap-filter leaves the decision to the sockets' own filters, and --%s takes it from them: choose one", name)
		}
	}
	pid, cgroup := cmd.Flags().Changed("pid"), cmd.Flags().Changed("cgroup")
	if len(f.command) > 0 {
		var cannot *exec.Error
		if _, err := exec.LookPath(f.command[0]); errors.As(err, &cannot) {
			return &unrunnableError{f.command[0], cannot.Err}
		}
	}
	switch {
	case pid && len(f.command) > 0:
		return usagef("join a process (--pid) or run a command: not both")
	case cgroup && (pid || len(f.command) > 0):
		return usagef("follow a cgroup (--cgroup), or a process (--pid) or a command: not both")
	case !pid && !cgroup && len(f.command) == 0:
		return usagef("which process? Give --pid PID, or --cgroup PATH, or a command behind --")
	case (pid || cgroup) && f.user != "":
		return usagef("--user is for a command: a running process has its user")
	case cgroup && len(f.fds) > 0:
		return usagef("--fd is for --pid: the processes of a cgroup have a descriptor of that number each")
	case !pid && len(f.fds) > 0:
		return usagef("--fd is for --pid: a command has no descriptors yet")
	}
	return nil
}

// otherProcesses are the flags for sockets of other processes, and what is to be said of one that
// comes with --sock.
var otherProcesses = []struct{ flag, instead string }{
	{"port", "--listen ADDR:PORT chooses the port"},
	{"fd", "the socket is a new one"},
	{"user", "no command is run"},
	{"allow-drop", "nobody else reads the socket, so leave it out"},
	{"replace-filter", "the socket has no other filter"},
	{"wrap-filter", "the socket has no filter but ours"},
	{"unix-streams", "the kind says which socket it is"},
	{"process-info", "the process is ebpfdump"},
}

// besideOwn refuses what does not go with a socket of our own.
func (f *liveFlags) besideOwn(cmd *cobra.Command) error {
	if !cmd.Flags().Changed("pid") && !cmd.Flags().Changed("cgroup") && len(f.command) == 0 {
		for _, other := range otherProcesses {
			if cmd.Flags().Changed(other.flag) {
				return usagef("--%s is for sockets of other processes (--pid, --cgroup or a command): with --sock, %s",
					other.flag, other.instead)
			}
		}
	}
	return usagef("a socket of our own (--sock), or those of another process (--pid, --cgroup, -- COMMAND): not both")
}

// unrunnableError says that the command cannot be run.
type unrunnableError struct {
	command string
	err     error
}

func (e *unrunnableError) Error() string {
	return fmt.Sprintf("the command %s cannot be run: %v", e.command, e.err)
}

func (e *unrunnableError) Unwrap() error { return e.err }

// status is that of a shell, of env and of timeout: 127 if there is no such command, and 126 if
// there is one.
func (e *unrunnableError) status() int {
	if errors.Is(e.err, exec.ErrNotFound) || errors.Is(e.err, os.ErrNotExist) {
		return 127
	}
	return 126
}

// processes finds the processes that --pid names.
func (f *liveFlags) processes() ([]int, error) {
	var all []int
	for _, text := range f.pids {
		pid, err := strconv.Atoi(text)
		switch {
		case text == "":
			return nil, usagef("--pid needs %s", valueNames["pid"])
		case err == nil && pid < 1:
			return nil, usagef("--pid %d: processes count from 1", pid)
		case pid == os.Getpid():
			return nil, usagef("--pid %d is ebpfdump itself", pid)
		case err == nil:
			all = append(all, pid)
			continue
		}
		named := capture.ProcessesNamed(text)
		if len(named) == 0 {
			return nil, fmt.Errorf("--pid %s: no process is called so (ps -e shows them)", text)
		}
		all = append(all, named...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if len(f.fds) > 0 && len(all) > 1 {
		return nil, usagef("--fd %d is of one process, and --pid %s names %d: choose one", f.fds[0], strings.Join(f.pids, ","), len(all))
	}
	return all, nil
}

// captureLive captures from the sockets of other processes.
func (a *app) captureLive(cmd *cobra.Command, f captureFlags) error {
	p, config, err := f.joinConfig(cmd)
	if err != nil {
		return err
	}
	if p.keys, err = f.openTLSKeys(); err != nil {
		return err
	}
	if f.decode.process {
		p.processes = openProcesses()
		config.Started = p.processes.ask
	}
	var status *os.ProcessState
	err = a.record(p, func(report *reporter, immediate bool) (source, error) {
		config.Notice, config.Immediate = report.notice, immediate
		config.Filtered = func(socket string) {
			report.notice(socket + " has a filter already, and is left alone: --wrap-filter runs it inside the tap, --replace-filter takes its place")
		}
		config.LeftOut = func(sockets []string) { report.notice(leftOutLine(sockets)) }
		started, ask := func() {}, config.Started
		config.Started = func(pid int) {
			if ask != nil {
				ask(pid)
			}
			started()
		}
		live, err := a.openLive(config, f, p.keys)
		if err != nil {
			return source{}, withFlags(pointToList(err, config.PIDs))
		}
		if text := f.missingViews(); text != "" {
			report.notice(text)
		}
		run := func(ctx context.Context, sink capture.Sink) error {
			defer func() { status = live.Status() }()
			return live.Run(ctx, sink)
		}
		from := source{Capture: live, on: live.Process(), sockets: live.Sockets(), run: run, capabilities: live.Capabilities()}
		if len(f.live.command) > 0 {
			from.command, from.whenStarted = true, func(do func()) { started = do }
			from.signal = func(s os.Signal) {
				report.stopped.Store(a.quiet)
				report.notice("waiting for the command to end: another signal ends the capture")
				if !fromTerminal(s) {
					live.Signal(s)
				}
			}
		}
		return from, nil
	})
	if err != nil {
		return err
	}
	return commandStatus(status)
}

// fromTerminal tells whether a signal probably came from the keyboard, which sends it to
// the command as well.
func fromTerminal(s os.Signal) bool {
	if s == unix.SIGTERM {
		return false
	}
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	foreground, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && foreground == unix.Getpgrp()
}

// openTLSKeys opens the key log, nil if none is wanted.
func (f *captureFlags) openTLSKeys() (*tlsKeys, error) {
	if f.tlsKeys == "" {
		return nil, nil
	}
	account, err := runAs(f.live.user)
	if err != nil {
		return nil, err
	}
	if account == nil {
		return openKeys(f.tlsKeys, nil)
	}
	return openKeys(f.tlsKeys, account.ids)
}

// openLive joins the process, or prepares the command.
func (a *app) openLive(config capture.JoinConfig, f captureFlags, keys *tlsKeys) (*capture.Live, error) {
	if len(f.live.command) == 0 {
		return capture.Join(config)
	}
	command := capture.Command{Args: f.live.command, Env: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	if f.output.text == "" || f.output.text == "-" || f.print {
		command.Stdout = os.Stderr // stdout is for the packets
	}
	account, err := runAs(f.live.user)
	if err != nil {
		return nil, err
	}
	if account != nil {
		command.User, command.Env = account.ids, account.environment(command.Env)
	}
	if f.tlsKeys == commandKeys {
		command.Env = append(command.Env, keys.variable())
	}
	return capture.Start(config, command)
}

// commandError says that the command failed. Nothing is printed, since the command
// reports its failure itself.
type commandError struct{ status int }

func (e commandError) Error() string {
	return fmt.Sprintf("the command ended with status %d", e.status)
}

// commandStatus turns the end of a command into an error, nil if it succeeded.
func commandStatus(state *os.ProcessState) error {
	if state == nil || state.Success() {
		return nil
	}
	if wait, ok := state.Sys().(syscall.WaitStatus); ok && wait.Signaled() {
		return commandError{128 + int(wait.Signal())} // as in a shell
	}
	return commandError{state.ExitCode()}
}

// liveLines prints the closing lines about other processes.
func (r *reporter) liveLines(c capture.Counts) {
	live, ok := r.session.(*capture.Live)
	if !ok {
		return
	}
	r.uncounted(c.Peeked, "call", "peeked (MSG_PEEK)", capture.ViewUser)
	if c.Calls.Lost()+c.Calls.Truncated+c.Calls.Missed > 0 {
		r.printf("system calls: %s seen = %d recorded + %d ring full + %d fault; %d truncated, %s missed at most",
			counted(c.Calls.Seen, "piece"), c.Calls.Recorded, c.Calls.RingFull, c.Calls.Fault, c.Calls.Truncated, counted(c.Calls.Missed, "call"))
	}
	if c.Sends.Lost()+c.Sends.Truncated+c.Sends.Missed > 0 {
		r.printf("sends: %s seen = %d recorded + %d ring full + %d fault; %d truncated, %s missed at most",
			counted(c.Sends.Seen, "piece"), c.Sends.Recorded, c.Sends.RingFull, c.Sends.Fault, c.Sends.Truncated, counted(c.Sends.Missed, "call"))
	}
	for _, f := range live.OwnFilters() {
		if f.Packets > 0 {
			r.printf("%s", ownFilterLine(&f, r.plan.live.wrapFilter))
		}
	}
	for _, remark := range live.Remarks() {
		r.printf("%s", remark)
	}
}

// ownFilterLine says what a filter that sockets have of their own did, or one that a capture has left there. Why it
// did not run inside the tap is no part of that: it was said where it was found out.
func ownFilterLine(f *capture.OwnFilter, wraps bool) string {
	about := "own filter"
	if f.OtherTap {
		about = "filter"
	}
	const shown = 3
	if on := f.Sockets; len(on) > 0 {
		about += " of " + strings.Join(on[:min(len(on), shown)], ", and of ")
		if more := len(on) - shown; more > 0 {
			about += ", and of " + counted(uint64(more), "other")
		}
	}
	about += fmt.Sprintf(": %s, %s", f.Filter, counted(f.Packets, "packet"))
	switch {
	case !f.Asked && !f.Wrapped:
		about += ", not asked: " + f.Reason
		if !wraps {
			about += " (--wrap-filter records what it decides)"
		}
		return about
	case f.Wrapped:
		about += ", run inside the tap"
	default:
		about += ", asked afterwards"
	}
	about += fmt.Sprintf(": %d dropped, %d truncated", f.Dropped, f.Trimmed)
	if f.Unasked > 0 {
		about += fmt.Sprintf(", %d that it could not be asked about", f.Unasked)
	}
	if f.Belied > 0 {
		about += fmt.Sprintf("; of %d the process got something else than the answer", f.Belied)
	}
	return about
}

// leftOutLine says which sockets are captured for their filters only.
func leftOutLine(sockets []string) string {
	if len(sockets) == 1 {
		return sockets[0] + " has a filter of its own, and is left out: --wrap-filter captures it"
	}
	return fmt.Sprintf("%d packet and netlink sockets have filters of their own, and are left out, such as %s: --wrap-filter captures them", len(sockets), sockets[0])
}

// snaplenBytes is the effective snaplen.
func (p *capturePlan) snaplenBytes() int {
	if p.snaplen == 0 {
		return bpf.MaxSnaplen
	}
	return p.snaplen
}
