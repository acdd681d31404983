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

// perfEvent is a program at a tracepoint. Closing it detaches the program.
type perfEvent int

func (p perfEvent) Close() error { return unix.Close(int(p)) }

// attach puts a program at a tracepoint, on all cpus.
func (t *tracefs) attach(name string, program *ebpf.Program) (_ perfEvent, err error) {
	id, err := t.id(name)
	if err != nil {
		return -1, err
	}
	attributes := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id, Sample_type: unix.PERF_SAMPLE_RAW, Sample: 1, Wakeup: 1}
	attributes.Size = uint32(unsafe.Sizeof(attributes))
	// The event is one of cpu 0; the program runs for the tracepoint, wherever it is.
	fd, err := unix.PerfEventOpen(&attributes, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("opening tracepoint %s: %w", name, err)
	}
	if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, program.FD()); err != nil {
		return -1, errors.Join(fmt.Errorf("attaching to tracepoint %s: %w", name, err), unix.Close(fd))
	}
	return perfEvent(fd), nil
}
