package confine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	landlocksys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// A process cannot regain what it drops, so each test restricts a child: the test binary
// again, which reports on stdout.
const childVariable = "EBPFDUMP_CONFINED"

var children = map[string]func(folder string) map[string]string{
	"keep":      keepInChild,
	"files":     filesInChild,
	"setuid":    setuidInChild,
	"foreigner": foreignerInChild,
}

func TestMain(m *testing.M) {
	child := children[os.Getenv(childVariable)]
	if child == nil {
		os.Exit(m.Run())
	}
	if err := json.NewEncoder(os.Stdout).Encode(child(os.Args[1])); err != nil {
		panic(err)
	}
}

// inChild runs a child in a folder.
func inChild(t *testing.T, name, folder string) map[string]string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", folder)
	cmd.Env = append(os.Environ(), childVariable+"="+name)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("child %s: %v\n%s", name, err, out)
	}
	var result map[string]string
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatalf("child %s: %v in %s", name, err, out)
	}
	return result
}

func requireLandlock(t *testing.T) {
	t.Helper()
	if HasLandlock() {
		return
	}
	testutil.Missing(t, "needs Landlock")
}

// busy keeps threads in all states: running, blocked in a system call, and idle in a
// locked goroutine. It returns when all of them exist.
func busy() {
	var begun sync.WaitGroup
	inThread := func(work func()) {
		begun.Add(1)
		go func() {
			runtime.LockOSThread()
			begun.Done()
			work()
		}()
	}
	for range 4 {
		inThread(func() { select {} })
		var pipe [2]int
		_ = unix.Pipe(pipe[:])
		inThread(func() { unix.Read(pipe[0], make([]byte, 1)) })
	}
	inThread(func() {
		for spins := new(atomic.Int64); ; {
			spins.Add(1)
		}
	})
	begun.Wait()
}

// threads returns the distinct values of lines in the status of all threads.
func threads(lines ...string) map[string]string {
	result := map[string]string{}
	names, _ := filepath.Glob("/proc/self/task/*/status")
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // ended meanwhile
		}
		for _, line := range lines {
			value := regexp.MustCompile(`(?m)^` + line + `:\s*(\S+)`).FindSubmatch(text)[1]
			if !strings.Contains(result[line], string(value)) {
				result[line] += string(value)
			}
		}
	}
	result["threads"] = strconv.Itoa(len(names))
	return result
}

func keepInChild(string) map[string]string {
	busy()
	if err := Unprivileged(func() error { return mayRemoveFrom("/proc/1/root") }); err == nil {
		panic("another process's root without a capability")
	}
	if err := Keep(unix.CAP_NET_RAW, unix.CAP_SYS_PTRACE); err != nil {
		panic(err)
	}
	result := threads("CapEff", "CapPrm", "CapInh", "CapAmb", "NoNewPrivs")
	id, err := exec.Command("sh", "-c", "grep CapEff /proc/self/status").Output()
	result["run"] = fmt.Sprintln(err, string(bytes.TrimSpace(id)))
	return result
}

func TestKeep(t *testing.T) {
	t.Parallel()
	testutil.RequireRoot(t, unix.CAP_DAC_OVERRIDE, unix.CAP_NET_RAW)
	got := inChild(t, "keep", "")
	const kept = "0000000000082000"
	for line, want := range map[string]string{
		"CapEff": kept, "CapPrm": kept, "CapInh": "0000000000000000", "CapAmb": "0000000000000000", "NoNewPrivs": "1",
	} {
		if got[line] != want {
			t.Errorf("%s: the threads have %s, want %s", line, got[line], want)
		}
	}
	if n, _ := strconv.Atoi(got["threads"]); n < 10 {
		t.Errorf("only %d threads were tried", n)
	}
	// The kernel gives root's programs everything that was kept, and no more.
	if want := "<nil> CapEff:\t" + kept + "\n"; got["run"] != want {
		t.Errorf("a program that was run has %q, want %q", got["run"], want)
	}
}

// A capability that is held only as part of a larger one is kept by keeping that.
func TestWanted(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ permitted, want uint64 }{
		{1<<unix.CAP_BPF | 1<<unix.CAP_SYS_ADMIN, 1 << unix.CAP_BPF},
		{1 << unix.CAP_SYS_ADMIN, 1 << unix.CAP_SYS_ADMIN},
	} {
		if got := wanted(test.permitted, []int{unix.CAP_BPF}); got != test.want {
			t.Errorf("of %#x: got %#x, want %#x", test.permitted, got, test.want)
		}
	}
}

func setuidInChild(folder string) map[string]string {
	if err := Keep(); err != nil {
		panic(err)
	}
	out, err := exec.Command(filepath.Join(folder, "id"), "-u").CombinedOutput()
	return map[string]string{"id": fmt.Sprintln(err, string(bytes.TrimSpace(out)))}
}

