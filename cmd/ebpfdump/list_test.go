package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/capture"
	"github.com/ebpfdump/ebpfdump/internal/capability"
	"github.com/ebpfdump/ebpfdump/internal/privilege"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// socketCollector is a process with sockets of many kinds, one with a classic filter.
const socketCollector = `
import ctypes, os, socket, struct, sys
def attach(s, option, *code):
    text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *c) for c in code))
    s.setsockopt(socket.SOL_SOCKET, option, struct.pack("HxxxxxxP", len(code), ctypes.addressof(text)))
def opened(family, kind, protocol=0, at=("127.0.0.1", 0)):
    s = socket.socket(family, kind, protocol)
    s.bind(at)
    return s
all = []
for protocol in 0, 262:
    try:
        listener = opened(socket.AF_INET, socket.SOCK_STREAM, protocol)
    except OSError:
        continue # no MPTCP
    listener.listen()
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    client.connect(listener.getsockname())
    all += [listener, client, listener.accept()[0]]
all.append(opened(socket.AF_INET6, socket.SOCK_STREAM, at=("::1", 0)))
all[-1].listen()
all.append(opened(socket.AF_INET, socket.SOCK_DGRAM))
all.append(opened(socket.AF_INET6, socket.SOCK_DGRAM, at=("::1", 0)))
all.append(opened(socket.AF_INET, socket.SOCK_RAW, 1))
all.append(opened(socket.AF_PACKET, socket.SOCK_RAW, 0, ("lo", 3)))
attach(all[-1], 26, (40, 0, 0, 12), (21, 0, 1, 2048), (6, 0, 0, 262144), (6, 0, 0, 0))
all.append(opened(socket.AF_UNIX, socket.SOCK_STREAM, at="\0collector-%d" % os.getpid()))
all[-1].listen()
for name in "one", "two":
    all.append(opened(socket.AF_UNIX, socket.SOCK_STREAM, at="\0collector-%d\0%s" % (os.getpid(), name)))
    all[-1].listen()
all += socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
all += socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
all += socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
all.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
all[-1].connect("\0collector-%d" % os.getpid())
for kind, protocol in (socket.SOCK_DGRAM, 0), (socket.SOCK_RAW, 1):
    all.append(socket.socket(socket.AF_INET, kind, protocol))
    all[-1].connect(("127.0.0.1", 9))
all.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
print("ready", flush=True)
sys.stdin.read()
`

// filteredSocket is a process with a classic filter on its socket.
const filteredSocket = `
import ctypes, socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 8080))
code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0xffffffff))
s.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HxxxxxxP", 1, ctypes.addressof(code)))
print("ready", flush=True)
sys.stdin.read()
`

// startPython starts a process in a namespace, as a user.
func startPython(t *testing.T, ns *capture.Namespace, uid uint32, code string) (pid int) {
	t.Helper()
	cmd := exec.Command("/usr/bin/python3", "-c", code)
	cmd.SysProcAttr = &unix.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr output
	cmd.Stderr = &stderr
	if err := ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("it does not begin: %v\n%s", err, stderr.String())
	}
	return cmd.Process.Pid
}

// ssSocket is a socket as ss shows it.
type ssSocket struct {
	netid, state, local, peer string
	cookie                    uint64
	filter                    []string
}

var (
	ssLine   = regexp.MustCompile(`^(\S+)\s+(\S+)\s+\d+\s+\d+\s+(\S+)\s+(.*?)\s*users:\((\S+)\)(.*)$`)
	ssUser   = regexp.MustCompile(`pid=(\d+),fd=(\d+)`)
	ssCookie = regexp.MustCompile(` sk:([0-9a-f]+)`)
	ssFilter = regexp.MustCompile(`bpf filter \(\d+\):\s*(.*?)\s*$`)
)

