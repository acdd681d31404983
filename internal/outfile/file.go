package outfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// File is a file that is being written.
//
// Until the first Write an older file is as it was, and so it is after a first
// Write that fails: that one is written whole or not at all. It goes into the
// older file, and not into a new one that takes its name at the end: so the
// file keeps its other names, its owner and its permissions, the directory need
// not be writable, and fifos, devices and /dev/stdout are no special case. That
// there is room is made sure of before a byte is changed, by reserving it.
//
// A File is for one goroutine at a time.
type File struct {
	files *Files
	file  *os.File
	at    *place // nil for stdout
	name  string
	// created: it was not there before.
	created bool
	regular bool
	// shared: others have opened the same description, which stays as they want it.
	shared bool
	// linked: it had a name when it was opened.
	linked bool
	// reserved is what the file was like before Reserve, nil if there was none.
	reserved *unix.Stat_t
	// begun: the first Write has succeeded.
	begun bool
	// end is how long the file is as far as we have written it.
	end int64
	// sizeless: the file system does not tell how long a file is that is being written.
	sizeless bool
	closed   bool
}

// ChangedError says that somebody else changed a file while it was written.
type ChangedError struct {
	Name, What string
}

func (e *ChangedError) Error() string { return e.Name + " " + e.What }

// open opens a file that may be written to, or makes it.
func open(name string, caller User) (_ *File, err error) {
	at, err := resolve(name, caller, false)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			at.close()
		}
	}()
	// Somebody may make or remove the file between two looks at it, but not each time.
	for range 100 {
		var fd int
		var created bool
		fd, created, err = at.open(caller)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return nil, pathError("open", name, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			unix.Close(fd)
			return nil, pathError("stat", name, err)
		}
		return &File{
			file: os.NewFile(uintptr(fd), name), at: at, name: name, created: created,
			regular: st.Mode&unix.S_IFMT == unix.S_IFREG, linked: st.Nlink > 0,
		}, nil
	}
	return nil, pathError("open", name, err)
}

// open opens what is at the place, or makes a file there. It does not ask for
// both at once: with O_CREAT the kernel may refuse files of whoever called sudo.
func (p *place) open(caller User) (fd int, created bool, err error) {
	if p.kernel {
		fd, err = openFile(p.dir, p.base, 0)
		return fd, false, err
	}
	var st unix.Stat_t
	err = unix.Fstatat(p.dir, p.base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		fd, err = openFile(p.dir, p.base, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW)
		if err == nil {
			caller.give(fd)
		}
		return fd, true, err
	}
	// To open a fifo of somebody else says already that we are here.
	if err == nil {
		err = p.trust(p.base, &st, caller)
	}
	if err != nil {
		return -1, false, err
	}
	if fd, err = openFile(p.dir, p.base, unix.O_NOFOLLOW); err != nil {
		return -1, false, err
	}
	// It may have been exchanged since. Now it cannot be any more.
	err = unix.Fstat(fd, &st)
	if err == nil {
		err = p.trust(p.base, &st, caller)
	}
	if err != nil {
		unix.Close(fd)
		return -1, false, err
	}
	return fd, false, nil
}

// openFile opens a file for writing, and if it is a regular one for reading as
// well where that is allowed: what it has at its beginning may be needed.
func openFile(dir int, base string, flags int) (fd int, err error) {
	flags |= unix.O_CLOEXEC
	var st unix.Stat_t
	follow := unix.AT_SYMLINK_NOFOLLOW
	if flags&unix.O_NOFOLLOW == 0 {
		follow = 0
	}
	if err := unix.Fstatat(dir, base, &st, follow); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		if fd, err := retryOpen(dir, base, flags|unix.O_RDWR); err == nil {
			return fd, nil
		}
	}
	fd, err = retryOpen(dir, base, flags|unix.O_WRONLY)
	if err != nil {
		return -1, err
	}
	// So that package os can end a Write that waits for the reader of a fifo.
	if st.Mode&unix.S_IFMT == unix.S_IFIFO {
		err = unix.SetNonblock(fd, true)
	}
	return fd, err
}

