package outfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

func itoa(n int) string { return strconv.Itoa(n) }

// An older file is untouched until the first Write, which overwrites it in place: it
// keeps its links and permissions.
func TestOlderFile(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "out"), filepath.Join(dir, "other")
	for _, older := range []string{"", "old", strings.Repeat("a long older file ", 1000)} {
		write(t, path, older)
		must(t, os.Chmod(path, 0o640))
		must(t, os.Link(path, other))
		f := mustCreate(t, path)
		must(t, f.Reserve(100_000))
		expect(t, path, older)
		for _, part := range []string{"first ", "second ", "third"} {
			n, err := f.Write([]byte(part))
			if n != len(part) || err != nil {
				t.Fatal(n, err)
			}
		}
		must(t, f.Finish(nil))
		expect(t, other, "first second third")
		info, err := os.Stat(path)
		must(t, err)
		if info.Mode() != 0o640 || info.Sys().(*syscall.Stat_t).Nlink != 2 {
			t.Errorf("mode %v", info.Mode())
		}
		must(t, os.Remove(other))
	}
	f := mustCreate(t, path)
	must(t, f.Finish(nil))
	expect(t, path, "") // nothing is what there was to write
}

// state is everything that a user sees of a file.
func state(name string) string {
	content, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return err.Error()
	}
	return fmt.Sprint(st.Ino, st.Mode, st.Uid, st.Size, st.Mtim, st.Blocks, string(content))
}

// On a full disk an older file is untouched, no new one remains, and what fits into the
// older file is written.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	testutil.Mounted(t, "tmpfs", "size=64k", func(dir string) error {
		// Create cannot be used: it runs in another goroutine, and so on another thread.
		older, fresh := filepath.Join(dir, "older"), filepath.Join(dir, "new")
		content := strings.Repeat("0123456789", 1000)
		if err := errors.Join(os.WriteFile(older, []byte(content), 0o600), full(filepath.Join(dir, "filler"))); err != nil {
			return err
		}
		before := state(older)
		for _, name := range []string{older, fresh} {
			f, err := new(Files).create(name)
			if err != nil {
				return err
			}
			if err := f.Reserve(20_000); !errors.Is(err, syscall.ENOSPC) {
				return fmt.Errorf("%s: reserving: %w", name, err)
			}
			n, err := f.Write(make([]byte, 20_000))
			if n != 0 || !errors.Is(err, syscall.ENOSPC) {
				return fmt.Errorf("%s: wrote %d: %w", name, n, err)
			}
			if err := f.Finish(err); err != nil {
				return err
			}
		}
		if after := state(older); after != before {
			return fmt.Errorf("older file: %.80s, was %.80s", after, before)
		}
		if _, err := os.Lstat(fresh); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("a new file is left: %w", err)
		}
		f, err := new(Files).create(older)
		if err != nil {
			return err
		}
		if _, err := f.Write([]byte(content[:5000])); err != nil {
			return err
		}
		if err := f.Finish(nil); err != nil {
			return err
		}
		if got, err := os.ReadFile(older); err != nil || string(got) != content[:5000] {
			return fmt.Errorf("%d bytes: %w", len(got), err)
		}
		return nil
	})
}

// If space cannot be reserved, a first Write that fails half-way is undone.
func TestFailureHalfWay(t *testing.T) {
	if name := os.Getenv("OUTFILE_HALF_WAY"); name != "" {
		halfWay(t, name)
		return
	}
	testutil.Mounted(t, "ramfs", "", func(dir string) error {
		older := filepath.Join(dir, "older")
		if err := os.WriteFile(older, bytes.Repeat([]byte("older "), 5000), 0o600); err != nil {
			return err
		}
		before := state(older)
		// The limit applies to the whole process, so the test needs one of its own.
		out, err := again(t, "OUTFILE_HALF_WAY="+older)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if after := state(older); strings.Fields(after)[0] != strings.Fields(before)[0] || !strings.HasSuffix(after, strings.Repeat("older ", 5000)) {
			return fmt.Errorf("older file: %.80s, was %.80s", after, before)
		}
		return nil
	})
}

