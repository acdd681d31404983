package bpf

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Call is what a record of Reads is about: a system call.
type Call uint32

// The calls, as enum call in reads.h has them. Those up to CallSplice receive.
const (
	CallRead Call = iota + 1
	CallReadv
	CallRecvfrom
	CallRecvmsg
	CallRecvmmsg
	CallSplice
	CallAccept
	CallClose
	CallSocket
	CallFork
	CallExec
	CallIOUring
	CallDup
)

var callNames = [...]string{
	CallRead: "read", CallReadv: "readv", CallRecvfrom: "recvfrom", CallRecvmsg: "recvmsg", CallRecvmmsg: "recvmmsg",
	CallSplice: "splice", CallAccept: "accept", CallClose: "close", CallSocket: "socket", CallFork: "fork", CallExec: "execve",
	CallIOUring: "io_uring_setup", CallDup: "dup",
}

// String is the system call's name.
func (c Call) String() string {
	if int(c) < len(callNames) {
		return callNames[c]
	}
	return fmt.Sprintf("call %d", uint32(c))
}

// Piece is one piece of what a system call of a watched process returned. The
// embedded fields are those of struct read in reads.h, which documents each.
type Piece struct {
	readsRead
	// Data holds Caplen bytes of the message, from Offset on.
	Data []byte

	raw ringbuf.Record
}

const pieceSize = int(unsafe.Sizeof(readsRead{}))

// errPiece is what every error of DecodePiece is.
var errPiece = errors.New("not a record of a system call")

// DecodePiece reads a record as the program wrote it, in native byte order.
// p.Data is a part of sample.
func DecodePiece(sample []byte, p *Piece) error {
	if len(sample) < pieceSize {
		return fmt.Errorf("%w: %d bytes, at least %d expected", errPiece, len(sample), pieceSize)
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&p.readsRead)), pieceSize), sample)
	if room := len(sample) - pieceSize; uint64(p.Caplen) > uint64(room) {
		return fmt.Errorf("%w: claims %d bytes, has room for %d", errPiece, p.Caplen, room)
	}
	if uint64(p.Offset)+uint64(p.Caplen) > uint64(p.Wanted) {
		return fmt.Errorf("%w: bytes %d to %d of %d", errPiece, p.Offset, uint64(p.Offset)+uint64(p.Caplen), p.Wanted)
	}
	if int(p.NameLen) > len(p.Name) {
		return fmt.Errorf("%w: an address of %d bytes", errPiece, p.NameLen)
	}
	p.Data = sample[pieceSize : pieceSize+int(p.Caplen) : pieceSize+int(p.Caplen)]
	return nil
}

// Kind is the system call that the piece is of.
func (p *Piece) Kind() Call { return Call(p.Call) }

// Peer is the address that the call returned: the sender's, or that of the
// peer of an accepted connection. Invalid if there is none.
func (p *Piece) Peer() netip.AddrPort {
	name := p.Name[:p.NameLen]
	switch {
	case len(name) >= unix.SizeofSockaddrInet4 && family(name) == unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(name[4:8])), port(name))
	case len(name) >= unix.SizeofSockaddrInet6 && family(name) == unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(name[8:24])), port(name))
	}
	return netip.AddrPort{}
}

func family(name []byte) uint16 { return *(*uint16)(unsafe.Pointer(&name[0])) }
func port(name []byte) uint16   { return uint16(name[2])<<8 | uint16(name[3]) }

// ReadsOptions say how Reads record. The zero value is usable.
type ReadsOptions struct {
	// RingSize is the size of the ring buffer in bytes, rounded up to a power of
	// two. Default: DefaultRingSize.
	RingSize int
	// Snaplen is the most bytes recorded of a message. Default: MaxSnaplen.
	Snaplen int
}

// Reads follows what watched processes get from receiving system calls on
// watched sockets.
//
// Needs Linux 5.8, CAP_BPF and CAP_PERFMON.
type Reads struct {
	objects struct {
		readsObjects
		Data *ebpf.Map `ebpf:".data"`
	}
	links  []io.Closer
	raw    bool // at the tracepoints of all calls
	reader *ringbuf.Reader
}

// OpenReads loads the programs into the kernel. No process is watched yet.
//
// It costs every process some 70 ns a system call, and 700 ns each that receives;
// a watched one that receives, some 1.6 us. Without CAP_SYS_ADMIN and a mounted
// tracefs it is 280 ns each system call.
//
// An error is a *MissingError if a privilege or a feature of the kernel is missing.
func OpenReads(opts ReadsOptions) (*Reads, error) { return openReads(opts, false) }

