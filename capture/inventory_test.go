package capture

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// pool opens the sockets that another process is to have, in a network namespace.
type pool struct {
	t     *testing.T
	ns    *Namespace
	files []*os.File
}

func newPool(t *testing.T) *pool { return &pool{t: t, ns: mustNamespace(t)} }

// open opens a socket; nil if this kernel has none of the kind.
func (p *pool) open(domain, typ, protocol int) *os.File {
	p.t.Helper()
	fd := -1
	err := p.ns.Do(func() (err error) {
		fd, err = unix.Socket(domain, typ|unix.SOCK_CLOEXEC, protocol)
		return err
	})
	for _, none := range []error{unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.ESOCKTNOSUPPORT, unix.ENOPROTOOPT} {
		if errors.Is(err, none) {
			return nil
		}
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return p.keep(fd)
}

func (p *pool) keep(fd int) *os.File {
	f := os.NewFile(uintptr(fd), "socket")
	p.files = append(p.files, f)
	p.t.Cleanup(func() { f.Close() })
	return f
}

// must fails the test if a step of setting up did.
func (p *pool) must(errs ...error) {
	p.t.Helper()
	if err := errors.Join(errs...); err != nil {
		p.t.Fatal(err)
	}
}

// hand gives all sockets to a process, as its descriptors from 3 on.
func (p *pool) hand() *target {
	return startTargetWith(p.t, p.files, "idle")
}

func mustInventory(t *testing.T, config InventoryConfig) *Inventory {
	t.Helper()
	all, err := TakeInventory(config)
	if err != nil {
		t.Fatal(err)
	}
	if all.Unattached != nil {
		t.Fatal(all.Unattached)
	}
	return all
}

// one is the only socket that is listed.
func one(t *testing.T, config InventoryConfig) Socket {
	t.Helper()
	all := mustInventory(t, config)
	if len(all.Sockets) != 1 {
		t.Fatalf("%+v lists %d sockets, want one: %+v", config, len(all.Sockets), all.Sockets)
	}
	return all.Sockets[0]
}

// Sockets of all kinds are what their maker knows of them: kind, numbers, addresses.
func TestInventoryKinds(t *testing.T) {
	t.Parallel()
	p := newPool(t)
	loopback4 := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	loopback6 := &unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16()}
	abstract := func(name string) unix.Sockaddr {
		return &unix.SockaddrUnix{Name: fmt.Sprintf("@inventory-%d-%s", os.Getpid(), name)}
	}
	path := t.TempDir() + "/so\ncket"
	var want []knownSocket
	for _, c := range []struct {
		kind                  string
		domain, typ, protocol int
		bind                  unix.Sockaddr
		listens               bool
		local                 string // "" for the address and port that getsockname says
	}{
		{"tcp", unix.AF_INET, unix.SOCK_STREAM, 0, loopback4, true, ""},
		{"tcp6", unix.AF_INET6, unix.SOCK_STREAM, 0, loopback6, true, ""},
		{"tcp", unix.AF_INET, unix.SOCK_STREAM, 0, loopback4, false, ""},
		{"mptcp", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, loopback4, true, ""},
		{"mptcp6", unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, loopback6, true, ""},
		{"udp", unix.AF_INET, unix.SOCK_DGRAM, 0, loopback4, false, ""},
		{"udp6", unix.AF_INET6, unix.SOCK_DGRAM, 0, loopback6, false, ""},
		{"udplite", unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE, loopback4, false, ""},
		{"raw", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP, loopback4, false, "127.0.0.1"},
		{"raw6", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6, loopback6, false, "::1"},
		{"packet", unix.AF_PACKET, unix.SOCK_RAW, 0, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: 1}, false, "1 all"},
		{"packet-dgram", unix.AF_PACKET, unix.SOCK_DGRAM, 0, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_IP)}, false, "* 0x0800"},
		{"unix-stream", unix.AF_UNIX, unix.SOCK_STREAM, 0, &unix.SockaddrUnix{Name: path}, true, strings.ReplaceAll(path, "\n", `\n`)},
		{"unix-dgram", unix.AF_UNIX, unix.SOCK_DGRAM, 0, abstract("dgram"), false, abstract("dgram").(*unix.SockaddrUnix).Name},
		{"unix-seqpacket", unix.AF_UNIX, unix.SOCK_SEQPACKET, 0, abstract("seq"), true, abstract("seq").(*unix.SockaddrUnix).Name},
		{"netlink", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE, &unix.SockaddrNetlink{Pid: 4711, Groups: 1}, false, "route 4711 groups 0x1"},
		{"netlink-dgram", unix.AF_NETLINK, unix.SOCK_DGRAM, unix.NETLINK_GENERIC, &unix.SockaddrNetlink{Pid: 4712}, false, "generic 4712"},
		{"vsock", unix.AF_VSOCK, unix.SOCK_STREAM, 0, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: unix.VMADDR_PORT_ANY}, true, ""},
		{"xdp-raw", unix.AF_XDP, unix.SOCK_RAW, 0, nil, false, "none"},
	} {
		f := p.open(c.domain, c.typ, c.protocol)
		if f == nil {
			t.Logf("this kernel has no %s", c.kind)
			continue
		}
		fd := int(f.Fd())
		if c.bind != nil {
			p.must(unix.Bind(fd, c.bind))
		}
		state := ""
		if strings.HasPrefix(c.kind, "tcp") {
			state = "unconn"
		}
		if c.listens {
			p.must(unix.Listen(fd, 1))
			state = "listen"
		}
		want = append(want, p.known(fd, c.kind, state, c.local))
	}
	p.compare(want)
}

