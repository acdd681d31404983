package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
	"github.com/ebpfdump/ebpfdump/internal/confine"
	"github.com/ebpfdump/ebpfdump/internal/privilege"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// replayFlags are the flags of replay as given.
type replayFlags struct {
	filter               filterFlags
	expect, as           string
	json, quiet, verbose bool
}

func (a *app) replayCommand() *cobra.Command {
	var f replayFlags
	cmd := &cobra.Command{
		Use:   "replay --filter FILE.o[:PROGRAM] CAPTURE",
		Short: "Ask a filter about the packets of a recorded capture",
		Long: `Runs a socket filter over the kernel view of a capture (- is stdin), in the
kernel and without a socket, and prints a line for each packet: its id, its
length, the verdict, and what that means.

A capture of another program has no kernel view: its packets are given to the
filter as a packet socket gets them, from the link header on (packet) or, where
the capture has no such header or a cooked one, from the network header on
(packet-dgram). --as KIND gives them to it as a socket of that kind gets them:
tcp those that are TCP over IPv4, from the TCP header on. What such a socket
does not get is left out and counted. The ids are the numbers of the packets in
the file. Link types: Ethernet, RAW, IPv4, IPv6, Linux cooked v1 and v2,
loopback.

A program that is named (FILE.o:PROGRAM) may be in a section of any name. --map,
--map-size and --var set up what the filter's own loader would: values are
numbers, addresses, hex= and bytes, text, or JSON, as the types in the object
say.

With --expect it is a regression test. Each line of that file is a packet's id
and its verdict: a number, keep (the whole packet) or drop, or it is one that a
replay has printed. What follows a # is a comment; packets that are not in the
file may have any verdict.

The filter sees each packet's bytes from offset 0, its length and protocol, and
what the capture tells of __sk_buff: VLAN tag, mark, priority, hash,
queue_mapping, gso_size. What it cannot see in a replay: the real ifindex,
pkt_type, socket and time, and the headers below offset 0, where relative loads
find the packet itself. Packets of less than 40 bytes have no protocol, and
before Linux 6.19 those of more than some 3,700 have nothing but their bytes.
A filter that asks for what it cannot see is told of on stderr, and so is each
packet of which it misses something. Bytes that the capture lacks are zero.

A capture that ends in the middle of a block is read up to there, with a note.

Exit status: 0 done; 1 failed while running; 2 wrong usage; 4 a privilege or
kernel feature is missing; 5 a verdict is not the expected one.

` + privilegeHelp("replay"),
		Example: `  ebpfdump replay --filter my_filter.o tcp.pcapng
  ebpfdump replay --filter my_filter.o --expect verdicts.txt tcp.pcapng
  ebpfdump replay --filter my_filter.o --as udp tcpdump.pcap
  ebpfdump replay --filter-cbpf <(tcpdump -y RAW -ddd tcp) raw.pcapng`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("which capture? Give a file, or - for stdin: see %s --help", cmd.CommandPath())
			}
			return noArguments(cmd, args[1:])
		},
		RunE: func(_ *cobra.Command, args []string) error {
			return a.refusal(privilege.Use{Command: "replay"}.Advise(a.replay(args[0], f)), f.verbose)
		},
	}
	f.register(cmd.Flags())
	return cmd
}

func (f *replayFlags) register(flags *pflag.FlagSet) {
	flags.SortFlags = false
	f.filter.add(flags)
	flags.StringVar(&f.as, "as", "", "give packets of another program's capture to the filter as a socket of `KIND` gets them")
	flags.StringVar(&f.expect, "expect", "", "compare with the verdicts in `FILE`")
	flags.BoolVar(&f.json, "json", false, "print one JSON object a line, of a form that stays the same")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print only what differs from --expect, and no closing line")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "print all that the verifier says of a filter that it refuses")
}

