package doctor

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/capability"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// ordinary is a process of an unprivileged user.
var ordinary = capability.Privilege{UID: 1000}

// machine is one on which every trial succeeded except those given.
func machine(p capability.Privilege, failed ...Trial) Machine {
	m := Machine{Process: Process{UID: p.UID, nested: p.Nested}, Kernel: Kernel{OwnProcesses: Finding{Answer: Yes}}}
	for _, name := range []string{TapLoads, TapRecords, RawSocket, PacketSocket, NetworkNamespace, LowPort, SystemCalls, OtherProcess, OtherDescriptors, CgroupHook, KernelDrops, NetlinkMessage, OtherUser, BPFFileSystem} {
		m.Trials = append(m.Trials, Trial{Name: name, Finding: Finding{Answer: Yes}})
	}
	for _, f := range failed {
		for i := range m.Trials {
			if m.Trials[i].Name == f.Name {
				m.Trials[i] = f
			}
		}
	}
	return m
}

// yama is the machine with a kernel.yama.ptrace_scope that is in the way.
func yama(m Machine, noCopies bool) Machine {
	m.Kernel.OwnProcesses, m.Kernel.noCopies = Finding{No, "a setting"}, noCopies
	return m
}

func lacks(name, capability string) Trial {
	return Trial{Name: name, Finding: Finding{No, "doing it needs " + capability}, Lacks: capability, Mend: "be root"}
}

func verdicts(r Report) map[string]Verdict {
	byName := make(map[string]Verdict)
	for _, v := range r.Commands {
		byName[v.Name()] = v
	}
	return byName
}