// compare hands the sockets to a process, and compares what is listed of it.
func (p *pool) compare(want []knownSocket) {
	p.t.Helper()
	other := p.hand()
	all := mustInventory(p.t, InventoryConfig{PIDs: []int{other.Process.Pid}}).Sockets
	if len(all) != len(want) {
		p.t.Fatalf("%d sockets, want %d", len(all), len(want))
	}
	for i, s := range all {
		name := s.Local.String()
		s.Local = Address{}
		want[i].socket.Owners = []Owner{{other.Process.Pid, "exe", []int{3 + i}}}
		if fmt.Sprint(s) != fmt.Sprint(want[i].socket) || name != want[i].local {
			p.t.Errorf("got  %+v %s\nwant %+v %s", s, name, want[i].socket, want[i].local)
		}
		if !IsKindName(s.Kind) {
			p.t.Errorf("%s cannot be chosen", s.Kind)
		}
	}
}

// knownSocket is what its maker knows of a socket.
type knownSocket struct {
	socket Socket // with nothing on it
	local  string
}

// known asks a socket of ours. local is "" for the address and port that it has, and "none" for none.
func (p *pool) known(fd int, kind, state, local string) knownSocket {
	p.t.Helper()
	number := func(option int) int {
		n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
		p.must(err)
		return n
	}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	var st, network unix.Stat_t
	p.must(err, unix.Fstat(fd, &st), p.ns.Do(func() error { return unix.Stat("/proc/thread-self/ns/net", &network) }))
	switch local {
	case "none":
		local = ""
	case "":
		sa, err := unix.Getsockname(fd)
		p.must(err)
		local = addrPort(sa).String()
		if vm, ok := sa.(*unix.SockaddrVM); ok {
			local = fmt.Sprintf("*:%d", vm.Port)
		}
	}
	return knownSocket{local: local, socket: Socket{
		Kind: kind, Family: number(unix.SO_DOMAIN), Type: number(unix.SO_TYPE), Protocol: number(unix.SO_PROTOCOL),
		Cookie: cookie, Inode: st.Ino, Network: uint32(network.Ino), Elsewhere: true, State: state,
	}}
}

// What is on a socket is listed, and is still there afterwards.
func TestInventoryAttachments(t *testing.T) {
	t.Parallel()
	p := newPool(t)
	classic := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_LEN}, {Code: unix.BPF_RET | unix.BPF_A}}
	program := &unix.SockFprog{Len: uint16(len(classic)), Filter: &classic[0]}
	open := func() int { return int(p.open(unix.AF_INET, unix.SOCK_DGRAM, 0).Fd()) }

	filtered, extended := open(), open()
	p.must(unix.SetsockoptSockFprog(filtered, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, program),
		unix.SetsockoptInt(filtered, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1))
	before := time.Now()
	tap, err := bpf.Open(bpf.Options{RingSize: bpf.MinRingSize})
	p.must(err)
	defer tap.Close()
	p.must(tap.Attach(extended))
	var name unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	for range 2 {
		fd := open()
		p.must(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1), unix.Bind(fd, name))
		name, err = unix.Getsockname(fd)
		p.must(err)
	}
	p.must(unix.SetsockoptSockFprog(int(p.files[2].Fd()), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, program))

	other := p.hand()
	for range 2 { // looking does not change what is seen
		all := mustInventory(t, InventoryConfig{PIDs: []int{other.Process.Pid}}).Sockets
		if len(all) != 4 {
			t.Fatalf("%d sockets, want 4", len(all))
		}
		if s := all[0]; !slices.Equal(s.Classic, classic) || s.Extended || !s.Locked || s.ReuseportSockets != 0 {
			t.Errorf("a locked classic filter: %+v", s)
		}
		// The clock's error and its rounding.
		s, slack := all[1], time.Second
		if s.Classic != nil || !s.Extended || s.Locked || s.Filter.ID == 0 || s.Filter.Name != "tap" ||
			s.Filter.Loaded.Before(before.Add(-slack)) || s.Filter.Loaded.After(time.Now().Add(slack)) {
			t.Errorf("an eBPF filter: %+v", s)
		}
		for _, s := range all[2:] {
			if s.ReuseportSockets != 2 || !slices.Equal(s.ReuseportClassic, classic) || s.Reuseport != (Program{}) || s.Extended {
				t.Errorf("of a group: %+v", s)
			}
		}
	}
}

