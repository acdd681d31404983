package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
	"github.com/ebpfdump/ebpfdump/internal/capability"
	"github.com/ebpfdump/ebpfdump/internal/confine"
	"github.com/ebpfdump/ebpfdump/internal/privilege"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// captureFlags are the flags of capture as given.
type captureFlags struct {
	sock, listen, proto, views string
	duration, buffer           string
	output                     once
	snaplen                    int
	packets                    uint64
	echo, probe, isolate       bool
	quiet, verbose             bool
	immediate, failOnDrop      bool
	hex, print, json           bool
	choices                    bool // only to be listed
	filter                     filterFlags
	series                     seriesFlags
	tlsKeys                    string
	reuseport                  reuseportFlags
	decode                     decodeFlags
	live                       liveFlags
	groups                     []string // multicast, --join
	words                      []string // the expression
}

// capturePlan is the interpretation of the flags.
type capturePlan struct {
	captureFlags
	config    capture.Config
	series    seriesPlan
	keys      *tlsKeys        // nil without --tls-keys
	processes *processes      // nil without --process-info
	form      *convert.Format // of the output, if that has a name
	duration  time.Duration
}

func (a *app) captureCommand() *cobra.Command {
	var f captureFlags
	var kinds strings.Builder
	for _, k := range capture.Kinds() {
		fmt.Fprintf(&kinds, "\n  %-14s %s", k.Name, k.Summary)
	}
	cmd := &cobra.Command{
		Use:   "capture --sock KIND | --pid PID [flags] [EXPRESSION] [-- COMMAND]",
		Short: "Record a socket's views",
		Long: `Opens a socket, and records each packet as the socket's filter sees it (view
kernel) and as recvmsg returns it (view user). Both carry the same packet id.

Kinds of socket:` + kinds.String() + `
` + liveHelp + `
` + expressionHelp + `

A filter of your own decides with --filter, --filter-cbpf or --verdict what the
socket keeps; the kernel view shows what it saw, and says in a comment what it
cut off or dropped. Offset 0 is that of the socket: the IPv4 header for raw, the
TCP or UDP header for tcp and udp, where a filter that tcpdump made for packets
with a link or IP header looks in the wrong place. Of TCP and UDP the kernel
keeps at least the header.

What never came, --view drop has: the packets of internet sockets that the
kernel freed without having used them, with its reason (Linux 5.17).

With --reuseport N there are N sockets at one address, one of which gets each
packet. --reuseport-filter names the program that chooses it, whose maps get the
sockets; the view select shows what it saw and what it chose.

Without -o it prints one line a packet, with its id (#4), by which comments name
it, or with --json an object. Otherwise it writes pcapng, or what the file's
name stands for: .json, or .pcap and .txt with room for one view. Stops
at SIGINT, SIGTERM, SIGHUP or SIGQUIT; SIGUSR1 prints the counts.

` + privilegeHelp("capture"),
		Example: `  ebpfdump capture --sock tcp --probe -o tcp.pcapng
  ebpfdump capture --sock udp -l :5353 --join 224.0.0.251@eth0
  ebpfdump capture --sock udp --reuseport 4 --reuseport-filter pick.o
  ebpfdump capture --sock raw --proto icmp -o - | tshark -r -
  ebpfdump capture -D --pid nginx
` + liveExample,
		Args: f.arguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.reuseport.given = cmd.Flags().Changed("reuseport")
			capture := a.capture
			switch {
			case f.choices:
				return a.captureChoices(cmd, f)
			case f.live.wanted(cmd):
				capture = func(f captureFlags) error { return a.captureLive(cmd, f) }
			}
			return a.refusal(f.use().Advise(capture(f)), f.verbose)
		},
	}
	f.register(cmd.Flags())
	completeSelection(cmd, &f.live)
	register(cmd, "listen", f.completeListen)
	return cmd
}

