// Package survey finds out by experiment what an eBPF filter sees on every kind of
// socket, and what userspace gets, on the running kernel.
//
// Each experiment consists of a socket in a network namespace of its own, the probe that
// package capture sends it, and a packet socket on the same interface as the reference:
// bytes are compared with bytes. The table of socket kinds says how to open a socket and
// how to reach it, but the results do not rely on what it says about views.
//
// The result is a Report. Its JSON is for programs and for Compare; tables, pages and
// sentences are made from a Report alone.
package survey

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/capability"
	"github.com/ebpfdump/ebpfdump/internal/experiment"
	"github.com/ebpfdump/ebpfdump/internal/skb"
)

// Row is a kind of socket to survey.
type Row struct {
	// Name is the name of the kind, with the protocol for kinds that are opened with one.
	Name string
	Kind *capture.Kind

	protocol int
	address  string
}

// Rows lists everything that can be surveyed.
func Rows() []Row {
	var rows []Row
	for _, k := range capture.Kinds() {
		kind, _ := capture.KindByName(k.Name)
		if !kind.TakesProtocol() {
			row := Row{Name: kind.Name, Kind: kind}
			if kind.Name == "netlink" {
				// Notifications about the namespace would mix with the probe.
				row.address = "groups 0"
			}
			rows = append(rows, row)
			continue
		}
		icmp := unix.IPPROTO_ICMP
		if kind.IPv6() {
			icmp = unix.IPPROTO_ICMPV6
		}
		for _, p := range []struct {
			name   string
			number int
		}{{"tcp", unix.IPPROTO_TCP}, {"udp", unix.IPPROTO_UDP}, {"icmp", icmp}} {
			rows = append(rows, Row{Name: kind.Name + "/" + p.name, Kind: kind, protocol: p.number})
		}
	}
	return rows
}

// RowsByName finds rows by their names or by the names of their kinds, in the order of
// Rows.
func RowsByName(names []string) ([]Row, error) {
	all := Rows()
	for _, name := range names {
		if !slices.ContainsFunc(all, func(r Row) bool { return r.Name == name || r.Kind.Name == name }) {
			return nil, fmt.Errorf("there is no kind of socket %q: choose some of %s", name, strings.Join(rowNames(all), ", "))
		}
	}
	return slices.DeleteFunc(all, func(r Row) bool {
		return !slices.Contains(names, r.Name) && !slices.Contains(names, r.Kind.Name)
	}), nil
}

func rowNames(rows []Row) []string {
	var names []string
	for _, r := range rows {
		names = append(names, r.Name)
	}
	return names
}

// summary is the summary of the kind, with the protocol.
func (r Row) summary() string {
	if _, protocol, ok := strings.Cut(r.Name, "/"); ok {
		return r.Kind.Summary + " for " + strings.ToUpper(protocol)
	}
	return r.Kind.Summary
}

// Options configure a survey. The zero value is usable.
type Options struct {
	// Rows to survey. Default: all.
	Rows []Row
	// Program is the name and version of the program, for the report.
	Program string
	// Parallel is how many sockets are surveyed at once. The experiments mostly wait.
	// Default: 8.
	Parallel int
	// Hooks says that the other places where the kernel runs a program for a packet are surveyed as
	// well.
	Hooks bool
	// Done is called with the name of each row that is finished. Default: none.
	Done func(name string)
	// Captured is called with the packets of a row's main experiment, of all views and in
	// the order of time, by one goroutine at a time. Default: none.
	Captured func(row Row, packets []capture.Packet, statistics []capture.Statistics) error
}

