// Package doctor finds out what a machine lets ebpfdump do, and which step
// would mend the rest.
//
// Machine holds the facts, as Examine found them. Diagnose turns them into a
// Report and asks the machine nothing, so that tests can be other machines.
package doctor

// Version is the version of the report's JSON form. While it stays the same,
// fields and entries of lists are added, never renamed, removed or given
// another meaning.
const Version = 1

// Answer is what was found out about a question.
type Answer string

// Unknown stands for "could not be found out", as in a process that may not
// ask. It is never a guess.
const (
	Yes     Answer = "yes"
	No      Answer = "no"
	Unknown Answer = "unknown"
)

// Report is what `ebpfdump doctor --json` prints, one object.
type Report struct {
	// Version is the version of this form.
	Version int `json:"version"`
	// Program is the version of ebpfdump.
	Program string `json:"ebpfdump"`
	// Works is true if every command works; forms of commands do not count.
	// The exit status is 0 then, and 4 otherwise.
	Works bool `json:"works"`
	Machine
	// Commands holds the verdicts.
	Commands []Verdict `json:"commands"`
}

// Machine is all that is known of a machine and of the process on it.
type Machine struct {
	Kernel  Kernel  `json:"kernel"`
	Process Process `json:"process"`
	// Features are the parts of the kernel's BPF that the tap is made of.
	Features []Feature `json:"features"`
	// Trials are what was really tried. The verdicts stand on these.
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
	// Detail is a value, or why the answer is what it is, in plain words.
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
}

// Process is what the process may do.
type Process struct {
	// UID is the effective user id.
	UID int `json:"uid"`
	// Effective is the set of capabilities in force, as /proc/PID/status shows it: hexadecimal, a bit each.
	Effective string `json:"effective"`
	// Capabilities are those that some command needs.
	Capabilities []Capability `json:"capabilities"`
	// InitialUserNamespace: is this the machine's first user namespace? In
	// others the capabilities do not count for bpf(2).
	InitialUserNamespace Finding `json:"initial_user_namespace"`
	// Seccomp: does a filter judge the process's system calls?
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
	// NeededFor lists the commands, and forms of commands.
	NeededFor []string `json:"needed_for"`
}

// Feature is a part of the kernel's BPF.
type Feature struct {
	// Kind is "program type", "map type" or "helper".
	Kind string `json:"kind"`
	// Name is such as "ring buffer".
	Name string `json:"name"`
	Finding
}

// Trial is something that was really tried.
type Trial struct {
	// Name is one of TapLoads, TapRecords, ...
	Name string `json:"name"`
	Finding
	// Lacks is the capability whose lack made it fail, if that is why.
	Lacks string `json:"lacks,omitempty"`
	// Mend is the step that would mend it, if one is known.
	Mend string `json:"mend,omitempty"`
}

// Cgroup tells where the cgroup file systems are. The answer is that to: is
// version 2 mounted?
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

// Tool is a program on the PATH. The answer is that to: is it there?
type Tool struct {
	// Name is such as "tshark".
	Name string `json:"name"`
	Finding
	// Path is where it was found.
	Path string `json:"path,omitempty"`
	// Version is what it says of itself, such as 4.0.17.
	Version string `json:"version,omitempty"`
}

// Extcap tells of Wireshark's extcap folders. The answer is that to: is there one?
type Extcap struct {
	Finding
	// Folders are all that Wireshark looks in, also those that do not exist.
	Folders []string `json:"folders"`
}

// Verdict tells whether a command works.
type Verdict struct {
	// Command is the command's name.
	Command string `json:"command"`
	// Form is absent in the verdict on the command; otherwise the flags of a
	// form of it that needs more than the command.
	Form string `json:"form,omitempty"`
	Finding
	// Mend is the one step that would mend it, if one is known.
	Mend string `json:"mend,omitempty"`
}

// Name is how the user calls the command.
func (v Verdict) Name() string {
	if v.Form == "" {
		return v.Command
	}
	return v.Command + " " + v.Form
}
