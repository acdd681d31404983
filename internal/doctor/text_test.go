package doctor

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// example is a report that covers everything, independent of the machine.
func example() Report {
	m := machine(ordinary,
		lacks(TapLoads, "CAP_BPF"),
		lacks(TapRecords, "CAP_BPF"),
		Trial{Name: PacketSocket, Finding: Finding{Unknown, "opening a packet socket: too many open files"}},
	)
	m.Kernel = Kernel{
		Release: "6.1.0", Architecture: "x86_64",
		BPF:             Finding{Unknown, "finding out needs CAP_BPF"},
		BTF:             Finding{No, "there is no /sys/kernel/btf/vmlinux; a socket of our own does without, --pid and commands do not"},
		JIT:             Finding{Yes, "1: filters are compiled"},
		UnprivilegedBPF: Finding{No, "2: bpf(2) needs CAP_BPF"},
		OwnProcesses:    Finding{No, "1: copying their sockets needs CAP_SYS_PTRACE (kernel.yama.ptrace_scope)"},
	}
	m.Process.Effective = "0000000000000000"
	m.Process.Capabilities = capabilities(ordinary)
	m.Process.InitialUserNamespace = Finding{Answer: Yes}
	m.Process.Seccomp = Finding{Yes, "a filter decides which system calls are let through"}
	for _, f := range bpf.Features() {
		finding := Finding{Unknown, "finding out needs CAP_BPF"}
		if f.Name == "ring buffer" {
			finding = Finding{No, "not in this kernel"}
		}
		m.Features = append(m.Features, Feature{f.Kind, f.Name, finding})
	}
	m.Cgroup = Cgroup{Finding{Yes, "/sys/fs/cgroup/unified"}, []Mount{{1, "/sys/fs/cgroup/cpu"}, {2, "/sys/fs/cgroup/unified"}, {1, "/\x1b[2J"}}}
	m.Tools = []Tool{{Name: "tshark", Finding: Finding{Yes, "4.0.17, /usr/bin/tshark"}, Path: "/usr/bin/tshark", Version: "4.0.17"}}
	m.Extcap = Extcap{Finding{No, "/nowhere does not exist"}, []string{"/nowhere"}}
	return Diagnose(m, "v1.2.3")
}

// A narrow terminal has the same words, in lines of its width.
func TestNarrowText(t *testing.T) {
	t.Parallel()
	var wide strings.Builder
	if err := example().Text(&wide, false, 200); err != nil {
		t.Fatal(err)
	}
	for _, columns := range []int{40, 63, 64, 79} {
		var narrow strings.Builder
		if err := example().Text(&narrow, false, columns); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(narrow.String()) {
			if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > columns && len(strings.Fields(line)) > 1 {
				t.Errorf("wider than %d columns: %s", columns, line)
			}
		}
		if got, want := strings.Fields(narrow.String()), strings.Fields(wide.String()); !slices.Equal(got, want) {
			t.Errorf("in %d columns\n%q\nand in %d\n%q", columns, got, Columns, want)
		}
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	var plain, coloured strings.Builder
	if err := example().Text(&plain, false, Columns); err != nil {
		t.Fatal(err)
	}
	if err := example().Text(&coloured, true, Columns); err != nil {
		t.Fatal(err)
	}
	testutil.Golden(t, "testdata/report.txt", plain.String())
	for line := range strings.Lines(plain.String()) {
		// A long list of capabilities stays in one piece, to be copied.
		if len(strings.TrimSuffix(line, "\n")) > Columns && len(strings.Fields(line)) > 1 {
			t.Errorf("wider than %d columns: %s", Columns, line)
		}
	}
	if strings.Contains(plain.String(), "\x1b") {
		t.Error("an escape got through")
	}
	if bare := regexp.MustCompile("\x1b\\[[0-9]+m").ReplaceAllString(coloured.String(), ""); bare != plain.String() {
		t.Error("colour changes more than colour")
	}
}

// The JSON is a promise: a change found by this test needs a new Version unless it only
// adds.
func TestJSON(t *testing.T) {
	t.Parallel()
	got, err := json.MarshalIndent(example(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	testutil.Golden(t, "testdata/report.json", string(got)+"\n")
}
