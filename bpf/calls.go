package bpf

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/capability"
)

// Choice is which sockets' calls are recorded.
type Choice uint32

const (
	// ChooseAll is internet sockets, and unix sockets other than streams.
	ChooseAll Choice = iota
	// ChoosePorts is internet sockets by their own or their peer's port.
	ChoosePorts
	// ChooseKnown is sockets that Known was called for, and those that they accept.
	ChooseKnown
)

// CallsOptions say how Calls record. The zero value is usable.
type CallsOptions struct {
	// RingSize is the size of the ring buffer in bytes, rounded up to a power of
	// two. Default: DefaultRingSize.
	RingSize int
	// Snaplen is the most bytes recorded of a message. Default: MaxSnaplen.
	Snaplen int
	// Choose says which sockets' calls are recorded. Default: ChooseAll.
	Choose Choice
	// UnixStreams adds unix streams to ChooseAll.
	UnixStreams bool
	// Ports are those of ChoosePorts.
	Ports []uint16
	// NewsOfAll asks for an event for every new socket. Default: only for those that the
	// Hook does not mark when they are created.
	NewsOfAll bool
	// NewsOnly leaves out what receiving system calls return: of them there is only news of
	// sockets, and what they bring is not copied.
	NewsOnly bool
	// Sends also records what sending system calls take. Default: they are not followed, and
	// cost nothing.
	Sends bool

	attach attachFunc // to the tracepoints of single calls; nil but in tests
}

// Calls records what the processes of a Hook get from receiving system calls, and on demand
// what they send.
//
// Needs Linux 5.8 with BTF, CAP_BPF and CAP_PERFMON.
type Calls struct {
	objects *loaded
	links   []io.Closer
	way     way
	probes  probes
	counts  *counts[callsEventCounters]
	ring    *ring
	ends    sync.WaitGroup // links that are being closed
	single  singlePoints
	uring   *uring
	// noURing is why there is no uring.
	noURing error
	sends   *sends // nil if nobody asked for it
}

// way is where the programs are attached.
type way int

const (
	// atTracepoints of the single system calls.
	atTracepoints way = iota
	// atRawTracepoints of all system calls, which need no tracefs, and cost more.
	atRawTracepoints
	// atFunctions of the system calls, where nobody is preempted: from Linux 7.0 on.
	atFunctions
)

func bestWay() way {
	if Preemptible() {
		return atFunctions
	}
	return atTracepoints
}

// OpenCalls loads and attaches the programs, for the processes that the hook follows.
//
// Every process pays some 70 ns for each system call, a followed one also for the copy of
// what it receives. Without CAP_SYS_ADMIN and tracefs, or from Linux 7.0 on without
// CONFIG_FPROBE, it is more.
//
// An error is a *MissingError if a privilege or a feature of the kernel is missing.
func OpenCalls(hook *Hook, opts CallsOptions) (*Calls, error) {
	return openCallsOf(hook, opts, bestWay())
}

// openCallsOf tries one way, and then the raw tracepoints.
func openCallsOf(hook *Hook, opts CallsOptions, first way) (*Calls, error) {
	specs, err := readObjects(opts.objects()...)
	if err != nil {
		return nil, err
	}
	types := sync.OnceValue(func() *btf.Spec { return kernelTypes(specs...) })
	return openCalls(specs, types, hook.objects.maps[hookMapProcesses], opts, first)
}

// objects are those that the options need, in the order in which openCalls takes them.
func (opts CallsOptions) objects() []func() (*ebpf.CollectionSpec, error) {
	all := []func() (*ebpf.CollectionSpec, error){loadCalls, loadUring}
	if opts.Sends {
		all = append(all, loadSends)
	}
	return all
}

