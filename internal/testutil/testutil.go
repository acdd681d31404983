// Package testutil is shared by the tests of several packages: requirements on the
// machine, sockets, full disks, and golden files.
//
// It imports nothing from the project, so that any package can use it in its tests.
package testutil

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Required tells whether EBPFDUMP_REQUIRE=1 is set: then a test that cannot run is a
// failure.
func Required() bool { return os.Getenv("EBPFDUMP_REQUIRE") == "1" }

// Missing ends a test that cannot run here: it is skipped or, if Required, fails.
func Missing(tb testing.TB, format string, args ...any) {
	tb.Helper()
	if Required() {
		tb.Fatalf("EBPFDUMP_REQUIRE is set: "+format, args...)
	}
	tb.Skipf(format, args...)
}

// RequireTool finds a program that a test needs, such as tshark.
func RequireTool(tb testing.TB, name string) (path string) {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(tb, "%s is not installed", name)
	}
	return path
}

// Root tells whether the process is root and has capabilities such as unix.CAP_SYS_ADMIN.
func Root(capabilities ...int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData // 32 capabilities each
	if os.Geteuid() != 0 || unix.Capget(&header, &sets[0]) != nil {
		return false
	}
	for _, c := range capabilities {
		if sets[c/32].Effective>>(c%32)&1 == 0 {
			return false
		}
	}
	return true
}

// RequireRoot ends a test that needs root with these capabilities, unless it has them.
func RequireRoot(tb testing.TB, capabilities ...int) {
	tb.Helper()
	if !Root(capabilities...) {
		Missing(tb, "needs root, with all its capabilities")
	}
}

// RequirePrivilege is for tests that make network namespaces and load programs:
// CAP_SYS_ADMIN includes CAP_BPF.
func RequirePrivilege(tb testing.TB) {
	tb.Helper()
	RequireRoot(tb, unix.CAP_SYS_ADMIN)
}

// Printed returns what an example prints. It replaces os.Stdout, so it must not be used
// in parallel tests.
func Printed(tb testing.TB, example func()) string {
	tb.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	stdout := os.Stdout
	os.Stdout = w
	defer func() { os.Stdout = stdout }()
	all := make(chan string)
	go func() {
		text, _ := io.ReadAll(r)
		all <- string(text)
	}()
	example()
	w.Close()
	return <-all
}

// UDPPair returns a UDP socket bound on loopback, and one connected to it.
func UDPPair(tb testing.TB) (receiver, sender int) {
	tb.Helper()
	open := func() int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	receiver, sender = open(), open()
	if err := unix.Bind(receiver, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		tb.Fatal(err)
	}
	to, err := unix.Getsockname(receiver)
	if err != nil {
		tb.Fatal(err)
	}
	if err := unix.Connect(sender, to); err != nil {
		tb.Fatal(err)
	}
	return receiver, sender
}

// Mounted calls f with a new file system that only f's thread can see, such as a tmpfs
// with size=64k.
func Mounted(tb testing.TB, system, options string, f func(dir string) error) {
	tb.Helper()
	RequireRoot(tb)
	dir := tb.TempDir()
	errs := make(chan error, 2)
	go func() {
		defer close(errs)
		// The thread is never unlocked: it ends with the goroutine, and the mount with it.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount(system, dir, system, 0, options)
		}
		errs <- err
		if err == nil {
			errs <- f(dir)
		}
	}()
	if err := <-errs; err != nil {
		Missing(tb, "no mount: %v", err)
	}
	if err := <-errs; err != nil {
		tb.Fatal(err)
	}
}

// BPFFileSystem mounts the BPF file system where it usually is, if it is not there. It stays
// mounted, as with systemd: tests of other packages that run at the same time need it as well.
func BPFFileSystem(tb testing.TB) {
	tb.Helper()
	RequireRoot(tb)
	const usual = "/sys/fs/bpf"
	folder, err := os.Open(usual)
	if err != nil {
		Missing(tb, "a BPF file system: %v", err)
	}
	defer folder.Close()
	if err := unix.Flock(int(folder.Fd()), unix.LOCK_EX); err != nil {
		tb.Fatal(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(usual, &fs); err != nil || fs.Type == unix.BPF_FS_MAGIC {
		return
	}
	if err := unix.Mount("bpf", usual, "bpf", 0, ""); err != nil {
		Missing(tb, "a BPF file system: %v", err)
	}
}

// WithoutBPFFileSystem gives the goroutine a thread of its own, with mounts of its own, none of which is
// a BPF file system. The thread ends with the goroutine.
func WithoutBPFFileSystem() error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("making a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	mounts, err := os.ReadFile("/proc/thread-self/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == "bpf" {
			if err := unix.Unmount(fields[1], unix.MNT_DETACH); err != nil {
				return fmt.Errorf("unmounting %s: %w", fields[1], err)
			}
		}
	}
	return nil
}

// Golden compares a text with a golden file, which EBPFDUMP_UPDATE=1 rewrites.
func Golden(tb testing.TB, path, got string) {
	tb.Helper()
	if os.Getenv("EBPFDUMP_UPDATE") == "1" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	if got != string(want) {
		tb.Errorf("not as in %s (EBPFDUMP_UPDATE=1 writes it anew):\n%s", path, got)
	}
}
