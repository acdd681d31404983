package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
	"github.com/ebpfdump/ebpfdump/internal/explain"
	"github.com/ebpfdump/ebpfdump/internal/outfile"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// explainFlags are the flags of explain as given.
type explainFlags struct {
	packets int
	summary bool
	// How many connections are shown.
	connections int
	json        bool
	html        string
	colour      string
	// Which packets are shown.
	ids   []string
	peers []string
	views string
	lost  bool
	// interfaces are those that are read, by name or number.
	interfaces []string
}

// pagePackets is how many packets a page has: so many lines, and bytes of a part of them, are less than 2 MB.
const pagePackets = 10_000

func (a *app) explainCommand() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain FILE",
		Short: "Read a capture aloud, layer by layer",
		Long: `Reads a pcapng file of capture or convert (- is stdin), and says for each kind
of socket what the kernel view begins with, what userspace never saw, whether
both views hold the same bytes, what did not arrive and why, how reads and
packets belong to each other, and how long it took from the filter to the read.
Of a file without one of the views it says only what the other one shows.

Then connection by connection: what arrived, was read, sent and dropped, with a
time line, and below that its packets: the kernel's bytes, every layer in rows
of its own, and beneath them in the same columns what userspace got. The number
on the left counts bytes from offset 0 of the packet that the socket filter
gets. Text has 80 columns, or those of a narrower terminal, from 40 on. The page
has the bytes of so many packets as 2 MB have room for, those that were lost
before others, and a line for each of the rest.

A file that ends in the middle of a block, as after a crash or on a full disk,
is read up to there, with a note.

Exit status: 0 explained; 1 the file is damaged, or no capture of ebpfdump.`,
		Example: `  ebpfdump explain tcp.pcapng
  ebpfdump explain tcp.pcapng --html tcp.html
  ebpfdump capture --sock udp --probe -o - | ebpfdump explain - --json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("which file? Give a capture, or - for stdin: see %s --help", cmd.CommandPath())
			}
			return noArguments(cmd, args[1:])
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.html != "" && !cmd.Flags().Changed("packets") {
				f.packets = pagePackets
			}
			return a.explain(args[0], f)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.IntVarP(&f.packets, "packets", "c", 50, fmt.Sprintf("show `N` packets one by one, 0 for all; a page has %d if it is not said", pagePackets))
	flags.BoolVar(&f.summary, "summary", false, "show no packet one by one: what the capture says as a whole, and its connections")
	flags.IntVar(&f.connections, "connections", explain.DefaultConnections, "show when something came, was read or dropped in `N` connections, 0 for all;\nthose in which most was lost come before others")
	flags.StringSliceVar(&f.ids, "id", nil, "show only packets with these `IDS`, such as 5 or 5-9,12")
	flags.StringSliceVar(&f.peers, "peer", nil, "show only packets from or to `ADDR[:PORT]`")
	flags.BoolVar(&f.lost, "lost", false, "show only packets that did not arrive: that userspace did not get, or not whole, or the kernel dropped")
	flags.StringVar(&f.views, "view", "", "show only packets that are in one of these views: a `LIST` of "+capture.ViewNames())
	flags.StringSliceVar(&f.interfaces, "interface", nil, "read only the interfaces with these `NAMES`, or numbers as tshark counts them (frame.interface_id)")
	flags.BoolVar(&f.json, "json", false, "print the findings as one JSON object, of a form that stays the same")
	flags.StringVar(&f.html, "html", "", "write a page to `FILE`, or to stdout if it is -, and print no text; with --json, print that as well")
	flags.StringVar(&f.colour, "color", "auto", "colours: always, never, or auto for terminals without NO_COLOR, as `WHEN`")
	return cmd
}

// check refuses flags that contradict each other.
func (f *explainFlags) check() error {
	switch f.colour {
	case "auto", "always", "never":
	default:
		return usagef("--color %q: choose one of auto, always, never", f.colour)
	}
	if f.packets < 0 {
		return usagef("-c %d: give a number of packets, or 0 for all", f.packets)
	}
	if f.summary && f.chooses() {
		return usagef("--summary shows no packets: leave it out, or what chooses them (--id, --peer, --lost, --view)")
	}
	if f.connections < 0 {
		return usagef("--connections %d: give a number of connections, or 0 for all", f.connections)
	}
	if f.json && f.html == "-" {
		return usagef("--json and --html - both want stdout: give the page a file")
	}
	return nil
}

// chooses tells whether only some packets are to be shown.
func (f *explainFlags) chooses() bool { return len(f.ids)+len(f.peers) > 0 || f.lost || f.views != "" }

// choice says which packets are shown.
func (f *explainFlags) choice() (c explain.Choice, err error) {
	c.Lost = f.lost
	for _, text := range f.ids {
		first, last, isRange := strings.Cut(text, "-")
		if !isRange {
			last = first
		}
		low, lerr := strconv.ParseUint(first, 10, 64)
		high, herr := strconv.ParseUint(last, 10, 64)
		if lerr != nil || herr != nil || low > high || low == 0 {
			return c, usagef("--id %q: give ids such as 5, or 5-9", text)
		}
		c.IDs = append(c.IDs, [2]uint64{low, high})
	}
	for _, text := range f.peers {
		peer, err := netip.ParseAddrPort(text)
		if addr, aerr := netip.ParseAddr(strings.Trim(text, "[]")); aerr == nil {
			peer, err = netip.AddrPortFrom(addr, 0), nil
		}
		if err != nil {
			return c, usagef("--peer %q: give an address such as 10.0.0.1 or [::1]:80", text)
		}
		c.Peers = append(c.Peers, peer)
	}
	if f.views != "" {
		c.Views, err = parseViews(f.views)
	}
	return c, err
}

func (a *app) explain(name string, f explainFlags) (err error) {
	if err := f.check(); err != nil {
		return err
	}
	choice, err := f.choice()
	if err != nil {
		return err
	}
	a.files.Reads(name)
	if err := a.files.Check(f.html); err != nil {
		return err
	}
	ctx, cancel := untilSignal(context.Background())
	defer cancel()
	input := &explainInput{file: os.Stdin, ctx: ctx}
	if name != "-" {
		if input.file, err = os.Open(name); err != nil {
			return fmt.Errorf("reading capture: %w", err)
		}
		defer input.file.Close()
		defer context.AfterFunc(ctx, func() { _ = input.file.SetReadDeadline(time.Now()) })()
	} else {
		name = "stdin"
		// The program that writes into the pipe gets the signal too and ends the capture
		// properly, which can then be explained. The second signal ends this command.
		input.ctx = context.Background()
	}
	out, err := a.openExplanation(ctx, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.finish(err)) }()
	if err := confineToFiles(out.file); err != nil {
		return err
	}
	source, err := openCapturedViews(input, name)
	if err != nil {
		return err
	}
	options := explain.Options{Name: name, Packets: f.packets, Connections: f.connections, Choice: choice}
	switch {
	case f.summary:
		options.Packets = 0
	case f.packets == 0:
		options.Packets = -1
	}
	if f.connections == 0 {
		options.Connections = -1
	}
	explanation, damage := explain.Read(f.chosen(source), options)
	if input.ctx.Err() != nil {
		return errStoppedReading
	}
	a.noteCutOff(source)
	if err := f.missesInterfaces(name, source); err != nil {
		if errors.Is(damage, explain.ErrForeign) {
			return err // the same, less well
		}
		return errors.Join(err, damage)
	}
	if explanation == nil {
		return foreignHint(name, damage)
	}
	if err := a.writeExplanation(explanation, f, out); err != nil {
		return err
	}
	return damage
}

// explainInput is a capture being read until a signal asks to stop. Reading then fails,
// so that the command ends normally and removes a new output.
type explainInput struct {
	file *os.File
	ctx  context.Context
}

var errStoppedReading = errors.New("stopped by a signal before the end of the capture")

// Read reads until the context ends.
func (in *explainInput) Read(b []byte) (int, error) {
	if in.ctx.Err() != nil {
		return 0, errStoppedReading
	}
	return in.file.Read(b)
}

// openCapturedViews opens a pcapng file. For other files, the error says how to make one.
func openCapturedViews(r io.Reader, name string) (*convert.Source, error) {
	source, err := convert.Open(r, nil, convert.ReadOptions{Name: name, CutOff: true})
	if packed := (*convert.UnpackError)(nil); errors.As(err, &packed) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: explain reads the pcapng files of ebpfdump capture and ebpfdump convert", err)
	}
	switch source.Format.Name {
	case "pcapng":
		return source, nil
	case "pcap":
		return nil, fmt.Errorf("reading %s: it is pcap, which does not say which view it has: record pcapng, with ebpfdump capture --sock KIND -o FILE.pcapng", name)
	}
	return nil, fmt.Errorf("reading %s: it is %s text: make a capture of it first, with ebpfdump convert %[1]s -o FILE.pcapng", name, source.Format.Name)
}

// foreignHint adds what to do if a file was not made by ebpfdump.
func foreignHint(name string, err error) error {
	if errors.Is(err, explain.ErrForeign) {
		return fmt.Errorf("reading %s: %w: record one with ebpfdump capture --sock KIND -o FILE.pcapng", name, err)
	}
	return err
}

// explainOutput is the destination of an explanation.
type explainOutput struct {
	page   io.Writer        // nil if there is none
	file   *outfile.File    // of the page, nil for stdout
	stdout *terminal.Writer // for text and JSON
}

// openExplanation opens the outputs before anything is read. An older file is untouched
// until it is written.
func (a *app) openExplanation(ctx context.Context, f explainFlags) (out *explainOutput, err error) {
	out = &explainOutput{}
	if f.json || f.html == "" {
		if out.stdout, err = a.results(); err != nil {
			return nil, err
		}
	}
	switch f.html {
	case "":
	case "-":
		out.page, err = a.files.Stdout(a.data)
	default:
		if out.file, err = a.files.Create(ctx, f.html); err == nil {
			out.page = out.file
		}
	}
	return out, err
}

// finish closes the file. After a failure a new one is removed if it is empty.
func (out *explainOutput) finish(failure error) error {
	if out.file == nil {
		return nil
	}
	return out.file.Finish(failure)
}

func (a *app) writeExplanation(e *explain.Explanation, f explainFlags, out *explainOutput) error {
	if out.page != nil {
		if err := writePage(e, out.page); err != nil {
			return err
		}
	}
	if f.json {
		return e.WriteJSON(out.stdout)
	}
	if f.html != "" {
		return nil
	}
	colour := f.colour == "always" || f.colour == "auto" && a.showsColours()
	columns := cmp.Or(out.stdout.Columns(), explain.Columns)
	if err := e.WriteText(coloured(out.stdout, colour), colour, columns); err != nil {
		return err
	}
	if f.chooses() && e.Shown() == 0 {
		none := terminal.Hang("No packet of the file is one of those that were asked for.", columns)
		_, err := fmt.Fprintln(out.stdout, strings.Join(none, "\n"))
		return err
	}
	return nil
}

// writePage writes the page, completely or not at all.
func writePage(e *explain.Explanation, w io.Writer) error {
	var page bytes.Buffer
	if err := e.WriteHTML(&page); err != nil {
		return err
	}
	_, err := page.WriteTo(w)
	return err
}
