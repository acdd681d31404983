package capture

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/capability"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// choosers is the object of the programs that choose a socket by the first byte of a payload: made
// beforehand where there is no compiler (see the Makefile).
func choosers(tb testing.TB) string {
	tb.Helper()
	if made := os.Getenv("EBPFDUMP_OBJECTS"); made != "" {
		return filepath.Join(made, "choose.o")
	}
	clang := testutil.RequireTool(tb, "clang")
	machine, err := exec.Command("uname", "-m").Output()
	if err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(tb.TempDir(), "choose.o")
	compile := exec.Command(clang, "-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v2",
		"-idirafter", "/usr/include/"+strings.TrimSpace(string(machine))+"-linux-gnu",
		"-c", filepath.Join("..", "bpf", "testdata", "filters", "choose.c"), "-o", path)
	if out, err := compile.CombinedOutput(); err != nil {
		tb.Fatalf("%v\n%s", err, out)
	}
	return path
}

// chooser is one of them; nil for the kernel's hash.
func chooser(tb testing.TB, program string) *bpf.Selection {
	tb.Helper()
	if !capability.Held(unix.CAP_PERFMON) {
		testutil.Missing(tb, "needs CAP_PERFMON")
	}
	switch program {
	case "":
		return nil
	case "classic": // A = byte 0; A -= '0'; return A
		path := filepath.Join(tb.TempDir(), "classic.txt")
		if err := os.WriteFile(path, []byte("3\n48 0 0 0\n20 0 0 48\n22 0 0 0\n"), 0o600); err != nil {
			tb.Fatal(err)
		}
		s, err := bpf.ReadClassicSelection(path)
		if err != nil {
			tb.Fatal(err)
		}
		return s
	}
	s, err := bpf.ReadSelection(choosers(tb), program)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

const groupSize = 4

// sendToGroup sends messages from several sockets, so that the kernel's hash chooses several.
func sendToGroup(tb testing.TB, s *Session, network string) (sent map[string]bool) {
	const senders = 8
	sent = make(map[string]bool)
	var conns []net.Conn
	for range senders {
		conn := dialIn(tb, s, network)
		defer conn.Close()
		conns = append(conns, conn)
	}
	for n := range 200 {
		first := string("0123xh7"[n%7])
		message := fmt.Sprintf("%s %d", first, n)
		_, err := conns[n%senders].Write([]byte(message))
		if errors.Is(err, unix.ECONNREFUSED) { // the answer to one that the program had dropped
			_, err = conns[n%senders].Write([]byte(message))
		}
		if err != nil {
			tb.Fatal(err)
		}
		sent[message] = true
	}
	return sent
}

// Of each datagram the select view says which socket was chosen, and that one is what got it.
func TestReuseport(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ kind, network, program string }{
		{"udp", "udp", "digit"}, {"udp6", "udp6", "digit"}, {"udp", "udp", "number"}, {"udp6", "udp6", "classic"}, {"udp", "udp", ""},
	} {
		t.Run(test.kind+" "+test.program, func(t *testing.T) {
			t.Parallel()
			config := Config{Kind: mustKind(t, test.kind), Reuseport: groupSize}
			config.Selection = chooser(t, test.program)
			config.Views = []View{ViewKernel, ViewUser}
			if config.Selection != nil {
				config.Views = append(config.Views, ViewSelect)
			}
			var sent map[string]bool
			sink, s := run(t, config, func(s *Session) {
				sent = sendToGroup(t, s, test.network)
				if err := s.settle(t.Context(), Counts{}); err != nil {
					t.Error(err)
				}
			})
			g := checkedGroup{t, s, test.program}
			g.check(sink, sent)
			g.checkLedger(sink, len(sent))
		})
	}
}

// checkedGroup is a session with a group, and how its program chooses.
type checkedGroup struct {
	*testing.T
	session *Session
	program string
}

// chooses is the socket that a message is for; -1 for one that the kernel's hash takes, -2 for none.
func (g *checkedGroup) chooses(message string) int {
	first := message[0]
	switch {
	case g.program == "":
		return -1
	case first == 'x' && g.program == "digit":
		return -2
	case '0' <= first && first < '0'+groupSize:
		return int(first - '0')
	}
	return -1
}