func (f *captureFlags) register(flags *pflag.FlagSet) {
	flags.SortFlags = false
	flags.StringVar(&f.sock, "sock", "", "`KIND` of socket to open")
	flags.BoolVarP(&f.choices, "list-interfaces", "D", false, "capture nothing, and list the kinds of socket or, with --pid or --cgroup, the sockets that there are")
	f.live.register(flags)
	flags.StringVarP(&f.listen, "listen", "l", "", "`ADDR:PORT` to bind the socket to (default the loopback address and port 16962);\nof tcp6, udp6 and udplite6 IPv6 alone, also on [::]; an interface, a path or @NAME, netlink groups, a vsock port for kinds without")
	flags.StringSliceVar(&f.groups, "join", nil, "with udp and udp6: join the multicast `GROUP`, or GROUP@INTERFACE; with -l :PORT or without,\nthe socket is bound to the group, and its port may be shared")
	flags.StringVar(&f.proto, "proto", "", "IP protocol of raw sockets: tcp (the default), udp, icmp (with raw6 icmp or icmp6, which is 58) or a `NUMBER`")
	flags.VarP(&f.output, "output", "o", "write to `FILE`, or pcapng to stdout if it is -")
	flags.VarP(&f.output, "write", "w", "`FILE`, the same as --output")
	flags.StringVar(&f.views, "view", "", "`LIST` of views: "+capture.ViewNames()+", or all (default kernel,user, and select with --reuseport-filter)")
	f.filter.add(flags)
	f.reuseport.add(flags)
	flags.BoolVar(&f.echo, "echo", false, "send back what was received")
	flags.BoolVar(&f.probe, "probe", false, "send the reference traffic, and end when it has been seen")
	flags.BoolVar(&f.isolate, "isolate", false, "do all this in a new network namespace, with nothing but a probe in it")
	flags.Uint64VarP(&f.packets, "count", "c", 0, "end after `N` packets of the kernel view")
	flags.StringVar(&f.duration, "duration", "", "end after a `TIME` such as 90s or 5m; a bare number is seconds")
	flags.IntVarP(&f.snaplen, "snaplen", "s", 0, "keep `N` bytes of each packet (default and 0: 262144)")
	flags.StringVarP(&f.buffer, "buffer-size", "B", "32M", "`SIZE` of the ring buffer; a bare number is KiB")
	f.series.register(flags)
	flags.StringVar(&f.tlsKeys, "tls-keys", "", "put the TLS keys of the command into the file, so that Wireshark decrypts it,\nor with --tls-keys=`FILE` those that a key log has")
	flags.Lookup("tls-keys").NoOptDefVal = commandKeys
	f.decode.register(flags)
	flags.BoolVar(&f.immediate, "immediate-mode", false, "hand on each packet within milliseconds; always so on a terminal and a pipe")
	flags.BoolVar(&f.failOnDrop, "fail-on-drop", false, "exit with status 3 if the tap lost packets")
	flags.BoolVarP(&f.hex, "hex", "x", false, "without -o or with --print, print each packet's bytes as well")
	flags.BoolVar(&f.print, "print", false, "beside -o FILE, print a line for each packet as well")
	flags.BoolVar(&f.json, "json", false, "without -o or with --print, print a JSON object for each packet, as in a .json file")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print no counter and no closing lines")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "print more about the capture itself, and closing lines of all views also if nothing was lost")
}

// plan checks the flags. Every error is a usage error, except for missing files and
// permissions.
func (f captureFlags) plan() (p capturePlan, err error) {
	p.captureFlags = f
	if f.sock == "" {
		return p, usagef("which kind of socket? Give --sock %s; or --pid PID, or --cgroup PATH, or -- COMMAND", kindNames())
	}
	kind, ok := capture.KindByName(f.sock)
	if !ok {
		return p, usagef("there is no kind of socket %q: choose one of %s", f.sock, kindNames())
	}
	p.config = capture.Config{Kind: kind, Echo: f.echo}
	if kind.Address() != "" {
		p.config.Address = f.listen
	} else if p.config.Listen, err = parseListen(f.listen, kind); err != nil {
		return p, err
	}
	if err := f.multicast(&p); err != nil {
		return p, err
	}
	if p.config.Protocol, err = parseProtocol(f.proto, kind); err != nil {
		return p, err
	}
	if f.echo && !kind.CanEcho() {
		return p, usagef("--echo needs a tcp or udp socket: a %s holds no conversation", kind.Summary)
	}
	if f.isolate && !f.probe {
		return p, usagef("--isolate needs --probe: nobody else can reach a socket in a namespace of its own")
	}
	if err := f.common(&p); err != nil {
		return p, err
	}
	if slices.Contains(p.config.Views, capture.ViewSent) && !f.echo && !f.probe {
		return p, usagef("a socket of its own sends nothing without --echo, so that the view sent would stay empty")
	}
	if slices.Contains(p.config.Views, capture.ViewCgroup) && !kind.HasCgroupHooks() {
		return p, usagef("the kernel runs no cgroup hook for a %s, so that the view cgroup would stay empty", kind.Summary)
	}
	if slices.Contains(p.config.Views, capture.ViewDrop) && !kind.HasCgroupHooks() {
		return p, usagef("what the kernel drops is recorded of internet sockets, so that the view drop of a %s would stay empty", kind.Summary)
	}
	if slices.Contains(p.config.Views, capture.ViewWire) && !kind.HasCgroupHooks() {
		return p, usagef("a %s has no address by which its packets are found on an interface, so that the view wire would stay empty", kind.Summary)
	}
	if p.config.Verdict, err = f.filter.read(); err != nil {
		return p, err
	}
	return p, f.group(&p)
}

