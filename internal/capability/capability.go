// Package capability tells which capabilities of Linux this process has, and what gives
// it those that it lacks.
package capability

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Cap is a capability of Linux, such as unix.CAP_BPF.
type Cap int

// names has those that ebpfdump knows a use for.
var names = map[Cap]string{
	unix.CAP_BPF:              "CAP_BPF",
	unix.CAP_DAC_READ_SEARCH:  "CAP_DAC_READ_SEARCH",
	unix.CAP_NET_ADMIN:        "CAP_NET_ADMIN",
	unix.CAP_NET_BIND_SERVICE: "CAP_NET_BIND_SERVICE",
	unix.CAP_NET_RAW:          "CAP_NET_RAW",
	unix.CAP_PERFMON:          "CAP_PERFMON",
	unix.CAP_SETGID:           "CAP_SETGID",
	unix.CAP_SETUID:           "CAP_SETUID",
	unix.CAP_SYS_ADMIN:        "CAP_SYS_ADMIN",
	unix.CAP_SYS_PTRACE:       "CAP_SYS_PTRACE",
}

func (c Cap) String() string {
	if name, ok := names[c]; ok {
		return name
	}
	return "capability " + strconv.Itoa(int(c))
}

// Privilege is what the kernel lets a process do.
type Privilege struct {
	// UID is the effective user id.
	UID int
	// Effective is the set of capabilities in force, a bit each.
	Effective uint64
	// Nested is set in a user namespace other than the first one. There a
	// process can hold every capability, and none of them counts for bpf(2).
	Nested bool
}

// initialUserNamespace is where the link of the first user namespace points to
// on every machine (PROC_USER_INIT_INO).
const initialUserNamespace = "user:[4026531837]"

// CurrentPrivilege is the privilege of this process. Where /proc cannot tell,
// it does not count as nested.
func CurrentPrivilege() Privilege {
	namespace, err := os.Readlink("/proc/self/ns/user")
	return Privilege{
		UID:       os.Geteuid(),
		Effective: effectiveCapabilities(),
		Nested:    err == nil && namespace != initialUserNamespace,
	}
}

// effectiveCapabilities is empty if the kernel does not say.
func effectiveCapabilities() uint64 {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData // 32 capabilities each
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return 0
	}
	return uint64(sets[1].Effective)<<32 | uint64(sets[0].Effective)
}

// Held tells whether the process has a capability, such as unix.CAP_BPF, in its
// effective set.
func Held(capability int) bool {
	return Privilege{Effective: effectiveCapabilities()}.Has(capability)
}

// includedIn has the capabilities that are a part of another one.
var includedIn = map[int]int{
	unix.CAP_BPF:             unix.CAP_SYS_ADMIN,
	unix.CAP_PERFMON:         unix.CAP_SYS_ADMIN,
	unix.CAP_DAC_READ_SEARCH: unix.CAP_DAC_OVERRIDE,
}

// IncludedIn tells of which capability another one is a part.
func IncludedIn(capability int) (whole int, ok bool) {
	whole, ok = includedIn[capability]
	return whole, ok
}

// Has tells whether a capability, such as unix.CAP_BPF, is in force, by itself
// or as a part of another.
func (p Privilege) Has(capability int) bool {
	set := uint64(1) << capability
	if whole, ok := includedIn[capability]; ok {
		set |= 1 << whole
	}
	return p.Effective&set != 0
}

// HasNamed is Has for a capability's name, such as "CAP_BPF".
func (p Privilege) HasNamed(name string) bool {
	for c, n := range names {
		if n == name {
			return p.Has(int(c))
		}
	}
	return false
}

// MayLoad tells whether the privilege is enough for bpf(2), as far as
// capabilities decide.
func (p Privilege) MayLoad() bool { return p.Has(unix.CAP_BPF) }

// Hint is the one step that gives the process capabilities that it lacks, such
// as "CAP_BPF".
func (p Privilege) Hint(lacking ...string) string {
	program := "program's"
	if len(os.Args) > 0 {
		program = filepath.Base(os.Args[0])
	}
	return p.HintFor(program, p.Names(), lacking...)
}

// Names lists the capabilities in force, and CAP_BPF, which all that this package is
// for needs.
func (p Privilege) Names() []string {
	all := []string{"CAP_BPF"}
	for c, name := range names {
		if c != unix.CAP_BPF && p.Effective>>c&1 != 0 {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// HintFor is the one step that gives a program of that name all that a use of it needs,
// held or not, since a container is started anew and setcap replaces all that a file had.
// The file is to have the usual capabilities as well.
func (p Privilege) HintFor(program string, usual []string, needs ...string) string {
	all := slices.Clone(usual)
	for _, name := range needs {
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	switch {
	case p.Nested:
		return "run it as root outside of the user namespace (rootless container, unshare -U)"
	case p.UID == 0:
		var flags strings.Builder
		for _, name := range needs {
			flags.WriteString(" --cap-add " + strings.TrimPrefix(name, "CAP_"))
		}
		return "run as a root that has it: outside of the container, or in one started with" + flags.String()
	case slices.Contains(all, "CAP_SYS_ADMIN"):
		return "run as root (sudo)"
	}
	return "run as root (sudo), or once: setcap " + strings.ToLower(strings.Join(all, ",")) + "+ep on the " + program + " binary"
}