func (g *checkedGroup) check(sink *memory, sent map[string]bool) {
	took := make(map[string]int)
	ids := make(map[string]uint64)
	used := make(map[int]bool)
	for _, p := range sink.view(ViewUser) {
		message := string(p.Data)
		if !sent[message] || ids[message] != 0 || p.ID == 0 {
			g.Errorf("%q came to userspace with id %d", message, p.ID)
		}
		took[message], ids[message] = p.Interface.Member, p.ID
		used[p.Interface.Member] = true
		if want := g.chooses(message); want != -1 && p.Interface.Member != want {
			g.Errorf("socket %d got %q, want %d", p.Interface.Member, message, want)
		}
		if want := fmt.Sprintf("%s[%d]:user", p.Interface.Kind, p.Interface.Member); p.Interface.Name() != want {
			g.Errorf("the interface is %s, want %s", p.Interface.Name(), want)
		}
	}
	if len(used) < 2 {
		g.Errorf("only the sockets %v got something", used)
	}
	for _, p := range sink.view(ViewKernel) {
		if message := string(p.Data[8:]); p.ID != ids[message] || p.Interface.Member != took[message] {
			g.Errorf("%q: id %d at socket %d, and userspace got %d at %d", message, p.ID, p.Interface.Member, ids[message], took[message])
		}
	}
	if g.program == "" {
		return
	}
	selected := 0
	for _, p := range sink.view(ViewSelect) {
		message := string(p.Data)
		if g.program == "digit" {
			message = message[8:]
		}
		selected++
		if want := g.wantSelection(message); p.Selection != want {
			g.Errorf("%q: %+v, want %+v", message, p.Selection, want)
		}
		_, got := ids[message]
		if gets := g.chooses(message) != -2; got != gets || gets && ids[message] != p.ID {
			g.Errorf("%q: id %d, and in userspace %d", message, p.ID, ids[message])
		}
		if p.Interface.Members != groupSize || p.Interface.Name() != p.Interface.Kind+":select" || p.Dst.Port() != ProbePort {
			g.Errorf("%q: interface %+v, to %v", message, p.Interface, p.Dst)
		}
	}
	if selected != len(sent) {
		g.Errorf("%d packets in the select view, of %d", selected, len(sent))
	}
}

// wantSelection is what is to be told of a message.
func (g *checkedGroup) wantSelection(message string) Selection {
	want := Selection{Sockets: groupSize, How: SelectorHash}
	chosen := g.chooses(message)
	switch {
	case chosen == -2:
		want.How = SelectorDrop
	case chosen >= 0:
		want.How, want.Socket = SelectorProgram, chosen
		if err := g.session.group.sockets[chosen].control(func(fd int) (err error) {
			want.Cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
			return err
		}); err != nil {
			g.Fatal(err)
		}
	case g.program != "digit":
		want.Refused, want.Asked = true, uint32(int32(message[0])-'0')
	case message[0] == '7':
		want.Refused, want.Asked, want.Errno = true, 7, syscall.ENOENT
	}
	return want
}

// checkLedger checks that every socket's account balances, and that of the selector.
func (g *checkedGroup) checkLedger(sink *memory, sent int) {
	all, err := g.session.Statistics()
	if err != nil {
		g.Fatal(err)
	}
	accounts, delivered := 0, uint64(0)
	for _, st := range all {
		if a := st.Account; a != nil {
			accounts++
			delivered += a.Delivered
			if want := fmt.Sprintf("%s[%d]", st.Interface.Kind, st.Interface.Member); a.Kind != want || a.Seen != a.Delivered {
				g.Errorf("account of %s: %v", want, a)
			}
		}
		if st.Interface.View == ViewSelect && (st.Received != uint64(sent) || st.Dropped != 0 || st.Delivered != uint64(sent)) {
			g.Errorf("select: %+v", st)
		}
	}
	if accounts != groupSize || delivered != uint64(len(sink.view(ViewUser))) {
		g.Errorf("%d accounts with %d messages", accounts, delivered)
	}
	counts, err := g.session.Counts()
	if err != nil {
		g.Fatal(err)
	}
	if n := uint64(len(sink.view(ViewSelect))); counts.Selected != n || counts.Select.Recorded != n {
		g.Errorf("counts %+v", counts)
	}
	if interfaces := len(g.session.Interfaces()); interfaces != 2*groupSize+len(sink.view(ViewSelect))/sent {
		g.Errorf("%d interfaces", interfaces)
	}
}

