package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/capability"
	"github.com/ebpfdump/ebpfdump/internal/privilege"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// privileged runs ebpfdump with chosen capabilities.
type privileged struct {
	testing.TB
	program string // in a place that everybody can reach
	dir     string
}

func newPrivileged(t *testing.T) *privileged {
	t.Helper()
	requireTools(t, "setpriv", "python3", "clang")
	dir, err := os.MkdirTemp("", "ebpfdump-privilege-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(executable)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	p := &privileged{TB: t, program: filepath.Join(dir, "ebpfdump"), dir: dir}
	to, err := os.OpenFile(p.program, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(to, from)
	if err := errors.Join(err, to.Close(), os.Chmod(dir, 0o777), os.Chmod(p.program, 0o755)); err != nil {
		t.Fatal(err)
	}
	return p
}

// nobody is a user without any privileges.
const nobody = 65534

// command is ebpfdump run with exactly these capabilities: by root, restricted to them,
// or by another user, to whom they are granted.
func (p *privileged) command(uid int, capabilities []capability.Cap, args ...string) *exec.Cmd {
	set := "-all"
	for _, c := range capabilities {
		set += ",+" + strings.ToLower(strings.TrimPrefix(c.String(), "CAP_"))
	}
	setpriv := []string{"--bounding-set=" + set, "--inh-caps=-all"}
	if uid != 0 {
		id := strconv.Itoa(uid)
		setpriv = []string{"--reuid=" + id, "--regid=" + id, "--clear-groups", "--inh-caps=" + set, "--ambient-caps=" + set, "--bounding-set=" + set}
	}
	cmd := exec.Command("setpriv", slices.Concat(setpriv, []string{p.program}, args)...)
	cmd.Dir = "/"
	return cmd
}

// outcome is how a program ended.
type outcome struct {
	status         int
	stdout, stderr string
}

// run runs a program in a network namespace of its own.
func (p *privileged) run(cmd *exec.Cmd) outcome {
	p.Helper()
	ns, err := capture.NewNamespace()
	if err != nil {
		p.Fatal(err)
	}
	defer ns.Close()
	return p.runIn(ns, cmd)
}

func (p *privileged) runIn(ns *capture.Namespace, cmd *exec.Cmd) outcome {
	p.Helper()
	var stdout, stderr output
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := ns.Do(cmd.Start); err != nil {
		p.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		p.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// privilegeCase is a use and its arguments.
type privilegeCase struct {
	use  privilege.Use
	args []string
	// seen is in stdout after success.
	seen string
	// rootOnly: with what this needs a user is as good as root.
	rootOnly bool
}

func (c privilegeCase) name() string { return strings.Join(c.args, " ") }

// sockets has each kind of socket, alone with its probe and isolated.
func socketCases() []privilegeCase {
	var cases []privilegeCase
	for _, k := range capture.Kinds() {
		for _, isolate := range []bool{false, true} {
			c := privilegeCase{
				use:  privilege.Use{Command: "capture", Kind: k.Name, Probe: true, Isolate: isolate},
				args: []string{"capture", "--sock", k.Name, "--probe"},
			}
			if isolate {
				c.args = append(c.args, "--isolate")
			}
			cases = append(cases, c)
		}
	}
	return append(cases,
		privilegeCase{use: privilege.Use{Command: "capture", Kind: "netlink"}, args: []string{"capture", "--sock", "netlink", "--duration", "0.2"}},
		privilegeCase{use: privilege.Use{Command: "capture", Kind: "tcp"}, args: []string{"capture", "--sock", "tcp", "--duration", "0.2"}},
		privilegeCase{
			use:  privilege.Use{Command: "capture", Kind: "udp", Probe: true, LowPort: true},
			args: []string{"capture", "--sock", "udp", "--probe", "-l", "127.0.0.1:80"}, seen: "udp:user",
		},
		privilegeCase{
			use:  privilege.Use{Command: "capture", Kind: "udp", Probe: true, Hooks: true},
			args: []string{"capture", "--sock", "udp", "--probe", "--view", "kernel,cgroup"}, seen: "udp:cgroup",
		},
		privilegeCase{
			use:  privilege.Use{Command: "capture", Kind: "udp", Probe: true, Drops: true},
			args: []string{"capture", "--sock", "udp", "--probe", "--view", "kernel,drop", "--verdict", "drop"}, seen: "udp:drop",
		},
		privilegeCase{
			use:  privilege.Use{Command: "capture", Kind: "udp", Probe: true, Wire: true},
			args: []string{"capture", "--sock", "udp", "--probe", "--view", "kernel,wire"}, seen: "udp:wire",
		},
	)
}

// selfTalk is a process that sends a datagram to itself.
const selfTalk = `import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("127.0.0.1", 0)); s.sendto(b"hello", s.getsockname()); s.recv(10)`

func otherCases(t *testing.T) []privilegeCase {
	sample, err := filepath.Abs("../../samples/tcp.pcapng")
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(sample)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "ebpfdump-privilege-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	sample = filepath.Join(dir, "tcp.pcapng")
	if err := errors.Join(os.WriteFile(sample, content, 0o644), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	pick := filepath.Join(dir, "pick.o")
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("clang", "-O2", "-g", "-target", "bpf", "-mcpu=v2", "-idirafter", "/usr/include/"+unix.ByteSliceToString(name.Machine[:])+"-linux-gnu",
		"-c", "../../samples/filters/pick.c", "-o", pick).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	command := func(user, view bool) privilegeCase {
		c := privilegeCase{
			use:  privilege.Use{Command: "capture", Run: true, OtherUser: user},
			args: []string{"capture"}, seen: "udp:kernel", rootOnly: user,
		}
		if user {
			c.args = append(c.args, "--user", "nobody")
		}
		if !view {
			c.args = append(c.args, "--view", "kernel")
		} else {
			c.seen = "udp:user"
		}
		c.args = append(c.args, "--", "/usr/bin/python3", "-c", selfTalk)
		return c
	}
	return []privilegeCase{
		command(false, true), command(false, false), command(true, true), command(true, false),
		{use: privilege.Use{Command: "replay"}, args: []string{"replay", "--verdict", "keep", sample}, seen: "keeps all"},
		{use: privilege.Use{Command: "explain"}, args: []string{"explain", sample}, seen: "tcp"},
		{use: privilege.Use{Command: "convert"}, args: []string{"convert", sample, "-o", "-", "--to", "json"}, seen: "{"},
		{
			use:  privilege.Use{Command: "capture", Kind: "udp", Probe: true, Selects: true},
			args: []string{"capture", "--sock", "udp", "--probe", "--reuseport", "2", "--reuseport-filter", pick}, seen: "chose socket 0 of 2",
		},
		{use: privilege.Use{Command: "survey", Hooks: true}, args: []string{"survey", "--hooks", "--sock", "udp"}, seen: "sk_reuseport"},
		{use: privilege.Use{Command: "survey"}, args: []string{"survey", "--sock", "tcp,raw/udp,netlink,icmp,packet"}, seen: "tcp"},
	}
}

// The capabilities in the table are sufficient, and each is necessary: without it the
// status is 4 and the message names it.
func TestPrivileges(t *testing.T) {
	t.Parallel()
	p := newPrivileged(t)
	for _, c := range append(socketCases(), otherCases(t)...) {
		t.Run(c.name(), func(t *testing.T) {
			t.Parallel()
			p := &privileged{TB: t, program: p.program, dir: p.dir}
			all := p.run(exec.Command(p.program, c.args...))
			for _, uid := range []int{0, nobody} {
				if uid != 0 && c.rootOnly {
					continue
				}
				p.check(uid, c, all)
			}
		})
	}
}

// check compares with a run that has all capabilities.
func (p *privileged) check(uid int, c privilegeCase, all outcome) {
	p.Helper()
	needs := c.use.Needs()
	if got := p.run(p.command(uid, needs, c.args...)); got.status != all.status || !strings.Contains(got.stdout, c.seen) {
		p.Errorf("uid %d with %v: status %d, with everything %d\n%s%s", uid, needs, got.status, all.status, got.stdout, got.stderr)
	}
	if all.status != 0 {
		return // this kernel does without the kind
	}
	for i, missing := range needs {
		p.checkMissing(uid, missing, slices.Delete(slices.Clone(needs), i, i+1), func(cmd *exec.Cmd) outcome { return p.run(cmd) }, c.args)
	}
}

// checkMissing runs a command without a capability, unless another one includes it.
func (p *privileged) checkMissing(uid int, missing capability.Cap, rest []capability.Cap, run func(*exec.Cmd) outcome, args []string) {
	p.Helper()
	var held capability.Privilege
	for _, c := range rest {
		held.Effective |= 1 << c
	}
	if held.Has(int(missing)) {
		return
	}
	got := run(p.command(uid, rest, args...))
	if got.status != exitMissing || !strings.Contains(got.stderr, missing.String()) {
		p.Errorf("uid %d without %v: status %d, want %d and a message that names it\n%s%s", uid, missing, got.status, exitMissing, got.stdout, got.stderr)
		return
	}
	_, effective, err := testutil.FollowHint(strings.TrimSpace(got.stderr))
	if err != nil {
		p.Error(err)
	}
	after := capability.Privilege{Effective: effective}
	for _, c := range append(rest, missing) {
		if !after.Has(int(c)) {
			p.Errorf("uid %d without %v: what the hint says takes %v away: %s", uid, missing, c, got.stderr)
		}
	}
}

// All that is lacking is named at once, also where no setcap has room for it, and so is what the way around takes. What
// one is already is no other user to become.
func TestPrivilegesNamed(t *testing.T) {
	t.Parallel()
	p := newPrivileged(t)
	for args, want := range map[string]string{
		"survey":                               "loading the tap needs CAP_BPF: run as root (sudo), since CAP_NET_RAW, CAP_SYS_ADMIN and CAP_NET_ADMIN are lacking as well\n",
		"capture --sock tcp --probe --isolate": "making a network namespace needs CAP_SYS_ADMIN: run as root (sudo), since CAP_BPF and CAP_NET_ADMIN are lacking as well, or leave --isolate out, which takes CAP_BPF\n",
		"doctor":                               "CAP_SETGID, CAP_SETUID, CAP_SYS_PTRACE",
	} {
		if got := p.run(p.command(nobody, nil, strings.Fields(args)...)); got.status != exitMissing || !strings.Contains(got.stdout+got.stderr, want) {
			t.Errorf("%s: status %d, want %d and %s\n%s%s", args, got.status, exitMissing, want, got.stdout, got.stderr)
		}
	}
}

// talker is a server that answers each connection, with a classic filter on its listener
// that keeps everything. It runs as a user that is neither root nor nobody.
const talker = `
import ctypes, socket, struct, sys
s = socket.socket(); s.bind(("127.0.0.1", int(sys.argv[1])))
if sys.argv[2] == "filter":
    code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0xffffffff))
    s.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HxxxxxxP", 1, ctypes.addressof(code)))
s.listen(); print("ready", flush=True)
while True:
    c, _ = s.accept(); c.sendall(c.recv(100)); c.close()
`

// Joining another user's process.
func TestPrivilegesToJoin(t *testing.T) {
	t.Parallel()
	p := newPrivileged(t)
	for _, c := range []struct {
		filter string
		args   []string
		want   string
	}{
		{"none", nil, "tcp:user"},
		{"none", []string{"--view", "kernel"}, "tcp:kernel"},
		{"filter", []string{"--replace-filter"}, "tcp:user"},
	} {
		t.Run(fmt.Sprint(c.filter, c.args), func(t *testing.T) {
			t.Parallel()
			p := &privileged{TB: t, program: p.program, dir: p.dir}
			ns, pid := p.serve(c.filter)
			for _, uid := range []int{0, nobody} {
				args := slices.Concat([]string{"capture", "--pid", strconv.Itoa(pid)}, c.args)
				needs := privilege.Use{Command: "capture", Join: true}.Needs()
				got := p.runIn(ns, p.command(uid, needs, slices.Concat(args, []string{"-c", "40"})...))
				if got.status != 0 || !strings.Contains(got.stdout, c.want) {
					t.Errorf("uid %d with %v: status %d\n%s%s", uid, needs, got.status, got.stdout, got.stderr)
				}
				for i, missing := range needs {
					p.checkMissing(uid, missing, slices.Delete(slices.Clone(needs), i, i+1), func(cmd *exec.Cmd) outcome { return p.runIn(ns, cmd) }, args)
				}
			}
		})
	}
}

// serve starts a talker, and a client that talks to it all the time.
func (p *privileged) serve(filter string) (*capture.Namespace, int) {
	p.Helper()
	ns, err := capture.NewNamespace()
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(ns.Close)
	cmd := exec.Command("/usr/bin/python3", "-c", talker, "8080", filter)
	if filter == "none" {
		cmd.SysProcAttr = &unix.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	} else { // which needs CAP_NET_ADMIN on TCP
		cmd = exec.Command("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--inh-caps=+net_admin", "--ambient-caps=+net_admin",
			"/usr/bin/python3", "-c", talker, "8080", filter)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		p.Fatal(err)
	}
	if err := ns.Do(cmd.Start); err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := io.ReadFull(stdout, make([]byte, len("ready\n"))); err != nil {
		p.Fatalf("the server does not begin: %v", err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_ = ns.Do(talk)
			}
		}
	}()
	p.Cleanup(func() { close(stop); <-stopped })
	return ns, cmd.Process.Pid
}

// talk sends a few bytes to the talker and waits for them to come back.
func talk() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 8080, Addr: [4]byte(net.IPv4(127, 0, 0, 1).To4())}); err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte("hello")); err != nil {
		return err
	}
	_, err = unix.Read(fd, make([]byte, 16))
	return err
}
