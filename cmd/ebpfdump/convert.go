package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
	"github.com/ebpfdump/ebpfdump/internal/decoding"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// convertFlags are the flags of convert as given.
type convertFlags struct {
	inputs          []string
	output          once
	from, to        string
	sock, src, dst  string
	bootTime, views string
	interfaces      []string
	strict, quiet   bool
	decodeAs        string
}

// convertPlan is the interpretation of the flags.
type convertPlan struct {
	inputs    []string
	output    string
	from, to  *convert.Format // from is nil to detect it
	read      convert.ReadOptions
	selection convert.Selection
	quiet     bool
}

func (a *app) convertCommand() *cobra.Command {
	var f convertFlags
	list := func(writable bool) string {
		var b strings.Builder
		for _, form := range convert.Formats(writable) {
			summary := terminal.Wrap(form.Summary, 69, 69)
			fmt.Fprintf(&b, "\n  %-8s %s", form.Name, strings.Join(summary, "\n"+strings.Repeat(" ", 11)))
		}
		return b.String()
	}
	cmd := &cobra.Command{
		Use:   "convert IN... -o OUT",
		Short: "Convert between text dumps, pcapng, pcap and JSON",
		Long: `Reads captures and the text that filters and servers print, and writes them in
another form. The form of IN is found from its content, that of OUT from its
name. - is stdin or stdout.

Forms that are read:` + list(false) + `

Forms that are written:` + list(true) + `

pcapng tells IPv4 and IPv6 apart by link types of their own (228, 229), which
tcpdump and Wireshark read. In pcap both are RAW (101), which all that is made
with libpcap reads, such as ngrep and tcpflow.

The packets of a text in hexadecimal are those that a socket would have from its
offset 0 on: of which kind, is found from the bytes (a frame, a packet of IP, a
TCP or UDP header) or said with --sock. A time of day counts from the epoch's
day, a date is in this machine's time zone, and without either the packets only
have an order. What stands behind or between the bytes is passed over.

A server text is paired with the trace text of the same traffic if both are
given: both views of a packet then have the same id. Doubtful lines of a text
are skipped and counted; a capture that ends in the middle of a block is read up
to there.

From pcapng to pcapng, what other programs wrote is kept: comments, decryption
secrets, names, custom blocks, all that a file says of its interfaces, and their
clocks. What is left out of any output is counted in the closing lines.
--decode-as changes what Wireshark takes the bytes of unix streams for.`,
		Example: `  ebpfdump convert tcp-kernelspace.txt tcp-userspace.txt -o tcp.pcapng
  ebpfdump convert tcp.pcapng --view kernel -o tcp.pcap
  tcpdump -n -x -r x.pcap | ebpfdump convert - -o x.pcapng
  ebpfdump convert tcp.pcapng -o - --to json | jq .data`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("an input is missing: see %s --help", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			f.inputs = args
			return a.convert(f)
		},
	}
	f.register(cmd.Flags())
	return cmd
}

func (f *convertFlags) register(flags *pflag.FlagSet) {
	flags.SortFlags = false
	flags.VarP(&f.output, "output", "o", "write to `FILE`, or to stdout if it is -")
	flags.VarP(&f.output, "write", "w", "`FILE`, the same as --output")
	flags.StringVar(&f.from, "from", "", "`FORM` of the inputs: "+formNames(false))
	flags.StringVar(&f.to, "to", "", "`FORM` of the output: "+formNames(true))
	flags.StringVar(&f.sock, "sock", "", "`KIND` of socket that a text is about, if its bytes do not tell")
	flags.StringVar(&f.src, "src", "", "source `ADDR` or ADDR:PORT of a text's packets without IP header (default loopback)")
	flags.StringVar(&f.dst, "dst", "", "destination `ADDR` or ADDR:PORT, likewise")
	flags.StringVar(&f.bootTime, "boot-time", "", "`TIME` that a trace's times count from: 2026-11-05T12:00:00Z, or seconds since the epoch (default 0)")
	flags.StringVar(&f.views, "view", "", "`LIST` of views to take: "+capture.ViewNames()+" (default all that the output has room for)")
	flags.StringSliceVar(&f.interfaces, "interface", nil, "take only the interfaces of pcapng with these `NAMES`, or numbers as tshark counts them (frame.interface_id)")
	flags.StringVar(&f.decodeAs, "decode-as", "", "what went through unix streams is the protocol that Wireshark calls `NAME`, such as http or dbus")
	flags.BoolVar(&f.strict, "strict", false, "stop at the first doubtful line, and fail if a capture is cut off")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print no progress and no closing lines")
}

func formNames(writable bool) string {
	var names []string
	for _, form := range convert.Formats(writable) {
		names = append(names, form.Name)
	}
	return strings.Join(names, ", ")
}

