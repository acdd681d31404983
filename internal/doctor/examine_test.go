package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/capability"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// roleVariable makes the test binary a process with fewer privileges that prints its
// report.
const roleVariable = "EBPFDUMP_DOCTOR_ROLE"

// forever as first argument makes the test binary a program that never ends.
const forever = "forever"

var roles = map[string]func() error{
	"nobody": becomeUser,
	"no-bpf": loseBPF,
}

func TestMain(m *testing.M) {
	for len(os.Args) > 1 && os.Args[1] == forever {
		time.Sleep(time.Hour)
	}
	become, ok := roles[os.Getenv(roleVariable)]
	if !ok {
		os.Exit(m.Run())
	}
	if err := become(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	machine := Examine(context.Background())
	if err := json.NewEncoder(os.Stdout).Encode(Diagnose(machine, "v1")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func becomeUser() error {
	const nobody = 65534
	if err := unix.Setresgid(nobody, nobody, nobody); err != nil {
		return err
	}
	return unix.Setresuid(nobody, nobody, nobody)
}

// loseBPF installs a seccomp filter that makes every bpf(2) fail as on a kernel without
// it.
func loseBPF() error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the system call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_BPF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}

// reportAs is the report of a process in a role.
func reportAs(t *testing.T, role string) Report {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(executable)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("as %s: %v: %s", role, err, &stderr)
	}
	var r Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("as %s: %v: %s", role, err, out)
	}
	return r
}

func TestExamine(t *testing.T) {
	t.Parallel()
	privilege := capability.CurrentPrivilege()
	if !privilege.MayLoad() || !privilege.Has(unix.CAP_NET_RAW) || !privilege.Has(unix.CAP_SYS_ADMIN) {
		testutil.Missing(t, "needs CAP_BPF, CAP_NET_RAW and CAP_SYS_ADMIN")
	}
	r := Diagnose(Examine(t.Context()), "v1")
	if !r.Works {
		t.Errorf("not everything works: %+v", r.Commands)
	}
	for _, f := range r.Features {
		if f.Answer != Yes {
			t.Errorf("%s %s: %s, %s", f.Kind, f.Name, f.Answer, f.Detail)
		}
	}
	if r.Kernel.BPF.Answer != Yes || r.Kernel.Release == "" || r.Kernel.Architecture == "" {
		t.Errorf("kernel: %+v", r.Kernel)
	}
}

func TestExamineAsNobody(t *testing.T) {
	t.Parallel()
	testutil.RequireRoot(t) // who else could become nobody
	r := reportAs(t, "nobody")
	if r.Works || r.Process.UID != 65534 || r.Process.Effective != "0000000000000000" {
		t.Errorf("works %t, %+v", r.Works, r.Process)
	}
	for name, v := range verdicts(r) {
		switch name {
		case "capture", "replay", "survey":
			if v.Answer != No || v.Mend == "" {
				t.Errorf("%s: %+v", name, v)
			}
		case "list":
			if v.Answer != r.Kernel.OwnProcesses.Answer {
				t.Errorf("%s: %+v, and of one's own processes %+v", name, v, r.Kernel.OwnProcesses)
			}
		case "convert", "explain", "extcap", "wireshark", "doctor":
			if v.Answer != Yes {
				t.Errorf("%s: %+v", name, v)
			}
		}
	}
	if trial := r.trial(TapLoads); trial.Lacks != "CAP_BPF" {
		t.Errorf("%+v", trial)
	}
	for _, f := range r.Features {
		if f.Answer == No {
			t.Errorf("%s %s: no, although nobody could find out", f.Kind, f.Name)
		}
	}
}

// On a kernel without bpf(2) every answer says so.
func TestExamineWithoutBPF(t *testing.T) {
	t.Parallel()
	if _, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0); err != nil {
		testutil.Missing(t, "needs seccomp")
	}
	r := reportAs(t, "no-bpf")
	if r.Works || r.Kernel.BPF.Answer != No || r.Process.Seccomp.Answer != Yes {
		t.Errorf("works %t, bpf(2) %+v, seccomp %+v", r.Works, r.Kernel.BPF, r.Process.Seccomp)
	}
	for _, f := range r.Features {
		if f.Answer != No || f.Detail != noBPF {
			t.Errorf("%s %s: %+v", f.Kind, f.Name, f.Finding)
		}
	}
	v := verdicts(r)["capture"]
	if v.Answer != No || v.Mend == "" || r.trial(TapLoads).Lacks != "" {
		t.Errorf("capture: %+v", v)
	}
}

// Where no BPF file system is mounted, the row of what needs one says so, and how to mount it.
func TestNoBPFFileSystem(t *testing.T) {
	testutil.RequireRoot(t)
	found := make(chan Machine)
	go func() {
		defer close(found)
		if err := testutil.WithoutBPFFileSystem(); err != nil { // this thread
			t.Error(err)
			return
		}
		found <- Machine{Trials: tryAll(capability.CurrentPrivilege())}
	}()
	m := <-found
	for _, v := range Diagnose(m, "").Commands {
		if v.Name() == "capture --wrap-filter --pid PID" && (v.Answer != No || v.Mend != "mount -t bpf bpf /sys/fs/bpf" || !strings.Contains(v.Detail, "none is mounted")) {
			t.Errorf("%+v", v)
		}
	}
}
