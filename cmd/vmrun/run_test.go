package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// requireKernels is the variable that makes a missing kernel a failure.
const requireKernels = "EBPFDUMP_REQUIRE_KERNELS"

func TestMain(m *testing.M) {
	// The guests of these tests have the test binary itself as init.
	if inGuest() {
		guestMain()
	}
	os.Setenv("EBPFDUMP_COLOUR", "red")
	os.Exit(m.Run())
}

// bootable returns the kernels to test with, or skips.
func bootable(t *testing.T) []string {
	t.Helper()
	if testing.Short() {
		t.Skip("booting kernels takes its time")
	}
	t.Parallel()
	missing := t.Skipf
	if os.Getenv(requireKernels) == "1" {
		missing = t.Fatalf
	}
	if _, err := exec.LookPath(qemuName); err != nil {
		missing("no guest can run: %v", err)
	}
	kernels, err := localKernels(defaultDir())
	if err != nil {
		t.Fatal(err)
	}
	if len(kernels) == 0 {
		missing("no kernel in %s: get some with \"vmrun fetch\"", defaultDir())
	}
	return kernels
}

// buildGuest builds the program in testdata/guest.
func buildGuest(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "guest")
	goTool(t, "build", "-o", program, "./testdata/guest")
	return program
}

func goTool(t *testing.T, args ...string) {
	t.Helper()
	tool := exec.Command("go", args...)
	tool.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := tool.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", args[0], err, output)
	}
}

// vmrun runs the command in this process.
func vmrun(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var o, e bytes.Buffer
	status = command(t.Context(), args, &o, &e)
	return status, o.String(), e.String()
}

func TestRunOnEveryKernel(t *testing.T) {
	kernels, program := bootable(t), buildGuest(t)
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("testdata/guest/main.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, kernel := range kernels {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			status, stdout, stderr := vmrun(t, "run", "-kernel", kernel, "-env", "SHAPE=round", program, "look")
			want := []string{
				"folder " + dir,
				"variable red round",
				fmt.Sprintf("testdata %x", sha256.Sum256(source)),
				"network <nil> <nil>",
				"mount /tmp 0x1021994",
				"mount /dev/shm 0x1021994",
				"mount /proc 0x9fa0",
				"mount /sys 0x62656572",
				"mount /dev 0x1021994",
				"mount /sys/fs/bpf 0xcafe4a11",
				"mount /sys/fs/cgroup 0x63677270",
				"mount /sys/kernel/tracing 0x74726163",
			}
			release, rest, _ := strings.Cut(stdout, "\n")
			if !strings.HasPrefix(release, "release "+kernel+".") {
				t.Errorf("the guest says %q", release)
			}
			if got := strings.Split(strings.TrimSpace(rest), "\n"); !slices.Equal(got, want) {
				t.Errorf("the guest says\n%s\nwant\n%s", rest, strings.Join(want, "\n"))
			}
			if status != 0 || stderr != "on stderr\n" {
				t.Errorf("status %d, stderr %q", status, stderr)
			}
		})
	}
}

func TestRunStatus(t *testing.T) {
	kernel, program := bootable(t)[0], buildGuest(t)
	for _, test := range []struct {
		name   string
		args   []string
		status int
		stderr string // its beginning
	}{
		{"signal", []string{program, "abort"}, 128 + 9, "vmrun: guest: signal: killed\n"},
		{"memory", []string{"-memory", "128", program, "fill"}, 128 + 9, "vmrun: the guest ran out of memory, and its kernel killed 1 of its processes: -memory gives it more\n"},
		{"panic", []string{program, "panic"}, statusFailed, "vmrun: running guest on " + kernel + ": kernel panic: sysrq triggered crash"},
		{"timeout", []string{"-timeout", "4s", program, "sleep"}, statusFailed, "vmrun: running guest on " + kernel + ": no end within 4s\n"},
		{"no out", []string{"-out", "/none", program, "exit", "0"}, statusFailed, "vmrun: running guest on " + kernel + ": getting /none: "},
		{"no out after a failure", []string{"-out", "/none", program, "exit", "7"}, 7, "vmrun: getting /none: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			status, _, stderr := vmrun(t, append([]string{"run", "-kernel", kernel}, test.args...)...)
			if status != test.status || !strings.HasPrefix(stderr, test.stderr) {
				t.Errorf("status %d, want %d; stderr %q, want %q", status, test.status, stderr, test.stderr)
			}
		})
	}
}

func TestRunOut(t *testing.T) {
	kernel, program := bootable(t)[0], buildGuest(t)
	host := filepath.Join(t.TempDir(), "got")
	status, stdout, stderr := vmrun(t, "run", "-kernel", kernel, "-out", "/tmp/made:"+host, program, "write", "/tmp/made")
	if status != 0 || stderr != "" {
		t.Fatalf("status %d, stderr %q", status, stderr)
	}
	if len(stdout) != 256 || stdout[10] != 10 || stdout[255] != 255 {
		t.Errorf("the bytes on stdout are not those that the program wrote: %q", stdout)
	}
	got, err := os.ReadFile(filepath.Join(host, "below", "pattern"))
	if err != nil || !bytes.Equal(got, bytes.Repeat([]byte(stdout), 8<<10)) {
		t.Errorf("%d bytes came back: %v", len(got), err)
	}
	if _, err := os.Stat(filepath.Join(host, "empty")); err != nil {
		t.Error(err)
	}
}

// TestRunAsWrapper runs this package's test binary as "go test -exec" does.
func TestRunAsWrapper(t *testing.T) {
	kernel := bootable(t)[0]
	program, profile := filepath.Join(t.TempDir(), "vmrun.test"), filepath.Join(t.TempDir(), "trace")
	goTool(t, "test", "-c", "-o", program, ".")
	status, stdout, stderr := vmrun(t, "run", "-kernel", kernel, program,
		"-test.paniconexit0", "-test.v", "-test.run=^TestArchive$", "-test.trace="+profile)
	if status != 0 || !strings.Contains(stdout, "--- PASS: TestArchive") {
		t.Errorf("status %d, stdout %q, stderr %q", status, stdout, stderr)
	}
	if info, err := os.Stat(profile); err != nil || info.Size() == 0 {
		t.Errorf("the trace did not come back: %v", err)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"walk"}, {"run"}, {"run", "-kernel", "5.10"}, {"run", "-speed", "9"}, {"fetch", "linux"}, {"fetch", "../5.10"},
	} {
		if status, _, stderr := vmrun(t, args...); status != statusUsage || stderr == "" {
			t.Errorf("vmrun %v: status %d, %q", args, status, stderr)
		}
	}
}

func TestCheckStatic(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := checkStatic(script); err != nil {
		t.Error(err)
	}
	if err := checkStatic(script + "none"); !os.IsNotExist(err) {
		t.Errorf("a missing program gives %v", err)
	}
}