// openReads can be told to go by raw tracepoints.
func openReads(opts ReadsOptions, raw bool) (_ *Reads, err error) {
	sizes, err := Options{RingSize: opts.RingSize, Snaplen: opts.Snaplen}.withDefaults()
	if err != nil {
		return nil, err
	}
	_ = rlimit.RemoveMemlock() // as in Open
	spec, err := loadReads()
	if err != nil {
		return nil, fmt.Errorf("reading the object: %w", err)
	}
	spec.Maps[readsMapReadRing].MaxEntries = uint32(sizes.RingSize)
	if err := setUpReads(spec, uint32(sizes.Snaplen)); err != nil {
		return nil, err
	}
	calls, err := openTracefs()
	if err == nil {
		defer calls.close()
		err = calls.setUp(spec)
	}
	raw = raw || err != nil
	r := &Reads{}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	if err := spec.LoadAndAssign(&r.objects, nil); err != nil {
		return nil, diagnoseReads(err)
	}
	if r.reader, err = ringbuf.NewReader(r.objects.ReadRing); err != nil {
		return nil, fmt.Errorf("opening the ring of the system calls: %w", err)
	}
	if !raw && r.attachCalls(calls) == nil {
		return r, nil
	}
	r.raw = true
	if err := r.detach(); err != nil {
		return nil, err
	}
	return r, r.attachRaw()
}

// attachRaw puts the programs at the tracepoints of all calls.
func (r *Reads) attachRaw() error {
	programs := []link.RawTracepointOptions{
		{Name: "sys_enter", Program: r.objects.Entered},
		{Name: "sys_exit", Program: r.objects.Returned},
	}
	if Preemptible() {
		programs = append(programs, link.RawTracepointOptions{Name: "sys_exit", Program: r.objects.ReturnedAgain})
	}
	for _, p := range programs {
		l, err := link.AttachRawTracepoint(p)
		if err != nil {
			return diagnoseReads(err)
		}
		r.links = append(r.links, l)
	}
	return nil
}

// Preemptible tells whether the kernel lets others run in the middle of a
// tracepoint's program, as Linux does from 7.0 on. Then calls can be missed.
func Preemptible() bool {
	var name unix.Utsname
	_ = unix.Uname(&name)
	var major int
	_, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.", &major)
	return err == nil && major >= 7
}

func diagnoseReads(err error) error {
	const doing = "following system calls"
	if errors.Is(err, unix.EPERM) && !HasCapability(unix.CAP_PERFMON) {
		missing := Capability(unix.CAP_PERFMON).Lacks(doing, err)
		missing.Otherwise = "choose --view kernel, which does without"
		return missing
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, os.ErrNotExist) {
		return &MissingError{
			What: "this kernel has no tracepoints at system calls",
			Hint: "choose --view kernel, or a kernel with CONFIG_HAVE_SYSCALL_TRACEPOINTS and CONFIG_BPF_EVENTS",
			Err:  err,
		}
	}
	return diagnose(doing, err)
}

// pidNamespace is the process id namespace of this process; nested if it is not
// the first one.
func pidNamespace() (st unix.Stat_t, nested bool) {
	err := unix.Stat("/proc/self/ns/pid", &st)
	return st, err == nil && st.Ino != firstNamespace
}

// firstNamespace is the inode of the first process id namespace, in all kernels.
const firstNamespace = 0xEFFFFFFC

