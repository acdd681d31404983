package privilege

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/capability"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

func names(list []capability.Cap) string {
	var all []string
	for _, c := range list {
		all = append(all, c.String())
	}
	return strings.Join(all, ", ")
}

func TestNeeds(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		use  Use
		want string
	}{
		{Use{Command: "explain"}, ""},
		{Use{Command: "capture", Kind: "tcp", Probe: true}, "CAP_BPF"},
		{Use{Command: "capture", Kind: "netlink"}, "CAP_BPF"},
		{Use{Command: "capture", Kind: "packet-dgram", LowPort: true}, "CAP_BPF, CAP_NET_RAW, CAP_NET_BIND_SERVICE"},
		{Use{Command: "capture", Kind: "netlink", Probe: true, Isolate: true}, "CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN"},
		{Use{Command: "capture", Join: true}, "CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH"},
		{Use{Command: "capture", Run: true}, "CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN"},
		{Use{Command: "survey"}, "CAP_BPF, CAP_NET_RAW, CAP_SYS_ADMIN, CAP_NET_ADMIN"},
	} {
		if got := names(test.use.Needs()); got != test.want {
			t.Errorf("%+v needs %s, want %s", test.use, got, test.want)
		}
	}
}

// Each form has its command before it.
func TestTable(t *testing.T) {
	t.Parallel()
	commands := make(map[string]bool)
	for _, r := range Requirements() {
		if r.Form == "" {
			commands[r.Command] = true
		}
		if r.Example.Command != r.Command || r.applies != nil && !r.applies(r.Example) {
			t.Errorf("%s %s: %+v is no example of it", r.Command, r.Form, r.Example)
		}
		if !commands[r.Command] || (r.Form == "") != (r.applies == nil) {
			t.Errorf("%s %s: no row of its command before it, or nothing that says when it applies", r.Command, r.Form)
		}
	}
}

// A hint names everything that is needed, so that one step is enough.
func TestHint(t *testing.T) {
	t.Parallel()
	user := capability.Privilege{UID: 1000, Effective: 1 << unix.CAP_BPF}
	got := Use{Command: "capture", Join: true}.hint(user, "CAP_PERFMON")
	if want := "run as root (sudo), or once: setcap cap_bpf,cap_net_raw,cap_perfmon,cap_net_admin,cap_sys_ptrace,cap_dac_read_search+ep on the ebpfdump binary"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// follow is the privilege of who does what a hint says.
func follow(t *testing.T, hint string) capability.Privilege {
	t.Helper()
	uid, effective, err := testutil.FollowHint(hint)
	if err != nil {
		t.Fatal(err)
	}
	return capability.Privilege{UID: uid, Effective: effective}
}

// Whatever is held and whatever is missing, who does what the hint says and has nothing
// else then lacks nothing.
func TestFollowHint(t *testing.T) {
	t.Parallel()
	for _, r := range Requirements() {
		needs := r.Example.Needs()
		for subset := range 1 << len(needs) {
			for _, uid := range []int{0, 1000} {
				before := capability.Privilege{UID: uid}
				for i, c := range needs {
					before.Effective |= uint64(subset>>i&1) << c
				}
				for _, missing := range needs {
					if before.Has(int(missing)) {
						continue
					}
					hint := r.Example.hint(before, missing.String())
					after := follow(t, hint)
					for _, c := range needs {
						if !after.Has(int(c)) {
							t.Errorf("%s %s by %+v: %s is missing after: %s", r.Command, r.Form, before, c, hint)
						}
					}
				}
			}
		}
	}
	// The table does not know of what a filter's helpers need.
	hint := Use{Command: "replay"}.hint(capability.Privilege{UID: 1000, Effective: 1 << unix.CAP_BPF}, "CAP_PERFMON")
	if after := follow(t, hint); !after.Has(unix.CAP_BPF) || !after.Has(unix.CAP_PERFMON) {
		t.Errorf("%s: %+v", hint, after)
	}
}

// The hint is the use's also inside of another error, whose text is made already.
func TestAdvise(t *testing.T) {
	t.Parallel()
	lacks := func() error { return bpf.LacksCapability(unix.CAP_NET_ADMIN, "doing it", unix.EPERM) }
	use := Use{Command: "capture", Join: true}
	hint := use.hint(capability.CurrentPrivilege(), "CAP_NET_ADMIN")
	for _, test := range []struct {
		err  error
		want string
	}{
		{lacks(), "doing it needs CAP_NET_ADMIN: " + hint},
		{fmt.Errorf("joining process 1: %w", lacks()), "joining process 1: doing it needs CAP_NET_ADMIN: " + hint},
		{unix.ENOENT, unix.ENOENT.Error()},
	} {
		got := use.Advise(test.err)
		if got.Error() != test.want || !errors.Is(got, test.err) {
			t.Errorf("%v, want %s", got, test.want)
		}
	}
}

// What is added one by one stays.
func TestFollowHintToAdd(t *testing.T) {
	t.Parallel()
	user := capability.Privilege{UID: 1000}
	var added []capability.Cap
	for _, r := range Requirements() {
		for _, c := range r.Needs {
			if user.Has(int(c)) {
				continue
			}
			hint := HintToAdd(user, c.String())
			after := follow(t, hint)
			added = append(added, c)
			for _, c := range added {
				if !after.Has(int(c)) {
					t.Errorf("%+v: %s is missing after: %s", user, c, hint)
				}
			}
			user.Effective = after.Effective
		}
	}
}

// The reference has a line for each row, which names the same capabilities.
func TestReference(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../REFERENCE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ = bytes.Cut(text, []byte("\n## Privileges\n"))
	text, _, _ = bytes.Cut(text, []byte("\n### ")) // what is left during a capture
	for _, r := range Requirements() {
		call := strings.TrimSpace(r.Command + " " + r.Form)
		var line string
		for l := range strings.Lines(string(text)) {
			what, _, _ := strings.Cut(strings.TrimPrefix(l, "| "), " | ")
			if strings.HasPrefix(l, "| ") && (strings.Contains(what, "`"+call+"`") || r.Form != "" && strings.Contains(what, "`"+r.Form+"`")) &&
				(strings.Contains(l, "CAP_") || strings.Contains(l, "| nothing |")) {
				line = l
			}
		}
		if line == "" {
			t.Errorf("REFERENCE.md has no line for %s", call)
			continue
		}
		for _, c := range r.Needs {
			if !strings.Contains(line, c.String()) {
				t.Errorf("REFERENCE.md says of %s: %s, and not %s", call, strings.TrimSpace(line), c)
			}
		}
		if n := strings.Count(line, "CAP_"); n != len(r.Needs) {
			t.Errorf("REFERENCE.md names %d capabilities for %s, and the table %d", n, call, len(r.Needs))
		}
	}
}