// A capture filter leaves choices out, and counts them: what is in the select view is what is in the others, and what
// the program has dropped. The sockets get all.
func TestReuseportExpression(t *testing.T) {
	t.Parallel()
	config := Config{Kind: mustKind(t, "udp"), Reuseport: groupSize, Selection: chooser(t, "digit")}
	config.Views = []View{ViewKernel, ViewUser, ViewSelect}
	config.Expression = mustExpression(t, "udp[8] = 0x32 or udp[8] = 0x78 or udp[8] = 0x37") // 2, x, 7
	wanted := func(message string) bool { return strings.ContainsAny(message[:1], "2x7") }
	var sent map[string]bool
	sink, s := run(t, config, func(s *Session) {
		sent = sendToGroup(t, s, "udp")
		if err := s.settle(t.Context(), Counts{}); err != nil {
			t.Error(err)
		}
	})
	want, dropped := 0, uint64(0)
	for message := range sent {
		if wanted(message) {
			want++
			if message[0] == 'x' {
				dropped++
			}
		}
	}
	ids := make(map[string]uint64)
	g := checkedGroup{t, s, "digit"}
	for _, p := range sink.view(ViewSelect) {
		message := string(p.Data[8:])
		if !wanted(message) || !sent[message] || ids[message] != 0 || p.ID == 0 || p.Selection != g.wantSelection(message) {
			t.Errorf("%q: id %d, %+v", message, p.ID, p.Selection)
		}
		ids[message] = p.ID
	}
	if len(ids) != want {
		t.Errorf("%d of %d choices", len(ids), want)
	}
	for view, before := range map[View]int{ViewKernel: 8, ViewUser: 0} {
		got := sink.view(view)
		if len(got) != want-int(dropped) {
			t.Errorf("%v has %d packets, want %d", view, len(got), want-int(dropped))
		}
		for _, p := range got {
			if message := string(p.Data[before:]); p.ID != ids[message] {
				t.Errorf("%v: %q has the id %d, and %d where it was chosen", view, message, p.ID, ids[message])
			}
		}
	}
	counts, err := s.Counts()
	if err != nil {
		t.Fatal(err)
	}
	if c := counts.Select; c.Seen != uint64(len(sent)) || c.Recorded != uint64(want) || c.Unwanted != uint64(len(sent)-want) || c.Lost() != 0 {
		t.Errorf("%+v of %d, of which %d are wanted", c, len(sent), want)
	}
	all, err := s.Statistics()
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range all {
		if st.Interface.View == ViewSelect && (st.Received != uint64(len(sent)) || st.Delivered != uint64(want) || st.Unwanted != uint64(len(sent)-want) || st.Accepted != uint64(want)-dropped) {
			t.Errorf("select: %+v", st)
		}
	}
}

// A program that chooses works the same if nobody wants to see what it sees, and beside the cgroup hooks.
func TestReuseportViews(t *testing.T) {
	t.Parallel()
	for _, views := range [][]View{{ViewKernel, ViewUser}, {ViewSelect, ViewCgroup, ViewKernel, ViewUser}} {
		sink, s := run(t, Config{Kind: mustKind(t, "udp"), Reuseport: groupSize, Selection: chooser(t, "digit"), Options: Options{Views: views}}, func(s *Session) {
			conn := dialIn(t, s, "udp")
			defer conn.Close()
			for n := range 20 {
				if _, err := fmt.Fprintf(conn, "%d", n%groupSize); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.settle(t.Context(), Counts{}); err != nil {
				t.Error(err)
			}
		})
		byID := make(map[uint64]int)
		for _, p := range sink.packets {
			if p.Interface.View != ViewSelect && (p.ID == 0 || p.Interface.Member != int(p.Data[len(p.Data)-1]-'0')) {
				t.Errorf("%s: id %d, %q", p.Interface.Name(), p.ID, p.Data)
			}
			byID[p.ID]++
		}
		for id, n := range byID {
			if n != len(views) {
				t.Errorf("packet %d is in %d views, of %v", id, n, views)
			}
		}
		if len(byID) != 20 {
			t.Errorf("%d packets", len(byID))
		}
		if counts, err := s.Counts(); err != nil || len(views) == 2 && counts.Select != (bpf.Counters{}) {
			t.Errorf("%+v, %v", counts, err)
		}
	}
}

func TestReuseportRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		config Config
		want   string
	}{
		{Config{Kind: mustKind(t, "tcp"), Reuseport: 2}, "of UDP alone, and not of a TCP listener"},
		{Config{Kind: mustKind(t, "udp"), Reuseport: MaxReuseport + 1}, "it must be from 1 to 128"},
		{Config{Kind: mustKind(t, "udp"), Selection: new(bpf.Selection)}, "Config.Reuseport is 0"},
		{Config{Kind: mustKind(t, "udp"), Reuseport: 2, Options: Options{Views: []View{ViewSelect}}}, "the view select is what a Config.Selection sees"},
		{Config{Kind: mustKind(t, "udp"), Reuseport: 2, Selection: chooser(t, "classic"), Options: Options{Views: []View{ViewSelect}, Expression: mustExpression(t, "udp")}}, "sees no ports"},
	} {
		if _, err := Open(test.config); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, want %s", err, test.want)
		}
	}
	if _, err := Join(JoinConfig{PIDs: []int{os.Getpid()}, Options: Options{Views: []View{ViewSelect}}}); err == nil || !strings.Contains(err.Error(), "the view select is only of a reuseport group") {
		t.Errorf("joining: %v", err)
	}
}
