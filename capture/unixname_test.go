package capture

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Abstract names are whole, wherever they have zero bytes, and are for people what the kernel
// prints of them.
func TestUnixNames(t *testing.T) {
	t.Parallel()
	ns := mustNamespace(t)
	err := ns.Do(func() error {
		for name, bind := range map[string]string{
			"unnamed":               "",
			"one zero byte":         "@",
			"a zero byte within":    "@n\x00one",
			"another behind it":     "@n\x00two",
			"zero bytes at the end": "@n" + strings.Repeat("\x00", 105),
			"a long name":           "@" + strings.Repeat("n", 106),
			"zero bytes only":       "@\x00\x00",
			"a path":                t.TempDir() + "/@n",
			"a long path":           longPath(t),
		} {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fds[0])
			defer unix.Close(fds[1])
			if bind != "" {
				if err := unix.Bind(fds[0], &unix.SockaddrUnix{Name: bind}); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
			own, err := inspect(fds[0])
			if err != nil {
				return err
			}
			peer, err := inspect(fds[1])
			if err != nil {
				return err
			}
			local, nothing := own.addresses(true)
			unnamed, remote := peer.addresses(true)
			if local.Name != bind || remote.Name != bind || !nothing.IsZero() || !unnamed.IsZero() || own.path != bind {
				t.Errorf("%s: %q has the address %q, and %q as a peer", name, bind, local.Name, remote.Name)
			}
			if want := printedName(t, fds[0]); local.String() != want {
				t.Errorf("%s: %q, which the kernel prints as %q", name, local, want)
			}
			if said := own.String(); bind != "" && said != "on "+local.String() || bind == "" && said != "unnamed" {
				t.Errorf("%s: described as %q", name, said)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// longPath is a path as long as Bind takes one.
func longPath(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "x")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return folder + "/" + strings.Repeat("n", 107-len(folder)-1)
}

// printedName is the name of a unix socket of this thread's network namespace in /proc.
func printedName(t *testing.T, fd int) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/thread-self/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		// Num RefCount Protocol Flags Type St Inode Path
		fields := strings.Fields(line)
		if len(fields) > 6 && fields[6] == fmt.Sprint(st.Ino) {
			return strings.Join(fields[7:], " ")
		}
	}
	t.Fatalf("socket %d is not among\n%s", st.Ino, text)
	return ""
}
