package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Wrapper is a Tap that runs the filter which a socket has of its own: it takes that filter's place,
// and the socket gets what it would get without. A classic filter is a part of it, an eBPF program
// is run with its own maps, by a tail call.
//
// After Stop, and when nobody renews the lease, it goes on to run the filter and records nothing.
// So that this also holds for an eBPF program after the process was killed, what refers to it is
// pinned in a BPF file system, until Close.
type Wrapper struct {
	tap     *ebpf.Program
	id      ebpf.ProgramID
	array   *ebpf.Map // that has the program; nil for a classic filter
	pin     string
	program *ebpf.Program
	classic []unix.SockFilter
}

// wrapperPin is how the names of the pins begin. Behind it stands the id of the Wrapper's program.
const wrapperPin = "ebpfdump-wrapper-"

// usualFileSystem is where a BPF file system is usually mounted.
const usualFileSystem = "/sys/fs/bpf"

// wrapperName is what the program is called where others list it.
const wrapperName = "tap_wrapper"

// Wrap makes a Wrapper of the tap for a filter, which records into the tap's ring.
//
// An eBPF filter needs CAP_SYS_ADMIN and a mounted BPF file system. On arm64 its tail call needs
// Linux 6.0.
func (t *Tap) Wrap(f *OwnFilter) (_ *Wrapper, err error) {
	w := &Wrapper{classic: f.Classic}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.release())
		}
	}()
	opts, maps := t.options, map[string]*ebpf.Map(nil)
	folder := ""
	if f.Program.ID == 0 {
		instructions, err := translate(f.Classic)
		if err != nil {
			return nil, err
		}
		opts.Verdict = newVerdict("the socket's classic filter", instructions)
	} else {
		if folder, err = pinFolder(); err != nil {
			return nil, err
		}
		if err := w.hold(f.Program.ID); err != nil {
			return nil, err
		}
		opts.Verdict = newVerdict("the socket's eBPF filter", asm.Instructions{
			asm.LoadMapPtr(asm.R2, 0).WithReference("wrapped"),
			asm.Mov.Imm(asm.R3, 0),
			asm.FnTailCall.Call(),
			asm.Mov.Imm(asm.R0, -1),
			asm.Return(),
		})
		maps = map[string]*ebpf.Map{"wrapped": w.array}
	}
	spec, err := opts.spec(maps)
	if err != nil {
		return nil, err
	}
	if err := spec.Variables["wrapped"].Set(f.Key()); err != nil {
		return nil, fmt.Errorf("setting up the tap: %w", err)
	}
	spec.Programs[tapProgTap].Name = wrapperName
	all, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		tapMapRing: t.objects.Ring, tapMapCounts: t.objects.Counts, ".data": t.objects.Data, ".bss": t.objects.Bss,
	}})
	if err != nil {
		return nil, Diagnose("loading the tap with the socket's own filter in it", err)
	}
	defer all.Close()
	w.tap = all.DetachProgram(tapProgTap)
	info, err := w.tap.Info()
	if err != nil {
		return nil, fmt.Errorf("asking for the tap's number: %w", err)
	}
	w.id, _ = info.ID()
	if w.array == nil {
		return w, nil
	}
	w.pin = filepath.Join(folder, wrapperPin+strconv.Itoa(int(w.id)))
	if err := w.array.Pin(w.pin); err != nil {
		return nil, fmt.Errorf("keeping hold of the socket's eBPF filter: %w", err)
	}
	return w, nil
}

// hold takes hold of an eBPF program, and makes the array for the tail call.
func (w *Wrapper) hold(id uint32) (err error) {
	if w.program, err = openProgram(id); err != nil {
		return err
	}
	if w.array, err = ebpf.NewMap(&ebpf.MapSpec{Name: "wrapped", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1}); err != nil {
		return fmt.Errorf("making room for the socket's eBPF filter: %w", err)
	}
	if err := w.array.Put(uint32(0), w.program); err != nil {
		return fmt.Errorf("putting the socket's eBPF filter where the tap finds it: %w", err)
	}
	return nil
}

