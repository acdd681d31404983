package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/capability"
)

// world is what Examine reads apart from system calls. Tests replace it.
type world struct {
	// files is the root of the file system.
	files fs.FS
	// lookPath finds a program.
	lookPath func(name string) (string, error)
	// output runs a program and returns its output.
	output func(ctx context.Context, path string, args ...string) (string, error)
}

// Examine collects the facts. It works without /proc and /sys. When the context ends it
// returns early, with less known about the tools.
func Examine(ctx context.Context) Machine {
	w := world{files: os.DirFS("/"), lookPath: exec.LookPath, output: programOutput}
	return w.examine(ctx)
}

func (w world) examine(ctx context.Context) Machine {
	privilege := capability.CurrentPrivilege()
	var m Machine
	var tools sync.WaitGroup
	tools.Go(func() { m.Tools, m.Extcap = w.tools(ctx) })
	m.Process = w.process(privilege)
	m.Features = probeFeatures(privilege)
	m.Kernel = w.kernel(m.Features)
	m.Trials = tryAll(privilege)
	m.Cgroup = w.cgroup()
	tools.Wait()
	return m
}

// read returns a file's content without leading and trailing white space.
func (w world) read(name string) (string, error) {
	content, err := fs.ReadFile(w.files, name)
	return strings.TrimSpace(string(content)), err
}

// unreadable says in a few words why a file cannot be read.
func unreadable(name string, err error) Finding {
	return Finding{Unknown, fmt.Sprintf("/%s cannot be read: %v", name, cause(err))}
}

func (w world) kernel(features []Feature) Kernel {
	var name unix.Utsname
	_ = unix.Uname(&name)
	k := Kernel{
		Release:         unix.ByteSliceToString(name.Release[:]),
		Architecture:    unix.ByteSliceToString(name.Machine[:]),
		BPF:             systemCall(features),
		BTF:             w.btf(),
		JIT:             w.jit(),
		UnprivilegedBPF: w.unprivileged(),
	}
	k.OwnProcesses, k.noCopies = w.ownProcesses()
	return k
}

func (w world) btf() Finding {
	const file = "sys/kernel/btf/vmlinux"
	switch info, err := fs.Stat(w.files, file); {
	case err == nil:
		return Finding{Yes, fmt.Sprintf("/%s, %d KiB", file, info.Size()>>10)}
	case errors.Is(err, fs.ErrNotExist):
		if _, err := fs.Stat(w.files, "sys/kernel"); err == nil {
			return Finding{No, "there is no /" + file + "; a socket of our own does without, --pid and commands do not"}
		}
		return Finding{Unknown, "/sys is not mounted; a socket of our own does without, --pid and commands do not"}
	default:
		return unreadable(file, err)
	}
}

func (w world) jit() Finding {
	const file = "proc/sys/net/core/bpf_jit_enable"
	value, err := w.read(file)
	if err != nil {
		return unreadable(file, err)
	}
	switch value {
	case "0":
		return Finding{No, "0: filters are interpreted, which is slower"}
	case "1":
		return Finding{Yes, "1: filters are compiled"}
	case "2":
		return Finding{Yes, "2: filters are compiled, and printed to the kernel's log"}
	}
	return Finding{Unknown, fmt.Sprintf("/%s holds %q", file, value)}
}

func (w world) unprivileged() Finding {
	const file = "proc/sys/kernel/unprivileged_bpf_disabled"
	value, err := w.read(file)
	if err != nil {
		return unreadable(file, err)
	}
	switch value {
	case "0":
		return Finding{Yes, "0: some programs load without CAP_BPF, but not the tap"}
	case "1":
		return Finding{No, "1: bpf(2) needs CAP_BPF, until the next boot"}
	case "2":
		return Finding{No, "2: bpf(2) needs CAP_BPF"}
	}
	return Finding{Unknown, fmt.Sprintf("/%s holds %q", file, value)}
}

// ownProcesses reads Yama's setting. noCopies tells whether that lets nobody look into a process.
func (w world) ownProcesses() (_ Finding, noCopies bool) {
	const file = "proc/sys/kernel/yama/ptrace_scope"
	value, err := w.read(file)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := fs.Stat(w.files, "proc/sys/kernel"); err == nil {
			return Finding{Yes, "this kernel has no Yama: their sockets may be copied"}, false
		}
	}
	if err != nil {
		return unreadable(file, err), false
	}
	switch value {
	case "0":
		return Finding{Yes, "0: their sockets may be copied"}, false
	case "1", "2":
		return Finding{No, value + ": copying their sockets needs CAP_SYS_PTRACE (kernel.yama.ptrace_scope)"}, false
	case "3":
		return Finding{No, "3: nobody may copy sockets, until the next boot (kernel.yama.ptrace_scope)"}, true
	}
	return Finding{Unknown, fmt.Sprintf("/%s holds %q", file, value)}, false
}

