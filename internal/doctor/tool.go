package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"time"
)

// toolTimeout bounds the run of each tool: some load whole folders of plugins before they
// print anything.
const toolTimeout = 10 * time.Second

// tools has a row for each program that reads captures, with the flag that prints its
// version. Wireshark is represented by tshark.
var tools = []struct{ name, flag string }{
	{"tshark", "-v"},
	{"wireshark", ""},
	{"capinfos", "-v"},
	{"tcpdump", "--version"},
}

// programOutput returns what a program prints on stdout and stderr within toolTimeout.
func programOutput(ctx context.Context, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	// A surviving child of the program may hold the pipe open.
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = errors.New("no answer in time")
	}
	return string(out), err
}

// tools examines all tools concurrently, since each takes time.
func (w world) tools(ctx context.Context) ([]Tool, Extcap) {
	found := make([]Tool, len(tools))
	var extcap Extcap
	var done sync.WaitGroup
	for i, t := range tools {
		done.Go(func() { found[i] = w.tool(ctx, t.name, t.flag) })
	}
	done.Go(func() { extcap = w.extcap(ctx) })
	done.Wait()
	return found, extcap
}

var versionNumber = regexp.MustCompile(`[0-9]+(\.[0-9]+)+`)

func (w world) tool(ctx context.Context, name, flag string) Tool {
	t := Tool{Name: name}
	path, err := w.lookPath(name)
	if err != nil {
		t.Finding = Finding{No, "not found on the PATH"}
		return t
	}
	t.Path, t.Finding = path, Finding{Yes, path}
	if flag == "" {
		return t
	}
	out, err := w.output(ctx, path, flag)
	switch t.Version = versionNumber.FindString(out); {
	case err != nil:
		t.Version = ""
		t.Finding = Finding{Unknown, path + " does not tell its version: " + err.Error()}
	case t.Version != "":
		t.Detail = t.Version + ", " + path
	}
	return t
}

// extcapFolder matches a line such as "Global Extcap path:  /usr/lib/wireshark/extcap".
var extcapFolder = regexp.MustCompile(`(?im)^(?:\w+ )?extcap path:[ \t]*(\S.*)$`)

func (w world) extcap(ctx context.Context) Extcap {
	e := Extcap{Folders: []string{}}
	path, err := w.lookPath("tshark")
	if err != nil {
		e.Finding = Finding{Unknown, "finding out needs tshark"}
		return e
	}
	out, err := w.output(ctx, path, "-G", "folders")
	if err != nil {
		e.Finding = Finding{Unknown, "tshark -G folders: " + err.Error()}
		return e
	}
	for _, groups := range extcapFolder.FindAllStringSubmatch(out, -1) {
		e.Folders = append(e.Folders, strings.TrimSpace(groups[1]))
	}
	if len(e.Folders) == 0 {
		e.Finding = Finding{Unknown, "tshark -G folders names none"}
		return e
	}
	e.Finding = Finding{No, e.Folders[0] + " does not exist"}
	for _, folder := range e.Folders {
		if info, err := fs.Stat(w.files, strings.Trim(folder, "/")); err == nil && info.IsDir() {
			e.Finding = Finding{Yes, folder}
			break
		}
	}
	return e
}