// plan checks the flags. Every error is a usage error.
func (f convertFlags) plan(stdoutTerminal bool) (p convertPlan, err error) {
	p = convertPlan{inputs: f.inputs, output: f.output.text, quiet: f.quiet}
	p.read.Strict, p.read.DecodeAs = f.strict, f.decodeAs
	if f.decodeAs != "" {
		if err := decoding.Check(f.decodeAs); err != nil {
			return p, usagef("--decode-as: %w", err)
		}
	}
	if f.output.text == "" {
		return p, usagef("where to? Give -o FILE, or -o - for stdout")
	}
	if p.from, p.to, err = f.forms(); err != nil {
		return p, err
	}
	if f.output.text == "-" && stdoutTerminal && !p.to.Text {
		return p, usagef("%s is no text for a terminal: give a file (-o FILE), pipe it on, or choose --to json", p.to.Name)
	}
	if f.sock != "" {
		kind, ok := capture.KindByName(f.sock)
		if !ok {
			return p, usagef("there is no kind of socket %q: choose one of %s", f.sock, kindNames())
		}
		p.read.Kind = kind
	}
	ipv6 := p.read.Kind != nil && p.read.Kind.IPv6()
	if p.read.Src, err = parseEndpoint("--src", f.src, ipv6); err != nil {
		return p, err
	}
	if p.read.Dst, err = parseEndpoint("--dst", f.dst, ipv6); err != nil {
		return p, err
	}
	if p.read.BootTime, err = parseBootTime(f.bootTime); err != nil {
		return p, err
	}
	p.selection, err = f.selection(p.to)
	return p, err
}

// forms finds the formats from --from, --to and the output's name.
func (f convertFlags) forms() (from, to *convert.Format, err error) {
	var ok bool
	if f.from != "" {
		if from, ok = convert.FormatByName(f.from); !ok || !from.Readable() {
			return nil, nil, usagef("--from %s: choose one of %s", f.from, formNames(false))
		}
	}
	switch {
	case f.to != "":
		if to, ok = convert.FormatByName(f.to); !ok || !to.Writable() {
			return nil, nil, usagef("--to %s: choose one of %s", f.to, formNames(true))
		}
	case f.output.text == "-":
		to, _ = convert.FormatByName("pcapng")
	default:
		if to, ok = convert.FormatByFileName(f.output.text); !ok {
			return nil, nil, usagef("the name %s does not tell the form: give --to %s", f.output.text, formNames(true))
		}
	}
	return from, to, nil
}

func (f convertFlags) selection(to *convert.Format) (convert.Selection, error) {
	s := convert.Selection{Format: to, Interfaces: f.interfaces}
	if f.views == "" {
		return s, nil
	}
	for name := range strings.SplitSeq(f.views, ",") {
		view, ok := capture.ViewByName(strings.TrimSpace(name))
		if !ok {
			return s, usagef("there is no view %q: choose some of %s; an interface that is none is chosen with --interface", name, capture.ViewNames())
		}
		s.Views = append(s.Views, view)
	}
	if to.OneView && len(s.Views) > 1 {
		return s, usagef("--view %s: %s has room for one view", f.views, to.Name)
	}
	return s, nil
}

// parseEndpoint parses an address with an optional port.
func parseEndpoint(flag, s string, ipv6 bool) (netip.AddrPort, error) {
	if s == "" {
		return netip.AddrPort{}, nil
	}
	endpoint, err := netip.ParseAddrPort(s)
	if err != nil {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return netip.AddrPort{}, usagef("%s %q is not ADDR or ADDR:PORT, such as 10.0.0.1:80", flag, s)
		}
		endpoint = netip.AddrPortFrom(addr, 0)
	}
	if endpoint.Addr().Is6() && !ipv6 {
		return netip.AddrPort{}, usagef("%s %s: for IPv6 give --sock tcp6, udp6 or raw6", flag, s)
	}
	if endpoint.Addr().Is4() && ipv6 {
		return netip.AddrPort{}, usagef("%s %s: the kind of socket has IPv6 addresses", flag, s)
	}
	return endpoint, nil
}

// parseBootTime parses a time, or seconds since the epoch with up to nine decimals.
func parseBootTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		whole, fraction, _ := strings.Cut(s, ".")
		seconds, err := strconv.ParseUint(whole, 10, 32)
		nanoseconds, ferr := strconv.ParseUint((fraction + "000000000")[:max(9, len(fraction))], 10, 32)
		if err != nil || ferr != nil || nanoseconds >= 1e9 {
			return t, usagef("--boot-time %q is no time: give it as 2026-11-05T12:00:00Z, or as seconds since the epoch", s)
		}
		t = time.Unix(int64(seconds), int64(nanoseconds))
	}
	if t.Unix() < 0 || t.Unix() > math.MaxUint32 {
		return t, usagef("--boot-time %s: it must be from 1970 to 2106", s)
	}
	return t, nil
}

