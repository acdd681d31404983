package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

func TestBuiltFrom(t *testing.T) {
	info := &debug.BuildInfo{Main: debug.Module{Version: "v0.2.0"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "0123abc"}, {Key: "vcs.time", Value: "2026-11-26T20:45:22Z"}, {Key: "vcs.modified", Value: "true"},
	}}
	want := build{"v0.2.0", "0123abc", time.Date(2026, 11, 26, 20, 45, 22, 0, time.UTC), true}
	if got := builtFrom(info); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := builtFrom(&debug.BuildInfo{}); got != (build{version: unknownVersion}) {
		t.Errorf("%+v", got)
	}
	defer func() { release, linkedCommit, linkedTime, linkedChanges = "", "", "", "" }()
	release, linkedCommit, linkedTime, linkedChanges = "v0.3.0-1", "456def", "2026-11-27T20:45:22+01:00", ""
	info.Settings[2].Value = "false"
	want.version, want.modified = "v0.3.0-1", false
	if got := builtFrom(info); got != want {
		t.Errorf("%+v, want what the Go tool says, but for the version: %+v", got, want)
	}
	got := builtFrom(&debug.BuildInfo{})
	if got.version != "v0.3.0-1" || got.commit != "456def" || got.modified || !got.date.Equal(time.Date(2026, 11, 27, 19, 45, 22, 0, time.UTC)) {
		t.Errorf("%+v", got)
	}
}

// What go run has built knows nothing of its commit: git does, and the two say the same.
func TestHeadCommit(t *testing.T) {
	t.Parallel()
	testutil.RequireTool(t, "git")
	folder := t.TempDir()
	git := func(args ...string) string {
		cmd := exec.Command("git", append([]string{"-C", folder, "-c", "user.name=A > B", "-c", "user.email=a@example.org"}, args...)...)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("git %s: %v", strings.Join(args, " "), err)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q")
	if _, _, err := headCommit(folder); err == nil {
		t.Error("a clone without a commit is at one")
	}
	git("commit", "-q", "--allow-empty", "-m", "committer nobody <> 1 +0000")
	below := filepath.Join(folder, "cmd")
	if err := os.Mkdir(below, 0o700); err != nil {
		t.Fatal(err)
	}
	commit, date, err := headCommit(below)
	if err != nil || commit != git("rev-parse", "HEAD") || strconv.FormatInt(date.Unix(), 10) != git("log", "-1", "--format=%ct") {
		t.Errorf("%s of %v, %v", commit, date, err)
	}
	if testutil.Root() {
		if err := os.Chown(below, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if _, _, err := headCommit(below); err == nil || !strings.Contains(err.Error(), "belongs to another user") {
			t.Errorf("git was asked in a folder of somebody else: %v", err)
		}
	}
}

func TestIsOfRun(t *testing.T) {
	t.Parallel()
	for program, want := range map[string]bool{
		"/tmp/go-build2636420292/b001/exe/ebpfdump":         true,
		"/home/user/.cache/go-build/38/380f63-d/ebpfdump":   true,
		"/usr/local/bin/ebpfdump":                           false,
		"/home/user/ebpfdump/ebpfdump":                      false,
		"/home/user/go-builder/ebpfdump/ebpfdump":           false,
		"/home/user/src/go-build/cmd/ebpfdump/bin/ebpfdump": false,
	} {
		if got := isOfRun(program); got != want {
			t.Errorf("%s: %v", program, got)
		}
	}
}