// linux is the kernel's version: 6.12 is 6<<8 | 12.
func linux(t *testing.T) int {
	t.Helper()
	var name unix.Utsname
	var major, minor int
	err := unix.Uname(&name)
	if err == nil {
		_, err = fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor)
	}
	if err != nil {
		t.Fatal(err)
	}
	return major<<8 | minor
}

// Connections have a peer and a state, and what is above TCP.
func TestInventoryConnections(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind               string
		server, client     int // protocols
		fallback, ordinary bool
	}{
		{kind: "tcp", ordinary: true},
		{kind: "mptcp", server: unix.IPPROTO_MPTCP, client: unix.IPPROTO_MPTCP},
		{kind: "mptcp", client: unix.IPPROTO_MPTCP, fallback: true},
	} {
		t.Run(fmt.Sprint(c.kind, c.server, c.client), func(t *testing.T) {
			t.Parallel()
			p := newPool(t)
			listener, client := p.open(unix.AF_INET, unix.SOCK_STREAM, c.server), p.open(unix.AF_INET, unix.SOCK_STREAM, c.client)
			if listener == nil || client == nil {
				t.Skip("this kernel has no MPTCP")
			}
			p.must(unix.Bind(int(listener.Fd()), &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(int(listener.Fd()), 1))
			at, err := unix.Getsockname(int(listener.Fd()))
			p.must(err, unix.Connect(int(client.Fd()), at))
			from, err := unix.Getsockname(int(client.Fd()))
			p.must(err)
			isTLS := c.ordinary && unix.SetsockoptString(int(client.Fd()), unix.SOL_TCP, unix.TCP_ULP, "tls") == nil
			other := p.hand()
			server, port := addrPort(at), addrPort(at).Port()
			all := mustInventory(t, InventoryConfig{PIDs: []int{other.Process.Pid}, Ports: []uint16{addrPort(from).Port()}})
			if len(all.Sockets) != 1 {
				t.Fatalf("by its own port: %+v", all.Sockets)
			}
			s := all.Sockets[0]
			// Before Linux 5.16 nobody tells the state of MPTCP.
			if s.Kind != c.kind || s.State != "estab" && (c.ordinary || s.State != "") || s.Local.String() != addrPort(from).String() || s.Peer.String() != server.String() {
				t.Errorf("got %+v", s)
			}
			if isTLS != (s.ULP == "tls") {
				t.Errorf("it has the ULP %q", s.ULP)
			}
			told := 5<<8 | 16
			if c.fallback {
				told = 6<<8 | 9
			}
			if known := !c.ordinary && linux(t) >= told; known != (s.MPTCP != nil) || known && s.MPTCP.Fallback != c.fallback {
				t.Errorf("MPTCP: %+v", s.MPTCP)
			}
			if got := len(mustInventory(t, InventoryConfig{PIDs: []int{other.Process.Pid}, Ports: []uint16{port}}).Sockets); got != 2 {
				t.Errorf("%d sockets have the listener's port or are connected to it, want 2", got)
			}
		})
	}
}

