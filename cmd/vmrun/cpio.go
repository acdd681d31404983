package main

import (
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// File types in cpio's mode field, which are those of stat(2).
const (
	typeDevice  = 0o020000
	typeDir     = 0o040000
	typeRegular = 0o100000
	typeSymlink = 0o120000
)

// archive writes the cpio format "newc", the only one that the kernel unpacks. Names are
// absolute paths in the guest; missing parent folders are added.
type archive struct {
	w     io.Writer
	inode uint32
	size  int64
	dirs  map[string]bool
}

// entry is one member of an archive. Owner and group are always root.
type entry struct {
	name         string
	mode         uint32
	mtime        int64
	size         int64
	major, minor uint32
	body         io.Reader
}

func newArchive(w io.Writer) *archive {
	return &archive{w: w, dirs: map[string]bool{"": true}}
}

// add writes an entry, without its parents.
func (a *archive) add(e entry) error {
	if e.size > math.MaxUint32 {
		return fmt.Errorf("adding %s: %d bytes are too many for cpio", e.name, e.size)
	}
	a.inode++
	// The link count is always 1: with more, the kernel would look for hard links.
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.inode, e.mode, 0, 0, 1, uint32(e.mtime), e.size, 0, 0, e.major, e.minor, len(e.name)+1, 0, e.name)
	if err := a.copy(strings.NewReader(header), int64(len(header))); err != nil {
		return fmt.Errorf("adding %s: %w", e.name, err)
	}
	if e.size == 0 {
		return nil
	}
	if err := a.copy(e.body, e.size); err != nil {
		return fmt.Errorf("adding %s: %w", e.name, err)
	}
	return nil
}

// copy writes exactly n bytes, and pads to a multiple of four.
func (a *archive) copy(r io.Reader, n int64) error {
	written, err := io.CopyN(a.w, r, n)
	a.size += written
	if err != nil {
		return err
	}
	padding, err := a.w.Write(make([]byte, -a.size&3))
	a.size += int64(padding)
	return err
}

// dir adds a folder and its parents, each once.
func (a *archive) dir(name string, mode fs.FileMode) error {
	name = member(name)
	if a.dirs[name] {
		return nil
	}
	if err := a.parents(name); err != nil {
		return err
	}
	a.dirs[name] = true
	return a.add(entry{name: name, mode: typeDir | permissions(mode)})
}

// parents adds the parent folders of a member.
func (a *archive) parents(name string) error {
	parent := path.Dir(name)
	if parent == "." {
		return nil
	}
	return a.dir(parent, 0o755)
}

// content adds a file with these bytes.
func (a *archive) content(name string, mode fs.FileMode, body string) error {
	name = member(name)
	if err := a.parents(name); err != nil {
		return err
	}
	return a.add(entry{name: name, mode: typeRegular | permissions(mode), size: int64(len(body)), body: strings.NewReader(body)})
}

// charDevice adds a character device node.
func (a *archive) charDevice(name string, mode fs.FileMode, major, minor uint32) error {
	name = member(name)
	if err := a.parents(name); err != nil {
		return err
	}
	return a.add(entry{name: name, mode: typeDevice | permissions(mode), major: major, minor: minor})
}

// tree adds a file or a whole folder of the host. Symbolic links are kept, except for the
// host path itself. Sockets and devices are left out.
func (a *archive) tree(host, guest string) error {
	host, err := filepath.EvalSymlinks(host)
	if err != nil {
		return err
	}
	return filepath.WalkDir(host, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(host, p)
		if err != nil {
			return err
		}
		return a.hostFile(p, path.Join(guest, filepath.ToSlash(rel)), d)
	})
}

func (a *archive) hostFile(host, guest string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	if info.IsDir() {
		return a.dir(guest, info.Mode())
	}
	name := member(guest)
	if err := a.parents(name); err != nil {
		return err
	}
	e := entry{name: name, mtime: info.ModTime().Unix()}
	switch {
	case info.Mode().IsRegular():
		f, err := os.Open(host)
		if err != nil {
			return err
		}
		defer f.Close()
		e.mode, e.size, e.body = typeRegular|permissions(info.Mode()), info.Size(), f
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(host)
		if err != nil {
			return err
		}
		e.mode, e.size, e.body = typeSymlink|0o777, int64(len(target)), strings.NewReader(target)
	default:
		return nil
	}
	return a.add(e)
}

// close writes the trailer. It does not close the writer.
func (a *archive) close() error {
	a.inode = 0
	return a.add(entry{name: "TRAILER!!!"})
}

// member is the archive's name for an absolute path.
func member(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

// permissions converts to the bits of stat(2): Go represents the sticky bit differently.
func permissions(mode fs.FileMode) uint32 {
	bits := uint32(mode.Perm())
	if mode&fs.ModeSticky != 0 {
		bits |= 0o1000
	}
	return bits
}
