package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/convert"
)

// bench is what all runs share.
type bench struct {
	settings *settings
	scratch  string
	self     string
	net      *network
	machine  machine
}

func newBench(ctx context.Context, s *settings, scratch string) (*bench, error) {
	b := &bench{settings: s, scratch: scratch}
	var err error
	if b.machine, err = describeMachine(); err != nil {
		return nil, err
	}
	if b.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if b.net, err = newNetwork(); err != nil {
		return nil, err
	}
	if b.machine.Background, err = background(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func (b *bench) Close() error { return b.net.Close() }

func (b *bench) output() string { return filepath.Join(b.scratch, "capture") }

// background measures how many cores are busy although nothing is measured.
func background(ctx context.Context) (float64, error) {
	const long = 2 * time.Second
	before, err := busy()
	if err != nil {
		return 0, err
	}
	if err := pause(ctx, long); err != nil {
		return 0, err
	}
	after, err := busy()
	return float64(after-before) / float64(long), err
}

// measure does all workloads.
func (b *bench) measure(ctx context.Context) (*report, error) {
	r := &report{Machine: b.machine, Rounds: b.settings.limits.rounds}
	if b.machine.noisy() {
		fmt.Fprintf(os.Stderr, "peers: %.2f of %d cores are busy with something else: the figures will be worth little\n", b.machine.Background, b.machine.Cores)
	}
	for _, w := range workloads(b.settings.limits) {
		if !b.settings.only.MatchString(w.name) {
			continue
		}
		if w.possible != nil {
			if err := w.possible(); err != nil {
				r.Notes = append(r.Notes, fmt.Sprintf("%s: not measured: %v.", w.title, err))
				continue
			}
		}
		result, err := b.rounds(ctx, &w)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
		r.Results = append(r.Results, *result)
	}
	return r, nil
}

// rounds lets everybody have a turn, again and again.
func (b *bench) rounds(ctx context.Context, w *workload) (*result, error) {
	if err := b.net.setMTU(w.mtu); err != nil {
		return nil, err
	}
	if w.count == 0 {
		if err := b.calibrate(ctx, w); err != nil {
			return nil, err
		}
	}
	r := &result{
		Name: w.name, Title: w.title, Unit: w.unit, Count: w.count * w.senders, Size: w.size, Sockets: w.sockets,
		Costs: w.costs, Whole: w.whole, Runs: make(map[string][]run),
	}
	begin := time.Now()
	for range b.settings.limits.rounds {
		for _, t := range w.by() {
			m, err := b.one(ctx, w, &t, w.count/max(1, t.few))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}
			r.Runs[t.name] = append(r.Runs[t.name], m)
		}
	}
	fmt.Fprintf(os.Stderr, "%-14s %.1f s\n", w.name, time.Since(begin).Seconds())
	return r, nil
}

// calibrate finds how many units are sent in the time that a run is to take.
func (b *bench) calibrate(ctx context.Context, w *workload) error {
	count := 2000
	for range 2 { // the first one is a guess, and warms up
		m, err := b.one(ctx, w, &tools[0], count)
		if err != nil {
			return err
		}
		count = max(1000, roundedDown(m.Rate*b.settings.limits.sending.Seconds()/float64(w.senders)))
	}
	w.count = count
	return nil
}

// roundedDown keeps two digits, for people who read the table.
func roundedDown(x float64) int {
	unit := math.Pow10(max(0, int(math.Log10(max(1, x)))-1))
	return int(math.Floor(x/unit) * unit)
}

// one is one turn of one tool: count units from each sender.
func (b *bench) one(ctx context.Context, w *workload, t *tool, count int) (m run, err error) {
	defer os.Remove(b.output())
	var watched []*process
	if !t.receives {
		receiver, err := b.start(ctx, b.net.receiver, "receiver", append([]string{b.self}, w.receive...)...)
		if err != nil {
			return m, err
		}
		defer receiver.kill()
		if err := receiver.role(); err != nil {
			return m, err
		}
		watched = append(watched, receiver)
	}
	var capturing *process
	if t.command != nil {
		var pid int
		if len(watched) > 0 {
			pid = watched[0].pid()
		}
		if capturing, err = b.start(ctx, b.net.receiver, "tool", t.command(b, w, pid)...); err != nil {
			return m, err
		}
		defer capturing.kill()
		if err := capturing.says(t.listening); err != nil {
			return m, err
		}
		watched = append(watched, capturing)
	}
	if err := b.traffic(ctx, w, t, count, watched, &m); err != nil || capturing == nil {
		return m, err
	}
	if m.Memory, err = peak(capturing.pid()); err != nil {
		return m, err
	}
	if err := capturing.stop(); err != nil {
		return m, err
	}
	m.Recorded, m.Reads, err = countPackets(b.output())
	return m, err
}

// traffic sends, and measures what the whole machine does until all is done.
func (b *bench) traffic(ctx context.Context, w *workload, t *tool, count int, watched []*process, m *run) error {
	arrivedBefore, err := b.net.arrived()
	if err != nil {
		return err
	}
	var senders []*process
	for i := range w.senders {
		s, err := b.start(ctx, b.net.sender, fmt.Sprintf("sender%d", i), append([]string{b.self}, w.send(count)...)...)
		if err != nil {
			return err
		}
		defer s.kill()
		if err := s.role(); err != nil {
			return err
		}
		senders = append(senders, s)
	}
	// What is left of everybody's start is not to be counted.
	if err := pause(ctx, 100*time.Millisecond); err != nil {
		return err
	}
	before, err := busy()
	if err != nil {
		return err
	}
	begin := time.Now()
	for _, s := range senders {
		if err := s.send(); err != nil {
			return err
		}
	}
	var longest time.Duration
	for _, s := range senders {
		took, err := s.took()
		if err != nil {
			return err
		}
		longest = max(longest, took)
	}
	if err := settle(ctx, watched, t.quiet); err != nil {
		return err
	}
	after, err := busy()
	if err != nil {
		return err
	}
	spent := after - before
	if !b.machine.noisy() {
		spent -= time.Duration(b.machine.Background * float64(time.Since(begin)))
	}
	arrived, err := b.net.arrived()
	m.Sent = count * w.senders
	m.Arrived = arrived - arrivedBefore
	m.Cost = float64(spent) / float64(m.Sent)
	m.Rate = float64(m.Sent) / longest.Seconds()
	return err
}

// settle waits until nobody has had anything to do for a while. Whoever is still
// at work after a long time is measured as he is.
func settle(ctx context.Context, watched []*process, quiet time.Duration) error {
	const longest = 30 * time.Second
	var (
		before = -1
		begin  = time.Now()
	)
	for since := begin; time.Since(since) < quiet && time.Since(begin) < longest; {
		now := 0
		for _, p := range watched {
			n, err := used(p.pid())
			if err != nil {
				return fmt.Errorf("%s is gone: %w", p.cmd, err)
			}
			now += n
		}
		if now != before {
			before, since = now, time.Now()
		}
		if err := pause(ctx, 25*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// pause sleeps, unless a signal comes.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return errors.New("interrupted")
	case <-time.After(d):
		return nil
	}
}

// countPackets tells how many packets a capture has, and how many reads: those of
// the user view.
func countPackets(name string) (packets, reads int, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() == 0 {
		return 0, 0, err
	}
	udp, _ := capture.KindByName("udp") // for printed text, which does not say
	source, err := convert.Open(f, nil, convert.ReadOptions{Name: name, Kind: udp})
	if err != nil {
		return 0, 0, err
	}
	for {
		switch p, err := source.Next(); {
		case errors.Is(err, io.EOF):
			return packets, reads, nil
		case err != nil:
			return packets, reads, err
		case p.Interface.View == capture.ViewUser:
			reads++
		// A filter prints 128 bytes of a packet. Where the trace lost lines, some are missing.
		case source.Format.Name != "trace" || len(p.Data) >= min(p.Len, 128):
			packets++
		}
	}
}
