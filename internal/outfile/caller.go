package outfile

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// User is who a command works for: us, and under sudo also the one who called
// it, to whom the files belong that are made.
type User struct {
	euid uint32
	// sudo is set if somebody called sudo; then the ids are theirs.
	sudo     bool
	uid, gid uint32
}

// Caller finds out whom the command works for.
func Caller() User {
	u := User{euid: uint32(os.Geteuid())}
	if u.euid != 0 {
		return u // whoever set the variables, it was not for us
	}
	uid, uerr := parseID(os.Getenv("SUDO_UID"))
	gid, gerr := parseID(os.Getenv("SUDO_GID"))
	if uerr == nil && gerr == nil {
		u.sudo, u.uid, u.gid = true, uid, gid
	}
	return u
}

// parseID reads a user's or a group's number. The largest one means nobody: to
// chown it says "as it is".
func parseID(s string) (uint32, error) {
	id, err := strconv.ParseUint(s, 10, 32)
	if err == nil && id == 1<<32-1 {
		err = strconv.ErrRange
	}
	return uint32(id), err
}

// is tells whether a file of that user is our own.
func (u User) is(uid uint32) bool { return uid == u.euid || u.sudo && uid == u.uid }

// give hands a file that we have just made to whoever called sudo. Where the
// file system knows no owners, or lets root choose none, the file is as good as
// it can be.
func (u User) give(fd int) {
	if u.sudo {
		_ = unix.Fchownat(fd, "", int(u.uid), int(u.gid), unix.AT_EMPTY_PATH)
	}
}
