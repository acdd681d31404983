package convert

import (
	"os"
	"os/exec"
	"testing"
)

// skip ends a test that cannot run here. With EBPFDUMP_REQUIRE=1, where
// everything is said to be there, that is a failure.
func skip(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("EBPFDUMP_REQUIRE") == "1" {
		t.Fatal("required: " + reason)
	}
	t.Skip(reason)
}

// requireTool finds a program, such as tshark, that judges what was written.
func requireTool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		skip(t, name+" is not installed")
	}
	return path
}

func requireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "not root")
	}
}