func (a *app) replay(name string, f replayFlags) (err error) {
	verdict, as, err := f.interpret()
	if err != nil {
		return err
	}
	a.files.Reads(append(f.filter.files(), name, f.expect)...)
	stdout, err := a.results()
	if err != nil {
		return err
	}
	var expected expectations
	if f.expect != "" {
		if expected, err = readExpectations(f.expect); err != nil {
			return err
		}
	}
	file, err := openRecorded(name)
	if err != nil {
		return err
	}
	defer file.Close()
	runner, err := bpf.OpenRunner(verdict)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, runner.Close()) }()
	// Packets that need a filter on a socket: it is loaded with the first of them.
	if err := confine.Keep(unix.CAP_BPF, unix.CAP_PERFMON); err != nil {
		return err
	}
	packets, err := convert.Open(file, nil, convert.ReadOptions{Name: name, CutOff: true})
	if err != nil {
		return err
	}

	if !f.quiet {
		a.noteTables(verdict)
	}
	ctx, cancel := untilSignal(context.Background())
	defer cancel()
	r := &replay{flags: f, as: as, runner: runner, never: runner.Never(), expected: expected, out: bufio.NewWriter(stdout)}
	if len(r.never) > 0 && !f.quiet {
		a.stderr.Line("the filter asks for %s, and a replay has other answers: it may come to other verdicts than the capture did", strings.Join(r.never, ", "))
	}
	err = r.all(ctx, packets)
	if ferr := r.out.Flush(); err == nil {
		err = ferr
	}
	a.noteCutOff(packets)
	if err != nil {
		return err
	}
	if r.packets == 0 {
		return r.nothing(name, packets.Interfaces())
	}
	if !f.quiet {
		r.foreign.closingLines(a.stderr.Line)
		a.stderr.Line("%s%s: %d kept, %d truncated, %d dropped", counted(uint64(r.packets), "packet"), r.foreign.taken(), r.packets-r.trimmed-r.dropped, r.trimmed, r.dropped)
	}
	return expected.outcome(f.expect, r.never)
}

// interpret returns the filter, and the kind of socket that gets packets of other programs.
func (f *replayFlags) interpret() (*bpf.Verdict, *capture.Kind, error) {
	verdict, err := f.filter.read()
	switch {
	case err != nil:
		return nil, nil, err
	case verdict == nil:
		return nil, nil, usagef("which filter? Give --filter FILE.o, --filter-cbpf FILE or --verdict keep|drop|N")
	case f.quiet && f.expect == "":
		return nil, nil, usagef("-q prints only what differs from --expect: give that as well")
	}
	as, err := asKind(f.as)
	return verdict, as, err
}

// nothing says why a capture has no packets for a filter.
func (r *replay) nothing(name string, interfaces []*capture.Interface) error {
	if err := r.foreign.nothing(name); err != nil {
		return err
	}
	empty, idle := false, true
	for _, i := range interfaces {
		if i.View == capture.ViewKernel {
			kind, ok := capture.KindByName(i.Kind)
			empty, idle = true, idle && ok && kind.NeverFilters()
		}
	}
	switch {
	case empty && idle:
		return fmt.Errorf("the kernel view of %s has no packets: a socket of this kind takes a filter and never runs it; record one of another kind", name)
	case empty:
		return fmt.Errorf("the kernel view of %s has no packets: record some with ebpfdump capture", name)
	}
	return fmt.Errorf("%s has no kernel view: record one with ebpfdump capture", name)
}

// replay runs a filter over packets.
type replay struct {
	flags    replayFlags
	runner   *bpf.Runner
	never    []string // what the filter asks for, and a replay can give for no packet
	expected expectations
	out      *bufio.Writer
	scratch  []byte
	as       *capture.Kind // of --as, nil without
	foreign  foreign

	packets, trimmed, dropped uint64
}

// replayed is the result for a packet, as --json prints it.
type replayed struct {
	ID        uint64 `json:"id"`
	Interface string `json:"interface"`
	// As is the kind of socket as which a packet of another program's capture is given to the filter.
	As     string `json:"as,omitempty"`
	Length int    `json:"length"`
	// Missing counts the bytes at the end that are not in the capture.
	Missing int   `json:"missing,omitempty"`
	Verdict int32 `json:"verdict"`
	// Kept is the number of bytes that the verdict keeps.
	Kept int `json:"kept"`
	// NotGiven lists what the filter asks for and could not see as it would live: fields
	// of __sk_buff, helpers.
	NotGiven []string `json:"not_given,omitempty"`
	// Expected is the verdict in the file of expectations, empty without one.
	Expected   string `json:"expected,omitempty"`
	AsExpected *bool  `json:"as_expected,omitempty"`

	missing []string // those of NotGiven that are not missing for every packet
}

