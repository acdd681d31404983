package outfile

import (
	"os"
	"path/filepath"
	"testing"
)

// A file that was left is removed, and one that somebody has put in its place is not.
func TestLeft(t *testing.T) {
	t.Parallel()
	for _, replaced := range []bool{false, true} {
		name := filepath.Join(t.TempDir(), "old")
		var files Files
		f, err := files.Create(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("old")); err != nil {
			t.Fatal(err)
		}
		left, ok := f.Left()
		if !ok {
			t.Fatal("a regular file cannot be left")
		}
		if err := f.Finish(nil); err != nil {
			t.Fatal(err)
		}
		if replaced {
			if err := os.WriteFile(name+".new", []byte("new"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(name+".new", name); err != nil {
				t.Fatal(err)
			}
		}
		if err := left.Remove(); err != nil {
			t.Fatal(err)
		}
		if err := left.Remove(); err != nil {
			t.Error("a second time:", err)
		}
		if _, err := os.Stat(name); os.IsNotExist(err) == replaced {
			t.Errorf("replaced: %t, and then %v", replaced, err)
		}
	}
}
