package capture

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture/internal/process"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
	"golang.org/x/sys/unix"
)

// group is the scope of a cgroup and those below it. It is over when the cgroup is removed: an
// empty cgroup may still get processes.
type group struct {
	folder string
	held
}

// procs is the file of a cgroup that lists its processes (cgroups(7)).
const procs = "cgroup.procs"

// groupFolder returns the folder of a cgroup, given that folder, also from the current one on, or its
// path in the cgroup2 hierarchy, which may begin with / as in /proc/PID/cgroup; empty for none.
func groupFolder(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	var folders []string
	if filepath.IsAbs(path) {
		folders = append(folders, filepath.Clean(path))
	}
	root, mounted := bpf.CgroupMount()
	if mounted {
		folders = append(folders, filepath.Join(root, path))
	}
	if here, err := filepath.Abs(path); err == nil && !filepath.IsAbs(path) {
		folders = append(folders, here)
	}
	none := errors.New("no cgroup2 file system is mounted that it could be in: name its folder from / on")
	for i, folder := range folders {
		_, err := os.Stat(filepath.Join(folder, procs))
		if err == nil {
			return folder, nil
		}
		if i == 0 {
			none = fmt.Errorf("it is none: %w", err)
		}
	}
	return "", fmt.Errorf("cgroup %s: %w", terminal.Plain(path), none)
}

// newGroup takes the folder of a cgroup.
func newGroup(folder string) *group { return &group{folder: folder, held: make(held)} }

func (g *group) String() string { return "cgroup " + terminal.Plain(g.folder) }

// names is nil: the user has named none of its processes.
func (g *group) names() map[int]string { return nil }

// each lists the processes again until there are no new ones: children that a process forked
// before it was followed are in a later list.
func (g *group) each(do func(*process.Process) error) error {
	listed := make(map[int]bool)
	for more := true; more; {
		more = false
		for _, pid := range g.list() {
			if listed[pid] {
				continue
			}
			listed[pid], more = true, true
			p, err := g.find(pid)
			if err != nil {
				continue // it has ended
			}
			if err := do(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// list returns all processes in the cgroup and in those below it that are visible in our pid
// namespace, without this one, which only records.
func (g *group) list() []int {
	var all []int
	_ = filepath.WalkDir(g.folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() != procs {
			return nil // removed meanwhile, or not cgroup.procs
		}
		file, err := os.Open(path)
		if err != nil {
			return nil
		}
		defer file.Close()
		for lines := bufio.NewScanner(file); lines.Scan(); {
			if pid, err := strconv.Atoi(lines.Text()); err == nil && pid != 0 && pid != os.Getpid() {
				all = append(all, pid)
			}
		}
		return nil
	})
	return all
}

func (g *group) joined(followed func(pid int) bool) []*process.Process {
	var all []*process.Process
	for _, pid := range g.list() {
		if followed(pid) {
			continue
		}
		if p, err := g.find(pid); err == nil {
			all = append(all, p)
		}
	}
	return all
}

func (g *group) named(*process.Process) bool { return false }

// mayLack is for those that have ended, and for those whose sockets we may not copy: nobody has
// named them.
func (g *group) mayLack(_ *process.Process, err error) bool {
	var missing *bpf.MissingError
	return errors.Is(err, unix.ESRCH) || errors.As(err, &missing)
}

func (g *group) remarks(bool) []string { return nil }

func (g *group) bury() { g.held.bury(g.named) }

func (g *group) over() bool {
	_, err := os.Stat(g.folder)
	return errors.Is(err, os.ErrNotExist)
}

func (g *group) await(ctx context.Context, ended func(what string)) error {
	look := time.NewTicker(tidyInterval)
	defer look.Stop()
	for !g.over() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
		}
	}
	ended(g.String())
	return nil
}
