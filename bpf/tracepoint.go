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

// tracefs is the events directory of tracefs.
type tracefs struct{ folder int }

// openTracefs opens the events directory. If tracefs is not mounted, a detached mount is made,
// which nobody else sees.
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

// id is the id of a tracepoint.
func (t *tracefs) id(name string) (uint64, error) {
	text, err := t.read(name, "id")
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(text, 10, 64)
}

// perfEvent is a perf event for a tracepoint, with or without a program. Closing it detaches
// the program.
type perfEvent struct {
	name string
	fd   int
	link *link.RawLink // nil before Linux 5.15, where the program belongs to the event itself
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
	// The event counts on cpu 0, but the program runs on every cpu.
	fd, err := unix.PerfEventOpen(&attributes, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("opening tracepoint %s: %w", name, err)
	}
	return &perfEvent{name: name, fd: fd}, nil
}

// attach attaches a program.
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

// holder holds references to perf events, so that closing their descriptors, or exiting, does
// not block. The kernel takes tens of milliseconds to destroy the last event of a tracepoint,
// one event after the other, and whoever releases the last reference waits for that. A BPF
// array of perf events releases its references in the background after it is closed.
type holder struct {
	events *ebpf.Map
	next   uint32
}

func newHolder(room int) (*holder, error) {
	// Not with the library, which limits such arrays to the number of cpus.
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

// hold adds an event. Its descriptor may be closed before the holder or after it. If the kernel
// refuses the event, closing it blocks as usual.
func (h *holder) hold(event *perfEvent) {
	if h.events.Put(h.next, uint32(event.fd)) == nil {
		h.next++
	}
}

func (h *holder) Close() error { return h.events.Close() }