// askSS asks ss for the sockets of a process, by descriptor. An MPTCP socket has the line of its
// first subflow as well, which has a cookie of its own.
func askSS(t *testing.T, p *privileged, ns *capture.Namespace, pid int) map[int]ssSocket {
	t.Helper()
	got := p.runIn(ns, exec.Command("ss", "-aHnpebO", "-A", "all"))
	if got.status != 0 {
		t.Fatalf("ss: status %d\n%s", got.status, got.stderr)
	}
	all := make(map[int]ssSocket)
	for line := range strings.Lines(got.stdout) {
		m := ssLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		s := ssSocket{netid: m[1], state: strings.ToLower(m[2]), local: m[3], peer: m[4]}
		if c := ssCookie.FindStringSubmatch(m[6]); c != nil {
			s.cookie, _ = strconv.ParseUint(c[1], 16, 64)
		}
		if f := ssFilter.FindStringSubmatch(line); f != nil {
			for part := range strings.SplitSeq(strings.TrimRight(f[1], ", "), ",") {
				s.filter = append(s.filter, strings.TrimSpace(part))
			}
		}
		for _, u := range ssUser.FindAllStringSubmatch(m[5], -1) {
			fd, _ := strconv.Atoi(u[2])
			if u[1] == strconv.Itoa(pid) && all[fd].netid != "mptcp" {
				all[fd] = s
			}
		}
	}
	return all
}

// The list has what ss has, of a process with sockets of many kinds.
func TestListBesideSS(t *testing.T) {
	t.Parallel()
	requireTools(t, "ss")
	p := newPrivileged(t)
	ns, err := capture.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Close)
	pid := startPython(t, ns, 0, socketCollector)
	want := askSS(t, p, ns, pid)
	if len(want) < 12 {
		t.Fatalf("ss shows %d sockets: %v", len(want), want)
	}
	got := p.runIn(ns, exec.Command(p.program, "list", "--json", "--pid", strconv.Itoa(pid)))
	if got.status != 0 || got.stderr != "" {
		t.Fatalf("status %d\n%s", got.status, got.stderr)
	}
	kinds := map[string][]string{
		"tcp": {"tcp", "tcp6"}, "udp": {"udp", "udp6"}, "mptcp": {"mptcp"}, "raw": {"raw"}, "p_raw": {"packet"},
		"u_str": {"unix-stream"}, "u_dgr": {"unix-dgram"}, "u_seq": {"unix-seqpacket"},
	}
	seen := 0
	for line := range strings.Lines(got.stdout) {
		var s listedSocket
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatal(err)
		}
		w, ok := want[s.Owners[0].Descriptors[0]]
		if !ok {
			t.Errorf("ss does not show %s", line)
			continue
		}
		seen++
		if !slices.Contains(kinds[w.netid], s.Kind) || w.cookie != 0 && s.Cookie != w.cookie {
			t.Errorf("ss says %+v of %s", w, line)
		}
		address := capture.Address{Name: s.Local}.String()
		if s.LocalPort != 0 {
			address = capture.Address{IP: mustAddr(t, s.Local), Port: s.LocalPort}.String()
		}
		if s.State != w.state && (s.State != "" || w.state != "unconn") || s.LocalPort != 0 && address != w.local || s.Kind == "unix-stream" && cmp.Or(address, "*") != w.local {
			t.Errorf("ss says %+v of %s", w, line)
		}
		if s.PeerPort != 0 && (capture.Address{IP: mustAddr(t, s.Peer), Port: s.PeerPort}).String() != w.peer {
			t.Errorf("ss says %+v of %s", w, line)
		}
		if len(s.Classic) != len(w.filter) || !slices.Equal(decimal(t, w.filter), s.Classic) {
			t.Errorf("ss says the filter %q, and the list %q", w.filter, s.Classic)
		}
	}
	for _, name := range []string{"one", "two"} { // which a program gets as it is
		if whole := fmt.Sprintf(`"local":"@collector-%d\u0000%s"`, pid, name); !strings.Contains(got.stdout, whole) {
			t.Errorf("no %s in\n%s", whole, got.stdout)
		}
	}
	if seen != len(want) {
		t.Errorf("%d sockets of %d: %v", seen, len(want), slices.Sorted(maps.Keys(want)))
	}
}

