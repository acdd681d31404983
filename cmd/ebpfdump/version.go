package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/outfile"
	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// What the linker sets (make build): the version of a release that no repository tells of, as of a
// distribution's, and the commit with its time, for builds where the Go tool does not ask git
// (-buildvcs=false).
var release, linkedCommit, linkedTime, linkedChanges string

// build is what the program was built from.
type build struct {
	version  string // of the module: a tag, or one that the Go tool makes of the commit
	commit   string // empty if it is not known
	date     time.Time
	modified bool // there were changes beside the commit
}

// unknownVersion is what the Go tool calls a module of which it knows no version.
const unknownVersion = "(devel)"

// builtFrom reads what the Go tool has put into the program.
func builtFrom(info *debug.BuildInfo) build {
	b := build{version: info.Main.Version, commit: linkedCommit, modified: linkedChanges != ""}
	b.date, _ = time.Parse(time.RFC3339, linkedTime)
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.commit = s.Value
		case "vcs.time":
			b.date, _ = time.Parse(time.RFC3339, s.Value)
		case "vcs.modified":
			b.modified = s.Value == "true"
		}
	}
	if release != "" {
		b.version = release
	}
	if b.version == "" {
		b.version = unknownVersion
	}
	return b
}

func thisBuild() build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return builtFrom(info)
}

// version is the module's version as the Go tool recorded it.
func version() string { return thisBuild().version }

// cobra has one table of functions for all commands, which only an init may write.
func init() { cobra.AddTemplateFunc("versionText", versionText) }

// versionText is what --version prints.
func versionText() string {
	b := thisBuild()
	if b.commit == "" {
		b = b.ofRun()
	}
	text := "ebpfdump " + b.version + "\n"
	if b.commit != "" {
		text += "commit " + b.commit
		if !b.date.IsZero() {
			text += " of " + b.date.UTC().Format("2006-01-02 15:04:05 UTC")
		}
		if b.modified {
			text += ", with changes that are not committed"
		}
		text += "\n"
	}
	return text + fmt.Sprintf("built with %s for %s/%s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// ofRun adds the commit to what go run has built, into which the Go tool puts none. That was a moment
// ago, so it is the one that the clone is at.
func (b build) ofRun() build {
	program, err := os.Executable()
	_, source, _, ok := runtime.Caller(0)
	if err != nil || !ok || !isOfRun(program) || !filepath.IsAbs(source) {
		return b
	}
	if commit, date, err := headCommit(filepath.Dir(source)); err == nil {
		b.commit, b.date = commit, date
	}
	return b
}

// runPlaces are where go run puts what it has built: in a folder for the time of the run, or in its
// cache.
var runPlaces = regexp.MustCompile(`/go-build[0-9]+/b[0-9]+/exe/[^/]+$|/[0-9a-f]{2}/[0-9a-f]+-d/[^/]+$`)

func isOfRun(program string) bool { return runPlaces.MatchString(program) }

// headCommit asks git at which commit a folder's clone is. It does so with commands that run nothing
// which the clone's configuration names, and only in folders of the user's own.
func headCommit(folder string) (commit string, date time.Time, err error) {
	var st unix.Stat_t
	if err := unix.Stat(folder, &st); err != nil {
		return "", date, fmt.Errorf("looking at %s: %w", folder, err)
	}
	if caller := outfile.Caller(); !caller.Owns(st.Uid) {
		return "", date, fmt.Errorf("%s belongs to another user", folder)
	}
	ctx, cancel := context.WithTimeout(context.Background(), gitTime)
	defer cancel()
	git := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "git", append([]string{"-C", folder}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_NO_LAZY_FETCH=1", "GIT_OPTIONAL_LOCKS=0")
		return cmd.Output()
	}
	name, err := git("rev-parse", "--verify", "HEAD^{commit}")
	if err != nil {
		return "", date, fmt.Errorf("asking git for the commit: %w", err)
	}
	commit = terminal.Plain(string(bytes.TrimSpace(name)))
	object, err := git("cat-file", "commit", commit)
	if err != nil {
		return "", date, fmt.Errorf("asking git for commit %s: %w", commit, err)
	}
	return commit, commitDate(string(object)), nil
}

// gitTime is what git has to answer: nobody waits longer to be told a version.
const gitTime = 2 * time.Second

// commitDate is when a commit was made, by its object's line "committer NAME <MAIL> SECONDS ZONE";
// zero if it has none.
func commitDate(object string) time.Time {
	for line := range strings.Lines(object) {
		rest, ok := strings.CutPrefix(line, "committer ")
		if !ok {
			continue
		}
		fields := strings.Fields(rest[strings.LastIndexByte(rest, '>')+1:])
		if len(fields) == 0 {
			return time.Time{}
		}
		seconds, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return time.Time{}
		}
		return time.Unix(seconds, 0)
	}
	return time.Time{}
}
