package capture

import (
	"os"
	"path/filepath"
	"testing"
)

// A cgroup's folder may be named from the current one on.
func TestGroupFolderFromHere(t *testing.T) {
	here := t.TempDir()
	t.Chdir(here)
	if err := os.Mkdir("group", 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := groupFolder("group"); err == nil {
		t.Error("a folder without cgroup.procs is a cgroup")
	}
	if err := os.WriteFile(filepath.Join("group", procs), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if folder, err := groupFolder("group"); err != nil || folder != filepath.Join(here, "group") {
		t.Errorf("%q, %v", folder, err)
	}
}