func TestDiagnose(t *testing.T) {
	t.Parallel()
	oldKernel := Trial{Name: TapLoads, Finding: Finding{No, "needs Linux 5.8"}, Mend: "use a newer kernel"}
	strange := Trial{Name: PacketSocket, Finding: Finding{Unknown, "out of files"}}
	for name, test := range map[string]struct {
		machine Machine
		works   bool
		want    map[string]Verdict // only what is not yes
	}{
		"everything": {machine(ordinary), true, nil},
		"no BPF file system": {machine(ordinary, Trial{Name: BPFFileSystem, Finding: Finding{No, "none is mounted"}, Mend: "mount it"}), true, map[string]Verdict{
			"capture --wrap-filter --pid PID": {Finding: Finding{No, "none is mounted"}, Mend: "mount it"},
		}},
		"raw sockets only": {machine(ordinary, lacks(RawSocket, "CAP_NET_RAW"), lacks(PacketSocket, "CAP_NET_RAW")), false, map[string]Verdict{
			"capture --sock raw":    {Finding: Finding{No, "needs CAP_NET_RAW"}, Mend: "run as root (sudo), or once: setcap cap_bpf,cap_net_raw+ep on the ebpfdump binary"},
			"capture --sock packet": {Finding: Finding{No, "needs CAP_NET_RAW"}, Mend: "run as root (sudo), or once: setcap cap_bpf,cap_net_raw+ep on the ebpfdump binary"},
			"capture --view wire":   {Finding: Finding{No, "needs CAP_NET_RAW"}, Mend: "run as root (sudo), or once: setcap cap_bpf,cap_net_raw,cap_perfmon+ep on the ebpfdump binary"},
			"survey":                {Finding: Finding{No, "needs CAP_NET_RAW"}, Mend: "run as root (sudo)"},
			"survey --hooks":        {Finding: Finding{No, "needs CAP_NET_RAW"}, Mend: "run as root (sudo)"},
		}},
		"network": {machine(ordinary, lacks(NetlinkMessage, "CAP_NET_ADMIN")), false, map[string]Verdict{
			"capture --sock netlink --probe":  {Finding: Finding{No, "needs CAP_NET_ADMIN"}, Mend: "run as root (sudo), or once: setcap cap_bpf,cap_net_raw,cap_net_admin+ep on the ebpfdump binary"},
			"capture --isolate":               {Finding: Finding{No, "needs CAP_NET_ADMIN"}, Mend: "run as root (sudo)"},
			"capture --wrap-filter --pid PID": {Finding: Finding{No, "needs CAP_NET_ADMIN"}, Mend: "run as root (sudo)"},
			"capture --replace-filter":        {Finding: Finding{No, "needs CAP_NET_ADMIN"}, Mend: "run as root (sudo)"},
			"capture --pid PID":               {Finding: Finding{No, "needs CAP_NET_ADMIN"}, Mend: "run as root (sudo), or once: setcap cap_bpf,cap_net_raw,cap_perfmon,cap_net_admin,cap_sys_ptrace,cap_dac_read_search+ep on the ebpfdump binary"},
			"capture -- COMMAND":              {Finding: Finding{No, "needs CAP_NET_ADMIN"}, Mend: "run as root (sudo), or once: setcap cap_bpf,cap_net_raw,cap_perfmon,cap_net_admin+ep on the ebpfdump binary"},
			"capture --user USER -- COMMAND":  {Finding: Finding{No, "needs CAP_NET_ADMIN"}, Mend: "run as root (sudo), or once: setcap cap_bpf,cap_net_raw,cap_perfmon,cap_net_admin,cap_setuid,cap_setgid,cap_sys_ptrace,cap_dac_read_search+ep on the ebpfdump binary"},
			"survey":                          {Finding: Finding{No, "needs CAP_NET_ADMIN"}, Mend: "run as root (sudo)"},
			"survey --hooks":                  {Finding: Finding{No, "needs CAP_NET_ADMIN"}, Mend: "run as root (sudo)"},
			"capture --view cgroup":           {Finding: Finding{No, "needs CAP_NET_ADMIN"}, Mend: "run as root (sudo), or once: setcap cap_bpf,cap_net_raw,cap_perfmon,cap_net_admin+ep on the ebpfdump binary"},
		}},
		"low ports do not count": {machine(ordinary, lacks(LowPort, "CAP_NET_BIND_SERVICE")), true, map[string]Verdict{
			"capture -l ADDR:80": {Finding: Finding{No, "needs CAP_NET_BIND_SERVICE"}, Mend: "run as root (sudo), or once: setcap cap_bpf,cap_net_raw,cap_net_bind_service+ep on the ebpfdump binary"},
		}},
		"other processes": {machine(ordinary, lacks(SystemCalls, "CAP_PERFMON"), lacks(OtherProcess, "CAP_SYS_PTRACE")), true, map[string]Verdict{
			"capture --wrap-filter --pid PID": {Finding: Finding{No, "needs CAP_PERFMON, CAP_SYS_PTRACE"}, Mend: "run as root (sudo)"},
			"capture --replace-filter":        {Finding: Finding{No, "needs CAP_PERFMON, CAP_SYS_PTRACE"}, Mend: "run as root (sudo)"},
			"capture --pid PID":               {Finding: Finding{No, "needs CAP_PERFMON, CAP_SYS_PTRACE"}, Mend: "run as root (sudo), or once: setcap cap_bpf,cap_net_raw,cap_perfmon,cap_net_admin,cap_sys_ptrace,cap_dac_read_search+ep on the ebpfdump binary"},
			"capture --user USER -- COMMAND":  {Finding: Finding{No, "needs CAP_PERFMON, CAP_SYS_PTRACE"}, Mend: "run as root (sudo), or once: setcap cap_bpf,cap_net_raw,cap_perfmon,cap_net_admin,cap_setuid,cap_setgid,cap_sys_ptrace,cap_dac_read_search+ep on the ebpfdump binary"},
			"list --pid PID":                  {Finding: Finding{No, "needs CAP_PERFMON, CAP_SYS_PTRACE"}, Mend: "run as root (sudo), or once: setcap cap_bpf,cap_net_raw,cap_perfmon,cap_sys_ptrace,cap_dac_read_search+ep on the ebpfdump binary"},
			"capture -- COMMAND":              {Finding: Finding{No, "needs CAP_PERFMON"}, Mend: "run as root (sudo), or once: setcap cap_bpf,cap_net_raw,cap_perfmon,cap_net_admin+ep on the ebpfdump binary"},
			"capture --view wire":             {Finding: Finding{No, "needs CAP_PERFMON"}, Mend: "run as root (sudo), or once: setcap cap_bpf,cap_net_raw,cap_perfmon+ep on the ebpfdump binary"},
			"capture --view cgroup":           {Finding: Finding{No, "needs CAP_PERFMON"}, Mend: "run as root (sudo), or once: setcap cap_bpf,cap_net_raw,cap_perfmon,cap_net_admin+ep on the ebpfdump binary"},
			"capture --view drop":             {Finding: Finding{No, "needs CAP_PERFMON"}, Mend: "run as root (sudo), or once: setcap cap_bpf,cap_net_raw,cap_perfmon+ep on the ebpfdump binary"},
			"capture --reuseport-filter FILE": {Finding: Finding{No, "needs CAP_PERFMON"}, Mend: "run as root (sudo), or once: setcap cap_bpf,cap_net_raw,cap_perfmon+ep on the ebpfdump binary"},
			"survey --hooks":                  {Finding: Finding{No, "needs CAP_PERFMON"}, Mend: "run as root (sudo)"},
		}},
		"own processes": {yama(machine(ordinary), false), false, map[string]Verdict{
			"list": {Finding: Finding{No, "needs CAP_SYS_PTRACE"}, Mend: "run as root (sudo), or once: setcap cap_bpf,cap_net_raw,cap_sys_ptrace+ep on the ebpfdump binary"},
		}},
		"own processes, with the capability": {yama(machineOf(capability.Privilege{Effective: 1<<63 - 1}), false), true, nil},
		"no processes": {yama(machineOf(capability.Privilege{Effective: 1<<63 - 1}), true), false, map[string]Verdict{
			"list": {Finding: Finding{No, "a setting"}, Mend: "boot with another kernel.yama.ptrace_scope"},
		}},
		"several capabilities": {machine(capability.Privilege{}, lacks(RawSocket, "CAP_NET_RAW"), lacks(NetworkNamespace, "CAP_SYS_ADMIN")), false, map[string]Verdict{
			"capture --sock raw":              {Finding: Finding{No, "needs CAP_NET_RAW"}, Mend: "run as a root that has it: outside of the container, or in one started with --cap-add BPF --cap-add NET_RAW"},
			"capture --isolate":               {Finding: Finding{No, "needs CAP_SYS_ADMIN"}, Mend: "run as a root that has it: outside of the container, or in one started with --cap-add BPF --cap-add SYS_ADMIN --cap-add NET_ADMIN"},
			"capture --wrap-filter --pid PID": {Finding: Finding{No, "needs CAP_SYS_ADMIN"}, Mend: "run as a root that has it: outside of the container, or in one started with --cap-add BPF --cap-add PERFMON --cap-add NET_ADMIN --cap-add SYS_PTRACE --cap-add DAC_READ_SEARCH --cap-add SYS_ADMIN"},
			"capture --replace-filter":        {Finding: Finding{No, "needs CAP_SYS_ADMIN"}, Mend: "run as a root that has it: outside of the container, or in one started with --cap-add BPF --cap-add PERFMON --cap-add NET_ADMIN --cap-add SYS_PTRACE --cap-add DAC_READ_SEARCH --cap-add SYS_ADMIN"},
			"survey":                          {Finding: Finding{No, "needs CAP_NET_RAW, CAP_SYS_ADMIN"}, Mend: "run as a root that has it: outside of the container, or in one started with --cap-add BPF --cap-add NET_RAW --cap-add SYS_ADMIN --cap-add NET_ADMIN"},
			"survey --hooks":                  {Finding: Finding{No, "needs CAP_NET_RAW, CAP_SYS_ADMIN"}, Mend: "run as a root that has it: outside of the container, or in one started with --cap-add BPF --cap-add NET_RAW --cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add PERFMON"},
		}},
		"user namespace": {machine(capability.Privilege{Nested: true}, lacks(RawSocket, "CAP_NET_RAW")), false, map[string]Verdict{
			"capture --sock raw": {Finding: Finding{No, "needs CAP_NET_RAW outside of this user namespace"}, Mend: "run it as root outside of the user namespace (rootless container, unshare -U)"},
			"survey":             {Finding: Finding{No, "needs CAP_NET_RAW outside of this user namespace"}, Mend: "run it as root outside of the user namespace (rootless container, unshare -U)"},
			"survey --hooks":     {Finding: Finding{No, "needs CAP_NET_RAW outside of this user namespace"}, Mend: "run it as root outside of the user namespace (rootless container, unshare -U)"},
		}},
		"what no capability mends comes first": {machine(ordinary, lacks(RawSocket, "CAP_NET_RAW"), oldKernel), false, map[string]Verdict{
			"capture":                         {Finding: oldKernel.Finding, Mend: oldKernel.Mend},
			"capture --sock raw":              {Finding: oldKernel.Finding, Mend: oldKernel.Mend},
			"capture --sock packet":           {Finding: oldKernel.Finding, Mend: oldKernel.Mend},
			"capture --view wire":             {Finding: oldKernel.Finding, Mend: oldKernel.Mend},
			"capture --sock netlink --probe":  {Finding: oldKernel.Finding, Mend: oldKernel.Mend},
			"capture --user USER -- COMMAND":  {Finding: oldKernel.Finding, Mend: oldKernel.Mend},
			"capture --isolate":               {Finding: oldKernel.Finding, Mend: oldKernel.Mend},
			"capture --wrap-filter --pid PID": {Finding: oldKernel.Finding, Mend: oldKernel.Mend},
			"capture --replace-filter":        {Finding: oldKernel.Finding, Mend: oldKernel.Mend},
			"capture -l ADDR:80":              {Finding: oldKernel.Finding, Mend: oldKernel.Mend},
			"capture --pid PID":               {Finding: oldKernel.Finding, Mend: oldKernel.Mend},
			"capture -- COMMAND":              {Finding: oldKernel.Finding, Mend: oldKernel.Mend},
			"list --pid PID":                  {Finding: oldKernel.Finding, Mend: oldKernel.Mend},
			"survey":                          {Finding: oldKernel.Finding, Mend: oldKernel.Mend},
			"survey --hooks":                  {Finding: oldKernel.Finding, Mend: oldKernel.Mend},
			"replay":                          {Finding: oldKernel.Finding, Mend: oldKernel.Mend},
			"capture --view cgroup":           {Finding: oldKernel.Finding, Mend: oldKernel.Mend},
			"capture --view drop":             {Finding: oldKernel.Finding, Mend: oldKernel.Mend},
			"capture --reuseport-filter FILE": {Finding: oldKernel.Finding, Mend: oldKernel.Mend},
		}},
		"unknown": {machine(ordinary, strange), false, map[string]Verdict{
			"capture --sock packet": {Finding: strange.Finding},
			"capture --view wire":   {Finding: strange.Finding},
			"survey":                {Finding: strange.Finding},
			"survey --hooks":        {Finding: strange.Finding},
		}},
		"a certain no wins over unknown": {machine(ordinary, strange, lacks(NetworkNamespace, "CAP_SYS_ADMIN")), false, map[string]Verdict{
			"capture --sock packet":           {Finding: strange.Finding},
			"capture --view wire":             {Finding: strange.Finding},
			"capture --isolate":               {Finding: Finding{No, "needs CAP_SYS_ADMIN"}, Mend: "run as root (sudo)"},
			"capture --wrap-filter --pid PID": {Finding: Finding{No, "needs CAP_SYS_ADMIN"}, Mend: "run as root (sudo)"},
			"capture --replace-filter":        {Finding: Finding{No, "needs CAP_SYS_ADMIN"}, Mend: "run as root (sudo)"},
			"survey":                          {Finding: Finding{No, "needs CAP_SYS_ADMIN"}, Mend: "run as root (sudo)"},
			"survey --hooks":                  {Finding: Finding{No, "needs CAP_SYS_ADMIN"}, Mend: "run as root (sudo)"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := Diagnose(test.machine, "v1")
			if r.Works != test.works {
				t.Errorf("works: %t", r.Works)
			}
			for name, got := range verdicts(r) {
				want, ok := test.want[name]
				if !ok {
					want.Finding = Finding{Answer: Yes}
				}
				if got.Finding != want.Finding || got.Mend != want.Mend {
					t.Errorf("%s: %s\n%s\n%s\nwant: %s\n%s\n%s", name, got.Answer, got.Detail, got.Mend, want.Answer, want.Detail, want.Mend)
				}
			}
		})
	}
}

// machineOf is a machine on which the trials succeed that these capabilities are enough for.
func machineOf(p capability.Privilege) Machine {
	var failed []Trial
	for _, t := range trials {
		for needed, names := range trialsOf {
			if slices.Contains(names, t.name) && !p.Has(int(needed)) {
				failed = append(failed, lacks(t.name, needed.String()))
			}
		}
	}
	if !p.Has(unix.CAP_BPF) {
		failed = append(failed, lacks(TapLoads, "CAP_BPF"), lacks(TapRecords, "CAP_BPF"))
	}
	if !p.Has(unix.CAP_NET_ADMIN) {
		failed = append(failed, lacks(CgroupHook, "CAP_NET_ADMIN"))
	}
	m := machine(p, failed...)
	for c := range trialsOf {
		if p.Has(int(c)) {
			m.Process.Capabilities = append(m.Process.Capabilities, Capability{Name: c.String(), Held: Yes})
		}
	}
	return m
}

// Whatever is held: who does what the doctor says of a command, and has nothing else, can
// use it. The doctor names what is missing, too.
func TestFollowVerdict(t *testing.T) {
	t.Parallel()
	for _, c := range commands {
		for subset := range 1 << len(c.all) {
			for _, uid := range []int{0, 1000} {
				before := capability.Privilege{UID: uid}
				for i, needed := range c.all {
					before.Effective |= uint64(subset>>i&1) << needed
				}
				followVerdict(t, c, before)
			}
		}
	}
}

func followVerdict(t *testing.T, c command, before capability.Privilege) {
	t.Helper()
	v := judge(machineOf(before), c)
	lacking := slices.DeleteFunc(slices.Clone(c.all), func(c capability.Cap) bool { return before.Has(int(c)) })
	if (v.Answer == Yes) != (len(lacking) == 0) {
		t.Fatalf("%s with %+v: %s, and it lacks %v", v.Name(), before, v.Answer, lacking)
	}
	if v.Answer == Yes {
		return
	}
	for _, c := range lacking {
		if !strings.Contains(v.Detail, c.String()) {
			t.Errorf("%s with %+v: %s, and not %s", v.Name(), before, v.Detail, c)
		}
	}
	uid, effective, err := testutil.FollowHint(v.Mend)
	if err != nil {
		t.Fatal(err)
	}
	after := capability.Privilege{UID: uid, Effective: effective}
	for _, c := range c.all {
		if !after.Has(int(c)) {
			t.Errorf("%s with %+v: %s is missing after: %s", v.Name(), before, c, v.Mend)
		}
	}
	if then := judge(machineOf(after), c); then.Answer != Yes {
		t.Errorf("%s with %+v: after %q it %s", v.Name(), before, v.Mend, then.Detail)
	}
}

// A machine about which nothing is known does not count as working.
func TestDiagnoseNothing(t *testing.T) {
	t.Parallel()
	r := Diagnose(Machine{}, "v1")
	if r.Works {
		t.Error("everything works")
	}
	for name, v := range verdicts(r) {
		want := Unknown
		if name == "convert" || name == "explain" || name == "extcap" || name == "wireshark" || name == "doctor" {
			want = Yes
		}
		if v.Answer != want {
			t.Errorf("%s: %s, want %s", name, v.Answer, want)
		}
	}
}

func TestNeededFor(t *testing.T) {
	t.Parallel()
	for capability, want := range map[capability.Cap]string{
		unix.CAP_BPF:              "capture, list --pid PID, replay, survey",
		unix.CAP_NET_RAW:          "capture --sock raw, capture --sock packet, capture --view wire, survey",
		unix.CAP_SYS_ADMIN:        "capture --isolate, capture --wrap-filter --pid PID, capture --replace-filter, survey",
		unix.CAP_NET_ADMIN:        "capture --sock netlink --probe, capture --isolate, capture --view cgroup, capture --pid PID, capture -- COMMAND, survey",
		unix.CAP_NET_BIND_SERVICE: "capture -l ADDR:80",
		unix.CAP_PERFMON:          "capture --view cgroup, capture --view drop, capture --view wire, capture --reuseport-filter FILE, capture --pid PID, capture -- COMMAND, list --pid PID, survey --hooks",
		unix.CAP_SYS_PTRACE:       "capture --pid PID, capture --user USER -- COMMAND, list --pid PID",
	} {
		if got := strings.Join(neededFor(capability), ", "); got != want {
			t.Errorf("%s is needed for %s, want %s", capability, got, want)
		}
	}
	held := capabilities(capability.Privilege{Effective: 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_RAW})
	got := make(map[string]Answer)
	for _, c := range held {
		got[c.Name] = c.Held
	}
	for name, want := range map[string]Answer{"CAP_BPF": Yes, "CAP_NET_RAW": Yes, "CAP_SYS_ADMIN": Yes, "CAP_NET_BIND_SERVICE": No, "CAP_PERFMON": Yes, "CAP_SYS_PTRACE": No} {
		if got[name] != want {
			t.Errorf("%s: %q, want %s", name, got[name], want)
		}
	}
}

// Every trial that a command names exists, and every capability that it needs is tried.
func TestCommandsNameTrials(t *testing.T) {
	t.Parallel()
	made := map[string]bool{TapLoads: true, TapRecords: true, ownProcesses: true}
	for _, trial := range trials {
		made[trial.name] = true
	}
	for _, c := range commands {
		for _, need := range c.needs {
			if !made[need] {
				t.Errorf("%s needs %q, which nothing tries", c.name, need)
			}
		}
		for _, capability := range c.capabilities {
			if !slices.ContainsFunc(trialsOf[capability], func(name string) bool { return slices.Contains(c.needs, name) }) {
				t.Errorf("%s %s needs %s, which nothing tries", c.name, c.form, capability)
			}
		}
	}
	names := make(map[string]bool)
	for _, c := range commands {
		names[Verdict{Command: c.name, Form: c.form}.Name()] = true
	}
	for _, exceptions := range []map[string][]string{without, alsoNeeds} {
		for name := range exceptions {
			if !names[name] {
				t.Errorf("there is no form %q", name)
			}
		}
	}
}