func retryOpen(dir int, base string, flags int) (fd int, err error) {
	for {
		fd, err = unix.Openat(dir, base, flags, 0o600)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// lock keeps two of us from writing the same file. Whoever knows nothing of the
// lock is noticed later, by what becomes of the file.
func (f *File) lock() error {
	if !f.regular {
		return nil
	}
	whole := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	err := unix.FcntlFlock(f.file.Fd(), unix.F_OFD_SETLK, &whole)
	if errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("another process is writing to %s, and has locked it: give another name", f.name)
	}
	return nil // not every file system has locks
}

// Name is what the user calls the file.
func (f *File) Name() string { return f.name }

// New tells whether the file was not there before, and in which folder it was
// made: until the first Write, Finish may remove it from there again. The folder
// has a name of the kernel, which leads there whatever becomes of its own.
func (f *File) New() (folder string, isNew bool) {
	if f == nil || !f.created || f.at.kernel {
		return "", false
	}
	return fmt.Sprintf("/proc/self/fd/%d", f.at.dir), true
}

// Pipe tells whether somebody reads at the other end as it is written.
func (f *File) Pipe() bool {
	info, err := f.file.Stat()
	return err == nil && info.Mode()&os.ModeNamedPipe != 0
}

// Reserve makes sure that the disk has room for the first Write of so many
// bytes, and changes nothing that can be read.
func (f *File) Reserve(size int) error {
	if !f.regular || f.begun || size == 0 {
		return nil
	}
	fd := int(f.file.Fd())
	if f.reserved == nil {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return pathError("stat", f.name, err)
		}
		f.reserved = &st
	}
	var err error
	for {
		err = unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, int64(size))
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
		f.unreserve()
		return pathError("write", f.name, err)
	}
	return nil // a file system that cannot reserve: then Write will tell
}

// unreserve gives back what was reserved behind the end of the file.
func (f *File) unreserve() {
	if f.reserved == nil {
		return
	}
	fd := int(f.file.Fd())
	_ = unix.Ftruncate(fd, f.reserved.Size)
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, f.reserved.Mtim}
	_ = unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH)
	f.reserved = nil
}

// Write writes on. What has changed since the last Write because of somebody
// else is an error: after that the file would not be what it is meant to be.
func (f *File) Write(b []byte) (int, error) {
	switch {
	case !f.regular:
		return f.file.Write(b)
	case !f.begun:
		if err := f.begin(b); err != nil {
			return 0, err
		}
		return len(b), nil
	}
	if err := f.Check(); err != nil {
		return 0, err
	}
	n, err := f.file.Write(b)
	at, serr := f.file.Seek(0, io.SeekCurrent)
	switch {
	case serr != nil:
		return n, errors.Join(err, serr)
	case !f.shared && at != f.end+int64(n):
		// The file was changed just before. It is appended to, so what was written
		// now stands at the new end, and is taken away from there.
		if info, ierr := f.file.Stat(); ierr == nil && info.Size() == at {
			_ = f.file.Truncate(at - int64(n))
		}
		return 0, f.changed(at - int64(n))
	}
	f.end = at
	return n, err
}

// begin writes what stands at the beginning of the file, in the place of what
// was there before.
func (f *File) begin(b []byte) (err error) {
	if err := f.Reserve(len(b)); err != nil {
		return err
	}
	info, err := f.file.Stat()
	if err != nil {
		return err
	}
	// Some file systems cannot reserve, or write into another place than the one
	// that was reserved. Then what was there before is put back.
	fd := int(f.file.Fd())
	before := make([]byte, min(int64(len(b)), info.Size()))
	saved, _ := preadAll(fd, before)
	n, err := pwriteAll(fd, b)
	if err == nil {
		err = unix.Ftruncate(fd, int64(len(b)))
	}
	if err == nil {
		_, err = f.file.Seek(int64(len(b)), io.SeekStart)
	}
	if err != nil {
		_, _ = pwriteAll(fd, before[:min(n, saved)])
		_ = unix.Ftruncate(fd, info.Size())
		f.unreserve()
		return pathError("write", f.name, err)
	}
	// From here on the kernel itself finds the end, so that nothing can come
	// between a look at the file's size and a write.
	flags, err := unix.FcntlInt(f.file.Fd(), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(f.file.Fd(), unix.F_SETFL, flags|unix.O_APPEND)
	}
	f.begun, f.end = true, int64(len(b))
	if info, ierr := f.file.Stat(); ierr != nil || info.Size() != f.end {
		f.sizeless = true
	}
	return err
}