func openCalls(
	specs []*ebpf.CollectionSpec, types func() *btf.Spec, processes *ebpf.Map, opts CallsOptions, first way,
) (_ *Calls, err error) {
	spec := specs[0]
	sizes, err := Options{RingSize: opts.RingSize, Snaplen: opts.Snaplen}.withDefaults()
	if err != nil {
		return nil, err
	}
	_ = rlimit.RemoveMemlock() // as in Open
	sizeRing(spec.Maps[callsMapEvents], sizes.RingSize)
	if err := sizeCounts(spec.Maps[callsMapEventCounts]); err != nil {
		return nil, err
	}
	if first == atFunctions && setSession(spec, callsProgCalled) != nil {
		first = atRawTracepoints
	}
	if err := opts.set(spec, uint32(sizes.Snaplen)); err != nil {
		return nil, err
	}
	c := &Calls{}
	var opening sync.WaitGroup
	defer func() {
		opening.Wait()
		if err != nil {
			c.Close()
		}
	}()
	// In the background, since the first tracepoint takes the kernel tens of milliseconds.
	noSingle := errors.ErrUnsupported
	if first == atTracepoints {
		opening.Go(func() { noSingle = c.single.open(syscalls) })
	}
	shared := map[string]*ebpf.Map{callsMapProcesses: processes}
	if c.objects, err = newLoaded(spec, types, shared, callsMapTaken); err != nil {
		return nil, diagnoseCalls(err)
	}
	if c.ring, err = openRing(c.objects.maps[callsMapEvents]); err != nil {
		return nil, fmt.Errorf("opening the ring of the system calls: %w", err)
	}
	if c.counts, err = openCounts[callsEventCounters](c.objects.maps[callsMapEventCounts]); err != nil {
		return nil, err
	}
	// A kernel may lack what this needs: that matters only to processes that use io_uring.
	var loading sync.WaitGroup
	shared = c.objects.some(uringMapEvents, uringMapEventCounts, uringMapProcesses, uringMapKnown, uringMapPlaces)
	loading.Go(func() { c.uring, c.noURing = openURing(specs[1], types, shared, opts, uint32(sizes.Snaplen)) })
	var noSends error
	if opts.Sends {
		shared := c.objects.some(sendsMapEvents, sendsMapProcesses, sendsMapKnown)
		loading.Go(func() { c.sends, noSends = openSends(specs[2], types, shared, opts, uint32(sizes.Snaplen), first) })
	}
	defer func() {
		loading.Wait()
		err = errors.Join(err, noSends)
	}()
	switch {
	case first == atTracepoints && c.loadSingle() == nil:
		if opening.Wait(); noSingle == nil && c.attachSingle(opts.attach) == nil {
			return c, nil
		}
	case first == atFunctions && c.attachProbes() == nil:
		c.way = atFunctions
		return c, nil
	}
	opening.Wait()
	c.way = atRawTracepoints
	c.detach()
	c.ends.Wait() // a call that both see would be recorded twice
	return c, c.attachRaw()
}

func (opts CallsOptions) set(spec *ebpf.CollectionSpec, snaplen uint32) error {
	if _, _, _, ok := registers(); !ok {
		return &MissingError{
			What:    "following system calls is not supported on " + runtime.GOARCH,
			Hint:    "choose no CallsOptions",
			Setting: SettingCalls,
			Err:     errors.ErrUnsupported,
		}
	}
	err := errors.Join(
		opts.choose(spec, snaplen),
		setPoints(spec, syscalls),
		spec.Variables[callsVarWantsAck].Set(flag(opts.Sends)),
	)
	if err != nil {
		return fmt.Errorf("setting up the programs: %w", err)
	}
	return nil
}

// setPoints sets the variables of the programs at system calls: where the registers are, and
// which calls they follow.
func setPoints(spec *ebpf.CollectionSpec, table []syscall) error {
	number, size, arguments, _ := registers()
	parameter, returned := functionRegisters()
	var callOf [1024]uint8
	for _, s := range table {
		if nr, ok := numbers[s.name]; ok && nr < len(callOf) {
			callOf[nr] = uint8(s.call)
		}
	}
	v := spec.Variables
	return errors.Join(
		v[callsVarNumberAt].Set(number),
		v[callsVarRegistersSize].Set(size),
		v[callsVarArgumentAt].Set(arguments),
		v[callsVarCallOf].Set(callOf),
		v[callsVarParameterAt].Set(parameter),
		v[callsVarReturnedAt].Set(returned),
	)
}

// choose sets the variables that the programs of both objects have.
func (opts CallsOptions) choose(spec *ebpf.CollectionSpec, snaplen uint32) error {
	var ports [MaxPorts]uint16
	if copy(ports[:], opts.Ports) < len(opts.Ports) {
		return fmt.Errorf("choosing by ports: %d are more than %d", len(opts.Ports), MaxPorts)
	}
	v := spec.Variables
	errs := []error{
		v[callsVarMessageSnaplen].Set(snaplen),
		v[callsVarWakesReader].Set(flag(!Preemptible())),
		v[callsVarChoose].Set(uint32(opts.Choose)),
		v[callsVarUnixStreams].Set(flag(opts.UnixStreams)),
		v[callsVarPorts].Set(ports),
		v[callsVarPortCount].Set(uint32(len(opts.Ports))),
		v[callsVarNewsOfAll].Set(flag(opts.NewsOfAll)),
		v[callsVarRecordsReceived].Set(flag(!opts.NewsOnly)),
	}
	if st, nested := pidNamespace(); nested {
		errs = append(errs, v[callsVarNamespaceInode].Set(uint32(st.Ino)))
	}
	return errors.Join(errs...)
}

