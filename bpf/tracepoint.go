package bpf

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// tracefs is a folder of tracepoints.
type tracefs struct{ folder int }

// openTracefs finds the tracepoints of single system calls. Where tracefs is not
// mounted, it is opened without being mounted anywhere, so that nobody sees it.
func openTracefs() (*tracefs, error) {
	for _, mount := range []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"} {
		if fd, err := unix.Open(mount+"/events", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
			return &tracefs{fd}, nil
		}
	}
	context, err := unix.Fsopen("tracefs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("opening tracefs: %w", err)
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return nil, fmt.Errorf("opening tracefs: %w", err)
	}
	mount, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening tracefs: %w", err)
	}
	defer unix.Close(mount)
	fd, err := unix.Openat(mount, "events", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("looking for the tracepoints of system calls: %w", err)
	}
	return &tracefs{fd}, nil
}

func (t *tracefs) close() { unix.Close(t.folder) }

// read reads a file of a tracepoint.
func (t *tracefs) read(name, file string) (string, error) {
	fd, err := unix.Openat(t.folder, name+"/"+file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("looking for tracepoint %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return "", fmt.Errorf("looking for tracepoint %s: %w", name, err)
	}
	return strings.TrimSpace(string(text)), nil
}

// id is the number of a tracepoint.
func (t *tracefs) id(name string) (uint64, error) {
	text, err := t.read(name, "id")
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(text, 10, 64)
}

// perfEvent is a tracepoint, with or without a program. Closing it detaches the program.
type perfEvent struct {
	name string
	fd   int
	link *link.RawLink // nil before Linux 5.15, where the event itself has the program
}

func (p *perfEvent) Close() error {
	if p.link == nil {
		return unix.Close(p.fd)
	}
	return errors.Join(p.link.Close(), unix.Close(p.fd))
}

// open opens a tracepoint on all cpus.
func (t *tracefs) open(name string) (*perfEvent, error) {
	id, err := t.id(name)
	if err != nil {
		return nil, err
	}
	attributes := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id, Sample_type: unix.PERF_SAMPLE_RAW, Sample: 1, Wakeup: 1}
	attributes.Size = uint32(unsafe.Sizeof(attributes))
	// The event is one of cpu 0; the program runs for the tracepoint, wherever it is.
	fd, err := unix.PerfEventOpen(&attributes, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("opening tracepoint %s: %w", name, err)
	}
	return &perfEvent{name: name, fd: fd}, nil
}

// attach puts a program at it.
func (p *perfEvent) attach(program *ebpf.Program) (err error) {
	p.link, err = link.AttachRawLink(link.RawLinkOptions{Target: p.fd, Program: program, Attach: ebpf.AttachPerfEvent})
	if err != nil {
		p.link, err = nil, unix.IoctlSetInt(p.fd, unix.PERF_EVENT_IOC_SET_BPF, program.FD())
	}
	if err != nil {
		return fmt.Errorf("attaching to tracepoint %s: %w", p.name, err)
	}
	return nil
}

// holder holds perf events beside their descriptors, so that nobody waits for their end.
// The kernel takes tens of milliseconds to end a tracepoint's last event, for one after the
// other, and whoever closes an event last waits for that: at its exit, too. An array of
// perf events gives up those that it has in the background, when it is closed.
type holder struct {
	events *ebpf.Map
	next   uint32
}

func newHolder(room int) (*holder, error) {
	// The library makes no such array larger than there are cpus, for which others are.
	create := struct{ kind, keySize, valueSize, entries, flags uint32 }{unix.BPF_MAP_TYPE_PERF_EVENT_ARRAY, 4, 4, uint32(room), 0}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_CREATE, uintptr(unsafe.Pointer(&create)), unsafe.Sizeof(create))
	if errno != 0 {
		return nil, fmt.Errorf("making an array of perf events: %w", errno)
	}
	events, err := ebpf.NewMapFromFD(int(fd))
	if err != nil {
		return nil, fmt.Errorf("making an array of perf events: %w", err)
	}
	return &holder{events: events}, nil
}

// hold takes an event, whose descriptor may be closed before that of the holder and
// after. Where the kernel does not want it, whoever closes it waits as ever.
func (h *holder) hold(event *perfEvent) {
	if h.events.Put(h.next, uint32(event.fd)) == nil {
		h.next++
	}
}

func (h *holder) Close() error { return h.events.Close() }
