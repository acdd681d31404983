package process

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// psName is the name of a process that ps prints in a locale.
func psName(t *testing.T, pid int, locale string) string {
	t.Helper()
	testutil.RequireTool(t, "ps")
	ps := exec.Command("ps", "-o", "comm=", "-p", strconv.Itoa(pid))
	ps.Env = []string{"LC_ALL=" + locale}
	text, err := ps.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(text), "\n")
}

// Processes are found by the names that ps shows, also by those of which the kernel keeps
// the beginning only.
func TestNamed(t *testing.T) {
	t.Parallel()
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	start := func(name string) int {
		path := folder + "/" + name
		if err := os.Symlink(cat, path); err != nil {
			t.Fatal(err)
		}
		child := exec.Command(path)
		stdin, err := child.StdinPipe()
		if err == nil {
			err = child.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			stdin.Close()
			child.Wait()
		})
		return child.Process.Pid
	}
	// Of this test only: others may run at the same time.
	id := fmt.Sprintf("%07d", os.Getpid())
	short, long := start(id+"a cat"), start(id+" a cat with a long name")
	evil := start("\x1b[31m\n" + id)
	for name, want := range map[string][]int{
		id + "a cat":                    {short},
		id + " a cat with a long name":  {long},
		id + " a cat with a long":       nil,
		id + " a cat ":                  nil,
		id + " a cat w":                 {long}, // all that the kernel keeps
		id + " a cat with a long name2": nil,
		"":                              nil,
		"\x1b[31m\n" + id:               {evil},
		`\x1b[31m\n` + id:               {evil}, // as Label has it
		`\x1b[31m` + id:                 nil,
		psName(t, evil, "C"):            {evil},
		psName(t, evil, "C.UTF-8"):      {evil},
	} {
		if got := Named(name); !slices.Equal(got, want) {
			t.Errorf("%q is the name of %v, want %v", name, got, want)
		}
	}
	p, err := Open(evil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if want := fmt.Sprintf(`%d (\x1b[31m\n%s)`, evil, id); p.Label() != want {
		t.Errorf("labelled %s, want %s", p.Label(), want)
	}
	own, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(Named(string(own[:len(own)-1])), os.Getpid()) {
		t.Error("this process is among those with its name")
	}
}
