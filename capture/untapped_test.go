package capture

import (
	"io"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ebpfdump/ebpfdump/bpf"
	"github.com/ebpfdump/ebpfdump/internal/testutil"
)

// A session whose tap somebody has taken off says so in the end, and its account says what came since.
func TestSessionTapTakenOff(t *testing.T) {
	testutil.RequireRoot(t)
	kind, _ := KindByName("udp")
	other, err := bpf.Open(bpf.Options{RingSize: bpf.MinRingSize})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for takes, take := range map[string]func(fd int) error{
		"nothing": func(int) error { return nil },
		"none":    func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0) },
		"classic": func(fd int) error { return restoreFilter(fd, []unix.SockFilter{{Code: unix.BPF_RET, K: 0xffff}}) },
		"tap":     other.Attach,
	} {
		said := newNotices()
		ns := mustNamespace(t)
		s, err := Open(Config{Kind: kind, Namespace: ns, Options: Options{RingSize: smallRing, Views: []View{ViewKernel, ViewUser}, Notice: said.add}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		conn := dialFrom(t, ns, "udp", s.Addr().String())
		sink := collect(t, s, func() {
			sendTo(t, conn, "a", "b")
			quietSession(t, s)
			if err := s.main.control(take); err != nil {
				t.Fatal(err)
			}
			sendTo(t, conn, "c", "d", "e")
			quietSession(t, s)
		})
		seen, term, lines := 2, " - 3 delivered while the tap was not on the socket", 1
		if takes == "nothing" {
			seen, term, lines = 5, "5 seen = 5 delivered", 0
		}
		if n := len(sink.view(ViewKernel)); n != seen {
			t.Errorf("%s: %d packets of the kernel view", takes, n)
		}
		all, err := s.Statistics()
		if err != nil || !strings.Contains(all[1].Comment, term) {
			t.Errorf("%s: %+v, %v", takes, all, err)
		}
		if text := said.all(); strings.Count(text, "somebody has taken the tap off the socket") != lines {
			t.Errorf("%s: it says %q", takes, text)
		}
	}
}

func sendTo(t *testing.T, w io.Writer, messages ...string) {
	t.Helper()
	for _, m := range messages {
		if _, err := io.WriteString(w, m); err != nil {
			t.Fatal(err)
		}
	}
}
