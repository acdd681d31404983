package outfile

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ForeignError says that another user may have planted the file that we would write.
type ForeignError struct {
	// Name is the file's name, and What its type.
	Name, What string
	// UID is its owner.
	UID uint32
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s is %s of user %d, in a directory where others can put files, too: remove it, or give another name or directory",
		e.Name, e.What, e.UID)
}

// place is a name in a directory that is held open, so that checking, opening and
// removing the file refer to the same directory.
type place struct {
	name string // as the user gave it
	dir  int    // opened with O_PATH
	base string
	// kernel is set for the magic links of /proc, where /dev/stdout ends. They have no
	// path to follow, but refer to an open file.
	kernel bool
}

func (p *place) close() { unix.Close(p.dir) }

const (
	// maxLinks is how many symbolic links the kernel follows in one path.
	maxLinks = 40
	// openDirectory are the flags to open a directory of the path.
	openDirectory = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
)

// resolve finds the place that a path names, following symbolic links one by one. A link
// in a directory where others can write is followed only if it belongs to us or to the
// directory's owner. Linux does the same with fs.protected_symlinks=1, but that may be
// off; here it also holds for links in the middle of the path. Each step starts from an
// open directory, so that nothing replaced meanwhile can redirect it. With makeMissing
// the missing directories are created.
func resolve(name string, caller User, makeMissing bool) (_ *place, err error) {
	if name == "" {
		return nil, pathError("open", name, unix.ENOENT)
	}
	p := &place{name: name}
	begin := "."
	if strings.HasPrefix(name, "/") {
		begin = "/"
	}
	if p.dir, err = unix.Open(begin, openDirectory, 0); err != nil {
		return nil, pathError("open", name, err)
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	for rest, links := name, 0; ; {
		component, after := cutComponent(rest)
		if component == "" { // the path is / or ends with a slash
			p.base = "."
			return p, nil
		}
		text, kernel, err := p.link(component, caller)
		switch {
		case after == "/" && !makeMissing:
			err = pathError("open", name, unix.EISDIR)
		case errors.Is(err, unix.ENOENT) && after == "":
			p.base = component
			return p, nil
		case errors.Is(err, unix.ENOENT) && makeMissing:
			err = p.makeDirectory(component, caller)
		case err != nil:
		case text != "":
			if links++; links > maxLinks {
				err = pathError("open", name, unix.ELOOP)
			} else if strings.HasPrefix(text, "/") {
				err = p.enter("/", openDirectory)
			}
			if after != "" {
				text += "/" + after
			}
			after = text
		case after == "":
			p.base, p.kernel = component, kernel
			return p, nil
		case kernel:
			err = p.enter(component, openDirectory&^unix.O_NOFOLLOW)
		default:
			err = p.enter(component, openDirectory)
		}
		if err != nil {
			return nil, err
		}
		rest = after
	}
}

// cutComponent removes the first name from a path. The rest keeps a slash at the end,
// which says that the last name must be a directory.
func cutComponent(path string) (component, after string) {
	component, after, found := strings.Cut(strings.TrimLeft(path, "/"), "/")
	if after = strings.TrimLeft(after, "/"); found && after == "" {
		after = "/"
	}
	return component, after
}

// enter descends into a directory.
func (p *place) enter(component string, flags int) error {
	next, err := unix.Openat(p.dir, component, flags, 0)
	if err != nil {
		return pathError("open", p.name, err)
	}
	p.close()
	p.dir = next
	return nil
}

// link returns the target of a symbolic link that may be followed, "" if it is not a
// link. kernel is set for a link that only the kernel can follow.
func (p *place) link(component string, caller User) (text string, kernel bool, err error) {
	fd, err := unix.Openat(p.dir, component, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", false, pathError("open", p.name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", false, pathError("stat", p.name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", false, nil
	}
	var system unix.Statfs_t
	if err := unix.Fstatfs(fd, &system); err == nil && system.Type == unix.PROC_SUPER_MAGIC {
		return "", true, nil // /proc has no links that a user made
	}
	if err := p.trust(component, &st, caller); err != nil {
		return "", false, err
	}
	buffer := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buffer)
	if err == nil && n == 0 {
		err = unix.ENOENT
	}
	if err != nil {
		return "", false, pathError("readlink", p.name, err)
	}
	return string(buffer[:n]), false, nil
}

// trust refuses what another user may have planted. For links, files and fifos it applies
// the rules of fs.protected_symlinks, and of fs.protected_regular and fs.protected_fifos
// set to 2, even if these are off, and also in directories without the sticky bit. A file
// of our own with several hard links is refused there too: with fs.protected_hardlinks
// off, anybody can link any file.
func (p *place) trust(component string, st *unix.Stat_t, caller User) error {
	var dir unix.Stat_t
	if err := unix.Fstat(p.dir, &dir); err != nil {
		return pathError("stat", p.name, err)
	}
	const groupSticky = unix.S_ISVTX | unix.S_IWGRP
	if dir.Mode&unix.S_IWOTH == 0 && dir.Mode&groupSticky != groupSticky {
		return nil
	}
	foreign := &ForeignError{Name: p.name, UID: st.Uid}
	if path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", p.dir)); err == nil {
		foreign.Name = strings.TrimSuffix(path, "/") + "/" + component
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		foreign.What = "a file"
	case unix.S_IFLNK:
		foreign.What = "a symbolic link"
	case unix.S_IFIFO:
		foreign.What = "a fifo"
	case unix.S_IFDIR:
		foreign.What = "a directory"
	default:
		foreign.What = "a device"
	}
	if caller.Owns(st.Uid) || st.Uid == dir.Uid {
		if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink < 2 {
			return nil
		}
		foreign.What = "another name of a file"
	}
	return foreign
}

// makeDirectory creates a directory, or finds a trusted one, and descends into it.
func (p *place) makeDirectory(component string, caller User) error {
	merr := unix.Mkdirat(p.dir, component, 0o700)
	if merr != nil && !errors.Is(merr, unix.EEXIST) {
		return pathError("mkdir", p.name, merr)
	}
	fd, err := unix.Openat(p.dir, component, openDirectory, 0)
	if err != nil {
		return pathError("mkdir", p.name, err)
	}
	if merr == nil {
		caller.give(fd)
	} else {
		// If another user created it first, they can replace what is in it.
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		if err == nil {
			err = p.trust(component, &st, caller)
		}
	}
	if err != nil {
		unix.Close(fd)
		return pathError("mkdir", p.name, err)
	}
	p.close()
	p.dir = fd
	return nil
}