// A socket of several processes is one, with all of them and each of their descriptors.
func TestInventoryOwners(t *testing.T) {
	t.Parallel()
	p := newPool(t)
	f := p.open(unix.AF_INET, unix.SOCK_DGRAM, 0)
	p.files = []*os.File{f, f}
	first := p.hand()
	p.files = []*os.File{f}
	second := p.hand()
	want := []Owner{{first.Process.Pid, "exe", []int{3, 4}}, {second.Process.Pid, "exe", []int{3}}}
	slices.SortFunc(want, func(a, b Owner) int { return a.PID - b.PID })
	folder := mustGroup(t)
	pids := []int{second.Process.Pid, first.Process.Pid, second.Process.Pid}
	for _, pid := range pids {
		enterGroup(t, folder, pid)
	}
	root, ok := bpf.CgroupMount()
	if !ok {
		t.Fatal("no cgroup2 file system is mounted")
	}
	path := strings.TrimPrefix(folder, root) // as in /proc/PID/cgroup
	for _, config := range []InventoryConfig{{PIDs: pids}, {Cgroup: folder}, {Cgroup: path}, {Cgroup: path[1:]}} {
		if got := one(t, config).Owners; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%+v: got %v, want %v", config, got, want)
		}
	}
	// Of the whole machine, too, where others have sockets as well; but not this process.
	// Not while another test starts a process: until it becomes its program it has copies of all
	// that we have.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	found := false
	for _, s := range mustInventory(t, InventoryConfig{Kinds: []string{"udp"}}).Sockets {
		found = found || fmt.Sprint(s.Owners) == fmt.Sprint(want)
		if s.Kind != "udp" {
			t.Errorf("%s is no udp", s.Kind)
		}
	}
	if !found {
		t.Errorf("the list of the machine lacks the owners %v", want)
	}
}

// targetMany opens many sockets.
func targetMany(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	limit := &unix.Rlimit{Cur: uint64(n) + 64, Max: uint64(n) + 64}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, limit); err != nil {
		return err
	}
	for range n {
		if _, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0); err != nil {
			return err
		}
	}
	return untilStdinEnds("many")
}

// All sockets of a process that has many, with no descriptor left over.
func TestInventoryMany(t *testing.T) {
	testutil.RequirePrivilege(t)
	const n = 10000
	other := startTarget(t, "many", fmt.Sprint(n))
	all := mustInventory(t, InventoryConfig{PIDs: []int{other.Process.Pid}})
	if len(all.Sockets) != n {
		t.Errorf("%d sockets of %d", len(all.Sockets), n)
	}
	cookies, inodes := make(map[uint64]bool), make(map[uint64]bool)
	for _, s := range all.Sockets {
		cookies[s.Cookie], inodes[s.Inode] = true, true
	}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		var inode uint64
		target, _ := os.Readlink("/proc/self/fd/" + f.Name()) // fails if it is closed by now
		if _, err := fmt.Sscanf(target, "socket:[%d]", &inode); err == nil && inodes[inode] {
			t.Errorf("descriptor %s is a copy that is left over: %s", f.Name(), target)
		}
	}
	if len(cookies) != n {
		t.Errorf("%d different cookies of %d", len(cookies), n)
	}
}

func TestInventoryRefuses(t *testing.T) {
	t.Parallel()
	testutil.RequirePrivilege(t)
	other := startTarget(t, "idle")
	for name, test := range map[string]struct {
		config InventoryConfig
		is     error
		want   string
	}{
		"no process":    {InventoryConfig{PIDs: []int{1 << 22}}, unix.ESRCH, "listing sockets of process 4194304: no such process"},
		"no cgroup":     {InventoryConfig{Cgroup: "/proc"}, os.ErrNotExist, "cgroup /proc: it is none"},
		"both":          {InventoryConfig{Cgroup: "/proc", PIDs: []int{1}}, nil, "InventoryConfig has PIDs and a Cgroup: choose one"},
		"no descriptor": {InventoryConfig{PIDs: []int{other.Process.Pid}, Descriptors: []int{0, 99}}, nil, "none of the descriptors 0 99 is a socket"},
	} {
		_, err := TakeInventory(test.config)
		if err == nil || !strings.Contains(err.Error(), test.want) || test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
	if root, ok := bpf.CgroupMount(); ok {
		if folder, err := groupFolder("/"); err != nil || folder != root {
			t.Errorf("the root is %q, %v, want %q", folder, err, root)
		}
	}
	for name, want := range map[string]bool{
		"tcp": true, "mptcp6": true, "alg-seqpacket": true, "family77-type9": true, "inet-dccp": true,
		"": false, "tcp7": false, "unix": false, "unix-": false, "-raw": false, "family-type": false, "familyx-raw": false,
	} {
		if IsKindName(name) != want {
			t.Errorf("%q: is it a kind? want %v", name, want)
		}
	}
}
