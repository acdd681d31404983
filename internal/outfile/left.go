package outfile

import "golang.org/x/sys/unix"

// Left is a file that was written and closed.
type Left struct {
	name     string
	dev, ino uint64
}

// Left remembers the file, to be removed after it is closed. Only a regular file that still has its
// name can be.
func (f *File) Left() (l Left, ok bool) {
	var st unix.Stat_t
	if !f.regular || f.at == nil || f.at.kernel || unix.Fstat(int(f.file.Fd()), &st) != nil {
		return Left{}, false
	}
	return Left{f.name, uint64(st.Dev), st.Ino}, true
}

// Remove removes the file, unless there is another one in its place: then that stays.
func (l Left) Remove() error {
	at, err := resolve(l.name, Caller(), false)
	if err != nil {
		return err
	}
	defer at.close()
	var st unix.Stat_t
	if err := unix.Fstatat(at.dir, at.base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || uint64(st.Dev) != l.dev || st.Ino != l.ino {
		return nil // somebody has moved or removed it
	}
	if err := unix.Unlinkat(at.dir, at.base, 0); err != nil {
		return pathError("remove", l.name, err)
	}
	return nil
}
