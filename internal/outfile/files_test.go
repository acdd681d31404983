package outfile

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// again runs a test in a process of its own.
func again(t *testing.T, env string) ([]byte, error) {
	cmd := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), env)
	return cmd.CombinedOutput()
}

func ignoreSizeSignal() { signal.Notify(make(chan os.Signal, 1), unix.SIGXFSZ) }

// A file that is read is not written, by whatever names it is opened.
func TestInputIsNoOutput(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	write(t, "a", "precious")
	must(t, os.Link("a", "hard"))
	must(t, os.Symlink("a", "soft"))
	must(t, os.Mkdir("sub", 0o700))
	must(t, unix.Mkfifo("fifo", 0o600))
	for _, c := range []struct{ input, output, want string }{
		{"a", "a", "a is the input and the output: it would be overwritten while it is read"},
		{"a", "./sub/../a", "a is the input and the output (./sub/../a): it would be overwritten while it is read"},
		{"a", "hard", "a is the input and the output (hard): it would be overwritten while it is read"},
		{"soft", "a", "soft is the input and the output (a): it would be overwritten while it is read"},
		{"hard", "soft", "hard is the input and the output (soft): it would be overwritten while it is read"},
		{"fifo", "fifo", "fifo is the input and the output: it would be overwritten while it is read"},
		{"/dev/null", "/dev/null", ""},
		{"a", "other", ""},
		{"missing", "missing", ""},
	} {
		var files Files
		files.Reads("", c.input)
		f, err := files.Create(t.Context(), c.output)
		var same *SameFileError
		switch {
		case c.want == "":
			must(t, err)
			must(t, f.Finish(errors.New("no")))
		case !errors.As(err, &same) || err.Error() != c.want:
			t.Errorf("%s, %s: error %v", c.input, c.output, err)
		}
		expect(t, "a", "precious")
	}
}

// Two outputs must be different files.
func TestOutputTwice(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	var files Files
	f, err := files.Create(t.Context(), path)
	must(t, err)
	must(t, os.Link(path, path+"2"))
	var same *SameFileError
	if _, err := files.Create(t.Context(), path+"2"); !errors.As(err, &same) || same.Input {
		t.Errorf("error %v", err)
	}
	must(t, f.Finish(nil))
	again, err := files.Create(t.Context(), path+"2")
	must(t, err) // the first one is closed
	must(t, again.Finish(nil))
}

// Stdout gets the same checks if it is a file.
func TestStdout(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	write(t, path, "older\n")
	stdout, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	defer stdout.Close()
	var files Files
	w, err := files.Stdout(stdout)
	must(t, err)
	for range 2 {
		_, err = io.WriteString(w, "more\n")
		must(t, err)
	}
	expect(t, path, "older\nmore\nmore\n")
	must(t, os.Truncate(path, 3))
	var changed *ChangedError
	if _, err := io.WriteString(w, "more\n"); !errors.As(err, &changed) {
		t.Errorf("error %v", err)
	}
	expect(t, path, "old")

	var same *SameFileError
	files = Files{}
	files.Reads(path)
	if _, err := files.Stdout(stdout); !errors.As(err, &same) {
		t.Errorf("error %v", err)
	}
}

func owner(t *testing.T, name string) [2]uint32 {
	t.Helper()
	info, err := os.Lstat(name)
	must(t, err)
	st := info.Sys().(*syscall.Stat_t)
	return [2]uint32{st.Uid, st.Gid}
}

// Files created under sudo belong to the invoking user; other files keep their owner.
func TestOwner(t *testing.T) {
	testutil.RequireRoot(t)
	for _, c := range []struct {
		uid, gid string
		want     [2]uint32
	}{
		{"1234", "567", [2]uint32{1234, 567}},
		{"", "", [2]uint32{}},
		{"1234", "", [2]uint32{}},
		{"alice", "567", [2]uint32{}},
		{"-1", "567", [2]uint32{}},
		{"4294967295", "567", [2]uint32{}},
		{"1234 ", "567", [2]uint32{}},
	} {
		t.Setenv("SUDO_UID", c.uid)
		t.Setenv("SUDO_GID", c.gid)
		dir := t.TempDir()
		older, fresh, deep := filepath.Join(dir, "older"), filepath.Join(dir, "new"), filepath.Join(dir, "some", "deep", "folder/")
		write(t, older, "")
		for _, name := range []string{older, fresh} {
			f := mustCreate(t, name)
			_, err := f.Write([]byte("packets"))
			must(t, err)
			must(t, f.Finish(nil))
		}
		must(t, new(Files).MakeDirectory(deep))
		must(t, new(Files).MakeDirectory(deep))
		for name, want := range map[string][2]uint32{
			older: {}, dir: {}, fresh: c.want,
			filepath.Join(dir, "some"): c.want, filepath.Join(dir, "some", "deep"): c.want, deep: c.want,
		} {
			if got := owner(t, name); got != want {
				t.Errorf("%q %q: %s belongs to %v, want %v", c.uid, c.gid, name, got, want)
			}
		}
		for name, want := range map[string]os.FileMode{fresh: 0o600, deep: os.ModeDir | 0o700} {
			if info, err := os.Stat(name); err != nil || info.Mode() != want {
				t.Errorf("%s: %v %v", name, info.Mode(), err)
			}
		}
	}
}

// The files of the user who invoked sudo count as our own in a world-writable directory:
// a second capture there overwrites the first.
func TestOwnUnderSudo(t *testing.T) {
	testutil.RequireRoot(t)
	dir := folder(t, 0o777|os.ModeSticky)
	t.Setenv("SUDO_UID", "1234")
	t.Setenv("SUDO_GID", "1234")
	path := filepath.Join(dir, "out")
	for range 2 {
		must(t, mustCreate(t, path).Finish(nil))
	}
	must(t, os.Symlink("out", filepath.Join(dir, "link")))
	must(t, os.Lchown(filepath.Join(dir, "link"), 1234, 1234))
	must(t, mustCreate(t, filepath.Join(dir, "link")).Finish(nil))
	t.Setenv("SUDO_UID", "1235")
	var foreign *ForeignError
	if _, err := create(path); !errors.As(err, &foreign) {
		t.Errorf("error %v", err)
	}
}

// A directory that another user created first can be changed by them.
func TestForeignDirectory(t *testing.T) {
	testutil.RequireRoot(t)
	path := filepath.Join(folder(t, 0o777|os.ModeSticky), "pcaps")
	must(t, os.Mkdir(path, 0o755))
	must(t, new(Files).MakeDirectory(path))
	must(t, os.Chown(path, stranger, stranger))
	var foreign *ForeignError
	if err := new(Files).MakeDirectory(path); !errors.As(err, &foreign) {
		t.Errorf("error %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	if err := new(Files).MakeDirectory(file); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("error %v", err)
	}
}
