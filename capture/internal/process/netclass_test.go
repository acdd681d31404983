package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// A socket's class stays as it is: a copy, which would change it, is refused. In a process of its
// own, which sees the mount.
func TestNetworkClass(t *testing.T) {
	const folder = "EBPFDUMP_NET_CLS"
	if dir := os.Getenv(folder); dir != "" {
		checkNetworkClass(t, dir)
		return
	}
	t.Parallel()
	testutil.Mounted(t, "cgroup", "net_cls", func(dir string) error {
		again := exec.Command("/proc/self/exe", "-test.run=^TestNetworkClass$", "-test.v")
		again.Env = append(os.Environ(), folder+"="+dir)
		out, err := again.CombinedOutput()
		if err == nil && !strings.Contains(string(out), "--- PASS") {
			err = errors.New("it has not run")
		}
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
}

func checkNetworkClass(t *testing.T, dir string) {
	group := filepath.Join(dir, fmt.Sprintf("ebpfdump-test-%d", os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(group); err != nil {
			t.Error(err)
		}
	})
	other := exec.Command("cat")
	stdin, err := other.StdinPipe()
	if err == nil {
		err = other.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = other.Wait() })
	set := func(file, value string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(group, file), []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	set("cgroup.procs", fmt.Sprint(other.Process.Pid))
	for class, want := range map[string]string{
		"0": "", // as ours
		"0x100001": fmt.Sprintf("copying the sockets of process %d (cat) would change their network class, which cgroup /%s gives them (net_cls): "+
			"run it in that cgroup, too (cgexec -g net_cls:/%[2]s)", other.Process.Pid, filepath.Base(group)),
	} {
		set("net_cls.classid", class)
		p, err := Open(other.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		fd, err := p.CopyDescriptor(0)
		var missing *bpf.MissingError
		switch {
		case want == "" && err == nil:
			unix.Close(fd)
		case want == "" || !errors.As(err, &missing) || err.Error() != want:
			t.Errorf("class %s: got %v, want %q", class, err, want)
		}
		p.Close()
	}
}
