package process

import (
	"os"
	"os/exec"
	"slices"
	"testing"
)

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
	short, long := start("a short cat"), start("a cat with a long name")
	for name, want := range map[string][]int{
		"a short cat":             {short},
		"a cat with a long name":  {long},
		"a cat with a long":       nil,
		"a cat with a l":          nil,
		"a cat with a lo":         {long}, // all that the kernel keeps
		"a cat with a long name2": nil,
		"":                        nil,
	} {
		if got := Named(name); !slices.Equal(got, want) {
			t.Errorf("%q is the name of %v, want %v", name, got, want)
		}
	}
	own, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(Named(string(own[:len(own)-1])), os.Getpid()) {
		t.Error("this process is among those with its name")
	}
}
