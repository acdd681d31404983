package outfile

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// stranger is another user.
const stranger = 65534

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func create(name string) (*File, error) { return new(Files).Create(context.Background(), name) }

func mustCreate(tb testing.TB, name string) *File {
	tb.Helper()
	f, err := create(name)
	must(tb, err)
	return f
}

// write makes a file.
func write(tb testing.TB, name, content string) {
	tb.Helper()
	must(tb, os.WriteFile(name, []byte(content), 0o600))
}

func expect(tb testing.TB, name, want string) {
	tb.Helper()
	got, err := os.ReadFile(name)
	must(tb, err)
	if string(got) != want {
		tb.Fatalf("%s has %d bytes %.40q, want %d bytes %.40q", name, len(got), got, len(want), want)
	}
}

// folder makes a directory with a mode that the umask does not change.
func folder(tb testing.TB, mode os.FileMode) string {
	tb.Helper()
	dir := filepath.Join(tb.TempDir(), "folder")
	must(tb, os.Mkdir(dir, 0o700))
	must(tb, os.Chmod(dir, mode))
	return dir
}

// full fills a disk up to the last page.
func full(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for range 1 << 20 {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			if errors.Is(err, syscall.ENOSPC) {
				return nil
			}
			return err
		}
	}
	return errors.New("the disk has no end")
}
