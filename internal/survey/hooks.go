package survey

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/experiment"
)

// Hook is what the survey found about one place where the kernel runs a program for a packet.
type Hook struct {
	// Name is the section of the program, or what it is attached to: "cgroup_skb/ingress",
	// "cgroup_skb/egress", "packet socket", "socket", "sk_reuseport", "reuseport filter".
	Name string `json:"name"`
	// Program is the type of the program, Context the struct that it gets.
	Program string `json:"program"`
	Context string `json:"context"`
	// Missing is why this kernel runs no such program; empty if it does. Then nothing else is known.
	Missing string `json:"missing,omitempty"`
	// Fields says what the verifier lets the program read of its Context.
	Fields []Field `json:"fields,omitempty"`
	// Direct says whether the verifier lets it read the packet between data and data_end.
	Direct bool `json:"direct"`
	// Returns are the ones of 0, 1, 8 and -1 that the verifier lets it return.
	Returns []int `json:"returns,omitempty"`
	// Sockets has an entry for each kind of socket, in the order of Rows.
	Sockets []HookSocket `json:"sockets,omitempty"`
}

// HookSocket is what a program at a hook sees of the packets of one kind of socket. Everything after
// Reason is empty where nothing could be found out.
type HookSocket struct {
	// Name is the kind, as in Socket.
	Name string `json:"name"`
	// Status tells whether the program ran, Reason why not.
	Status Status `json:"status"`
	Reason string `json:"reason,omitempty"`
	// Headers names the layers of a packet of the probe, Offset0 the one at offset 0 of the program.
	Headers []string `json:"headers,omitempty"`
	Offset0 string   `json:"offset0,omitempty"`
	// Exchange lists the kinds of packets on the wire, and which of them the program saw.
	Exchange []Exchanged `json:"exchange,omitempty"`
	// Net and Link are what bpf_skb_load_bytes_relative reaches from the network and from the link
	// header on, in the worst case of all packets: ReachedBytes, ReachedSelf, ReachedOther or ReachedNone.
	Net  string `json:"net,omitempty"`
	Link string `json:"link,omitempty"`
	// Linear is how much of the packets is between data and data_end, nil if the program may not read
	// that.
	Linear *Linear `json:"linear,omitempty"`
	// Verdicts tells what the returned number does, for those of Returns: to what userspace gets of
	// the socket, or to the longest packet that the packet socket beside it gets.
	Verdicts []Outcome `json:"verdicts,omitempty"`
}

// Linear is which part of a packet a program can read directly.
type Linear struct {
	// Same says that what is at data is what is loaded from offset 0.
	Same bool `json:"same"`
	// Whole says that all of a message, whose packets fit the MTU, is there.
	Whole bool `json:"whole"`
	// Part is the fewest bytes there of a packet that is not there as a whole, when the message is
	// longer than the MTU; -1 if all of each packet is there.
	Part int `json:"part"`
}

// tried are the numbers that programs return in experiments.
var tried = []int{0, 1, 8, -1}

// surveyHooks asks the verifier about each hook, and makes room for so many kinds of sockets.
func surveyHooks(kinds int) ([]Hook, error) {
	var all []Hook
	for _, h := range experiment.Hooks() {
		hook := Hook{Name: h.Name, Program: h.Program, Context: h.Context, Sockets: make([]HookSocket, kinds)}
		if ok, err := h.Returns(h.Pass); err != nil || !ok {
			hook.Missing = "the kernel loads no such program"
			if err != nil {
				hook.Missing += ": " + err.Error()
			}
			hook.Sockets = nil
			all = append(all, hook)
			continue
		}
		var err error
		for _, f := range h.Fields {
			var ok bool
			if ok, err = h.Readable(f); err != nil {
				return nil, err
			}
			hook.Fields = append(hook.Fields, Field{Name: f.Name, Readable: ok})
		}
		if hook.Direct, err = h.Direct(); err != nil {
			return nil, err
		}
		for _, number := range tried {
			ok, err := h.Returns(int32(number))
			if err != nil {
				return nil, err
			}
			if ok {
				hook.Returns = append(hook.Returns, number)
			}
		}
		all = append(all, hook)
	}
	return all, nil
}

// surveyHooksOf runs all experiments with one kind of socket at hooks, which have an entry for it.
func surveyHooksOf(ctx context.Context, row Row, hooks []Hook, entry int, slots chan struct{}) error {
	if len(hooks) == 0 {
		return nil
	}
	h := &hooking{examination: examination{ctx: ctx, row: row}, slots: slots, hooks: hooks, places: experiment.Hooks()}
	for i := range hooks {
		var found *HookSocket
		if hooks[i].Missing == "" {
			found = &hooks[i].Sockets[entry]
			found.Name = row.Name
		}
		h.found = append(h.found, found)
	}
	return h.all()
}

// hooking runs the experiments at all hooks with one kind of socket.
type hooking struct {
	examination
	hooks  []Hook
	places []experiment.Hook
	found  []*HookSocket // of each hook, nil where it is missing
	slots  chan struct{} // as many as there may be experiments at once
}