func halfWay(t *testing.T, name string) {
	must(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 8192, Max: 8192}))
	ignoreSizeSignal()
	f := mustCreate(t, name)
	must(t, f.Reserve(20_000)) // ramfs knows nothing of it
	n, err := f.Write(make([]byte, 20_000))
	if n != 0 || !errors.Is(err, syscall.EFBIG) {
		t.Fatalf("wrote %d: %v", n, err)
	}
	must(t, f.Finish(err))
}

// harm is a change to a file by another process while it is written.
type harm struct {
	name string
	do   func(path string) error
	want string // in the error, "" for none
	left string // what the file has then
}

var harms = []harm{
	{"emptied", func(p string) error { return os.Truncate(p, 0) }, "was cut to 0 bytes by somebody else meanwhile, of the 6 that were written", ""},
	{"cut", func(p string) error { return os.Truncate(p, 2) }, "was cut to 2 bytes", "fi"},
	{"overwritten", func(p string) error { return os.WriteFile(p, []byte("theirs, all of it"), 0) }, "was written to by somebody else meanwhile: it has 17 bytes, of which 6 are ours", "theirs, all of it"},
	{"removed", os.Remove, "was removed by somebody else meanwhile", ""},
	{"replaced", func(p string) error {
		return errors.Join(os.WriteFile(p+"2", nil, 0o600), os.Rename(p+"2", p))
	}, "was removed by somebody else", ""},
	{"moved", func(p string) error { return os.Rename(p, p+"2") }, "", "first last"},
}

// A change by another process is noticed at the next Write or at the end, and nothing
// more is written.
func TestChangedMeanwhile(t *testing.T) {
	for _, h := range harms {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s late=%v", h.name, late), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "out")
				var notices []string
				files := &Files{Notice: func(text string) { notices = append(notices, text) }}
				f, err := files.Create(t.Context(), path)
				must(t, err)
				_, err = f.Write([]byte("first "))
				must(t, err)
				if late && h.want == "" {
					_, err = f.Write([]byte("last"))
					must(t, err)
				}
				must(t, h.do(path))
				if !late {
					_, err = f.Write([]byte("last"))
				}
				if err == nil {
					err = f.Finish(nil)
				}
				var changed *ChangedError
				if h.want == "" {
					must(t, err)
					if len(notices) != 1 || !strings.HasSuffix(notices[0], "is in "+path+"2") {
						t.Errorf("notices %q", notices)
					}
					expect(t, path+"2", h.left)
					return
				}
				if !errors.As(err, &changed) || !strings.Contains(err.Error(), path+" "+h.want) {
					t.Errorf("error %v", err)
				}
				_ = f.Finish(err)
				if h.name != "removed" {
					expect(t, path, h.left)
				}
			})
		}
	}
}

// Even while another process truncates the file all the time, it never gets a hole: it
// contains only what was written before the change was noticed.
func TestEmptiedAnyTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	for range 300 {
		f := mustCreate(t, path)
		block := bytes.Repeat([]byte("x"), 5000)
		_, err := f.Write(block)
		must(t, err)
		done := make(chan error, 1)
		go func() { done <- os.Truncate(path, 0) }()
		for range 10_000 {
			if _, err = f.Write(block); err != nil {
				break
			}
		}
		must(t, <-done)
		if err == nil {
			_, err = f.Write(block)
		}
		var changed *ChangedError
		if !errors.As(err, &changed) {
			t.Fatal(err)
		}
		_ = f.Finish(err)
		content, err := os.ReadFile(path)
		must(t, err)
		if len(content) != 0 {
			t.Fatalf("%d bytes are left, %d of them zero", len(content), bytes.Count(content, []byte{0}))
		}
	}
}

// Two processes do not write the same file.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	f := mustCreate(t, path)
	_, err := f.Write([]byte("first"))
	must(t, err)
	if _, err := create(path); err == nil || !strings.Contains(err.Error(), "another process is writing to "+path) {
		t.Errorf("error %v", err)
	}
	must(t, f.Finish(nil))
	expect(t, path, "first")
	must(t, mustCreate(t, path).Finish(nil))
}