// A set-user-id program does not regain anything.
func TestKeepForGood(t *testing.T) {
	t.Parallel()
	testutil.RequireRoot(t, unix.CAP_DAC_OVERRIDE, unix.CAP_NET_RAW)
	folder := t.TempDir()
	id, err := exec.LookPath("id")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(id)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(folder, "id")
	if err := errors.Join(os.WriteFile(name, program, 0o755), os.Chown(name, 1, 1), os.Chmod(name, 0o755|os.ModeSetuid)); err != nil {
		t.Fatal(err)
	}
	if got := inChild(t, "setuid", folder)["id"]; got != "<nil> 0\n" {
		t.Errorf("got %q, want user 0 as before", got)
	}
}

// filesInChild tries what a confined process may do with files.
func filesInChild(folder string) map[string]string {
	busy()
	in := func(name string) string { return filepath.Join(folder, name) }
	input, err := os.Open(in("input"))
	if err != nil {
		panic(err)
	}
	output, err := os.OpenFile(in("out/output"), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		panic(err)
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	if err := ToOpenFiles(in("out")); err != nil {
		panic(err)
	}
	result := map[string]string{}
	try := func(what string, err error) {
		result[what] = "done"
		if err != nil {
			result[what] = err.Error()
		}
		for _, errno := range []unix.Errno{unix.EACCES, unix.EPERM} {
			if errors.Is(err, errno) {
				result[what] = "denied"
			}
		}
	}
	text, err := io.ReadAll(input)
	result["read input"] = fmt.Sprint(string(text), err)
	try("empty output", output.Truncate(0))
	_, err = output.WriteString("x")
	try("write output", err)
	_, err = os.ReadFile("/etc/shadow")
	try("open", err)
	_, err = os.ReadFile(in("input"))
	try("open again", err)
	_, err = os.ReadDir("/")
	try("list", err)
	try("make", os.WriteFile(in("out/new"), nil, 0o600))
	try("make folder", os.Mkdir(in("new"), 0o700))
	try("remove input", os.Remove(in("input")))
	try("remove output", os.Remove(in("out/output")))
	try("run", exec.Command("/bin/true").Run())
	_, err = net.Dial("tcp4", listener.Addr().String())
	try("connect", err)
	plain := net.ListenConfig{} // of MPTCP Landlock knows nothing
	plain.SetMultipathTCP(false)
	_, err = plain.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	try("listen", err)
	try("signal", unix.Kill(os.Getppid(), 0))
	try("set hostname", unix.Sethostname([]byte("x")))
	return result
}

func landlockVersion(t *testing.T) int {
	t.Helper()
	version, err := landlocksys.LandlockGetABIVersion()
	if err != nil {
		t.Fatal(err)
	}
	return version
}

func TestToOpenFiles(t *testing.T) {
	t.Parallel()
	testutil.RequireRoot(t, unix.CAP_DAC_OVERRIDE, unix.CAP_NET_RAW)
	requireLandlock(t)
	folder := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(folder, "out"), 0o700), os.WriteFile(filepath.Join(folder, "input"), []byte("data"), 0o600)); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"read input": "data<nil>", "empty output": "done", "write output": "done", "remove output": "done",
		"open": "denied", "open again": "denied", "list": "denied", "make": "denied", "make folder": "denied",
		"remove input": "denied", "run": "denied", "set hostname": "denied",
	}
	// Later kernels restrict more (Documentation/userspace-api/landlock.rst).
	version := landlockVersion(t)
	if version >= 4 {
		want["connect"], want["listen"] = "denied", "denied"
	}
	if version >= 6 {
		want["signal"] = "denied"
	}
	got := inChild(t, "files", folder)
	for what, outcome := range want {
		if got[what] != outcome {
			t.Errorf("%s: %s, want %s", what, got[what], outcome)
		}
	}
}

// foreignerInChild is root in another user's folder, as with sudo.
func foreignerInChild(folder string) map[string]string {
	output := filepath.Join(folder, "output")
	if err := os.WriteFile(output, nil, 0o600); err != nil {
		panic(err)
	}
	capabilities := func(removable ...string) string {
		if err := ToOpenFiles(removable...); err != nil {
			panic(err)
		}
		sets, err := current()
		if err != nil {
			panic(err)
		}
		return fmt.Sprintf("%x %x", sets.effective, sets.permitted)
	}
	return map[string]string{"kept": capabilities(folder), "remove": fmt.Sprint(os.Remove(output)), "in the end": capabilities()}
}

func TestToOpenFilesOfOthers(t *testing.T) {
	t.Parallel()
	testutil.RequireRoot(t, unix.CAP_DAC_OVERRIDE, unix.CAP_NET_RAW)
	requireLandlock(t)
	folder := t.TempDir()
	if err := os.Chown(folder, 1, 1); err != nil {
		t.Fatal(err)
	}
	got := inChild(t, "foreigner", folder)
	want := map[string]string{"kept": "2 2", "remove": "<nil>", "in the end": "0 0"}
	for what, outcome := range want {
		if got[what] != outcome {
			t.Errorf("%s: %s, want %s", what, got[what], outcome)
		}
	}
}