// convert runs the command.
func (a *app) convert(f convertFlags) (err error) {
	p, err := f.plan(a.stdoutTerminal)
	if err != nil {
		return err
	}
	ctx, cancel := untilSignal(context.Background())
	defer cancel()

	c := &conversion{app: a, plan: p, out: convertOutput{app: a, selection: p.selection, format: p.to}}
	defer c.close()
	a.files.Reads(p.inputs...)
	if err := a.files.Check(p.output); err != nil {
		return err
	}
	if err := c.openInputs(); err != nil {
		return err
	}
	if err := c.out.open(ctx, p.output); err != nil {
		return err
	}
	if err := confineToFiles(c.out.target); err != nil {
		return firstError(c.out.finish(err), err)
	}
	stopReporting := c.report()
	done := make(chan error, 1)
	go func() { done <- c.run() }()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = c.interrupted()
	}
	stopReporting()
	// The failed write is the better error than the interruption that it caused.
	err = firstError(c.out.finish(err), err)
	if !isUnread(err) {
		c.closingLines()
	}
	return err
}

// run converts until the inputs end.
func (c *conversion) run() error {
	c.consider()
	for _, in := range c.inputs {
		options := c.optionsOf(in)
		options.Doubt = in.doubt
		source, err := convert.Open(in, c.plan.from, options)
		if err != nil {
			return withHint(err)
		}
		c.sources = append(c.sources, source)
		c.out.selection.Sources = append(c.out.selection.Sources, source)
	}
	items, err := convert.Merge(c.sources...)
	if err != nil {
		return usageError{err}
	}
	c.out.describe = c.describe
	for {
		item, err := items.NextItem()
		if errors.Is(err, io.EOF) {
			if as := c.plan.read.DecodeAs; as != "" && !slices.ContainsFunc(c.sources, (*convert.Source).Decodes) {
				c.inputs[0].show(fmt.Sprintf("ebpfdump: --decode-as %s changed nothing: no capture that was read has the view user or sent of a unix stream", as))
			}
			return c.out.end()
		}
		if err != nil {
			return withHint(err)
		}
		if err := c.out.WriteItem(item); err != nil {
			return err
		}
	}
}

func (c *conversion) optionsOf(in *convertInput) convert.ReadOptions {
	options := c.plan.read
	options.Name, options.CutOff = in.name, true
	return options
}

// consider finds the view for an output that has room for one. What comes through a pipe cannot be
// read twice.
func (c *conversion) consider() {
	if !c.out.selection.Considers() || slices.ContainsFunc(c.inputs, func(in *convertInput) bool { return in.size == 0 }) {
		return
	}
	for _, in := range c.inputs {
		if at, err := in.file.Seek(0, io.SeekCurrent); err == nil {
			c.out.selection.Consider(io.NewSectionReader(in.file, at, in.size-at), c.plan.from, c.optionsOf(in))
		}
	}
}

func withHint(err error) error {
	if errors.Is(err, convert.ErrUnknownKind) {
		return fmt.Errorf("%w: give --sock %s", err, kindNames())
	}
	return err
}

// describe makes the section header. It does not name a machine: a text does not tell
// which one recorded it, and a capture has a header of its own.
func (c *conversion) describe() convert.WriteOptions {
	ours := section(c.app.commandLine())
	ours.Hardware, ours.OS = "", ""
	return convert.WriteOptions{Section: ours, From: c.sources}
}

// interrupted ends a conversion at a signal. That is how to end one that reads from a
// pipe, but with a file the rest is missing.
func (c *conversion) interrupted() error {
	c.out.stop()
	for _, in := range c.inputs {
		if in.size > 0 {
			return errors.New("interrupted before the end of the input")
		}
	}
	return nil
}

// stdin names the standard input on the command line.
const stdin = "-"

// openInputs opens all inputs.
func (c *conversion) openInputs() (err error) {
	stdins := 0
	for _, name := range c.plan.inputs {
		in := &convertInput{name: name, app: c.app}
		if name == stdin {
			in.name, in.file = "stdin", os.Stdin
			stdins++
		} else if in.file, err = os.Open(name); err != nil {
			return fmt.Errorf("opening the input: %w", err)
		}
		c.inputs = append(c.inputs, in)
		info, err := in.file.Stat()
		if err != nil {
			return fmt.Errorf("opening the input: %w", err)
		}
		if info.Mode().IsRegular() {
			in.size = info.Size()
		}
	}
	if stdins > 1 {
		return usagef("- stands for stdin, which can be read only once")
	}
	return nil
}
