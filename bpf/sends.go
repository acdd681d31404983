package bpf

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// sends records what sending system calls take, into the ring of Calls. It has programs and an
// account of its own, and is attached in the same ways.
type sends struct {
	objects *loaded
	counts  *counts[callsEventCounters]
	links   []io.Closer
	way     way
	probes  probes
	single  singlePoints
}

// openSends loads the programs, with the maps that they share with Calls, and attaches them in
// one way, or else at the raw tracepoints.
func openSends(
	spec *ebpf.CollectionSpec, types func() *btf.Spec, shared map[string]*ebpf.Map, opts CallsOptions, snaplen uint32, first way,
) (_ *sends, err error) {
	spec.Maps[sendsMapEvents].MaxEntries = shared[sendsMapEvents].MaxEntries()
	if err := sizeCounts(spec.Maps[sendsMapEventCounts]); err != nil {
		return nil, err
	}
	if first == atFunctions && setSession(spec, sendsProgCalledToSend) != nil {
		first = atRawTracepoints
	}
	if err := errors.Join(opts.choose(spec, snaplen), setPoints(spec, sendingCalls)); err != nil {
		return nil, fmt.Errorf("setting up the programs: %w", err)
	}
	s := &sends{way: first}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.objects, err = newLoaded(spec, types, shared); err != nil {
		return nil, diagnoseCalls(err)
	}
	if s.counts, err = openCounts[callsEventCounters](s.objects.maps[sendsMapEventCounts]); err != nil {
		return nil, err
	}
	switch {
	case first == atTracepoints && s.attachSingle(opts.attach) == nil:
	case first == atFunctions && s.attachProbes() == nil:
	default:
		var ends sync.WaitGroup
		s.detach(&ends)
		ends.Wait()
		s.way = atRawTracepoints
		err = s.attachRaw()
	}
	return s, err
}

// attachSingle attaches to the tracepoints of the single system calls.
func (s *sends) attachSingle(attach attachFunc) error {
	if err := s.single.open(sendingCalls); err != nil {
		return err
	}
	if err := s.objects.load([]string{sendsProgEndsToSend}, []string{sendsProgBeginsToSend}); err != nil {
		return err
	}
	return s.single.attach(s.objects.programs[sendsProgBeginsToSend], s.objects.programs[sendsProgEndsToSend], attach)
}

// attachProbes attaches to the functions of the system calls.
func (s *sends) attachProbes() error {
	if err := s.objects.load([]string{sendsProgCalledToSend}); err != nil {
		return err
	}
	all := link.KprobeMultiOptions{Session: true}
	for _, call := range sendingCalls {
		all.Symbols = append(all.Symbols, functionPrefixes[runtime.GOARCH]+call.kernelName())
		all.Cookies = append(all.Cookies, uint64(call.call))
	}
	probes, err := link.KprobeMulti(s.objects.programs[sendsProgCalledToSend], all)
	if err != nil {
		return err
	}
	s.links = append(s.links, probes)
	s.probes.link = probes
	return nil
}

// attachRaw attaches to the raw tracepoints of all system calls.
func (s *sends) attachRaw() error {
	programs := []attachment{{"sys_exit", sendsProgReturnedToSend}, {"sys_enter", sendsProgEnteredToSend}}
	if Preemptible() {
		programs = append(programs, attachment{"sys_exit", sendsProgReturnedToSendAgain}, attachment{"sys_enter", sendsProgEnteredToSendAgain})
	}
	for _, p := range programs {
		if err := s.objects.load([]string{p.program}); err != nil {
			return diagnoseCalls(err)
		}
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: p.tracepoint, Program: s.objects.programs[p.program]})
		if err != nil {
			return diagnoseCalls(err)
		}
		s.links = append(s.links, l)
	}
	return nil
}

// counters reads the account of the sends.
func (s *sends) counters() (CallCounters, error) {
	sum, err := sumCallCounters(s.counts)
	if err != nil {
		return sum, err
	}
	missed := s.objects.recursionMisses
	switch {
	case s.way == atFunctions:
		sum.Missed += missed(sendsProgCalledToSend) + s.probes.missed()
	case s.way == atTracepoints:
		sum.Missed += missed(sendsProgBeginsToSend) + missed(sendsProgEndsToSend)
	case Preemptible():
		// As in Calls, a call is missed if both copies miss it.
		sum.Missed += min(missed(sendsProgEnteredToSend), missed(sendsProgEnteredToSendAgain))
		sum.Missed += min(missed(sendsProgReturnedToSend), missed(sendsProgReturnedToSendAgain))
	default:
		sum.Missed += missed(sendsProgEnteredToSend) + missed(sendsProgReturnedToSend)
	}
	return sum, nil
}

// stop ends the recording.
func (s *sends) stop() error {
	if err := s.objects.variables[sendsVarFollowing].Set(uint32(0)); err != nil {
		return fmt.Errorf("stopping to follow sends: %w", err)
	}
	return nil
}

// detach begins to detach the programs.
func (s *sends) detach(ends *sync.WaitGroup) {
	s.probes.release()
	s.single.detach(ends)
	for _, l := range s.links {
		ends.Go(func() { _ = l.Close() })
	}
	s.links = nil
}

// close releases everything, after detach.
func (s *sends) close() error {
	var ends sync.WaitGroup
	s.detach(&ends)
	ends.Wait()
	return errors.Join(s.single.close(), s.counts.close(), s.objects.Close())
}

// kernelName is the name of the call in the kernel.
func (s *syscall) kernelName() string {
	if s.call == CallSendfile {
		return "sendfile64" // that of 64-bit programs
	}
	return s.name
}

// sendingCalls is the table of the calls that send.
var sendingCalls = []syscall{
	{call: CallWrite, name: "write"},
	{call: CallWritev, name: "writev"},
	{call: CallPwritev2, name: "pwritev2"},
	{call: CallSendto, name: "sendto"},
	{call: CallSendmsg, name: "sendmsg"},
	{call: CallSendmmsg, name: "sendmmsg"},
	{call: CallSendfile, name: "sendfile"},
	{call: CallSpliceTo, name: "splice"},
}
