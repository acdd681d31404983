// Package doctor finds out what ebpfdump can do on a machine, and what to change for the
// rest.
//
// Machine holds the facts that Examine found. Diagnose turns them into a Report without
// asking the machine, so that tests can simulate other machines.
package doctor

// Version is the version of the report's JSON. As long as it stays the same, fields and
// entries of lists may be added, but are never renamed, removed or redefined.
const Version = 1

// Answer is the answer to a question about the machine.
type Answer string

// Unknown means that it could not be found out, for example because the process may not
// ask. Yes and No are never guesses.
const (
	Yes     Answer = "yes"
	No      Answer = "no"
	Unknown Answer = "unknown"
)

// Report is the object that `ebpfdump doctor --json` prints.
type Report struct {
	// Version is the version of this structure.
	Version int `json:"version"`
	// Program is the version of ebpfdump.
	Program string `json:"ebpfdump"`
	// Works is true if every command works; forms of commands do not count. The exit
	// status is then 0, otherwise 4.
	Works bool `json:"works"`
	Machine
	// Commands holds the verdicts.
	Commands []Verdict `json:"commands"`
}

// Machine is what is known about a machine and the process on it.
type Machine struct {
	Kernel  Kernel  `json:"kernel"`
	Process Process `json:"process"`
	// Features are the BPF features of the kernel that the tap uses.
	Features []Feature `json:"features"`
	// Trials are what was actually tried. The verdicts are based on them.
	Trials []Trial `json:"trials"`
	Cgroup Cgroup  `json:"cgroup"`
	// Tools are programs that read captures. No command needs one.
	Tools []Tool `json:"tools"`
	// Extcap are the folders in which Wireshark looks for capture programs.
	Extcap Extcap `json:"extcap"`
}

// Finding is an answer and the reason for it.
type Finding struct {
	Answer Answer `json:"answer"`
	// Detail is a value, or the reason for the answer.
	Detail string `json:"detail,omitempty"`
}

// Kernel is the kernel and its settings.
type Kernel struct {
	// Release is that of uname(2), such as 6.1.0-18-amd64.
	Release string `json:"release"`
	// Architecture is that of uname(2), such as x86_64.
	Architecture string `json:"architecture"`
	// BPF: is there a system call bpf(2)?
	BPF Finding `json:"bpf"`
	// BTF: does the kernel describe its types? A socket of our own does without, --pid and commands do not.
	BTF Finding `json:"btf"`
	// JIT: are filters compiled? They work without, more slowly.
	JIT Finding `json:"jit"`
	// UnprivilegedBPF: does bpf(2) take anything from processes without CAP_BPF?
	// The tap needs CAP_BPF whatever the setting.
	UnprivilegedBPF Finding `json:"unprivileged_bpf"`
	// OwnProcesses: may a process without CAP_SYS_PTRACE look into others of its user that are not
	// its descendants? Yama's ptrace_scope decides.
	OwnProcesses Finding `json:"own_processes"`

	noCopies bool // whatever capabilities are held
}

// Process is what the process may do.
type Process struct {
	// UID is the effective user id.
	UID int `json:"uid"`
	// Effective is the set of capabilities in force, as /proc/PID/status shows it: hexadecimal, a bit each.
	Effective string `json:"effective"`
	// Capabilities are the capabilities that some command needs.
	Capabilities []Capability `json:"capabilities"`
	// InitialUserNamespace: is this the machine's first user namespace? In
	// others the capabilities do not count for bpf(2).
	InitialUserNamespace Finding `json:"initial_user_namespace"`
	// Seccomp: does a seccomp filter apply to the process?
	Seccomp Finding `json:"seccomp"`

	nested bool
}

// Capability is a Linux capability that some command needs.
type Capability struct {
	// Name is such as CAP_BPF.
	Name string `json:"name"`
	// Held: is it in force? CAP_SYS_ADMIN counts as CAP_BPF and CAP_PERFMON
	// as well, CAP_DAC_OVERRIDE as CAP_DAC_READ_SEARCH.
	Held Answer `json:"held"`
	// NeededFor lists the commands and forms of commands that need it.
	NeededFor []string `json:"needed_for"`
}

// Feature is a BPF feature of the kernel.
type Feature struct {
	// Kind is "program type", "map type" or "helper".
	Kind string `json:"kind"`
	// Name is such as "ring buffer".
	Name string `json:"name"`
	Finding
}

// Trial is the result of actually trying something.
type Trial struct {
	// Name is one of TapLoads, TapRecords, ...
	Name string `json:"name"`
	Finding
	// Lacks is the capability whose lack made it fail, if that is why.
	Lacks string `json:"lacks,omitempty"`
	// Mend is the step that would fix it, if one is known.
	Mend string `json:"mend,omitempty"`
}

// Cgroup tells where the cgroup file systems are mounted. The answer is whether version 2
// is.
type Cgroup struct {
	Finding
	Mounts []Mount `json:"mounts"`
}

// Mount is a mounted cgroup file system.
type Mount struct {
	// Version is 1 or 2.
	Version int `json:"version"`
	// Path is the mount point.
	Path string `json:"path"`
}

// Tool is a program looked for on the PATH. The answer is whether it is there.
type Tool struct {
	// Name is such as "tshark".
	Name string `json:"name"`
	Finding
	// Path is where it was found.
	Path string `json:"path,omitempty"`
	// Version is the version that it prints, such as 4.0.17.
	Version string `json:"version,omitempty"`
}

// Extcap tells where Wireshark's extcap folders are. The answer is whether one exists.
type Extcap struct {
	Finding
	// Folders are all folders that Wireshark looks in, including those that do not exist.
	Folders []string `json:"folders"`
}

// Verdict tells whether a command works.
type Verdict struct {
	// Command is the command's name.
	Command string `json:"command"`
	// Form is absent in the verdict on the command itself. Otherwise it has the flags of
	// a form of the command that needs more.
	Form string `json:"form,omitempty"`
	Finding
	// Mend is the step that would fix it, if one is known.
	Mend string `json:"mend,omitempty"`
}

// Name is the command as the user types it.
func (v Verdict) Name() string {
	if v.Form == "" {
		return v.Command
	}
	return v.Command + " " + v.Form
}