// attachRaw loads and attaches the programs for the raw tracepoints of all calls.
func (c *Calls) attachRaw() error {
	programs := []attachment{{"sys_enter", callsProgEntered}, {"sys_exit", callsProgReturned}}
	twice := Preemptible()
	if twice {
		programs = append(programs, attachment{"sys_exit", callsProgReturnedAgain})
	}
	err := errors.Join(c.objects.variables[callsVarProbed].Set(uint32(0)), c.objects.variables[callsVarTwice].Set(flag(twice)))
	if err != nil {
		return fmt.Errorf("setting up the programs: %w", err)
	}
	return c.attachTo(programs)
}

// attachTo loads programs and attaches them to raw tracepoints.
func (c *Calls) attachTo(programs []attachment) error {
	if c.objects.maps[callsMapTaken] == nil {
		if err := c.objects.makeMaps(callsMapTaken); err != nil {
			return diagnoseCalls(err)
		}
	}
	for _, p := range programs {
		if err := c.objects.load([]string{p.program}); err != nil {
			return diagnoseCalls(err)
		}
	}
	for _, p := range programs {
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: p.tracepoint, Program: c.objects.programs[p.program]})
		if err != nil {
			return diagnoseCalls(err)
		}
		c.links = append(c.links, l)
	}
	return nil
}

// loadSingle loads the programs for the tracepoints of single system calls.
func (c *Calls) loadSingle() error {
	return c.objects.load([]string{callsProgEnds}, []string{callsProgBegins})
}

// attachSingle attaches them.
func (c *Calls) attachSingle(attach attachFunc) error {
	return c.single.attach(c.objects.programs[callsProgBegins], c.objects.programs[callsProgEnds], attach)
}

// Preemptible tells whether a task can be preempted in the middle of a tracepoint's program,
// as from Linux 7.0 on. Then the kernel skips the program for the next task, and its call is
// missed.
func Preemptible() bool {
	major, _ := version()
	return major >= 7
}

// version is that of the kernel; zeros if it is not known.
func version() (major, minor int) {
	if _, err := fmt.Sscanf(release(), "%d.%d", &major, &minor); err != nil {
		return 0, 0
	}
	return major, minor
}

func diagnoseCalls(err error) error {
	const doing = "following system calls"
	if errors.Is(err, unix.EPERM) && !capability.Held(unix.CAP_PERFMON) {
		return LacksCapability(unix.CAP_PERFMON, doing, err)
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, os.ErrNotExist) {
		return &MissingError{
			What:      "this kernel has no tracepoints at system calls",
			Hint:      "choose no CallsOptions",
			Otherwise: "a kernel with CONFIG_HAVE_SYSCALL_TRACEPOINTS and CONFIG_BPF_EVENTS",
			Setting:   SettingCalls,
			Err:       err,
		}
	}
	return Diagnose(doing, err)
}

// pidNamespace is the pid namespace of this process; nested if it is not the initial one.
func pidNamespace() (st unix.Stat_t, nested bool) {
	err := unix.Stat("/proc/self/ns/pid", &st)
	return st, err == nil && st.Ino != firstNamespace
}

// firstNamespace is the inode of the initial pid namespace (PROC_PID_INIT_INO).
const firstNamespace = 0xEFFFFFFC

// Known says that sockets have their mark: there will be no CallFound for them, and with
// ChooseKnown their calls are recorded. waiting is for listeners: the next so many
// connections that they accept cause a CallAccept, because they were in the backlog before
// the listener was marked and did not inherit the mark.
func (c *Calls) Known(waiting uint32, cookies ...uint64) error {
	values := slices.Repeat([]uint32{waiting}, len(cookies))
	if _, err := c.objects.maps[callsMapKnown].BatchUpdate(cookies, values, nil); err != nil {
		return fmt.Errorf("choosing sockets: %w", err)
	}
	return nil
}

