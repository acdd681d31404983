package main

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	importPath = "github.com/ebpfdump/ebpfdump/cmd/vmrun"
	// passedOn is the prefix of the host's variables that the program inherits.
	passedOn = "EBPFDUMP_"
)

// runConfig is a "vmrun run" command line.
type runConfig struct {
	machine
	name    string // the kernel, as the user gave it
	timeout time.Duration
	console bool
	dir     string // the program's working folder, the same on host and guest
	files   []pair
	outs    []*out
	env     []string
	args    []string // the program's path and its arguments
}

// pair is the path of a file on the host and in the guest.
type pair struct{ host, guest string }

// list is a flag that can be repeated.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func runCommand(ctx context.Context, args []string, stdout, stderr io.Writer) (int, error) {
	c, err := parseRun(args, stderr)
	if err != nil {
		return 0, err
	}
	status, err := c.run(ctx, stdout, stderr)
	if err != nil {
		return 0, fmt.Errorf("running %s on %s: %w", filepath.Base(c.args[0]), c.name, err)
	}
	return status, nil
}

func parseRun(args []string, stderr io.Writer) (*runConfig, error) {
	var files, outs, env list
	c := &runConfig{}
	flags, dir := newFlags("run", stderr)
	flags.StringVar(&c.name, "kernel", "", "version `series`, \"latest\", or the path of a bzImage")
	flags.IntVar(&c.memory, "memory", 512, "the guest's memory in `MB`, besides that for its files")
	flags.IntVar(&c.cpus, "cpus", 2, "`number` of processors")
	flags.StringVar(&c.parameters, "append", "", "more kernel `parameters`")
	flags.DurationVar(&c.timeout, "timeout", 10*time.Minute, "kill the guest after this `duration`")
	flags.BoolVar(&c.console, "console", false, "show the kernel's console on stderr")
	flags.Var(&files, "file", "bring a file or folder along, `HOST[:GUEST]`; relative paths begin in the working folder")
	flags.Var(&outs, "out", "get a file or folder back in the end, `GUEST[:HOST]`")
	flags.Var(&env, "env", "a variable `NAME=VALUE` for the program; "+passedOn+"* are passed on anyway")
	if err := parseFlags(flags, args); err != nil {
		return nil, err
	}
	if c.name == "" {
		return nil, usageError("run: which -kernel?")
	}
	if flags.NArg() == 0 {
		return nil, usageError("run: which program?")
	}
	var err error
	if c.dir, err = os.Getwd(); err != nil {
		return nil, err
	}
	if c.kernel, err = findKernel(*dir, c.name); err != nil {
		return nil, err
	}
	c.args = append([]string{c.path(flags.Arg(0))}, flags.Args()[1:]...)
	c.setFiles(files)
	if err := c.setOuts(outs); err != nil {
		return nil, err
	}
	return c, c.setEnv(env)
}

// path makes a path absolute; the working folder is the same on host and guest.
func (c *runConfig) path(p string) string {
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	return filepath.Join(c.dir, p)
}

// setFiles adds the program, and the testdata folder that a test expects.
func (c *runConfig) setFiles(files []string) {
	c.files = []pair{{c.args[0], c.args[0]}}
	if testdata := filepath.Join(c.dir, "testdata"); isDir(testdata) {
		c.files = append(c.files, pair{testdata, testdata})
	}
	for _, f := range files {
		host, guest, found := strings.Cut(f, ":")
		if !found {
			guest = host
		}
		c.files = append(c.files, pair{c.path(host), c.path(guest)})
	}
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

func (c *runConfig) setOuts(outs []string) error {
	for _, o := range outs {
		guest, host, found := strings.Cut(o, ":")
		if !found {
			host = guest
		}
		c.outs = append(c.outs, &out{pair: pair{c.path(host), c.path(guest)}})
	}
	c.outs = append(c.outs, testOuts(c.args[1:], c.path)...)
	if len(c.outs) > 256 {
		return usageError("run: too many -out")
	}
	return nil
}

func (c *runConfig) setEnv(env []string) error {
	c.env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "PWD=" + c.dir}
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, passedOn) {
			c.env = append(c.env, v)
		}
	}
	for _, v := range env {
		if !strings.Contains(v, "=") {
			return usageError(fmt.Sprintf("run: -env %s is not NAME=VALUE", v))
		}
		c.env = append(c.env, v)
	}
	return nil
}