func (r *replay) all(ctx context.Context, packets convert.Reader) error {
	for ctx.Err() == nil {
		p, err := packets.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		r.foreign.number++
		switch i := p.Interface; {
		case i.View == capture.ViewKernel && r.as != nil:
			return usagef("--as %s: this is a capture by ebpfdump, which has what a filter on a socket got (%s): leave --as out", r.as.Name, i.Name())
		case i.View == capture.ViewKernel:
			err = r.packet(p, r.given(p))
		case i.View == 0 && i.Kind == "":
			err = r.other(p)
		}
		if err != nil {
			return err
		}
	}
	return errors.New("stopped by a signal")
}

// given is what a filter is given of a packet.
type given struct {
	data    []byte
	missing int // bytes at the end of data that are not in the capture
	context bpf.Context
	as      string
}

// given is that of a kernel view.
func (r *replay) given(p *capture.Packet) given {
	data := r.whole(p.Data, p.Len)
	return given{data: data, missing: len(data) - len(p.Data), context: contextOf(p)}
}

func (r *replay) packet(p *capture.Packet, g given) error {
	id := p.ID
	if g.as != "" {
		id = r.foreign.number
	}
	data := g.data
	verdict, missing, err := r.runner.Run(data, g.context)
	if err != nil {
		return fmt.Errorf("packet %d: %w", id, err)
	}
	result := replayed{
		ID: id, Interface: p.Interface.Name(), As: g.as, Length: len(data), Missing: g.missing,
		Verdict: verdict, Kept: kept(verdict, len(data)), NotGiven: slices.Concat(missing, r.never), missing: missing,
	}
	r.packets++
	switch {
	case verdict == 0:
		r.dropped++
	case result.Kept < result.Length:
		r.trimmed++
	}
	as, ok := r.expected.compare(id, verdict, len(data), missing)
	if as != nil {
		result.Expected, result.AsExpected = as.text, &ok
	}
	if r.flags.quiet && (as == nil || ok) {
		return nil
	}
	if r.flags.json {
		return terminal.WriteJSON(r.out, result, "")
	}
	_, err = fmt.Fprintln(r.out, result.line())
	return err
}

// line is readable for people and for awk.
func (r *replayed) line() string {
	text := fmt.Sprintf("%d %d %d keeps all", r.ID, r.Length, r.Verdict)
	switch {
	case r.Verdict == 0:
		text = fmt.Sprintf("%d %d %d drops it", r.ID, r.Length, r.Verdict)
	case r.Kept < r.Length:
		text = fmt.Sprintf("%d %d %d keeps %d of %d bytes", r.ID, r.Length, r.Verdict, r.Kept, r.Length)
	}
	if r.Missing > 0 {
		text += fmt.Sprintf("; the last %d bytes are not in the capture", r.Missing)
	}
	if len(r.missing) > 0 {
		text += "; not known to the filter: " + strings.Join(r.missing, ", ")
	}
	if r.AsExpected != nil && !*r.AsExpected {
		text += "; expected " + r.Expected
	}
	return text
}

// kept is the number of bytes of a packet that a verdict keeps.
func kept(verdict int32, length int) int {
	if verdict < 0 {
		return length
	}
	return min(int(verdict), length)
}

// whole is a packet in its original length, with zeros for what was not captured.
func (r *replay) whole(data []byte, length int) []byte {
	length = min(length, bpf.MaxSnaplen)
	if length <= len(data) {
		return data
	}
	if cap(r.scratch) < length {
		r.scratch = make([]byte, bpf.MaxSnaplen)
	}
	whole := r.scratch[:length]
	clear(whole[copy(whole, data):])
	return whole
}

// contextOf is what the filter can be given in addition to the bytes.
func contextOf(p *capture.Packet) bpf.Context {
	m := &p.Meta
	return bpf.Context{
		Protocol: etherType(p), Known: p.Interface.HasMeta,
		VLANProto: m.VLANProto, VLANTCI: m.VLANTCI, Mark: m.Mark, Priority: m.Priority,
		GSOSize: m.GSOSize, GSOSegs: m.GSOSegs, Hash: m.Hash, Queue: m.Queue,
	}
}

// etherType is the protocol that the filter sees, 0 for packets that are not from a
// network.
func etherType(p *capture.Packet) uint16 {
	switch p.Interface.Layer {
	case capture.LayerLink:
		if len(p.Data) >= 14 {
			return binary.BigEndian.Uint16(p.Data[12:])
		}
	case capture.LayerNetwork, capture.LayerTransport:
		if p.Interface.IPv6 {
			return unix.ETH_P_IPV6
		}
		return unix.ETH_P_IP
	}
	return 0
}