func mustAddr(t *testing.T, text string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddr(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// decimal converts instructions of ss, whose code is hexadecimal.
func decimal(t *testing.T, lines []string) []string {
	t.Helper()
	var all []string
	for _, line := range lines {
		code, rest, _ := strings.Cut(line, " ")
		n, err := strconv.ParseUint(code, 0, 16)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%d %s", n, rest))
	}
	return all
}

// Of another user's process, everything with the capabilities of the table; without one of them
// that is said, and the rest is there if there is any.
func TestListPrivileges(t *testing.T) {
	t.Parallel()
	p := newPrivileged(t)
	ns, err := capture.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Close)
	pid := startPython(t, ns, 1000, filteredSocket)
	args := []string{"list", "--port", "8080", "--pid", strconv.Itoa(pid)}
	run := func(cmd *exec.Cmd) outcome { return p.runIn(ns, cmd) }
	needs := privilege.Use{Command: "list", Join: true}.Needs()
	for _, uid := range []int{0, nobody} {
		got := run(p.command(uid, needs, args...))
		if got.status != 0 || got.stderr != "" || !strings.Contains(got.stdout, "classic filter of 1 instruction\n") {
			t.Errorf("uid %d with %v: status %d\n%s%s", uid, needs, got.status, got.stdout, got.stderr)
		}
		for i, missing := range needs {
			rest := slices.Delete(slices.Clone(needs), i, i+1)
			if missing == unix.CAP_SYS_PTRACE || missing == unix.CAP_DAC_READ_SEARCH {
				p.checkMissing(uid, missing, rest, run, args)
				continue
			}
			got := run(p.command(uid, rest, args...))
			if got.status != 0 || !strings.Contains(got.stderr, "ebpfdump: telling which eBPF programs and sockmaps are on sockets needs "+missing.String()) ||
				!strings.Contains(got.stdout, "classic filter of 1 instruction\n") {
				t.Errorf("uid %d without %v: status %d\n%s%s", uid, missing, got.status, got.stdout, got.stderr)
			}
		}
		// Beside a process of its own, which may be looked into.
		id := strconv.Itoa(uid)
		own := exec.Command("setpriv", "--reuid="+id, "--regid="+id, "--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "sh", "-c", "echo ready; exec sleep 1000")
		stdout, err := own.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := own.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = own.Process.Kill()
			_ = own.Wait()
		})
		if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
			t.Fatalf("no process to look into: %q, %v", line, err)
		}
		got = run(p.command(uid, []capability.Cap{unix.CAP_DAC_READ_SEARCH}, "list", "--pid", fmt.Sprintf("%d,%d", pid, own.Process.Pid)))
		if got.status != 0 || !strings.Contains(got.stderr, "ebpfdump: the sockets of 1 process are missing: copying the sockets of process "+strconv.Itoa(pid)) {
			t.Errorf("uid %d: status %d\n%s%s", uid, got.status, got.stdout, got.stderr)
		}
	}
	p.checkHidden(ns, strconv.Itoa(pid))
}

// checkHidden looks into a process that /proc hides: what is missing is said, also to a capture, and
// of the machine that there may be such processes.
func (p *privileged) checkHidden(ns *capture.Namespace, pid string) {
	p.Helper()
	under := func(hidepid string) func(cmd *exec.Cmd) outcome {
		return func(cmd *exec.Cmd) outcome {
			const script = `mount -t proc -o "hidepid=$0" proc /proc && exec "$@"`
			return p.runIn(ns, exec.Command("unshare", slices.Concat([]string{"--mount", "sh", "-c", script, hidepid}, cmd.Args)...))
		}
	}
	for _, c := range []struct{ hidepid, command string }{{"1", "list"}, {"2", "list"}, {"2", "capture"}} {
		rest := slices.DeleteFunc(privilege.Use{Command: c.command, Join: true}.Needs(), func(c capability.Cap) bool { return c == unix.CAP_SYS_PTRACE })
		p.checkMissing(nobody, unix.CAP_SYS_PTRACE, rest, under(c.hidepid), []string{c.command, "--pid", pid})
	}
	got := under("2")(p.command(nobody, privilege.Use{Command: "list", Join: true}.Needs(), "list", "--pid", pid))
	if got.status != 0 || got.stderr != "" || !strings.Contains(got.stdout, "classic filter of 1 instruction\n") {
		p.Errorf("it is not hidden from everybody: status %d\n%s%s", got.status, got.stdout, got.stderr)
	}
	if got := under("2")(p.command(nobody, nil, "list")); !strings.Contains(got.stderr, "which /proc hides (hidepid), needs CAP_SYS_PTRACE: ") {
		p.Errorf("of the machine: status %d\n%s%s", got.status, got.stdout, got.stderr)
	}
}

