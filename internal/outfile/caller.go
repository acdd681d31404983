package outfile

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// User is the user that a command works for: the effective user and, under sudo, the
// invoking user, who becomes the owner of new files.
type User struct {
	euid uint32
	// sudo is set under sudo; uid and gid are then those of the invoking user.
	sudo     bool
	uid, gid uint32
}

// Caller returns the user that the command works for.
func Caller() User {
	u := User{euid: uint32(os.Geteuid())}
	if u.euid != 0 {
		return u // not set by sudo for this process
	}
	uid, uerr := parseID(os.Getenv("SUDO_UID"))
	gid, gerr := parseID(os.Getenv("SUDO_GID"))
	if uerr == nil && gerr == nil {
		u.sudo, u.uid, u.gid = true, uid, gid
	}
	return u
}

// parseID parses a user or group id. The largest one is invalid: chown takes it for
// "unchanged".
func parseID(s string) (uint32, error) {
	id, err := strconv.ParseUint(s, 10, 32)
	if err == nil && id == 1<<32-1 {
		err = strconv.ErrRange
	}
	return uint32(id), err
}

// Owns tells whether a file with that owner is our own.
func (u User) Owns(uid uint32) bool { return uid == u.euid || u.sudo && uid == u.uid }

// Gives tells whether new files become somebody else's, for which CAP_CHOWN is needed.
func (u User) Gives() bool { return u.sudo && u.uid != u.euid }

// give makes the user who invoked sudo the owner of a file just created. Errors are
// ignored: some file systems have no owners, or do not let root set them.
func (u User) give(fd int) {
	if u.sudo {
		_ = unix.Fchownat(fd, "", int(u.uid), int(u.gid), unix.AT_EMPTY_PATH)
	}
}
