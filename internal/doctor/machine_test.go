package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/capability"
)

// files is a world with only these files.
func files(content map[string]string) world {
	m := fstest.MapFS{}
	for name, text := range content {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return world{files: m}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	const (
		jit          = "proc/sys/net/core/bpf_jit_enable"
		unprivileged = "proc/sys/kernel/unprivileged_bpf_disabled"
		btf          = "sys/kernel/btf/vmlinux"
		yama         = "proc/sys/kernel/yama/ptrace_scope"
	)
	for name, test := range map[string]struct {
		files                       map[string]string
		jit, unprivileged, btf, own Answer
	}{
		"nothing mounted": {nil, Unknown, Unknown, Unknown, Unknown},
		"usual":           {map[string]string{jit: "1\n", unprivileged: "2\n", btf: "x", yama: "1\n"}, Yes, No, Yes, No},
		"old":             {map[string]string{jit: "0\n", unprivileged: "0\n", "sys/kernel/mm": ""}, No, Yes, No, Yes},
		"debugging":       {map[string]string{jit: "2\n", unprivileged: "1\n", yama: "0\n"}, Yes, No, Unknown, Yes},
		"strict":          {map[string]string{jit: "1\n", unprivileged: "2\n", yama: "3\n"}, Yes, No, Unknown, No},
		"strange":         {map[string]string{jit: "", unprivileged: "many\n", yama: "4\n"}, Unknown, Unknown, Unknown, Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := files(test.files).kernel(nil)
			for _, f := range []struct {
				name string
				Finding
				want Answer
			}{
				{"JIT", k.JIT, test.jit},
				{"unprivileged", k.UnprivilegedBPF, test.unprivileged},
				{"BTF", k.BTF, test.btf},
				{"one's own processes", k.OwnProcesses, test.own},
			} {
				if f.Answer != f.want || f.Detail == "" {
					t.Errorf("%s: %s (%s), want %s", f.name, f.Answer, f.Detail, f.want)
				}
			}
		})
	}
}

func TestCgroup(t *testing.T) {
	t.Parallel()
	const other = "22 1 0:20 / /sys rw,relatime shared:7 - sysfs sysfs rw\n"
	for name, test := range map[string]struct {
		table  string
		answer Answer
		mounts []Mount
	}{
		"none":    {other, No, []Mount{}},
		"unified": {other + "26 22 0:23 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n", Yes, []Mount{{2, "/sys/fs/cgroup"}}},
		"legacy":  {"30 22 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n", No, []Mount{{1, "/sys/fs/cgroup/cpu"}}},
		"hybrid": {
			"30 22 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n31 22 0:27 / /mnt/two\\040words rw - cgroup2 none rw",
			Yes, []Mount{{1, "/sys/fs/cgroup/cpu"}, {2, "/mnt/two words"}},
		},
		"damaged":               {"30 22 - cgroup\n - \n31 22 0:27 / /mnt rw -\n", No, []Mount{}},
		"a folder of that name": {"30 22 0:26 / /cgroup2 rw - tmpfs cgroup2 rw\n", No, []Mount{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := files(map[string]string{"proc/self/mountinfo": test.table}).cgroup()
			if c.Answer != test.answer || !reflect.DeepEqual(c.Mounts, test.mounts) {
				t.Errorf("%s %v, want %s %v", c.Answer, c.Mounts, test.answer, test.mounts)
			}
		})
	}
	if c := files(nil).cgroup(); c.Answer != Unknown || c.Mounts == nil {
		t.Errorf("without /proc: %+v", c)
	}
}

func TestUnescape(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{`/a\040b`: "/a b", `/a\134`: `/a\`, `/a\04`: `/a\04`, `/a\999b`: `/a\999b`, `\`: `\`} {
		if got := unescape(path); got != want {
			t.Errorf("%s becomes %s, want %s", path, got, want)
		}
	}
}

// Only two results of a probe are conclusive, besides a missing system call.
func TestFeature(t *testing.T) {
	t.Parallel()
	capable := capability.Privilege{Effective: 1 << unix.CAP_BPF}
	nested := capability.Privilege{Effective: 1 << unix.CAP_BPF, Nested: true}
	noProc := &fs.PathError{Op: "open", Path: "/proc/self/mountinfo", Err: unix.ENOENT}
	for _, test := range []struct {
		err       error
		privilege capability.Privilege
		want      Finding
		call      Answer // whether there is a bpf(2)
	}{
		{nil, capable, Finding{Answer: Yes}, Yes},
		{bpf.ErrNotSupported, capable, Finding{No, "not in this kernel"}, Yes},
		{unix.ENOSYS, ordinary, Finding{No, noBPF}, No},
		{unix.EPERM, ordinary, Finding{Unknown, "finding out needs CAP_BPF"}, Unknown},
		{unix.EPERM, nested, Finding{Unknown, "finding out needs CAP_BPF outside of this user namespace"}, Unknown},
		{unix.EPERM, capable, Finding{Unknown, "finding out is not permitted although CAP_BPF is held"}, Unknown},
		{noProc, capable, Finding{Unknown, "finding out needs /proc"}, Unknown},
		{unix.ENOMEM, capable, Finding{Unknown, "cannot allocate memory"}, Unknown},
	} {
		err := test.err
		if err != nil {
			err = fmt.Errorf("detect support: %w", err)
		}
		got := feature(err, test.privilege)
		if got != test.want {
			t.Errorf("%v, %+v: %+v, want %+v", test.err, test.privilege, got, test.want)
		}
		if call := systemCall([]Feature{{Finding: got}}); call.Answer != test.call {
			t.Errorf("%v, %+v: bpf(2) is there: %s, want %s", test.err, test.privilege, call.Answer, test.call)
		}
	}
}

func TestJudgeTrial(t *testing.T) {
	t.Parallel()
	capable := capability.Privilege{Effective: 1 << unix.CAP_NET_RAW}
	for _, test := range []struct {
		err       error
		privilege capability.Privilege
		answer    Answer
		lacks     string
		mendable  bool
	}{
		{nil, ordinary, Yes, "", false},
		{unix.EPERM, ordinary, No, "CAP_NET_RAW", true},
		{unix.EACCES, ordinary, No, "CAP_NET_RAW", true},
		{unix.EPERM, capable, No, "", true},
		{unix.EPERM, capability.Privilege{Effective: capable.Effective, Nested: true}, No, "CAP_NET_RAW", true},
		{unix.EAFNOSUPPORT, capable, No, "", true},
		{unix.ENOSYS, ordinary, No, "", true},
		{unix.EMFILE, capable, Unknown, "", false},
		{errors.New("strange"), capable, Unknown, "", false},
		{bpf.LacksCapability(unix.CAP_NET_ADMIN, "doing it", unix.EPERM), capable, No, "CAP_NET_ADMIN", true},
		{&bpf.MissingError{What: "doing it needs Linux 5.17", Hint: "use a newer kernel", Err: unix.ENOENT}, capable, No, "", true},
	} {
		trial := judgeTrial(RawSocket, "opening it", unix.CAP_NET_RAW, test.err, test.privilege)
		if trial.Answer != test.answer || trial.Lacks != test.lacks || (trial.Mend != "") != test.mendable {
			t.Errorf("%v, %+v: %+v", test.err, test.privilege, trial)
		}
		if (trial.Detail == "") != (test.err == nil) {
			t.Errorf("%v: detail %q", test.err, trial.Detail)
		}
	}
}