func setUpReads(spec *ebpf.CollectionSpec, snaplen uint32) error {
	number, size, arguments, calls, ok := registers()
	if !ok {
		return &MissingError{
			What: "following system calls is not supported on " + runtime.GOARCH,
			Hint: "choose --view kernel",
			Err:  errors.ErrUnsupported,
		}
	}
	errs := []error{
		spec.Variables[readsVarReadSnaplen].Set(snaplen),
		spec.Variables[readsVarNumberAt].Set(number),
		spec.Variables[readsVarRegistersSize].Set(size),
		spec.Variables[readsVarArgumentAt].Set(arguments),
	}
	for name, nr := range calls {
		errs = append(errs, spec.Variables[name].Set(nr))
	}
	if st, nested := pidNamespace(); nested {
		errs = append(errs,
			spec.Variables[readsVarNamespaceDevice].Set(uint64(st.Dev)),
			spec.Variables[readsVarNamespaceInode].Set(uint64(st.Ino)))
	}
	if Preemptible() {
		errs = append(errs, spec.Variables[readsVarTwice].Set(uint32(1)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("setting up the programs: %w", err)
	}
	return nil
}

// DiscoverProcess begins to watch a process, and those that it forks from now on,
// unless it is watched already because it was forked itself.
func (r *Reads) DiscoverProcess(pid uint32) error {
	err := r.watch(pid, readsWatchedProcess{}, ebpf.UpdateNoExist)
	if errors.Is(err, ebpf.ErrKeyExist) {
		return nil
	}
	return err
}

// WatchProcess begins to watch a process, and those that it forks from now on.
// Until it is called for one of those, the sockets of its parent are its own too.
func (r *Reads) WatchProcess(pid uint32) error {
	var w readsWatchedProcess // what is known of it stays
	if r.objects.Processes.Lookup(pid, &w) == nil && w.Parent == 0 {
		return nil
	}
	w.Parent = 0
	return r.watch(pid, w, ebpf.UpdateAny)
}

func (r *Reads) watch(pid uint32, w readsWatchedProcess, flags ebpf.MapUpdateFlags) error {
	if err := r.objects.Processes.Update(pid, w, flags); err != nil {
		return fmt.Errorf("watching process %d: %w", pid, err)
	}
	if !r.raw {
		r.noteBlocked(pid)
	}
	return nil
}

// ForgetProcess ends what WatchProcess began.
func (r *Reads) ForgetProcess(pid uint32) { _ = r.objects.Processes.Delete(pid) }

// WatchSocket begins to record what a process gets from a descriptor. id is what
// the records will call the socket; it must be below 2^63. A descriptor that is
// watched already keeps its id.
func (r *Reads) WatchSocket(pid uint32, fd int32, id uint64) error {
	var w readsWatchedProcess
	_ = r.objects.Processes.Lookup(pid, &w)
	key, fresh := readsDescriptor{Pid: pid, Fd: fd}, readsWatchedSocket{Id: id, Since: w.Forks}
	err := r.objects.Descriptors.Update(key, fresh, ebpf.UpdateNoExist)
	var known readsWatchedSocket
	if errors.Is(err, ebpf.ErrKeyExist) && r.objects.Descriptors.Lookup(key, &known) == nil && known.Closed != 0 {
		err = r.objects.Descriptors.Update(key, fresh, ebpf.UpdateAny)
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("watching descriptor %d of process %d: %w", fd, pid, err)
	}
	return nil
}

// WatchInherited begins to record what a child gets from a descriptor that it
// has from its parent, until WatchProcess is called for it. It tells whether the
// parent's was watched when it forked.
func (r *Reads) WatchInherited(pid uint32, fd int32) bool {
	var w readsWatchedProcess
	if r.objects.Processes.Lookup(pid, &w) != nil || w.Parent == 0 {
		return false
	}
	s, ok := r.inherited(w, fd)
	if !ok {
		return false
	}
	s.Since = w.Forks
	err := r.objects.Descriptors.Update(readsDescriptor{Pid: pid, Fd: fd}, s, ebpf.UpdateNoExist)
	return err == nil || errors.Is(err, ebpf.ErrKeyExist)
}

// inherited finds what a child's parent had when it forked, as the program does.
func (r *Reads) inherited(w readsWatchedProcess, fd int32) (s readsWatchedSocket, ok bool) {
	if r.objects.Descriptors.Lookup(readsDescriptor{Pid: w.Parent, Fd: fd}, &s) == nil && s.Closed == 0 && s.Since < w.Born {
		return s, true
	}
	const tries = 32 // LEFT_TRIES
	for n := range uint32(tries) {
		left := readsLeftDescriptor{Pid: w.Parent, Fd: fd, Forks: w.Born + n}
		if r.objects.LeftDescriptors.Lookup(left, &s) == nil {
			return s, s.Since < w.Born
		}
	}
	return s, false
}

// ForgetSocket ends what WatchSocket began, if the descriptor is still the
// socket that was called id.
func (r *Reads) ForgetSocket(pid uint32, fd int32, id uint64) {
	var s readsWatchedSocket
	key := readsDescriptor{Pid: pid, Fd: fd}
	if err := r.objects.Descriptors.Lookup(key, &s); err == nil && s.Id == id {
		_ = r.objects.Descriptors.Delete(key)
	}
}

// Read takes the next piece that is there already, or returns
// os.ErrDeadlineExceeded. The piece is good until the next Read into it.
func (r *Reads) Read(p *Piece) error {
	// A deadline in the past makes the reader look at the ring and not wait.
	r.reader.SetDeadline(time.Unix(1, 0))
	if err := r.reader.ReadInto(&p.raw); err != nil {
		return err
	}
	return DecodePiece(p.raw.RawSample, p)
}

// ReadCounters is the ledger of Reads: Seen = Recorded + RingFull + Fault.
type ReadCounters struct {
	// Seen counts the pieces that were to be recorded.
	Seen uint64
	// Recorded counts the pieces that went into the ring.
	Recorded uint64
	// RingFull counts the pieces that found no room in the ring.
	RingFull uint64
	// Fault counts the pieces that the kernel could not read from the process's memory.
	Fault uint64
	// Truncated counts the calls whose bytes were more than the snaplen or in too many pieces.
	Truncated uint64
	// Untracked counts the accepted connections for which there was no room in the table.
	Untracked uint64
	// Missed counts the calls for which the kernel did not run the programs, in the
	// whole system, or had no room for their arguments: few of them will have been
	// calls that matter.
	Missed uint64
}

// Lost is the number of pieces that should be in the capture and are not. What
// was missed may add to it.
func (c ReadCounters) Lost() uint64 { return c.RingFull + c.Fault + c.Untracked }

// Counters reads the ledger as it stands, summed over all cpus.
func (r *Reads) Counters() (ReadCounters, error) {
	var (
		percpu []readsReadCounters
		sum    ReadCounters
	)
	if err := r.objects.ReadCounts.Lookup(uint32(0), &percpu); err != nil {
		return sum, fmt.Errorf("reading the counters of the system calls: %w", err)
	}
	for _, c := range percpu {
		sum.Seen += c.Seen
		sum.Recorded += c.Recorded
		sum.RingFull += c.RingFull
		sum.Fault += c.Fault
		sum.Truncated += c.Truncated
		sum.Untracked += c.Untracked
		sum.Missed += c.Forgotten
	}
	o := &r.objects
	decisive := []*ebpf.Program{o.Begins1, o.Begins2, o.Begins3, o.Begins4, o.Begins6, o.Ends}
	switch {
	case r.raw && Preemptible():
		decisive = []*ebpf.Program{o.ReturnedAgain}
	case r.raw:
		decisive = []*ebpf.Program{o.Returned}
	}
	for _, p := range decisive {
		if stats, err := p.Stats(); err == nil {
			sum.Missed += stats.RecursionMisses
		}
	}
	return sum, nil
}

// Links are copies of the descriptors that keep the programs at single calls.
// The kernel takes some 60 ms to detach each; as long as another process holds
// copies, Stop and Close do not wait for that.
func (r *Reads) Links() ([]*os.File, error) {
	var all []*os.File
	for _, l := range r.links {
		event, ok := l.(perfEvent)
		if !ok {
			continue
		}
		fd, err := unix.FcntlInt(uintptr(event), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return all, fmt.Errorf("copying a tracepoint's descriptor: %w", err)
		}
		all = append(all, os.NewFile(uintptr(fd), "tracepoint"))
	}
	return all, nil
}

// Stop ends the recording. What is in the ring stays readable.
func (r *Reads) Stop() error {
	if err := r.objects.Following.Set(uint32(0)); err != nil {
		return fmt.Errorf("stopping to follow system calls: %w", err)
	}
	return r.detach()
}

// Switch ends the recording as Stop does, without detaching. It outlives the Reads.
func (r *Reads) Switch() (Switch, error) { return copySwitch(r.objects.Data) }

func (r *Reads) detach() error {
	var errs []error
	for _, l := range r.links {
		errs = append(errs, l.Close())
	}
	r.links = nil
	return errors.Join(errs...)
}

// Close gives the programs up. It is safe to call it twice.
func (r *Reads) Close() error {
	err := r.detach()
	if r.reader != nil {
		if cerr := r.reader.Close(); cerr != nil && !errors.Is(cerr, os.ErrClosed) {
			err = errors.Join(err, cerr)
		}
	}
	return errors.Join(err, r.objects.Data.Close(), r.objects.Close())
}