// NoteBlocked notes the system calls in which the threads of a process are blocked, whose
// beginning was missed.
func (c *Calls) NoteBlocked(pid uint32) {
	if c.way != atTracepoints {
		return // raw tracepoints have the arguments at the end, too
	}
	folder := fmt.Sprintf("/proc/%d/task", pid)
	threads, _ := os.ReadDir(folder)
	for _, thread := range threads {
		tid, err := strconv.ParseUint(thread.Name(), 10, 32)
		if err != nil {
			continue
		}
		text, err := os.ReadFile(folder + "/" + thread.Name() + "/syscall")
		if err != nil {
			continue
		}
		if call, ok := parseBlocked(string(text)); ok {
			// A call that the thread has begun meanwhile is more recent.
			_ = c.objects.maps[callsMapBegun].Update(uint32(tid), call, ebpf.UpdateNoExist)
		}
	}
}

// parseBlocked reads /proc/PID/task/TID/syscall: the number of the call, and six
// arguments in hexadecimal. ok is false for a thread that is running, or in a call that is
// not followed.
func parseBlocked(text string) (b callsBegunCall, ok bool) {
	fields := strings.Fields(text)
	if len(fields) < 1+len(b.Arguments) {
		return b, false
	}
	nr, err := strconv.Atoi(fields[0])
	if err != nil {
		return b, false
	}
	for i := range b.Arguments {
		if b.Arguments[i], err = strconv.ParseUint(fields[1+i], 0, 64); err != nil {
			return b, false
		}
	}
	for _, s := range syscalls {
		if known, there := numbers[s.name]; there && known == nr {
			b.Call = uint32(s.call)
			return b, true
		}
	}
	return b, false
}

// Begin begins to read events in place, until End. After Close it returns os.ErrClosed; Close
// waits for End.
func (c *Calls) Begin() error { return c.ring.begin() }

// Next reads the next event. ok is false if there is none, or if it is still being written.
// Its Data is in the ring, and valid until End.
//
// An event's time is taken after the place of its first piece was reserved: a message whose
// first piece is behind what Reserved returned has a later time than that call.
func (c *Calls) Next(e *Event) (ok bool, err error) {
	record, _, ok := c.ring.take()
	if !ok {
		return false, nil
	}
	return true, DecodeEvent(record, e)
}

// Read copies the next event, or returns os.ErrDeadlineExceeded if there is none. The event is
// valid until the next Read into it.
func (c *Calls) Read(e *Event) error {
	if err := c.Begin(); err != nil {
		return err
	}
	defer c.End()
	ok, err := c.Next(e)
	if !ok {
		return os.ErrDeadlineExceeded
	}
	e.raw = append(e.raw[:0], e.Data...)
	e.Data = e.raw
	return err
}

// EndsSleep tells whether an event ends the Sleep of the Tap that was opened with the Calls.
// From Linux 7.0 on it does not: the reader would preempt the program that wakes it, and
// system calls that are made meanwhile would be missed.
func (c *Calls) EndsSleep() bool { return !Preemptible() }

// Reserved is the place behind all events that are in the ring now, complete or not.
func (c *Calls) Reserved() Place { return c.ring.reserved() }

// At is the place behind all events that Next has returned.
func (c *Calls) At() Place { return c.ring.next }

// End ends reading in place, and releases the events that Next has returned.
func (c *Calls) End() { c.ring.end(c.ring.next) }

// Stop ends the recording. What is in the ring stays readable. The programs are detached
// in the background until Close.
func (c *Calls) Stop() error {
	if err := c.objects.variables[callsVarFollowing].Set(uint32(0)); err != nil {
		return fmt.Errorf("stopping to follow system calls: %w", err)
	}
	if c.uring != nil {
		if err := c.uring.stop(); err != nil {
			return err
		}
		c.uring.detach(&c.ends)
	}
	if c.sends != nil {
		if err := c.sends.stop(); err != nil {
			return err
		}
		c.sends.detach(&c.ends)
	}
	c.detach()
	return nil
}

// detach begins to detach the programs, concurrently: for each the kernel waits until no cpu
// runs it any more, and these waits overlap.
func (c *Calls) detach() {
	c.probes.release()
	c.single.detach(&c.ends)
	for _, l := range c.links {
		c.ends.Go(func() { _ = l.Close() })
	}
	c.links = nil
}

// Close releases the programs. It is safe to call it twice.
func (c *Calls) Close() error {
	c.detach()
	if c.uring != nil {
		c.uring.detach(&c.ends)
	}
	if c.sends != nil {
		c.sends.detach(&c.ends)
	}
	c.ends.Wait()
	var err error
	if c.sends != nil {
		err = c.sends.close()
	}
	err = errors.Join(err, c.single.close())
	if c.ring != nil {
		err = errors.Join(err, c.ring.close())
	}
	if c.uring != nil {
		err = errors.Join(err, c.uring.objects.Close())
	}
	return errors.Join(err, c.counts.close(), c.objects.Close())
}