// group checks the flags of a reuseport group.
func (f captureFlags) group(p *capturePlan) (err error) {
	kind := p.config.Kind
	switch n := f.reuseport.sockets; {
	case n < 0 || n == 0 && f.reuseport.given || n > capture.MaxReuseport:
		return usagef("--reuseport %d: a group has from 1 to %d sockets", n, capture.MaxReuseport)
	case n > 0 && !kind.CanReuseport():
		return usagef("--reuseport is for udp and udp6: of a %s it cannot be told which socket gets a packet", kind.Summary)
	}
	p.config.Reuseport = f.reuseport.sockets
	if p.config.Selection, err = f.reuseport.read(); err != nil {
		return err
	}
	wanted := slices.Contains(p.config.Views, capture.ViewSelect)
	switch {
	case wanted && p.config.Selection == nil:
		return usagef("the view select is what a program sees that chooses a socket: name one with --reuseport N --reuseport-filter FILE.o")
	case wanted && p.config.Expression != nil && p.config.Selection.Filters():
		return usagef("a socket filter that chooses sees no ports, by which a capture filter (%s) may choose: leave that or the view select out", terminal.Plain(p.config.Expression.String()))
	case f.views == "" && p.config.Selection != nil && !p.form.OneView && (p.config.Expression == nil || !p.config.Selection.Filters()):
		p.config.Views = append(p.config.Views, capture.ViewSelect)
	}
	return nil
}

// common checks the flags of all ways to capture.
func (f captureFlags) common(p *capturePlan) (err error) {
	if p.config.Expression, err = f.parseExpression(); err != nil {
		return err
	}
	if p.series, err = f.series.plan(f.output.text, &f); err != nil {
		return err
	}
	p.captureFlags = f
	p.config.Packets, p.config.Snaplen = f.packets, f.snaplen
	p.form = formOf(f.output.text)
	if p.config.Views, err = f.chosenViews(p.form); err != nil {
		return err
	}
	if f.print && (f.output.text == "" || f.output.text == "-") {
		return usagef("--print prints lines beside a file: give -o FILE, or leave both out for lines alone")
	}
	if f.tlsKeys != "" && (f.output.text == "" || p.form.Name != convert.Pcapng().Name) {
		return usagef("--tls-keys puts keys into a pcapng file: give -o FILE.pcapng")
	}
	if f.tlsKeys != "" && !showsBoth(p.config.Views) {
		return usagef("--tls-keys with --view %s: who decrypts needs both directions: choose cgroup, wire, or user and sent", f.views)
	}
	if f.tlsKeys == commandKeys && len(f.live.command) == 0 {
		return usagef("--tls-keys is for a command, behind --: otherwise give a key log that there is, --tls-keys=FILE")
	}
	if f.hex && f.output.text != "" && !f.print {
		return usagef("-x prints packets on stdout: leave -o out, or read the file with tshark -x")
	}
	if err := f.checkJSON(); err != nil {
		return err
	}
	if f.snaplen < 0 || f.snaplen > bpf.MaxSnaplen {
		return usagef("-s %d: the snaplen must be from 1 to %d bytes, or 0 for all", f.snaplen, bpf.MaxSnaplen)
	}
	if p.config.RingSize, err = parseSize(f.buffer); err != nil {
		return usagef("-B: %w", err)
	}
	if p.config.RingSize < bpf.MinRingSize || p.config.RingSize > bpf.MaxRingSize {
		return usagef("-B %s: the ring must have from 1M to 1G", f.buffer)
	}
	if p.duration, err = parseDuration(f.duration); err != nil {
		return err
	}
	p.config.DecodeAs = f.decode.as
	return f.decode.check(&p.config.Options, f.sock, f.output.text, p.form)
}