// What is on a socket, in words, on a terminal of 80 columns.
func TestListTable(t *testing.T) {
	t.Parallel()
	program := capture.Program{ID: 73, Name: "keep\x1b[31m", Loaded: time.Date(2026, 2, 3, 4, 5, 6, 0, time.Local)}
	classic := []unix.SockFilter{{Code: 40, K: 12}, {Code: 6}}
	owners := []capture.Owner{{PID: 7, Name: "a server", Descriptors: []int{3, 4, 5, 9}}, {PID: 8, Name: "a server", Descriptors: []int{3}}, {PID: 123456, Name: "a server", Descriptors: []int{3}}}
	loopback := func(port uint16) capture.Address {
		return capture.Address{IP: netip.MustParseAddr("127.0.0.1"), Port: port}
	}
	inet := capture.Socket{Kind: "tcp", Family: unix.AF_INET, Type: unix.SOCK_STREAM, State: "estab", Cookie: 1234567, Local: loopback(50000), Peer: loopback(60000), Owners: owners[1:2]}
	long, mptcp, single, raw, file := inet, inet, inet, inet, inet
	inet.Classic, inet.Locked = classic, true
	inet.Sockmaps = []bpf.Sockmap{{ID: 5, Name: "proxy"}, {ID: 6}}
	inet.ULP = "tls"
	long.Local.IP = netip.MustParseAddr("2001:db8:1111:2222:3333:4444:5555:6666")
	long.Extended, long.Filter, long.Owners = true, program, owners
	mptcp.Kind, mptcp.MPTCP, mptcp.Extended = "mptcp", &capture.MPTCP{Subflows: 1}, true
	mptcp.ReuseportSockets, mptcp.Reuseport = 4, program
	single.Kind, single.MPTCP = "mptcp", &capture.MPTCP{}
	raw = capture.Socket{Kind: "raw", Family: unix.AF_INET, Type: unix.SOCK_RAW, Protocol: 89, Cookie: 9, Local: loopback(0), Owners: owners[:1], Network: 4026532000, Elsewhere: true}
	raw.ReuseportSockets, raw.ReuseportClassic = 1, classic[1:]
	file = capture.Socket{Kind: "unix-seqpacket", Family: unix.AF_UNIX, Cookie: 10, Peer: capture.Address{Name: "/run/a\nfile"}, Owners: owners[:1], Locked: true, ULP: "x", MPTCP: &capture.MPTCP{Fallback: true}}
	// Of many descriptors, some, and in no other row anything of it.
	scattered := raw
	scattered.Owners = []capture.Owner{{PID: 7, Name: "a server", Descriptors: []int{3, 5, 7, 9, 11, 13}}, {PID: 9, Name: "a server", Descriptors: []int{1048570, 1048571}}}
	for fd := range 6000 {
		scattered.Owners[0].Descriptors = append(scattered.Owners[0].Descriptors, 100+2*fd)
	}
	var b bytes.Buffer
	for _, sockets := range [][]capture.Socket{nil, {inet, long, mptcp, single, raw, file}, {inet}, {inet, scattered}} {
		if err := writeListTable(&b, sockets, len(sockets) == 1); err != nil {
			t.Fatal(err)
		}
	}
	testutil.Golden(t, "testdata/list.txt", b.String())
	for _, c := range []struct {
		numbers []int
		want    string
	}{
		{nil, ""}, {[]int{3}, "3"}, {[]int{3, 4, 6}, "3-4,6"}, {[]int{1000, 1002, 1004}, "1000,..."},
		{[]int{10, 12, 14, 16}, "10,12,14,16"}, {[]int{10, 12, 14, 16, 18}, "10,12,14,..."},
		{[]int{123456, 123457}, "123456,..."}, {[]int{1073741815, 1073741816}, "1073741815,..."}, {[]int{1073741815}, "1073741815"},
	} {
		if got := ranges(c.numbers, descriptorRoom); got != c.want {
			t.Errorf("%v: %s, want %s", c.numbers, got, c.want)
		}
	}
	for line := range strings.Lines(b.String()) {
		if len(line) > 81 && !strings.Contains(line, "2001:db8") {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
}
