package bpf

import (
	"errors"
	"net"
	"os"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

func mustInspector(t *testing.T) *Inspector {
	t.Helper()
	requirePrivilege(t)
	i, err := OpenInspector()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	return i
}

func mustInspect(t *testing.T, i *Inspector, fd int) Attachments {
	t.Helper()
	a, err := i.Inspect(fd)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// mustProgram loads a program that returns 1, and what the kernel itself says of it.
func mustProgram(t *testing.T, name string, kind ebpf.ProgramType) (*ebpf.Program, Program) {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: name, Type: kind, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	loaded, _ := info.LoadTime()
	return p, Program{ID: uint32(id), Name: name, Loaded: int64(loaded)}
}

// ownNamespace is the inode of this thread's network namespace.
func ownNamespace(t *testing.T) uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		t.Fatal(err)
	}
	return uint32(st.Ino)
}

// The filter of a socket and its namespace, beside what bpf(2) says of the program.
func TestInspectFilter(t *testing.T) {
	i := mustInspector(t)
	fd, _ := testutil.UDPPair(t)
	if a := mustInspect(t, i, fd); a.Filter != (Program{}) || a.ReuseportSockets != 0 || a.Network != ownNamespace(t) || len(a.Sockmaps) != 0 {
		t.Errorf("a socket with nothing on it: %+v", a)
	}
	p, want := mustProgram(t, "keep_a_byte", ebpf.SocketFilter)
	if err := AttachFilter(fd, p.FD()); err != nil {
		t.Fatal(err)
	}
	if a := mustInspect(t, i, fd); a.Filter != want {
		t.Errorf("got %+v, want %+v", a.Filter, want)
	}
	classic := []unix.SockFilter{{Code: unix.BPF_RET, K: 1}}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &classic[0]}); err != nil {
		t.Fatal(err)
	}
	if a := mustInspect(t, i, fd); a.Filter != (Program{}) {
		t.Errorf("a classic filter has become program %+v", a.Filter)
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, fd := range []int{-1, int(file.Fd()), 1 << 20} {
		if _, err := i.Inspect(fd); !errors.Is(err, unix.ENOTSOCK) {
			t.Errorf("descriptor %d: %v", fd, err)
		}
	}
}

// reuseportGroup opens sockets that share an address.
func reuseportGroup(t *testing.T, n int) (fds []int) {
	t.Helper()
	var name unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1), unix.Bind(fd, name))
		if err != nil {
			t.Fatal(err)
		}
		if name, err = unix.Getsockname(fd); err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	return fds
}

// The program of a group is on each of its sockets, whichever it was attached by.
func TestInspectReuseport(t *testing.T) {
	i := mustInspector(t)
	fds := reuseportGroup(t, 3)
	check := func(want Program, classic []unix.SockFilter) {
		t.Helper()
		for _, fd := range fds {
			a := mustInspect(t, i, fd)
			if a.ReuseportSockets != len(fds) || a.Reuseport != want || !slices.Equal(a.ReuseportClassic, classic) || a.Filter != (Program{}) {
				t.Errorf("got %+v, want %+v and %v", a, want, classic)
			}
		}
	}
	check(Program{}, nil)
	classic := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_LEN}, {Code: unix.BPF_RET | unix.BPF_A}}
	if err := unix.SetsockoptSockFprog(fds[1], unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: 2, Filter: &classic[0]}); err != nil {
		t.Fatal(err)
	}
	check(Program{}, classic)
	for name, kind := range map[string]ebpf.ProgramType{"choose_a_socket": ebpf.SkReuseport, "choose_by_hash": ebpf.SocketFilter} {
		p, want := mustProgram(t, name, kind)
		if err := unix.SetsockoptInt(fds[2], unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_EBPF, p.FD()); err != nil {
			t.Fatal(err)
		}
		check(want, nil)
	}
}

// A connection is put into a sockmap and a sockhash, and taken out again.
func TestInspectSockmaps(t *testing.T) {
	i := mustInspector(t)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	file, err := conn.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fd := int(file.Fd())
	if a := mustInspect(t, i, fd); len(a.Sockmaps) != 0 {
		t.Errorf("it is in no sockmap yet: %+v", a)
	}
	var want []Sockmap
	var maps []*ebpf.Map
	for name, kind := range map[string]ebpf.MapType{"of_array": ebpf.SockMap, "of_hash": ebpf.SockHash} {
		m, err := ebpf.NewMap(&ebpf.MapSpec{Name: name, Type: kind, KeySize: 4, ValueSize: 4, MaxEntries: 4})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if err := m.Update(uint32(0), uint32(fd), ebpf.UpdateAny); err != nil {
			t.Fatal(err)
		}
		info, err := m.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		want, maps = append(want, Sockmap{ID: uint32(id), Name: name}), append(maps, m)
	}
	byID := func(a, b Sockmap) int { return int(a.ID) - int(b.ID) }
	got := mustInspect(t, i, fd).Sockmaps
	slices.SortFunc(got, byID)
	slices.SortFunc(want, byID)
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, m := range maps {
		if err := m.Delete(uint32(0)); err != nil {
			t.Fatal(err)
		}
	}
	if a := mustInspect(t, i, fd); len(a.Sockmaps) != 0 {
		t.Errorf("it is in no sockmap any more: %+v", a)
	}
}
