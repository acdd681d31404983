package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

const (
	// MaxSnaplen is the most bytes of a packet that a record can hold.
	MaxSnaplen = 262144
	// DefaultRingSize is the size in bytes of the ring buffer, unless Options say otherwise.
	DefaultRingSize = 32 << 20
	// MinRingSize is the smallest ring, in bytes, that holds a record of MaxSnaplen.
	MinRingSize = 1 << 20
	// MaxRingSize is the largest ring, in bytes, that every supported kernel accepts.
	MaxRingSize = 1 << 30
)

// Options say how a Tap records. The zero value is usable.
type Options struct {
	// RingSize is the size of the ring buffer in bytes, rounded up to a power of
	// two. Default: DefaultRingSize.
	RingSize int
	// Snaplen is the most bytes recorded of a packet. Default: MaxSnaplen.
	Snaplen int
	// NoLink leaves the link header out of the records. Default: it is recorded.
	NoLink bool
	// WakeupBytes is the number of unread bytes at which a blocked Read is woken
	// before its deadline. 1 wakes it for each record that enters an empty ring.
	// Default: a quarter of the ring.
	WakeupBytes int
	// WakeFirst also wakes a Sleep for the first record after all were read and released.
	// A fast reader would be woken for each record, so it should pause before it reads,
	// as with Wait. Default: a Sleep is not woken so early.
	WakeFirst bool
	// Verdict decides what the socket keeps of each packet. Default: everything.
	Verdict *Verdict
	// Leased makes the tap record, and its Verdict apply, only for a Lease after each
	// Renew; afterwards it keeps everything. For sockets of other processes. Default: it
	// always works.
	Leased bool
	// Expression chooses which packets are recorded. Default: all.
	Expression *Expression
	// Notes leaves a note in the ring of a packet that the Expression does not choose: a record that is
	// Unwanted.
	Notes bool
}

// withDefaults fills in the defaults and refuses what no kernel would accept.
func (o Options) withDefaults() (Options, error) {
	if o.RingSize == 0 {
		o.RingSize = DefaultRingSize
	}
	if o.RingSize < MinRingSize || o.RingSize > MaxRingSize {
		return o, fmt.Errorf("ring of %d bytes: must be from %d to %d", o.RingSize, MinRingSize, MaxRingSize)
	}
	o.RingSize = 1 << bits.Len(uint(o.RingSize-1))
	if o.Snaplen == 0 {
		o.Snaplen = MaxSnaplen
	}
	if o.Snaplen < 1 || o.Snaplen > MaxSnaplen {
		return o, fmt.Errorf("snaplen of %d bytes: must be from 1 to %d", o.Snaplen, MaxSnaplen)
	}
	if o.WakeupBytes <= 0 {
		o.WakeupBytes = o.RingSize / 4
	}
	return o, nil
}

// Tap is a socket filter in the kernel, and the ring buffer into which it copies the packets
// of the sockets that it is attached to. Its Verdict decides what the sockets keep.
//
// Needs Linux 5.8 and CAP_BPF.
type Tap struct {
	objects struct {
		tapObjects
		Data *ebpf.Map `ebpf:".data"`
		Bss  *ebpf.Map `ebpf:".bss"`
	}
	ring     *ring
	counts   *counts[tapCounters]
	deadline time.Time // of Read
	ended    error     // what Read returns once the ring is empty
	size     int
	wakeup   int  // of the Options
	first    bool // of the Options: WakeFirst
	options  Options
	filter   *ebpf.Collection // what the Verdict's program refers to
	reject   Rejection
}

// Open loads a tap into the kernel, without attaching it to a socket.
//
// An error is a *MissingError if a privilege or a feature of the kernel is missing.
func Open(opts Options) (*Tap, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	return open(opts)
}

