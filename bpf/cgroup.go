package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// CgroupRoot opens the root of the cgroup2 hierarchy. If it is not mounted, a detached mount
// is made, which nobody else sees.
func CgroupRoot() (*os.File, error) {
	if path, ok := CgroupMount(); ok {
		if root, err := os.Open(path); err == nil {
			return root, nil
		}
	}
	return mountCgroup()
}

// CgroupMount is where the whole cgroup2 hierarchy is mounted; not ok if it is not.
func CgroupMount() (path string, ok bool) { return findMount(cgroup2Mount) }

// ControllerMount is where the whole hierarchy of a controller of cgroup version 1, such as
// "net_cls", is mounted; not ok if it is not.
func ControllerMount(controller string) (path string, ok bool) {
	return findMount(func(line string) (string, bool) {
		path, kind, options, ok := wholeMount(line)
		return path, ok && kind == "cgroup" && slices.Contains(strings.Split(options, ","), controller)
	})
}

// findMount finds the first mount that a function accepts a line of /proc/PID/mountinfo of.
func findMount(accept func(line string) (path string, ok bool)) (path string, ok bool) {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", false
	}
	defer mounts.Close()
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		if path, ok := accept(lines.Text()); ok {
			return path, true
		}
	}
	return "", false
}

// cgroup2Mount finds the mount point of the whole cgroup2 hierarchy in a line of
// /proc/PID/mountinfo (proc_pid_mountinfo(5)).
func cgroup2Mount(line string) (path string, ok bool) {
	if path, kind, _, ok := wholeMount(line); ok && kind == "cgroup2" {
		return path, true
	}
	return "", false
}

// wholeMount takes a line apart; not ok if only a part of the file system is mounted.
func wholeMount(line string) (path, kind, options string, ok bool) {
	mount, system, ok := strings.Cut(line, " - ")
	at, of := strings.Fields(mount), strings.Fields(system)
	if !ok || len(at) < 5 || at[3] != "/" || len(of) < 3 {
		return "", "", "", false
	}
	return mountPath.Replace(at[4]), of[0], of[2], true
}

// mountPath decodes the escapes of mountinfo.
var mountPath = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func mountCgroup() (*os.File, error) {
	missing := func(err error) error {
		if errors.Is(err, unix.EPERM) {
			missing := LacksCapability(unix.CAP_SYS_ADMIN, "mounting the cgroup2 file system, whose hooks are needed,", err)
			missing.Otherwise = "mount it: mount -t cgroup2 none /sys/fs/cgroup"
			return missing
		}
		return &MissingError{
			What: "the hooks of the cgroup2 file system are needed, and this kernel has none",
			Hint: "use a kernel with CONFIG_CGROUP_BPF",
			Err:  err,
		}
	}
	fs, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, missing(err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, missing(fmt.Errorf("mounting cgroup2: %w", err))
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, missing(fmt.Errorf("mounting cgroup2: %w", err))
	}
	return os.NewFile(uintptr(root), "root of cgroup2"), nil
}
