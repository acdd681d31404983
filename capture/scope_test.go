package capture

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ebpfdump/ebpfdump/capture/internal/process"
)

// The scope of a process has its descendants, and is over with the process itself.
func TestFamilies(t *testing.T) {
	t.Parallel()
	server := startTarget(t, "prefork") // and its worker
	root, err := process.Open(server.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	s := newFamilies(root)
	defer s.close()
	for len(everyone(t, s)) < 2 {
		time.Sleep(time.Millisecond)
	}
	all := everyone(t, s)
	for i, p := range all {
		if found, err := s.find(p.PID); found != p || err != nil {
			t.Errorf("%v is found as %v, %v", p, found, err)
		}
		if s.named(p) != (i == 0) {
			t.Errorf("%v: named %v, it is number %d", p, s.named(p), i)
		}
	}
	enough := errors.New("enough")
	calls := 0
	if err := s.each(func(*process.Process) error { calls++; return enough }); err != enough || calls != 1 {
		t.Errorf("%d calls, %v, after an error of the first one", calls, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.await(ctx, nobody); !errors.Is(err, context.Canceled) || s.over() {
		t.Errorf("over while the server runs: %v", err)
	}
	server.stdin.Close()
	var ended []string
	if err := s.await(t.Context(), func(p string) { ended = append(ended, p) }); err != nil || !s.over() || len(ended) != 1 || ended[0] != root.String() {
		t.Errorf("not over although the server has ended: %v, %q", err, ended)
	}
	if err := server.Wait(); err != nil {
		t.Fatal(err)
	}
	s.bury()
	if len(s.held) != 1 {
		t.Errorf("%v are held, of which only the first one is to be", s.held)
	}
}

func nobody(string) {}

func everyone(t *testing.T, s scope) (all []*process.Process) {
	t.Helper()
	if err := s.each(func(p *process.Process) error { all = append(all, p); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}
