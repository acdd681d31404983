package outfile

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// foreignCase is something that is planted where a file will be written.
type foreignCase struct {
	name string
	// put creates it at a path, and returns the file that must not change.
	put func(t *testing.T, path, victim string)
	// uid is its owner; that of the directory is 0.
	uid     int
	refused string // what the message calls it, "" if it may be written to
}

var foreignCases = []foreignCase{
	{"a link of somebody else", putLink, stranger, "a symbolic link of user 65534"},
	{"a link of our own", putLink, 0, ""},
	{"a file of somebody else", putFile, stranger, "a file of user 65534"},
	{"a file of our own", putFile, 0, ""},
	{"a fifo of somebody else", putFifo, stranger, "a fifo of user 65534"},
	{"another name of our own file", putHardLink, 0, "another name of a file of user 0"},
}

func putLink(t *testing.T, path, victim string) { must(t, os.Symlink(victim, path)) }

func putFile(t *testing.T, path, _ string) { write(t, path, "older") }

func putFifo(t *testing.T, path, _ string) { must(t, unix.Mkfifo(path, 0o666)) }

func putHardLink(t *testing.T, path, victim string) { must(t, os.Link(victim, path)) }

// A planted file is refused in a directory where others can write, and accepted
// elsewhere, whatever fs.protected_* is.
func TestForeignFiles(t *testing.T) {
	testutil.RequireRoot(t)
	for mode, shared := range map[os.FileMode]bool{
		0o777 | fs.ModeSticky: true,
		0o777:                 true,
		0o770 | fs.ModeSticky: true,
		0o770:                 false,
		0o755 | fs.ModeSticky: false,
		0o755:                 false,
	} {
		for _, c := range foreignCases {
			t.Run(mode.String()+" "+c.name, func(t *testing.T) {
				dir := folder(t, mode)
				path, victim := filepath.Join(dir, "out"), filepath.Join(t.TempDir(), "victim")
				write(t, victim, "precious")
				c.put(t, path, victim)
				must(t, os.Lchown(path, c.uid, c.uid))
				if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeNamedPipe != 0 && !shared {
					return // it is opened, which waits for a reader
				}
				f, err := create(path)
				if !shared || c.refused == "" {
					must(t, err)
					must(t, f.Finish(errors.New("not now")))
					return
				}
				var foreign *ForeignError
				if !errors.As(err, &foreign) || !strings.Contains(err.Error(), path+" is "+c.refused+", in a directory where others can put files") {
					t.Fatalf("error %v", err)
				}
				expect(t, victim, "precious")
			})
		}
	}
}

// Another user's fifo is not even opened.
func TestForeignFifoIsNotOpened(t *testing.T) {
	testutil.RequireRoot(t)
	path := filepath.Join(folder(t, 0o777|fs.ModeSticky), "fifo")
	must(t, unix.Mkfifo(path, 0o666))
	must(t, os.Chown(path, stranger, stranger))
	reader, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	must(t, err)
	defer unix.Close(reader)
	if _, err := create(path); err == nil {
		t.Fatal("it was opened")
	}
	poll := []unix.PollFd{{Fd: int32(reader), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, 0); err != nil || n != 0 {
		t.Errorf("the reader had a writer: %v %v", poll, err)
	}
}

// Links in the middle of a path, links to links, and cycles.
func TestForeignDirectories(t *testing.T) {
	testutil.RequireRoot(t)
	shared, private := folder(t, 0o777|fs.ModeSticky), folder(t, 0o755)
	link := func(name, target string, uid int) string {
		path := filepath.Join(shared, name)
		must(t, os.Symlink(target, path))
		must(t, os.Lchown(path, uid, uid))
		return path
	}
	theirs, ours := link("theirs", private, stranger), link("ours", private, 0)
	link("indirect", "theirs", 0)
	must(t, os.Symlink(theirs, filepath.Join(private, "back")))
	for name, refused := range map[string]bool{
		theirs + "/a":                            true,
		theirs + "/../a":                         true,
		filepath.Join(shared, "indirect") + "/a": true,
		private + "/back/a":                      true,
		ours + "/a":                              false,
		ours + "/back/a":                         true,
		private + "/../" + filepath.Base(private) + "/b": false,
	} {
		f, err := create(name)
		var foreign *ForeignError
		if errors.As(err, &foreign) != refused || !refused && err != nil {
			t.Errorf("%s: error %v", name, err)
		}
		if err == nil {
			must(t, f.Finish(nil))
			must(t, os.Remove(name))
		}
	}
	if entries, err := os.ReadDir(private); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}

// While another process replaces a path as fast as it can, the file that it points to is
// untouched.
func TestForeignRace(t *testing.T) {
	testutil.RequireRoot(t)
	dir := folder(t, 0o777|fs.ModeSticky)
	victim, path, spare := filepath.Join(t.TempDir(), "victim"), filepath.Join(dir, "out"), filepath.Join(dir, "spare")
	write(t, victim, "precious")
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			for _, put := range []func() error{
				func() error { return os.WriteFile(spare, []byte("theirs"), 0o666) },
				func() error { return os.Symlink(victim, spare) },
				func() error { return os.Link(victim, spare) },
			} {
				if err := errors.Join(put(), os.Lchown(spare, stranger, stranger)); err != nil {
					stopped <- err
					return
				}
				must(t, os.Chown(victim, 0, 0))
				if err := os.Rename(spare, path); err != nil {
					stopped <- err
					return
				}
				os.Remove(spare) // two names of one file are not renamed
			}
			os.Remove(path)
		}
	}()
	refused, made := 0, 0
	for range 3000 {
		f, err := create(path)
		if err != nil {
			refused++
			continue
		}
		made++
		_, _ = f.Write([]byte("ours"))
		_ = f.Finish(nil)
	}
	close(stop)
	must(t, <-stopped)
	expect(t, victim, "precious")
	t.Logf("%d refused, %d written", refused, made)
	if refused == 0 {
		t.Error("nothing was refused")
	}
}