// run boots the kernel and returns the program's exit status.
func (c *runConfig) run(ctx context.Context, stdout, stderr io.Writer) (status int, err error) {
	initramfs, err := c.initramfs(ctx)
	if err != nil {
		return 0, err
	}
	defer initramfs.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("no end within %v", c.timeout))
	defer cancel()
	kernel := &console{}
	if c.console {
		kernel.show = stderr
	}
	g, err := c.boot(ctx, initramfs, kernel)
	if err != nil {
		return 0, err
	}
	r := &receiver{stdout, stderr, c.outs}
	status, err = r.receive(g.report)
	g.close()
	if ctx.Err() != nil && err != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return 0, kernel.explain(err)
	}
	for _, o := range c.outs {
		err = errors.Join(err, o.save())
	}
	if err != nil && status != 0 {
		// A program that failed may not have written anything: its status is what
		// matters.
		fmt.Fprintf(stderr, "vmrun: %v\n", err)
		return status, nil
	}
	return status, err
}

// initramfs makes the guest's file system in an unnamed file, so that nothing remains
// however vmrun ends.
func (c *runConfig) initramfs(ctx context.Context) (f *os.File, err error) {
	if err := checkStatic(c.args[0]); err != nil {
		return nil, err
	}
	f, err = os.CreateTemp("", "vmrun-*.cpio")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := os.Remove(f.Name()); err != nil {
		return nil, err
	}
	a := newArchive(f)
	if err := c.addSystem(ctx, a); err != nil {
		return nil, err
	}
	for _, p := range c.files {
		if err := a.tree(p.host, p.guest); err != nil {
			return nil, err
		}
	}
	for _, o := range c.outs {
		// A program expects the folders of its outputs to exist.
		folder := filepath.Dir(o.guest)
		if isDir(o.host) {
			folder = o.guest
		}
		if err := a.dir(folder, 0o755); err != nil {
			return nil, err
		}
	}
	// The kernel unpacks the archive into a tmpfs, which is limited to half the memory.
	c.memory += int(2 * a.size >> 20)
	return f, a.close()
}

// addSystem adds what every guest needs.
func (c *runConfig) addSystem(ctx context.Context, a *archive) error {
	// /tmp comes before anything below it because of its mode. The console and /dev/null
	// are needed before devtmpfs is mounted, for init's standard files.
	err := errors.Join(
		a.dir("/tmp", 0o777|fs.ModeSticky),
		a.dir("/root", 0o700),
		a.dir(c.dir, 0o755),
		a.charDevice("/dev/console", 0o600, 5, 1),
		a.charDevice("/dev/null", 0o666, 1, 3),
		a.content("/etc/hosts", 0o644, "127.0.0.1 localhost\n::1 localhost\n"),
		a.content("/etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
		a.content("/etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n"),
	)
	if err != nil {
		return err
	}
	j := job{Args: c.args, Env: c.env, Dir: c.dir}
	for _, o := range c.outs {
		j.Outs = append(j.Outs, o.guest)
	}
	content, err := json.Marshal(j)
	if err != nil {
		return err
	}
	if err := a.content(jobPath, 0o600, string(content)); err != nil {
		return err
	}
	return addInit(ctx, a)
}

// addInit adds this program as init or, if it needs shared libraries, a static build of
// it.
func addInit(ctx context.Context, a *archive) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if checkStatic(self) == nil {
		return a.tree(self, initPath)
	}
	dir, err := os.MkdirTemp("", "vmrun-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	built := filepath.Join(dir, "init")
	build := exec.CommandContext(ctx, "go", "build", "-o", built, importPath)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building init, as vmrun was not built with CGO_ENABLED=0: %w\n%s", err, output)
	}
	return a.tree(built, initPath)
}

// checkStatic refuses programs that the guest cannot run. Scripts pass: their interpreter
// may be added with -file.
func checkStatic(name string) error {
	content, err := os.Open(name)
	if err != nil {
		return err
	}
	defer content.Close()
	magic := make([]byte, len(elf.ELFMAG))
	if _, err := io.ReadFull(content, magic); err != nil || string(magic) != elf.ELFMAG {
		return nil
	}
	f, err := elf.NewFile(content)
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	if f.Machine != elf.EM_X86_64 {
		return fmt.Errorf("%s is a program for %v, the guest is an x86-64", name, f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s needs shared libraries: build it with CGO_ENABLED=0", name)
		}
	}
	return nil
}