// Run surveys this kernel. The error is a *bpf.MissingError if a privilege or a kernel
// feature is missing that every experiment needs.
func Run(ctx context.Context, options Options) (*Report, error) {
	if len(options.Rows) == 0 {
		options.Rows = Rows()
	}
	if options.Parallel <= 0 {
		options.Parallel = 8
	}
	if err := checkPrivilege(); err != nil {
		return nil, err
	}
	if options.Hooks && !capability.CurrentPrivilege().Has(unix.CAP_PERFMON) {
		// Without it the verifier refuses what it would accept.
		return nil, bpf.LacksCapability(unix.CAP_PERFMON, "surveying the hooks", unix.EPERM)
	}
	s := &surveyor{options: options}
	if err := s.askForFields(); err != nil {
		return nil, err
	}
	report := &Report{
		Schema:  Schema,
		System:  thisSystem(options.Program),
		Fields:  s.fields,
		Sockets: make([]Socket, len(options.Rows)),
	}
	if options.Hooks {
		var err error
		if report.Hooks, err = surveyHooks(len(options.Rows)); err != nil {
			return nil, err
		}
	}
	return report, s.surveyAll(ctx, report)
}

// checkPrivilege returns the error that every row would fail with.
func checkPrivilege() error {
	tap, err := bpf.Open(bpf.Options{RingSize: bpf.MinRingSize})
	if err != nil {
		return err
	}
	if err := tap.Close(); err != nil {
		return err
	}
	ns, err := capture.NewNamespace()
	if err != nil {
		return err
	}
	ns.Close()
	return nil
}

func thisSystem(program string) System {
	var name unix.Utsname
	_ = unix.Uname(&name)
	return System{
		Kernel:  unix.ByteSliceToString(name.Release[:]),
		Machine: unix.ByteSliceToString(name.Machine[:]),
		Program: program,
	}
}

// surveyor is a running survey.
type surveyor struct {
	options  Options
	fields   []Field
	readable []skb.Field
	mu       sync.Mutex // of the options' functions
}

// askForFields asks the verifier which fields a socket filter may read.
func (s *surveyor) askForFields() error {
	for _, f := range skb.Fields() {
		ok, err := experiment.Readable(f)
		if err != nil {
			return err
		}
		s.fields = append(s.fields, Field{Name: f.Name, Readable: ok})
		if ok {
			s.readable = append(s.readable, f)
		}
	}
	return nil
}

// surveyAll fills in an entry for each row, several at a time.
func (s *surveyor) surveyAll(ctx context.Context, report *Report) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var workers sync.WaitGroup
	next, slots := make(chan func() error), make(chan struct{}, s.options.Parallel)
	for range s.options.Parallel {
		workers.Go(func() {
			for experiments := range next {
				if err := experiments(); err != nil {
					cancel(err)
				}
			}
		})
	}
	surveying := func(i int, err error) error {
		if err != nil {
			return fmt.Errorf("surveying %s: %w", s.options.Rows[i].Name, err)
		}
		return nil
	}
	for i, row := range s.options.Rows {
		for _, experiments := range []func() error{
			func() error { return surveying(i, s.surveyRow(ctx, row, &report.Sockets[i])) },
			func() error { return surveying(i, surveyHooksOf(ctx, row, report.Hooks, i, slots)) },
		} {
			select {
			case next <- experiments:
			case <-ctx.Done():
			}
		}
	}
	close(next)
	workers.Wait()
	return context.Cause(ctx)
}

// surveyRow runs all experiments with one kind of socket.
func (s *surveyor) surveyRow(ctx context.Context, row Row, socket *Socket) error {
	e := &examination{ctx: ctx, row: row, socket: socket, readable: s.readable}
	*socket = Socket{Name: row.Name, Summary: row.summary()}
	if err := e.all(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.options.Captured != nil && len(e.main.packets) > 0 {
		packets := slices.Clone(e.main.packets)
		slices.SortStableFunc(packets, func(a, b capture.Packet) int { return int(a.Time - b.Time) })
		if err := s.options.Captured(row, packets, e.main.statistics); err != nil {
			return err
		}
	}
	if s.options.Done != nil {
		s.options.Done(row.Name)
	}
	return nil
}