// A file that cannot be opened is refused with the kernel's error.
func TestErrorsAreTheKernels(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	write(t, "file", "")
	must(t, os.Mkdir("sub", 0o700))
	must(t, os.Symlink("loop", "loop"))
	must(t, os.Symlink("missing/below", "dangling"))
	for _, name := range []string{
		"", ".", "..", "/", "//", "sub", "sub/", "sub/.", "missing/x", "file/x", "file/", "loop", "loop/x", "dangling",
		strings.Repeat("x", 300), "sub/" + strings.Repeat("y", 300) + "/z",
	} {
		_, want := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
		if want == nil {
			t.Fatalf("%q can be opened", name)
		}
		_, err := create(name)
		if err == nil || err.Error() != "opening the output: "+want.Error() {
			t.Errorf("%q: error %v, the kernel says %v", name, err, want)
		}
	}
}

// Names that work, and where the file ends up.
func TestPlaces(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	must(t, os.MkdirAll("sub/deep", 0o700))
	must(t, os.Symlink("sub/target", "dangling"))
	must(t, os.Symlink(dir+"/sub/", "absolute"))
	must(t, os.Symlink("../dangling", "sub/up"))
	for name, where := range map[string]string{
		"plain":               "plain",
		"./sub//deep/../x":    "sub/x",
		"dangling":            "sub/target",
		"absolute/y":          "sub/y",
		"absolute/up":         "sub/target",
		dir + "/sub/deep/abs": "sub/deep/abs",
	} {
		f := mustCreate(t, name)
		_, err := f.Write([]byte(name))
		must(t, err)
		must(t, f.Finish(nil))
		expect(t, where, name)
		info, err := os.Lstat(where)
		must(t, err)
		if info.Mode() != 0o600 {
			t.Errorf("%s: mode %v", name, info.Mode())
		}
		must(t, os.Remove(where))
		// A new file that stays empty is removed, and a link to it remains.
		f = mustCreate(t, name)
		must(t, f.Finish(errors.New("no")))
		if _, err := os.Lstat(where); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %s is left: %v", name, where, err)
		}
		if _, err := os.Lstat("dangling"); err != nil {
			t.Error(err)
		}
	}
}

// /dev/stdout is the open file, wherever it is.
func TestOpenDescriptor(t *testing.T) {
	testutil.RequireRoot(t)
	path := filepath.Join(folder(t, 0o777|fs.ModeSticky), "theirs")
	write(t, path, "older")
	must(t, os.Chown(path, stranger, stranger))
	opened, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer opened.Close()
	for _, folder := range []string{"/proc/self/fd/", "/dev/fd/", "/proc/thread-self/fd/"} {
		f := mustCreate(t, folder+filepath.Base(fdPath(opened)))
		_, err = f.Write([]byte("packets"))
		must(t, err)
		must(t, f.Finish(nil))
		expect(t, path, "packets")
	}
}

func fdPath(f *os.File) string {
	return "/proc/self/fd/" + strings.TrimSpace(itoa(int(f.Fd())))
}

// Waiting for the reader of a fifo ends with the context.
func TestFifoWithoutReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	must(t, unix.Mkfifo(path, 0o600))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := new(Files).Create(ctx, path); err == nil || !strings.HasSuffix(err.Error(), "nobody reads "+path) {
		t.Errorf("error %v", err)
	}
}