// placed is a recorder, and the error of attaching it to the socket.
type placed struct {
	*experiment.Recorder
	err error
}

// Attach attaches the recorder, and never fails.
func (p *placed) Attach(fd int) error {
	if err := p.Recorder.Attach(fd); err != nil && p.err == nil {
		p.err = err
	}
	return nil
}

// bare is a filter that is none.
type bare struct{}

func (bare) Attach(fd int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOPROTOOPT) {
		return nil // there is none
	}
	return err
}

// at makes an experiment with recorders at some of the hooks, by index, that return numbers.
func (h *hooking) at(t trial, indexes []int, returns func(i int) int) (*observation, map[int]*placed, error) {
	recorders := make(map[int]*placed)
	defer func() {
		for _, r := range recorders {
			r.Close()
		}
	}()
	h.slots <- struct{}{}
	defer func() { <-h.slots }()
	t.filter = bare{}
	mark := experiment.NewMark()
	for _, i := range indexes {
		r, err := h.places[i].OpenRecorder(h.hooks[i].Direct, int32(returns(i)), mark)
		if err != nil {
			return nil, nil, err
		}
		at := &placed{Recorder: r}
		recorders[i] = at
		switch r.Hook.Place {
		case experiment.OnPacketSocket:
			t.watcher = at
		case experiment.OnSocket:
			t.filter = at
		default:
			before := t.prepare
			t.prepare = func(fd int) error {
				if before != nil {
					_ = before(fd)
				}
				return at.Attach(fd)
			}
		}
	}
	o, err := h.try(t)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range recorders {
		if o.runs == nil {
			o.runs = make(map[string][]experiment.HookRun)
		}
		if o.runs[r.Hook.Name], err = r.Runs(); err != nil {
			return nil, nil, err
		}
	}
	return o, recorders, nil
}

func (h *hooking) pass(i int) int { return int(h.places[i].Pass) }

// groups are the hooks that can be tried at once: a socket has one reuseport group, and only what it
// sends back passes egress, which would be mistaken elsewhere for what it got.
func (h *hooking) groups() (groups [][]int) {
	var first []int
	grouped := false
	for i, place := range h.places {
		switch {
		case h.found[i] == nil:
		case place.Name == egress, place.Place == experiment.OnGroup && grouped:
			groups = append(groups, []int{i})
		default:
			grouped = grouped || place.Place == experiment.OnGroup
			first = append(first, i)
		}
	}
	return append([][]int{first}, groups...)
}

// echoes tells whether the socket is to send back what it gets.
func (h *hooking) echoes(group []int) bool {
	return len(group) == 1 && h.places[group[0]].Name == egress
}

func (h *hooking) all() error {
	var parts []func() error
	for _, group := range h.groups() {
		parts = append(parts, func() error { return h.group(group) })
	}
	return atOnce(parts)
}

// group makes all experiments at hooks that can be tried at once.
func (h *hooking) group(group []int) error {
	o, placed, err := h.at(trial{payload: longPayload, echo: h.echoes(group)}, group, h.pass)
	if err != nil {
		return err
	}
	var ran []int
	parts := []func() error{func() error { return h.linear(ran) }}
	for _, i := range group {
		if !h.judge(h.found[i], o, placed[i]) {
			continue
		}
		h.see(h.found[i], o, placed[i])
		ran = append(ran, i)
		h.found[i].Verdicts = make([]Outcome, len(h.hooks[i].Returns))
		for n, number := range h.hooks[i].Returns {
			parts = append(parts, func() (err error) {
				h.found[i].Verdicts[n], err = h.verdict(i, number)
				return err
			})
		}
	}
	return atOnce(parts)
}

// atOnce does all parts at the same time.
func atOnce(parts []func() error) error {
	errs := make([]error, len(parts))
	var workers sync.WaitGroup
	for i, part := range parts {
		workers.Go(func() { errs[i] = part() })
	}
	workers.Wait()
	return errors.Join(errs...)
}

// judge decides the status, and tells whether the program ran.
func (h *hooking) judge(s *HookSocket, o *observation, at *placed) bool {
	call := (*experiment.CallError)(nil)
	var got [][]byte
	if o.openErr == nil {
		got, _ = o.delivered(h.row.Kind)
	}
	switch {
	case o.openErr != nil:
		s.Status, s.Reason = Absent, "socket: "+errno(o.openErr)
	case errors.As(at.err, &call) && len(o.runs[at.Hook.Name]) == 0:
		s.Status, s.Reason = Refused, call.Call+": "+errno(call.Err)
	case len(o.runs[at.Hook.Name]) > 0:
		s.Status = Filtered
	case len(got) > 0:
		s.Status = Unfiltered
	default:
		s.Status, s.Reason = Unprobed, probeOutcome(o.probeErr)
	}
	return s.Status == Filtered
}

// theEnd is where offset 0 is in packets without any byte from there on.
const theEnd = "the end"

