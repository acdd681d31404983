package outfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// File is a file being written.
//
// An older file is untouched until the first Write, and if that fails: the first Write is
// atomic in this sense. The older file is overwritten in place instead of being replaced
// by rename, so it keeps its hard links, owner and permissions, the directory need not be
// writable, and fifos, devices and /dev/stdout need no special case. Space is reserved
// before a byte is changed.
//
// A File is for one goroutine at a time.
type File struct {
	files *Files
	file  *os.File
	at    *place // nil for stdout
	name  string
	// created: the file did not exist before.
	created bool
	regular bool
	// shared: other processes share the open file description, whose flags must not
	// change.
	shared bool
	// linked: the file had a name when it was opened.
	linked bool
	// reserved is the file's state before Reserve, nil without Reserve.
	reserved *unix.Stat_t
	// begun: the first Write succeeded.
	begun bool
	// end is the length of the file by what we have written.
	end int64
	// sizeless: the file system does not report the size of a file being written.
	sizeless bool
	closed   bool
}

// ChangedError says that another process changed a file while it was written.
type ChangedError struct {
	Name, What string
}

func (e *ChangedError) Error() string { return e.Name + " " + e.What }

// open opens a file that may be written, or creates it.
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
	// The file may be created or removed by others between two checks, but not every
	// time.
	for range 100 {
		var fd int
		var created bool
		fd, created, err = at.open(caller)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ESTALE) {
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

// open opens the file at the place, or creates it. These are separate calls: with O_CREAT
// the kernel may refuse files of the user who invoked sudo.
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
	// Opening another user's fifo would already reveal that we are here.
	if err == nil {
		err = p.trust(p.base, &st, caller)
	}
	if err != nil {
		return -1, false, err
	}
	if fd, err = openFile(p.dir, p.base, unix.O_NOFOLLOW); err != nil {
		return -1, false, err
	}
	// It may have been replaced before it was opened, but not after.
	err = unix.Fstat(fd, &st)
	if err == nil {
		err = p.trust(p.base, &st, caller)
	}
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		err = p.stillNames(&st, caller)
	}
	if err != nil {
		unix.Close(fd)
		return -1, false, err
	}
	return fd, false, nil
}

// stillNames returns an error if the place has not the file any more. A file of ours that had another name
// besides has one name less then, and would look as if that were its only one.
func (p *place) stillNames(opened *unix.Stat_t, caller User) error {
	var st unix.Stat_t
	if err := unix.Fstatat(p.dir, p.base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Dev != opened.Dev || st.Ino != opened.Ino {
		return unix.ESTALE
	}
	return p.trust(p.base, &st, caller)
}

// openFile opens a file for writing and, if it is a regular file that may be read, also
// for reading: its old beginning may have to be restored.
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
	// This lets package os interrupt a Write that waits for the reader of a fifo.
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

// lock keeps two ebpfdump processes from writing the same file. Programs that ignore the
// lock are noticed later by the file's size.
func (f *File) lock() error {
	if !f.regular {
		return nil
	}
	whole := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	err := unix.FcntlFlock(f.file.Fd(), unix.F_OFD_SETLK, &whole)
	if errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("another process is writing to %s, and has locked it: give another name", f.name)
	}
	return nil // some file systems have no locks
}

// Name is the file's name as the user gave it.
func (f *File) Name() string { return f.name }

// New tells whether the file was created, and in which folder: until the first Write,
// Finish may have to remove it from there. The folder is named by its link in /proc,
// which stays valid if the folder is renamed.
func (f *File) New() (folder string, isNew bool) {
	if f == nil || !f.created || f.at.kernel {
		return "", false
	}
	return fmt.Sprintf("/proc/self/fd/%d", f.at.dir), true
}

// Pipe tells whether the file is a pipe or the like, with a reader at the other end.
func (f *File) Pipe() bool {
	info, err := f.file.Stat()
	return err == nil && info.Mode()&os.ModeNamedPipe != 0
}

// Reserve reserves disk space for a first Write of size bytes, without changing the
// content.
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
	return nil // the file system cannot reserve: Write will fail if there is no space
}

// unreserve releases the space reserved beyond the end of the file.
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

// Write appends to what was written so far. It is an error if another process changed the
// file since the last Write.
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
		// The file was changed just before, so with O_APPEND the bytes went to its new
		// end. They are removed from there.
		if info, ierr := f.file.Stat(); ierr == nil && info.Size() == at {
			_ = f.file.Truncate(at - int64(n))
		}
		return 0, f.changed(at - int64(n))
	}
	f.end = at
	return n, err
}

// begin performs the first Write, which replaces the old content.
func (f *File) begin(b []byte) (err error) {
	if err := f.Reserve(len(b)); err != nil {
		return err
	}
	info, err := f.file.Stat()
	if err != nil {
		return err
	}
	// Some file systems cannot reserve, or write to other blocks than the reserved ones.
	// Then the old beginning is restored.
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
	// From here on the kernel appends, so there is no race between looking up the size
	// and writing.
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

// Check returns an error if another process has changed the file.
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

// changed makes the error for a file that another process has changed, from its size.
func (f *File) changed(size int64) error {
	if size < f.end {
		return &ChangedError{f.name, fmt.Sprintf("was cut to %d bytes by somebody else meanwhile, of the %d that were written", size, f.end)}
	}
	return &ChangedError{f.name, fmt.Sprintf("was written to by somebody else meanwhile: it has %d bytes, of which %d are ours", size, f.end)}
}

// Seek and Truncate are used to remove a partial block from the end.
func (f *File) Seek(offset int64, whence int) (int64, error) { return f.file.Seek(offset, whence) }

// Truncate sets the size of the file.
func (f *File) Truncate(size int64) error {
	if f.regular && f.begun && !f.shared {
		f.end = size
	}
	return f.file.Truncate(size)
}

// Begun tells whether anything was written, or a failure would leave it as it was before.
func (f *File) Begun() bool { return f.begun }

// Finish closes the file. Without a failure a file to which nothing was written is empty.
// After a failure before the first Write, an older file is untouched, and a new one is
// removed.
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
		err = nil // the first error is the one to report
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

// abort closes the file, and removes it if it was created.
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

// readFdLink returns the kernel's name of an open file.
func readFdLink(fd int) (string, error) { return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)) }

// noticeMove tells the user the new name of a file that was renamed.
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
	// After giving up privileges the directory may be unreadable, but the kernel still
	// knows the names of open files.
	if errors.Is(err, unix.EACCES) {
		folder, ferr := readFdLink(f.at.dir)
		if perr != nil || ferr != nil || path == strings.TrimSuffix(folder, "/")+"/"+f.at.base {
			return
		}
	}
	f.files.Notice(fmt.Sprintf("somebody gave %s another name meanwhile: all that was written is %s", f.name, now))
}