// open uses the options as they are: with WakeupBytes 0 every packet wakes the reader.
func open(opts Options) (*Tap, error) {
	// Before 5.11 maps count against RLIMIT_MEMLOCK. If the limit cannot be raised, loading
	// may still work, and its error says more if it does not.
	_ = rlimit.RemoveMemlock()

	if opts.Verdict == nil {
		return openWith(opts, nil)
	}
	filter, err := opts.Verdict.load(false)
	if err != nil {
		return nil, opts.Verdict.diagnose(err)
	}
	t, err := openWith(opts, filter.Maps)
	if err != nil {
		filter.Close()
		return nil, err
	}
	t.filter = filter
	return t, nil
}

// openWith is given the maps of the options' verdict, which are loaded already.
func openWith(opts Options, maps map[string]*ebpf.Map) (_ *Tap, err error) {
	spec, err := opts.spec(maps)
	if err != nil {
		return nil, err
	}
	t := &Tap{size: opts.RingSize, wakeup: opts.WakeupBytes, first: opts.WakeFirst, options: opts, filter: new(ebpf.Collection)}
	if err := spec.LoadAndAssign(&t.objects, nil); err != nil {
		if opts.Verdict != nil {
			return nil, opts.Verdict.diagnose(err)
		}
		return nil, Diagnose("loading the tap", err)
	}
	defer func() {
		if err == nil {
			return
		}
		err = errors.Join(err, t.reject.program.Close(), t.objects.Data.Close(), t.objects.Bss.Close(), t.counts.close(), t.objects.Close())
		if t.ring != nil {
			err = errors.Join(err, t.ring.close())
		}
	}()
	if t.reject, err = loadRejection(); err != nil {
		return nil, err
	}
	if t.ring, err = openRing(t.objects.Ring); err != nil {
		return nil, err
	}
	if t.counts, err = openCounts[tapCounters](t.objects.Counts); err != nil {
		return nil, err
	}
	if opts.Leased {
		if err := t.Renew(); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// spec is the tap's object with these options, and with the maps of the verdict.
func (o Options) spec(maps map[string]*ebpf.Map) (*ebpf.CollectionSpec, error) {
	spec, err := loadTap()
	if err != nil {
		return nil, fmt.Errorf("reading the tap's object: %w", err)
	}
	sizeRing(spec.Maps[tapMapRing], o.RingSize)
	err = errors.Join(
		sizeCounts(spec.Maps[tapMapCounts]),
		spec.Variables[tapVarSnaplen].Set(uint32(o.Snaplen)),
		spec.Variables[tapVarWantsLink].Set(flag(!o.NoLink)),
		spec.Variables[tapVarWakeupBytes].Set(uint64(o.WakeupBytes)),
		spec.Variables[tapVarWakesFirst].Set(flag(o.WakeFirst)),
		spec.Variables[tapVarLeased].Set(flag(o.Leased)),
	)
	if o.Verdict != nil {
		err = errors.Join(err, o.Verdict.splice(spec.Programs[tapProgTap], maps))
	}
	err = errors.Join(err, o.Expression.splice(spec, o.Notes))
	if err != nil {
		return nil, fmt.Errorf("setting up the tap: %w", err)
	}
	return spec, nil
}

// RingSize is the size of the ring in bytes.
func (t *Tap) RingSize() int { return t.size }

// Attach attaches the tap to a socket, replacing any filter that it has. Sockets that are
// accepted from a listener afterwards inherit the tap.
//
// It needs no privilege. The error is a *MissingError if this kind of socket accepts no
// filter.
func (t *Tap) Attach(fd int) error {
	return AttachFilter(fd, t.objects.Tap.FD())
}

// Rejection is the filter that drops all packets of a socket before the tap is attached, and
// at the end. It is valid until Close.
func (t *Tap) Rejection() Rejection { return t.reject }

// SetDeadline sets until when Read waits for a record. The zero time means no deadline.
func (t *Tap) SetDeadline(deadline time.Time) { t.deadline = deadline }

// Read waits for the next record, in the order in which the filters ran, and copies it: the
// record and its Data are valid until the next Read into it.
//
// After the deadline it returns what is still in the ring, and then
// os.ErrDeadlineExceeded; after a Flush likewise, and then ErrFlushed. Close interrupts it
// with os.ErrClosed.
func (t *Tap) Read(rec *Record) error {
	for {
		if err := t.Begin(); err != nil {
			return err
		}
		at, _, ok := t.Next()
		var err error
		if ok {
			rec.raw = append(rec.raw[:0], t.ring.record(at)...)
			err = Decode(rec.raw, rec)
		}
		busy := !ok && t.ring.reserved() > at
		t.End(t.ring.next)
		switch {
		case ok:
			return err
		case busy: // a cpu is still writing the record
		case t.ended != nil:
			err, t.ended = t.ended, nil
			return err
		default:
			err := t.Wait(t.deadline)
			if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, ErrFlushed) {
				t.ended = err // records that caused no wakeup come first
			} else if err != nil {
				return err
			}
		}
	}
}

// Begin begins to read records in place, until End. Only one goroutine may do so at a time,
// and neither Read nor Wait may be called before End. After Close it returns os.ErrClosed;
// Close waits for End.
func (t *Tap) Begin() error { return t.ring.begin() }

// Next returns the place of the next record and its Time, in the order in which the filters
// reserved room. ok is false if there is none, or if it is still being written.
//
// The tap reads the clock after it has reserved the place: a record behind what Reserved
// returned has a later time than that call.
func (t *Tap) Next() (at Place, time int64, ok bool) {
	record, at, ok := t.ring.take()
	if !ok || len(record) < headerSize {
		return at, 0, ok
	}
	return at, int64(binary.NativeEndian.Uint64(record[unsafe.Offsetof(RecordHeader{}.Time):])), true
}

// Reserved is the place behind all records that are in the ring now, complete or not.
func (t *Tap) Reserved() Place { return t.ring.reserved() }

// At is the place behind all records that Next has returned.
func (t *Tap) At() Place { return t.ring.next }

// Load decodes a record that Next has returned. Its Data is in the ring, and valid until End
// is called with a place behind it.
func (t *Tap) Load(at Place, rec *Record) error { return Decode(t.ring.record(at), rec) }

// End ends reading in place, and releases the room of all records before a place.
func (t *Tap) End(before Place) { t.ring.end(before) }

// Wait waits until there are at least Options.WakeupBytes unread bytes. At the deadline it
// returns os.ErrDeadlineExceeded, after a Flush ErrFlushed.
func (t *Tap) Wait(deadline time.Time) error {
	for {
		if err := t.Begin(); err != nil {
			return err
		}
		// The threshold may be crossed already: then nobody wakes us.
		unread := t.ring.unread()
		t.ring.leave()
		if t.wakeup > 0 && unread >= uint64(t.wakeup) {
			return nil
		}
		// With WakeFirst the reader is woken for less.
		if err := t.ring.wait(deadline); err != nil || t.wakeup == 0 {
			return err
		}
	}
}

// Sleep waits until there is a record in the ring, or an event in that of the Calls that were
// opened with the tap (but see EndsSleep). The deadline and Flush are as with Wait. The tap
// needs WakeFirst.
func (t *Tap) Sleep(deadline time.Time) error { return t.ring.sleep(deadline) }

// Nudge makes the current or the next Sleep return, but no Wait.
func (t *Tap) Nudge() error { return t.ring.nudge() }

// Flush makes Wait or Sleep return at once, and Read once the ring is empty.
func (t *Tap) Flush() error { return t.ring.flush() }

// Counters is the tap's ledger: Seen = Recorded + Unwanted + RingFull + LoadFailed.
type Counters struct {
	// Seen counts the packets for which the filter ran.
	Seen uint64
	// Recorded counts the packets that went into the ring.
	Recorded uint64
	// RingFull counts the packets that found no room in the ring.
	RingFull uint64
	// LoadFailed counts the packets whose bytes could not be read (bpf_skb_load_bytes).
	LoadFailed uint64
	// Truncated counts the packets of Recorded that were longer than the snaplen.
	Truncated uint64
	// Dropped counts the packets of Seen that the verdict dropped.
	Dropped uint64
	// Unwanted counts the packets that the Expression does not choose.
	Unwanted uint64
}

// Lost is the number of packets that the filter saw and could not record.
func (c Counters) Lost() uint64 { return c.RingFull + c.LoadFailed }

// Plus is the ledger of both.
func (c Counters) Plus(other Counters) Counters {
	return Counters{
		Seen: c.Seen + other.Seen, Recorded: c.Recorded + other.Recorded, RingFull: c.RingFull + other.RingFull,
		LoadFailed: c.LoadFailed + other.LoadFailed, Truncated: c.Truncated + other.Truncated,
		Dropped: c.Dropped + other.Dropped, Unwanted: c.Unwanted + other.Unwanted,
	}
}

// Counters reads the ledger as it stands, summed over all cpus.
func (t *Tap) Counters() (Counters, error) {
	sum, err := sumCounters(t.counts)
	if err != nil {
		return sum, fmt.Errorf("the tap: %w", err)
	}
	return sum, nil
}

// LostByCPU appends how many packets each cpu has lost so far: those of Counters.Lost, which a
// Record of the cpu tells as well. It makes no system call.
func (t *Tap) LostByCPU(to []uint64) ([]uint64, error) {
	all, err := t.counts.read()
	if err != nil {
		return to, fmt.Errorf("the tap: %w", err)
	}
	return lostByCPU(to, all), nil
}

func lostByCPU(to []uint64, counts []tapCounters) []uint64 {
	for i := range counts {
		to = append(to, counts[i].RingFull+counts[i].LoadFailed)
	}
	return to
}

// sumCounters adds up a ledger, which may be nil, over all cpus.
func sumCounters(ledger *counts[tapCounters]) (sum Counters, err error) {
	if ledger == nil {
		return sum, nil
	}
	counts, err := ledger.read()
	if err != nil {
		return sum, err
	}
	return sumOf(counts), nil
}

func sumOf(counts []tapCounters) (sum Counters) {
	for _, c := range counts {
		sum.Seen += c.Seen
		sum.Recorded += c.Recorded
		sum.RingFull += c.RingFull
		sum.LoadFailed += c.LoadFailed
		sum.Truncated += c.Truncated
		sum.Dropped += c.Dropped
		sum.Unwanted += c.Unwanted
	}
	return sum
}

// Stop turns the tap into a filter that keeps everything and does nothing else, on all sockets
// that have it, including those that the program has no descriptor of. What is in the ring
// stays readable.
func (t *Tap) Stop() error {
	if err := t.objects.Enabled.Set(uint32(0)); err != nil {
		return fmt.Errorf("stopping the tap: %w", err)
	}
	return nil
}

// Lease is how long a tap with Options.Leased works after Renew.
const Lease = 3 * time.Second

// Renew extends the lease of a tap with Options.Leased.
func (t *Tap) Renew() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return fmt.Errorf("renewing the tap: %w", err)
	}
	if err := t.objects.LeaseEnd.Set(uint64(now.Nano() + Lease.Nanoseconds())); err != nil {
		return fmt.Errorf("renewing the tap: %w", err)
	}
	return nil
}

// Close releases the tap. Without Stop, sockets that still have it keep its verdict. It is safe
// to call it twice, and while a Read is waiting.
func (t *Tap) Close() error {
	t.filter.Close()
	err := errors.Join(t.reject.program.Close(), t.objects.Data.Close(), t.objects.Bss.Close(), t.counts.close(), t.objects.Close())
	// Last, so that a reader that gets os.ErrClosed finds everything closed.
	return errors.Join(err, t.ring.close())
}

// RunStats returns how often the tap ran and its total run time. The kernel counts only while
// statistics are enabled: ebpf.EnableStats, or the sysctl kernel.bpf_stats_enabled.
func (t *Tap) RunStats() (runs uint64, total time.Duration, err error) {
	stats, err := t.objects.Tap.Stats()
	if err != nil {
		return 0, 0, fmt.Errorf("reading the tap's run time: %w", err)
	}
	return stats.RunCount, stats.Runtime, nil
}
