package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture"
)

// The fields that the library names are flags here.
func TestWithFlags(t *testing.T) {
	t.Parallel()
	missing := func(setting string) error {
		return &bpf.MissingError{What: "what", Hint: "hint", Otherwise: "otherwise", Setting: setting}
	}
	for want, err := range map[string]error{
		"what: hint, or choose a port from 1024 on with --listen": missing(capture.SettingListen),
		"what: hint, or probe one with --isolate":                 missing(capture.SettingNamespace),
		"what: choose --view kernel, or otherwise":                missing(capture.SettingViews),
		"what: hint, or otherwise":                                missing(""),
		"@a is in use: choose another with --listen: address already in use": &capture.AddressError{
			What: "@a is in use", Hint: "choose another", Err: unix.EADDRINUSE,
		},
		capture.ErrProbeUnseen.Error() + " (try --isolate)": capture.ErrProbeUnseen,
	} {
		status := exitStatus(err)
		if got := withFlags(err); got.Error() != want || exitStatus(got) != status {
			t.Errorf("%v, want %s", got, want)
		}
	}
}

// The library knows no command line: its messages are for programs that may have none,
// and are not called ebpfdump.
func TestLibraryNamesNoFlags(t *testing.T) {
	t.Parallel()
	flag := regexp.MustCompile(`(^|[^-\w])--[a-z][a-z-]+`)
	found := 0
	for _, dir := range []string{"bpf", "capture", "convert"} {
		err := filepath.WalkDir(filepath.Join("..", "..", dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			found++
			ast.Inspect(file, func(n ast.Node) bool {
				text, ok := n.(*ast.BasicLit)
				if !ok || text.Kind != token.STRING {
					return true
				}
				// --cap-add is docker's.
				if flag.MatchString(text.Value) && !strings.Contains(text.Value, "--cap-add") || strings.Contains(text.Value, "ebpfdump ") {
					t.Errorf("%s: %s", path, text.Value)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found < 100 {
		t.Errorf("only %d files were looked at", found)
	}
}