func preadAll(fd int, b []byte) (n int, err error) {
	for n < len(b) {
		m, err := unix.Pread(fd, b[n:], int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || m == 0 {
			return n, err
		}
		n += m
	}
	return n, nil
}

func pwriteAll(fd int, b []byte) (n int, err error) {
	for n < len(b) {
		m, err := unix.Pwrite(fd, b[n:], int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}

// Check tells whether somebody else has changed the file.
func (f *File) Check() error {
	if !f.regular || !f.begun {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.file.Fd()), &st); err != nil {
		return pathError("stat", f.name, err)
	}
	switch {
	case f.linked && st.Nlink == 0:
		return &ChangedError{f.name, "was removed by somebody else meanwhile, and with it all that was in it"}
	case f.sizeless:
	case st.Size < f.end, !f.shared && st.Size > f.end:
		return f.changed(st.Size)
	}
	return nil
}

// changed says what somebody else has done to the file, by its size.
func (f *File) changed(size int64) error {
	if size < f.end {
		return &ChangedError{f.name, fmt.Sprintf("was cut to %d bytes by somebody else meanwhile, of the %d that were written", size, f.end)}
	}
	return &ChangedError{f.name, fmt.Sprintf("was written to by somebody else meanwhile: it has %d bytes, of which %d are ours", size, f.end)}
}

// Seek and Truncate take back a part of what was written, at the end.
func (f *File) Seek(offset int64, whence int) (int64, error) { return f.file.Seek(offset, whence) }

// Truncate sets the size of the file.
func (f *File) Truncate(size int64) error {
	if f.regular && f.begun && !f.shared {
		f.end = size
	}
	return f.file.Truncate(size)
}

// Finish closes the file. If all went well and nothing was written, the file is
// empty. After a failure that came before the first Write, an older file is as
// it was, and one that was made is gone.
func (f *File) Finish(failure error) error {
	if f.closed {
		return nil
	}
	if f.regular && !f.begun {
		if failure != nil {
			f.abort()
			return nil
		}
		if err := f.begin(nil); err != nil {
			f.abort()
			return err
		}
	}
	err := f.Check()
	if err == nil {
		f.noticeMove()
	}
	if failure != nil {
		err = nil // what went wrong first is what counts
	}
	return errors.Join(err, f.close())
}

func (f *File) close() error {
	f.closed = true
	if f.files != nil {
		f.files.release(f.file)
	}
	if f.at != nil {
		defer f.at.close()
	}
	if err := f.file.Close(); err != nil {
		return fmt.Errorf("closing the output: %w", err)
	}
	return nil
}

// abort closes the file, and removes it if it was not there before.
func (f *File) abort() {
	var ours, there unix.Stat_t
	if f.created && !f.at.kernel &&
		unix.Fstat(int(f.file.Fd()), &ours) == nil &&
		unix.Fstatat(f.at.dir, f.at.base, &there, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		ours.Dev == there.Dev && ours.Ino == there.Ino {
		_ = unix.Unlinkat(f.at.dir, f.at.base, 0)
	} else {
		f.unreserve()
	}
	_ = f.close()
}

// readFdLink is the name that the kernel has for what is open.
func readFdLink(fd int) (string, error) { return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)) }

// noticeMove tells the user where the file is that has got another name.
func (f *File) noticeMove() {
	var ours, there unix.Stat_t
	if !f.regular || f.at == nil || f.at.kernel || f.files == nil || f.files.Notice == nil ||
		unix.Fstat(int(f.file.Fd()), &ours) != nil {
		return
	}
	err := unix.Fstatat(f.at.dir, f.at.base, &there, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && ours.Dev == there.Dev && ours.Ino == there.Ino {
		return
	}
	now := "elsewhere"
	path, perr := readFdLink(int(f.file.Fd()))
	if perr == nil && !strings.HasSuffix(path, " (deleted)") {
		now = "in " + path
	}
	// Who has given up privileges may not look into the directory any more; but the
	// kernel knows the names of what is open.
	if errors.Is(err, unix.EACCES) {
		folder, ferr := readFdLink(f.at.dir)
		if perr != nil || ferr != nil || path == strings.TrimSuffix(folder, "/")+"/"+f.at.base {
			return
		}
	}
	f.files.Notice(fmt.Sprintf("somebody gave %s another name meanwhile: all that was written is %s", f.name, now))
}
