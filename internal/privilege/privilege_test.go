package privilege

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/capability"
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
		if !commands[r.Command] || (r.Form == "") != (r.applies == nil) {
			t.Errorf("%s %s: no row of its command before it, or nothing that says when it applies", r.Command, r.Form)
		}
	}
}

// A hint names everything that is missing, so that one step is enough.
func TestHint(t *testing.T) {
	t.Parallel()
	user := capability.Privilege{UID: 1000, Effective: 1 << unix.CAP_BPF}
	got := Use{Command: "capture", Join: true}.hint(user, "CAP_PERFMON")
	if want := "run as root (sudo), or once: setcap cap_bpf,cap_net_raw,cap_perfmon,cap_net_admin,cap_sys_ptrace,cap_dac_read_search+ep on the ebpfdump binary"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// README has a line for each row, which names the same capabilities.
func TestREADME(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
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
			t.Errorf("README has no line for %s", call)
			continue
		}
		for _, c := range r.Needs {
			if !strings.Contains(line, c.String()) {
				t.Errorf("README says of %s: %s, and not %s", call, strings.TrimSpace(line), c)
			}
		}
		if n := strings.Count(line, "CAP_"); n != len(r.Needs) {
			t.Errorf("README names %d capabilities for %s, and the table %d", n, call, len(r.Needs))
		}
	}
}