// formOf is the form that a file's name stands for, and pcapng if it stands for none.
func formOf(name string) *convert.Format {
	if form, ok := convert.FormatByFileName(name); ok && form.Writable() {
		return form
	}
	return convert.Pcapng()
}

// chosenViews are the views that the user wants, and for which the output has room.
func (f captureFlags) chosenViews(form *convert.Format) ([]capture.View, error) {
	switch {
	case f.views == "" && form.OneView:
		return []capture.View{capture.ViewKernel}, nil
	case f.views == "" && f.tlsKeys != "":
		// Who decrypts needs both directions.
		return []capture.View{capture.ViewUser, capture.ViewCgroup}, nil
	case f.views == "":
		return []capture.View{capture.ViewKernel, capture.ViewUser}, nil
	}
	if f.views == allViews && form.OneView {
		return nil, usagef("--view all: %s has room for one view: choose one, or write pcapng", form.Name)
	}
	if f.views == allViews {
		return f.everyView(), nil
	}
	views, err := parseViews(f.views)
	if err == nil && form.OneView && len(views) > 1 {
		return nil, usagef("--view %s: %s has room for one view: choose one, or write pcapng", f.views, form.Name)
	}
	return views, err
}

// allViews stands for every view that there is.
const allViews = "all"

// everyView are the views that a capture can have with these flags, on this kernel.
func (f captureFlags) everyView() []capture.View {
	kind, own := capture.KindByName(f.sock)
	return slices.DeleteFunc(capture.Views(), func(v capture.View) bool {
		switch v {
		case capture.ViewSelect:
			return f.reuseport.object == "" && f.reuseport.classic == ""
		case capture.ViewSent:
			return own && !f.echo && !(f.probe && kind.SendsProbe())
		}
		return own && !kind.Shows(v)
	})
}

// missingViews says which views are not among all of them, since nothing could be there; empty if there is nothing to
// say, as where the user has named the views.
func (f captureFlags) missingViews() string {
	if f.views != allViews {
		return ""
	}
	var said []string
	kind, own := capture.KindByName(f.sock)
	if own {
		if views := viewsWithout(kind); len(views) > 0 {
			said = append(said, fmt.Sprintf("%s, which have nothing of a %s socket", enumerated(views), kind.Name))
		}
	}
	if !slices.Contains(capture.Views(), capture.ViewDrop) && (!own || kind.Shows(capture.ViewDrop)) {
		said = append(said, capture.ViewDrop.String()+", since this kernel does not say why it frees a packet (Linux 5.17 and newer do)")
	}
	if len(said) == 0 {
		return ""
	}
	return "--view all leaves out " + strings.Join(said, ", and ")
}

// viewsWithout are the names of the views in which no packet of a socket can be.
func viewsWithout(kind *capture.Kind) (names []string) {
	for name := range strings.SplitSeq(capture.ViewNames(), ", ") {
		if v, ok := capture.ViewByName(name); ok && !kind.Shows(v) {
			names = append(names, name)
		}
	}
	return names
}

func kindNames() string {
	var names []string
	for _, k := range capture.Kinds() {
		names = append(names, k.Name)
	}
	return strings.Join(names, ", ")
}

func parseListen(s string, kind *capture.Kind) (netip.AddrPort, error) {
	if s == "" {
		return kind.Loopback(), nil
	}
	given := s
	anywhere, family := "0.0.0.0", ""
	if kind.IPv6() {
		anywhere, family = "[::]", "IPv6 "
	}
	if strings.HasPrefix(s, ":") { // all addresses, as in Go
		s = anywhere + s
	}
	addr, err := netip.ParseAddrPort(s)
	if ip, iperr := netip.ParseAddr(s); iperr == nil {
		addr, err = netip.AddrPortFrom(ip, kind.Loopback().Port()), nil
	}
	if err != nil {
		return addr, usagef("--listen %q is not ADDR:PORT, such as %s, or :PORT for all %saddresses", given, kind.Loopback(), family)
	}
	if addr.Addr().Is4() == kind.IPv6() {
		return addr, usagef("--listen %s does not fit a %s socket: give an address such as %s", s, kind.Name, kind.Loopback())
	}
	return addr, nil
}

