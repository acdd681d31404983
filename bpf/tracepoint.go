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

const forkTracepoint = "sched/sched_process_fork"

// setUp tells the programs where the fork's tracepoint has the child's number.
// Kernels differ.
func (t *tracefs) setUp(spec *ebpf.CollectionSpec) error {
	format, err := t.read(forkTracepoint, "format")
	if err != nil {
		return err
	}
	at, err := parseOffset(format, "child_pid")
	if err != nil {
		return err
	}
	return spec.Variables[readsVarChildAt].Set(at)
}

// parseOffset finds the offset in bytes of a field in a tracepoint's format:
//
//	field:pid_t child_pid;	offset:44;	size:4;	signed:1;
func parseOffset(format, field string) (uint32, error) {
	for line := range strings.Lines(format) {
		_, rest, _ := strings.Cut(line, " "+field+";")
		_, rest, ok := strings.Cut(rest, "offset:")
		if !ok {
			continue
		}
		digits, _, _ := strings.Cut(rest, ";")
		offset, err := strconv.ParseUint(digits, 10, 16)
		return uint32(offset), err
	}
	return 0, fmt.Errorf("a tracepoint has no field %s", field)
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

// attachCalls puts the programs at the tracepoints of the single calls.
func (r *Reads) attachCalls(t *tracefs) error {
	o := &r.objects
	// A program may look at no more arguments than the call has.
	for begins, calls := range map[*ebpf.Program][]string{
		o.Begins1: {"close", "bind", "listen", "connect", "dup"},
		o.Begins2: {"dup2"},
		o.Begins3: {"read", "readv", "recvmsg", "splice", "accept", "accept4", "dup3", "fcntl"},
		o.Begins4: {"recvmmsg"},
		o.Begins6: {"recvfrom"},
	} {
		for _, call := range calls {
			err := r.attachCall(t, "syscalls/sys_enter_"+call, begins)
			if call == "dup2" && errors.Is(err, unix.ENOENT) {
				continue // newer architectures have but dup3
			}
			if err != nil {
				return err
			}
			if call == "close" {
				continue
			}
			if err := r.attachCall(t, "syscalls/sys_exit_"+call, o.Ends); err != nil {
				return err
			}
		}
	}
	calls := []string{"socket", "execve", "execveat", "io_uring_setup", "open", "openat"}
	if _, nested := pidNamespace(); nested {
		// There the tracepoint of forks has other numbers.
		calls = append(calls, "clone", "clone3", "fork", "vfork")
	} else if err := r.attachCall(t, forkTracepoint, o.Forks); err != nil {
		return err
	}
	for _, call := range calls {
		err := r.attachCall(t, "syscalls/sys_exit_"+call, o.Happens)
		if err != nil && !errors.Is(err, unix.ENOENT) { // newer architectures have but clone and openat, some kernels no io_uring
			return err
		}
	}
	return nil
}

func (r *Reads) attachCall(t *tracefs, name string, program *ebpf.Program) error {
	event, err := t.attach(name, program)
	if err == nil {
		r.links = append(r.links, event)
	}
	return err
}

// noteBlocked notes the calls that the threads of a process are blocked in, since
// nobody saw them begin.
func (r *Reads) noteBlocked(pid uint32) {
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
			// One that it has begun meanwhile is the better one.
			_ = r.objects.Begun.Update(uint32(tid), call, ebpf.UpdateNoExist)
		}
	}
}

// parseBlocked reads /proc/PID/task/TID/syscall: the number of the call, and six
// arguments in hexadecimal. It is not ok for a thread that runs.
func parseBlocked(text string) (call readsBegunCall, ok bool) {
	fields := strings.Fields(text)
	if len(fields) < 1+len(call.Arguments) {
		return call, false
	}
	nr, err := strconv.ParseInt(fields[0], 10, 32)
	if err != nil || nr < 0 {
		return call, false
	}
	call.Nr = int32(nr)
	for i := range call.Arguments {
		if call.Arguments[i], err = strconv.ParseUint(fields[1+i], 0, 64); err != nil {
			return call, false
		}
	}
	return call, true
}