// see compares what the program saw with what was on the wire.
func (h *hooking) see(s *HookSocket, o *observation, at *placed) {
	runs := o.runs[at.Hook.Name]
	for i := range runs {
		run := &runs[i]
		name, headers := "unknown", []string(nil)
		if run.Len == 0 {
			name = theEnd
		} else if f, at := holds(o.wire, run); f != nil {
			headers = f.headers()
			if found, ok := f.startsAt(at); ok {
				name = found
			}
		} else if len(o.wire) == 0 {
			name, headers = parseHead(run)
		}
		switch {
		case s.Offset0 == "", s.Offset0 == theEnd:
			s.Offset0 = name
		case s.Offset0 != name && name != theEnd:
			s.Offset0 = "mixed"
		}
		if len(headers) > len(s.Headers) {
			s.Headers = headers
		}
		s.Net = worse(s.Net, o.reachedAt(run.Net, networkHeader, runs))
		s.Link = worse(s.Link, o.reachedAt(run.Link, linkHeader, runs))
	}
	if s.Offset0 == theEnd {
		return // no byte tells which packets these were
	}
	s.Exchange = exchanged(o.wire, func(f *frame) bool {
		for i := range runs {
			if within(&runs[i], f) >= 0 {
				return true
			}
		}
		return false
	})
}

// within is where in a frame the bytes of a run begin, which go on to the frame's end and of which
// only the first may be known; -1 if they are not in it.
func within(run *experiment.HookRun, f *frame) int {
	at := len(f.data) - run.Len
	if at >= 0 && len(run.Data) > 0 && bytes.HasPrefix(f.data[at:], run.Data) {
		return at
	}
	return -1
}

// holds finds the frame that a run's bytes are in.
func holds(frames []frame, run *experiment.HookRun) (f *frame, at int) {
	for i := range frames {
		if at := within(run, &frames[i]); at >= 0 {
			return &frames[i], at
		}
	}
	return nil, 0
}

// parseHead finds the headers of a message that was not on the wire.
func parseHead(run *experiment.HookRun) (first string, headers []string) {
	if len(run.Data) > 0 && run.Len == len(longPayload) && bytes.HasPrefix(longPayload, run.Data) {
		return payload, []string{payload}
	}
	return parseMessage(run.Data)
}

// reachedAt compares bytes with a header on the wire, and with what the program saw from offset 0 on.
func (o *observation) reachedAt(b []byte, header func(*frame) []byte, runs []experiment.HookRun) string {
	var seen []record
	for i := range runs {
		seen = append(seen, record{data: runs[i].Data})
	}
	return o.reached(b, b == nil, header, seen)
}

// linear finds which part of packets the program can read directly: of those that fit the MTU, and of
// a message that does not.
func (h *hooking) linear(ran []int) error {
	var direct []int
	for _, i := range ran {
		if h.hooks[i].Direct {
			direct = append(direct, i)
		}
	}
	if len(direct) == 0 {
		return nil
	}
	small, _, err := h.at(trial{payload: reference, echo: h.echoes(ran)}, direct, h.pass)
	if err != nil {
		return err
	}
	size := 4000
	if h.row.Kind.Stream() {
		size = 40000
	}
	large, _, err := h.at(trial{mtu: smallMTU, payload: bytes.Repeat([]byte("x"), size), echo: h.echoes(ran)}, direct, h.pass)
	if err != nil {
		return err
	}
	for _, i := range direct {
		l := &Linear{Same: true, Whole: true, Part: -1}
		for _, run := range small.runs[h.hooks[i].Name] {
			l.Same = l.Same && bytes.Equal(run.Direct, run.Data[:min(len(run.Direct), len(run.Data))])
			l.Whole = l.Whole && run.Linear == run.Len
		}
		for _, run := range large.runs[h.hooks[i].Name] {
			if run.Linear < run.Len && (l.Part < 0 || run.Linear < l.Part) {
				l.Part = run.Linear
			}
		}
		h.found[i].Linear = l
	}
	return nil
}

// verdict tries what happens to the probe when the program at a hook returns a number.
func (h *hooking) verdict(i, number int) (Outcome, error) {
	o, _, err := h.at(trial{payload: longPayload, echo: h.echoes([]int{i})}, []int{i}, func(int) int { return number })
	if err != nil {
		return Outcome{}, err
	}
	got, ended := o.delivered(h.row.Kind)
	if h.places[i].Place == experiment.OnPacketSocket {
		got, ended = longest(o.watched), false
	}
	outcome := Outcome{Keep: number, Messages: len(got), Ended: ended, Probe: probeOutcome(o.probeErr)}
	for _, message := range got {
		outcome.Bytes += len(message)
	}
	return outcome, nil
}

// longest is the longest of all messages, if there is one: how many there are may depend on chance.
func longest(all [][]byte) (one [][]byte) {
	for _, message := range all {
		if len(one) == 0 || len(message) > len(one[0]) {
			one = [][]byte{message}
		}
	}
	return one
}

// egress is the hook that what a socket sends passes.
const egress = "cgroup_skb/egress"