// FileSystem is the folder of a BPF file system in which something can be pinned. Otherwise the error
// is a *MissingError.
func FileSystem() (string, error) {
	const usual, needs = usualFileSystem, "keeping hold of an eBPF filter needs a BPF file system"
	refusal := error(nil)
	for _, folder := range append([]string{usual}, mountsOf("bpf")...) {
		var fs unix.Statfs_t
		if unix.Statfs(folder, &fs) != nil || fs.Type != unix.BPF_FS_MAGIC {
			continue
		}
		err := unix.Faccessat(unix.AT_FDCWD, folder, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
		if err == nil {
			return folder, nil
		}
		if refusal == nil {
			refusal = &MissingError{
				What: fmt.Sprintf("%s, and that at %s may not be written to (%v)", needs, folder, err),
				Hint: "mount one that may be: mount -t bpf bpf " + usual,
				Err:  err,
			}
		}
	}
	if refusal != nil {
		return "", refusal
	}
	return "", &MissingError{What: needs + ", and none is mounted", Hint: "mount -t bpf bpf " + usual}
}

// pinFolder is where to pin, without the pins that nobody needs any more.
func pinFolder() (string, error) {
	folder, err := FileSystem()
	if err == nil {
		tidyPins(folder)
	}
	return folder, err
}

// mountsOf are the folders where a kind of file system is mounted, for this thread.
func mountsOf(kind string) (folders []string) {
	mounts, _ := os.ReadFile("/proc/thread-self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == kind {
			folders = append(folders, fields[1])
		}
	}
	return folders
}

// tidyPins removes pins of those that were killed, once no socket has their programs any more.
func tidyPins(folder string) {
	pins, _ := filepath.Glob(filepath.Join(folder, wrapperPin+"*"))
	for _, pin := range pins {
		id, err := strconv.ParseUint(strings.TrimPrefix(filepath.Base(pin), wrapperPin), 10, 32)
		if err == nil && gone(ebpf.ProgramID(id)) {
			_ = os.Remove(pin)
		}
	}
}

// gone tells whether there is no program with an id any more.
func gone(id ebpf.ProgramID) bool {
	p, err := ebpf.NewProgramFromID(id)
	if err == nil {
		p.Close()
	}
	return errors.Is(err, os.ErrNotExist)
}

// ID is the id of the program that is attached to sockets.
func (w *Wrapper) ID() uint32 { return uint32(w.id) }

// Attach puts the wrapper in the place of the socket's filter.
func (w *Wrapper) Attach(fd int) error { return AttachFilter(fd, w.tap.FD()) }

// Restore puts the filter back in the place of the wrapper.
func (w *Wrapper) Restore(fd int) error {
	if w.program != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, w.program.FD()); err != nil {
			return fmt.Errorf("putting the socket's own filter back: %w", err)
		}
		return nil
	}
	program := unix.SockFprog{Len: uint16(len(w.classic)), Filter: &w.classic[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program); err != nil {
		return fmt.Errorf("putting the socket's own filter back: %w", err)
	}
	return nil
}

// release lets go of everything but the pin.
func (w *Wrapper) release() error {
	return errors.Join(w.tap.Close(), w.array.Close(), w.program.Close())
}

// Close releases the wrapper. If a socket still has it, that goes on to run its filter: the pin
// stays until somebody wraps a filter after the socket was closed.
func (w *Wrapper) Close() error {
	err := w.release()
	if w.pin == "" {
		return err
	}
	// A socket lets go of its former filter some milliseconds later (RCU).
	for range 100 {
		if gone(w.id) {
			if rerr := os.Remove(w.pin); !errors.Is(rerr, os.ErrNotExist) { // it may be unmounted by now
				err = errors.Join(err, rerr)
			}
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	tidyPins(filepath.Dir(w.pin)) // of the one whose place it took, if that was left by a capture
	w.pin = ""
	return err
}

// Wraps tells the hook that a wrapper records the packets of its sockets.
func (h *Hook) Wraps(w *Wrapper) error {
	if err := h.objects.maps[hookMapWrappers].Put(uint64(w.id), uint32(1)); err != nil {
		return fmt.Errorf("noting a tap: %w", err)
	}
	return nil
}