func parseProtocol(s string, kind *capture.Kind) (int, error) {
	if !kind.TakesProtocol() {
		if s != "" {
			return 0, usagef("--proto is for raw sockets: a %s socket has its own protocol", kind.Name)
		}
		return 0, nil
	}
	switch strings.ToLower(s) {
	case "", "tcp":
		return unix.IPPROTO_TCP, nil
	case "udp":
		return unix.IPPROTO_UDP, nil
	case "icmp":
		if kind.IPv6() {
			return unix.IPPROTO_ICMPV6, nil
		}
		return unix.IPPROTO_ICMP, nil
	case "icmp6", "icmpv6", "ipv6-icmp":
		if kind.IPv6() {
			return unix.IPPROTO_ICMPV6, nil
		}
		return 0, usagef("--proto %s is for --sock raw6: of IPv4 it is icmp", s)
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 254 {
		icmp := "icmp"
		if kind.IPv6() {
			icmp = "icmp6"
		}
		return 0, usagef("--proto %q: give tcp, udp, %s or a number from 1 to 254", s, icmp)
	}
	return n, nil
}

func parseViews(list string) ([]capture.View, error) {
	var views []capture.View
	seen := make(map[capture.View]bool)
	for name := range strings.SplitSeq(list, ",") {
		v, ok := capture.ViewByName(strings.TrimSpace(name))
		if !ok {
			return nil, usagef("there is no view %q: choose some of %s", name, capture.ViewNames())
		}
		if !seen[v] {
			views = append(views, v)
		}
		seen[v] = true
	}
	return views, nil
}

func parseDuration(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if seconds, serr := strconv.ParseFloat(s, 64); serr == nil {
		d, err = time.Duration(seconds*float64(time.Second)), nil
	}
	if err != nil || d <= 0 {
		return 0, usagef("--duration %q is not a time, such as 90s or 5m", s)
	}
	return d, nil
}

// wants tells whether --view has a view.
func (f captureFlags) wants(v capture.View) bool {
	views, _ := parseViews(f.views)
	if f.views == allViews {
		views = f.everyView()
	}
	return slices.Contains(views, v)
}

// use describes what the flags ask for, to find the privileges that it needs.
func (f captureFlags) use() privilege.Use {
	address := f.listen
	if strings.HasPrefix(address, ":") {
		address = "0.0.0.0" + address
	}
	listen, err := netip.ParseAddrPort(address)
	account, _ := runAs(f.live.user)
	return privilege.Use{
		Command: "capture", Kind: f.sock, Probe: f.probe, Isolate: f.isolate,
		LowPort: err == nil && listen.Port() > 0 && listen.Port() < 1024,
		Hooks:   f.sock != "" && f.wants(capture.ViewCgroup), Wire: f.wants(capture.ViewWire), Drops: f.sock != "" && f.wants(capture.ViewDrop),
		Selects: f.reuseport.object != "" || f.reuseport.classic != "",
		Join:    len(f.live.pids) > 0 || f.live.cgroup != "", Run: len(f.live.command) > 0, WrapFilter: f.live.wrapFilter, ReplaceFilter: f.live.replaceFilter, OtherUser: account != nil,
	}
}

// capture captures from a socket of our own.
func (a *app) capture(f captureFlags) (err error) {
	p, err := f.plan()
	if err != nil {
		return err
	}
	if p.keys, err = f.openTLSKeys(); err != nil {
		return err
	}
	if f.isolate {
		p.config.Namespace, err = capture.NewNamespace()
		if missing := (*bpf.MissingError)(nil); errors.As(err, &missing) {
			missing.Otherwise = "leave --isolate out"
			rest := f.use()
			rest.Isolate = false
			if lacking := rest.Lacking(capability.CurrentPrivilege()); len(lacking) > 0 {
				missing.Otherwise += ", which takes " + enumerated(lacking)
			}
		}
		if err != nil {
			return err
		}
		defer p.config.Namespace.Close()
	}
	return a.record(p, func(report *reporter, immediate bool) (source, error) {
		p.config.Notice, p.config.Immediate = report.notice, immediate
		session, err := capture.Open(p.config)
		if err == nil && f.probe {
			if err = session.MayProbe(); err != nil {
				err = errors.Join(err, session.Close())
			}
		}
		if err != nil {
			return source{}, withFlags(err)
		}
		for _, text := range []string{notJoined(&p.config), f.missingViews()} {
			if text != "" {
				report.notice(text)
			}
		}
		run := func(ctx context.Context, sink capture.Sink) error {
			return runWithProbe(ctx, session, sink, f.probe)
		}
		return source{
			Capture: session, on: p.config.Kind.Name + " " + session.Address() + familyNote(p.config.Kind, session), run: run,
			sockets: joined(p.config.Groups), capabilities: session.Capabilities(f.probe), oneLink: isSocketsOwn(p.config.Views),
		}, nil
	})
}

// familyNote says of a socket that listens on all IPv6 addresses what that leaves out, as other servers would not.
func familyNote(kind *capture.Kind, session *capture.Session) string {
	if kind.IPv6() && !kind.TakesProtocol() && session.Addr().Addr().IsUnspecified() {
		return " (IPv6 only)"
	}
	return ""
}

// source is a session, with what differs between the ways to capture.
type source struct {
	capture.Capture
	on      string   // what it listens on, for the message
	sockets []string // sockets of other processes with the tap; multicast groups of an own one
	run     func(context.Context, capture.Sink) error
	// capabilities are the ones that it still needs.
	capabilities []int
	// signal passes on the first signal; nil if that signal ends the capture.
	signal func(os.Signal)
	// command: it starts a command, which may fail, and calls the function that whenStarted is given
	// once it runs.
	command     bool
	whenStarted func(func())
	// oneLink: all that it captures fits into one pcap file, whatever comes.
	oneLink bool
}

// isSocketsOwn tells whether a view is of what the socket's kind says, not of interfaces that are
// still to be found.
func isSocketsOwn(views []capture.View) bool {
	return len(views) == 1 && (views[0] == capture.ViewKernel || views[0] == capture.ViewUser)
}

// record runs a capture up to the closing lines. It calls open only after the output is
// known to be usable.
func (a *app) record(p capturePlan, open func(report *reporter, immediate bool) (source, error)) (err error) {
	collect := postponeCollection()
	defer collect()
	ctx, cancel := untilSignal(context.Background())
	defer cancel()
	defer p.keys.close()
	out, err := a.openCapture(ctx, p)
	if err != nil {
		return err
	}
	defer func() { err = firstError(err, out.End(err)) }()
	report := &reporter{app: a, plan: p}
	from, err := open(report, p.immediate || out.live)
	if err != nil {
		return err
	}
	defer from.Close()
	if err := out.begin(from); err != nil {
		return err
	}
	if from.signal != nil && ctx.Err() == nil {
		cancel()
		ctx, cancel = untilSecondSignal(context.Background(), from.signal)
		defer cancel()
	}
	if a.quiet && from.signal != nil {
		// Wireshark closes its end first, and the command was started for it alone.
		out.unread = func() { from.signal(unix.SIGTERM) }
	}
	if err := confine.Keep(append(out.capabilities(), from.capabilities...)...); err != nil {
		return err
	}
	report.begin(from)
	collect()
	if p.duration > 0 {
		ctx, cancel = context.WithTimeout(ctx, p.duration)
		defer cancel()
	}
	stopWatching := report.watch(ctx)
	err = out.whileRead(ctx, func(ctx context.Context) error { return from.run(ctx, out) })
	stopWatching()
	return report.end(out, err)
}

// postponeCollection disables garbage collection while a capture starts: half a dozen
// collections of 3 MB would take a tenth of that time. The returned function enables it
// again, and can be called twice.
func postponeCollection() (collect func()) {
	percent := debug.SetGCPercent(-1)
	return func() { debug.SetGCPercent(percent) }
}

// runWithProbe runs the session until the context ends or, with a probe, until the probe
// has been seen.
func runWithProbe(ctx context.Context, session *capture.Session, sink capture.Sink, probe bool) error {
	if !probe {
		return session.Run(ctx, sink)
	}
	ctx, cancel := context.WithCancel(ctx)
	probed := make(chan error, 1)
	go func() {
		defer cancel()
		probed <- session.Probe(ctx)
	}()
	err := session.Run(ctx, sink)
	cancel()
	if perr := <-probed; err == nil {
		err = withFlags(perr)
	}
	return err
}