func (w world) process(p capability.Privilege) Process {
	process := Process{
		UID:                  p.UID,
		Effective:            fmt.Sprintf("%016x", p.Effective),
		Capabilities:         capabilities(p),
		InitialUserNamespace: Finding{Answer: Yes},
		Seccomp:              seccomp(),
		nested:               p.Nested,
	}
	const namespace = "proc/self/ns/user"
	if p.Nested {
		process.InitialUserNamespace = Finding{No, "capabilities held here do not count for bpf(2)"}
	} else if _, err := fs.Stat(w.files, namespace); err != nil {
		process.InitialUserNamespace = unreadable(namespace, err)
	}
	return process
}

// capabilities returns an entry for each capability that some command needs.
func capabilities(p capability.Privilege) []Capability {
	held := map[bool]Answer{true: Yes, false: No}
	var list []Capability
	seen := map[capability.Cap]bool{}
	for _, c := range commands {
		for _, needed := range c.capabilities {
			if !seen[needed] {
				list = append(list, Capability{Name: needed.String(), Held: held[p.Has(int(needed))], NeededFor: neededFor(needed)})
			}
			seen[needed] = true
		}
	}
	return list
}

// seccomp asks with prctl(2), which works without /proc.
func seccomp() Finding {
	mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	switch {
	case errors.Is(err, unix.EINVAL):
		return Finding{No, "this kernel has no seccomp"}
	case err != nil:
		return Finding{Unknown, fmt.Sprintf("prctl(PR_GET_SECCOMP): %v", err)}
	case mode == 0:
		return Finding{No, "nothing decides about this process's system calls"}
	}
	return Finding{Yes, "a filter decides which system calls are let through"}
}

func probeFeatures(p capability.Privilege) []Feature {
	var features []Feature
	for _, f := range bpf.Features() {
		features = append(features, Feature{Kind: f.Kind, Name: f.Name, Finding: feature(f.Probe(), p)})
	}
	return features
}

const noBPF = "there is no bpf(2) here"

// feature interprets the error of a probe.
func feature(err error, p capability.Privilege) Finding {
	switch {
	case err == nil:
		return Finding{Answer: Yes}
	case errors.Is(err, bpf.ErrNotSupported):
		return Finding{No, "not in this kernel"}
	case errors.Is(err, unix.ENOSYS):
		return Finding{No, noBPF}
	case errors.Is(err, unix.EPERM) && !p.MayLoad():
		return Finding{Unknown, "finding out needs CAP_BPF"}
	case errors.Is(err, unix.EPERM) && p.Nested:
		return Finding{Unknown, "finding out needs CAP_BPF outside of this user namespace"}
	case errors.Is(err, unix.EPERM):
		return Finding{Unknown, "finding out is not permitted although CAP_BPF is held"}
	case errors.Is(err, fs.ErrNotExist):
		return Finding{Unknown, "finding out needs /proc"}
	}
	return Finding{Unknown, cause(err).Error()}
}

// cause is the innermost error, without the context: it is equal for everything that
// fails for the same reason.
func cause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// systemCall infers from the probes whether there is a bpf(2).
func systemCall(features []Feature) Finding {
	for _, f := range features {
		switch {
		case f.Detail == noBPF:
			return Finding{No, "not built into this kernel, or hidden by a sandbox"}
		case f.Answer != Unknown:
			return Finding{Answer: Yes}
		}
	}
	if len(features) > 0 {
		return Finding{Unknown, features[0].Detail}
	}
	return Finding{Answer: Unknown}
}

// cgroup reads the table of mounts, which has a line for each:
// 36 35 0:29 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw
func (w world) cgroup() Cgroup {
	const file = "proc/self/mountinfo"
	c := Cgroup{Mounts: []Mount{}}
	table, err := w.read(file)
	if err != nil {
		c.Finding = unreadable(file, err)
		return c
	}
	versions := map[string]int{"cgroup": 1, "cgroup2": 2}
	c.Finding = Finding{No, "not mounted"}
	for line := range strings.Lines(table) {
		mount, rest, found := strings.Cut(line, " - ")
		left, right := strings.Fields(mount), strings.Fields(rest)
		if !found || len(left) < 5 || len(right) == 0 || versions[right[0]] == 0 {
			continue
		}
		m := Mount{Version: versions[right[0]], Path: unescape(left[4])}
		c.Mounts = append(c.Mounts, m)
		if m.Version == 2 && c.Answer == No {
			c.Finding = Finding{Yes, m.Path}
		}
	}
	return c
}

// unescape decodes the white space and backslashes that the kernel escapes in octal.
func unescape(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '\\' && i+3 < len(path) {
			if n, err := strconv.ParseUint(path[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(path[i])
	}
	return b.String()
}
